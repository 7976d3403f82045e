"""Training, resuming and scoring on a second device, simulated: what CUDA refuses is refused there, and what makes the
host wait is counted (`tests.simulated_device`)."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny_lm
from tests.resumed import assert_resumed_equals_whole
from tests.simulated_device import NAME, PACKAGE, Waits, counted_waits, install
from tests.small import WORLD, experiment
from tests.test_gradient_ratio import Broken, asking
from tests.test_train import mixed_cohort, weights
from unbraid.catalog import evals
from unbraid.dictionary.activations.gated import Gated
from unbraid.dictionary.encoding import code_matrix
from unbraid.evals.shared.evaluation import evaluate
from unbraid.experiment.experiment import Experiment, Training
from unbraid.objective.l0_control import Control
from unbraid.objective.objective import Objective, TargetL0
from unbraid.objective.step_data import ExtraInputs
from unbraid.runs.results import read_result, result_path
from unbraid.runs.run import Run
from unbraid.sources.base import Batch
from unbraid.sources.fitting_sample import fitting_sample
from unbraid.sources.stream import Stream, check_finite
from unbraid.system.devices import rounded_products, sent
from unbraid.terms.causal.effect import Effect
from unbraid.terms.geometry.orthogonality import Orthogonality
from unbraid.terms.reconstruction.gate_reconstruction import GateReconstruction
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.training.checkpoint import steps_saved
from unbraid.training.finite_checks import FoundLate
from unbraid.training.learner import Learner
from unbraid.training.loop import train
from unbraid.training.step_log import numbers


@pytest.fixture(autouse=True, scope="module")
def _device() -> Iterator[None]:
    install()
    # The threads of torch's autograd are those of the devices there were when it was first used in this process.
    with torch.autograd.set_multithreading_enabled(False):
        yield


def trained(base: Experiment, **training: Any) -> Experiment:
    return replace(base, training=replace(base.training, **training))


def there(base: Experiment) -> Experiment:
    return trained(base, device=NAME)


def kinds() -> dict[str, Experiment]:
    """Every way to train that asks something of its own of a device."""
    restarted = Objective(reconstruction=Reconstruction())
    more = [
        trained(experiment("whitened"), normalise="whiten"),
        trained(replace(experiment("restarted"), objective=restarted), dead_after=160, resample_every=1600),
        trained(experiment("bfloat16"), matmul="bfloat16"),
        trained(experiment("all-dead"), dead_after=1),
        experiment("gated", activation=Gated(), gate=GateReconstruction()),
    ]
    return {each.name: each for each in [*mixed_cohort(), *more]}


KINDS = kinds()
QUICK = ("plain", "jumprelu")
NEARLY = ("all-dead", "bfloat16")
"""Kinds that differ from the CPU by more than rounding: dead latents are listed every few steps, and of equal numbers
in bfloat16 others are chosen."""


def slow(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) for name in sorted(names)]


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


@pytest.mark.parametrize("kind", [*QUICK, *slow(KINDS.keys() - {*QUICK, *NEARLY})])
def test_training_there_gives_the_dictionary_of_the_cpu(kind: str, tmp_path: Path) -> None:
    ours, theirs = (weights(train([each], tmp_path)[0]) for each in (there(KINDS[kind]), KINDS[kind]))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.allclose(ours[name], value, atol=1e-5), name


@pytest.mark.parametrize("kind", slow(NEARLY))
def test_others_train_nearly_as_on_the_cpu(kind: str, tmp_path: Path) -> None:
    losses = []
    for each in (there(KINDS[kind]), KINDS[kind]):
        rows = (train([each], tmp_path)[0] / "metrics.jsonl").read_text().splitlines()
        losses.append(json.loads(rows[-1])["losses/reconstruction"])
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.parametrize("kind", [*QUICK, *slow(("effect", "restarted", "all-dead"))])
def test_training_there_resumes_bit_for_bit(kind: str, tmp_path: Path) -> None:
    assert_resumed_equals_whole([there(KINDS[kind])], tmp_path, steps=25, every=10)


WAITS = 2 / 8
"""Times that the host waits for the device a step: for a look at whether all was finite, and for the number of dead
latents, both at every eighth step."""
THRESHOLD = 1
"""More for activations by threshold: the number of active pairs, which sizes what is kept of them."""
CEILINGS = {
    "topk": WAITS, "plain": WAITS, "nested": WAITS, "whitened": WAITS, "bfloat16": WAITS, "all-dead": WAITS,
    "ratio": WAITS, "relu": WAITS + THRESHOLD, "jumprelu": WAITS + THRESHOLD, "gated": WAITS + THRESHOLD,
}  # fmt: skip


@pytest.mark.parametrize("kind", CEILINGS)
def test_the_host_seldom_waits_for_the_device(kind: str) -> None:
    with_ratio = experiment("ratio", orthogonality=Orthogonality(gradient_ratio=0.1))
    learner, batches = begun(there({**KINDS, "ratio": with_ratio}[kind]), 24)
    with counted_waits() as lines:
        for index in range(16, 24):
            learner.step(batches[index].to(NAME), index, ExtraInputs(WORLD, 0, index))
    assert lines.total() <= 8 * CEILINGS[kind], lines


def begun(base: Experiment, steps: int) -> tuple[Learner, list[Batch]]:
    """A learner after 16 steps, and batches for so many, on the CPU."""
    learner, stream = Learner(base, WORLD.labelled(1024, split="train").x), Stream(WORLD, 160, seed=0)
    batches = [next(stream) for _ in range(steps)]
    for index in range(16):
        learner.step(batches[index].to(base.training.device), index, ExtraInputs(WORLD, 0, index))
    return learner, batches


def test_a_batch_goes_to_the_device_while_the_host_goes_on() -> None:
    wide = torch.ones(2048, 64)
    with counted_waits() as lines:
        assert sent(wide, NAME).device.type == NAME
        assert sent(wide, "cpu") is wide
    assert not lines


def test_only_what_knows_the_kind_of_device_copies_without_waiting() -> None:
    """To Apple's device torch may copy a tensor that has been freed (pytorch#189690): `sent` waits there."""
    files = Path(PACKAGE).rglob("*.py")
    assert [path.name for path in files if "non_blocking" in path.read_text(encoding="utf-8")] == ["devices.py"]


