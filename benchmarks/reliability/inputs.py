"""Every bad input of the tests' table, as trials."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.bad_inputs import CASES, faults_of, prepare

from benchmarks.reliability.trial import Trial

REFUSED = "refused"


def bad_inputs(scratch: Path) -> Iterator[Trial]:
    ground = prepare(scratch / "ground")
    elsewhere = scratch / "elsewhere"
    elsewhere.mkdir()
    with contextlib.chdir(elsewhere):
        for case in CASES:
            try:
                faults = faults_of(case, ground)
            except Exception as error:  # the case itself ended in what should have been caught
                faults = [f"{type(error).__name__}: {error}"]
            outcome = "; ".join(faults) or REFUSED
            yield Trial(kind="bad input", group=case.surface, case=case.name, outcome=outcome, good=not faults)
