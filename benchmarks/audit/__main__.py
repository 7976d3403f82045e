"""Audit the evals by three lenses (Chanin 2026, arXiv 2605.18229): noise, agreement with the truth, training.

    python -m benchmarks.audit run --source forest --runs runs/audit --out docs/results/audit.json
    python -m benchmarks.audit page --rows docs/results/audit.json    # renews the tables of docs/trust.md

`run` continues where it was stopped.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.audit.measure import measure
from benchmarks.audit.page import renewed, tables
from benchmarks.audit.rows import Rows, check_versions, read, write
from benchmarks.audit.testbeds import TESTBEDS
from unbraid import catalog
from unbraid.system.files import write_text


def run(sources: Sequence[str], folder: Path, out: Path) -> None:
    """Train, score, and write rows as they come."""
    versions = {name: item.version for name, item in catalog.default_evals().items()}
    check_versions(out, versions)
    testbeds = read(out)
    for name in sources:
        rows = testbeds.setdefault(name, Rows())
        measure(TESTBEDS[name], rows, folder / name, lambda: write(out, versions, testbeds))
        print(f"{name}: {len(rows.scores)} rows in {out}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="train and score")
    one.add_argument("--source", nargs="+", choices=list(TESTBEDS), default=list(TESTBEDS), help="testbeds")
    one.add_argument("--runs", type=Path, default=Path("runs/audit"), help="folder of the runs")
    one.add_argument("--out", type=Path, default=Path("docs/results/audit.json"), help="the file of rows")
    two = commands.add_parser("page", help="renew the page's tables")
    two.add_argument("--rows", type=Path, default=Path("docs/results/audit.json"), help="the file of rows")
    two.add_argument("--gate", type=Path, default=Path("docs/results/gate.json"), help="the file of the gate's rows")
    two.add_argument("--page", type=Path, default=Path("docs/trust.md"))
    options = parser.parse_args(argv)
    if options.command == "page":
        parts = tables(read(options.rows), json.loads(options.gate.read_text(encoding="utf-8")))
        write_text(options.page, renewed(options.page.read_text(encoding="utf-8"), parts))
        return
    torch.set_num_threads(1)
    run(options.source, options.runs, options.out)


if __name__ == "__main__":
    main()
