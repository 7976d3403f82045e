"""Training speed and memory, side by side, in every regime: `make bench`, or python -m benchmarks.run --regimes small.

After the races come the parts of benchmarks/parts.py: terms that look through layers, reading a model, evals; not where
the races are narrowed by --only, --who or --batch, which say nothing of parts. A selection of regimes is written where
--out says, so that it does not take the place of the whole.

Contenders run one step each in turn, A B C A B C, one process and one thread a contender, so that all of them see the
same machine; what is kept is the CPU time of every step. All train on the same batches of a synthetic world, centred
and scaled. Everything is measured twice, in runs that are apart by all other cases: ratios within a run are compared,
and pages say their range (benchmarks/bench_tables.py).

TopK families have their active latents by definition. For jumprelu and relu the density decides the cost, and at
random initialisation half of all latents are active, which no trained dictionary is: every contender starts from the
same tied unit atoms, with the threshold (jumprelu) or minus the bias (relu) at which so many latents a token are active
on this data as the case says.

Rows are kept as they come, in the file of --kept; asked again, it goes on where it was. When all are there they become
the file of --out, and the picture of growth is drawn.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from benchmarks import bench_tables, growth, part_tables, parts, peers
from benchmarks.contender import Setting
from benchmarks.regimes import BENCHES, REGIMES, Case, quick
from benchmarks.worker import CONTENDERS
from unbraid.dictionary.normaliser import Normaliser
from unbraid.sources.world.world import World
from unbraid.system.files import write_text

WARM_UP = 1
LEAST, MOST = 3, 25
"""Measured steps of each contender."""
ROWS = 256
"""Of the first batch, on which thresholds are set."""
LOW_PRECISION = ("unbraid-bf16", "sae-lens-autocast", "floor-bf16")
FLOORS_OF_PARTS = ("floor-dense", "floor-encoder")
DENSE = ("sae-lens", "sae-lens-autocast", "dictionary-learning", "overcomplete")
BESIDES = 50e6
"""Bytes that a contender takes besides: its worker has imported the libraries before."""
DEFAULT = [who for who in CONTENDERS if who not in FLOORS_OF_PARTS]
Row = dict[str, Any]


@dataclass
class Lane:
    """A running worker and what it has measured."""

    who: str
    process: subprocess.Popen[str]
    log: Path
    """What it wrote to stderr."""
    seconds: list[float] = field(default_factory=list)

    def ask(self, command: str) -> Row:
        self.tell(command)
        return self.hear()

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def hear(self) -> Row:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            end = "\n".join(self.log.read_text().splitlines()[-20:])
            raise SystemExit(f"{self.who} ended without an answer:\n{end}")
        answer = json.loads(line)
        if "error" in answer:
            raise SystemExit(f"{self.who} failed:\n{answer['error']}\nLeave it out with --who, or repair it")
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def problem(case: Case, batches: Tensor) -> Setting:
    """The setting, with the threshold at which the case's number of latents is active on the first rows."""
    setting = Setting(case.bench, case.d_sae, 0.0, d_in=case.d_in, batch=case.batch, k=case.k, dead=case.dead)
    rows = batches[0, :ROWS]
    pre = (rows @ setting.atoms().T).flatten()
    return replace(setting, threshold=float(pre.topk(round(case.l0 * len(rows))).values.min()))


@cache
def activations(d_in: int, batch: int, count: int = 4) -> Tensor:
    """Batches [count, batch, d_in] of a world with 2,048 factors, 24 of them active a token, centred and scaled."""
    world = World(factors=2048, d_in=d_in, l0=24.0, roots=256, noise=0.05, block_rows=count * batch)
    block = world.block(0, split="train", seed=0)
    assert block is not None
    x = block.rows.x[: count * batch]
    return Normaliser.fit(x, "centre-scale")(x).view(count, batch, d_in)


