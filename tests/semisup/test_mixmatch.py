"""The step: worked by hand on a linear network, who gets gradients and BatchNorm updates, what compiles."""

import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fastcpc.config.schema import CpcConfig, ModelConfig, SemisupConfig
from fastcpc.models.build import build_network
from fastcpc.models.ghost_batchnorm import apply_ghost_batchnorm
from fastcpc.semisup import mixmatch
from fastcpc.semisup.mixup import Partners
from fastcpc.semisup.targets import co_refine

CIFAR = SemisupConfig(lambda_u=25.0, temperature=0.5)
WEB = SemisupConfig(lambda_u=0.0, temperature=0.5, batches_per_epoch=1000, labelled_half_only=True)
ONE_VIEW = dataclasses.replace(CIFAR, views=1)
ONE_VIEW_WEB = dataclasses.replace(WEB, views=1)
NUM_CLASSES = 5
BATCH = 6


def semisup_loss(own, other, guess_views, labels_B, **inputs):
    """The step with the other network's guesses, as the training pass makes them."""
    logits = other_logits(other, guess_views, labels_B)
    return mixmatch.semisup_loss(own, logits, guess_views, labels_B=labels_B, **inputs)


def guess_targets(own, other, guess_views, labels_B, **inputs):
    logits = other_logits(other, guess_views, labels_B)
    return mixmatch.guess_targets(own, logits, guess_views, labels_B=labels_B, **inputs)


def other_logits(other, guess_views, labels_B):
    with torch.no_grad():
        return other(torch.cat([view[len(labels_B) :] for view in guess_views]))


