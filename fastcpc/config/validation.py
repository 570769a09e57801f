"""Rules between settings. Each message names the setting to change first, then the setting that it conflicts with."""

import difflib
from collections.abc import Iterator

from fastcpc.config import names
from fastcpc.config.constraints import did_you_mean, shown
from fastcpc.config.normalise import FORM, read_normalise
from fastcpc.config.rules.training import SettingProblem, training_problems
from fastcpc.config.schema import Config
from fastcpc.config.sizes import crop_of, resize_of

ASYM_LIMIT = 0.5
LEAST_PIXELS = 8  # of data.resize and data.crop


def cross_setting_problems(config: Config) -> list[SettingProblem]:
    """Every conflict between settings that are each valid."""
    return [
        *training_problems(config), *_pool(config), *_semisup(config), *_noise(config), *_data(config),
        *_augment(config), *_model(config), *_run(config), *_parallel(config),
    ]  # fmt: skip


def _pool(config: Config) -> Iterator[SettingProblem]:
    if config.cleaner.scored != "pool":
        return
    if not config.train.pool_batches:
        yield SettingProblem(
            ("cleaner.scored", "train.pool_batches"),
            "cleaner.scored=pool: needs a pool, and train.pool_batches is 0; set it, or use cleaner.scored=all",
        )
    if config.cleaner.loss_history > 1:
        yield SettingProblem(
            ("cleaner.loss_history", "cleaner.scored"),
            f"cleaner.loss_history={config.cleaner.loss_history}: needs the losses of the same samples in every epoch, "
            "and cleaner.scored=pool scores other samples each time; set it to 1, or use cleaner.scored=all",
        )


def _semisup(config: Config) -> Iterator[SettingProblem]:
    semisup = config.semisup
    if semisup.labelled_half_only and semisup.lambda_u > 0:
        yield SettingProblem(
            ("semisup.labelled_half_only", "semisup.lambda_u"),
            "semisup.labelled_half_only=true: there is no unlabelled loss to multiply by "
            f"semisup.lambda_u={semisup.lambda_u:g}; set lambda_u to 0, or labelled_half_only to false",
        )


def _noise(config: Config) -> Iterator[SettingProblem]:
    noise, data = config.noise, config.data.name
    if noise.kind == "file" and not noise.file:
        yield SettingProblem(
            ("noise.file", "noise.kind"), "noise.file is empty: noise.kind=file needs the path of a label file"
        )
    if noise.kind != "file":
        for name in ("file", "key"):
            if getattr(noise, name):
                yield SettingProblem(
                    (f"noise.{name}", "noise.kind"),
                    f"noise.{name}={getattr(noise, name)}: is read only with noise.kind=file, not {noise.kind}",
                )
    if noise.kind == "asym_pairs" and not noise.pairs:
        yield SettingProblem(
            ("noise.pairs", "noise.kind"),
            "noise.pairs is empty: noise.kind=asym_pairs needs pairs of classes, such as "
            "'shirt -> longsleeve, skirt -> dress'",
        )
    if noise.kind != "asym_pairs" and noise.pairs:
        yield SettingProblem(
            ("noise.pairs", "noise.kind"),
            f"noise.pairs={noise.pairs}: is read only with noise.kind=asym_pairs, not {noise.kind}",
        )
    if noise.kind in ("none", "file") and noise.rate > 0:
        instead = "a kind that is drawn (sym, asym)" if noise.kind == "none" else "the file's labels as they are"
        yield SettingProblem(
            ("noise.rate", "noise.kind"),
            f"noise.rate={noise.rate:g}: noise.kind={noise.kind} draws no noise; choose {instead}, or noise.rate=0",
        )
    if noise.kind.startswith("asym") and noise.rate > ASYM_LIMIT:
        yield SettingProblem(
            ("noise.rate", "noise.kind"),
            f"noise.rate={noise.rate:g}: must be in [0, {ASYM_LIMIT}] for noise.kind={noise.kind}; above it the wrong "
            "class is the most frequent one, and the true class cannot be learned",
        )
    if noise.kind not in ("none", "file") and noise.rate == 0:
        yield SettingProblem(
            ("noise.rate", "noise.kind"),
            f"noise.rate=0: noise.kind={noise.kind} needs a rate above 0; noise.kind=none adds no noise",
        )
    own_kinds = names.DATASETS[data].noise_kinds
    if noise.kind in names.OWN_NOISE and noise.kind not in own_kinds:
        choices = [f"{kind} ({names.OWN_NOISE[kind]})" for kind in own_kinds]
        choices = choices or ["asym_pairs (noise.pairs)", "asym_next (the next class)"]
        yield SettingProblem(
            ("noise.kind", "data.name"),
            f"noise.kind={noise.kind}: is not defined for {data}; choose {' or '.join(choices)}",
        )


