"""Description length by hand, its bound and where that is none, and what SAEBench's code for it gets wrong."""

import math
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from unbraid.metrics.description_length import (
    WEIGHT_BITS,
    Bits,
    coarsest_steps,
    description_length,
    principal_bits,
    rounded,
    rounding_error,
)
from unbraid.metrics.early_ratio import EarlyRatio

ROOT = Path(__file__).parents[1]


def bits(rows: list[list[float]], d_in: int = 1) -> Bits:
    return description_length(csr_array(np.array(rows, dtype=float)), d_in)


def spike_and_slab(seed: int = 0, latents: int = 64, rows: int = 20_000, mean: float = 3.0) -> csr_array:
    rng = np.random.default_rng(seed)
    active = rng.random((rows, latents)) < 0.05
    return csr_array(active * (mean + mean / 6 * rng.standard_normal((rows, latents))).clip(0.01))


def known(value: float) -> EarlyRatio:
    """A ratio whose value is known."""
    return EarlyRatio([(np.array([value]), np.ones(1))])


def direct(levels: csr_array) -> float:
    """The sum of the entropies of the columns, zero a value like any other."""
    total = 0.0
    for column in levels.toarray().T:
        p = np.unique(column, return_counts=True)[1] / len(column)
        total -= float((p * np.log2(p)).sum())
    return total


def test_a_code_worked_out_by_hand():
    """Two latents in four rows: the first on in two, with levels 1 and 2; the second on in one."""
    found = bits([[1, 0], [2, 0], [0, 3], [0, 0]], d_in=5)
    h4 = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert found.gates == pytest.approx(1 + h4)
    assert found.values == pytest.approx(0.5 * 1)
    assert found.total() == pytest.approx(1.5 + h4)
    assert found.bound == pytest.approx(3 / 4 * (math.log2(3) + 1))
    assert found.atoms == pytest.approx(2 * 5 * WEIGHT_BITS / 4)
    assert found.tables == pytest.approx(3 * 0.5 * math.log2(4) / 4), (
        "three levels of two latents, two rows' worth each"
    )
    assert found.total("factorised", decoder=True) == pytest.approx(found.total() + found.atoms + found.tables)


def test_a_binary_latent_costs_at_most_one_bit():
    assert bits([[7], [0]]).total() == pytest.approx(1)


@pytest.mark.parametrize("step", [2.0, 1.0, 0.5, 0.25, 0.1])
def test_gates_and_values_add_up_to_the_entropy_of_the_latents(step: float):
    """SAEBench counts zeros among the values, so there they do not."""
    levels = rounded(spike_and_slab(), step)
    assert description_length(levels, 8).total() == pytest.approx(direct(levels), abs=1e-9)


def test_signed_codes_are_counted_like_others():
    levels = rounded(csr_array(spike_and_slab().toarray() - 3.0), 0.5)
    assert description_length(levels, 8).total() == pytest.approx(direct(levels), abs=1e-9)