def start(who: str, folder: Path) -> Lane:
    """Start a worker, which then waits for problems."""
    peer = peers.environment(who)
    python = peers.python_of(peer) if peer else Path(sys.executable)
    quiet = {"WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    log = folder / f"{who}.log"
    process = subprocess.Popen(
        [str(python), "-m", "benchmarks.worker", who],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log.open("w"),
        text=True,
        cwd=peers.ROOT,
        env={**os.environ, **parts.ONE_THREAD, **quiet},
    )
    return Lane(who, process, log)


def measure(case: Case, lanes: Sequence[Lane], folder: Path, seconds: float, least: int = LEAST) -> list[Row]:
    """One row a contender that can run this case."""
    batches = activations(case.d_in, case.batch)
    setting, saved = problem(case, batches), folder / "problem.pt"
    torch.save({"setting": asdict(setting), "batches": batches}, saved)
    able: list[Lane] = []
    for lane in lanes:
        refusal = lane.ask(str(saved)).get("cannot")
        if refusal:
            print(f"  {lane.who}: no ({refusal})", flush=True)
        else:
            lane.seconds = []
            able.append(lane)
    rows = race(able, case, seconds, least)
    for lane in able:
        lane.tell("end")
    return rows


def race(lanes: Sequence[Lane], case: Case, seconds: float, least: int = LEAST) -> list[Row]:
    """Warm up, then one step of each in turn, for so many seconds of CPU."""
    for lane in lanes:
        for _ in range(WARM_UP):
            lane.ask("step")
        lane.ask("reset")
    spent, rounds = 0.0, 0
    while rounds < least or (spent < seconds and rounds < MOST):
        for lane in lanes:
            lane.seconds.append(lane.ask("step")["cpu_seconds"])
            spent += lane.seconds[-1]
        rounds += 1
    return [row(case, lane.who, lane.seconds, lane.ask("memory")) for lane in lanes]


def row(case: Case, who: str, seconds: Sequence[float], memory: Row) -> Row:
    """What is kept of a contender in a case."""
    median = statistics.median(seconds)
    facts = asdict(case)
    del facts["l0"], facts["k"]
    return {
        **facts,
        "active": case.active,
        "who": who,
        "cpu_seconds_per_step": median,
        "quartiles": [round(float(q), 6) for q in np.quantile(seconds, [0.25, 0.75])],
        "tokens_per_second": case.batch / median,
        **memory,
        "repetitions": len(seconds),
    }


def key(row: Row) -> tuple[Any, ...]:
    """What a row is a measurement of."""
    return tuple(row.get(name) for name in ("run", "regime", "bench", "d_sae", "batch", "active", "who"))


def planned(case: Case, run: int, who: str) -> tuple[Any, ...]:
    """The `key` that a row of it will have."""
    return (run, case.regime, case.bench, case.d_sae, case.batch, case.active, who)


def too_large(case: Case, who: Sequence[str]) -> str:
    """Why a case does not fit into memory beside what else runs, in a sentence; "" where it does."""
    # Weights, gradients and two moments of encoder and atoms; where steps are dense, six matrices of all latents.
    weights, matrices = 8 * case.d_in * case.d_sae, 6 * case.batch * case.d_sae
    needed = sum(4 * (weights + matrices * (one in DENSE)) + BESIDES for one in who)
    free = psutil.virtual_memory().available
    if needed < free:
        return ""
    return f"it takes about {needed / 1e9:.0f} GB, of which {free / 1e9:.0f} are free; name fewer contenders (--who)"


def names(text: str, known: Sequence[str]) -> list[str]:
    """A comma-separated list of known names; anything else is a usage error."""
    chosen = text.split(",")
    for name in chosen:
        if name not in known:
            raise argparse.ArgumentTypeError(f"there is no {name!r}; choose from {', '.join(known)}")
    return chosen


def bfloat16_products() -> bool:
    """True where the processor multiplies in bfloat16; elsewhere only an emulation would be measured."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    regimes = [*REGIMES, *parts.PARTS]
    parser.add_argument("--regimes", type=lambda text: names(text, regimes), help=f"of {', '.join(regimes)} (all)")
    parser.add_argument("--only", type=lambda text: names(text, BENCHES), help="architectures")
    parser.add_argument("--who", type=lambda text: names(text, list(CONTENDERS)), default=None, help="contenders")
    parser.add_argument("--batch", type=int, help="rows of a batch, where that is not the regime's own")
    parser.add_argument("--runs", type=int, default=2, help="separate runs")
    parser.add_argument("--seconds", type=float, default=5.0, help="of CPU that a case takes at least")
    parser.add_argument("--quick", action="store_true", help="one small case a regime, one run, into runs/: minutes")
    parser.add_argument("--kept", type=Path, help="where rows are kept until all are there (runs/bench.json)")
    parser.add_argument("--out", type=Path, help="the finished rows (docs/results/bench.json)")
    chosen = parser.parse_args(argv)
    folder = peers.ROOT / "runs"
    narrowed = any((chosen.only, chosen.who, chosen.batch))
    if (narrowed or chosen.regimes) and not (chosen.out or chosen.quick):
        parser.error("a selection would take the place of all rows in docs/results/bench.json; name a file with --out")
    chosen.regimes = chosen.regimes or (list(REGIMES) if narrowed else regimes)
    chosen.only = chosen.only or list(BENCHES)
    chosen.kept = chosen.kept or folder / ("bench-quick.json" if chosen.quick else "bench.json")
    chosen.dictionaries = chosen.kept.with_name(f"{chosen.kept.stem}-dictionaries")
    chosen.png = folder / "growth-quick.png" if chosen.quick else peers.ROOT / "docs/growth.png"
    done = folder / "bench-quick-done.json" if chosen.quick else peers.ROOT / "docs/results/bench.json"
    chosen.out = chosen.out or done
    chosen.seconds = 0.0 if chosen.quick else chosen.seconds
    return chosen


def plan(chosen: argparse.Namespace) -> list[tuple[int, Case]]:
    """Every case of every run, in order."""
    races = [name for name in chosen.regimes if name in REGIMES]
    cases = [case for name in races for case in (quick(name) if chosen.quick else REGIMES[name]())]
    if chosen.batch is not None:
        cases = [replace(case, batch=chosen.batch) for case in cases]
    runs = 1 if chosen.quick else chosen.runs
    wanted = dict.fromkeys(case for case in cases if case.bench in chosen.only)  # small ones of two regimes may be one
    return [(run, case) for run in range(1, runs + 1) for case in wanted]


def contenders(chosen: argparse.Namespace) -> list[str]:
    """Who runs: all, but those of bfloat16 where the processor has no such products."""
    if chosen.who is not None:
        return chosen.who
    if bfloat16_products():
        return DEFAULT
    print(f"this processor has no bfloat16 products: without {', '.join(LOW_PRECISION)}", flush=True)
    return [who for who in DEFAULT if who not in LOW_PRECISION]


def bench(chosen: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """All rows, those kept already among them, and what was left out, and why."""
    rows: list[Row] = json.loads(chosen.kept.read_text()) if chosen.kept.is_file() else []
    steps = plan(chosen)
    if not steps:
        return rows, []
    who = contenders(chosen)
    for peer in filter(None, map(peers.environment, who)):
        peers.python_of(peer)
    cost = {step: step[1].cost for step in steps}
    total, left_out, measured, began = sum(cost.values()), [], 0.0, time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        lanes = [start(one, Path(name)) for one in who]
        try:
            for run, case in steps:
                missing = [lane for lane in lanes if planned(case, run, lane.who) not in set(map(key, rows))]
                if any(planned(case, run, "unbraid") == key(old) for old in rows):
                    missing = []  # a race is kept as a whole
                left = f", about {(time.monotonic() - began) * total / measured / 60:.0f} min left" if measured else ""
                if missing and (why := too_large(case, [lane.who for lane in missing])):
                    left_out.append(f"{case}, run {run}: {why}")
                elif missing:
                    print(f"run {run}, {case}{left}", flush=True)
                    found = measure(case, missing, Path(name), chosen.seconds)
                    rows += [{**one, "run": run} for one in found]
                    write_rows(chosen.kept, rows)
                    measured += cost[run, case]
                total -= cost[run, case]
        finally:
            for lane in lanes:
                lane.close()
    return rows, left_out


def measure_parts(chosen: argparse.Namespace, rows: list[Row]) -> list[Row]:
    """The rows with those of the parts that were asked for, each run of which is kept as it comes."""
    runs = range(1, 2 if chosen.quick else chosen.runs + 1)
    wanted = [(run, name) for run in runs for name in chosen.regimes if name in parts.PARTS]
    for run, name in wanted:
        if not any((row["run"], row["regime"]) == (run, name) for row in rows):
            print(f"run {run}, {name}", flush=True)
            found = parts.measure(name, chosen.dictionaries, quick=chosen.quick)
            rows = [*rows, *({**row, "run": run} for row in found)]
            write_rows(chosen.kept, rows)
    return rows


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write them, a line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "[\n" + ",\n".join(json.dumps(one) for one in rows) + "\n]\n")


def main(argv: Sequence[str] | None = None) -> None:
    chosen = arguments(argv)
    torch.set_num_threads(1)
    rows, left_out = bench(chosen)
    rows = measure_parts(chosen, rows)
    print(bench_tables.text(rows), part_tables.text(rows), sep="\n\n")
    if left_out:
        raise SystemExit("\n".join(["left out (what is there is kept, ask again to go on):", *left_out]))
    write_rows(chosen.out, rows)
    if chosen.kept != chosen.out:
        chosen.kept.unlink()
    shutil.rmtree(chosen.dictionaries, ignore_errors=True)  # the next bench scores those of its own code
    print(f"{len(rows)} rows: {chosen.out}")
    if any(one["regime"] == "growth" for one in rows):
        growth.draw(rows, peers.ROOT / "runs/growth.html", chosen.png)


if __name__ == "__main__":
    main()
