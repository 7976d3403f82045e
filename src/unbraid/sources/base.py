"""The interface of sources: activations as rows of a batch, blocks of rows, and sequences with the downstream layers.

A source is a random-access sequence of *blocks*. Block i depends on (source, split, seed, i) alone, so a stream can
be resumed, cached or shared by many dictionaries without keeping any state but a position.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unbraid.config.settings import Settings
from unbraid.sources.truth import NoTruth, Truth
from unbraid.system.devices import sent

Split = Literal["train", "eval"]
Downstream = Callable[[Float[Tensor, "*fold seq pos d_in"]], Float[Tensor, "*fold seq pos d_out"]]
Predict = Callable[[Float[Tensor, "*fold seq pos d_out"], Bool[Tensor, "seq pos"]], Float[Tensor, "*fold token vocab"]]


@dataclass(frozen=True)
class Batch:
    """Activations, one row per token, with the token, document and position of each row."""

    x: Float[Tensor, "batch d_in"]
    tokens: Int[Tensor, " batch"]
    """Vocabulary ids; -1 where there is no text (worlds)."""
    documents: Int[Tensor, " batch"]
    """Index of the document in its corpus: the unit of the train/eval split."""
    positions: Int[Tensor, " batch"]
    """Position in the context window, counting BOS."""

    def __len__(self) -> int:
        return self.x.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> "Batch":
        return Batch(self.x[rows], self.tokens[rows], self.documents[rows], self.positions[rows])

    def window_starts(self) -> Bool[Tensor, " batch"]:
        """Return where a window begins, for rows in the order of their windows: at another document or an earlier
        position."""
        starts = torch.ones(len(self), dtype=torch.bool)
        another = self.documents[1:] != self.documents[:-1]
        starts[1:] = (another | (self.positions[1:] <= self.positions[:-1])).cpu()
        return starts

    def to(self, device: str | torch.device) -> "Batch":
        """Return the rows on a device, to which they may still be on their way."""
        return Batch(*(sent(column, device) for column in self.columns()))

    def columns(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what there is of the rows, in the order of the fields."""
        return self.x, self.tokens, self.documents, self.positions

    @staticmethod
    def join(parts: list["Batch"]) -> "Batch":
        columns = zip(*(part.columns() for part in parts), strict=True)
        return Batch(*(torch.cat(column) for column in columns))


@dataclass(frozen=True)
class Block:
    """A run of rows in corpus order, and how many the token policy left out."""

    rows: Batch
    filtered: int = 0
    """Rows dropped for their norm (attention sinks and the like)."""


@dataclass(frozen=True, eq=False)
class Contexts:
    """A few whole sequences, for terms that must run the rest of the network.

    `downstream(acts)` equals `base`; it accepts leading dimensions, so k perturbed copies cost one batched forward.
    """

    acts: Float[Tensor, "seq pos d_in"]
    """Raw (un-normalised) activations at the source's site."""
    mask: Bool[Tensor, "seq pos"]
    """True where the token policy keeps the token: no padding, no special tokens."""
    base: Float[Tensor, "seq pos d_out"]
    downstream: Downstream
    rounding: float = torch.finfo(torch.float32).eps
    """The relative size of one rounding in what `downstream` computes with."""
    predict: Predict | None = None
    """From what `downstream` gives to the logits of the next token, at chosen tokens in the order of `nonzero`;
    differentiable. None where nothing is predicted, as in a world."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """A few whole sequences, and the next tokens that a language model expects as a function of the activations."""

    acts: Float[Tensor, "seq pos d_in"]
    """Raw activations at the source's site."""
    mask: Bool[Tensor, "seq pos"]
    """True where the token policy keeps the token: pushes go there."""
    clean: Float[Tensor, "token vocabulary"]
    """Log-probabilities of the next token at the tokens that count."""
    logits: Callable[[Float[Tensor, "*fold seq pos d_in"]], Float[Tensor, "*fold token vocabulary"]]
    """Returns logits at these tokens, in the same order; takes leading dimensions."""

    @classmethod
    def of(cls, contexts: Contexts, at: Bool[Tensor, "seq pos"] | None = None) -> "Predictions":
        """Return the predictions at some tokens of contexts, by default all kept ones. Raises ValueError where nothing
        is predicted."""
        if contexts.predict is None:
            raise ValueError("these contexts predict no tokens; use those of a LanguageModel")
        predict, looked = contexts.predict, contexts.mask if at is None else at
        logits = lambda acts: predict(contexts.downstream(acts), looked)
        with torch.no_grad():
            clean = predict(contexts.base, looked).log_softmax(-1)
        return cls(contexts.acts, contexts.mask, clean, logits)

    def pushed_logits(self, directions: Float[Tensor, "k d_in"]) -> Float[Tensor, "k token vocabulary"]:
        """Return the logits with each direction added at every kept token, in one forward pass."""
        shift = directions.to(self.acts)[:, None, None, :] * self.mask.unsqueeze(-1)
        return self.logits(self.acts + shift)


