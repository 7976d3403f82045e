"""Finished runs of a second or two: of a world, and of the embedded language model."""

from dataclasses import replace
from pathlib import Path

from tests.small import experiment
from unbraid.dictionary.config import DictionaryConfig
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.training.loop import train

SPOKEN = LanguageModel(text="language://300", context=64, buffer_tokens=4096)


def make_world_run(root: Path) -> Path:
    return train([experiment()], root / "world")[0]


def make_language_run(root: Path) -> Path:
    base = experiment("spoken", tokens=1600)
    width = DictionaryConfig(d_sae=96, activation=base.dictionary.activation)
    return train([replace(base, source=SPOKEN, dictionary=width)], root / "language")[0]
