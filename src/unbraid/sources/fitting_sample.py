"""The fitting sample: the rows that initialisation, the normaliser and BatchTopK's threshold are fitted on."""

import torch
from torch import Tensor

from unbraid import seeding
from unbraid.sources.base import Source
from unbraid.sources.first_block import first_block
from unbraid.sources.stream import check_finite

SAMPLE_ROWS = 32_768
"""Rows the normaliser, initialisations and BatchTopK's threshold are fitted on."""


def fitting_sample(source: Source, seed: int, tokens: int = 0) -> Tensor:
    """Return raw activations [row, d_in] of the first training block, in random order, on the CPU.

    Raises ValueError where the norm filter leaves out so much of that block that `tokens` rows will not be reached.
    """
    block = first_block(source, seed)
    if block is None or len(block.rows) < 2:
        raise ValueError("the source has no training data: give it more text")
    left = source.available("train") * len(block.rows) / (len(block.rows) + block.filtered)
    if block.filtered and left < tokens:
        raise ValueError(
            f"{tokens:,} tokens are needed and about {left:,.0f} are left: {block.filtered:,} of the first "
            f"{len(block.rows) + block.filtered:,} exceed the norm that --source.max-norm-ratio allows; give more "
            "text, lower --training.tokens, or allow more passes with --source.epochs"
        )
    order = torch.randperm(len(block.rows), generator=seeding.stream(seed, "sample"))
    sample = block.rows.x.cpu()[order[:SAMPLE_ROWS]]
    check_finite(sample, "the first block of the train split")
    return sample
