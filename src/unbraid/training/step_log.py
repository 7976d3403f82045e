"""The log of training: rows of metrics.jsonl, which callbacks get too."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from unbraid.sources.stream import Position
from unbraid.system.files import append_text
from unbraid.training.callbacks import Callback
from unbraid.training.held_out_scores import HeldOutScores
from unbraid.training.learner import Learner
from unbraid.training.schedule import passes_multiple

LOGGED_STEPS = 200
"""Steps of a run that are logged, about."""


@dataclass(frozen=True)
class StepLog:
    """Writes rows to metrics.jsonl and hands them to callbacks, with held-out scores when they are due."""

    callbacks: Callback
    scores: HeldOutScores

    def step(
        self, folder: Path, learner: Learner, index: int, metrics: Mapping[str, Tensor], position: Position
    ) -> None:
        """Log the step when it is one of about `LOGGED_STEPS`, or when held-out scores are due after it."""
        training = learner.experiment.training
        measured = passes_multiple(training, training.score_every, index)
        if index % max(1, learner.steps // LOGGED_STEPS) and index < learner.steps - 1 and not measured:
            return
        tokens = (index + 1) * training.batch_size
        found = {**metrics, **(self.scores(learner.dictionary, learner.normaliser) if measured else {})}
        values = {"lr": learner.optimiser.learning_rate} | {name: float(v) for name, v in found.items()}
        row = {"step": index, "tokens": tokens, "filtered": position.filtered, **values}
        append_text(folder / "metrics.jsonl", json.dumps(row) + "\n")
        self.callbacks.on_step(learner.experiment, index, tokens, values)
