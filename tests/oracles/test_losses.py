"""The same loss and the same gradients as sae-lens, dictionary-learning and sparsify, on the same weights.

SAELens is in our environment; the others have their own (tests/oracles/peers.py) and are skipped without it. Where a
library differs from the paper, or from the others, the test says in what.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.oracles.peers import ask
from tests.steps import no_contexts
from torch import Tensor

from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.gated import Gated
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.matching_pursuit import MatchingPursuit
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.dictionary import Dictionary
from unbraid.objective.objective import Step, Term
from unbraid.seeding import stream
from unbraid.sources.base import Batch
from unbraid.terms.dead_latents.aux_k import AuxK
from unbraid.terms.dead_latents.pre_activation import PreActivation
from unbraid.terms.reconstruction.gate_reconstruction import GateReconstruction
from unbraid.terms.reconstruction.nested_reconstruction import NestedReconstruction
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.terms.sparsity.gate_l1 import GateL1
from unbraid.terms.sparsity.l0 import L0
from unbraid.terms.sparsity.l1 import L1
from unbraid.terms.sparsity.p_annealing import PAnnealing
from unbraid.terms.sparsity.tanh import Tanh

D_IN, D_SAE, BATCH, K = 12, 40, 64, 5
DEAD = (2, 7, 11, 29)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    sae_lens = pytest.importorskip("sae_lens")
    from sae_lens.saes.sae import TrainStepInput


def weights(activation: Activation) -> Dictionary:
    """Arbitrary weights in float64, atoms of unit norm; four latents never fire."""
    made = Dictionary(D_IN, D_SAE, activation).double()
    rng = stream(0, "oracle")
    with torch.no_grad():
        for name in sorted(dict(made.named_parameters())):
            parameter = getattr(made, name)
            drawn = torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
            parameter.copy_(0.3 * drawn if name == "r_mag" else drawn)
        made.threshold.abs_() if isinstance(activation, JumpReLU) else made.threshold.zero_()
        made.b_enc[list(DEAD)] = -100.0
        made.W_dec.div_(made.W_dec.norm(dim=1, keepdim=True))
        made.tie()
    return made


def rows() -> Tensor:
    return torch.randn(BATCH, D_IN, generator=stream(1, "oracle"), dtype=torch.float64)


def dead_mask() -> Tensor:
    return torch.zeros(D_SAE, dtype=torch.bool).index_fill(0, torch.tensor(DEAD), True)


def step(of: Dictionary, *, dead: bool, memory: dict[str, Tensor] | None = None, progress: float = 0.5) -> Step:
    x, index = rows(), torch.arange(BATCH)
    return Step(
        x=x, z=of.codes(x), dictionary=of, batch=Batch(x, index, index, index), dead=dead_mask() & dead,
        progress=progress, contexts=no_contexts, rng=stream(0, "oracle"), memory={} if memory is None else memory,
    )  # fmt: skip


def ours(activation: Activation, *terms: Term, dead: bool = False) -> dict[str, Tensor]:
    """The weighted loss, and the gradient of every parameter there is one of."""
    of = weights(activation)
    now = step(of, dead=dead)
    loss = torch.stack([term.weight * term(now).loss for term in terms]).sum()
    loss.backward()
    grads = {f"grad/{n}": p.grad for n, p in of.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **grads}


def across(answer: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the part of the decoder's gradient that unit norm takes back: SAELens charges |d_i| too, which is 1."""
    atoms, grad = weights(ReLU()).W_dec.detach(), answer["grad/W_dec"]
    return {**answer, "grad/W_dec": grad - (grad * atoms).sum(1, keepdim=True) * atoms}


def assert_equal(found: Mapping[str, Tensor], theirs: Mapping[str, Tensor], *, but: tuple[str, ...] = ()) -> None:
    """That everything they have is ours too. `but`: gradients that differ, which is asserted as well."""
    assert theirs.keys() <= found.keys() and "loss" in theirs and "grad/W_dec" in theirs
    for name, value in theirs.items():
        close = torch.allclose(found[name].double(), value.double(), rtol=1e-6, atol=1e-7)
        assert close != (name.removeprefix("grad/") in but), f"{name}: {(found[name] - value).abs().max()}"


