"""A budget of nats a token for which latents are open: beta-VAE's annealed KL, with Bernoulli gates.

    | KL - C |,   KL = sum_i q_i log(q_i / pi_i) + (1 - q_i) log((1 - q_i) / (1 - pi_i)),
    q = sigmoid((pre - theta) / temperature)

After Higgins et al. 2017 and Burgess et al. 2018. pi are moving firing rates, without gradient. Burgess et al. raise C
from 0; here it falls, from 2 C_max to C_max, for a budget that starts at nothing kills latents. Unless given, C_max =
sum_i h(pi_i), h the entropy of a gate, at the first use: what hard gates with those rates cost on average, whatever
they are the gates of.

The sum is over all latents. Active ones are summed over the whole batch, every time. Inactive ones count as closed (q =
0, which costs -log(1 - pi)); what they cost besides that is measured on a few rows, dense, now and then, and remembered
in between. Gradients of those rows count for the times in between, so they are unbiased; they alone open latents.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from unbraid.config.settings import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Share, ShareBelowOne
from unbraid.objective.objective import Family, Step, Term, TermOutput
from unbraid.terms.statistics.firing_averages import averaged
from unbraid.terms.statistics.pair_sums import rows_of

FLOOR = 1e-5
"""Smallest firing rate: that of a dead latent must not make opening it infinitely dear."""


@dataclass(frozen=True, kw_only=True)
class GateKl(Term):
    temperature: PositiveFloat = 0.1
    """Softness of a gate, in units of (normalised) pre-activations."""
    capacity: NonNegativeFloat = 0.0
    """C_max, nats a token; 0: the entropy of the gates at the first use."""
    anneal: Share = 0.5
    """Share of training over which the budget falls to C_max."""
    rows: NonNegativeInt = 16
    """Rows on which inactive latents are measured; 0 counts them as closed, and nothing then opens a latent."""
    apart: PositiveInt = 4
    """Applications from one such measurement to the next."""
    decay: ShareBelowOne = 0.99
    """Of the moving average of firing rates."""
    family: ClassVar[Family] = "sparsity"

    def only_in_training(self) -> str:
        return (
            "" if self.capacity > 0 else "its budget is what gates cost at its first use in training, which is not kept"
        )

    def __call__(self, step: Step) -> TermOutput:
        average, _ = averaged(step.z, step.memory, self.decay)
        rates = average.rate.clamp(FLOOR, 1 - FLOOR)
        budget = self._budget(step, rates)
        kl = self._active(step, rates) + self._remembered(step, rates)
        return TermOutput((kl - budget).abs(), {"nats": kl, "budget": budget})

    def _budget(self, step: Step, rates: Float[Tensor, " d_sae"]) -> Float[Tensor, ""]:
        if "capacity" not in step.memory:
            step.memory["capacity"] = rates.new_tensor(self.capacity) if self.capacity > 0 else entropies(rates).sum()
        left = max(0.0, 1 - step.progress / self.anneal) if self.anneal > 0 else 0.0
        return step.memory["capacity"] * (1 + left)

    def _active(self, step: Step, rates: Float[Tensor, " d_sae"]) -> Float[Tensor, ""]:
        """Nats a token were all inactive latents closed."""
        z, closed = step.z, -torch.log1p(-rates)
        _, rows, latents = z.entries()
        pre = z.pre[z.values.detach() != 0]
        logits = (pre - self._opens(step, rows, latents)) / self.temperature
        return (gate_kl(logits, rates[latents]) - closed[latents]).sum() / z.batch + closed.sum()

    def _opens(self, step: Step, rows: Int[Tensor, " pair"], latents: Int[Tensor, " pair"]) -> Float[Tensor, " pair"]:
        """Return the pre-activation at which each gate opens."""
        return step.dictionary.activation.thresholds(step.dictionary, step.z, rows, latents)

    def _remembered(self, step: Step, rates: Float[Tensor, " d_sae"]) -> Float[Tensor, ""]:
        """Nats that inactive latents cost besides being closed, as last measured; with gradient when measured now."""
        if not self.rows:
            return step.x.new_zeros(())
        if (int(step.memory["seen"]) - 1) % self.apart and "inactive" in step.memory:
            return step.memory["inactive"]
        now = self._inactive(step, rates)
        step.memory["inactive"] = now.detach()
        return now.detach() + self.apart * (now - now.detach())

    def _inactive(self, step: Step, rates: Float[Tensor, " d_sae"]) -> Float[Tensor, ""]:
        order = step.sampled_rows(self.rows)
        pre = step.dictionary.pre_activations(step.x.index_select(0, order))
        latents = torch.arange(step.z.d_sae, device=order.device)
        opens = self._opens(step, order.repeat_interleave(len(latents)), latents.repeat(len(order))).view_as(pre)
        logits = (pre - opens) / self.temperature
        more = gate_kl(logits, rates) + torch.log1p(-rates)
        active = rows_of(step.z, order)
        return more.index_put((active.rows, active.places), more.new_zeros(())).sum() / len(order)


def gate_kl(logits: Float[Tensor, "*entry"], rates: Float[Tensor, " *last"]) -> Float[Tensor, "*entry"]:
    """KL of a gate open with probability sigmoid(logit) from one open with probability `rate`."""
    opened, closed = logsigmoid(logits), logsigmoid(-logits)
    return opened.exp() * (opened - rates.log()) + closed.exp() * (closed - torch.log1p(-rates))


def entropies(rates: Float[Tensor, " d_sae"]) -> Float[Tensor, " d_sae"]:
    """Nats of gates that are open with these probabilities."""
    return -rates * rates.log() - (1 - rates) * torch.log1p(-rates)
