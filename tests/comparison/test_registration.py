"""Registration of claim cards on made-up calibrations, and what a verdict says of runs that depart from one."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.comparison.made_up import scored
from tests.comparison.test_card import CARD

from unbraid.comparison.card import read_card
from unbraid.comparison.registration import (
    read_registration,
    register,
    registered_experiments,
    registration_path,
    rules_of,
    with_seeds,
)
from unbraid.comparison.scores import arrange
from unbraid.comparison.stored_scores import StoredScores
from unbraid.comparison.verdict import answer
from unbraid.experiment.experiment import Experiment
from unbraid.experiment.factorial import Factorial
from unbraid.studies.factorials import small_world

GAIN = 0.06
CARD = CARD + 'smallest_effects = {"recovery.f1" = 0.03}\n'


@cache
def study() -> Factorial:
    return small_world()


def by_strength(experiment: Experiment) -> dict[str, float]:
    """Total correlation gains F1, most at .3; at 3 its FVU explodes. Orthogonality does nothing."""
    if experiment.term != "total-correlation":
        return {}
    gain = {0.03: 0.01, 0.1: 0.03, 0.3: GAIN, 1.0: 0.02, 3.0: 0.2}[experiment.strength or 0]
    return {"f1": gain, "fvu": 0.1 if experiment.strength == 3.0 else 0.0}


def card_in(folder: Path, text: str = CARD) -> Path:
    path = folder / "card.toml"
    path.write_text(text, encoding="utf-8")
    return path


@cache
def calibration() -> list[Experiment]:
    return study().calibration()


@cache
def calibration_scores() -> StoredScores:
    """What most tests register on; it is frozen."""
    return scored(calibration(), by_strength)


def calibrated(path: Path, **how: Any) -> StoredScores:
    assert read_card(path).calibration_seeds == study().calibration_seeds
    return scored(calibration(), by_strength, **how) if how else calibration_scores()


@pytest.fixture(scope="module")
def registered(tmp_path_factory) -> Path:
    path = card_in(tmp_path_factory.mktemp("card"))
    register(path, study(), calibrated(path))
    return path


def runs_of(path: Path, **how):
    chosen = read_registration(path).settings()
    return scored(
        with_seeds(study(), read_card(path)).test(chosen), by_strength, finished="2999-01-01T00:00:00Z", **how
    )


def test_the_best_setting_within_the_cap_is_chosen_for_every_method(registered):
    found = read_registration(registered)
    assert set(found.chosen) == set(study().designs)
    assert found.chosen["batchtopk-total-correlation"].setting.strength == 0.3
    assert {choice.tried for choice in found.chosen.values()} == {5}
    assert found.chosen["batchtopk-total-correlation"].fvu_ratio == pytest.approx(1, abs=0.2)
    assert [p.family for p in found.power] == [8, 8] and all(p.to_find > 0.8 for p in found.power)
    assert found.smallest["absorption.absorption_full"].value == pytest.approx(0.04, abs=0.01)


def test_a_registered_verdict_says_so_and_finds_what_was_planted(registered):
    stored = runs_of(registered)
    found = answer(arrange(stored), study().d_sae, rules_of(registered, stored))
    (verdict,) = found.verdicts
    assert verdict.status.startswith("registered on") and verdict.tone == "yes"
    assert verdict.evidence[0].startswith("Predicted by the claim card: ")
    assert "total correlation 0.3" in verdict.headline and "orthogonality" not in verdict.headline
    assert all(t.base.short in t.method.short for t in verdict.terms)  # at its base's own setting
    outcomes = {t.method.short.split("-")[-2]: t.outcome for t in verdict.terms}
    assert outcomes["correlation"] == "better" and outcomes["orthogonality"] in ("equivalent", "undecided")


def test_a_card_changed_by_one_character_is_refused(registered, tmp_path):
    path = card_in(tmp_path, CARD.replace("lifts", "lifts "))
    registration_path(path).write_text(registration_path(registered).read_text())
    with pytest.raises(ValueError, match="has changed since it was registered"):
        read_registration(path)
    with pytest.raises(ValueError, match="has changed since it was registered"):
        register(path, study(), calibrated(path))
    path.write_text(CARD)
    with pytest.raises(ValueError, match="is registered already"):
        register(path, study(), calibrated(path))


def test_a_card_that_is_not_registered_judges_nothing(tmp_path):
    with pytest.raises(ValueError, match="is not registered"):
        read_registration(card_in(tmp_path))


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"sha256": 1}'])
def test_a_damaged_registration_is_refused(registered, tmp_path, damage):
    path = card_in(tmp_path)
    registration_path(path).write_text(damage)
    with pytest.raises(ValueError, match="card.registered.json"):
        read_registration(path)


WRONG = [
    ("power", 0, "to_find", "0.9"), ("gate", 0, "passed", "no"), ("gate", 0, "metric", {"eval": [], "metric": "f1"}),
    ("smallest", "recovery.f1", "value", "0.03"), ("chosen", "batchtopk", "setting", {"strength": -1}),
    ("chosen", "batchtopk", "tried", True),
]  # fmt: skip


@pytest.mark.parametrize(("part", "which", "name", "value"), WRONG)
def test_a_registration_with_a_value_of_another_kind_is_refused(registered, tmp_path, part, which, name, value):
    path, data = card_in(tmp_path), json.loads(registration_path(registered).read_text())
    data[part][which][name] = value
    registration_path(path).write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"card.registered.json is no registration .*; restore it"):
        read_registration(path)


@pytest.mark.parametrize(
    ("name", "value"), [("registered", "soon"), ("registered", 5), ("runs", "many"), ("expected", 3), ("git", None)]
)
def test_a_registration_whose_date_or_runs_are_none_is_refused(registered, tmp_path, name, value):
    path, data = card_in(tmp_path), json.loads(registration_path(registered).read_text())
    registration_path(path).write_text(json.dumps({**data, name: value}))
    with pytest.raises(ValueError, match=r"card.registered.json is no registration"):
        read_registration(path)


def test_one_content_is_registered_once_whatever_its_name(registered, tmp_path):
    (tmp_path / "first.registered.json").write_text(registration_path(registered).read_text())
    assert "is registered already, as" in refused(card_in(tmp_path))


def test_a_card_for_another_version_is_refused(tmp_path):
    assert "and this is unbraid" in refused(card_in(tmp_path, CARD.replace('version = "', 'version = "9.')))


def test_a_calibration_seed_or_its_study_cannot_be_swapped(tmp_path):
    path = card_in(tmp_path)
    two = calibrated(path, without=lambda e: e.seed == 1001)
    assert "no runs of the calibration seeds [1001]" in refused(path, two)
    shorter = replace(study(), training=replace(study().training, tokens=200_000)).calibration()
    assert "are not of the study small_world as it is now" in refused(path, scored(shorter, by_strength))


def test_a_score_that_an_objective_can_set_is_no_primary(tmp_path):
    path = card_in(tmp_path, CARD.replace("absorption.absorption_full", "fidelity.alive"))
    stored = calibrated(path)
    alive = [{**r} | {"eval": "fidelity", "metric": "alive"} for r in stored.records if r["metric"] == "f1"]
    said = refused(path, replace(stored, records=(*stored.records, *alive)))
    assert "'fidelity.alive' is shown and decides nothing" in said


def test_a_smallest_effect_of_the_card_stands_beside_that_of_calibration(registered):
    found = read_registration(registered).smallest["recovery.f1"]
    assert found.value == 0.03 and found.source.startswith("the claim card; calibration has ")


def test_methods_are_named_without_their_settings(tmp_path):
    """Their names in the test hold the settings of their bases, which are not known when the card is written."""
    path = card_in(tmp_path, CARD + 'methods = ["*topk-total-correlation"]\n')
    made = register(path, study(), calibrated(path))
    assert [p.family for p in made.power] == [2, 2]
    stored = runs_of(path)
    (verdict,) = answer(arrange(stored), study().d_sae, rules_of(path, stored)).verdicts
    assert [t.method.untuned for t in verdict.terms] == ["batchtopk-total-correlation"]


def refused(path: Path, stored=None, of: Factorial | None = None) -> str:
    with pytest.raises(ValueError) as found:
        register(path, of or study(), stored or calibrated(path))
    assert not registration_path(path).exists()
    return str(found.value)


def test_bad_cards_are_refused_on_their_calibration(tmp_path):
    path = card_in(tmp_path, CARD.replace("absorption.absorption_full", "splitting.latents_per_factor"))
    assert "no run has the score 'splitting.latents_per_factor'; there are" in refused(path)
    path = card_in(tmp_path, CARD.replace("recovery.f1", "recovery.f11"))
    assert "did you mean 'recovery.f1'?" in refused(path)
    path = card_in(tmp_path, CARD.replace('version = "0.1.0"', 'version = "0.0.9"'))
    assert "card.toml says version 0.0.9, and this is unbraid" in refused(path)
    path = card_in(tmp_path, CARD.replace("settings = 5", "settings = 4"))
    assert "the study tries 5" in refused(card_in(tmp_path, path.read_text()), stored=scored(calibration()))
    path = card_in(tmp_path, CARD.replace("settings = 5", 'settings = 5\nmethods = ["nothing*"]'))
    assert "nothing would be judged" in refused(path)
    path = card_in(tmp_path, CARD.replace("claim = 1", "claim = 2"))
    assert "no method of claim 2" in refused(path)


def test_a_primary_that_fails_its_controls_is_refused(tmp_path):
    path = card_in(tmp_path)
    same = lambda experiment: {"f1": -0.35}  # as an untrained dictionary
    stored = scored(calibration(), same)
    assert "recovery.f1 failed its controls on calibration seeds" in refused(path, stored)


def test_fewer_seeds_than_the_power_needs_are_refused_or_marked(tmp_path):
    few = CARD.replace("[0, 1, 2, 3, 4, 5, 6, 7]", "[0, 1, 2]")
    said = refused(card_in(tmp_path, few))
    assert "has fewer seeds than its power needs" in said and "are needed for 0.0300 with 80%" in said
    path = card_in(tmp_path, few + "underpowered = true\n")
    register(path, study(), calibrated(path))
    stored = runs_of(path)
    status = answer(arrange(stored), study().d_sae, rules_of(path, stored)).verdicts[0].status
    assert status.startswith("registered on") and "underpowered" in status


def test_calibration_of_other_seeds_versions_or_without_some_settings_is_refused(tmp_path):
    path = card_in(tmp_path)
    assert "test seeds of the card" in refused(path, scored(study().test(), by_strength))
    half = calibrated(path, without=lambda e: e.strength == 0.3)
    assert "the calibration lacks batchtopk-orthogonality-0.3" in refused(path, half)
    both = calibrated(path)
    other = calibrated(path, version="0.0.9")
    mixed = replace(both, runs=(*both.runs[1:], other.runs[0]))
    assert "several versions" in refused(path, mixed)
    longer = replace(study(), training=replace(study().training, tokens=200_000))
    said = refused(path, scored(longer.calibration(), by_strength))
    assert "90 of 99 runs are not of the study small_world as it is now" in said


def test_what_departs_from_a_registration_makes_a_verdict_exploratory(registered):
    chosen = read_registration(registered).settings()
    experiments = with_seeds(study(), read_card(registered)).test(chosen)
    said = lambda stored: answer(arrange(stored), study().d_sae, rules_of(registered, stored)).verdicts[0].status
    late: Any = {"finished": "2999-01-01T00:00:00Z"}
    early = said(scored(experiments, by_strength))
    assert early.startswith("exploratory, though registered") and "finished before the registration" in early
    assert "all of seeds [7] among them" in said(
        scored(experiments, by_strength, without=lambda e: e.seed == 7, **late)
    )
    assert "of version 0.0.9" in said(scored(experiments, by_strength, version="0.0.9", **late))
    whole = scored(experiments, by_strength, **late)
    kept = tuple(r for r in whole.records if not (r["metric"] == "f1" and r["seed"] == 3))
    assert "lack the primary recovery.f1" in said(replace(whole, records=kept))
    assert "or do not say when" in said(scored(experiments, by_strength, finished=""))
    more = replace(study(), seeds=tuple(range(9))).test(chosen)
    assert "runs (seeds [8]) are not as they were registered" in said(scored(more, by_strength, **late))


def test_a_study_that_is_no_longer_what_was_registered_is_refused(registered):
    assert len(registered_experiments(registered, study())) == len(read_registration(registered).expected)
    other = replace(study(), training=replace(study().training, tokens=200_000))
    with pytest.raises(ValueError, match="no longer what .* registered: 48 of 72 runs would differ"):
        registered_experiments(registered, other)


def test_a_registration_is_plain_json_beside_its_card(registered):
    data = json.loads(registration_path(registered).read_text())
    assert registration_path(registered).name == "card.registered.json" and len(data["sha256"]) == 64
    assert {"registered", "version", "git", "chosen", "smallest", "gate", "power", "runs", "expected"} <= set(data)