def saelens(
    kind: str, activation: Activation, coefficients: Mapping[str, float], *, dead: bool = False, **settings: Any
) -> dict[str, Tensor]:
    """Loss and gradients of SAELens's training class, under our names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = getattr(sae_lens, f"{kind}TrainingSAEConfig")(d_in=D_IN, d_sae=D_SAE, dtype="float64", **settings)
        made = getattr(sae_lens, f"{kind}TrainingSAE")(config)
    called = lambda name: "b_enc" if name == "b_gate" else name
    given = dict(weights(activation).named_parameters())
    parameters = dict(made.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(given[called(name)])
    mask = dead_mask() if dead else None
    said = made.training_forward_pass(TrainStepInput(rows(), dict(coefficients), mask, 0, False))
    said.loss.backward()
    grads = {f"grad/{called(n)}": p.grad for n, p in parameters.items() if p.grad is not None}
    return {"loss": said.loss.detach(), **grads}


def test_relu_with_l1_is_saelens_standard():
    theirs = saelens("Standard", ReLU(), {"l1": 0.1})
    assert_equal(across(ours(ReLU(), Reconstruction(), L1(weight=0.1))), across(theirs))


def test_topk_is_saelens_topk():
    theirs = saelens("TopK", TopK(K), {}, k=K, rescale_acts_by_decoder_norm=False)
    assert_equal(ours(TopK(K), Reconstruction()), theirs)


def test_batchtopk_is_saelens_batchtopk():
    theirs = saelens("BatchTopK", BatchTopK(K), {}, k=float(K), rescale_acts_by_decoder_norm=False)
    assert_equal(ours(BatchTopK(K), Reconstruction()), theirs)


def test_matryoshka_is_the_mean_of_what_saelens_sums():
    widths = [10, 20, 40]
    theirs = saelens(
        "MatryoshkaBatchTopK", BatchTopK(K), {}, k=float(K), matryoshka_widths=widths,
        rescale_acts_by_decoder_norm=False,
    )  # fmt: skip
    assert_equal(ours(BatchTopK(K), NestedReconstruction(weight=3.0, shares=(0.25, 0.5, 1.0))), theirs)


JUMP = JumpReLU(bandwidth=0.5)


def test_jumprelu_with_l0_is_saelens_jumprelu():
    theirs = saelens("JumpReLU", JUMP, {"l0": 0.1}, jumprelu_bandwidth=0.5)
    assert_equal(ours(JUMP, Reconstruction(), L0(weight=0.1)), theirs)


def test_jumprelu_with_tanh_is_saelens_jumprelu():
    theirs = saelens("JumpReLU", JUMP, {"l0": 0.1}, jumprelu_bandwidth=0.5, jumprelu_sparsity_loss_mode="tanh")
    assert_equal(across(ours(JUMP, Reconstruction(), Tanh(weight=0.1))), across(theirs))


def test_the_pre_activation_loss_is_saelens_own():
    theirs = saelens(
        "JumpReLU", JUMP, {"l0": 0.1}, dead=True, jumprelu_bandwidth=0.5, pre_act_loss_coefficient=0.01
    )  # fmt: skip
    found = ours(JUMP, Reconstruction(), L0(weight=0.1), PreActivation(weight=0.01), dead=True)
    assert_equal(across(found), across(theirs))


def test_matching_pursuit_is_saelens_matching_pursuit():
    pursuit = MatchingPursuit(K, 0.3, True)
    theirs = saelens("MatchingPursuit", pursuit, {}, max_iterations=K, residual_threshold=0.3, decoder_init_norm=1.0)
    assert_equal(ours(pursuit, Reconstruction()), theirs)


GATED = (Reconstruction(), GateL1(weight=0.1), GateReconstruction())


def test_gated_is_saelens_gated_but_for_the_decoder_that_its_gate_moves():
    theirs = saelens("Gated", Gated(), {"l1": 0.1})
    assert_equal(ours(Gated(), *GATED), theirs, but=("W_dec", "b_dec"))


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Path:
    """Every case of dictionary_learning, computed there."""
    folder = tmp_path_factory.mktemp("dictionary_learning")
    cases: dict[str, Activation] = {
        "l1": ReLU(), "p_annealing": ReLU(), "gated": Gated(), "topk": TopK(K), "batchtopk": BatchTopK(K),
        "jumprelu": JUMP,
    }  # fmt: skip
    for name, activation in cases.items():
        (folder / name).mkdir()
        given = {n: p.detach().clone().contiguous() for n, p in weights(activation).named_parameters()}
        dead = {"dead": dead_mask().to(torch.uint8)} if name in ("topk", "batchtopk") else {}
        save_file({"x": rows(), **given, **dead}, folder / name / "in.safetensors")
    ask("dictionary-learning", "ask_dictionary_learning.py", "loss", folder)
    return folder


def answer(folder: Path, name: str) -> dict[str, Tensor]:
    return load_file(folder / name / "out.safetensors")


def test_relu_with_l1_is_dictionary_learnings_standard(learned: Path):
    assert_equal(ours(ReLU(), Reconstruction(), L1(weight=0.1)), answer(learned, "l1"))


def test_gated_is_dictionary_learnings_gated_in_every_gradient(learned: Path):
    assert_equal(ours(Gated(), *GATED), answer(learned, "gated"))


@pytest.mark.parametrize(("name", "activation"), [("topk", TopK(K)), ("batchtopk", BatchTopK(K))])
def test_topk_with_auxk_is_dictionary_learnings(name: str, activation: Activation, learned: Path):
    found = ours(activation, Reconstruction(), AuxK(), dead=True)
    assert_equal(found, answer(learned, name))
    assert float(found["loss"]) > float(ours(activation, Reconstruction())["loss"]), "AuxK charges something"


def test_p_annealing_is_dictionary_learnings_after_p_has_fallen(learned: Path):
    theirs = answer(learned, "p_annealing")
    of = weights(ReLU())
    term = PAnnealing(weight=0.1, begin=0.0, changes=4, p_end=0.2, memory_steps=1.0, floor=0.0)
    memory: dict[str, Tensor] = {}
    for progress in (0.0, 0.1, 0.21):  # p falls at a fifth
        now = step(of, dead=False, memory=memory, progress=progress)
        said = term(now)
    assert float(said.metrics["p"]) == pytest.approx(float(theirs.pop("p"))) == pytest.approx(0.8)
    assert float(said.metrics["scale"]) == pytest.approx(float(theirs.pop("scale"))) and said.metrics["scale"] != 1
    loss = Reconstruction()(now).loss + term.weight * said.loss
    loss.backward()
    grads = {f"grad/{n}": p.grad for n, p in of.named_parameters() if p.grad is not None}
    assert_equal({"loss": loss.detach(), **grads}, theirs)


def test_jumprelu_reconstruction_is_dictionary_learnings(learned: Path):
    """It encodes x, not x - b_dec: asked for the same with the difference in b_enc, so that of b_enc's gradient alone
    b_dec's differs. Its count of latents sees half the window (it is taken after the jump) and is left out."""
    of = weights(JUMP)
    x = rows()
    with torch.no_grad():
        of.b_enc.add_(of.b_dec @ of.W_enc)
    Reconstruction()(step(of, dead=False)).loss.backward()
    theirs = answer(learned, "jumprelu")
    loss = (of(x) - x).square().sum().detach() / BATCH
    assert float(loss) == pytest.approx(float(theirs["loss"]))
    for name in ("b_enc", "W_dec", "threshold"):
        torch.testing.assert_close(getattr(of, name).grad, theirs[f"grad/{name}"], rtol=1e-5, atol=1e-6)


