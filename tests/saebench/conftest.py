"""Two small runs on a tiny language model, and a bench that is a fake."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from tests.tiny_lm import source, write_corpus, write_model

from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.config import DictionaryConfig
from unbraid.experiment.experiment import Experiment, Training
from unbraid.experiment.grid import cross
from unbraid.objective.objective import Objective
from unbraid.runs.run import Run
from unbraid.saebench.bench import Bench
from unbraid.saebench.environment import Environment
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.training.loop import train

FAKE = Path(__file__).parent / "fake.py"


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("saebench")
    experiment = Experiment(
        name="tiny",
        source=source(write_model(folder / "model"), write_corpus(folder / "text.jsonl", count=300)),
        objective=Objective(reconstruction=Reconstruction()),
        dictionary=DictionaryConfig(d_sae=32, activation=BatchTopK(3)),
        training=Training(tokens=640, batch_size=64, data_seed=0),
    )
    return train(cross(experiment, {"seed": [0, 1, 2]}), folder / "runs")


@pytest.fixture
def runs(trained, tmp_path) -> list[Run]:
    """Copies, to be scored."""
    return [Run.open(Path(shutil.copytree(path, tmp_path / "runs" / path.name))) for path in sorted(trained)]


@pytest.fixture
def bench(tmp_path):
    """`bench(fates)` is a bench whose fake does to each run what `fates` says of its name's beginning."""

    def make(fates: dict[str, str] | None = None, **changes) -> Bench:
        settings = {"limit": 60.0, "environ": {"FAKE": json.dumps(fates or {})}} | changes
        return Bench(
            environment=Environment(Path(sys.executable), "0.6.0"), work=tmp_path / "work", driver=FAKE, **settings
        )

    return make
