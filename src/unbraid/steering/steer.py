"""Steering: a model's continuation and next-token probabilities with atoms added to its activations.

    x' = x + push      at every token a dictionary is trained on, prompt and continuation alike

The push is along one latent or several (`push`), chosen by hand or by the words that they make the model say
(`output_score`). Whether it broke the model, and what it does to other text, is measured with it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.config.settings import PositiveFloat, PositiveInt, checked
from unbraid.dictionary.initialisation import ProgressCallback, no_progress
from unbraid.effects.coherence import BROKEN
from unbraid.effects.departure import Spread, departures
from unbraid.effects.next_token_kl import next_token_kl
from unbraid.runs.run import Run
from unbraid.sources.behind import behind
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.loading import write_chat
from unbraid.steering.continuation import Words, as_text, expectations, expected_along, perplexities, written
from unbraid.steering.output_score import Candidate, other_rows, ranked, wanted_tokens
from unbraid.steering.push import Push, Unit, median_norm, push_by_budget, push_by_hand, scaled_latents
from unbraid.steering.side_effects import SideEffects, side_effects

KL = 0.5
"""Budget by which latents are found, in nats a token."""
ROWS_A_DIMENSION = 4
"""Activations a dimension from which their spread is measured."""


@dataclass(frozen=True)
class Expected:
    """A token and its probability right after the prompt, without and with the atom."""

    token: str
    before: float
    after: float


@dataclass(frozen=True)
class Steered:
    """The result of steering: the push, both continuations, the tokens that changed most, and what it harms."""

    latents: tuple[int, ...]
    scales: tuple[float, ...]
    size: float
    """Length of the push, in raw units; negative against the atom of a single latent."""
    unit: str
    """What a scale of 1 is, or the budget, in words."""
    relative: float
    """Length of the push over the median norm of the activations that it is added to."""
    kl: float
    """Mean next-token KL of the push along the model's own continuation, in nats a token."""
    prompt: str
    """The text that was continued, in the chat template if it was put there."""
    before: str
    """The model's greedy continuation without the push."""
    after: str
    """The model's greedy continuation with the push."""
    strangeness: float
    """Perplexity of `after` over that of `before`, to the model that is not pushed; NaN where nothing is written."""
    departure: float
    """Mahalanobis distance of pushed activations over the usual one; NaN where there is too little text to know it."""
    expected: tuple[Expected, ...]
    """The tokens whose probability right after the prompt changed most."""
    side: SideEffects | None = None
    """What the push does to text without the concept; None if it was not measured."""
    note: str = ""
    """A note on the text that sizes are measured on, if it is not held-out text."""

    @property
    def broken(self) -> bool:
        """True if what it writes is too strange to the model to be called text."""
        return self.strangeness > BROKEN


@dataclass(frozen=True)
class Prompt:
    """A prompt as a model reads it, with its own greedy answer."""

    text: str
    words: Words
    own: Words


@torch.no_grad()
def steer(
    run: Run | str | Path, latents: int | Sequence[int], prompt: str, *, scale: float | Sequence[float] = 1.0,
    kl: float | None = None, unit: Unit = "auto", tokens: int = 30, top: int = 8, chat: bool = False,
    side: bool = True, words: str = "",
) -> Steered:  # fmt: skip
    """Add atoms to a model's activations, and compare what it writes and expects.

    Args:
        run: a run of a LanguageModel, or its folder.
        latents: one latent, or several that are pushed together.
        prompt: the text that the model continues.
        scale: how far to push, in units, one for all latents or one each; below 0 the other way. With `kl`, how much
            of the push is along which latent, and its sign.
        kl: the length of the push by what it costs: mean next-token KL along the model's own continuation, in nats a
            token; None: by `scale` alone.
        unit: own, the 95th percentile of the latent's codes; radius, where downstream layers stop being linear, or
            that of the fit; auto: radius for runs of MELBO and DCT, else own.
        tokens: number of tokens to write.
        top: number of next tokens to show.
        chat: put the prompt into the tokenizer's chat template, as the user's turn.
        side: measure what the push does to text without the concept.
        words: words that must not occur in that text.

    Raises:
        ValueError: for a source without text, latents that do not exist, one that never fires where its codes are the
            unit, a prompt that is empty or leaves no room in the context, a push after which nothing is finite, and a
            budget beyond reach.

    Examples:
        >>> found = ub.steer("runs/mine", [3, 17], "How can I", kl=0.5)  # doctest: +SKIP
        >>> print(found.before, found.after, found.kl, found.side.kl)  # doctest: +SKIP
    """
    for name, count in (("tokens", tokens), ("top", top)):
        checked(name, count, PositiveInt)
    run, source = opened(run)
    which = scaled_latents(latents, scale, run.dictionary())
    asked = asked_of(source, prompt, tokens, chat)
    along = expected_along(source, asked.words, asked.own)
    if kl is None:
        push = push_by_hand(run, source, which, unit)
    else:
        push = push_by_budget(run, source, which, unit, along, checked("kl", kl, PositiveFloat))
    # One by one: together, their equal numbers are rounded differently.
    plain, pushed = (
        expectations(source, [asked.words], by.unsqueeze(0))[0] for by in (torch.zeros_like(push.vector), push.vector)
    )
    (after,) = written(source, asked.words, push.vector.unsqueeze(0), tokens)
    own, new = perplexities(source, asked.words, [asked.own, after])
    size = float(push.vector.norm())
    sign = -1 if len(which.latents) == 1 and which.scales[0] < 0 else 1
    absent = wanted_tokens(source, words).ids.tolist() if words else ()
    return Steered(
        latents=tuple(which.latents), scales=tuple(which.scales), size=sign * size, unit=push.unit,
        relative=sign * size / median_norm(along), kl=float(next_token_kl(along, push.vector.unsqueeze(0))),
        prompt=asked.text, before=as_text(source, asked.own), after=as_text(source, after), strangeness=new / own,
        departure=departure(source, push), expected=changed_most(source, plain, pushed, top),
        side=side_effects(source, run.dictionary(), which.latents, push.vector, absent) if side else None,
        note=push.note,
    )  # fmt: skip


