"""Fidelity: how well a dictionary explains activations, how sparsely, and the loss from splicing it into the model.

    FVU = sum |x - x_hat|^2 / sum |x - mean x|^2        (a mean predictor scores explained variance 0)
    loss recovered = (CE_ablated - CE_spliced) / (CE_ablated - CE_clean)

All on held-out rows of the run's source. Codes may be signed: a latent is active when it is not zero.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import nll_loss

from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.encoding import moved
from unbraid.evals.shared.evaluation import Score
from unbraid.evals.shared.observe import ROWS, held_out_codes
from unbraid.evals.shared.reconstruction import reconstruction
from unbraid.runs.run import Run
from unbraid.sources.behind import model_to_splice
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.splicing import (
    TOKENS,
    Pass,
    counted,
    lacks_windows,
    passes,
    predicted,
    scored_windows,
)
from unbraid.sources.stream import held_out
from unbraid.system.notices import log

VERSION = 3
DEFINITIONS = {
    "fvu": "fraction of variance unexplained: sum |x - x_hat|^2 / sum |x - mean x|^2 on held-out rows",
    "explained_variance": "1 - FVU; a predictor of the mean scores 0",
    "l0": "mean number of non-zero latents a token",
    "l1": "mean sum of |latent| a token, over the root of the total variance",
    "cosine": "mean cosine between x and its reconstruction, over rows that are not 0",
    "l2_ratio": "mean |x_hat| / |x|, over rows that are not 0; below 1 is shrinkage",
    "alive": "share of latents that fire at least once on the held-out rows",
    "max_decoder_cosine": "mean over atoms of the largest |cosine| with another atom",
    "ce_clean": "cross-entropy of the model as it is, nats a token",
    "ce_spliced": "cross-entropy with the reconstruction in place of the activations, nats a token",
    "kl": "mean KL divergence from the model's next-token distribution to the spliced one, nats",
    "ce_tokens": "held-out tokens that the losses, the KL divergence and the loss recovered are taken over: "
    f"{TOKENS:,} or a few more, or all that the eval split holds",
    "loss_recovered": "share of the cross-entropy lost by ablation (zero or mean) that the reconstruction regains",
    "loss_recovered_se": "standard error of the loss recovered over documents; two runs of one source are scored on "
    "the same tokens, so their difference is known better than this",
}
CLEAN_BYTES = 256 * 2**20
"""Largest size, in bytes, of the unmodified model's predictions that are kept for the next run of the same source."""

lacks = lacks_windows


@torch.no_grad()
def fidelity(run: Run) -> list[Score]:
    """Score a run's reconstruction, sparsity and splicing."""
    dictionary = run.dictionary()
    scores = reconstruction(dictionary, held_out(run.source, ROWS).x, held_out_codes(dictionary, run.source, ROWS))
    scores.append(Score(metric="max_decoder_cosine", value=max_decoder_cosine(dictionary.W_dec), better="lower"))
    if (model := model_to_splice(run.source)) is not None:
        scores += splicing(dictionary, model)
    return scores


def max_decoder_cosine(atoms: Tensor, rows: int = 1024) -> float:
    """Return the mean over atoms of the largest |cosine| with another, a few rows of the Gram matrix at a time."""
    unit = atoms / atoms.norm(dim=1, keepdim=True).clamp_min(1e-12)
    if len(unit) < 2:
        return float("nan")
    largest = []
    for start in range(0, len(unit), rows):
        cosines = (unit[start : start + rows] @ unit.T).abs_()
        own = torch.arange(len(cosines))
        cosines[own, own + start] = 0.0
        largest.append(cosines.amax(1))
    return float(torch.cat(largest).mean())