class Recorder(nn.Module):
    """Passes images on and remembers them, with whether gradients and train mode were on."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.calls: list[tuple[torch.Tensor, bool, bool]] = []

    def forward(self, images):
        self.calls.append((images.clone(), torch.is_grad_enabled(), self.training))
        return self.inner(images)


def linear(seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, NUM_CLASSES, bias=False))
    network[1].weight.data = torch.randn(NUM_CLASSES, 4, generator=generator)
    return network


def with_norm(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8, NUM_CLASSES)
    ).train()


def step_inputs(seed: int = 0, batch: int = BATCH, lam: float = 0.7, settings: SemisupConfig = CIFAR) -> dict:
    generator = torch.Generator().manual_seed(seed)
    num_views = settings.views
    views = [torch.randn(2 * batch, 1, 2, 2, generator=generator) for _ in range(2 * num_views)]
    num_mixed = (1 if settings.labelled_half_only else 2) * num_views * batch
    return {
        "guess_views": tuple(views[:num_views]),
        "train_views": tuple(views[num_views:]),
        "labels_B": torch.randint(NUM_CLASSES, (batch,), generator=generator),
        "clean_prob_B": torch.rand(batch, generator=generator),
        "lam": torch.tensor(lam),
        "partners": Partners(torch.randperm(2 * num_views * batch, generator=generator)[:num_mixed]),
        "weight_u": torch.tensor(12.5),
        "num_classes": NUM_CLASSES,
    }


def truth(own_weight, other_weight, inputs, temperature, half_only):
    """The whole step for linear networks, in float64, sample by sample. Differentiable in own_weight."""
    batch, num_views = len(inputs["labels_B"]), len(inputs["guess_views"])

    def softmax(weight, image):
        powers = torch.exp(weight @ image.double().flatten())
        return powers / powers.sum()

    def sharp(prob):
        return prob ** (1 / temperature) / (prob ** (1 / temperature)).sum()

    fixed = own_weight.detach()
    views = inputs["guess_views"]
    targets_x, targets_u = [], []
    for i in range(batch):
        clean = inputs["clean_prob_B"][i].double()
        label = torch.zeros(NUM_CLASSES, dtype=torch.float64)
        label[inputs["labels_B"][i]] = 1
        own_mean = sum(softmax(fixed, view[i]) for view in views) / num_views
        targets_x.append(sharp(clean * label + (1 - clean) * own_mean))
        j = batch + i
        guesses = [softmax(weight, view[j]) for weight in (fixed, other_weight) for view in views]
        targets_u.append(sharp(sum(guesses) / len(guesses)))
    halves = slice(batch), slice(batch, None)
    images = [image for half in halves for view in inputs["train_views"] for image in view[half]]
    targets = targets_x * num_views + targets_u * num_views
    lam = inputs["lam"].double()
    labelled = unlabelled = mean = torch.zeros((), dtype=torch.float64)
    num_labelled = num_views * batch
    num_passed = (1 if half_only else 2) * num_labelled
    for i in range(num_passed):
        partner = inputs["partners"].wanted[i]
        prob = softmax(own_weight, lam * images[i].double() + (1 - lam) * images[partner].double())
        target = lam * targets[i] + (1 - lam) * targets[partner]
        mean = mean + prob / num_passed
        if i < num_labelled:
            labelled = labelled - (target * prob.log()).sum() / num_labelled
        else:
            unlabelled = unlabelled + ((prob - target) ** 2).sum() / (num_labelled * NUM_CLASSES)
    penalty = sum(torch.log(1 / NUM_CLASSES / mean_k) / NUM_CLASSES for mean_k in mean)
    return labelled + inputs["weight_u"].double() * unlabelled + penalty, labelled, unlabelled, penalty


@pytest.mark.parametrize("settings", [CIFAR, WEB, dataclasses.replace(CIFAR, temperature=1.0), ONE_VIEW, ONE_VIEW_WEB])
@pytest.mark.parametrize(("batch", "lam"), [(6, 0.7), (1, 0.5), (7, 1.0)])
def test_step_against_float64_sample_by_sample(settings, batch, lam):
    own, other, inputs = linear(1), linear(2), step_inputs(3, batch, lam, settings)
    losses = semisup_loss(own.train(), other.eval(), **inputs, settings=settings)
    losses.total.backward()

    own_weight = own[1].weight.detach().double().requires_grad_()
    other_weight = other[1].weight.detach().double()
    expected = truth(own_weight, other_weight, inputs, settings.temperature, settings.labelled_half_only)
    expected[0].backward()
    for got, want in zip(losses, expected, strict=True):
        assert got.dtype == torch.float32
        assert got.shape == ()
        assert got.item() == pytest.approx(want.item(), rel=1e-5, abs=1e-6)
    assert_close(own[1].weight.grad.double(), own_weight.grad, rtol=1e-4, atol=1e-6)


def test_which_images_pass_through_which_network_and_how():
    own, other, inputs = Recorder(linear(1)).train(), Recorder(linear(2)).eval(), step_inputs()
    semisup_loss(own, other, **inputs, settings=CIFAR)
    first, second = inputs["guess_views"]
    expected = [first[BATCH:], second[BATCH:], first[:BATCH], second[:BATCH]]
    assert len(own.calls) == 5
    assert len(other.calls) == 1
    for (images, gradients, training), wanted in zip(own.calls, expected, strict=False):
        assert torch.equal(images, wanted)
        assert training
        assert not gradients
    images, gradients, training = own.calls[4]
    assert images.shape[0] == 4 * BATCH
    assert gradients
    assert training
    images, gradients, training = other.calls[0]
    assert torch.equal(images, torch.cat([first[BATCH:], second[BATCH:]]))
    assert not gradients
    assert not training


def test_web_mode_passes_the_labelled_half():
    own, inputs = Recorder(linear(1)), step_inputs(lam=1.0, settings=WEB)
    losses = semisup_loss(own, linear(2), **inputs, settings=WEB)
    one, two = inputs["train_views"]
    assert torch.equal(own.calls[-1][0], torch.cat([one[:BATCH], two[:BATCH]]))
    assert losses.unlabelled == 0


def test_order_of_the_mixed_batch():
    own, inputs = Recorder(linear(1)), step_inputs(lam=1.0)
    semisup_loss(own, linear(2), **inputs, settings=CIFAR)
    one, two = inputs["train_views"]
    assert torch.equal(own.calls[-1][0], torch.cat([one[:BATCH], two[:BATCH], one[BATCH:], two[BATCH:]]))


def test_labels_do_not_reach_the_unlabelled_half():
    own, other, inputs = linear(1), linear(2), step_inputs()
    changed = {**inputs, "labels_B": (inputs["labels_B"] + 1) % NUM_CLASSES}
    arguments = {key: inputs[key] for key in ("guess_views", "clean_prob_B", "num_classes")}
    target_x, target_u = guess_targets(own, other, labels_B=inputs["labels_B"], temperature=0.5, **arguments)
    other_x, other_u = guess_targets(own, other, labels_B=changed["labels_B"], temperature=0.5, **arguments)
    assert torch.equal(target_u, other_u)
    assert not torch.isclose(target_x, other_x).all(dim=1).any()


def test_the_other_networks_guess_reaches_the_unlabelled_half_alone():
    own, inputs = linear(1), step_inputs()
    arguments = {key: inputs[key] for key in ("guess_views", "labels_B", "clean_prob_B", "num_classes")}
    target_x, target_u = guess_targets(own, linear(2), temperature=0.5, **arguments)
    other_x, other_u = guess_targets(own, linear(3), temperature=0.5, **arguments)
    assert torch.equal(target_x, other_x)
    assert not torch.isclose(target_u, other_u).all(dim=1).any()
    assert not target_x.requires_grad
    assert not target_u.requires_grad


def test_gradients_reach_the_own_network_alone():
    own, other, inputs = with_norm(1), with_norm(2).eval(), step_inputs()
    losses = semisup_loss(own, other, **inputs, settings=CIFAR)
    assert losses.total.requires_grad
    assert not any(part.requires_grad for part in losses[1:])
    losses.total.backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in own.parameters())
    assert all(parameter.grad is None for parameter in other.parameters())


def test_batch_norm_moves_five_times_in_own_and_never_in_other():
    own, other, inputs = with_norm(1), with_norm(2).eval(), step_inputs()
    reference, before = copy.deepcopy(own), copy.deepcopy(other.state_dict())
    weights = [parameter.clone() for parameter in own.parameters()]
    recorder = Recorder(own)
    semisup_loss(recorder, other, **inputs, settings=CIFAR)
    assert own[1].num_batches_tracked == 5
    for images, _, _ in recorder.calls:
        reference(images)
    assert_close(own.state_dict(), reference.state_dict())
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())
    assert all(torch.equal(now, then) for now, then in zip(own.parameters(), weights, strict=True))


def test_each_view_is_normalised_by_its_own_batch():
    own, inputs = with_norm(1), step_inputs()
    arguments = {key: inputs[key] for key in ("labels_B", "clean_prob_B", "num_classes")}
    first, second = inputs["guess_views"]
    shifted = second.clone()
    shifted[BATCH:] += 100  # only the second view's unlabelled half: nothing of the labelled targets may change
    target_x, _ = guess_targets(own, linear(2), (first, second), temperature=0.5, **arguments)
    moved_x, _ = guess_targets(own, linear(2), (first, shifted), temperature=0.5, **arguments)
    assert torch.equal(target_x, moved_x)


@pytest.mark.parametrize(("guessing", "passes"), [("per_view", 5), ("merged", 2), ("running", 1)])
def test_guesses_by_common_or_by_running_statistics(guessing, passes):
    settings = dataclasses.replace(CIFAR, guess_batchnorm=guessing)
    own, other, inputs = with_norm(1), with_norm(2).eval(), step_inputs(settings=settings)
    views = inputs["guess_views"]
    reference = copy.deepcopy(own)
    reference.train(guessing != "running")
    # the order of the parts plays no role in common statistics
    logits = reference(torch.cat([view[part] for part in (slice(BATCH, None), slice(BATCH)) for view in views]))
    arguments = {key: inputs[key] for key in ("labels_B", "clean_prob_B", "num_classes")}
    torch.compiler.reset()
    compiled = torch.compile(guess_targets, backend="eager", fullgraph=True)
    for guess_them in (guess_targets, compiled):
        target_x, _ = guess_them(copy.deepcopy(own), other, views, temperature=0.5, batchnorm=guessing, **arguments)
        if guessing != "per_view":
            want = co_refine(inputs["labels_B"], inputs["clean_prob_B"], logits.chunk(4)[2:], 0.5, NUM_CLASSES)
            assert_close(target_x, want)
    semisup_loss(own, other, **inputs, settings=settings)
    assert own[1].num_batches_tracked == passes and own.training


@pytest.mark.parametrize("settings", [CIFAR, WEB, ONE_VIEW])
def test_compiles_whole_and_gives_the_same(settings):
    eager, other, inputs = with_norm(1), with_norm(2).eval(), step_inputs(settings=settings)
    compiled_own = copy.deepcopy(eager)
    torch.compiler.reset()
    compiled = torch.compile(semisup_loss, backend="eager", fullgraph=True)
    with torch.compiler.set_stance("default"):
        got = compiled(compiled_own, other, **inputs, settings=settings)
    want = semisup_loss(eager, other, **inputs, settings=settings)
    assert_close(tuple(got), tuple(want))
    got.total.backward()
    want.total.backward()
    for parameter, reference in zip(compiled_own.parameters(), eager.parameters(), strict=True):
        assert_close(parameter.grad, reference.grad)
    assert_close(compiled_own.state_dict(), eager.state_dict())
    with torch.compiler.set_stance("fail_on_recompile"):
        compiled(compiled_own, other, **step_inputs(9, lam=0.9, settings=settings), settings=settings)


def test_compiles_whole_with_a_real_network():
    networks = [
        build_network(ModelConfig(name="digits_cnn", width=16), CpcConfig(embedding_dim=8), num_classes=NUM_CLASSES,
                      in_channels=1, image_size=8, seed=seed)
        for seed in (1, 2)
    ]  # fmt: skip
    inputs = step_inputs()
    images = [torch.randn(2 * BATCH, 1, 8, 8) for _ in range(4)]
    inputs |= {"guess_views": tuple(images[:2]), "train_views": tuple(images[2:])}
    want = semisup_loss(copy.deepcopy(networks[0]), networks[1].eval(), **inputs, settings=CIFAR)
    torch.compiler.reset()
    compiled = torch.compile(semisup_loss, backend="eager", fullgraph=True)
    assert_close(tuple(compiled(networks[0], networks[1], **inputs, settings=CIFAR)), tuple(want))


def test_under_autocast_losses_are_float32_and_gradients_still_flow():
    # Autocast keeps casted weights; those casted for the guesses, without gradients, must not serve the training pass.
    own, other, inputs = with_norm(1), with_norm(2).eval(), step_inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = semisup_loss(own, other, **inputs, settings=CIFAR)
    assert all(loss.dtype == torch.float32 for loss in losses)
    losses.total.backward()
    reference = with_norm(1)
    full = semisup_loss(reference, other, **inputs, settings=CIFAR)
    full.total.backward()
    assert losses.total.item() == pytest.approx(full.total.item(), rel=0.05)
    for parameter, wanted in zip(own.parameters(), reference.parameters(), strict=True):
        assert_close(parameter.grad, wanted.grad, rtol=0.2, atol=0.05)


def test_step_does_not_look_at_values():
    # On the meta device there are no values: any .item(), branch on a value or host copy raises.
    own, other = with_norm(1).to("meta"), with_norm(2).to("meta").eval()
    inputs = step_inputs()
    on_meta = {"partners": Partners(inputs.pop("partners").wanted.to("meta"))} | {
        key: tuple(view.to("meta") for view in value)
        if isinstance(value, tuple)
        else value.to("meta")
        if isinstance(value, torch.Tensor)
        else value
        for key, value in inputs.items()
    }
    losses = semisup_loss(own, other, **on_meta, settings=CIFAR)
    assert all(loss.device.type == "meta" and loss.shape == () for loss in losses)


@pytest.mark.parametrize("guessing", ["per_view", "merged"])
def test_compiled_step_casts_all_weights_at_once_and_gives_the_same(guessing):
    settings = dataclasses.replace(CIFAR, guess_batchnorm=guessing)
    eager, other, inputs = with_norm(1), with_norm(2).eval(), step_inputs()
    eager[0].weight.requires_grad_(False)  # a frozen layer, which autocast casts
    assert apply_ghost_batchnorm(eager)
    compiled_own = copy.deepcopy(eager)
    torch.compiler.reset()
    compiled = torch.compile(semisup_loss, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        want = semisup_loss(eager, other, **inputs, settings=settings)
        got = compiled(compiled_own, other, **inputs, settings=settings)
    want.total.backward()
    got.total.backward()
    assert_close(tuple(got), tuple(want), rtol=1e-4, atol=1e-5)
    for parameter, reference in zip(compiled_own.parameters(), eager.parameters(), strict=True):
        assert (parameter.grad is None) == (reference.grad is None)
        if parameter.grad is not None:
            assert_close(parameter.grad, reference.grad, rtol=1e-2, atol=1e-3)
    assert_close(compiled_own.state_dict(), eager.state_dict(), rtol=1e-3, atol=1e-4)
