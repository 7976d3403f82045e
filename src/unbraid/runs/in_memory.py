"""A dictionary and a source in memory, as evals read them of a run."""

from dataclasses import dataclass
from pathlib import Path

from unbraid.dictionary.dictionary import Dictionary
from unbraid.experiment.experiment import Experiment
from unbraid.runs.run import Run
from unbraid.runs.run_folder import Facts
from unbraid.sources.base import Source


class NoRunFolder(ValueError):
    """The requested data is kept in a run folder, and there is none."""


@dataclass(frozen=True)
class InMemory(Run):
    """A dictionary for raw activations and the source it is scored on, without a folder."""

    held: Dictionary | None = None
    given: Source | None = None

    @classmethod
    def of(cls, dictionary: Dictionary, source: Source) -> "InMemory":
        """Return the two as a run."""
        return cls(Path("in memory"), held=dictionary, given=source)

    @property
    def facts(self) -> Facts:  # pyright: ignore[reportIncompatibleVariableOverride]
        """No file says anything of it."""
        return Facts({}, {}, {}, {})

    @property
    def experiment(self) -> Experiment:  # pyright: ignore[reportIncompatibleVariableOverride]
        raise NoRunFolder("it reads how a run was trained, and a dictionary in memory does not say that")

    @property
    def source(self) -> Source:
        assert self.given is not None
        return self.given

    def dictionary(self) -> Dictionary:
        assert self.held is not None
        return self.held
