"""The browser's folder: it holds what is known of every latent, and what cannot be shown is refused in a sentence."""

import json
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.browser.stored import copied, save, store, told, with_examples, with_text
from tests.known import EXACT, truth

from unbraid import catalog
from unbraid.browser import write_browser
from unbraid.browser.data import headline_scores, list_data, rows_data, shards, without_folder
from unbraid.browser.stored_cards import read_cards
from unbraid.browser.stored_examples import StoredExamples, read_examples
from unbraid.browser.twins import twins
from unbraid.cli.main import main
from unbraid.evals.causal_cards import BUDGET, SCHEMA
from unbraid.evals.shared.evaluation import evaluate
from unbraid.evals.shared.example_tables import packed, table_of
from unbraid.runs.results import read_file, read_result
from unbraid.runs.run import Run

NASTY = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\n",
    "\u2028",
    "שלום",
    "中文",
    "\u202e",
    '"',
    "'",
    "&amp;",
]
TURNED = torch.arange(23, -1, -1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return with_examples(save(tmp_path_factory.mktemp("runs") / "truth", truth(EXACT), EXACT))


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same atoms in the opposite order."""
    return with_examples(save(tmp_path_factory.mktemp("runs") / "turned", truth(EXACT, order=TURNED), EXACT, "turned"))


def data(folder: Path, name: str) -> list:
    return told(folder / "data" / name)[1]


def test_the_list_says_of_each_latent_which_factor_it_is(run: Run, tmp_path: Path):
    write_browser([run], tmp_path / "pages")
    side, columns = data(tmp_path / "pages", "a/list.js")
    assert side == "a" and columns["factor"] == list(range(24)) and set(columns["represents"]) == {1}
    (about,) = data(tmp_path / "pages", "index.js")
    assert [factor["name"] for factor in about["factors"]] == list(EXACT.truth().names)
    assert about["runs"][0]["latents"] == 24


def test_scores_are_shown_that_are_of_its_weights_alone(run: Run, turned: Run, tmp_path: Path):
    scored, other = copied(run, tmp_path / "scored"), copied(turned, tmp_path / "other")
    assert evaluate([scored], [catalog.evals()["fidelity"]]) == 0
    shutil.copy(scored.path / "results" / "fidelity.json", other.path / "results")
    assert [title for title, _ in headline_scores(scored)] == ["FVU", "L0", "alive"]
    assert headline_scores(other) == []


def test_of_a_text_on_disk_the_name_alone_is_shown():
    known = {"/home/x/corpus.jsonl": "corpus.jsonl", "../data/corpus.jsonl": "corpus.jsonl"}
    known |= {name: name for name in ("hf://owner/name", "owner/model", "smollm2", "language://300")}
    assert {name: without_folder(name) for name in known} == known


def test_a_shard_holds_the_latents_of_its_number_in_order(run: Run):
    found = read_examples(run)
    (shard,) = shards(found)
    assert len(shard) == 24
    rows = found.contexts.to_pylist()
    for latent, details in enumerate(shard):
        assert [c[1] for c in details["contexts"]] == [row["row"] for row in rows if row["latent"] == latent]
        assert sum(details["histogram"]) == found.latents["fires"][latent].as_py()


def test_every_row_of_a_context_is_there_with_its_factors(run: Run, tmp_path: Path):
    write_browser([run], tmp_path / "pages")
    (rows,), (_, _, shard) = data(tmp_path / "pages", "rows.js"), data(tmp_path / "pages", "a/0.js")
    named = {context[1] for latent in shard for context in latent["contexts"]}
    assert {int(row) for row in rows["rows"]} == named
    for factor, latent in enumerate(shard):
        assert all(factor in rows["rows"][str(context[1])][0] for context in latent["contexts"])


def test_twins_of_turned_atoms_are_the_atoms_themselves(run: Run, turned: Run, tmp_path: Path):
    ours, theirs = twins(run, turned)
    assert ours.other.tolist() == theirs.other.tolist() == TURNED.tolist()
    assert ours.cosine == pytest.approx(1, abs=1e-5)
    write_browser([run, turned], tmp_path / "pages")
    assert data(tmp_path / "pages", "b/list.js")[1]["twin"] == TURNED.tolist()


def test_of_unequal_widths_some_have_no_twin(run: Run, tmp_path: Path):
    narrow = save(tmp_path / "narrow", truth(EXACT, order=torch.arange(20)), EXACT, "narrow")
    ours, theirs = twins(run, narrow)
    assert ours.other.tolist() == [*range(20), -1, -1, -1, -1] and theirs.other.tolist() == [*range(20)]


def test_tokens_reach_the_page_as_they_are_and_no_markup_is_written(run: Run, tmp_path: Path):
    made = with_text(copied(run, tmp_path / "run"), NASTY * 20, 10)
    write_browser([made], tmp_path / "pages")
    (rows,) = data(tmp_path / "pages", "rows.js")
    assert rows["texts"] == NASTY * 20 and rows["gaps"] == []
    ours = files("unbraid.browser") / "static" / "index.html"
    assert (tmp_path / "pages" / "index.html").read_bytes() == ours.read_bytes()


def test_gaps_are_where_positions_jump_within_a_window(run: Run):
    found = read_examples(run)
    columns = {"row": np.arange(5), "window": [0, 0, 0, 1, 1], "position": [1, 2, 5, 1, 2], "text": list("abcde")}
    assert rows_data([replace(found, rows=table_of("rows", 5, columns))])["gaps"] == [2]


def test_cards_are_shown_of_the_latents_that_have_one(run: Run, tmp_path: Path):
    carded = copied(run, tmp_path / "run")
    assert evaluate([carded], [catalog.evals()["causal_cards"]]) == 0
    write_browser([carded], tmp_path / "pages")
    cards = pq.read_table(carded.path / "results" / "causal_cards.latents.parquet").to_pylist()
    (_, columns), (_, _, shard) = data(tmp_path / "pages", "a/list.js"), data(tmp_path / "pages", "a/0.js")
    (about,) = data(tmp_path / "pages", "index.js")
    assert about["runs"][0]["cards"][0] == BUDGET and len(cards) > 10
    for card in cards:
        shown = shard[card["latent"]]["card"]
        assert [name for name, *_ in shown["raised"]] == card["raised"] and shown["reached"] == card["reached"]
        assert columns["effect"][card["latent"]] == pytest.approx(card["own_effect"], rel=1e-2)
    without = set(range(24)) - {card["latent"] for card in cards}
    assert all(columns["effect"][latent] is None and "card" not in shard[latent] for latent in without)
    write_browser([run], tmp_path / "without")
    assert "effect" not in data(tmp_path / "without", "a/list.js")[1]


def test_cards_that_name_no_latent_are_refused_with_what_makes_them_anew(run: Run, tmp_path: Path, monkeypatch):
    carded = copied(run, tmp_path / "run")
    assert evaluate([carded], [catalog.evals()["causal_cards"]]) == 0
    path = carded.path / "results" / "causal_cards.latents.parquet"
    columns = pq.read_table(path).to_pydict()
    columns["latent"][0] = 24
    monkeypatch.setattr("unbraid.browser.stored_cards.read_file", lambda *_: packed(pa.table(columns, schema=SCHEMA)))
    with pytest.raises(ValueError, match="a latent that there is not; .*--evals causal_cards --force"):
        read_cards(carded)
    monkeypatch.undo()
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"cannot be read.*--evals causal_cards --force"):
        read_cards(carded)


# ---- refusals -------------------------------------------------------------------------------------------------


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1, said
    return said


def test_a_run_without_examples_names_the_command_that_makes_them(tmp_path: Path, capsys):
    run = save(tmp_path / "run", truth(EXACT), EXACT)
    said = refused(["browse", str(run.path), "--out", str(tmp_path / "pages")], capsys)
    assert f"unbraid eval {run.path} --evals examples" in said and not (tmp_path / "pages").exists()


def test_examples_of_other_weights_are_refused(run: Run, tmp_path: Path, capsys):
    other = save(tmp_path / "other", truth(EXACT, order=TURNED), EXACT)
    for path in (run.path / "results").iterdir():
        (other.path / "results").mkdir(exist_ok=True)
        (other.path / "results" / path.name).write_bytes(path.read_bytes())
    assert "of other weights" in refused(["browse", str(other.path), "--out", str(tmp_path / "pages")], capsys)


def test_two_runs_of_two_sources_are_refused_with_the_difference(run: Run, tmp_path: Path, capsys):
    world = replace(EXACT, seed=EXACT.seed + 1)
    other = with_examples(save(tmp_path / "other", truth(world), world))
    said = refused(["browse", str(run.path), str(other.path), "--out", str(tmp_path / "pages")], capsys)
    assert "side by side: seed is '0' and '1'" in said and "one by one" in said


def test_one_run_twice_three_runs_and_no_run_are_refused(run: Run, turned: Run, tmp_path: Path, capsys):
    out = ["--out", str(tmp_path / "pages")]
    assert "twice" in refused(["browse", str(run.path), str(run.path), *out], capsys)
    assert "3 are named" in refused(["browse", str(run.path), str(turned.path), str(run.path), *out], capsys)
    assert "no run folder" in refused(["browse", str(tmp_path), *out], capsys)


def test_an_unfinished_run_is_refused(run: Run, tmp_path: Path, capsys):
    half = copied(run, tmp_path / "half")
    (half.path / "provenance.json").unlink()
    assert "not finished" in refused(["browse", str(half.path), "--out", str(tmp_path / "pages")], capsys)


def test_a_folder_that_exists_is_left_as_it_is(run: Run, tmp_path: Path, capsys):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "mine").write_text("kept")
    said = refused(["browse", str(run.path), "--out", str(tmp_path / "pages")], capsys)
    assert "exists already" in said and [p.name for p in (tmp_path / "pages").iterdir()] == ["mine"]


def test_a_table_that_changed_is_refused(run: Run, tmp_path: Path, capsys):
    spoiled = copied(run, tmp_path / "run")
    path = spoiled.path / "results" / "examples.latents.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    assert "cannot be read" in refused(["browse", str(spoiled.path), "--out", str(tmp_path / "pages")], capsys)


@pytest.mark.parametrize(
    ("table", "column", "value", "words"),
    [
        ("contexts", "latent", 24, "a latent that there is not"),
        ("contexts", "row", 40_000, "a row that is not stored"),
        ("contexts", "start", -1, "leaves the rows"),
        ("latents", "factor", 24, "a factor is named"),
        ("latents", "near", [99], "a neighbour is named"),
    ],
)
def test_tables_that_point_to_nothing_are_refused(table, column, value, words, run: Run, tmp_path: Path):
    spoiled = copied(run, tmp_path / "run")
    found = read_examples(spoiled)
    result = read_result(spoiled.path / "results" / "examples.json")
    tables = {
        name: read_file(spoiled.path, result, f"{name}.parquet") for name in ("rows", "factors", "latents", "contexts")
    }
    columns = getattr(found, table).to_pydict()
    columns[column][0] = value
    tables[table] = packed(pa.table(columns, schema=getattr(found, table).schema))
    store(spoiled, tables, found.held_out)
    with pytest.raises(ValueError, match=words):
        read_examples(spoiled)


def test_a_stranger_that_names_another_format_is_refused(run: Run, tmp_path: Path):
    spoiled = copied(run, tmp_path / "run")
    store(spoiled, {"latents": b"PAR1 no", "contexts": b"", "rows": b""}, 10)
    with pytest.raises(ValueError, match="no Parquet that can be read"):
        read_examples(spoiled)


# ---- size -----------------------------------------------------------------------------------------------------


def test_65_thousand_latents_are_a_list_and_a_thousand_shards():
    count = 65_536
    latents = {
        "fires": np.ones(count), "lowest": np.zeros(count), "highest": np.ones(count),
        "histogram": np.ones((count, 2)).tolist(), "near": [[0]] * count, "near_cosine": [[0.5]] * count,
        "together": [[]] * count, "together_phi": [[]] * count,
    }  # fmt: skip
    last = {
        "latent": [count - 1],
        "band": [0],
        "row": [0],
        "start": [0],
        "stop": [1],
        "fired": [[0]],
        "values": [[1.0]],
    }
    rows = {"row": [0], "window": [0], "position": [0], "text": ["last"]}
    found = StoredExamples(
        table_of("latents", count, latents), table_of("contexts", 1, last), table_of("rows", 1, rows), None, 1
    )
    made = [*shards(found)]
    assert len(made) == 1024 and [len(shard) for shard in made] == [64] * 1024
    assert made[-1][-1]["contexts"] == [[0, 0, 0, 1, [0], [1.0]]] and made[0][0]["contexts"] == []
    columns = list_data(found, None)
    assert columns["anchors"][-1] == ["last"] and len(columns["fires"]) == count
    assert len(json.dumps(columns)) < 4e6
