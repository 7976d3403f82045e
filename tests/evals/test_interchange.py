from dataclasses import replace

import pytest
import torch
from tests.small import WORLD
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.initialisation import RandomAtoms
from unbraid.evals import interchange as subject
from unbraid.evals.interchange import (
    SwapScores,
    baselines,
    interchange,
    interchange_scores,
    latent_swaps,
    score_swaps,
    supervised,
)
from unbraid.evals.shared import pair_readings
from unbraid.evals.shared.evaluation import NotApplicable, Score
from unbraid.evals.shared.pair_readings import followed, prepared
from unbraid.runs.run import Run
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.loading import EMBEDDED, located
from unbraid.sources.stream import held_out
from unbraid.sources.synthetic_language.pairs import VARIABLES

MODEL = LanguageModel(text="language://400", layer=2)
WHOLE = replace(MODEL, text="language://401")
"""As good a model, for tests of all variables: pairs are kept by model."""
FEW = ("tense", "number", "job")
on_few_and_all = pytest.mark.parametrize(
    "model", [MODEL, pytest.param(WHOLE, marks=pytest.mark.slow)], ids=["few variables", "all variables"]
)


@pytest.fixture(autouse=True)
def few_variables(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """But in slow tests."""
    if request.node.get_closest_marker("slow") is None:
        for module in (subject, pair_readings):
            monkeypatch.setattr(module, "VARIABLES", FEW)


def reading(atoms: Tensor, W_enc: Tensor | None = None) -> Dictionary:
    """Latents that read by the rows of `W_enc`, the atoms themselves when not given, rectified."""
    made = Dictionary(atoms.shape[1], len(atoms), ReLU())
    with torch.no_grad():
        made.W_dec.copy_(atoms)
        made.W_enc.copy_((atoms if W_enc is None else W_enc).T)
    return made.requires_grad_(False)


def both_ways() -> Dictionary:
    """Every coordinate and its negative: reconstructs exactly."""
    identity = torch.eye(MODEL.d_in)
    return reading(torch.cat([identity, -identity]))


def silent() -> Dictionary:
    made = Dictionary(MODEL.d_in, 32, JumpReLU(bandwidth=0.0))
    RandomAtoms()(made, held_out(MODEL, 64).x, torch.Generator().manual_seed(0))
    made.threshold.data.fill_(1e9)
    return made.requires_grad_(False)


def supervised_atoms(variable: str) -> Dictionary:
    directions = supervised(prepared(MODEL, variable))
    return reading(torch.cat([directions, -directions]))


def swapped(dictionary: Dictionary, variable: str, count: int, *, drop: bool = False) -> SwapScores:
    table = followed(MODEL)[variable]
    (found,) = score_swaps(table.scored, latent_swaps(dictionary, table, [(count, drop)]))
    return found


def value(scores: list[Score], metric: str, kind: str = "measured", **params: float | str) -> float:
    (found,) = [s for s in scores if (s.metric, s.kind, s.params) == (metric, kind, params)]
    return found.value


@on_few_and_all
def test_the_embedded_model_follows_most_of_its_language(model: LanguageModel):
    assert set(followed(model)) <= set(VARIABLES)
    assert len(followed(model)) >= (9 if model == WHOLE else len(FEW))


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("variable", ["tense", "number", "job"])
def test_giving_everything_the_other_texts_values_is_reading_the_other_text(variable: str, drop: bool):
    found = swapped(both_ways(), variable, 2 * MODEL.d_in, drop=drop)
    assert found.cause == pytest.approx(1, abs=1e-3)
    assert found.isolation == pytest.approx(1, abs=1e-3)
    assert found.nonsense == pytest.approx(0, abs=1e-3)


@on_few_and_all
def test_a_dictionary_that_says_nothing_causes_nothing_and_betrays_nothing(model: LanguageModel):
    scores = interchange_scores(silent(), model)
    for count in subject.COUNTS:
        params = {"directions": "latents", "n": count, "error": "kept"}
        assert value(scores, "interchange_cause", **params) == pytest.approx(0, abs=1e-6)
        assert value(scores, "interchange_isolation", **params) == pytest.approx(1, abs=1e-6)
        assert value(scores, "interchange", **params) == pytest.approx(0.5, abs=1e-6)


def test_without_the_error_a_silent_dictionary_is_worse_than_silent():
    found = swapped(silent(), "tense", 4, drop=True)
    assert found.cause < 0.1 and found.nonsense > 0.1


@on_few_and_all
def test_the_stated_chance_is_near_nothing_and_the_stated_ceiling_near_everything(model: LanguageModel):
    known = list(baselines(model, model))
    for kind, low, high in (("chance", -0.05, 0.1), ("ceiling", 0.15, 1.01)):
        assert low < value(known, "interchange_cause", kind, n=1, error="kept") < high
    for kind, directions in (("chance", {}), ("ceiling", {}), ("reference", {"directions": "principal"})):
        found = value(known, "interchange_cause", kind, n=model.d_in, error="kept", **directions)
        assert found == pytest.approx(1, abs=1e-3)


def test_atoms_that_are_told_the_pairs_do_better_than_coordinates():
    assert swapped(supervised_atoms("tense"), "tense", 2).cause > swapped(both_ways(), "tense", 2).cause + 0.2


def test_the_order_of_latents_does_not_matter():
    plain = both_ways()
    order = torch.randperm(plain.d_sae, generator=torch.Generator().manual_seed(1))
    permuted = reading(plain.W_dec[order])
    torch.testing.assert_close(
        torch.tensor(swapped(permuted, "number", 16)), torch.tensor(swapped(plain, "number", 16)), atol=1e-4, rtol=0
    )


def test_a_latent_told_twice_takes_two_to_swap():
    plain = supervised_atoms("tense")
    halves = reading(plain.W_dec.repeat(2, 1), plain.W_dec.repeat(2, 1) / 2)
    assert swapped(halves, "tense", 4).cause == pytest.approx(swapped(plain, "tense", 2).cause, abs=1e-3)
    assert swapped(halves, "tense", 1).cause < swapped(plain, "tense", 1).cause - 0.02


def test_a_world_without_pairs_is_not_scored(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "source", WORLD)
    with pytest.raises(NotApplicable, match="minimal pairs"):
        interchange(Run(tmp_path))


def test_a_model_that_follows_nothing_is_named(tmp_path):
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(located(EMBEDDED))
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(located(EMBEDDED)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="follows no variable of the language"):
        followed(LanguageModel(model=str(tmp_path), text="language://400", layer=2))
