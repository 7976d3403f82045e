"""What scoring a dictionary costs, eval by eval: python -m benchmarks.eval_cost runs/world runs/language --out FILE

Core-seconds (user and system) of one thread, all evals on one run after another in one process, as `unbraid eval` takes
them; on copies, so that nothing is written into the runs. `first`: the first run of a folder, which pays for what all
share; `later`: the others. A folder holds runs of one source and one width:

    unbraid train demo_world --only batchtopk-l0_5 --seeds 0 1 2 --out runs/world
    unbraid train demo_language --only batchtopk-l0_8 --seeds 0 1 2 --out runs/language

`--before TREE` measures another checkout of this repository in turn with this one, and says by how much scores differ
(the largest difference of each eval). Rows so far are written after every folder.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

NOW = Path(__file__).parents[1]
Found = Sequence[Mapping[str, Any]]
"""Results in the order in which they were made: run, eval, core-seconds and scores; the source and the width."""


# ---- in a process of its own, on either checkout: only names that both have


def measured(folder: Path, names: Sequence[str], most: int) -> Iterator[dict[str, Any]]:
    """Score the runs of a folder, and yield each result with its core-seconds."""
    import torch

    from unbraid import catalog
    from unbraid.evals.shared.evaluation import evaluate
    from unbraid.runs.run import Run

    torch.set_num_threads(1)
    runs = [Run.open(path) for path in sorted(folder.iterdir())[:most]]
    chosen = lambda name, item: name in names if names else getattr(item, "by_default", True)
    evals = [item for name, item in catalog.evals().items() if chosen(name, item)]
    seconds: dict[tuple[str, str], float] = {}
    last = [time.process_time()]

    def on_result(run: Run, item: Any, status: str) -> None:
        now = time.process_time()
        seconds[run.path.name, item.name], last[0] = now - last[0], now

    evaluate(runs, evals, force=True, on_result=on_result)
    for number, run in enumerate(runs):
        about = {"number": number, "source": type(run.source).__name__, "d_sae": run.experiment.dictionary.d_sae}
        for item in evals:
            result = json.loads((run.path / "results" / f"{item.name}.json").read_text())
            if "scores" in result:
                took = seconds[run.path.name, item.name]
                yield {**about, "run": run.path.name, "eval": item.name, "seconds": took, "scores": result["scores"]}


def of_tree(tree: Path, folder: Path, names: Sequence[str], most: int) -> Found:
    """Measure a copy of a folder with the code of one checkout."""
    with tempfile.TemporaryDirectory() as made:
        copy = Path(made) / folder.name
        shutil.copytree(folder, copy, symlinks=False)
        command = [sys.executable, __file__, str(copy), "--measure", "--most", str(most), "--evals", *names]
        found = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}, check=True,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
    return [json.loads(line) for line in found.stdout.splitlines() if line.startswith("{")]


# ---- rows


def rows_of(by_side: Mapping[str, Sequence[Found]]) -> list[dict[str, Any]]:
    """Return a row for each eval and for their sum, of the first run and of later ones: core-seconds by side, each time
    they were taken, and the largest difference of a score."""
    one = by_side["after"][0][0]
    head = {"source": one["source"], "d_sae": one["d_sae"]}
    names = list(dict.fromkeys(result["eval"] for result in by_side["after"][0]))
    rows = []
    for name in (*names, "all"):
        for which in ("first", "later"):
            row = {"eval": name, **head, "run": which}
            row |= {side: taken(found, name, which) for side, found in by_side.items()}
            rows.append(row | ({"apart": apart(by_side, name)} if "before" in by_side and name != "all" else {}))
    return rows


def taken(repeated: Sequence[Found], name: str, which: str) -> list[float]:
    """Return the core-seconds of an eval, or of all together, of each run and repetition."""
    found = []
    for results in repeated:
        for number in sorted({result["number"] for result in results}):
            own = [r["seconds"] for r in results if r["number"] == number and name in (r["eval"], "all")]
            if own and (which == "first") == (number == 0):
                found.append(round(sum(own), 3))
    return found


def apart(by_side: Mapping[str, Sequence[Found]], name: str) -> float | None:
    """Return the largest difference between both sides of a score of an eval; None when they are not the same ones."""
    before, after = (scores(by_side[side][0], name) for side in ("before", "after"))
    if before.keys() != after.keys() or any((before[key] is None) != (after[key] is None) for key in before):
        return None
    return max((abs(before[key] - after[key]) for key in before if before[key] is not None), default=0.0)


def scores(results: Found, name: str) -> dict[str, Any]:
    """Return the scores of an eval by run, metric, kind and params."""
    return {
        f"{result['run']} {score['metric']} {score['kind']} {json.dumps(score['params'], sort_keys=True)}": score[
            "value"
        ]
        for result in results
        if result["eval"] == name
        for score in result["scores"]
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of runs, of one source and width each")
    parser.add_argument("--before", type=Path, help="another checkout, measured in turn with this one")
    parser.add_argument("--evals", nargs="*", default=[], help="only these (default: all)")
    parser.add_argument("--most", type=int, default=3, help="runs of a folder that are scored")
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--out", type=Path, help="also write the rows to this JSON file")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.measure:
        for result in measured(options.folders[0], options.evals, options.most):
            print(json.dumps(result), flush=True)
        return
    sides = {"before": options.before, "after": NOW} if options.before else {"after": NOW}
    rows: list[dict[str, Any]] = []
    for folder in options.folders:
        found: dict[str, list[Found]] = {side: [] for side in sides}
        for _ in range(options.repetitions):
            for side, tree in sides.items():
                found[side].append(of_tree(tree, folder, options.evals, options.most))
        made = rows_of(found)
        print(*made, sep="\n", flush=True)
        rows += made
        if options.out:
            options.out.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
