"""Try everything, and write docs/reliability.md and docs/results/reliability.json: `make reliability` (minutes)."""

import argparse
import dataclasses
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tests.finished_runs import make_language_run, make_world_run

from benchmarks.reliability import trial
from benchmarks.reliability.attacking import attacks
from benchmarks.reliability.inputs import bad_inputs
from benchmarks.reliability.kills import kills, kills_at_file_operations, other_commands
from benchmarks.reliability.mutating import mutations
from benchmarks.reliability.page import TITLES, overview, page
from unbraid.runs.provenance import machine
from unbraid.system.files import write_json, write_text

DOCS = Path(__file__).parents[2] / "docs"
LINE_SECONDS = 10.0


def everything(scratch: Path, counts: argparse.Namespace) -> Iterator[trial.Trial]:
    world, language = make_world_run(scratch), make_language_run(scratch)
    yield from attacks(scratch, world, language)
    yield from bad_inputs(scratch)
    yield from mutations(scratch, [world, language], counts.mutations)
    yield from kills_at_file_operations(scratch)
    yield from kills(scratch, counts.kills)
    yield from other_commands(scratch, world, counts.kills // 4)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=__doc__)
    parser.add_argument("--kills", type=int, default=120, help="rounds of kills (default: 120)")
    parser.add_argument("--mutations", type=int, default=320, help="damaged run folders (default: 320)")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of the page (default: docs)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of commands in processes of their own
    started = printed = time.monotonic()
    trials: list[trial.Trial] = []
    scratch = Path(tempfile.mkdtemp(prefix="reliability-"))
    try:
        for one in everything(scratch, options):
            trials.append(one)
            if not one.good:
                print(f"not as promised: {one.group}: {one.case}: {one.outcome}", flush=True)
            if time.monotonic() - printed > LINE_SECONDS:
                printed = time.monotonic()
                print(
                    f"{printed - started:.0f} s: {len(trials)} tried, now {TITLES[one.kind]}: {one.group}", flush=True
                )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    made = machine()
    facts = {"code": made["git"][:12], "torch": made["versions"]["torch"], "minutes": f"{(printed - started) / 60:.0f}"}
    write_text(options.out / "reliability.md", page(trials, facts))
    write_json(options.out / "results" / "reliability.json", [dataclasses.asdict(one) for one in trials])
    print("\n".join(overview(trials)))
    return 0 if all(one.good for one in trials) else 1


if __name__ == "__main__":
    sys.exit(main())
