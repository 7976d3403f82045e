"""How well a dictionary explains activations, how sparsely, and what splicing it into the model costs.

    FVU = sum |x - x_hat|^2 / sum |x - mean x|^2        (a mean predictor scores explained variance 0)
    loss recovered = (CE_ablated - CE_spliced) / (CE_ablated - CE_clean)

All on held-out rows of the run's own source. Codes may be signed: a latent is active when it is not zero.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import nll_loss

from unbraid.dictionary import Dictionary
from unbraid.evaluation import Score
from unbraid.run import Run
from unbraid.source import held_out
from unbraid.sources.language_model import LanguageModel
from unbraid.splicing import eval_windows, lacks_windows, predicted

VERSION = 2
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
    "loss_recovered": "share of the cross-entropy lost by ablation (zero or mean) that the reconstruction regains",
}
ROWS = 32_768
"""Held-out activations the reconstruction is scored on; fewer when the eval split is smaller."""
CHUNK = 2048

lacks = lacks_windows


@torch.no_grad()
def fidelity(run: Run) -> list[Score]:
    """Reconstruction, sparsity and splicing."""
    dictionary = run.dictionary()
    scores = reconstruction(dictionary, held_out(run.source, ROWS).x.cpu())
    scores.append(Score(metric="max_decoder_cosine", value=max_decoder_cosine(dictionary.W_dec), better="lower"))
    if isinstance(run.source, LanguageModel):
        scores += splicing(dictionary, run.source)
    return scores


def reconstruction(dictionary: Dictionary, x: Tensor) -> list[Score]:
    mean = x.double().mean(0)
    total = float((x.double() - mean).square().sum())
    error = active = magnitude = cosine = ratio = 0.0
    there = 0
    fired = torch.zeros(dictionary.d_sae, dtype=torch.bool)
    for part in x.split(CHUNK):
        z = dictionary.encode(part)
        x_hat = dictionary.decode(z)
        error += float((x_hat - part).double().square().sum())
        active += float(z.l0()) * len(part)
        magnitude += float(z.values.abs().sum(dtype=torch.float64))
        some = part.norm(dim=1) > 0  # a world without noise has rows of 0, that have no direction and no share
        there += int(some.sum())
        cosine += float(torch.nn.functional.cosine_similarity(part[some], x_hat[some], dim=1).sum())
        ratio += float((x_hat[some].norm(dim=1) / part[some].norm(dim=1)).sum())
        fired |= z.firings() > 0
    n, scale = len(x), (total / len(x)) ** 0.5
    share = lambda sum_over_rows: sum_over_rows / there if there else float("nan")
    fvu = error / total if total > 0 else float("nan")
    return [
        Score(metric="fvu", value=fvu, better="lower"),
        Score(metric="explained_variance", value=1 - fvu, better="higher"),
        Score(metric="l0", value=active / n, better="neither"),
        Score(metric="l1", value=magnitude / n / scale if scale > 0 else float("nan"), better="neither"),
        Score(metric="cosine", value=share(cosine), better="higher"),
        Score(metric="l2_ratio", value=share(ratio), better="neither"),
        Score(metric="alive", value=float(fired.float().mean()), better="higher"),
    ]


def max_decoder_cosine(atoms: Tensor, rows: int = 1024) -> float:
    """Mean over atoms of the largest |cosine| with another, a few rows of the Gram matrix at a time."""
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
    """Next-token loss from the tokens a dictionary is trained on, with their activations replaced."""
    clean, spliced, kl = 0.0, 0.0, 0.0
    counted = 0
    for part in eval_windows(model):
        before, targets = predicted(part, model.logits(part))
        after, _ = predicted(part, model.spliced_logits(part, dictionary.to(part.ids.device)))
        clean += float(nll_loss(before, targets, reduction="sum"))
        spliced += float(nll_loss(after, targets, reduction="sum"))
        kl += float((before.exp() * (before - after)).sum())
        counted += len(targets)
    clean, spliced, kl = clean / counted, spliced / counted, kl / counted
    return [
        Score(metric="ce_clean", value=clean, better="neither"),
        Score(metric="ce_spliced", value=spliced, better="lower"),
        Score(metric="kl", value=kl, better="lower"),
        *(
            Score(
                metric="loss_recovered",
                value=(loss - spliced) / (loss - clean),
                better="higher",
                params={"against": name},
            )
            for name, loss in ablated(model).items()
        ),
    ]


@lru_cache(maxsize=4)
def ablated(model: LanguageModel) -> dict[str, float]:
    """Cross-entropy with the activations set to zero, and to their mean: the same for every run of a source."""
    mean = held_out(model, ROWS).x.mean(0)
    ways = {"zero": torch.zeros_like, "mean": lambda x: mean.to(x).expand_as(x)}
    totals, counted = dict.fromkeys(ways, 0.0), 0
    for part in eval_windows(model):
        for name, way in ways.items():
            after, targets = predicted(part, model.spliced_logits(part, way))
            totals[name] += float(nll_loss(after, targets, reduction="sum"))
        counted += int((part.keep[:, :-1] & part.attention[:, 1:]).sum())
    return {name: total / counted for name, total in totals.items()}
