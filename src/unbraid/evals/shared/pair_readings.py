"""Minimal pairs of the language as a model reads them: activations of both texts, and its predictions at their ends.

A model that was not trained on the language reads a few documents of it first (`following`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unbraid import seeding
from unbraid.evals.shared.evaluation import NotApplicable
from unbraid.evals.shared.readouts import Readouts, comparable, readouts_of, speaks
from unbraid.runs.run import Run
from unbraid.sources.base import Source
from unbraid.sources.cached import Cached
from unbraid.sources.language_model.following import Following
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.loading import EMBEDDED
from unbraid.sources.synthetic_language.documents import documents, text
from unbraid.sources.synthetic_language.pairs import VARIABLES, Pair, every_pair, pairs
from unbraid.sources.synthetic_language.spelling import spell
from unbraid.sources.text.documents import is_language
from unbraid.sources.text.tokens import encode
from unbraid.sources.text.windows import Windows

SCORED, RANKED = 16, 32
"""Number of pairs of each variable that are scored, and of other pairs on which latents are ranked."""
SEED = 0
IN_FRONT = 4
"""Documents in front of each text, for a model that was not trained on the language."""
TRIED = 40
"""Pairs drawn for each that is wanted, at most, until enough can be read by the model's tokenizer."""


@dataclass(frozen=True, eq=False)
class Read:
    """The activations of both texts of some pairs."""

    pairs: Sequence[Pair]
    reader: Following
    windows: Windows
    others: Windows
    base: Float[Tensor, "seq pos d_in"]
    other: Float[Tensor, "seq pos d_in"]
    swapped: Bool[Tensor, "seq pos"]
    """True from the first word that differs to the end."""

    @property
    def rows(self) -> tuple[Float[Tensor, "row d_in"], Float[Tensor, "row d_in"]]:
        """The activations to be swapped, of both texts."""
        return self.base[self.swapped], self.other[self.swapped]

    @cached_property
    def predicted(self) -> Float[Tensor, "seq vocabulary"]:
        """The model's predictions at the ends of the texts."""
        return self.reader.last(self.windows).double().softmax(-1).cpu()

    @cached_property
    def predicted_other(self) -> Float[Tensor, "seq vocabulary"]:
        """And at the ends of the other texts."""
        return self.reader.last(self.others).double().softmax(-1).cpu()

    @cached_property
    def readouts(self) -> Readouts:
        """The next words by which the pairs are judged."""
        return readouts_of(self.pairs, self.reader.reader.tokenizer, self.predicted.shape[1])


class Table(NamedTuple):
    """The pairs of one variable: those to rank latents on, and those to score."""

    ranked: Read
    scored: Read


def reader_of_language(source: Source) -> LanguageModel | None:
    """Return the model behind a source that reads the language, cached or not; None for all others."""
    if isinstance(source, Cached) and is_language(str(source.origin().get("text", ""))):
        source = source.reread()
    return source if isinstance(source, LanguageModel) and is_language(source.text) else None


def model_with_pairs(run: Run, what: str) -> LanguageModel:
    """Return the model behind a run. Raises NotApplicable where there are no minimal pairs."""
    model = reader_of_language(run.source)
    if model is None:
        raise NotApplicable(f"{what} needs minimal pairs, which only --source.text language://… has")
    return model


def followed(model: LanguageModel) -> dict[str, Table]:
    """Return the pairs of every variable that the model itself follows. Raises ValueError when there is none."""
    tables = {variable: prepared(model, variable) for variable in VARIABLES}
    found = {variable: table for variable, table in tables.items() if follows(table.scored)}
    if not found:
        raise ValueError(
            f"{model.model} follows no variable of the language; use a model trained on it, such as {EMBEDDED}"
        )
    return found


def follows(seen: Read) -> bool:
    """Return whether the model follows the variable in which these pairs differ."""
    return seen.readouts.followed(seen.predicted, seen.predicted_other)


@lru_cache(maxsize=64)
def prepared(model: LanguageModel, variable: str) -> Table:
    """Draw and read the pairs of a variable."""
    found, tokenizer = usable_pairs(model, variable), model.loaded_tokenizer
    reader = model_in_front(model)
    return Table(*(read(reader, part, tokenizer) for part in (found[:RANKED], found[RANKED:])))


def usable_pairs(model: LanguageModel, variable: str) -> list[Pair]:
    """Return the first pairs that the model's tokenizer can read. Raises NotApplicable when there are too few."""
    wanted, tokenizer = RANKED + SCORED, model.loaded_tokenizer
    if speaks(tokenizer):
        return pairs(variable, wanted, seed=SEED)
    tried = islice(every_pair(variable, seed=SEED), TRIED * wanted)
    found = list(islice((pair for pair in tried if comparable(pair, tokenizer)), wanted))
    if len(found) < wanted:
        raise NotApplicable(
            f"{len(found)} of {TRIED * wanted:,} pairs that differ in {variable} have as many tokens in both texts, "
            f"and {wanted} are needed; use a model whose tokenizer has more words whole"
        )
    return found


@lru_cache(maxsize=4)
def model_in_front(model: LanguageModel) -> Following:
    """Return the model as it reads pairs: after a few documents, where it was not trained on the language."""
    tokenizer = model.loaded_tokenizer
    if speaks(tokenizer):
        return model.following(())
    told = documents(IN_FRONT, seed=seeding.integer(SEED, "interchange/in front"))
    return model.following(encode(tokenizer, ["".join(text(document) + "\n" for document in told)]).flat.tolist())


def read(reader: Following, found: Sequence[Pair], tokenizer: Any) -> Read:
    """Run the model on both texts of some pairs."""
    spelled, changed = spell(tokenizer, [p.base for p in found]), spell(tokenizer, [p.changed for p in found])
    windows, others = (reader.windows([one.ids for one in side]) for side in (spelled, changed))
    shift = windows.ids.shape[1] - max(len(one.ids) for one in spelled)  # 1 where there is a start token
    last = windows.attention.sum(1) - 1
    places = torch.arange(windows.ids.shape[1], device=last.device)
    # The first token of the first word that differs: the one after the last of the word before.
    starts = [int(one.ends[pair.start - 1]) + 1 if pair.start else 0 for one, pair in zip(spelled, found, strict=True)]
    first = torch.tensor(starts, device=last.device) + shift
    swapped = (places >= first[:, None]) & (places <= last[:, None])
    return Read(found, reader, windows, others, reader.activations(windows), reader.activations(others), swapped)
