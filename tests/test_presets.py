"""Preset worlds exist, draw, and are what their descriptions say; the benchmark that times them runs."""

from dataclasses import replace

import pytest
import torch
from benchmarks.world import measure

from unbraid.config.serialise import from_json, to_json
from unbraid.sources.world.presets import PRESETS, hours, memorisation, realistic


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_draws_finite_activations_of_its_width(name: str):
    world = PRESETS[name]()
    labelled = world.labelled(64, split="train")
    assert labelled.x.shape == (64, world.d_in) and labelled.x.isfinite().all()
    assert from_json(to_json(world)) == world
    sizes = {
        "seconds": (96, 32),
        "minutes": (1024, 128),
        "hour": (4096, 256),
        "hours": (16_384, 768),
        "realistic": (256, 128),
    }
    assert (world.factors, world.d_in) == sizes.get(name, (8, 16))


def test_the_largest_preset_has_every_kind_of_factor():
    world = hours()
    assert len(world.manifolds) == 64 and world.dense == 8 and world.level.max() == 3
    assert 0 < world.exclusive_parents.sum() < (world.first_children >= 0).sum()


def test_the_realistic_preset_has_every_dial_on_and_eight_active_factors():
    world = realistic()
    assert world.spectrum == 1 and 0 < world.co_occurrence < 1 and world.level.max() == 2
    assert len(world.manifolds) == 10 and world.dense == 2 and world.magnitudes == "pareto"
    assert world.probabilities.sum().item() == pytest.approx(8, abs=0.1)


def test_the_memorisation_world_shows_every_pattern_of_eight_bits_equally_often():
    world = memorisation()
    labelled = world.labelled(51_200, split="train")
    bits = labelled.dense()
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(labelled.x @ world.directions.T, bits, atol=1e-5, rtol=0)
    patterns = torch.bincount((bits @ 2.0 ** torch.arange(8)).long(), minlength=256)
    assert (patterns - 200).abs().max() < 5 * 200**0.5


def test_the_benchmark_measures_drawing_and_training():
    drawn, trained = measure(replace(memorisation(), block_rows=2048), 1)
    assert drawn > 0 and trained > 0
