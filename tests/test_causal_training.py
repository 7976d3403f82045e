"""Causal terms inside the loop: normalisation, a stop and a resume, a run that diverges."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from safetensors.torch import load_file

from tests.resumed import assert_resumed_equals_whole
from tests.small import WORLD, experiment
from unbraid.experiment.experiment import Experiment
from unbraid.objective.objective import Step, Term, TermOutput
from unbraid.objective.step_data import ExtraInputs
from unbraid.sources.fitting_sample import fitting_sample
from unbraid.terms.causal.causal_head import CausalHead
from unbraid.terms.causal.downstream_reconstruction import DownstreamReconstruction
from unbraid.terms.causal.effect import Effect
from unbraid.terms.causal.effect_sketch import EffectSketch
from unbraid.terms.causal.interaction import Interaction
from unbraid.terms.causal.melbo import MelboReward
from unbraid.terms.causal.readback import Readback
from unbraid.terms.geometry.repulsion import Repulsion
from unbraid.terms.statistics.where_latents_fire import firing
from unbraid.training.learner import Learner
from unbraid.training.loop import train

CAUSAL: dict[str, Term] = {
    "effect": Effect(gradient_ratio=0.1, every=4),
    "head": CausalHead(gradient_ratio=0.1, every=4, start=0.0),
    "interaction": Interaction(gradient_ratio=0.1, every=4),
    "melbo": MelboReward(gradient_ratio=0.1, every=8),
    "sketch": EffectSketch(gradient_ratio=0.1, refresh=16),
    "readback": Readback(gradient_ratio=0.1),
    "downstream": DownstreamReconstruction(gradient_ratio=0.1),
    "repulsion": Repulsion(gradient_ratio=0.1),
}


def asking(penalties: dict[str, Term]) -> Experiment:
    plain = experiment()
    return replace(plain, objective=replace(plain.objective, penalties=penalties))


def test_a_run_with_every_causal_term_stopped_and_resumed_equals_the_uninterrupted_one(tmp_path):
    assert_resumed_equals_whole([asking(CAUSAL)], tmp_path, steps=25, every=10)


@dataclass(frozen=True, kw_only=True)
class Look(Term):
    """Checks what a step says of normalisation."""

    def __call__(self, step: Step) -> TermOutput:
        contexts = step.contexts()
        x = step.normalise(contexts.acts[contexts.mask])
        torch.testing.assert_close(step.restore(x), contexts.acts[contexts.mask])
        torch.testing.assert_close(step.normalise(step.batch.x), step.x)
        assert float(x.square().mean()) == pytest.approx(1, abs=0.2) and float(contexts.acts.square().mean()) < 0.5
        expected = step.dictionary.encode(x) > 0
        active = firing(step)
        living = torch.arange(step.dictionary.d_sae)
        assert torch.equal(active.where(living), expected.T) and firing(step) is active
        return TermOutput(step.x.new_zeros(()), {"seen": torch.ones(())})


def test_contexts_are_encoded_as_the_batch_is():
    learner = Learner(experiment(look=Look()), fitting_sample(WORLD, 0))
    block = WORLD.block(0, split="train", seed=0)
    assert block is not None
    logged = learner.step(block.rows[:160], 8, ExtraInputs(WORLD, 0, 8))
    assert logged["metrics/look/seen"] == 1


def test_what_the_head_knows_of_restarted_latents_is_forgotten():
    """They would be charged for what their predecessors did."""
    asked = experiment(head=CausalHead(start=0.0, every=1, most=8, taught=64))
    training = replace(asked.training, resample_every=2 * asked.training.batch_size, dead_after=1000)
    learner = Learner(replace(asked, training=training), fitting_sample(WORLD, 0))
    block = WORLD.block(0, split="train", seed=0)
    assert block is not None
    rows = block.rows[: asked.training.batch_size]
    learner.step(rows, 8, ExtraInputs(WORLD, 0, 8))
    known, before = learner.memory["head"]["seen"].clone(), learner.dictionary.W_dec.detach().clone()
    learner.dead_latents.since_fired.fill_(10_000)  # all that do not fire now are dead
    learner.step(rows[:12], 9, ExtraInputs(WORLD, 0, 9))
    seen, heads = learner.memory["head"]["seen"], learner.memory["head"]["heads"]
    restarted = (before * learner.dictionary.W_dec).sum(1) < 0.9
    assert bool(restarted.any()) and bool((known[restarted] > 0).any()), "else nothing is tested"
    assert int(seen[restarted].sum()) == 0 and float(heads[restarted].abs().sum()) == 0
    assert bool((seen[~restarted] >= known[~restarted]).all())


class Diverging(Effect):
    def __call__(self, step: Step) -> TermOutput:
        loss, metrics = super().__call__(step)
        return TermOutput(loss * math.inf, metrics)


@pytest.mark.parametrize(
    ("term", "said"),
    [
        (Effect(radius=1e12), "term 'effect' pushes activations, but radius 1e.12 is outside"),
        (MelboReward(radius=1e-9), "is outside .* leave it at 0"),
    ],
)
def test_a_radius_that_cannot_be_is_refused_before_training(tmp_path, term, said):
    with pytest.raises(ValueError, match=said):
        train([experiment(effect=term)], tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_reward_without_a_cap_can_be_trained_and_stored(tmp_path):
    (folder,) = train([experiment(effect=MelboReward(cap=0.0), sketch=EffectSketch(cap=0.0))], tmp_path)
    assert (folder / "provenance.json").is_file()


def test_all_terms_of_a_radius_that_cannot_be_are_named_at_once(tmp_path):
    both = experiment(first=Effect(radius=1e12), second=MelboReward(radius=1e12))
    with pytest.raises(ValueError, match="term 'first'; .* term 'second' push activations, but radius 1e.12"):
        train([both], tmp_path)


def test_layers_that_do_nothing_are_refused_before_training_and_not_when_the_term_begins(tmp_path):
    idle = replace(experiment(effect=Interaction(start=0.5)), source=replace(WORLD, effective=0.0, interactions=0))
    with pytest.raises(ValueError, match="term 'effect' pushes activations, but .*no first-order effect"):
        train([idle], tmp_path)
    assert not any(tmp_path.iterdir())


def test_an_effect_term_that_diverges_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    wild = experiment(effect=Diverging(start=0.5, every=1))
    with pytest.raises(ValueError, match="term 'effect' gave -?(nan|inf) at step 21"):
        train([wild], tmp_path, checkpoint_steps=1)
    saved = sorted((tmp_path / wild.folder / "checkpoints").glob("*.safetensors"), key=lambda path: int(path.stem))
    assert saved[-1].stem == "21"
    kept = load_file(saved[-1])
    assert all(bool(value.isfinite().all()) for name, value in kept.items() if name.startswith("dictionary/"))


def test_the_order_of_terms_changes_what_the_head_learns_from_but_not_the_effects():
    """After `effect`, the head knows all the latents that it measured; before it, those of its own sets alone."""

    def seen(order: tuple[str, ...]) -> tuple[int, float]:
        learner = Learner(
            asking({name: replace(CAUSAL[name], gradient_ratio=0.0) for name in order}), fitting_sample(WORLD, 0)
        )
        block = WORLD.block(0, split="train", seed=0)
        assert block is not None
        logged = learner.step(block.rows[:160], 8, ExtraInputs(WORLD, 0, 8))
        return int(learner.memory["head"]["seen"].sum()), float(logged["metrics/effect/radius"])

    (after, radius), (before, same) = seen(("effect", "head")), seen(("head", "effect"))
    assert after == before + 16 and radius == pytest.approx(same, rel=0.5)
