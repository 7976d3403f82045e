"""What scoring a dictionary costs, eval by eval: python -m benchmarks.eval_cost runs/demo --out rows.json

Core-seconds of one thread in one process, run after run, as `unbraid eval` takes them; nothing is written into the
runs. `first`: the first run of a source and width, which pays for what all of them share; `later`: the mean of the
others. Runs to measure: unbraid train demo_language --only batchtopk-l0_8 relu-l0_8 --seeds 0 1 --out runs/language.

`--keep FILE` also keeps every score; `--against FILE` says by how much scores differ from ones kept before.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from unbraid import catalog
from unbraid.evals.shared.evaluation import Eval, score
from unbraid.runs.run import Run
from unbraid.runs.run_folder import finished, is_run
from unbraid.runs.siblings import read_once
from unbraid.sources.base import Source
from unbraid.system.files import write_json
from unbraid.system.sharing import sharing

Case = tuple[Source, int]
"""A source, and the number of latents."""


def runs_in(folders: Sequence[Path]) -> dict[Case, list[Run]]:
    """The finished runs in these folders, by source and width."""
    found: dict[Case, list[Run]] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if is_run(path) and finished(path):
                run = Run.open(path)
                case = run.source, run.experiment.dictionary.d_sae
                found.setdefault(case, []).append(run)
    return found


def measured(runs: Sequence[Run], evals: Sequence[Eval]) -> Iterator[dict[str, Any]]:
    """Score runs, and yield each result with its core-seconds."""
    with read_once(), sharing():
        for number, run in enumerate(runs):
            for item in evals:
                before = time.process_time()
                result = score(run, item)
                seconds = time.process_time() - before
                yield {"run": run.path.name, "number": number, "eval": item.name, "seconds": seconds, "result": result}


def rows_of(case: Case, found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row an eval: the core-seconds of the first run, and of those after it."""
    rows, source = [], type(case[0]).__name__
    for name in dict.fromkeys(one["eval"] for one in found if "scores" in one["result"]):
        own = [one for one in found if one["eval"] == name]
        later = [one["seconds"] for one in own if one["number"]]
        rows.append({
            "eval": name, "source": source, "d_sae": case[1], "first": round(own[0]["seconds"], 3),
            "later": round(statistics.mean(later), 3) if later else None, "runs": len(own),
        })  # fmt: skip
    total = lambda key: round(sum(row[key] or 0.0 for row in rows), 3)
    whole = {"eval": "all", "source": source, "d_sae": case[1], "first": total("first"), "later": total("later")}
    return [*rows, {**whole, "runs": len({one["run"] for one in found})}]


def kept(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Every score by run, eval, metric, kind and params; what failed, by its error."""
    scores: dict[str, Any] = {}
    for one in found:
        where = f"{one['run']}/{one['eval']}"
        for row in one["result"].get("scores", []):
            scores[f"{where}/{row['metric']}/{row['kind']}/{json.dumps(row['params'], sort_keys=True)}"] = row["value"]
        if "error" in one["result"]:
            scores[where] = one["result"]["error"]
    return scores


def difference(before: Any, after: Any) -> float:
    """The relative difference of two values of one score; infinite where one of them is no number."""
    if before == after:
        return 0.0
    if not isinstance(before, float) or not isinstance(after, float):
        return math.inf
    return abs(before - after) / max(abs(before), abs(after))


def compared(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[float, str]]:
    """Relative differences of scores that both hold or one lacks, largest first; equal ones left out."""
    names = [name for name in before.keys() | after.keys() if name.split("/")[0] in {n.split("/")[0] for n in after}]
    found = ((difference(before.get(name, "absent"), after.get(name, "absent")), name) for name in names)
    return sorted((one for one in found if one[0] > 0), reverse=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--evals", nargs="+", help="only these (default: all)")
    parser.add_argument("--out", type=Path, help="also write the rows to this JSON file")
    parser.add_argument("--keep", type=Path, help="write every score to this JSON file")
    parser.add_argument("--against", type=Path, help="compare scores with those that --keep wrote")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    evals = [item for name, item in catalog.evals().items() if not options.evals or name in options.evals]
    rows: list[dict[str, Any]] = []
    scores: dict[str, Any] = {}
    for case, runs in runs_in(options.folders).items():
        found = list(measured(runs, evals))
        scores |= kept(found)
        for row in rows_of(case, found):
            rows.append(row)
            print(row, flush=True)
    if options.out:
        write_json(options.out, {"rows": rows})
    if options.keep:
        write_json(options.keep, scores)
    if options.against:
        apart = compared(json.loads(options.against.read_text()), scores)
        print(f"{len(scores)} scores, {len(apart)} differ; the largest: {apart[:10]}")


if __name__ == "__main__":
    main()
