"""An anisotropic spectrum: flat at 0, a language model's at 1, read downstream as if it were flat."""

from dataclasses import replace

import pytest
import torch

from unbraid.sources.world.presets import realistic
from unbraid.sources.world.spectrum import FALL, Spectrum, check_room, variances
from unbraid.sources.world.world import World

FLAT = World(factors=40, d_in=32, l0=4.0, roots=4, circles=2, spheres=1, interactions=4, noise=0.0)


def first_share(world: World) -> float:
    x = world.sample(8192, seed=0).x.double()
    variance = torch.linalg.eigvalsh(torch.cov(x.T))
    return float(variance[-1] / variance.sum())


def test_variances_fall_by_a_power_of_the_rank():
    found = variances(4, 1.0)
    assert found.sum() == pytest.approx(1) and found[1] / found[0] == pytest.approx(2**-FALL)
    assert variances(4, 0.0).tolist() == [0.25] * 4


@pytest.mark.parametrize("seed", range(3))
def test_at_dial_1_the_first_direction_has_15_to_30_percent_and_less_below(seed: int):
    shares = [first_share(replace(realistic(), spectrum=dial, seed=seed)) for dial in (0.0, 0.5, 1.0)]
    assert shares[0] < 0.1 and shares[0] < shares[1] < shares[2]
    assert 0.15 < shares[2] < 0.3


def test_mapped_directions_are_units_and_the_truths():
    world = replace(FLAT, spectrum=1.0, circles=0, spheres=0)
    torch.testing.assert_close(world.directions.norm(dim=1), torch.ones(40))
    assert not torch.allclose(world.directions, FLAT.directions)
    sample = world.sample(64, seed=1)
    torch.testing.assert_close(sample.x, world.offset + sample.z @ world.directions)


def test_the_map_has_the_stated_scales_along_its_axes():
    spectrum = Spectrum.of(8, 1.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(spectrum.axes @ spectrum.axes.T, torch.eye(8))
    torch.testing.assert_close(spectrum.stretched(spectrum.axes), spectrum.axes)
    both = spectrum.stretched((spectrum.axes[:1] + spectrum.axes[3:4]) / 2**0.5)
    coordinates = (both @ spectrum.axes.T)[0]
    assert coordinates[3] / coordinates[0] == pytest.approx(4 ** (-FALL / 2))


def test_a_reader_is_1_along_its_direction_and_hears_others_as_in_the_flat_world():
    world = replace(FLAT, spectrum=1.0)
    mapped = world.readers @ world.directions.T
    torch.testing.assert_close(mapped.diagonal(), torch.ones(40), atol=1e-4, rtol=0)
    flat = FLAT.directions @ FLAT.directions.T
    # The two differ by the lengths that the map gave the two directions.
    lengths = (mapped / flat).diagonal(1)
    assert (mapped.sign() == flat.sign()).all() and 0.3 < lengths.median() < 3


def test_a_circle_and_a_sphere_stay_round_and_are_read_whole():
    world = replace(FLAT, spectrum=1.0, gate="additive")
    assert {factor: len(basis) for factor, basis in world.subspaces.items()} == {37: 2, 38: 2, 39: 3}
    for factor, basis in world.subspaces.items():
        torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis)), atol=1e-5, rtol=0)
        points = torch.nn.functional.normalize(torch.randn(9, len(basis)), dim=1)
        gates = world.gates(world.offset + 2 * points @ basis)[:, factor]
        torch.testing.assert_close(gates, torch.full((9,), 2.0), atol=1e-3, rtol=0)


def test_dial_0_is_the_world_there_was():
    assert torch.equal(replace(FLAT, spectrum=0.0).sample(64, seed=0).x, FLAT.sample(64, seed=0).x)
    assert torch.equal(FLAT.readers, FLAT.directions) and "spectrum" not in str(FLAT.metadata())


def test_a_spectrum_without_room_for_the_active_factors_is_refused_and_the_remedy_works():
    with pytest.raises(ValueError, match=r"leaves 3 of 32 .* noise of 0.5, and 4.0 .* lower spectrum, noise or l0"):
        replace(FLAT, spectrum=1.0, noise=0.5)
    assert replace(FLAT, spectrum=0.5, noise=0.3).spectrum == 0.5
    check_room(32, 1.0, active=4.0, noise=0.3)
    with pytest.raises(ValueError, match="at least 0 and at most 1"):
        replace(FLAT, spectrum=1.5)
