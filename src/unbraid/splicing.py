"""Held-out windows that activations are replaced in, and what a language model predicts there."""

from collections.abc import Iterator

from jaxtyping import Float, Int
from torch import Tensor

from unbraid.source import Source, few_rows
from unbraid.sources.language_model import LanguageModel
from unbraid.text import Windows

WINDOWS = 64
"""Held-out windows spliced, at most."""


def lacks_windows(source: Source) -> str:
    """What evals that read held-out rows, and splice where there is text, lack of a source; empty when nothing."""
    if source.predicting("eval") < 1:
        rows, windows = source.available("eval"), source.sequences("eval")
        return (
            f"the eval split holds {rows:,.0f} tokens in {windows:,.0f} windows, none with a next token to predict; "
            f"{source.more_held_out}"
        )
    return few_rows(source)


def eval_windows(model: LanguageModel) -> Iterator[Windows]:
    """A few held-out windows at a time."""
    count = max(1, min(WINDOWS, int(min(model.available("eval"), 1e9) // model.context)))
    windows = model.windows(count, split="eval", seed=0)
    for start in range(0, len(windows), 8):
        yield windows[start : start + 8]


def predicted(windows: Windows, logits: Tensor) -> tuple[Float[Tensor, "token vocabulary"], Int[Tensor, " token"]]:
    """Log-probabilities and true next tokens, where a dictionary sees the token predicted from."""
    counted = windows.keep[:, :-1] & windows.attention[:, 1:]
    return logits[:, :-1][counted].double().log_softmax(-1), windows.ids[:, 1:][counted]
