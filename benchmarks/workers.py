"""Two workers against one, by the clock: python -m benchmarks.workers --out docs/results/workers.json

Eight members of `world` on one stream, one thread a process, swept by one process, by two workers, and by one process
beside another one that does the same: what the machine's cores lose to one another. In turn; the wall time counts, so
nothing else should be at work: the load of the minute before stands in each row. Weights are compared byte for byte.
Rows are kept as they come, and what is there is not measured again.
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
ALONE, SHARED, BESIDE = (1, 1), (2, 1), (1, 2)
"""Workers of a sweep, and sweeps at the same time."""
SWEEP = ("sweep", "world", "--cross", "seed=0,1,2,3,4,5,6,7", "--training.data-seed", "0", "--threads", "1")
HEAD = (
    "tokens a member", "one process, s", "two workers, s", "times less", "two sweeps at once, s", "times less at most",
    "equal weights",
)  # fmt: skip
Row = dict[str, Any]


def measured(tokens: int, workers: int, sweeps: int) -> Row:
    """Return the seconds until all sweeps have ended, and a digest of all weights that one of them trained."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as made:
        folders = [Path(made) / str(number) for number in range(sweeps)]
        asked = [*SWEEP, "--training.tokens", str(tokens), "--workers", str(workers)]
        before = time.monotonic()
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "unbraid", *asked, "--out", str(folder)],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for folder in folders
        ]  # fmt: skip
        codes = [process.wait() for process in running]
        seconds = time.monotonic() - before
        if any(codes):
            raise SystemExit(f"unbraid {' '.join(asked)} failed (exit {max(codes)}); run it to see why")
        digest = weights_of(folders[0])
    return {
        "tokens": tokens, "workers": workers, "sweeps": sweeps, "seconds": round(seconds, 2), "load": round(load, 2),
        "weights": digest,
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
    """Return the rows as a table: seconds, how many times less two workers take round by round, how many times at most
    by what two sweeps at once take, and whether all weights are equal."""
    lines = []
    for tokens in dict.fromkeys(row["tokens"] for row in rows):
        own = [row for row in rows if row["tokens"] == tokens]
        one, two, beside = ([row["seconds"] for row in own if way(row) == which] for which in (ALONE, SHARED, BESIDE))
        ratios = [alone / both for alone, both in zip(one, two, strict=True)]
        most = [2 * alone / both for alone, both in zip(one, beside, strict=True)]
        equal = "yes" if len({row["weights"] for row in own}) == 1 else "no"
        lines.append([f"{tokens:,}", *map(ranged, (one, two, ratios, beside, most)), equal])
    return markdown(HEAD, lines)


def way(row: Row) -> tuple[int, int]:
    """Return the workers and sweeps of a row."""
    return row["workers"], row["sweeps"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a JSON file of rows; what it holds is not done again")
    out = parser.parse_args(argv).out
    rows: list[Row] = json.loads(out.read_text()) if out.is_file() else []
    for tokens, rounds in ROUNDS.items():
        for number in range(1, rounds + 1):
            for which in (ALONE, SHARED, BESIDE):
                if sum((row["tokens"], way(row)) == (tokens, which) for row in rows) < number:
                    rows.append(measured(tokens, *which))
                    write_json(out, rows)
                    print(rows[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
