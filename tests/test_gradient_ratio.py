"""gradient_ratio: a penalty's gradient is that share of the reconstruction's, measured once, equal after a resume."""

import json
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.config import DictionaryConfig
from unbraid.experiment.experiment import Experiment, Training
from unbraid.objective import gradient_ratio as weighting
from unbraid.objective.objective import Objective, Reads, Step, TargetL0, Term, TermOutput
from unbraid.objective.step_data import ExtraInputs
from unbraid.sources.fitting_sample import fitting_sample
from unbraid.sources.world.world import World
from unbraid.terms.geometry.orthogonality import Orthogonality
from unbraid.terms.independence.factor_vae import FactorVae
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.terms.sparsity.l0 import L0
from unbraid.terms.sparsity.l1 import L1
from unbraid.training.checkpoint import steps_saved
from unbraid.training.learner import Learner
from unbraid.training.loop import train

WORLD = World(factors=24, d_in=12, l0=2.0, roots=6, branching=1, depth=1, interactions=4, block_rows=2048)


@dataclass(frozen=True, kw_only=True)
class Pull(Term):
    """sum of W_dec times a fixed direction: its gradient is known."""

    size: float = 1.0
    reads: ClassVar[tuple[Reads, ...]] = ("decoder",)

    def __call__(self, step: Step) -> TermOutput:
        direction = torch.ones_like(step.dictionary.W_dec)
        return TermOutput(self.size * (step.dictionary.W_dec * direction).sum())


@dataclass(frozen=True, kw_only=True)
class Broken(Term):
    """Finite itself, with a gradient that is not."""

    after: float = 0.0
    reads: ClassVar[tuple[Reads, ...]] = ("decoder",)

    def __call__(self, step: Step) -> TermOutput:
        atoms = step.dictionary.W_dec
        return TermOutput((atoms - atoms.detach()).abs().sqrt().sum() if step.progress >= self.after else atoms.sum())


def learner(penalties: dict[str, Term], *, tokens: int = 6400, **objective) -> Learner:
    return Learner(asking(penalties, tokens=tokens, **objective), fitting_sample(WORLD, 0))


def asking(penalties: dict[str, Term], *, tokens: int = 6400, **objective) -> Experiment:
    return Experiment(
        name="t", source=WORLD, seed=3,
        objective=Objective(reconstruction=Reconstruction(), penalties=penalties, **objective),
        dictionary=DictionaryConfig(d_sae=32, activation=TopK(3)),
        training=Training(tokens=tokens, batch_size=64),
    )  # fmt: skip


def run(of: Learner, until: int, start: int = 0) -> list[dict[str, torch.Tensor]]:
    rows = WORLD.block(0, split="train", seed=0).rows
    return [of.step(rows[64 * (i % 32) : 64 * (i % 32 + 1)], i, ExtraInputs(WORLD, 0, i)) for i in range(start, until)]


def test_the_first_weight_makes_the_gradient_rho_of_the_reconstructions():
    of = learner({"pull": Pull(gradient_ratio=0.3)})
    x = WORLD.block(0, split="train", seed=0).rows.x[:64]
    z = of.dictionary.codes(of.normaliser(x))
    rec = ((of.normaliser(x) - of.dictionary.decode(z)) ** 2).sum() / 64
    atoms, (grad,) = of.dictionary.W_dec.detach(), torch.autograd.grad(rec, [of.dictionary.W_dec])
    ones = torch.ones_like(atoms)
    tangent = [g - (g * atoms).sum(1, keepdim=True) * atoms for g in (grad, ones)]
    expected = 0.3 * float(tangent[0].norm() / tangent[1].norm())
    (first,) = run(of, 1)
    assert float(first["weights/pull"]) == pytest.approx(expected, rel=1e-4)


def test_the_penaltys_own_scale_and_weight_do_not_matter():
    weights = [
        run(learner({"pull": Pull(gradient_ratio=0.3, size=s, weight=w)}), 12) for s, w in ((1.0, 1.0), (50.0, 7.0))
    ]
    for small, large in zip(*weights, strict=True):
        assert float(small["weights/pull"]) == pytest.approx(50 * float(large["weights/pull"]), rel=1e-3)


def test_the_weight_is_frozen_after_the_window():
    seen = [float(m["weights/pull"]) for m in run(learner({"pull": Pull(gradient_ratio=0.1)}), 40)]
    assert len(set(seen[:5])) == 5  # 5 % of 100 steps
    assert len(set(seen[5:])) == 1


@pytest.mark.parametrize("every", [3, 8])
def test_a_term_that_is_due_seldom_gets_the_weight_of_one_that_always_is(every):
    """Gradients fall fast at first; the window's end must decide, however many steps of it a term sees."""
    frozen = []
    for cadence in (1, every):
        of = learner({"pull": Pull(gradient_ratio=0.1, every=cadence)}, tokens=64 * 640)
        seen = [float(m["weights/pull"]) for m in run(of, 40) if "weights/pull" in m]
        frozen.append(seen[-1])
    assert frozen[1] == pytest.approx(frozen[0], rel=0.15)


def test_a_penalty_without_gradient_has_no_weight_and_does_no_harm():
    silent = learner({"pull": Pull(gradient_ratio=0.1, size=0.0)})
    plain = learner({})
    for learning in (silent, plain):
        run(learning, 8)
    assert torch.equal(silent.dictionary.W_dec, plain.dictionary.W_dec)


