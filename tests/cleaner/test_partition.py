import torch

from fastcpc.cleaner.partition import Partition, classes_without_clean, co_divide, partition_problem, partition_samples


def test_each_network_gets_the_partition_of_the_other() -> None:
    q_1, q_2 = torch.tensor([0.9, 0.2, 0.6]), torch.tensor([0.1, 0.8, 0.5])
    of_1, of_2 = co_divide(q_1, q_2, 0.5)
    assert of_1.clean_N.tolist() == [False, True, False]
    assert of_2.clean_N.tolist() == [True, False, True]
    assert torch.equal(of_1.clean_prob_N, q_2) and torch.equal(of_2.clean_prob_N, q_1)


def test_every_sample_is_in_exactly_one_set() -> None:
    part = partition_samples(torch.rand(101, generator=torch.Generator().manual_seed(0)), 0.5)
    assert sorted(part.labelled.tolist() + part.unlabelled.tolist()) == list(range(101))


def test_partition_of_a_pool_leaves_the_rest_out() -> None:
    part = partition_samples(torch.tensor([0.9, 0.2, 0.6]), 0.5).scatter_to(torch.tensor([1, 4, 5]), 7)
    assert (part.labelled.tolist(), part.unlabelled.tolist(), part.scored.tolist()) == ([1, 5], [4], [1, 4, 5])
    assert part.clean_prob_N[[1, 4, 5]].tolist() == torch.tensor([0.9, 0.2, 0.6]).tolist()


def test_probability_equal_to_tau_is_noisy() -> None:
    assert partition_samples(torch.tensor([0.5, 0.7, 0.70001]), 0.7).clean_N.tolist() == [False, False, True]


def test_partition_with_too_few_labelled_samples_has_a_problem() -> None:
    labels = torch.arange(20) % 4
    few = Partition(torch.arange(20) < 3, torch.ones(20))
    assert "only 3 of 20 samples are predicted clean, fewer than the 4 classes" in partition_problem(few, labels, 4)
    assert partition_problem(Partition(torch.arange(20) < 4, torch.ones(20)), labels, 4) == ""
    all_clean = Partition(torch.ones(20, dtype=torch.bool), torch.ones(20))
    assert partition_problem(all_clean, labels, 4) == ""


def test_classes_without_clean_samples_are_named() -> None:
    labels = torch.tensor([0, 0, 1, 2, 2, 4])
    clean = torch.tensor([True, False, False, True, True, False])
    assert classes_without_clean(Partition(clean, clean.float()), labels, 5) == (1, 4)  # class 3 has no samples to lose
