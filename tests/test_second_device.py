"""Training, resuming and scoring on a second device, simulated: what CUDA refuses is refused there, and what makes the
host wait is counted (`tests.simulated_device`)."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny_lm
from tests.resumed import assert_resumed_equals_whole
from tests.simulated_device import NAME, counted_waits, install
from tests.small import experiment
from tests.test_train import mixed_cohort, weights
from unbraid.catalog import evals
from unbraid.dictionary.activations.gated import Gated
from unbraid.evals.shared.evaluation import evaluate
from unbraid.experiment.experiment import Experiment, Training
from unbraid.runs.results import read_result, result_path
from unbraid.runs.run import Run
from unbraid.sources.stream import check_finite
from unbraid.terms.causal.effect import Effect
from unbraid.terms.reconstruction.gate_reconstruction import GateReconstruction
from unbraid.training.loop import train


@pytest.fixture(autouse=True, scope="module")
def _device() -> None:
    install()


def trained(base: Experiment, **training: Any) -> Experiment:
    return replace(base, training=replace(base.training, **training))


def there(base: Experiment) -> Experiment:
    return trained(base, device=NAME)


def kinds() -> dict[str, Experiment]:
    """Every way to train that asks something of its own of a device."""
    more = [
        trained(experiment("whitened"), normalise="whiten"),
        trained(experiment("restarted"), dead_after=160, resample_every=1600),
        trained(experiment("bfloat16"), matmul="bfloat16"),
        trained(experiment("all-dead"), dead_after=1),
        experiment("gated", activation=Gated(), gate=GateReconstruction()),
    ]
    return {each.name: each for each in [*mixed_cohort(), *more]}


KINDS = kinds()


def test_operations_on_tensors_of_two_devices_are_refused() -> None:
    x = torch.ones(3, device=NAME)
    assert float((x * torch.tensor(2.0)).sum()) == 6.0  # a number may come from anywhere
    for mixed in (lambda: x + torch.ones(3), lambda: torch.ones(3)[x > 0], lambda: torch.ones(2, 3) @ x):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()


def test_a_generator_of_the_cpu_is_refused() -> None:
    with pytest.raises(RuntimeError, match="device type for generator"):
        torch.randn(3, device=NAME, generator=torch.Generator())


def test_waits_are_counted_by_the_line_of_the_package_that_causes_them() -> None:
    x = torch.ones(3, 2, device=NAME)
    with counted_waits() as lines:
        check_finite(x, "here")
        _ = (x * 2).sum(), x.new_zeros(3), float(x.sum())  # in no file of the package
    assert [line.partition(":")[0] for line in lines] == ["sources/stream.py"]
    assert lines.total() == 1


@pytest.mark.parametrize("name", ["gpu0", "simx", "sim:", "utils", "SIM"])
def test_only_devices_that_are_registered_can_be_named(name: str) -> None:
    assert Training(device=f"{NAME}:0").device == f"{NAME}:0"
    with pytest.raises(ValueError, match=r"Training\.device is .* it must be cpu, cuda or mps"):
        Training(device=name)


def test_a_device_beyond_the_last_is_refused(tmp_path: Path) -> None:
    second = trained(experiment(), device=f"{NAME}:1")
    with pytest.raises(ValueError, match="there are 1 here"):
        train([second], tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_training_there_gives_the_dictionary_of_the_cpu(kind: str, tmp_path: Path) -> None:
    ours, theirs = (weights(train([each], tmp_path)[0]) for each in (there(KINDS[kind]), KINDS[kind]))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.allclose(ours[name], value, atol=1e-5), name


@pytest.mark.parametrize("kind", ["plain", "jumprelu", "effect", "restarted", "all-dead"])
def test_training_there_resumes_bit_for_bit(kind: str, tmp_path: Path) -> None:
    assert_resumed_equals_whole([there(KINDS[kind])], tmp_path, steps=25, every=10)


@pytest.mark.slow
def test_a_language_model_is_read_trained_on_and_scored_there(tmp_path: Path) -> None:
    model, text = tiny_lm.write_model(tmp_path / "model"), tiny_lm.write_corpus(tmp_path / "text.jsonl")
    base = trained(experiment("lm", effect=Effect(every=4, columns=4)), tokens=320, batch_size=80)
    names = ("controllability", "description_length", "fidelity")
    found = {}
    for device in ("cpu", NAME):
        source = tiny_lm.source(model, text, device=device)
        folder = train([trained(replace(base, source=source), device=device)], tmp_path)[0]
        evaluate([Run(folder)], [evals()[name] for name in names])
        found[device] = [row for name in names for row in read_result(result_path(folder, name))["scores"]]
    for ours, theirs in zip(found[NAME], found["cpu"], strict=True):
        assert ours["metric"] == theirs["metric"]
        assert math.isclose(ours["value"] or 0, theirs["value"] or 0, rel_tol=1e-2, abs_tol=1e-3), ours["metric"]