def splicing(dictionary: Dictionary, model: LanguageModel) -> list[Score]:
    """Score the next-token loss with the activations replaced at the tokens on which a dictionary is trained."""
    clean, after, divergence = clean_pass(model), [], []
    parts = passes(model, scored_windows(model))
    dictionary = moved(dictionary, parts[0].acts.device)
    for number, part in enumerate(parts):
        before = clean.predictions(number, part, model)
        spliced, targets = part.predicted(model, dictionary(part.rows))
        after.append(nll_loss(spliced, targets, reduction="none").cpu())
        divergence.append((before.exp() * (before - spliced)).sum(1).cpu())
    losses = torch.cat(after)
    return [
        Score(metric="ce_clean", value=float(clean.losses.mean()), better="neither"),
        Score(metric="ce_spliced", value=float(losses.mean()), better="lower"),
        Score(metric="kl", value=float(torch.cat(divergence).mean()), better="lower"),
        Score(metric="ce_tokens", value=float(len(losses)), better="neither"),
        *(row for name, loss in ablated(model).items() for row in recovered(name, clean, losses, loss)),
    ]


def recovered(against: str, clean: "Clean", spliced: Tensor, ablated: Tensor) -> list[Score]:
    """Return the loss recovered, and its standard error over documents."""
    gained, lost = (per_document(ablated - losses, clean.documents) for losses in (spliced, clean.losses))
    share = float(gained.sum() / lost.sum())
    params = {"against": against}
    return [
        Score(metric="loss_recovered", value=share, better="higher", params=params),
        Score(metric="loss_recovered_se", value=ratio_error(gained, lost), better="neither", params=params),
    ]


def per_document(values: Float[Tensor, " token"], documents: Int[Tensor, " token"]) -> Float[Tensor, " document"]:
    """Return the sums over the tokens of each document."""
    known, which = documents.unique(return_inverse=True)
    return torch.zeros(len(known), dtype=values.dtype).index_add_(0, which, values)


def ratio_error(above: Float[Tensor, " n"], below: Float[Tensor, " n"]) -> float:
    """Return the standard error of sum(above) / sum(below) over independent pairs, to first order; NaN for one pair."""
    count = len(above)
    if count < 2:
        return float("nan")
    residual = above - above.sum() / below.sum() * below
    return float((count / (count - 1) * residual.square().sum()).sqrt() / below.sum().abs())


@dataclass(frozen=True, eq=False)
class Clean:
    """The predictions of the unmodified model on the windows that are scored."""

    losses: Float[Tensor, " token"]
    documents: Int[Tensor, " token"]
    kept: tuple[Tensor, ...]
    """Log-probabilities of each pass; empty when they would take more than `CLEAN_BYTES`."""

    def predictions(self, number: int, part: Pass, model: LanguageModel) -> Float[Tensor, "token vocabulary"]:
        """Return the log-probabilities of pass `number`."""
        if self.kept:
            return self.kept[number].double()
        return predicted(part.windows, model.logits_from(part.windows, part.acts))[0]


@lru_cache(maxsize=1)
@torch.no_grad()
def clean_pass(model: LanguageModel) -> Clean:
    """Run the unmodified model, once per source."""
    losses, documents, kept, size = [], [], [], 0
    for part in passes(model, scored_windows(model)):
        windows = part.windows
        before, targets = predicted(windows, model.logits_from(windows, part.acts))
        losses.append(nll_loss(before, targets, reduction="none").cpu())
        documents.append(windows.documents[:, None].expand(-1, windows.ids.shape[1] - 1)[counted(windows)].cpu())
        size += 4 * before.numel()
        kept = [*kept, before.float()] if size <= CLEAN_BYTES else []
    found = Clean(torch.cat(losses), torch.cat(documents), tuple(kept) if size <= CLEAN_BYTES else ())
    if len(found.losses) < TOKENS:
        log.info(
            "losses are taken over %s tokens, not %s: the eval split holds no more with a next token to predict; %s",
            f"{len(found.losses):,}", f"{TOKENS:,}", model.more_held_out,
        )  # fmt: skip
    return found


@lru_cache(maxsize=4)
@torch.no_grad()
def ablated(model: LanguageModel) -> dict[str, Tensor]:
    """Return the loss of each token with the activations set to zero and to their mean, once per source."""
    mean = held_out(model, ROWS).x.mean(0)
    ways = {"zero": torch.zeros_like, "mean": lambda x: mean.to(x).expand_as(x)}
    found: dict[str, list[Tensor]] = {name: [] for name in ways}
    for part in passes(model, scored_windows(model)):
        for name, way in ways.items():
            after, targets = part.predicted(model, way(part.rows))
            found[name].append(nll_loss(after, targets, reduction="none").cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}
