"""Temporal contrast on the first latents: two tokens of a document should know each other (T-SAE, arXiv 2511.05541).

    1/2 [ CE(S, identity) + CE(S', identity) ],    S_ab = F(t_a) . F(t'_b),    F: the first `share` of the latents

t' is any earlier token of t's document. As released, products are not normalised. Other tokens of the same document
would be wrong answers, which pulls a topic apart: here such pairs are left out. T-SAE trains nested prefixes of the
same shares too: NestedReconstruction(shares=(0.2, 1)). Both views are rows of the batch: no second encoding.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from unbraid.config.settings import ShareAboveZero, TwoOrMore
from unbraid.dictionary.codes import Codes
from unbraid.objective.objective import Family, Reads, Step, Term, TermOutput
from unbraid.system.devices import sent
from unbraid.terms.statistics.pair_sums import rows_of
from unbraid.terms.statistics.token_pairs import earlier_tokens


@dataclass(frozen=True, kw_only=True)
class Temporal(Term):
    weight: float = 0.1  # alpha of the released code
    share: ShareAboveZero = 0.2
    """Share of the latents, the first ones, that the contrast is on."""
    pairs: TwoOrMore = 512
    """Pairs contrasted with one another each time, at most; cost grows with the square."""
    reads: ClassVar[tuple[Reads, ...]] = ("codes", "documents")
    family: ClassVar[Family] = "weak supervision"

    def __call__(self, step: Step) -> TermOutput:
        later, earlier = earlier_tokens(step.batch, step.rng, nearest=False)
        chosen = sent(torch.randperm(len(later), generator=step.rng)[: self.pairs], later.device)
        if len(chosen) < 2:
            return step.no_loss()
        later, earlier = later[chosen], earlier[chosen]
        width = max(1, round(self.share * step.z.d_sae))
        now, then = (prefix(step.z, rows, width) for rows in (later, earlier))
        scores = now @ then.T
        documents = step.batch.documents[later]
        same = documents[:, None] == documents[None, :]
        same.fill_diagonal_(False)
        scores = scores.masked_fill(same, -torch.inf)
        target = torch.arange(len(chosen), device=scores.device)
        loss = (cross_entropy(scores, target) + cross_entropy(scores.T, target)) / 2
        return TermOutput(loss, {"found": (scores.argmax(1) == target).to(loss.dtype).mean()})


def prefix(z: Codes, rows: Int[Tensor, " pair"], width: int) -> Float[Tensor, "pair width"]:
    """The first `width` latents of some rows, dense."""
    chosen, place = rows.unique(return_inverse=True)
    first = rows_of(z, chosen).restricted(torch.arange(width, device=rows.device))
    return first.table(first.values[:, 0]).index_select(1, place).T
