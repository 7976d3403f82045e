"""Steering: a model's continuation and next-token probabilities with one atom added to its activations.

    x' = x + scale * unit * atom      at every token a dictionary is trained on, prompt and continuation alike

unit: the radius R of the fit for runs of MELBO and DCT, else the 95th percentile of the latent's own codes.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unbraid import seeding
from unbraid.config.settings import PositiveInt, checked
from unbraid.dictionary.encoding import code_matrix
from unbraid.effects.radius import calibrate_radius
from unbraid.evals.shared.observe import ROWS
from unbraid.runs.run import Run
from unbraid.sources.base import NoHeldOut, Source
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.stream import held_out

Unit = Literal["auto", "own", "radius"]
CONTEXTS = 8
"""Number of contexts on which a radius is calibrated for runs without a fit."""


@dataclass(frozen=True)
class Expected:
    """A token and its probability right after the prompt, without and with the atom."""

    token: str
    before: float
    after: float


@dataclass(frozen=True)
class Steered:
    """The result of steering: the size of the push, both continuations and the tokens that changed most."""

    size: float
    """Length of the push, in raw units; negative against the atom."""
    unit: str
    relative: float
    """Length of the push over the median norm of the activations."""
    before: str
    """The model's greedy continuation without the push."""
    after: str
    """The model's greedy continuation with the push."""
    expected: tuple[Expected, ...]
    """The tokens whose probability right after the prompt changed most."""
    note: str = ""
    """A note on the text that sizes are measured on, if it is not held-out text."""


@torch.no_grad()
def steer(
    run: Run, latent: int, prompt: str, *, scale: float = 1.0, unit: Unit = "auto", tokens: int = 30, top: int = 8
) -> Steered:
    """Add `scale` times an atom to a model's activations, and compare what it writes and expects.

    Raises ValueError for a source without text, a latent that does not exist, one that never fires where its codes are
    the unit, a prompt that is empty or leaves no room in the context, and a push after which nothing is finite.
    """
    for name, count in (("tokens", tokens), ("top", top)):
        checked(name, count, PositiveInt)
    checked("unit", unit, Unit)
    source = text_of(run)
    dictionary = run.dictionary()
    if not 0 <= checked("latent", latent, int) < dictionary.d_sae:
        raise ValueError(
            f"latent {latent} does not exist: this run has {dictionary.d_sae}, 0 to {dictionary.d_sae - 1}"
        )
    if not math.isfinite(scale):
        raise ValueError(f"scale is {scale}; give a finite number, negative to push the other way")
    words = read(source, prompt)
    one, name = unit_of(run, source, latent, unit)
    push = scale * one * dictionary.unit_atoms()[latent]
    plain, pushed = (expectations(source, words, by) for by in (torch.zeros_like(push), push))
    changed = (pushed - plain).abs().argsort(descending=True)[:top].tolist()
    names = source.loaded_tokenizer.convert_ids_to_tokens(changed)
    rows, note = usual_rows(source)
    typical = float(rows.norm(dim=1).median())
    return Steered(
        scale * one, name, scale * one / typical, written(source, words, torch.zeros_like(push), tokens),
        written(source, words, push, tokens),
        tuple(Expected(n, float(plain[i]), float(pushed[i])) for n, i in zip(names, changed, strict=True)), note,
    )  # fmt: skip


def text_of(run: Run) -> LanguageModel:
    """Return the run's language model. Raises ValueError for other sources."""
    if not isinstance(run.source, LanguageModel):
        raise ValueError(
            f"steering shows text, and this run was trained on a {type(run.source).__name__}; name a run of a "
            "LanguageModel"
        )
    return run.source


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


def usual_rows(source: Source) -> tuple[Float[Tensor, "row d_in"], str]:
    """Return activations that show the usual size, and a note if they are those trained on.

    A fit on a few prompts has no others.
    """
    try:
        return held_out(source, ROWS).x, ""
    except NoHeldOut:
        block = source.block(0, split="train", seed=0)
        assert block is not None, "a run was made of it"
        return block.rows.x[:ROWS], "the text has no held-out split: sizes are of the text the run was made from"


def unit_of(run: Run, source: LanguageModel, latent: int, unit: Unit) -> tuple[float, str]:
    """Return the length of a push of scale 1, in raw units, and its name."""
    fit = run.fit()
    if unit == "radius" or (unit == "auto" and fit):
        if fit:
            return float(fit["radius"]), "the radius of the fit"
        count = int(min(CONTEXTS, source.sequences("train")))
        contexts = source.contexts(count, split="train", seed=0)
        radius = calibrate_radius(contexts, rng=seeding.stream(0, "steering/radius"))
        return radius, "the radius at which random directions leave the linear regime"
    rows, _ = usual_rows(source)
    column = code_matrix(run.dictionary(), rows).tocsc()[:, [latent]].data
    if not len(column):
        raise ValueError(
            f"latent {latent} fires in none of {len(rows):,} tokens, so it has no usual size; use --unit radius"
        )
    size = float(np.quantile(np.abs(column), 0.95))
    return size, "the 95th percentile of the latent's codes"


def expectations(source: LanguageModel, words: list[str], push: Float[Tensor, " d_in"]) -> Float[Tensor, " vocabulary"]:
    """Return the probabilities of the next token (embeddings are often padded past the tokenizer's last id)."""
    logits = source.spliced_logits(source.whole([words]), lambda x: x + push.to(x))[0, -1]
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(
            f"what the model expects is not finite after a push of {float(push.norm()):.3g}; take a smaller --scale"
        )
    return logits[: len(source.loaded_tokenizer)].softmax(-1).cpu()


def written(source: LanguageModel, words: list[str], push: Float[Tensor, " d_in"], tokens: int) -> str:
    """Return the most probable continuation, up to a special token or the end of the context.

    Every step reads the whole text again: so pushes follow the token policy exactly, and texts here are short.
    """
    special = set(source.loaded_tokenizer.all_special_ids)
    added: list[str] = []
    for _ in range(tokens):
        if len(words) + len(added) + 2 > source.context:
            break
        best = int(expectations(source, words + added, push).argmax())
        if best in special:
            break
        added += source.loaded_tokenizer.convert_ids_to_tokens([best])
    return source.loaded_tokenizer.convert_tokens_to_string(added) if added else ""
