"""What the members of a study's cohort cost a step: python -m benchmarks.cohort_steps --out FILE

Core-seconds (user and system) of a step of each trained member of the first cohort, in the middle of training, one
thread, one after the other; batches are read beforehand. Members could encode together when they have the same
activation, normalisation and width, and do all of a step but their penalties together when they have the plain
reconstruction, too. `at_most` is how many times less the cohort would take if all that were as cheap as
`stacked_steps` makes it with eight members.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from unbraid import catalog
from unbraid.experiment.experiment import Experiment
from unbraid.experiment.factorial import Factorial
from unbraid.experiment.study import Study, cohorts
from unbraid.objective.step_data import ExtraInputs
from unbraid.sources.base import Batch, Source
from unbraid.sources.fitting_sample import fitting_sample
from unbraid.sources.stream import Stream
from unbraid.system.files import write_json
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.training.learner import Learner
from unbraid.training.schedule import steps

STUDIES = {"small_world": "", "demo_world": "", "forest": "-l0_4"}
"""Studies by name, and what the folders of the members that are measured contain."""
WARM_UP, STEPS, BATCHES = 8, 20, 8
ENCODING = 0.45
"""Share of a plain step that encodes and takes the encoder's gradient, which members with others share, too."""


def step_ms(experiment: Experiment, sample: torch.Tensor, batches: Sequence[Batch], source: Source) -> float:
    """Return the core-milliseconds of a step of a member."""
    learner, seconds = Learner(experiment, sample), 0.0
    middle = int(0.4 * learner.steps)
    for index in range(middle, middle + WARM_UP + STEPS):
        extra, start = ExtraInputs(source, 0, index), time.process_time()
        learner.step(batches[index % BATCHES], index, extra, logged=False)
        seconds += time.process_time() - start if index >= middle + WARM_UP else 0.0
    return 1e3 * seconds / STEPS


def rows_of(name: str, gain: float) -> Iterator[dict[str, Any]]:
    """Measure a study; yield a row a member, then one of the cohort. `gain`: what stacking divides a plain step by."""
    study = catalog.make(catalog.experiments()[name])
    assert isinstance(study, Study | Factorial)
    cohort = [member for member in cohorts(study.experiments())[0] if steps(member.training)]
    cohort = [member for member in cohort if STUDIES[name] in member.folder]
    first = cohort[0]
    sample = fitting_sample(first.source, first.data_seed, 100_000)
    stream = Stream(first.source, first.training.batch_size, seed=first.data_seed)
    batches = [next(stream) for _ in range(BATCHES)]
    kinds, saved, total = Counter(map(alike, cohort)), 0.0, 0.0
    cheapest: dict[object, float] = {}
    for member in cohort:
        took = step_ms(member, sample, batches, first.source)
        plain = type(member.objective.reconstruction) is Reconstruction
        cheapest.setdefault(alike(member), took)  # the base stands first
        total += took
        if kinds[alike(member)] > 1:
            saved += cheapest[alike(member)] * (1.0 if plain else ENCODING) * (1 - 1 / gain)
        yield {
            "study": name,
            "member": member.label,
            "plain": plain,
            "alike": kinds[alike(member)],
            "ms": round(took, 2),
        }
    yield {
        "study": name, "members": len(cohort), "d_sae": first.dictionary.d_sae, "batch": first.training.batch_size,
        "ms": round(total, 1), "gain_of_plain_steps": gain, "at_most": round(total / (total - saved), 2),
    }  # fmt: skip


def alike(experiment: Experiment) -> object:
    """What members have in common that could encode together."""
    training = experiment.training
    return experiment.dictionary.activation, experiment.dictionary.d_sae, training.normalise, training.whiten_power


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", nargs="+", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--gain", type=float, default=2.4, help="times less a plain step takes, stacked")
    parser.add_argument("--out", type=Path, help="also write the rows to this JSON file")
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = []
    for name in chosen.studies:
        for row in rows_of(name, chosen.gain):
            rows.append(row)
            print(json.dumps(row), flush=True)
            if chosen.out:
                write_json(chosen.out, rows)


if __name__ == "__main__":
    main()
