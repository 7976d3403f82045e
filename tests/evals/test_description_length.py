"""Description length: the truth's is what its factors' entropies say, nothing learned costs more or cannot reach."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from tests.known import EXACT, readers, reading, truth, untrained
from tests.small import experiment
from tests.tiny_lm import CONTEXT, write_corpus, write_model

from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.encoding import code_matrix
from unbraid.dictionary.initialisation import PrincipalComponents
from unbraid.dictionary.normaliser import Normaliser
from unbraid.evals.description_length import (
    DEFINITIONS,
    FVUS,
    ROWS,
    added_loss,
    clean_losses,
    curve,
    described,
    description_length,
    linear,
    own,
    token_losses,
)
from unbraid.metrics.description_length import Distortion, coarsest_steps, rounded
from unbraid.metrics.description_length import description_length as bits_of
from unbraid.metrics.information import binary_entropy
from unbraid.runs.run import save_run
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.splicing import eval_windows, passes
from unbraid.sources.stream import held_out
from unbraid.sources.world.world import World

LEVELS = replace(EXACT, magnitudes="quantised", levels=4, independent=True)
"""Independent factors whose magnitudes have four values: all that there is to say of a row can be counted."""


def coded(made: Dictionary, world: World) -> tuple[csr_array, Distortion]:
    """Codes of held-out rows, and FVU by their rounding step."""
    x = held_out(world, ROWS).x
    z = code_matrix(made, x)
    return z, described(made, x, z)


def rates(made: Dictionary, world: World) -> dict[tuple[str, str, float], float]:
    """Bits by code, decoder and FVU."""
    z, error = coded(made, world)
    scores = curve(z, coarsest_steps(z, error, FVUS), world.d_in, "fvu")
    keyed = [(dict(s.params), s.value) for s in scores if s.metric == "description_length"]
    return {(str(p["code"]), str(p["decoder"]), float(p["fvu"])): value for p, value in keyed}


def test_the_truth_costs_the_entropies_of_its_factors():
    p = LEVELS.probabilities.double()
    entropies = float(binary_entropy(p).sum() + p.sum() * 2)
    z, error = coded(truth(LEVELS), LEVELS)
    found = bits_of(rounded(z, 0.05), LEVELS.d_in)
    assert error(0.05).value() < 1e-3 and found.total() == pytest.approx(entropies, rel=0.02)
    (bits,) = own(z, error, LEVELS.d_in)
    assert bits.metric == "bits_per_token" and bits.value < found.total(), "a hundredth of the variance merges levels"


def test_nothing_costs_less_than_the_truth_at_the_same_distortion():
    """Untrained, principal components as a dictionary, and as rounded coordinates."""
    best = rates(truth(LEVELS), LEVELS)
    sample = held_out(LEVELS, 4096).x
    others = [untrained(LEVELS, 24), untrained(LEVELS, 96)]
    others.append(
        DictionaryConfig(d_sae=64, activation=ReLU(), init=PrincipalComponents())
        .build(sample, seed=0)
        .requires_grad_(False)
    )
    reached = [rates(other, LEVELS) for other in others]
    assert reached[0] == {}, "four of 24 random atoms explain less than half"
    assert len(reached[2]) > 20, "principal components reach them all"
    for found in reached:
        for key, bits in found.items():
            if key[0] == "factorised":
                assert bits > best[key]
    assert all(bits > 1.5 * best["factorised", "without", at] for at, bits in linear(LEVELS).items() if at < 0.1)


def test_order_changes_nothing_and_dead_latents_cost_nothing():
    turned = rates(truth(EXACT, order=torch.arange(23, -1, -1)), EXACT)
    atoms = torch.cat([EXACT.directions, EXACT.directions[:8]])
    silent = torch.tensor([0.0] * 24 + [-1e3] * 8)
    dead = reading(EXACT, torch.cat([readers(EXACT), readers(EXACT)[:8]]), atoms, b_enc=silent)
    found = rates(dead, EXACT)
    for key, bits in rates(truth(EXACT), EXACT).items():
        assert turned[key] == pytest.approx(bits)
        if key[0] == "factorised":
            assert found[key] == pytest.approx(bits)


def test_two_latents_for_two_halves_of_a_factor_cost_more():
    """Each of the first eight factors has one latent for its small magnitudes and one for its large: the gates say
    more, the values less, and the rounded values of both halves have no more in common than before."""
    z, _ = coded(truth(EXACT), EXACT)
    dense = z.toarray()
    first, low = dense[:, :8], np.array([np.median(column[column > 0]) for column in dense.T[:8]])
    split = csr_array(np.concatenate([first * (first <= low), first * (first > low), dense[:, 8:]], 1))
    whole, parts = (bits_of(rounded(latents, 0.25), EXACT.d_in) for latents in (z, split))
    assert parts.gates > whole.gates + 0.3 and parts.values < whole.values and parts.total() > whole.total()


def test_a_tree_saves_on_a_forest_and_nothing_on_its_twin():
    saved = {}
    for world in (EXACT, EXACT.twin()):
        found = rates(truth(world), world)
        saved[world.independent] = found["factorised", "without", 0.01] - found["tree", "without", 0.01]
    assert saved[False] > 0.2 and saved[True] == 0


def test_fewer_bits_go_with_more_distortion():
    found = rates(truth(EXACT), EXACT)
    for code in ("factorised", "tree"):
        bits = [found[code, "without", at] for at in FVUS]
        assert bits == sorted(bits, reverse=True) and bits[-1] < 0.7 * bits[0]


def test_a_run_is_scored_by_every_definition(tmp_path: Path):
    made = replace(experiment("d"), source=EXACT, dictionary=DictionaryConfig(d_sae=24, activation=JumpReLU()))
    sample = EXACT.sample(512, seed=0).x
    run = save_run(tmp_path / made.folder, made, truth(EXACT), Normaliser.fit(sample, "none"), sample, {})
    scores = description_length(run)
    assert {s.metric for s in scores} == set(DEFINITIONS)
    measured = [s for s in scores if s.metric == "description_length" and s.kind == "measured"]
    assert len(measured) == 5 * len(FVUS)
    assert len({(s.kind, *sorted(s.params.items())) for s in scores if s.metric == "description_length"}) == 6 * len(
        FVUS
    )


def test_on_a_language_model_the_distortion_is_the_loss_that_splicing_adds(tmp_path: Path):
    model = LanguageModel(
        model=str(write_model(tmp_path / "model")), text=str(write_corpus(tmp_path / "text.jsonl", 200)), layer=1,
        context=CONTEXT, buffer_tokens=512, eval_share=0.3,
    )  # fmt: skip
    width = model.d_in
    exact = Dictionary(width, 2 * width, ReLU()).requires_grad_(False)
    exact.W_dec.copy_(torch.cat([torch.eye(width), -torch.eye(width)]))
    exact.W_enc.copy_(exact.W_dec.T)
    added = added_loss(exact, model)
    assert added(1e-6).value() == pytest.approx(0, abs=1e-5)
    parts = passes(model, eval_windows(model))
    ablated = token_losses(model, parts, (torch.zeros_like(part.rows) for part in parts)) - clean_losses(model)
    assert added(1e9).value() == pytest.approx(ablated.mean(), abs=1e-6) and abs(ablated.mean()) > 0.01
