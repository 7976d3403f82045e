"""PastCodes: the latest whole rows, oldest first, and then the batch."""

import torch
from tests.coded import sparse, step

from unbraid.terms.statistics.past_codes import Entries, PastCodes


def dense(known: Entries) -> torch.Tensor:
    table = torch.zeros(known.count, known.d_sae).double()
    table[known.rows, known.latents.long()] = known.values
    return table


def test_it_holds_the_latest_whole_rows():
    batches = [sparse(30, 6, 0.4, seed) for seed in range(12)]
    memory: dict[str, torch.Tensor] = {}
    known = PastCodes(memory).with_past(step(batches[0]).z)
    for count, batch in enumerate(batches):
        known = PastCodes(memory).with_past(step(batch).z)
        PastCodes(memory).push(step(batch).z)
        seen = torch.cat(batches[: count + 1])
        found = dense(known)
        assert torch.equal(found, seen[len(seen) - len(found) :])
        assert known.old == int((found[:-30] != 0).sum())
    assert 5 * 30 < known.count < 12 * 30  # 64 x 6 entries, of 2.4 a row, and the batch itself


def test_a_batch_larger_than_the_ring_leaves_its_end():
    memory: dict[str, torch.Tensor] = {}
    PastCodes(memory).push(step(sparse(10, 4, 0.5)).z)
    large = sparse(400, 4, 0.9)
    PastCodes(memory).push(step(large).z)
    after = sparse(10, 4, 0.5, 1)
    found = dense(PastCodes(memory).with_past(step(after).z))
    everything = torch.cat([large, after])
    assert 50 < len(found) < 100 and torch.equal(found, everything[len(everything) - len(found) :])


def test_silent_batches_count_as_rows():
    memory: dict[str, torch.Tensor] = {}
    for _ in range(3):
        PastCodes(memory).push(step(torch.zeros(7, 2).double()).z)
    known = PastCodes(memory).with_past(step(torch.ones(1, 2).double()).z)
    assert (known.count, known.rows.tolist(), known.old) == (22, [21, 21], 0)


def test_the_queue_has_no_gradient_and_does_not_grow():
    memory: dict[str, torch.Tensor] = {}
    for seed in range(9):
        PastCodes(memory).push(step(sparse(50, 6, 0.5, seed).requires_grad_()).z)
        assert len(memory["past_codes.rows"]) == max(64 * 6, 4 * int((sparse(50, 6, 0.5) != 0).sum()))
        assert not any(value.requires_grad for value in memory.values())
