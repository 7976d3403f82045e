"""Every attack of the tests, as trials."""

from collections.abc import Iterator
from pathlib import Path

from tests.attacks import ATTACKS, Stage

from benchmarks.reliability.trial import HELD, Trial

GROUPS = {"pickle": "pickles", "class": "classes in experiment.json", "hook_name": "names that lead elsewhere",
          "link": "links", "code of its own": "code of a model", "escapes": "terminal escapes"}  # fmt: skip


def attacks(scratch: Path, world: Path, language: Path) -> Iterator[Trial]:
    for number, (name, run) in enumerate(ATTACKS.items()):
        stage = Stage(scratch / f"attack-{number}", world, language)
        try:
            run(stage)
            outcome = stage.harm() or HELD
        except Exception as error:  # an attack that the tests' own code cannot finish has not been held off
            outcome = f"{type(error).__name__}: {error}"
        group = next((title for word, title in GROUPS.items() if word in name), "other")
        yield Trial(kind="attacks", group=group, case=name, outcome=outcome, good=outcome == HELD)
