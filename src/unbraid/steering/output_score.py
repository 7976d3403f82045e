"""Finding latents by what they make a model say, not by where they fire (Arad et al. 2025, arXiv 2505.20063).

    output score_i = mean over tokens of [ logit q_i(W) - logit p(W) ],      KL(q_i) = budget for every latent i
    activation_i   = mean code_i on the words, read after the prompt - mean code_i on other text

W: the tokens of the words looked for, logit P = log P / (1 - P); p: the model's expectations at every step of its own
answer to a prompt, q_i: with latent i's atom added at the length that costs the budget. Latents that detect a concept
are often not those that express it. Arad et al. score the tokens that a latent itself promotes most; here the tokens
are given, so the score is of the concept and not of the latent. Candidates are those of the largest derivative of
logit p(W), which one backward pass gives for all latents at once, and those that fire most on the words; the score of
all candidates is measured, through all layers, at equal KL.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.config.settings import PositiveInt, checked
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.encoding import moved
from unbraid.dictionary.initialisation import ProgressCallback
from unbraid.runs.run import Run
from unbraid.sources.base import NoHeldOut, Predictions
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.steering.continuation import Words, expected_along
from unbraid.steering.push import lengths_by_budget

AT_ONCE = 8
"""Candidates whose lengths are looked for together, between two reports of progress."""
USUAL = 4096
"""Number of rows on which usual codes are averaged."""


@dataclass(frozen=True)
class Candidate:
    """A latent, how far it makes a model say some words, and how far it fires on them."""

    latent: int
    output_score: float
    """Rise of the words' log-odds, in nats, at the budget; NaN where the budget is out of reach."""
    length: float
    """Length of the push that costs the budget, in raw units."""
    activation: float
    """Mean code on the words less the usual one, in raw units."""
    by_output: int
    """Rank by output score among the candidates, from 1."""
    by_activation: int
    """Rank by activation among all latents, from 1."""


class WantedTokens(NamedTuple):
    """The tokens of the words that are looked for."""

    ids: Int[Tensor, " token"]
    texts: list[str]


