"""Which codes does each penalty prefer? Three pathologies, nine charges, exactly: the true code and the pathological
one both reconstruct without error, from orthonormal true directions."""

import itertools
import math

import pytest
import torch
from benchmarks.toys.penalty_table import Pressures, pressures
from torch import Tensor

from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.codes import DenseCodes
from unbraid.dictionary.dictionary import Dictionary
from unbraid.objective.objective import Step
from unbraid.sources.base import Batch
from unbraid.terms.geometry.orthogonality import Orthogonality
from unbraid.terms.sparsity.l1 import L1

Code = tuple[Tensor, Tensor, Tensor]
"""Codes of every state, the states' probabilities, atoms."""


def exact(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


E = torch.eye(3, dtype=torch.float64)
FAMILY = exact([0.8, 0.15, 0.05])[0]
"""No factor, the parent (.2) alone, the parent with its child (.05)."""


def true_family() -> Code:
    return exact([0, 0], [1, 0], [1, 1]), FAMILY, E[:2]


def absorbed() -> Code:
    """The child's latent writes the parent too, and the parent's is silent then."""
    return exact([0, 0], [1, 0], [0, math.sqrt(2)]), FAMILY, torch.stack([E[0], (E[0] + E[1]) / math.sqrt(2)])


def factor_and_other(*, split: bool) -> Code:
    """A factor (.05) and an independent one (.1); split, two latents with one atom take the first's rows by halves."""
    variants, other = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)], [0.0, 1.0]
    codes = [[*v, o] if split else [sum(v), o] for v in variants for o in other]
    weights = [p * q for p in (0.95, 0.025, 0.025) for q in (0.9, 0.1)]
    return exact(*codes), exact(weights)[0], torch.stack([E[0], E[0], E[1]]) if split else E[:2]


def eight_bits() -> Code:
    bits = torch.tensor(list(itertools.product([0.0, 1.0], repeat=8)), dtype=torch.float64)
    return bits, torch.full((256,), 1 / 256, dtype=torch.float64), torch.eye(8, dtype=torch.float64)


def memorised() -> Code:
    """One latent for each of the 255 sums of the eight atoms; the empty one needs none."""
    sums, weights, _ = eight_bits()
    lengths = sums[1:].norm(dim=1)
    codes = torch.zeros(256, 255, dtype=torch.float64)
    codes[1:] = torch.diag(lengths)
    return codes, weights, sums[1:] / lengths.unsqueeze(1)


TOYS = {
    "absorption": (true_family(), absorbed()),
    "splitting": (factor_and_other(split=False), factor_and_other(split=True)),
    "memorisation": (eight_bits(), memorised()),
}
CHARGES = [f.name for f in Pressures.__dataclass_fields__.values()]
MEASURED = {(toy, k): pressures(*code) for toy, codes in TOYS.items() for k, code in enumerate(codes)}
# True and pathological, as printed: half a unit of the last digit is the tolerance. REWARDED: the pathology is cheaper.
REWARDED = {
    ("absorption", "l0"): (".25", ".20"),
    ("absorption", "l1"): (".25", ".22"),
    ("absorption", "correlation"): (".42", ".019"),
    ("absorption", "total_correlation"): (".124", ".012"),
    ("absorption", "support"): ("1.008", ".896"),
    ("memorisation", "l0"): ("4", "1.0"),
    ("memorisation", "l1"): ("4", "1.96"),
}
PUNISHED = {
    ("absorption", "orthogonality"): ("0", ".5"),
    ("absorption", "c2r"): ("0", ".35"),
    ("splitting", "support"): (".755", ".806"),
    ("splitting", "hfs"): ("0", ".33"),
    ("splitting", "orthogonality"): ("0", ".67"),
    ("splitting", "c2r"): ("0", ".21"),
    ("memorisation", "support"): ("8", "9.40"),
    ("memorisation", "hfs"): ("0", "3.2"),
    ("memorisation", "orthogonality"): ("0", ".78"),
    ("memorisation", "c2r"): ("0", ".21"),
    # Too little to outweigh what L0 and L1 gain: a bounded charge, however many latents memorise.
    ("splitting", "correlation"): ("0", ".0013"),
    ("splitting", "total_correlation"): ("0", ".0009"),
    ("memorisation", "correlation"): ("0", "1.0"),
    ("memorisation", "total_correlation"): ("0", "1.40"),
}
INDIFFERENT = {
    ("absorption", "local_ima"): ("0", "0"),
    ("absorption", "hfs"): ("1", "1"),
    ("splitting", "l0"): (".15", ".15"),
    ("splitting", "l1"): (".15", ".15"),
    ("splitting", "local_ima"): ("0", "0"),
    ("memorisation", "local_ima"): ("0", "0"),
}
TABLE = {**REWARDED, **PUNISHED, **INDIFFERENT}