def test_sparsify_trains_topk_on_the_same_gradients_scaled_by_the_variance(tmp_path: Path):
    of = weights(TopK(K))
    given = {n: p.detach().clone().contiguous() for n, p in of.named_parameters()}
    save_file({"x": rows(), **given, "dead": dead_mask().to(torch.uint8)}, tmp_path / "in.safetensors")
    ask("sparsify", "ask_sparsify.py", "loss", tmp_path)
    theirs = load_file(tmp_path / "out.safetensors")
    x = rows()
    variance = (x - x.mean(0)).square().sum()
    scale = BATCH / variance
    found = ours(TopK(K), Reconstruction())
    torch.testing.assert_close(scale * found["loss"], theirs["fvu"])
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        torch.testing.assert_close(scale * found[f"grad/{name}"], theirs[f"fvu/{name}"], rtol=1e-8, atol=1e-10)
    assert_auxk_is_sparsifys_on_the_decoder(of, theirs, float(variance))


def assert_auxk_is_sparsifys_on_the_decoder(of: Dictionary, theirs: Mapping[str, Tensor], variance: float) -> None:
    """It divides by the variance of x where ours divides by the error's, and by k_aux over the dead; its fused encoder
    passes no gradient of AuxK on, so dead readers learn nothing from it there."""
    now = step(of, dead=True)
    error = (now.x - now.x_hat).detach()
    scale = (error - error.mean(0)).square().sum() / variance * len(DEAD) / (D_IN // 2)
    loss = scale * AuxK()(now).loss
    torch.testing.assert_close(loss, theirs["auxk"])
    grads = torch.autograd.grad(loss, [of.W_dec, of.W_enc])
    torch.testing.assert_close(grads[0], theirs["auxk/W_dec"], rtol=1e-8, atol=1e-10)
    assert (theirs["auxk/W_enc"] == 0).all()
