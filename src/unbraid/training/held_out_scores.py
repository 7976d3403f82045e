"""Held-out scores while training: reconstruction, sparsity and dead latents on rows that training never sees.

    heldout/fvu     squared error over squared distance from the mean, of the rows together, before any whitening
    heldout/l0      active latents a row, on average
    heldout/dead    share of latents that fire on none of the rows

The dictionary is scored as it will be used (`Dictionary.for_inference`): BatchTopK with a threshold, calibrated on
training rows.
Nothing random is drawn and nothing is written to the dictionary, so training is the same with and without scores.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.normaliser import Normaliser
from unbraid.sources.base import Source, few_rows

ROWS = 4096
"""Held-out rows that are scored at most, and training rows that a threshold is calibrated on."""


class HeldOutScores:
    """Scores of the dictionaries of a cohort on the same rows, which are read when they are first needed."""

    def __init__(self, source: Source, sample: Float[Tensor, "row d_in"], device: str):
        """`sample`: raw training activations to calibrate on."""
        self._source, self._device = source, device
        self._sample = sample[:ROWS].to(device)
        self._rows: Tensor | None = None
        self._none = False

    def __call__(self, dictionary: Dictionary, normaliser: Normaliser) -> dict[str, Tensor]:
        """Scores by the name they are logged under; empty where the source has no held-out rows."""
        rows = self._read()
        return {} if rows is None else score(dictionary, normaliser, rows, self._sample)

    def _read(self) -> Tensor | None:
        if self._rows is None and not self._none:
            self._none = not has_held_out(self._source)
            if not self._none:
                self._rows = self._source.held_out_sample(ROWS).to(self._device)
        return self._rows


def has_held_out(source: Source) -> bool:
    """True when there are enough held-out rows to score on. Reads no activations."""
    try:
        return not few_rows(source)
    except ValueError:  # a cache without an eval split
        return False


@torch.no_grad()
def score(
    dictionary: Dictionary, normaliser: Normaliser, rows: Float[Tensor, "row d_in"], sample: Float[Tensor, "some d_in"]
) -> dict[str, Tensor]:
    """FVU, L0 and share of dead latents. `rows`, `sample`: raw activations, held out and to calibrate on."""
    used, x = dictionary.for_inference(normaliser(sample)), normaliser(rows)
    z = used.codes(x)
    missed, away = (normaliser.unwhitened(part) for part in (used.decode(z) - x, x - x.mean(0)))
    error, spread = missed.square().sum(), away.square().sum()
    return {
        "heldout/fvu": error / spread.clamp_min(torch.finfo(x.dtype).tiny),
        "heldout/l0": used.shards.sum(z.l0()),
        "heldout/dead": used.shards.mean((z.firings() == 0).float().mean()),
    }