def _data(config: Config) -> Iterator[SettingProblem]:
    data = config.data
    traits = names.DATASETS[data.name]
    if traits.needs_root and not data.root:
        yield SettingProblem(
            ("data.root", "data.name"), f"data.root is empty: data.name={data.name} needs the folder of its files"
        )
    for name in dict.fromkeys(name for other in names.DATASETS.values() for name in other.settings):
        value = getattr(data, name)
        if value and name not in traits.settings:
            shown = "true" if value is True else value
            *some, last = (owner for owner, other in names.DATASETS.items() if name in other.settings)
            owners = f"{', '.join(some)} or {last}" if some else last
            yield SettingProblem(
                (f"data.{name}", "data.name"),
                f"data.{name}={shown}: is read only with data.name={owners}, not {data.name}",
            )
    if data.name == "embeddings":
        yield from _embeddings(config)
    yield from _normalise(config)
    if problem := feed_problem(data.name, traits.kind, data.feed):
        yield SettingProblem(("data.feed", "data.name"), problem)
    if traits.kind != "images" and data.index:
        yield SettingProblem(
            ("data.index", "data.name"), f"data.index={data.index}: {data.name} has no index; leave it empty"
        )
    if traits.kind == "images":
        yield from _sizes(config)


def _sizes(config: Config) -> Iterator[SettingProblem]:
    data = config.data
    for name, pixels in (("resize", data.resize), ("crop", data.crop)):
        if 0 < pixels < LEAST_PIXELS:
            yield SettingProblem((f"data.{name}",), f"data.{name}={pixels}: must be 0 or {LEAST_PIXELS} or more")
    is_open = config.model.weights and not (data.crop and data.resize)  # checked when the weights are known
    if crop_of(data) > resize_of(data) and not is_open:
        yield SettingProblem(
            ("data.crop", "data.resize"),
            f"data.crop={crop_of(data)}: must not exceed data.resize={resize_of(data)}, the shorter side of the "
            "resized image",
        )


def _normalise(config: Config) -> Iterator[SettingProblem]:
    text, name = config.data.normalise, config.data.name
    try:
        explicit = read_normalise(text) is not None
    except ValueError:
        yield SettingProblem(("data.normalise",), f"data.normalise={shown(text)}: must be {FORM}")
        return
    if explicit and name == "embeddings":
        yield SettingProblem(
            ("data.normalise", "data.name"), f"data.normalise={text}: is for images, not for data.name=embeddings"
        )


def feed_problem(dataset: str, kind: str, feed: str) -> str:
    """Why ``data.feed`` does not serve a data set of this ``DatasetTraits.kind``; empty where it does."""
    if kind == "embeddings" and feed not in ("auto", "memory"):
        return f"data.feed={feed}: serves image files, not embeddings; use auto or memory"
    if kind == "arrays" and feed not in ("auto", "memory"):
        return f"data.feed={feed}: serves image files, and {dataset} is held in memory; use auto or memory"
    if kind == "images" and feed == "memory":
        return f"data.feed=memory: {dataset} is read from image files; use auto, dali or torch"
    return ""


