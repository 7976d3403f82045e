"""What every term must do, for every term there is: dropping a file into unbraid/terms is enough to be held to it."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from unbraid import seeding
from unbraid.catalog import terms
from unbraid.config.serialise import from_json, to_json
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.codes import DenseCodes, SparseCodes
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.weights import Path
from unbraid.objective.objective import Step, Term, TermOutput
from unbraid.sources.base import Batch, Contexts, Counterfactuals
from unbraid.sources.world.world import World

WORLD = World(factors=48, d_in=16, l0=3.0, roots=8, branching=2, depth=1, interactions=4)
D_SAE, BATCH = 40, 64
DEAD = [3, 17]

every_term = pytest.mark.parametrize("kind", terms().values(), ids=terms().keys())


def dictionary(dtype: torch.dtype = torch.float64, *, bfloat16: bool = False) -> Dictionary:
    """JumpReLU, since one term needs thresholds, with a window wide enough to hold some entries; two latents silent."""
    rng = seeding.stream(0, "contract")
    made = Dictionary(WORLD.d_in, D_SAE, JumpReLU(bandwidth=0.3), bfloat16=bfloat16)
    with torch.no_grad():
        made.W_dec.copy_(torch.randn(D_SAE, WORLD.d_in, generator=rng))
        made.renormalise()
        made.W_enc.copy_(made.W_dec.T)
        made.threshold.fill_(0.2)
        made.threshold[DEAD] = 100.0
    return made.to(dtype)


def step(of: Dictionary, path: Path = "auto", *, x: Tensor | None = None, dead: Tensor | None = None) -> Step:
    """Documents of four tokens each, so that terms on neighbouring tokens have neighbours."""
    rows = WORLD.sample(BATCH, seed=0).x.to(of.W_dec.dtype) if x is None else x
    index = torch.arange(BATCH)
    silent = torch.zeros(D_SAE, dtype=torch.bool).index_fill(0, torch.tensor(DEAD), True)
    return Step(
        x=rows, z=of.codes(rows, path), dictionary=of, batch=Batch(rows, index, index // 4, index % 4),
        dead=silent if dead is None else dead, progress=0.5, contexts=lambda: contexts(of.W_dec.dtype),
        rng=seeding.stream(0, "term/contract"),
        counterfactuals=lambda: counterfactuals(rows.dtype, silent=not bool(rows.any())),
        corrupted=lambda share: (
            WORLD.corrupted(32, share=share, split="train", seed=0).to(rows.dtype) * bool(rows.any())
        ),
        normalise=lambda acts: acts, restore=lambda x: x,
    )  # fmt: skip


def counterfactuals(dtype: torch.dtype, *, silent: bool) -> Counterfactuals:
    """Pairs of the world; of zeros when the batch is."""
    given = WORLD.counterfactuals(32, split="train", seed=0)
    return Counterfactuals(*((0 * x if silent else x).to(dtype) for x in (given.x, given.changed)))


def contexts(dtype: torch.dtype) -> Contexts:
    given = WORLD.contexts(2, split="train", seed=0)
    words = torch.randn(given.base.shape[-1], 7, generator=seeding.stream(0, "words"), dtype=dtype)
    return Contexts(
        given.acts.to(dtype), given.mask, given.base.to(dtype), given.downstream,
        predict=lambda out, at: (out.to(words) @ words)[..., at, :],
    )  # fmt: skip


def gradients(out: TermOutput, of: Dictionary) -> dict[str, Tensor]:
    """Of every parameter; zero where none arrives, and everywhere when the loss does not depend on any."""
    named = dict(of.named_parameters())
    if not out.loss.requires_grad:
        return {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    found = torch.autograd.grad(out.loss, list(named.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), found, strict=True)}


def assert_finite(term: Term, now: Step) -> None:
    out = term(now)
    assert out.loss.shape == () and out.loss.isfinite()
    assert all(grad.isfinite().all() for grad in gradients(out, now.dictionary).values())


def test_there_are_terms():
    assert len(terms()) >= 7


@every_term
def test_defaults_make_a_term_that_survives_json(kind: type[Term]):
    term = kind()
    assert from_json(json.loads(json.dumps(to_json(term)))) == term
    assert term.every >= 1


@every_term
def test_the_loss_is_a_finite_number_that_some_parameter_can_change(kind: type[Term]):
    of = dictionary()
    out = kind()(step(of))
    assert out.loss.shape == () and out.loss.isfinite() and out.loss.dtype == torch.float64
    found = gradients(out, of)
    assert all(grad.isfinite().all() for grad in found.values())
    assert any(grad.abs().sum() > 0 for grad in found.values())


@every_term
def test_the_same_stream_gives_the_same_loss_twice(kind: type[Term]):
    first, second = (kind()(step(dictionary())) for _ in range(2))
    assert torch.equal(first.loss, second.loss)
    assert first.metrics.keys() == second.metrics.keys()


@every_term
def test_sparse_and_dense_codes_give_the_same_loss_and_gradients(kind: type[Term]):
    def outcome(path: Path) -> Iterator[Tensor]:
        of = dictionary()
        now = step(of, path)
        assert isinstance(now.z, SparseCodes if path == "sparse" else DenseCodes)
        out = kind()(now)
        yield out.loss.detach()
        yield from gradients(out, of).values()

    for sparse, dense in zip(outcome("sparse"), outcome("dense"), strict=True):
        torch.testing.assert_close(sparse, dense, atol=1e-12, rtol=1e-10)


@every_term
def test_a_batch_of_zeros_is_survived(kind: type[Term]):
    of = dictionary()
    for path in ("sparse", "dense"):
        assert_finite(kind(), step(of, path, x=torch.zeros(BATCH, WORLD.d_in, dtype=torch.float64)))


@every_term
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_any_number_of_dead_latents_is_survived(kind: type[Term], share: float):
    assert_finite(kind(), step(dictionary(), dead=torch.arange(D_SAE) < share * D_SAE))


@every_term
@pytest.mark.parametrize("path", ["sparse", "dense"])
def test_a_bfloat16_encoder_is_survived(kind: type[Term], path: Path):
    assert_finite(kind(), step(dictionary(torch.float32, bfloat16=True), path))


@every_term
def test_a_silent_dictionary_is_survived(kind: type[Term]):
    of = dictionary()
    of.b_enc.data.fill_(-100.0)
    for path in ("sparse", "dense"):
        assert_finite(kind(), step(of, path))


@every_term
def test_a_term_changes_nothing_but_its_own_memory(kind: type[Term]):
    of = dictionary()
    before = {name: value.clone() for name, value in of.state_dict().items()}
    now = step(of)
    x = now.x.clone()
    kind()(now)
    assert torch.equal(now.x, x)
    assert all(torch.equal(value, before[name]) for name, value in of.state_dict().items())
    assert all(isinstance(value, Tensor) and not value.requires_grad for value in now.memory.values())


@every_term
def test_memory_carried_over_a_checkpoint_gives_the_same_loss(kind: type[Term]):
    """A second step after a save and a restore equals the second step without."""
    of = dictionary()
    first = step(of)
    kind()(first)
    restored = {name: value.clone() for name, value in first.memory.items()}
    continued = kind()(replace(step(of), memory=first.memory)).loss
    assert torch.equal(continued, kind()(replace(step(of), memory=restored)).loss)
