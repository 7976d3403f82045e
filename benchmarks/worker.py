"""One contender in a process of its own: reads commands from stdin, answers each with a line of JSON.

    python -m benchmarks.worker CONTENDER

Libraries are imported once. Every line then names a file with a problem, which a child process serves, with memory of
its own, until it is told to `end`.

CPU time is the whole process's. Peak memory above the weights is the largest resident set during the measured steps,
minus the resident set once imports and data are in memory and before the contender is built, minus the bytes of its
parameters.
"""

import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from benchmarks.contender import CannotRun, Contender, Setting

CONTENDERS = {
    "unbraid": ("unbraid", "build"),
    "unbraid-bf16": ("unbraid", "build_bfloat16"),
    "sae-lens": ("sae_lens", "build"),
    "sae-lens-autocast": ("sae_lens", "build_autocast"),
    "dictionary-learning": ("dictionary_learning", "build"),
    "sparsify": ("sparsify", "build"),
    "overcomplete": ("overcomplete", "build"),
    "floor": ("floor", "build"),
    "floor-bf16": ("floor", "build_bfloat16"),
    "floor-dense": ("floor", "dense"),
    "floor-encoder": ("floor", "encoder"),
}
MEGABYTE = 2**20


def resident(kind: str) -> int:
    """Bytes: VmRSS now, or VmHWM, the largest since `reset_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {kind}: memory can be measured on Linux only")


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def above_weights(peak: int, before: int, parameters: int) -> float:
    """Megabytes, as defined above."""
    return (peak - before - parameters) / MEGABYTE


class Worker:
    def __init__(self, contender: Contender, batches: list[Tensor], before: int):
        self.contender, self.batches, self.before, self.index = contender, batches, before, 0

    def step(self) -> dict[str, Any]:
        """One step; its CPU seconds."""
        x = self.batches[self.index % len(self.batches)]
        start = time.process_time()
        self.contender.step(self.index, x)
        seconds = time.process_time() - start
        self.index += 1
        return {"cpu_seconds": seconds}

    def reset(self) -> dict[str, Any]:
        """Warmed up: from here on the peak counts."""
        reset_peak()
        return {}

    def memory(self) -> dict[str, Any]:
        above = above_weights(resident("VmHWM"), self.before, self.contender.parameter_bytes())
        active = self.contender.active
        with torch.no_grad():
            l0 = None if active is None else float((active(self.batches[0][:256]) != 0).sum() / 256)
        return {
            "peak_mb_above_weights": above,
            "weights_mb": self.contender.parameter_bytes() / MEGABYTE,
            "state_mb": self.contender.state_bytes() / MEGABYTE,
            "l0": l0,
        }


def serve(who: str, problem: Path, answers: TextIO) -> None:
    """Answer the commands for one problem."""

    def answer(**content: Any) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        module, function = CONTENDERS[who]
        build = getattr(importlib.import_module(f"benchmarks.contenders.{module}"), function)
        saved = torch.load(problem)
        before = resident("VmRSS")
        worker = Worker(build(Setting(**saved["setting"])), list(saved["batches"]), before)
    except CannotRun as reason:
        answer(cannot=str(reason))
        return
    except Exception:
        answer(error=traceback.format_exc())
        return
    answer(ready=True)
    commands = {"step": worker.step, "reset": worker.reset, "memory": worker.memory}
    while (line := sys.stdin.readline().strip()) not in ("", "end"):
        try:
            answer(**commands[line]())
        except Exception:
            answer(error=traceback.format_exc())
            return


def serve_all(who: str, answers: TextIO) -> None:
    """Answer the commands for one problem after another, each in a child, so that none finds what another left."""
    importlib.import_module(f"benchmarks.contenders.{CONTENDERS[who][0]}")
    # Optimisers import this at their first step: it is code, not memory that training needs.
    importlib.import_module("torch._dynamo")
    while problem := sys.stdin.readline().strip():
        child = os.fork()
        if not child:
            serve(who, Path(problem), answers)
            answers.flush()
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status:
            answers.write(json.dumps({"error": f"its process ended with status {status}: out of memory?"}) + "\n")
            answers.flush()


if __name__ == "__main__":
    torch.set_num_threads(1)
    # Libraries print; answers keep the real stdout to themselves.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        serve_all(sys.argv[1], answers)
