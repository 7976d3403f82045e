"""Callbacks that tests watch, stop and kill trainings with."""

from collections.abc import Callable
from dataclasses import dataclass

from unbraid.experiment.experiment import Experiment
from unbraid.training.callbacks import Callback


class Stopped(BaseException):
    """Stops a training from a callback: an Exception would only switch the callback off."""


@dataclass
class AtProgress(Callback):
    """Calls a function with (done tokens, tokens in all) after every step."""

    function: Callable[[int, int], object]

    def on_progress(self, done_tokens: int, total_tokens: int) -> None:
        self.function(done_tokens, total_tokens)


@dataclass
class AtFit(Callback):
    """Calls a function with (experiment's label, done steps, steps in all) after every step of a fit."""

    function: Callable[[str, int, int], object]

    def on_fit(self, experiment: Experiment, done: int, total: int) -> None:
        self.function(experiment.label, done, total)
