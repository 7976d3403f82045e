"""The log of training: rows of metrics.jsonl, which callbacks get too."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unbraid.sources.stream import Position
from unbraid.system.devices import queued
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

    def due(self, learner: Learner, index: int) -> bool:
        """True for about `LOGGED_STEPS` steps, the last, and those after which held-out scores are due."""
        return (
            not index % max(1, learner.steps // LOGGED_STEPS) or index == learner.steps - 1 or measured(learner, index)
        )

    def step(
        self, folder: Path, learner: Learner, index: int, metrics: Mapping[str, Tensor], position: Position
    ) -> None:
        """Log a step that is due, as the first process of a group; where each has some latents, all score together."""
        takes_part = learner.group.leads or not learner.group.latents.alone
        scored = takes_part and measured(learner, index)
        found = {**metrics, **(self.scores(learner.dictionary, learner.normaliser) if scored else {})}
        if not learner.group.leads:
            return
        training = learner.experiment.training
        tokens = (index + 1) * training.batch_size
        values = {"lr": learner.optimiser.learning_rate} | numbers(found)
        row = {"step": index, "tokens": tokens, "filtered": position.filtered, **values}
        append_text(folder / "metrics.jsonl", json.dumps(row) + "\n")
        self.callbacks.on_step(learner.experiment, index, tokens, values)


def measured(learner: Learner, index: int) -> bool:
    """True when held-out scores are due after a step."""
    training = learner.experiment.training
    return passes_multiple(training, training.score_every, index)


def numbers(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the metrics as numbers; those on a queued device come in one copy, for which the host waits once."""
    there = {name: value.float() for name, value in metrics.items() if queued(value.device)}
    copied = dict(zip(there, torch.stack([*there.values()]).tolist(), strict=True)) if there else {}
    return {name: copied[name] if name in copied else float(value) for name, value in metrics.items()}