def test_a_resumed_run_keeps_the_frozen_weight():
    whole, first = (learner({"ort": Orthogonality(gradient_ratio=0.3, every=2)}) for _ in range(2))
    run(whole, 20)
    run(first, 9)
    second = learner({"ort": Orthogonality(gradient_ratio=0.3, every=2)})
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    run(second, 20, start=9)
    assert torch.equal(whole.dictionary.W_dec, second.dictionary.W_dec)


def test_a_term_is_left_out_before_its_start():
    seen = run(learner({"pull": Pull(start=0.1)}), 14)
    assert ["losses/pull" in m for m in seen] == [False] * 11 + [True] * 3  # at its start the ramp is still 0


def test_rho_and_the_l0_controller_cannot_both_set_a_weight():
    with pytest.raises(ValueError, match="leave one out"):
        learner({"sparsity": L1(gradient_ratio=0.1)}, target_l0=TargetL0(l0=3.0))


@pytest.mark.parametrize(
    "wrong", [{"gradient_ratio": -1.0}, {"gradient_ratio": float("nan")}, {"start": 1.0}, {"start": -0.1}, {"every": 0}]
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="Pull.(gradient_ratio|start|every) is"):
        learner({"pull": Pull(**wrong)})


def test_the_reconstruction_has_no_rho():
    with pytest.raises(ValueError, match="gradient_ratio is a share of the reconstruction's"):
        Objective(reconstruction=Reconstruction(gradient_ratio=0.1))


def test_a_bad_gradient_names_the_term_the_step_and_the_parameter_and_changes_nothing():
    of = learner({"broken": Broken(after=0.03)}, ramp=0.0)
    run(of, 3)
    before = of.dictionary.W_dec.detach().clone()
    with pytest.raises(ValueError, match=r"gradient of W_dec is not finite at step 3, from \['broken'\]"):
        run(of, 4, start=3)
    assert torch.equal(of.dictionary.W_dec, before)


def test_a_run_that_breaks_keeps_its_last_checkpoint_and_can_go_on(tmp_path):
    broken = asking({"broken": Broken(after=0.5)}, ramp=0.0)
    with pytest.raises(ValueError, match=r"at step 50, from \['broken'\]"):
        train([broken], tmp_path, checkpoint_steps=20)
    assert 40 in steps_saved(tmp_path / broken.folder)
    with pytest.raises(ValueError, match="at step 50"):  # from step 40 on, it breaks where it broke
        train([broken], tmp_path, resume=True)
    rows = [json.loads(line) for line in (tmp_path / broken.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 49 and sum(row["step"] == 0 for row in rows) == 1


def test_a_bad_loss_names_the_tensor():
    @dataclass(frozen=True, kw_only=True)
    class Bad(Term):
        def __call__(self, step: Step) -> TermOutput:
            return TermOutput(step.z.values.sum() * torch.nan, {"half": torch.tensor(torch.inf)})

    with pytest.raises(ValueError, match=r"term 'bad' gave nan at step 0 \(not finite: half\)"):
        run(learner({"bad": Bad()}, ramp=0.0), 1)


def test_weights_are_measured_on_what_the_penalty_reaches():
    of = learner({"l1": L1(gradient_ratio=0.1)})
    x = of.normaliser(WORLD.block(0, split="train", seed=0).rows.x[:64])
    z = of.dictionary.codes(x)
    losses = ((x - of.dictionary.decode(z)) ** 2).sum() / 64, z.values.abs().sum() / 64
    encoder = [of.dictionary.W_enc, of.dictionary.b_enc, of.dictionary.b_dec]  # L1 does not reach the atoms
    norms = [
        torch.stack([g.square().sum() for g in torch.autograd.grad(loss, encoder, retain_graph=True)]).sum().sqrt()
        for loss in losses
    ]
    (first,) = run(of, 1)
    assert float(first["weights/l1"]) == pytest.approx(0.1 * float(norms[0] / norms[1]), rel=1e-4)
    assert set(of.memory["l1"]) == set(weighting.KEYS)
    assert replace(L1(), weight=0.0).enabled is False


@pytest.mark.parametrize("wrong", [{"every": 2}, {"start": 0.1}, {"weight": 0.0}])
def test_rho_needs_a_reconstruction_on_every_step(wrong):
    Objective(reconstruction=Reconstruction(**wrong), penalties={"pull": Pull()})
    with pytest.raises(ValueError, match="the reconstruction must run on every step"):
        Objective(reconstruction=Reconstruction(**wrong), penalties={"pull": Pull(gradient_ratio=0.1)})


def test_a_controlled_penalty_must_act_from_the_start():
    with pytest.raises(ValueError, match="would wind up"):
        learner({"sparsity": L1(start=0.5)}, target_l0=TargetL0(l0=3.0))


@pytest.mark.parametrize(
    ("term", "message"), [(L0(), "moves JumpReLU's thresholds"), (FactorVae(), "TopK rows have k")]
)
def test_a_term_that_cannot_use_the_activation_stops_before_training(tmp_path, term, message):
    with pytest.raises(ValueError, match=message):
        train([asking({"asked": term})], tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_reconstruction_is_decoded_once_for_all_terms():
    @dataclass(frozen=True, kw_only=True)
    class Reader(Term):
        def __call__(self, step: Step) -> TermOutput:
            return TermOutput(0 * step.x_hat.sum())

    of = learner({"one": Reader(), "two": Reader()}, ramp=0.0)
    calls, decode = [], of.dictionary.decode
    of.dictionary.decode = lambda z: calls.append(1) or decode(z)
    run(of, 1)
    assert len(calls) == 1
