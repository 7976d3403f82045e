"""Stitching: of a dictionary's latents, how many are new compared with one of half the width, and how many restate?

    novel = share of live latents whose largest cosine with an atom of the narrower dictionary is below 0.7

Novel latents hold what the narrower dictionary missed, reconstruction latents what it had, split more finely (Leask et
al. 2025, arXiv 2502.04878). Runs of one seed start alike: a narrower dictionary's first atoms are the first half of a
wider one's, so without any training half of the latents count as restated.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid import seeding
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.encoding import moved
from unbraid.evals.shared.evaluation import NotApplicable, Score
from unbraid.evals.shared.observe import ROWS
from unbraid.metrics.matching import cosines
from unbraid.runs.run import Run
from unbraid.runs.widths import other_widths, width
from unbraid.sources.stream import held_out

VERSION = 1
DEFINITIONS = {
    "novel": "share of live latents whose largest cosine with an atom of the run of half the width is below 0.7; "
    "kind=chance: untrained atoms of one seed, half of which are shared; NaN without live latents",
    "restated": "share of live latents at 0.7 or above: 1 - novel",
}
CLOSE = 0.7
"""Least cosine at which a latent restates one of the narrower dictionary."""
CHUNK = 2048


def stitching(run: Run, halves: Sequence[Run]) -> list[Score]:
    """Score the wider of two runs. Raises NotApplicable when the folder holds no run of half the width."""
    if not halves:
        raise NotApplicable(
            f"no run in the same folder differs only in width and has half of this one's {width(run)} latents"
        )
    dictionary = run.dictionary()
    (live,) = torch.nonzero(firings(dictionary, held_out(run.source, ROWS).x), as_tuple=True)
    measured = novel(dictionary.W_dec[live], halves[0].dictionary().W_dec)
    atoms = torch.randn(dictionary.W_dec.shape, generator=seeding.stream(0, "stitching/chance"))
    by_chance = novel(atoms, atoms[: width(halves[0])])
    return [
        Score(metric="novel", value=measured, better="higher", kind="measured"),
        Score(metric="novel", value=by_chance, better="higher", kind="chance"),
        Score(metric="restated", value=1 - measured, better="lower", kind="measured"),
        Score(metric="restated", value=1 - by_chance, better="lower", kind="chance"),
    ]


def peers(run: Run) -> list[Run]:
    """Return the sibling run of half the width, if there is one."""
    return [other for other in other_widths(run) if 2 * width(other) == width(run)][:1]


def novel(atoms: Float[Tensor, "latents d_in"], narrower: Float[Tensor, "half d_in"]) -> float:
    """Return the share of atoms that no atom of the narrower dictionary is close to; NaN when there are none."""
    closest = [cosines(part, narrower).amax(1) for part in atoms.split(CHUNK)]
    return float((torch.cat(closest) < CLOSE).double().mean())


@torch.no_grad()
def firings(dictionary: Dictionary, x: Float[Tensor, "batch d_in"]) -> Int[Tensor, " d_sae"]:
    """Count the rows in which each latent fires."""
    dictionary = moved(dictionary, x.device)
    total = torch.zeros(dictionary.d_sae, dtype=torch.long)
    for part in x.split(CHUNK):
        total += dictionary.codes(part).firings().cpu()
    return total