def test_the_table_is_complete():
    assert set(TABLE) == set(itertools.product(TOYS, CHARGES)) and len(TABLE) == 27


@pytest.mark.parametrize(("toy", "charge"), TABLE)
def test_every_number_of_the_table(toy: str, charge: str):
    for k, printed in enumerate(TABLE[toy, charge]):
        found = getattr(MEASURED[toy, k], charge)
        digits = len(printed.partition(".")[2])
        assert found == pytest.approx(float(printed), abs=0.5 * 10**-digits if digits else 1e-12), printed


@pytest.mark.parametrize(("toy", "charge"), TABLE)
def test_every_preference_of_the_table(toy: str, charge: str):
    true, pathological = (getattr(MEASURED[toy, k], charge) for k in range(2))
    if (toy, charge) in REWARDED:
        assert pathological < true - 1e-6
    elif (toy, charge) in PUNISHED:
        assert pathological > true + 1e-6
    else:
        assert pathological == pytest.approx(true, abs=1e-12)


@pytest.mark.parametrize("toy", TOYS)
def test_both_codes_of_a_toy_explain_the_same_data(toy: str):
    (codes, weights, atoms), (others, other_weights, other_atoms) = TOYS[toy]
    torch.testing.assert_close(codes @ atoms, others @ other_atoms)
    assert torch.equal(weights, other_weights)


def test_the_sampled_cell_is_exact_here():
    """A pair of one-hot latents never shares a state, so its emptiest corner is as far as the smaller of the two: the
    mean of min(i, j) over pairs of sums of i and of j atoms. 300 sampled pairs once gave 3.31."""
    sizes = [bin(i).count("1") for i in range(1, 256)]
    mean = sum(min(a, b) for a, b in itertools.combinations(sizes, 2)) / math.comb(255, 2)
    assert MEASURED["memorisation", 1].hfs == pytest.approx(mean, rel=1e-12)
    assert mean == pytest.approx(3.2367, abs=5e-5)


@pytest.mark.parametrize(("toy", "k"), MEASURED)
def test_the_terms_charge_what_the_table_says(toy: str, k: int):
    """On a batch that holds each state as often as it occurs."""
    codes, weights, atoms = TOYS[toy][k]
    counts = (weights * (256 if toy == "memorisation" else 400)).round().long()
    step = step_of(codes.repeat_interleave(counts, 0), atoms)
    assert float(step.z.l0()) == pytest.approx(MEASURED[toy, k].l0)
    assert L1()(step).loss.item() == pytest.approx(MEASURED[toy, k].l1)
    assert Orthogonality()(step).loss.item() == pytest.approx(MEASURED[toy, k].orthogonality)


def step_of(codes: Tensor, atoms: Tensor) -> Step:
    dictionary = Dictionary(atoms.shape[1], len(atoms), ReLU()).double()
    dictionary.W_dec.data.copy_(atoms)
    index = torch.arange(len(codes))
    return Step(
        x=codes @ atoms, z=DenseCodes(codes, codes), dictionary=dictionary,
        batch=Batch(codes @ atoms, index, index, index), dead=torch.zeros(len(atoms), dtype=torch.bool), progress=0.5,
        contexts=no_contexts, rng=torch.Generator().manual_seed(0),
    )  # fmt: skip


def no_contexts():
    raise AssertionError("these terms read no contexts")
