"""What evals share: made once, of one source, in bounded memory, and never another number than without."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.known import EXACT, untrained
from unbraid.dictionary.encoding import moved
from unbraid.evals.absorption import absorption_scores
from unbraid.evals.controllability import controllability_scores
from unbraid.evals.disentanglement import disentanglement_scores
from unbraid.evals.memorisation import memorisation_scores
from unbraid.evals.probe_absorption import probe_absorption_scores
from unbraid.evals.recovery import recovery_scores
from unbraid.evals.shared.observe import baseline_of, held_out_codes, labelled_rows, observe
from unbraid.sources.stream import held_out
from unbraid.sources.world.world import World
from unbraid.system import sharing as subject
from unbraid.system.sharing import Store, share_to_the_end, shared, sharing, size

CALLS: list[int] = []


@shared
def squares(count: int) -> torch.Tensor:
    CALLS.append(count)
    return torch.arange(count).square()


def test_a_function_is_called_once_for_equal_arguments_while_open_and_each_time_outside():
    CALLS.clear()
    with sharing():
        assert squares(3) is squares(3) and squares(4) is not squares(3)
        with sharing():
            assert squares(3).tolist() == [0, 1, 4]
    assert CALLS == [3, 4]
    assert squares(3) is not squares(3) and CALLS == [3, 4, 3, 3]


def test_a_worker_shares_until_it_ends(monkeypatch):
    monkeypatch.setattr(subject, "_store", type(subject._store)("of this test", default=None))
    share_to_the_end()
    assert squares(5) is squares(5)


def test_what_cannot_be_a_key_is_not_shared():
    found = shared(lambda numbers: list(numbers))
    with sharing():
        assert found([1]) == [1] and found([1]) is not found([1])


def test_an_error_is_not_kept():
    @shared
    def fails(times: list[int]) -> None:
        raise ValueError("no")

    with sharing():
        for _ in range(2):
            with pytest.raises(ValueError, match="no"):
                fails([])


def test_memory_is_bounded_and_what_was_used_longest_ago_goes_first():
    store = Store(limit=1000)
    made = lambda: torch.zeros(100)  # 400 bytes
    for key in ("a", "b"):
        store.get(key, made)
    store.get("a", made)
    store.get("c", made)
    assert list(store.values) == ["a", "c"] and store.bytes() == 800
    assert len(store.get("too large", lambda: torch.zeros(1000))) == 1000
    assert store.bytes() <= 1000 and "too large" not in store.values


def test_an_array_that_two_values_hold_counts_once():
    x, y = torch.zeros(10), np.zeros(10)
    assert size({"x": x, "view": x[2:], "two": (x, x.numpy())}, set()) == size([x[2:]], set()) == 40
    assert size([y, y[2:], y.reshape(2, 5), torch.from_numpy(y)], set()) == size([y[2:]], set()) == 80


def test_dictionaries_that_keys_hold_count_too():
    width = shared(lambda dictionary: dictionary.d_sae)
    first, *others = (untrained(EXACT, 40) for _ in range(4))
    one = size(first, set())
    assert one >= 2 * first.W_dec.nbytes
    with sharing(limit=3 * one):
        assert [width(made) for made in (first, *others)] == [40] * 4
        store = subject._store.get()
        assert store is not None and len(store.values) == 3 and store.bytes() == 3 * one


def test_what_is_shared_is_of_one_source():
    other = replace(EXACT, seed=EXACT.seed + 1)
    made = untrained(EXACT, 40)
    with sharing():
        assert labelled_rows(EXACT) is labelled_rows(replace(EXACT)) is not labelled_rows(other)
        ours, theirs = observe(made, EXACT), observe(made, other)
        assert ours is observe(made, EXACT) and (ours.latents - theirs.latents).nnz
        assert baseline_of(ours, EXACT) != baseline_of(theirs, other)
        assert held_out_codes(made, EXACT) is not held_out_codes(made, other)


@pytest.mark.parametrize("world", [EXACT, replace(EXACT, noise=0.05, seed=3)], ids=["exact", "noisy"])
def test_scores_are_those_made_alone(world):
    dictionaries = [untrained(world, 40), untrained(world, 24), untrained(world, 40)]
    evals = [
        lambda d: recovery_scores(d, world),
        lambda d: absorption_scores(d, world),
        lambda d: memorisation_scores(d, world),
        lambda d: disentanglement_scores(d, world, rows=4096),
        lambda d: probe_absorption_scores(d, world),
        lambda d: controllability_scores(d, world),
    ]
    alone = [str(one(made)) for made in dictionaries for one in evals]
    with sharing():
        assert [str(one(made)) for made in dictionaries for one in evals] == alone


def test_a_dictionary_changed_in_place_is_encoded_anew_outside():
    made = untrained(EXACT, 24)
    with sharing():
        before = observe(made, EXACT).latents.nnz
    made.b_enc.data.fill_(-1e6)
    assert observe(made, EXACT).latents.nnz != before


def test_a_dictionary_is_moved_as_a_copy():
    made = untrained(EXACT, 24)
    assert moved(made, torch.device("cpu")) is made
    assert moved(made, torch.device("meta")) is not made and made.W_dec.device.type == "cpu"


def test_held_out_rows_of_several_numbers_are_read_once_and_are_one_memory(monkeypatch: pytest.MonkeyPatch):
    world, read = replace(EXACT, seed=77), list[int]()
    block = World.block
    monkeypatch.setattr(World, "block", lambda self, index, **how: (read.append(index), block(self, index, **how))[1])
    few, many, some = (held_out(world, rows).x for rows in (100, 40_000, 20_000))
    assert read == sorted(set(read)), "no block is read twice"
    assert len(few) == 100 and torch.equal(few, many[:100]) and some.data_ptr() == many.data_ptr()
