"""Two workers against one, by the clock: python -m benchmarks.workers --out docs/results/workers.json

Eight members of `world` on one stream, one thread a process, swept by one process and by two workers in turn. The wall
time counts here, so nothing else should be at work: the load of the minute before stands in each row. Weights are
compared byte for byte. Rows are kept as they come, and what is there is not measured again.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench_tables import markdown, ranged
from unbraid.system.files import write_json

ROUNDS = {100_000: 2, 400_000: 2, 1_000_000: 1}
"""Tokens a member, and how often it is measured."""
WORKERS = (1, 2)
SWEEP = ("sweep", "world", "--cross", "seed=0,1,2,3,4,5,6,7", "--training.data-seed", "0", "--threads", "1")
Row = dict[str, Any]


def measured(tokens: int, workers: int) -> Row:
    """Return the seconds of one sweep, and a digest of all weights that it trained."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        asked = [*SWEEP, "--training.tokens", str(tokens), "--workers", str(workers), "--out", folder]
        before = time.monotonic()
        subprocess.run([sys.executable, "-m", "unbraid", *asked], check=True, capture_output=True)
        seconds = time.monotonic() - before
        digest = weights_of(Path(folder))
    return {
        "tokens": tokens, "workers": workers, "seconds": round(seconds, 2), "load": round(load, 2), "weights": digest,
    }  # fmt: skip


def weights_of(folder: Path) -> str:
    """Return a digest of the weights of all runs in a folder. Raises SystemExit where there are none."""
    paths, found = sorted(folder.glob("*/sae_weights.safetensors")), hashlib.sha256()
    if not paths:
        raise SystemExit(f"the sweep left no weights in {folder}")
    for path in paths:
        found.update(path.parent.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table: seconds, how many times less two take round by round, equal or not."""
    lines = []
    for tokens in dict.fromkeys(row["tokens"] for row in rows):
        own = [row for row in rows if row["tokens"] == tokens]
        one, two = ([row["seconds"] for row in own if row["workers"] == count] for count in WORKERS)
        ratios = [alone / both for alone, both in zip(one, two, strict=False)]
        equal = "yes" if len({row["weights"] for row in own}) == 1 else "no"
        lines.append([f"{tokens:,}", ranged(one), ranged(two), ranged(ratios), equal])
    return markdown(("tokens a member", "one process, s", "two workers, s", "times less", "equal weights"), lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a JSON file of rows; what it holds is not done again")
    out = parser.parse_args(argv).out
    rows: list[Row] = json.loads(out.read_text()) if out.is_file() else []
    for tokens, rounds in ROUNDS.items():
        for _ in range(rounds):
            for workers in WORKERS:
                if sum((row["tokens"], row["workers"]) == (tokens, workers) for row in rows) < rounds:
                    rows.append(measured(tokens, workers))
                    write_json(out, rows)
                    print(rows[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
