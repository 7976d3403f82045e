"""The estimate of a step's time counts every term at its cadence, and of memory what terms keep."""

from dataclasses import replace

import pytest

from tests import tiny_lm
from tests.callbacks import AtProgress, Stopped
from tests.small import WORLD, experiment
from unbraid.cli import plan
from unbraid.cli import train as train_commands
from unbraid.sources.fitting_sample import fitting_sample
from unbraid.sources.stream import Stream
from unbraid.terms.independence.factorised_support import Support
from unbraid.terms.sparsity.l1 import L1
from unbraid.training.checkpoint import load_checkpoint, steps_saved
from unbraid.training.learner import Learner
from unbraid.training.loop import train


@pytest.mark.parametrize("steps", [1000, 391, 41])
def test_terms_of_different_cadences_are_each_counted_at_their_share(monkeypatch, steps):
    """A plain step takes a second, a term of cadence n 10 n seconds when it is due: 10 a step; the first, 500 more."""
    cadences, clock, seen = (1, 5, 8, 2), [0.0], []
    base = experiment()
    asked = replace(
        base,
        objective=replace(base.objective, penalties={f"l1-{n}": L1(every=n) for n in cadences}, target_l0=None),
        training=replace(base.training, tokens=steps * base.training.batch_size),
    )
    learner = Learner(asked, fitting_sample(WORLD, 0))

    def step(batch, index, supply):
        clock[0] += 0.0 if seen else 500.0
        seen.append(index)
        clock[0] += 1.0 + sum(10.0 * every for every in cadences if every > 1 and index % every == 0)

    monkeypatch.setattr(learner, "step", step)
    monkeypatch.setattr(plan.time, "monotonic", lambda: clock[0])
    batches = [next(Stream(WORLD, asked.training.batch_size, seed=0))] * 3
    assert plan.measured(learner, batches, WORLD) == pytest.approx((1 + 3 * 10, 500))
    assert len(seen) == 1 + len(cadences), "a step that takes seconds is not made again"
    assert max(seen) < steps


def test_what_terms_keep_is_as_much_as_a_checkpoint_holds_of_it(tmp_path):
    base = experiment("banked", support=Support(start=0.2))
    untrained = replace(base, name="untrained", training=replace(base.training, tokens=0))
    found = plan.estimate([base, experiment("plain"), untrained])

    def stop(tokens: int, total: int) -> None:
        if tokens == 39 * 160:
            raise Stopped

    with pytest.raises(Stopped):
        train([base], tmp_path, checkpoint_steps=38, callbacks=[AtProgress(stop)])
    (step,) = steps_saved(tmp_path / base.folder)
    tensors, _, _ = load_checkpoint(tmp_path / base.folder, step)
    held = sum(tensor.nbytes for name, tensor in tensors.items() if name.startswith("memory/"))
    assert found.kept == held > 64 * 64 * 16, "a ring of 64 entries a latent, of 16 bytes each, and averages"
    assert found.seconds > 0


def test_a_study_of_more_members_than_its_data_has_batches_can_be_planned(tmp_path):
    """Six batches of text are trained on by all alike; measuring takes no more."""
    text = tmp_path / "words.jsonl"
    source = tiny_lm.source(tiny_lm.write_model(tmp_path / "model"), tiny_lm.write_corpus(text))
    tokens = int(source.available("train")) // 160 * 160
    cohort = [replace(experiment(f"m{i}", tokens=tokens), source=source) for i in range(8)]
    assert tokens < 8 * plan.MEASURED_STEPS * 160
    assert plan.estimate(cohort).seconds > 0


def test_workers_need_the_memory_of_their_shards_at_once(tmp_path, monkeypatch):
    of = lambda seed: replace(experiment("m").training, data_seed=seed)
    groups = [[replace(experiment(name), training=of(seed)) for name in ("one", "two")] for seed in (0, 1)]
    both = plan.needs_at_once(groups, 2)
    assert both.memory == sum(plan.budget(group, tmp_path).memory for group in groups)
    assert "2 processes, 2 shards" in train_commands.beside(both)
    monkeypatch.setattr(plan, "free_memory", lambda: both.memory - 1)
    (problem,) = plan.needs_at_once(groups, 2).problems()
    assert "2 workers need" in problem and "use fewer --workers" in problem
    assert plan.needs_at_once(groups, 1).problems() == []
