"""Dose: what a term did to its own target, against the run of its base in its folder."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.small import THREE, experiment

from unbraid import catalog
from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.gated import Gated
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.relu import ReLU
from unbraid.evals.dose import Measured, batches_of, dose, peers, scores_of
from unbraid.evals.shared.evaluation import NotApplicable, evaluate
from unbraid.experiment.experiment import Experiment
from unbraid.objective.objective import Term
from unbraid.runs.results import read_result
from unbraid.runs.run import Run
from unbraid.terms.causal.effect import Effect
from unbraid.terms.geometry.frame_potential import FramePotential
from unbraid.terms.geometry.meta_sae import MetaSAE
from unbraid.terms.geometry.orthogonality import Orthogonality
from unbraid.terms.sparsity.gate_kl import GateKl
from unbraid.terms.sparsity.l1 import L1
from unbraid.training.loop import train


def base(activation: Activation = THREE, **settings: object) -> Experiment:
    made = experiment("plain", activation=activation)
    return replace(made, base="plain", training=replace(made.training, **settings))


def with_term(of: Experiment, name: str, term: Term | Mapping[str, Term], strength: float = 0.3) -> Experiment:
    added = {name: term} if isinstance(term, Term) else dict(term)
    given = {key: replace(one, gradient_ratio=strength) for key, one in added.items()}
    objective = replace(of.objective, penalties={**given, **of.objective.penalties}, ramp=0.0)
    return replace(of, name=name, objective=objective, term=name, strength=strength)


def scored(folder: Path) -> dict[tuple[str, ...], float]:
    run = Run.open(folder)
    return {(s.metric, *map(str, s.params.values())): s.value for s in dose(run, peers(run))}


@pytest.mark.parametrize("normalise", ["centre-scale", "whiten"])
def test_a_penalty_that_is_followed_has_a_dose_and_one_that_is_not_has_none(tmp_path: Path, normalise: str):
    plain = base(normalise=normalise)
    strong, idle = (with_term(plain, f"by-{s:g}", {"frame": FramePotential()}, s) for s in (1.0, 1e-6))
    found = train([plain, strong, idle], tmp_path)
    followed, not_followed = map(scored, found[1:])
    assert followed["dose", "frame"] > 0.02 > 0.001 > abs(not_followed["dose", "frame"])
    run, of_base = (followed["term_value", "frame", of] for of in ("run", "base"))
    assert followed["dose", "frame"] == pytest.approx((of_base - run) / of_base)
    # Frame potential reads the atoms alone, so it is known without any batch.
    measured = Measured.of(Run.open(found[1]), batches_of(Run.open(found[1])))
    atoms = measured.dictionary.W_dec
    assert torch.allclose(atoms.norm(dim=1), torch.ones(64), atol=1e-5)
    assert followed["dose_se", "frame"] < 0.01


def test_a_reward_that_grows_has_a_dose_above_zero(tmp_path: Path):
    plain = base()
    found = train([plain, with_term(plain, "effect", Effect(every=1, columns=8), 1.0)], tmp_path)
    scores = scored(found[1])
    assert scores["term_value", "effect", "base"] < 0
    assert scores["dose", "effect"] > 3 * scores["dose_se", "effect"] > 0


def test_the_value_is_what_training_logged_at_its_end(tmp_path: Path):
    """Of a run that has stopped moving: at a learning rate of nothing, all its steps are of one dictionary."""
    plain = base(JumpReLU(), lr=1e-9)
    folders = train([plain, with_term(plain, "l1", L1())], tmp_path)
    rows = [json.loads(line) for line in (folders[1] / "metrics.jsonl").read_text().splitlines()]
    logged = [row["losses/l1"] for row in rows if "losses/l1" in row]
    assert scored(folders[1])["term_value", "l1", "run"] == pytest.approx(sum(logged) / len(logged), rel=0.05)


def test_the_base_is_the_run_that_differs_in_the_term_alone(tmp_path: Path):
    plain = base()
    term = with_term(plain, "orthogonality", Orthogonality())
    others = [
        replace(plain, seed=1), replace(plain, dictionary=replace(plain.dictionary, d_sae=32)),
        replace(plain, dictionary=replace(plain.dictionary, activation=BatchTopK(2))),
        base(normalise="whiten"), with_term(plain, "effect", Effect()), replace(plain, base="other"),
        replace(plain, objective=replace(plain.objective, penalties={})),
    ]  # fmt: skip
    short = lambda one: replace(one, training=replace(one.training, tokens=320))
    *_, run = (Run.open(folder) for folder in train([*map(short, others), short(term)], tmp_path))
    bare = short(others[-1])
    assert [found.experiment for found in peers(run)] == [bare], "both of its penalties were added to this one"
    train([short(plain)], tmp_path)
    assert [found.experiment for found in peers(run)] == [short(plain)]


def test_without_a_term_or_a_base_beside_it_there_is_a_reason(tmp_path: Path):
    plain = base()
    first, second = (
        Run.open(folder)
        for folder in train([plain], tmp_path / "a")
        + train([with_term(plain, "orthogonality", Orthogonality())], tmp_path / "b")
    )
    with pytest.raises(NotApplicable, match="names none"):
        dose(first, peers(first))
    with pytest.raises(NotApplicable, match="base 'plain' without 'orthogonality'.*same folder"):
        dose(second, peers(second))


def test_terms_that_learn_while_the_dictionary_does_are_told_and_others_are_scored(tmp_path: Path):
    plain = base(tokens=1600)
    both = with_term(plain, "both", {"meta": MetaSAE(), "kl": GateKl(), "frame": FramePotential()})
    alone = with_term(plain, "meta", MetaSAE())
    _, first, second = train([plain, both, alone], tmp_path)
    assert {key[1] for key in scored(first)} == {"frame"}
    with pytest.raises(NotApplicable, match="meta has no value here: its meta-SAE learns while"):
        scored(second)


def test_gates_that_are_saved_as_jumprelu_are_read_as_it(tmp_path: Path):
    plain = base(Gated(), tokens=1600)
    _, folder = train([plain, with_term(plain, "frame", FramePotential())], tmp_path)
    assert ("dose", "frame") in scored(folder)


def test_shares_are_of_the_bases_size():
    own, of_base = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([2.0, 4.0, 6.0]).double()
    value = lambda a, b: {s.metric: s.value for s in scores_of("t", a, b)}
    assert value(own, of_base)["dose"] == pytest.approx(0.5)
    assert value(-1.5 * own, -own)["dose"] == pytest.approx(0.5), "a reward that grew by half"
    assert value(own, of_base)["dose_se"] == pytest.approx(1 / 3**0.5 / 4)
    assert math.isnan(value(own, 0 * own)["dose"]) and math.isnan(value(own[:1], own[:1])["dose_se"])


def test_scores_are_stored_again_when_the_base_comes(tmp_path: Path):
    plain, item = base(tokens=1600), catalog.evals()["dose"]
    (folder,) = train([with_term(plain, "frame", FramePotential())], tmp_path)
    assert evaluate([Run.open(folder)], [item]) == 0
    assert "same folder" in read_result(folder / "results" / "dose.json")["not_applicable"]
    train([plain], tmp_path)
    assert evaluate([Run.open(folder)], [item]) == 0
    assert read_result(folder / "results" / "dose.json")["scores"]


@pytest.mark.parametrize("name", list(catalog.terms()))
def test_every_term_has_a_value_or_a_reason(name: str, tmp_path_factory: pytest.TempPathFactory):
    term = catalog.terms()[name]()
    where = tmp_path_factory.getbasetemp() / "plain"
    plain = base(ReLU(), tokens=320)
    folder = where / plain.folder
    if not folder.exists():
        train([plain], where)
    run = Run.open(folder)
    if reason := term.only_in_training():
        assert len(reason.split()) >= 4
        return
    batches = batches_of(run)[:3]
    measured = Measured.of(run, batches)
    before = {key: value.clone() for key, value in measured.dictionary.state_dict().items()}
    try:
        first, again = (measured.values(name, term, batches) for _ in range(2))
    except NotApplicable as reason:
        assert len(str(reason).split()) >= 4
    else:
        assert bool(first.isfinite().all()) and torch.equal(first, again)
    assert all(torch.equal(value, before[key]) for key, value in measured.dictionary.state_dict().items())
