"""The demo's streams: scored where they were trained; pages of two dictionaries of the first, or why there are none."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.browser.stored import told
from tests.small import experiment, seeded

from unbraid.cli import demo, score, train_shards
from unbraid.cli.arguments import DemoFlags
from unbraid.cli.demo import DemoStream
from unbraid.experiment.experiment import Experiment

NAME = "demo_world"


def of_seed(name: str, seed: int) -> Experiment:
    made = seeded(experiment(name, tokens=1600), seed)
    return replace(made, training=replace(made.training, data_seed=None))


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DemoFlags]:
    made = [of_seed(name, seed) for seed in (0, 1) for name in (*demo.BROWSED, "relu")]
    monkeypatch.setattr(demo, "demo_experiments", lambda name: made)
    monkeypatch.setitem(demo.EVALS, NAME, ("fidelity",))
    demo.streams.cache_clear()
    yield DemoFlags(out=tmp_path / "demo")
    demo.streams.cache_clear()


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a worker tells."""
    heard: list[Any] = []
    for module in (score, train_shards):
        monkeypatch.setattr(module, "tell", heard.append)
    return heard


def scored(events: list[Any]) -> list[tuple[str, str]]:
    return [
        (folder.name.partition("-")[0], name)
        for kind, *told in events
        if kind == "scored"
        for folder, name, _ in [told]
    ]


def test_a_stream_is_scored_where_it_was_trained_and_the_first_is_shown_side_by_side(
    options: DemoFlags, events, capsys
):
    part = DemoStream(NAME, 0, shown=True)
    assert demo.demo_stream(0, part, options) == 0
    shown = [("batchtopk", "examples"), ("matryoshka", "examples"), ("batchtopk", "causal_cards")]
    assert sorted(scored(events)) == sorted([*((e.name, "fidelity") for e in part.experiments), *shown])
    assert len(scored(events)) == part.results and events[-1][0] == "scored"
    pages = options.out / demo.BROWSERS[NAME]
    assert f"pages: {pages / 'index.html'}" in capsys.readouterr().out
    (index,) = told(pages / "data" / "index.js")[1]
    assert [run["method"].partition(",")[0] for run in index["runs"]] == [*demo.BROWSED]
    assert ["cards" in run for run in index["runs"]] == [True, False]
    demo.browse_demo(DemoStream(NAME, 0), options, pages)
    assert "kept" in capsys.readouterr().out


def test_of_the_other_streams_nothing_is_shown(options: DemoFlags, events):
    part = DemoStream(NAME, 1)
    assert demo.demo_stream(3, part, options) == 0
    assert len(scored(events)) == part.results == len(part.experiments) and {name for _, name in scored(events)} == {
        "fidelity"
    }
    assert {content[0] for kind, *content in events if kind == "trained"} == {3}
    assert not (options.out / demo.BROWSERS[NAME]).exists()


def test_the_longest_streams_come_first_and_each_is_in_one_task():
    parts = demo.parts_of(())
    assert parts[0].place == "demo_language, stream 1 of 3" and [part.shown for part in parts] == 2 * [
        True,
        False,
        False,
    ]
    folders = [experiment.folder for part in parts for experiment in part.experiments]
    assert len(folders) == len(set(folders)) == 63
    assert sum(part.results for part in parts) == 315 + 6


def test_seeds_that_are_named_are_done_alone_and_the_first_of_them_is_shown():
    parts = demo.parts_of((2, 1))
    assert [(part.number, part.shown) for part in parts] == 2 * [(1, True), (2, False)]
    with pytest.raises(ValueError, match="--seeds names 5, and the demo has seeds 0, 1, 2; name some"):
        demo.parts_of((0, 5))


def test_without_the_runs_the_demo_says_why_there_are_no_pages(options: DemoFlags, capsys):
    options.out.mkdir()
    demo.browse_demo(DemoStream(NAME, 0), options, options.out / "browser")
    assert "batchtopk and matryoshka of demo_world are not finished" in capsys.readouterr().err
    assert not (options.out / "browser").exists()
