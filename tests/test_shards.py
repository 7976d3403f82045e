"""How a training is cut for several workers."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.small import experiment, seeded
from unbraid.cli.shards import Shard, shards
from unbraid.experiment.experiment import Experiment
from unbraid.experiment.study import cohorts
from unbraid.terms.causal.effect import Effect


def streams(*members: int) -> list[list[Experiment]]:
    """Cohorts of so many members each, which differ in their stream."""
    made = []
    for seed, count in enumerate(members):
        own = [seeded(experiment(f"m{number}"), seed) for number in range(count)]
        made += [replace(one, training=replace(one.training, data_seed=seed)) for one in own]
    return cohorts(made)


def counts(found: Sequence[Shard]) -> list[int]:
    return [len(shard.experiments) for shard in found]


@pytest.mark.parametrize(
    ("members", "workers", "expected"),
    [
        ((3, 3), 2, [3, 3]),
        ((3, 3, 3, 3), 2, [3, 3, 3, 3]),
        ((4, 4, 4), 2, [4, 4, 2, 2]),
        ((6,), 2, [3, 3]),
        ((7,), 4, [2, 2, 2, 1]),
        ((2,), 4, [1, 1]),
        ((8, 1), 2, [4, 4, 1]),
        ((1, 1, 1), 2, [1, 1, 1]),
        ((5,), 1, [5]),
        ((10, 10, 10, 10), 10_000, [1] * 40),
    ],
)
def test_streams_stay_whole_unless_workers_would_end_apart(members, workers, expected):
    assert counts(shards(streams(*members), workers)) == expected


def test_every_member_is_in_one_shard_and_on_its_own_stream():
    groups = streams(5, 3, 2)
    found = shards(groups, 4)
    assert sorted(e.folder for shard in found for e in shard.experiments) == sorted(e.folder for g in groups for e in g)
    assert all(len({e.data_seed for e in shard.experiments}) == 1 for shard in found)


def test_members_that_take_long_are_shared_out():
    slow = [experiment(f"slow{number}", effect=Effect()) for number in range(2)]
    found = shards([[*slow, *(experiment(f"quick{number}") for number in range(4))]], 2)
    assert [sum("slow" in e.name for e in shard.experiments) for shard in found] == [1, 1]


def test_a_shard_says_which_stream_and_part_it_is():
    assert [shard.place for shard in shards(streams(4, 4, 4), 2)] == [
        "stream 2 of 3", "stream 3 of 3", "stream 1 of 3, part 1 of 2", "stream 1 of 3, part 2 of 2",
    ]  # fmt: skip
    assert [shard.place for shard in shards(streams(1), 2)] == [""]