@dataclass(frozen=True)
class NextTokens:
    """For each of some directions, the next tokens that it promotes most and suppresses most, and by how much."""

    promoted: list[list[str]]
    promoted_by: Float[Tensor, "direction count"]
    suppressed: list[list[str]]
    suppressed_by: Float[Tensor, "direction count"]


@dataclass(frozen=True)
class Counterfactuals:
    """Pairs of activations: row i of `x`, and the same row had one of its causes been another, in `changed`."""

    x: Float[Tensor, "pair d_in"]
    changed: Float[Tensor, "pair d_in"]

    def __post_init__(self) -> None:
        if self.x.shape != self.changed.shape:
            raise ValueError(f"pairs of unlike shapes: {list(self.x.shape)} and {list(self.changed.shape)}")


class NoHeldOut(ValueError):
    """The error of a source that has no activations other than those trained on."""


def passes(epochs: int, split: Split) -> int:
    """Return the number of passes over a split: `epochs` over the train split, one over the eval split.

    A row that is scored twice adds nothing.
    """
    return epochs if split == "train" else 1


class Source(Settings, ABC):
    """The base of all sources of activations: frozen dataclasses of settings, which load heavy things on first use."""

    more_held_out: ClassVar[str] = "give more data"
    """The remedy for an eval split that is too small."""

    @property
    @abstractmethod
    def d_in(self) -> int:
        """The width of the activations."""

    @property
    def has_documents(self) -> bool:
        """True when documents hold more than one row."""
        return True

    @abstractmethod
    def block(self, index: int, *, split: Split, seed: int) -> Block | None:
        """Return block `index` of `split` in the order of `seed`; None past the end of the data."""

    @abstractmethod
    def contexts(self, count: int, *, split: Split, seed: int) -> Contexts:
        """Return `count` whole sequences chosen by `seed`. Raises ValueError when there are no downstream layers."""

    def unpadded_contexts(self, count: int, *, split: Split, seed: int) -> Contexts:
        """Return `contexts`, with a map that takes no time for padding where there is any, and gives 0 there."""
        return self.contexts(count, split=split, seed=seed)

    def held_out_sample(self, count: int) -> Float[Tensor, "row d_in"]:
        """Return at most `count` held-out activations, always the same ones.

        They are scored during training, so reading them must be cheap. Raises NoHeldOut when there are none.
        """
        block = self.block(0, split="eval", seed=0)
        if block is None or not len(block.rows):
            raise NoHeldOut(f"the source has no eval data: {self.more_held_out}")
        return block.rows.x[:count]

    @property
    def drawn_by(self) -> int | None:
        """The seed, among its settings, that draws it; None where nothing of it is drawn."""
        return getattr(self, "seed", None)

    def drawn(self, seed: int) -> "Source":
        """Return this source as another seed draws it; itself where none does."""
        return self if self.drawn_by in (None, seed) else replace(self, seed=seed)  # pyright: ignore

    def counterfactuals(self, count: int, *, split: Split, seed: int) -> Counterfactuals:
        """Return `count` minimal pairs chosen by `seed`; fewer where there are no more.

        Raises ValueError without any.
        """
        raise ValueError(
            f"{type(self).__name__} has no minimal pairs; use a source that has: World, LanguageModel on "
            "--source.text language://…, or LanguageModel with --source.pairs and a file of your own"
        )

    def corrupted(self, count: int, *, share: float, split: Split, seed: int) -> Float[Tensor, "row d_in"]:
        """Return about `count` activations of which a share, in [0, 1], of the causes is replaced at random.

        A language model's tokens are replaced by other tokens, a world's factors by other factors. Raises ValueError
        where causes cannot be replaced.
        """
        raise ValueError(
            f"the causes of a {type(self).__name__}'s activations cannot be replaced; use a source where they can: "
            "World or LanguageModel"
        )

    @abstractmethod
    def available(self, split: Split) -> float:
        """Return the number of rows in `split`; `inf` when there is no end, or none known beforehand.

        In the train split a row counts once for every epoch.
        """

    def sequences(self, split: Split) -> float:
        """Return the number of whole sequences that `contexts` can draw from; `inf` when there is no end."""
        return math.inf

    def predicting(self, split: Split) -> float:
        """Return the number of whole sequences in which a kept token has a next one, for evals that predict it.

        It is `inf` when there is no end, or no text.
        """
        return math.inf

    def check(self) -> None:  # noqa: B027 (most have nothing more to check)
        """Raise ValueError for faults that would otherwise show only midway.

        Called before any work; reads no activations.
        """

    def token_policy(self) -> str:
        """Return a sentence on which tokens are rows, and what comes before them; for `unbraid plan`.

        Empty without text.
        """
        return ""

    @abstractmethod
    def metadata(self) -> Mapping[str, str | int | bool]:
        """Return the facts that SAELens stores about the site, such as model_name, hook_name and context_size."""

    @abstractmethod
    def sample_text(self, count: int) -> list[str]:
        """Return a few windows as the model reads them, decoded; for `unbraid plan`. Empty when there is no text."""

    def token_texts(self, rows: Batch) -> list[str]:
        """Return the text of each row's token, such that rows of one window read as the text does.

        `rows`: in the order of their windows. Empty where there is no text.
        """
        return []

    def next_tokens(self, directions: Float[Tensor, "direction d_in"], count: int) -> NextTokens | None:
        """Return what each direction does to the next token past all later blocks; None where there is no text."""
        return None

    def truth(self) -> Truth:
        """Return the factors behind the activations. Raises NoTruth where they are not known."""
        raise NoTruth(
            f"the factors behind a {type(self).__name__} are not known; a World's are, and a language world's"
        )


CACHE = "cache"
"""The field of a source that says where it writes text it has sampled."""


def with_own_cache(source: Source) -> Source:
    """`source`, writing where its class does by default: a stranger's experiment.json may name any folder."""
    field = next((f for f in fields(source) if f.name == CACHE), None)  # pyright: ignore[reportArgumentType]
    if field is None or getattr(source, CACHE) == field.default:
        return source
    return replace(source, **{CACHE: field.default})  # pyright: ignore[reportArgumentType]


def no_downstream(what: str) -> ValueError:
    """Return the error for a term that needs downstream layers, on a source that has none."""
    return ValueError(f"{what} has no downstream map; use a source that has one: LanguageModel or World")


LEAST_ROWS = 2
"""The least number of held-out activations that can be scored: one alone has no variance."""


def few_rows(source: Source, least: int = LEAST_ROWS) -> str:
    """Return why evals on held-out rows are impossible, and the remedy; empty when they are not.

    Reads no activations.
    """
    rows = source.available("eval")
    return "" if rows >= least else f"the eval split holds {rows:,.0f} tokens; {source.more_held_out}"
