"""Dead latents start anew at rows the dictionary explains badly (Bricken et al. 2023).

    row r is drawn with probability ~ |x_r - x_hat_r|^4;   atom = (x_r - b_dec) / |x_r - b_dec|
    reader = gain * mean |reader of the living| * atom;    b_enc = 0;   threshold: gain * median of the living

The paper's atom is x_r without centring; our encoder reads x - b_dec. Thresholds are ours: the paper has none.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unbraid.dictionary.dictionary import Dictionary

GAIN = 0.2
"""A new latent's reader, as a share of the living ones': small, so that it changes little at first (the paper's)."""


@torch.no_grad()
def resample(
    dictionary: Dictionary, x: Float[Tensor, "batch d_in"], dead: Bool[Tensor, " d_sae"], rng: torch.Generator
) -> Int[Tensor, " new"]:
    """Restart the dead latents, as many as there are rows with an error; which."""
    error = (x - dictionary.decode(dictionary.unchecked_codes(x))).square().sum(1)
    count = min(int(dead.sum()), int((error > 0).sum()))
    chosen = dead.nonzero().squeeze(1)[:count]
    if not count:
        return chosen
    rows = torch.multinomial(error.square().double().cpu(), count, generator=rng).to(x.device)
    centred = x[rows] - dictionary.b_dec
    atoms = centred / torch.linalg.vector_norm(centred, dim=1, keepdim=True).clamp_min(1e-12)
    living = ~dead
    size = torch.linalg.vector_norm(dictionary.W_enc[:, living], dim=0).mean() if bool(living.any()) else 1.0
    dictionary.W_dec[chosen] = atoms
    dictionary.W_enc[:, chosen] = GAIN * size * atoms.T
    dictionary.b_enc[chosen] = 0.0
    if bool(living.any()):
        dictionary.threshold[chosen] = GAIN * dictionary.threshold[living].median()
    for name in dictionary.activation.extra_parameters:
        getattr(dictionary, name).data[chosen] = 0.0
    dictionary.tie()
    return chosen


@torch.no_grad()
def forget(moments: Mapping[str, Tensor], latents: Int[Tensor, " new"]) -> None:
    """Zero the rows of these latents: of an optimiser's moments of a parameter, or what a term remembers."""
    for moment in moments.values():
        if moment.ndim:  # not the count of steps
            moment[latents] = 0.0
