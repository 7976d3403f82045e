"""Training throughput and memory, side by side: `make bench`, or python -m benchmarks.run --only topk --d-sae 4096.

Contenders run one step each in turn, A B C A B C, one process and one thread a contender, so that all of them see the
same machine; the figure is the median CPU time of a step. All train on the same batches of a synthetic world, centred
and scaled.

TopK families have 32 active latents a token by definition. For jumprelu and relu the density decides the cost, and at
random initialisation half of all latents are active, which no trained dictionary is: every contender starts from the
same tied unit atoms, with the threshold (jumprelu) or minus the bias (relu) at which 48 latents a token are active on
this data.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.contender import BATCH, D_IN, Bench, Setting
from benchmarks.worker import CONTENDERS
from unbraid.dictionary.normaliser import Normaliser
from unbraid.sources.world.world import World

BENCHES: tuple[Bench, ...] = get_args(Bench)
THRESHOLD_L0 = 48.0
"""Active latents a token of jumprelu and relu: between the 32 and 64 that dictionaries are commonly trained to."""
WARM_UP = 2
# Not unbraid-bf16: without bfloat16 instructions (AVX-512 BF16, AMX) it only measures their emulation.
DEFAULT = [who for who in CONTENDERS if who != "unbraid-bf16"]


@dataclass
class Lane:
    """A running worker and what it has measured."""

    who: str
    process: subprocess.Popen[str]
    log: Path
    """What it wrote to stderr."""
    seconds: list[float] = field(default_factory=list)

    def ask(self, command: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.hear()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(
                f"{self.who} ended without an answer:\n" + "\n".join(self.log.read_text().splitlines()[-20:])
            )
        answer = json.loads(line)
        if "error" in answer:
            raise SystemExit(f"{self.who} failed:\n{answer['error']}")
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def problem(bench: Bench, d_sae: int, batches: Tensor) -> Setting:
    """The setting, with the threshold that gives THRESHOLD_L0 on the first rows."""
    _, batch, d_in = batches.shape
    setting = Setting(bench, d_sae, threshold=0.0, d_in=d_in, batch=batch)
    rows = batches[0, :256]
    pre = (rows @ setting.atoms().T).flatten()
    above = round(THRESHOLD_L0 * len(rows))
    return Setting(bench, d_sae, threshold=float(pre.topk(above).values.min()), d_in=d_in, batch=batch)


def activations(count: int = 4) -> Tensor:
    """Batches [count, batch, d_in] of a world with 2,048 factors, 24 of them active a token, centred and scaled."""
    world = World(factors=2048, d_in=D_IN, l0=24.0, roots=256, noise=0.05, block_rows=count * BATCH)
    block = world.block(0, split="train", seed=0)
    assert block is not None
    x = block.rows.x[: count * BATCH]
    return Normaliser.fit(x, "centre-scale")(x).view(count, BATCH, D_IN)


def start(who: str, saved: Path) -> Lane:
    python = peers.python_of(who) if who in peers.PEERS else Path(sys.executable)
    single = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}
    quiet = {"WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    log = saved.parent / f"{who}.log"
    process = subprocess.Popen(
        [str(python), "-m", "benchmarks.worker", who, str(saved)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log.open("w"),
        text=True,
        cwd=peers.ROOT,
        env={**os.environ, **single, **quiet},
    )
    return Lane(who, process, log)


def measure(setting: Setting, batches: Tensor, names: Sequence[str], repetitions: int) -> list[dict[str, Any]]:
    """One row a contender that can run this setting."""
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "problem.pt"
        torch.save({"setting": asdict(setting), "batches": batches}, saved)
        lanes: list[Lane] = []
        try:
            for who in names:
                lane = start(who, saved)
                lanes.append(lane)
                refusal = lane.hear().get("cannot")
                if refusal:
                    print(f"  {who}: no {setting.bench} ({refusal})", flush=True)
                    lanes.remove(lane)
                    lane.close()
            return race(lanes, setting, repetitions)
        finally:
            for lane in lanes:
                lane.close()


def race(lanes: Sequence[Lane], setting: Setting, repetitions: int) -> list[dict[str, Any]]:
    """Warm up, then one step of each in turn."""
    for lane in lanes:
        for _ in range(WARM_UP):
            lane.ask("step")
        lane.ask("reset")
    for _ in range(repetitions):
        for lane in lanes:
            lane.seconds.append(lane.ask("step")["cpu_seconds"])
    return [row(setting, lane.who, lane.seconds, lane.ask("memory")) for lane in lanes]


def row(setting: Setting, who: str, seconds: Sequence[float], memory: dict[str, Any]) -> dict[str, Any]:
    median = statistics.median(seconds)
    return {
        "bench": setting.bench,
        "d_sae": setting.d_sae,
        "who": who,
        "cpu_seconds_per_step": median,
        "tokens_per_second": setting.batch / median,
        **memory,
        "repetitions": len(seconds),
    }


COLUMNS = ("bench", "d_sae", "who", "ms/step", "tokens/s", "x ours", "peak MB", "state MB", "L0")
WIDTHS = ("<11", "<7", "<20", ">9", ">10", ">8", ">9", ">10", ">6")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """For reading: times as multiples of ours, memory beside what parameters, gradients and optimiser take."""
    ours = {(r["bench"], r["d_sae"]): r["cpu_seconds_per_step"] for r in rows if r["who"] == "unbraid"}
    lines: list[tuple[str, ...]] = [COLUMNS]
    for r in rows:
        seconds, base = r["cpu_seconds_per_step"], ours.get((r["bench"], r["d_sae"]))
        ratio = "" if base is None else f"{seconds / base:.2f}"
        peak, l0 = r["peak_mb_above_weights"] + r["weights_mb"], "" if r["l0"] is None else f"{r['l0']:.0f}"
        speed = (f"{1000 * seconds:.0f}", f"{r['tokens_per_second']:.0f}", ratio)
        lines.append((r["bench"], str(r["d_sae"]), r["who"], *speed, f"{peak:.0f}", f"{r['state_mb']:.0f}", l0))
    text = ["".join(f"{cell:{width}}" for cell, width in zip(line, WIDTHS, strict=True)) for line in lines]
    note = "peak MB: beyond imports and data, parameters included. state MB: parameters, gradients, optimiser."
    return "\n".join([*text, note])


def names(text: str, known: Sequence[str]) -> list[str]:
    """A comma-separated list of known names; anything else is a usage error."""
    chosen = text.split(",")
    for name in chosen:
        if name not in known:
            raise argparse.ArgumentTypeError(f"there is no {name!r}; choose from {', '.join(known)}")
    return chosen


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: names(text, BENCHES), default=list(BENCHES), help="architectures")
    parser.add_argument("--who", type=lambda text: names(text, list(CONTENDERS)), default=DEFAULT, help="contenders")
    parser.add_argument("--d-sae", type=lambda text: [int(part) for part in text.split(",")], default=[4096, 16384])
    parser.add_argument("--repetitions", type=int, default=9, help="measured steps of each contender")
    parser.add_argument("--out", type=Path, default=peers.ROOT / "docs/results/bench.json")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    chosen = arguments(argv)
    for who in chosen.who:
        if who in peers.PEERS:
            peers.python_of(who)
    torch.set_num_threads(1)
    batches = activations()
    pairs = [(bench, d_sae) for d_sae in chosen.d_sae for bench in chosen.only]
    total, done, began = sum(d_sae for _, d_sae in pairs), 0, time.monotonic()
    rows: list[dict[str, Any]] = []
    for bench, d_sae in pairs:
        left = f", about {(time.monotonic() - began) * (total - done) / done / 60:.0f} min left" if done else ""
        print(f"{bench}, {d_sae} latents ({len(rows)} rows so far{left})", flush=True)
        rows += measure(problem(bench, d_sae, batches), batches, chosen.who, chosen.repetitions)
        done += d_sae
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
