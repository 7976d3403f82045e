"""Scores of reconstruction and sparsity, from activations and their codes.

FVU = sum |x - x_hat|^2 / sum |x - mean x|^2        (a mean predictor scores explained variance 0)
"""

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_array
from torch import Tensor

from unbraid.dictionary.dictionary import Dictionary
from unbraid.evals.shared.evaluation import Score
from unbraid.metrics.sparse_counts import active_rows

CHUNK = 2048
"""Rows reconstructed at once."""


def reconstruction(dictionary: Dictionary, x: Float[Tensor, "batch d_in"], codes: csr_array) -> list[Score]:
    """Score the reconstruction of activations from their codes, as `code_matrix` gives them."""
    x, n = x.cpu(), len(x)
    total = float((x.double() - x.double().mean(0)).square().sum())
    atoms, bias = (weights.detach().float().cpu() for weights in (dictionary.unit_atoms(), dictionary.b_dec))
    error = cosine = ratio = 0.0
    there = 0
    for start in range(0, n, CHUNK):
        part = x[start : start + CHUNK]
        x_hat = torch.from_numpy(csr_array(codes[start : start + CHUNK], dtype=np.float32) @ atoms.numpy()) + bias
        error += float((x_hat - part).double().square().sum())
        some = part.norm(dim=1) > 0  # a world without noise has rows of 0, which have no direction
        there += int(some.sum())
        cosine += float(torch.nn.functional.cosine_similarity(part[some], x_hat[some], dim=1).sum())
        ratio += float((x_hat[some].norm(dim=1) / part[some].norm(dim=1)).sum())
    scale = (total / n) ** 0.5
    share = lambda sum_over_rows: sum_over_rows / there if there else float("nan")
    fvu = error / total if total > 0 else float("nan")
    l1 = float(np.abs(codes.data).sum()) / n / scale if scale > 0 else float("nan")
    return [
        Score(metric="fvu", value=fvu, better="lower"),
        Score(metric="explained_variance", value=1 - fvu, better="higher"),
        Score(metric="l0", value=codes.nnz / n, better="neither"),
        Score(metric="l1", value=l1, better="neither"),
        Score(metric="cosine", value=share(cosine), better="higher"),
        Score(metric="l2_ratio", value=share(ratio), better="neither"),
        Score(metric="alive", value=float((active_rows(codes) > 0).mean()), better="higher"),
    ]