def ranked(
    run: Run,
    source: LanguageModel,
    text: str,
    words: Words,
    own: Words,
    *,
    kl: float,
    candidates: int,
    watch: ProgressCallback,
) -> list[Candidate]:  # fmt: skip
    """Rank latents by how far they make the model say `text`, the best first. `words`: the prompt; `own`: the model's
    own answer to it.

    Raises ValueError for a text without a token of its own, and when no candidate spends the budget.
    """
    checked("candidates", candidates, PositiveInt)
    dictionary, wanted = run.dictionary(), wanted_tokens(source, text)
    along = expected_along(source, words, own)
    fires = activations(source, dictionary, text, words)
    slopes = dictionary.unit_atoms().cpu() @ slope(along, wanted.ids).cpu()
    count = min(candidates, dictionary.d_sae)
    # As many by each, so that neither way of choosing is favoured; more by the slope where some are chosen by both.
    first = fires.topk(count // 2).indices.tolist()
    rest = [i for i in slopes.argsort(descending=True).tolist() if i not in first]
    chosen = [*first, *rest[: count - len(first)]]
    scores, lengths = output_scores(along, dictionary.unit_atoms()[chosen].detach().cpu(), wanted.ids, kl, watch)
    order = scores.nan_to_num(-torch.inf).argsort(descending=True, stable=True).tolist()
    if not bool(scores.isfinite().any()):
        raise ValueError(
            f"none of {len(chosen)} latents spends {kl:g} nats a token on this text, however far it is pushed; ask for "
            "a smaller --kl"
        )
    places = ranks(fires)
    return [
        Candidate(chosen[i], float(scores[i]), float(lengths[i]), float(fires[chosen[i]]), place, places[chosen[i]])
        for place, i in enumerate(order, 1)
    ]


def ranks(values: Float[Tensor, " latent"]) -> list[int]:
    """Return the rank of each value, the largest first, from 1."""
    places = torch.empty(len(values), dtype=torch.long)
    places[values.argsort(descending=True, stable=True)] = torch.arange(1, len(values) + 1)
    return places.tolist()


def output_scores(
    along: Sequence[Predictions],
    atoms: Float[Tensor, "k d_in"],
    wanted: Int[Tensor, " token"],
    kl: float,
    watch: ProgressCallback,
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """Return the rise of the wanted tokens' log-odds that each atom brings at equal KL, NaN where it is out of reach,
    and the lengths of the pushes."""
    before = sum(float(log_odds(text.clean, wanted).sum()) for text in along)
    count = sum(len(text.clean) for text in along)
    scores, lengths = [], []
    for part in atoms.split(AT_ONCE):
        found = lengths_by_budget(along, part, kl)
        with torch.no_grad():
            pushes = found.pushes(part)
            after = sum(log_odds(text.pushed_logits(pushes), wanted).sum(-1).cpu() for text in along)
        scores.append(torch.where(found.reached.cpu(), (after - before) / count, torch.nan))
        lengths.append(found.length.cpu())
        watch(sum(map(len, scores)), len(atoms))
    return torch.cat(scores), torch.cat(lengths)


def log_odds(logits: Float[Tensor, "*k token vocabulary"], wanted: Int[Tensor, " some"]) -> Float[Tensor, "*k token"]:
    """Return the log-odds that the next token is one of those wanted."""
    inside = logits[..., wanted].logsumexp(-1)
    others = torch.ones(logits.shape[-1], dtype=torch.bool, device=logits.device)
    others[wanted] = False
    return inside - logits[..., others].logsumexp(-1)


def slope(along: Sequence[Predictions], wanted: Int[Tensor, " token"]) -> Float[Tensor, " d_in"]:
    """Return the derivative of the mean log-odds by a push at every kept token."""
    with torch.enable_grad():
        push = along[0].acts.new_zeros(1, along[0].acts.shape[-1], requires_grad=True)
        total = torch.stack([log_odds(text.pushed_logits(push), wanted).sum() for text in along]).sum()
        return torch.autograd.grad(total, push)[0][0] / sum(len(text.clean) for text in along)


def wanted_tokens(source: LanguageModel, text: str) -> WantedTokens:
    """Return the tokens that words begin with, with and without a blank and a capital letter.

    Where some of a word's spellings are one token, the others are left out: their beginnings begin other words, too.
    Raises ValueError where nothing is left.
    """
    tokenizer = source.loaded_tokenizer
    special = {*tokenizer.all_special_ids, None}
    found: dict[int, str] = {}
    for word in text.split():
        spelt = dict.fromkeys(blank + form for blank in (" ", "") for form in (word, word.capitalize()))
        pieces = [tokenizer(form, add_special_tokens=False)["input_ids"] for form in spelt]
        pieces = [ids for ids in pieces if ids and ids[0] not in special]
        whole = [ids for ids in pieces if len(ids) == 1] or pieces
        found |= {ids[0]: tokenizer.decode(ids[:1]) for ids in whole}
    if not found:
        raise ValueError(
            f"{text!r} holds no word that this model's tokenizer knows; look for words that the model can say"
        )
    return WantedTokens(torch.tensor(list(found)), list(found.values()))


@torch.no_grad()
def activations(source: LanguageModel, dictionary: Dictionary, text: str, words: Words) -> Float[Tensor, " d_sae"]:
    """Return how much more each latent fires on words, read after the prompt, than on other text."""
    looked_for = source.loaded_tokenizer.tokenize(text if not words else " " + text.strip())
    looked_for = looked_for[: max(1, source.context - 1 - len(words))]
    windows = source.whole([[*words, *looked_for]])
    acts = source.activations(windows)
    dictionary = moved(dictionary, acts.device)
    on = (windows.keep & (acts.norm(dim=-1) <= source.max_norm))[:, -len(looked_for) :]
    codes = lambda rows: dictionary.encode(rows).mean(0) * dictionary.norms()
    if not bool(on.any()):
        raise ValueError(f"no token of {text!r} is one that a dictionary sees; look for other words")
    return (codes(acts[:, -len(looked_for) :][on]) - codes(other_rows(source))).cpu()


def other_rows(source: LanguageModel) -> Float[Tensor, "row d_in"]:
    """Return some held-out activations, or some that were trained on where there are no others."""
    try:
        return source.held_out_sample(USUAL)
    except NoHeldOut:
        block = source.block(0, split="train", seed=0)
        assert block is not None, "a run was made of it"
        return block.rows.x[:USUAL]