def test_splitting_into_exclusive_parts_costs_p_log_n_bits():
    on = np.zeros(10_000)
    on[:1000] = 1
    whole = bits([[v] for v in on]).total()
    for n, extra in ((4, 0.206), (64, 0.607)):
        parts = np.zeros((10_000, n))
        parts[np.arange(1000), np.arange(1000) * n // 1000] = 1
        assert description_length(csr_array(parts), 1).total() - whole == pytest.approx(extra, abs=2e-3)


def test_the_bound_is_one_from_e_active_latents_on_and_none_below():
    def equal(latents: int, active: int) -> Bits:
        """Every row has the next `active` of the latents on."""
        rows = np.zeros((latents, latents))
        for row in range(latents):
            rows[row, (row + np.arange(active)) % latents] = 1
        return description_length(csr_array(rows), 1)

    assert equal(64, 3).total() < equal(64, 3).bound
    assert equal(64, 1).bound == pytest.approx(6)
    assert equal(64, 1).total() == pytest.approx(6 + 1.43, abs=0.01), "each by itself, without knowing that it is one"


def test_fractions_are_refused():
    with pytest.raises(ValueError, match="give rounded"):
        bits([[0.5]])


def test_silence_costs_nothing_but_the_bias():
    silent = description_length(csr_array((10, 4)), 3)
    assert (silent.total(), silent.bound, silent.atoms, silent.total("tree", decoder=True)) == (0, 0, 0, 0)


class TestWhatSaeBenchGetsWrong:
    """sae-bench 0.6.0, evals/mdl: the same input, and what must come out."""

    def test_bins_do_not_depend_on_the_scale_of_activations(self):
        """There bins span [0, 100] at least, so that latents near 3 all fall into one: value entropy 0 at 8 bins."""
        z = spike_and_slab()
        for scale in (0.01, 1.0, 100.0):
            scaled = csr_array(z * scale)
            squares = np.square(scaled.data).sum()
            fvu = lambda step, of=scaled, total=squares: known(
                np.square((rounded(of, step) * step - of).toarray()).sum() / total
            )
            (step,) = coarsest_steps(scaled, fvu, [0.01]).values()
            found = description_length(rounded(scaled, step), 8)
            assert found.values > 1, "64 latents, 3.2 active, about a bit for each value"
            assert step / scale == pytest.approx(1.04, rel=0.1)

    def test_values_are_counted_where_latents_are_active(self):
        """There zeros are part of the histogram of values, which are then nearly free for rare latents."""
        rare = np.zeros((1000, 1))
        rare[:10, 0] = np.repeat([1, 2], 5)
        assert description_length(csr_array(rare), 1).values == pytest.approx(0.01 * 1)

    def test_zero_stays_zero(self):
        """There a silent latent becomes half a bin, 6.25 at 8 bins."""
        z = spike_and_slab()
        assert rounded(z, 1.0).nnz <= z.nnz
        identity, origin = np.eye(64), np.zeros(64)
        assert rounding_error(z, identity, origin, z.toarray())(1e-6).value() < 1e-9

    def test_fewer_active_latents_cost_less(self):
        """There k is not used."""
        z = rounded(spike_and_slab(), 0.5)
        halved = z.copy()
        halved.data[::2] = 0
        halved.eliminate_zeros()
        assert description_length(halved, 8).total() < 0.7 * description_length(z, 8).total()

    def test_distortion_is_a_share_of_the_variance(self):
        """There it is a root mean square over d_in."""
        x = np.array([[2.4, 0.0], [0.0, 1.0], [0.0, 0.0]])
        found = rounding_error(csr_array(x), np.eye(2), np.zeros(2), x)(1.0).value()
        assert found == pytest.approx(0.4**2 / np.square(x - x.mean(0)).sum())

    def test_it_runs_on_any_processor_with_declared_packages_and_its_arguments_alone(self):
        """There the package does not import without loguru, reads a global `config`, and calls .cuda()."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        declared = {re.split(r"[<>=]", name)[0] for name in project["dependencies"]}
        source = (ROOT / "src" / "unbraid" / "metrics" / "description_length.py").read_text(encoding="utf-8")
        imported = {name.split(".")[0] for name in re.findall(r"^(?:from|import) (\S+)", source, re.M)}
        assert imported <= declared | set(sys.stdlib_module_names) | {"unbraid"}
        assert bits([[1.0], [0.0]]).total() == pytest.approx(1)


def test_steps_are_the_coarsest_within_the_target_and_unreachable_targets_are_left_out():
    z = spike_and_slab(latents=4)
    distortion = lambda step: 0.1 + step
    found = coarsest_steps(z, lambda step: known(distortion(step)), [0.05, 0.5, 1.0])
    assert list(found) == [0.5, 1.0]
    for target, step in found.items():
        assert distortion(step) <= target < distortion(step * 2 ** (1 / 8))


def test_the_order_of_rows_does_not_matter_where_the_first_are_unlike_the_rest():
    z = spike_and_slab()
    ordered = z[np.argsort(z.sum(axis=1), kind="stable")]
    steps = []
    for codes in (z, ordered):
        x = codes.toarray()
        errors = rounding_error(codes, np.eye(64), np.zeros(64), x)
        exact = lambda step, of=errors: known(of(step).value())
        steps += [coarsest_steps(codes, how, [0.02, 0.1, 0.5]) for how in (errors, exact)]
    assert all(found == pytest.approx(steps[0]) for found in steps)


def test_rows_that_are_all_equal_have_no_variance_to_explain_and_no_step():
    codes = csr_array(np.ones((1, 3)))
    errors = rounding_error(codes, np.eye(3), np.zeros(3), codes.toarray())
    assert np.isnan(errors(1.0).known) and coarsest_steps(codes, errors, [0.5]) == {}


def test_rounding_to_a_fine_step_adds_a_twelfth_of_its_square_for_each_active_latent():
    z, step = spike_and_slab(), 0.25
    x = z.toarray()
    error = rounding_error(z, np.eye(64), np.zeros(64), x)(step).value() * np.square(x - x.mean(0)).sum() / len(x)
    assert error == pytest.approx(z.nnz / len(x) * step**2 / 12, rel=0.02)


def test_principal_components_reach_the_rate_of_a_gaussian_source():
    """Half a bit for each halving of the error, plus 0.254 bits a component for rounding by a uniform step."""
    rng = np.random.default_rng(0)
    turned = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    x = rng.standard_normal((40_000, 4)) @ turned
    rate = 4 * (0.5 * math.log2(100) + 0.254)
    assert 0 <= principal_bits(x, [0.01])[0.01] - rate < 4 / 8 + 0.05, "a step may be an eighth of an octave too fine"
