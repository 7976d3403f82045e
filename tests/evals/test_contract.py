"""What every eval must do, for every eval there is: dropping a file into unbraid/evals is enough to be held to it."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from tests.small import WORLD, experiment, seeded

from unbraid import catalog
from unbraid.evals.shared.evaluation import Eval, NotApplicable, Score, evaluate, rows_of
from unbraid.runs.results import ScoreKind, read_result
from unbraid.runs.run import Run
from unbraid.sources.cached import Cached, write_cache
from unbraid.training.loop import train

Made = Callable[[Eval], list[Score] | NotApplicable]
# Its pushes through what is downstream take as long as all other evals together.
every_eval = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n == "controllability" else n for n in catalog.evals()],
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two seeds of one dictionary, small, on a world."""
    base = experiment(tokens=1600)
    base = replace(base, dictionary=replace(base.dictionary, d_sae=32))
    return [Run.open(f) for f in train([base, seeded(base, 1)], tmp_path_factory.mktemp("runs"))]


def scored(run: Run, item: Eval) -> list[Score] | NotApplicable:
    try:
        return item.score(run) if item.peers is None else item.score(run, item.peers(run))
    except NotApplicable as reason:
        return reason


@pytest.fixture(scope="module")
def made(runs: list[Run]) -> Made:
    """Scores of an eval, or why there are none; each made once."""
    known: dict[str, list[Score] | NotApplicable] = {}

    def ask(item: Eval) -> list[Score] | NotApplicable:
        if item.name not in known:
            known[item.name] = scored(runs[0], item)
        return known[item.name]

    return ask


def of(made: Made, name: str) -> list[Score]:
    found = made(catalog.evals()[name])
    if isinstance(found, NotApplicable):
        pytest.skip(f"it does not apply: {found}")
    return found


def test_there_are_evals():
    assert len(catalog.evals()) >= 10


@every_eval
def test_scores_or_a_reason_in_a_sentence(name: str, made: Made):
    found = made(catalog.evals()[name])
    if isinstance(found, NotApplicable):
        assert len(str(found).split()) >= 4, str(found)
    else:
        assert found and any(math.isfinite(score.value) for score in found)


@every_eval
def test_every_metric_that_is_scored_is_defined_in_a_sentence(name: str, made: Made):
    item = catalog.evals()[name]
    assert item.definitions and item.version >= 1
    assert all(len(text.split()) >= 3 for text in item.definitions.values())
    assert {score.metric for score in of(made, name)} <= set(item.definitions)


@every_eval
def test_a_metric_is_better_in_one_direction(name: str, made: Made):
    found = of(made, name)
    directions = {score.metric: {s.better for s in found if s.metric == score.metric} for score in found}
    assert all(len(ways) == 1 for ways in directions.values()), directions


@every_eval
def test_no_two_scores_are_of_the_same_thing(name: str, made: Made):
    found = [(s.metric, s.kind, *sorted(s.params.items(), key=str)) for s in of(made, name)]
    assert len(found) == len(set(found))


@every_eval
def test_chance_and_ceiling_are_those_of_a_metric_that_is_measured(name: str, made: Made):
    found = of(made, name)
    assert {score.kind for score in found} <= set(get_args(ScoreKind))
    measured = {score.metric for score in found if score.kind == "measured"}
    assert {score.metric for score in found if score.kind in ("chance", "ceiling")} <= measured


@every_eval
def test_the_same_run_has_the_same_scores(name: str, made: Made, runs: list[Run]):
    torch.manual_seed(1)  # which nothing may depend on
    first, again = of(made, name), scored(Run.open(runs[0].path), catalog.evals()[name])
    assert not isinstance(again, NotApplicable)
    assert json.dumps(rows_of(first)) == json.dumps(rows_of(again))


@every_eval
def test_what_is_stored_is_what_was_scored_and_nothing_else_of_the_run_changes(name: str, made: Made, runs: list[Run]):
    item, run, found = catalog.evals()[name], runs[0], of(made, name)
    before = {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    assert evaluate([run], [replace(item, score=lambda *_: found)]) == 0
    assert read_result(run.path / "results" / f"{name}.json")["scores"] == rows_of(found)
    assert {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()} == before


@every_eval
def test_a_source_without_truth_text_and_layers_downstream_is_scored_or_there_is_a_reason(
    name: str, runs: list[Run], tmp_path: Path
):
    write_cache(WORLD, tmp_path / "cache", blocks=1, seed=0)
    base = replace(runs[0].experiment, source=Cached(folder=str(tmp_path / "cache")))
    base = replace(base, training=replace(base.training, tokens=320))
    (folder,) = train([base], tmp_path / "runs")
    assert evaluate([Run.open(folder)], [catalog.evals()[name]]) == 0
    stored = read_result(folder / "results" / f"{name}.json")
    assert stored.get("scores") or len(stored["not_applicable"].split()) >= 4
