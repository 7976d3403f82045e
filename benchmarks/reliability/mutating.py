"""Damaged run folders by the tests' mutations, as trials: a world's run, one with a fit, one of a language model."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.mutations import EVALS, FAULTS, files_of, try_mutation
from tests.mutations import mutations as damages

from benchmarks.reliability.trial import Trial
from unbraid import catalog
from unbraid.evals.shared.evaluation import evaluate
from unbraid.runs.run import Run

SAID = {"same": "same weights and scores", "refused": "refused, the file named"}


def mutations(scratch: Path, runs: Sequence[Path], count: int, seed: int = 0) -> Iterator[Trial]:
    known = catalog.evals()
    evaluate([Run.open(run) for run in runs], [known[name] for name in EVALS])
    for place, run in enumerate(runs):
        others = [other for other in runs if other != run]
        share = count // len(runs) + (place < count % len(runs))
        for number, damage in enumerate(damages(seed + place, files_of(run), share)):
            outcome, said = try_mutation(damage, run, scratch / f"mutation-{place}-{number}", others)
            good = outcome not in FAULTS
            shown = SAID[outcome] if good else f"{outcome}: {said}"
            case = f"{damage.file}, {damage.how}, seed {damage.seed}"
            yield Trial(kind="mutations", group=f"`{damage.file}`", case=case, outcome=shown, good=good)