def _embeddings(config: Config) -> Iterator[SettingProblem]:
    data = config.data
    if not data.embeddings:
        yield SettingProblem(
            ("data.embeddings", "data.name"),
            "data.embeddings is empty: data.name=embeddings needs a file of vectors, or a folder of fastcpc-embed",
        )
    for one, other in (("test_embeddings", "test_labels"), ("test_labels", "test_embeddings")):
        if getattr(data, one) and not getattr(data, other):
            yield SettingProblem(
                (f"data.{other}", f"data.{one}"), f"data.{other} is empty: data.{one}={getattr(data, one)} needs it"
            )
    if config.model.name not in names.EMBEDDING_BACKBONES:
        yield SettingProblem(
            ("model.name", "data.name"),
            f"model.name={config.model.name}: is for images; with data.name=embeddings choose "
            f"{' or '.join(names.EMBEDDING_BACKBONES)}",
        )


def _augment(config: Config) -> Iterator[SettingProblem]:
    augment = config.augment
    if augment.style != "torchvision" and augment.strong != "autoaugment":
        yield SettingProblem(
            ("augment.style", "augment.strong"),
            f"augment.style={augment.style}: applies to augment.strong=autoaugment, not {augment.strong}; use "
            "augment.style=torchvision",
        )


def _model(config: Config) -> Iterator[SettingProblem]:
    model = config.model
    near = did_you_mean(difflib.get_close_matches(model.name.lower(), names.BACKBONES, n=1))
    of_timm = model.name.startswith(names.TIMM_PREFIX) and model.name != names.TIMM_PREFIX
    if model.name not in names.BACKBONES and not of_timm:
        yield SettingProblem(
            ("model.name",), f"model.name={model.name}: must be {', '.join(names.BACKBONES)} or timm/NAME{near}"
        )
    elif model.weights and not (of_timm or model.name in names.WEIGHTS_BY_NAME or names.is_weights_path(model.weights)):
        yield SettingProblem(
            ("model.weights", "model.name"),
            f"model.weights={model.weights}: {model.name} has no weights by name; give the path of a .safetensors file",
        )
    data, of_images = config.data, names.DATASETS[config.data.name].kind == "images"
    pixels = crop_of(data) if of_images else names.DATASETS[data.name].pixels
    most = names.MOST_PIXELS.get(model.name, pixels)
    if pixels > most:
        size = f"data.crop={pixels}" if of_images else f"{data.name} has {pixels}"
        yield SettingProblem(
            ("model.name", "data.crop" if of_images else "data.name"),
            f"model.name={model.name}: is for images of up to {most} pixels, and {size}; choose "
            f"{'resnet50 or timm/NAME' if of_images else 'preact_resnet18'}",
        )
    if model.name in names.EMBEDDING_BACKBONES and data.name != "embeddings":
        yield SettingProblem(
            ("model.name", "data.name"),
            f"model.name={model.name}: is for data.name=embeddings; on {data.name} choose preact_resnet18 or timm/NAME",
        )


def _run(config: Config) -> Iterator[SettingProblem]:
    name = config.run.name
    if not config.run.dir and (name.startswith("/") or {"", ".", ".."} & set(name.split("/"))):
        yield SettingProblem(
            ("run.name", "run.dir"),
            f"run.name={name or repr(name)}: must name a folder below runs; to write elsewhere, set run.dir",
        )
    if not config.run.resume:
        yield SettingProblem(
            ("run.resume",), "run.resume is empty: must be auto, never, or the path of a checkpoint's folder"
        )


def _parallel(config: Config) -> Iterator[SettingProblem]:
    if config.parallel.lr_scaling == "linear" and config.parallel.batch_size == "global":
        yield SettingProblem(
            ("parallel.lr_scaling", "parallel.batch_size"),
            "parallel.lr_scaling=linear: scales with the global batch, which parallel.batch_size=global keeps fixed; "
            "set it to none, or batch_size to per_rank",
        )
