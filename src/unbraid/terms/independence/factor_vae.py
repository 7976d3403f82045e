"""FactorVAE (Kim and Mnih 2018): total correlation of a block of latents, by a discriminator that learns alongside.

    E logit(z),   logit ~ log p(z) / prod_i p(z_i): codes against codes whose latents come from different rows

The discriminator (`statistics.discriminator`) reads [s, log(1 + z)], s = 1[z > 0], of one block of the latents that
fire most at the first use; z is in units of its rms when active, s has no gradient. Each time the term uses it as it
is, then it learns from the same rows. Ratios beyond what it can learn saturate it: this member's training stops then,
rather than go on with a gradient that says nothing. Its slope is bounded, so it understates what it finds. Latents that
are chosen against one another, as by TopK, are refused: mixed rows then have another number of active latents, and it
would learn to count.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.config.settings import PositiveFloat, PositiveInt, ShareBelowOne, TwoOrMore
from unbraid.dictionary.activations.base import Activation
from unbraid.objective.objective import Family, Step, Term, TermOutput
from unbraid.system.devices import sent
from unbraid.terms.statistics.discriminator import fresh, logits, trained
from unbraid.terms.statistics.firing_averages import averaged
from unbraid.terms.statistics.pair_sums import rows_of

NAME = "discriminator."
CERTAIN = 0.95
"""Accuracy above which the discriminator is saturated."""


@dataclass(frozen=True, kw_only=True)
class FactorVae(Term):
    start: float = 0.1
    every: int = 2
    rows: TwoOrMore = 512
    """Rows used each time, half of them mixed."""
    block: PositiveInt = 128
    """Latents looked at, the same ones from the first use on."""
    lr: PositiveFloat = 1e-4
    """The discriminator's learning rate (Adam)."""
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.5, 0.9)
    """The discriminator's (Adam)."""
    patience: PositiveInt = 500
    """Applications in a row with a saturated discriminator after which the member's training stops."""
    decay: ShareBelowOne = 0.99
    """Of the moving averages that latents are scaled by."""
    family: ClassVar[Family] = "independence"

    def check_activation(self, activation: Activation) -> None:
        if activation.same_l0:
            raise ValueError(
                "factor_vae would learn that TopK rows have k active latents and mixed rows have not, and nothing "
                "else: use --dictionary.activation BatchTopK or JumpReLU, or the term total_correlation"
            )

    def only_in_training(self) -> str:
        return "its discriminator learns while the dictionary does and is not kept"

    def __call__(self, step: Step) -> TermOutput:
        self.check_activation(step.dictionary.activation)
        memory = step.memory
        average, _ = averaged(step.z, memory, self.decay)
        if "block" not in memory:
            memory["block"] = average.rate.argsort(descending=True, stable=True)[: self.block]
        inputs = block_inputs(step, memory["block"], average.rms().clamp_min(1e-12), self.rows)
        codes, mixed = inputs[: len(inputs) // 2], shuffled(inputs[len(inputs) // 2 :].detach(), step.rng)
        if not len(codes):
            return step.no_loss()
        # Copied: a tensor read from a checkpoint may start anywhere, and matrix products round by where it starts.
        held = {name.removeprefix(NAME): value.clone() for name, value in memory.items() if name.startswith(NAME)}
        state = held or fresh(inputs.shape[1], inputs, step.rng)
        found = logits(state, codes)
        with torch.no_grad():
            right = torch.cat([found > 0, logits(state, mixed) < 0]).to(found).mean()
        self._stop_when_certain(memory, float(right))
        state = trained(state, codes.detach(), mixed, self.lr, self.betas)
        memory |= {NAME + name: value for name, value in state.items()}
        return TermOutput(found.mean(), {"accuracy": right})

    def _stop_when_certain(self, memory: dict[str, Tensor], accuracy: float) -> None:
        certain = int(memory.get("certain", 0)) + 1 if accuracy > CERTAIN else 0
        memory["certain"] = torch.tensor(certain)
        if certain >= self.patience:
            raise ValueError(
                f"the discriminator of factor_vae was right on over {CERTAIN:.0%} of rows {certain} times running: it "
                "cannot measure how much these latents depend on one another; give the term a smaller block or more "
                "weight, or use the term total_correlation"
            )


def block_inputs(
    step: Step, block: Int[Tensor, " block"], unit: Float[Tensor, " d_sae"], rows: int
) -> Float[Tensor, "rows inputs"]:
    """[s, log(1 + z / unit)] of the block, in random rows."""
    found = rows_of(step.z, step.sampled_rows(rows)).restricted(block)
    values = torch.log1p(found.values[:, 0].clamp_min(0) / unit[found.latents])
    gates = torch.ones_like(values.detach())
    return torch.cat([found.table(gates), found.table(values)]).T.contiguous()


def shuffled(inputs: Float[Tensor, "rows inputs"], rng: torch.Generator) -> Float[Tensor, "rows inputs"]:
    """Each latent, gate and value together, from rows in an order of its own."""
    rows, width = inputs.shape[0], inputs.shape[1] // 2
    order = sent(torch.rand(rows, width, generator=rng).argsort(0), inputs.device)
    return inputs.gather(0, order.repeat(1, 2))
