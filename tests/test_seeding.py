import torch

from unbraid import seeding


def test_streams_of_different_names_share_no_numbers():
    first = torch.randn(1000, generator=seeding.stream(0, "init"))
    other = torch.randn(1000, generator=seeding.stream(0, "samples"))
    assert abs(float((first * other).mean())) < 0.15
    assert not torch.equal(first, other)


def test_a_stream_is_a_function_of_seed_and_name():
    assert torch.equal(*(torch.randn(5, generator=seeding.stream(7, "init")) for _ in range(2)))
    assert seeding.integer(1, "init") != seeding.integer(2, "init")
