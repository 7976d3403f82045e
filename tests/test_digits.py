"""The digits experiment: memory describes what it holds, and only that; counts and picks by hand."""

import numpy as np
import pytest
from benchmarks.digits import Digits, images, memory, most_used, participation, picture, scored, shortest, study

from unbraid.sources.stream import held_out


def test_images_are_described_or_held_out_never_both():
    described, kept = images("train"), images("eval")
    assert (len(described), len(kept)) == (1438, 359)
    assert not {row.numpy().tobytes() for row in described} & {row.numpy().tobytes() for row in kept}
    assert len(held_out(Digits(), 1000)) == 359


def test_memory_costs_little_more_than_the_name_of_an_image_and_much_with_its_decoder():
    rows = scored("memory", 1, 0, memory())
    assert [row["at"] for row in rows] == [0.1, 0.2, 0.3]
    for row in rows:
        assert row["fvu"] < 1e-6 < row["fvu_held_out"] and row["l0"] == pytest.approx(1)
        assert np.log2(1438) < row["bits"] < np.log2(1438) + 1.5 and row["with_decoder"] > 1000


def test_participation_counts_the_pixels_that_an_atom_is_spread_over():
    assert participation(np.array([[1.0, 0, 0, 0], [1, -1, 0, 0], [2, 2, 2, 2]])) == pytest.approx([1, 2, 4])


def test_the_most_used_come_first_and_the_unused_not_at_all():
    assert most_used(np.array([2, 2, 0, 2, 0, 5]), 10).tolist() == [2, 0, 5]


def test_the_shortest_is_taken_among_settings_that_all_seeds_reach():
    def row(d_sae: int, seed: int, bits: float) -> dict:
        return {"method": "batchtopk", "asked": 4, "d_sae": d_sae, "seed": seed, "at": 0.2, "bits": bits}

    rows = [row(16, seed, 30.0) for seed in range(3)] + [row(32, seed, 20.0) for seed in range(2)]
    assert {r["d_sae"] for r in shortest(rows, 0.2, "bits")} == {16}
    with pytest.raises(ValueError, match="no setting reaches"):
        shortest(rows[3:], 0.2, "bits")


def test_every_width_is_asked_for_fewer_latents_than_it_has():
    assert max(m.activation.k for m in study(16).members.values()) == 8  # pyright: ignore[reportAttributeAccessIssue]


def test_a_picture_has_a_square_for_every_pixel_and_an_edge_for_every_atom():
    drawn = picture([("a", ["b"], np.eye(3, 64)), ("c", [], np.eye(2, 64))])
    assert drawn.count("<rect") == 5 * (64 + 1) + 1 and ">a<" in drawn
