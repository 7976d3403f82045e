"""What `make bench` measures besides steps: rows of other scripts, kept run by run, and their tables."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks import bench_tables, part_tables, parts, run
from benchmarks import workers as workers_bench
from benchmarks.peers import ROOT

SLICES = [
    {"model": "100m", "d_sae": 64, "batch": 32, "plain_ms": 400.0, "effect_ms": 800.0, "interaction_ms": 80.0,
     "hinge_ms": 40.0, "all_ms": 1600.0, "every": 8, "ratio": 1.5, "context_tokens": 256, "harvest_ms": 600.0,
     "ratio_with_harvest": 1.2},
]  # fmt: skip
EVALS = {
    "rows": [
        {"eval": "fidelity", "source": "World", "d_sae": 96, "run": "first", "after": [0.5]},
        {"eval": "fidelity", "source": "World", "d_sae": 96, "run": "later", "after": [0.1, 0.3]},
        {"eval": "recovery", "source": "World", "d_sae": 96, "run": "first", "after": [0.0]},
        {"eval": "recovery", "source": "World", "d_sae": 96, "run": "later", "after": []},
    ]
}
HARVEST = {
    "rows": [
        {"dtype": "float32", "arm": "plain to 10", "tokens_a_core_second": [800.0, 1000.0, 900.0]},
        {"dtype": "float32", "arm": "one, 10", "tokens_a_core_second": [810.0, 800.0, 840.0]},
    ]
}


def chosen(folder: Path, **changed: Any) -> argparse.Namespace:
    asked = run.arguments(["--kept", str(folder / "kept.json"), "--out", str(folder / "out.json")])
    return argparse.Namespace(**{**vars(asked), "regimes": ["slice", "evals"], **changed})


def test_rows_say_what_scripts_measured():
    by_who = {row["who"]: row["cpu_seconds"] for row in parts.of_slices(SLICES)}
    assert by_who == {"plain": 0.4, "effect": 0.8, "interaction": 0.08, "hinge": 0.04, "all": 1.6, "harvest": 0.6}
    assert [row["cpu_seconds"] for row in parts.of_evals(EVALS)] == [0.5, 0.2, 0.0]
    assert [row["tokens_per_second"] for row in parts.of_harvest(HARVEST)] == [900.0, 810.0]


def test_tables_give_ratios_within_a_run_and_their_range():
    rows = [{"regime": "slice", "run": 1, **row} for row in parts.of_slices(SLICES)]
    rows += [{"regime": "slice", "run": 2, **row} for row in parts.of_slices([{**SLICES[0], "all_ms": 3200.0}])]
    rows += [{"regime": "harvest", "run": 1, **row} for row in parts.of_harvest(HARVEST)]
    rows += [{"regime": "evals", "run": 1, **row} for row in parts.of_evals(EVALS)]
    assert "| 100m | 400 | 600 | 800 | 80.0 | 40.0 | 1,600 to 3,200 | 1.50 to 2.00 | 1.20 to 1.40 |" in (
        part_tables.slices(rows)
    )
    assert "| float32 | 900 | 810 | 0.90 |" in part_tables.reading(rows)
    assert "| fidelity | 0.50 | 0.20 |\n| recovery | 0.00 |  |" in part_tables.scoring(rows)
    assert bench_tables.cases(rows) == {}, "they are no races"


def test_a_part_that_is_kept_is_not_measured_again(tmp_path, monkeypatch):
    asked = chosen(tmp_path, runs=2)
    measured: list[str] = []

    def measure(name: str, folder: Path, *, quick: bool) -> list[dict[str, Any]]:
        measured.append(name)
        if len(measured) == 3:
            raise SystemExit("stopped in the middle")
        return [{"regime": name, "who": "all", "cpu_seconds": 1.0}]

    monkeypatch.setattr(parts, "measure", measure)
    assert run.measure_parts(chosen(tmp_path, regimes=["small"]), []) == []
    with pytest.raises(SystemExit, match="stopped"):
        run.measure_parts(asked, [])
    kept = json.loads(asked.kept.read_text())
    assert [(row["run"], row["regime"]) for row in kept] == [(1, "slice"), (1, "evals")]
    rows = run.measure_parts(asked, kept)
    assert measured == ["slice", "evals", "slice", "slice", "evals"]
    assert [(row["run"], row["regime"]) for row in rows] == [(1, "slice"), (1, "evals"), (2, "slice"), (2, "evals")]


def test_parts_alone_need_no_other_library(tmp_path):
    assert run.bench(chosen(tmp_path)) == ([], [])


def test_a_script_that_fails_says_which(tmp_path):
    with pytest.raises(SystemExit, match=r"benchmarks\.harvest --rounds x .*failed"):
        parts.run_alone(["benchmarks.harvest", "--rounds", "x", "--out", str(tmp_path / "rows.json")])


def test_two_workers_are_compared_round_by_round_and_what_is_there_is_kept(tmp_path, monkeypatch, capsys):
    made: list[tuple[int, int, int]] = []

    def measured(tokens: int, workers: int, sweeps: int) -> workers_bench.Row:
        made.append((tokens, workers, sweeps))
        digest = "other" if (tokens, workers) == (400_000, 2) else "same"
        seconds = tokens / 10_000 / workers * (1.25 if sweeps == 2 else 1) + len(made)
        return {"tokens": tokens, "workers": workers, "sweeps": sweeps, "seconds": seconds, "weights": digest}

    monkeypatch.setattr(workers_bench, "measured", measured)
    out = tmp_path / "rows.json"
    workers_bench.main(["--out", str(out)])
    assert len(made) == len(json.loads(out.read_text())) == 15
    assert made[:3] == [(100_000, 1, 1), (100_000, 2, 1), (100_000, 1, 2)]
    first = "| 100,000 | 11.0 to 14.0 | 7.00 to 10.0 | 1.40 to 1.57 | 15.5 to 18.5 | 1.42 to 1.51 | yes |"
    assert first in capsys.readouterr().out
    rows = json.loads(out.read_text())
    out.write_text(json.dumps(rows[:7]))  # stopped in the middle
    workers_bench.main(["--out", str(out)])
    assert made[15:] == made[7:15] and "| no |" in capsys.readouterr().out


def test_the_page_says_what_two_workers_took():
    rows = json.loads((ROOT / "docs/results/workers.json").read_text())
    assert workers_bench.table(rows) in (ROOT / "docs/performance.md").read_text()


def test_a_digest_of_weights_differs_where_one_byte_does(tmp_path):
    with pytest.raises(SystemExit, match="no weights"):
        workers_bench.weights_of(tmp_path)
    path = tmp_path / "run" / "sae_weights.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"one")
    before = workers_bench.weights_of(tmp_path)
    path.write_bytes(b"two")
    assert workers_bench.weights_of(tmp_path) != before