@pytest.mark.parametrize("tf32", [True, False])
def test_products_of_the_encoder_and_of_gradients_may_round_those_of_other_layers_do_not(tf32: bool) -> None:
    learner, batches = begun(trained(there(KINDS["effect"]), tf32=tf32), 17)
    Waits.precision.clear()
    learner.step(batches[16].to(NAME), 16, ExtraInputs(WORLD, 0, 16))
    assert (Waits.precision["high"] > 0) == tf32
    assert Waits.precision["highest"] > 0
    assert torch.get_float32_matmul_precision() == "highest"


def test_products_on_the_cpu_are_never_rounded() -> None:
    with rounded_products("cpu"):
        assert torch.get_float32_matmul_precision() == "highest"


def test_codes_are_computed_where_the_rows_are() -> None:
    x = WORLD.labelled(512, split="train").x
    made = Learner(KINDS["topk"], x).dictionary
    with counted_waits() as lines:
        found = code_matrix(made, x.to(NAME))
    assert made.W_dec.is_cpu and "dictionary/encoding.py" in {line.partition(":")[0] for line in lines}
    assert abs(found - code_matrix(made, x)).max() < 1e-5


def test_the_host_waits_once_for_all_that_is_logged() -> None:
    metrics = {"loss": torch.tensor(0.1, device=NAME), "dead": torch.tensor(3, device=NAME), "here": torch.tensor(2.5)}
    with counted_waits() as lines:
        found = numbers(metrics)
    assert found == {"loss": float(torch.tensor(0.1)), "dead": 3.0, "here": 2.5}
    assert lines.total() == 1


@pytest.mark.parametrize("more", [2, 6])
def test_a_bad_step_is_found_late_and_named_as_on_the_cpu(more: int) -> None:
    """Steps follow it until the host looks, when it is called to or by itself; the parameters stay as they were, but
    for the rounding of norms."""
    of = Learner(there(asking({"broken": Broken(after=0.18)}, ramp=0.0)), fitting_sample(WORLD, 0))
    rows = WORLD.block(0, split="train", seed=0)
    assert rows is not None

    def step(index: int) -> None:
        of.step(rows.rows[64 * (index % 16) : 64 * (index % 16 + 1)].to(NAME), index, ExtraInputs(WORLD, 0, index))

    for index in range(18):
        step(index)
    before = {name: value.detach().cpu().clone() for name, value in of.dictionary.state_dict().items()}
    with pytest.raises(FoundLate, match=r"gradient of W_dec is not finite at step 18, from \['broken'\]") as error:
        for index in range(18, 19 + more):
            step(index)
        of.check()
    assert error.value.step == 18
    for name, value in of.dictionary.state_dict().items():
        assert torch.allclose(value.cpu(), before[name], rtol=0, atol=1e-7 if name == "W_dec" else 0), name


def test_a_bad_step_fails_its_member_and_is_marked_where_it_was(tmp_path: Path) -> None:
    cohort = [there(asking({"broken": Broken(after=0.53)}, ramp=0.0)), there(asking({}))]
    with pytest.raises(ValueError, match=r"stopped at step 53 for good: .*at step 53, from \['broken'\]"):
        train(cohort, tmp_path, checkpoint_steps=20)
    assert max(steps_saved(tmp_path / cohort[0].folder)) == 40
    assert Run(tmp_path / cohort[1].folder).dictionary().d_sae == 32


def test_a_checkpoint_holds_no_bad_step(tmp_path: Path) -> None:
    broken = there(asking({"broken": Broken(after=0.53)}, ramp=0.0))
    with pytest.raises(ValueError, match="stopped at step 53 for good"):
        train([broken], tmp_path, checkpoint_steps=54)
    assert not steps_saved(tmp_path / broken.folder)


@pytest.mark.parametrize("signed", [False, True])
def test_the_controller_moves_alike_there_and_on_the_cpu(signed: bool) -> None:
    target, here = TargetL0(l0=8.0), Control(math.nan, 0.0)
    there_ = Control(*torch.tensor(here, dtype=torch.float64, device=NAME))
    for l0 in (0.0, 3.0, 20.0, 400.0, 8.0):
        here, there_ = here.moved(target, l0, 100), there_.moved(target, torch.tensor(l0).to(NAME), 100)
        assert [float(x) for x in there_] == pytest.approx([*here], rel=1e-6)
        assert float(there_.factor(target, signed)) == pytest.approx(here.factor(target, signed), rel=1e-6)


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
