"""The next token should be as likely where activations are reconstructed: KL fine-tuning at the end of training.

    mean over kept tokens of  KL( p(next | x) || p(next | x_hat) ),    x_hat in place of x at every kept token

Karvonen 2025 (arXiv 2503.17272): a few percent of training with it close 20 to 50 % of the gap in cross-entropy. It
runs for the last tenth. The paper rescales the KL to the size of the reconstruction; here `gradient_ratio` makes their
gradients equal. Only a language model predicts tokens. The error of a layer instead: `downstream_reconstruction`.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch.nn.functional import kl_div

from unbraid.objective.objective import Family, Reads, Step, Term, TermOutput
from unbraid.sources.base import Predictions


@dataclass(frozen=True, kw_only=True)
class NextTokenKl(Term):
    start: float = 0.9
    every: int = 2
    reads: ClassVar[tuple[Reads, ...]] = ("contexts", "predictions")
    family: ClassVar[Family] = "causal"

    def __call__(self, step: Step) -> TermOutput:
        contexts = step.contexts()
        if not bool(contexts.mask.any()):
            return step.no_loss()
        predictions = Predictions.of(contexts)
        rows = contexts.acts[contexts.mask]
        codes = step.dictionary.unchecked_codes(step.normalise(rows.to(step.x)))
        spliced = contexts.acts.clone()
        spliced[contexts.mask] = step.restore(step.dictionary.decode(codes)).to(spliced)
        found = predictions.logits(spliced).log_softmax(-1)
        return TermOutput(kl_div(found, predictions.clean, log_target=True, reduction="sum") / len(found))
