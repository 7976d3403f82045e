"""Control: reconstruct inputs whose causes were partly replaced at random (masked regularisation, arXiv 2604.06495).

    mean |x' - x_hat(x')|^2,    x': activations of text with a share of its tokens replaced, or of a world's factors

It breaks up what only ever occurs together, which absorption lives on, and asks nothing of latents or atoms: what a
disentangling term must beat. Costs an encoding of these rows, and on a language model the passes that make them.
"""

from dataclasses import dataclass
from typing import ClassVar

from unbraid.config.settings import Share
from unbraid.objective.objective import Family, Reads, Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class Masked(Term):
    share: Share = 0.15
    """Of tokens, or of active factors, that are replaced."""
    reads: ClassVar[tuple[Reads, ...]] = ("corrupted",)
    family: ClassVar[Family] = "control"

    def __call__(self, step: Step) -> TermOutput:
        x = step.corrupted(self.share)
        x_hat = step.dictionary.decode(step.dictionary.unchecked_codes(x))
        return TermOutput((x - x_hat).square().sum() / len(x))