@torch.no_grad()
def find_latents(
    run: Run | str | Path, text: str, prompt: str, *, kl: float = KL, tokens: int = 30, candidates: int = 32,
    chat: bool = False, watch: ProgressCallback = no_progress,
) -> list[Candidate]:  # fmt: skip
    """Rank the latents that make a model say some words, by output score at equal KL (`output_score`).

    Args:
        run: a run of a LanguageModel, or its folder.
        text: the words, or the label of a concept, that the model should come to say.
        prompt: the text along whose continuation it is measured; as many `tokens` of it.
        kl: the budget of every push, in nats a token.
        candidates: number of latents whose score is measured: half those that fire most on the words, half those with
            the largest derivative of the words' log-odds.
        chat: put the prompt into the tokenizer's chat template, as the user's turn.
        watch: called with the number of candidates that are done, and of all.

    Raises:
        ValueError: as `steer`; for words that the tokenizer does not know, and when no candidate spends the budget.

    Examples:
        >>> best = ub.find_latents("runs/mine", "coffee", "In the morning I")[0].latent  # doctest: +SKIP
    """
    run, source = opened(run)
    asked = asked_of(source, prompt, checked("tokens", tokens, PositiveInt), chat)
    checked("kl", kl, PositiveFloat)
    return ranked(run, source, text, asked.words, asked.own, kl=kl, candidates=candidates, watch=watch)


def opened(run: Run | str | Path) -> tuple[Run, LanguageModel]:
    """Return a run and its language model. Raises ValueError for other sources."""
    run = run if isinstance(run, Run) else Run.open(Path(run).expanduser())
    source = behind(run.source)
    if not isinstance(source, LanguageModel):
        raise ValueError(
            f"steering shows text, and this run was trained on a {type(source).__name__}; name a run of a LanguageModel"
        )
    return run, source


def asked_of(source: LanguageModel, prompt: str, tokens: int, chat: bool) -> Prompt:
    """Return a prompt with the model's own answer to it."""
    read(source, prompt)
    text = write_chat(source.loaded_tokenizer, [{"role": "user", "content": prompt}]) if chat else prompt
    words = read(source, text)
    (own,) = written(source, words, torch.zeros(1, source.d_in), tokens)
    return Prompt(text, words, own)


def read(source: LanguageModel, prompt: str) -> list[str]:
    """Split a prompt into tokens. Raises ValueError for one that is empty, unknown or too long."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the prompt holds bytes that are no text ({error.reason}); write it in UTF-8") from error
    words = source.loaded_tokenizer.tokenize(prompt)
    if not words:
        raise ValueError("the prompt holds no token; give some text with --prompt")
    if (unknown := words.count(source.loaded_tokenizer.unk_token)) and source.loaded_tokenizer.unk_token:
        raise ValueError(
            f"{unknown} of the prompt's {len(words)} tokens are unknown to this model's tokenizer; a synthetic "
            "language's words are shown by `unbraid plan`"
        )
    if (room := source.context - 2) < len(words):
        raise ValueError(f"the prompt has {len(words)} tokens, and at most {room} leave room for one more; shorten it")
    return words


def changed_most(
    source: LanguageModel, plain: Float[Tensor, " vocabulary"], pushed: Float[Tensor, " vocabulary"], top: int
) -> tuple[Expected, ...]:
    """Return the tokens whose probability changed most."""
    changed = (pushed - plain).abs().argsort(descending=True)[:top].tolist()
    names = source.loaded_tokenizer.convert_ids_to_tokens(changed)
    return tuple(Expected(n, float(plain[i]), float(pushed[i])) for n, i in zip(names, changed, strict=True))


def departure(source: LanguageModel, push: Push) -> float:
    """Return how far a push leaves the distribution; NaN for a text too short to know it."""
    windows = int(min(source.sequences("train"), -(-ROWS_A_DIMENSION * source.d_in // (source.context - 1))))
    found = [
        acts[part.keep & (acts.norm(dim=-1) <= source.max_norm)]
        for part in source.windows(windows, split="train", seed=0).parts(source.batch)
        for acts in [source.activations(part)]
    ]
    rows = torch.cat(found)
    if len(rows) <= source.d_in:
        return math.nan
    return float(departures(Spread.of(rows), other_rows(source), push.vector.unsqueeze(0)))
