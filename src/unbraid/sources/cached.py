"""Activations on disk: the blocks of a source, written once and read back by memory map.

A folder holds one safetensors file a block (x, tokens, documents, positions) and `index.json`: what was harvested, in
which order, and the SHA-256 of every shard. Read with the harvest's seed, block i is the origin's block i, bit for bit.
"""

import errno
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, MinLen
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from unbraid import seeding
from unbraid.config.old_names import upgraded
from unbraid.config.serialise import added, from_json, to_json
from unbraid.config.settings import PositiveInt, Seed, SomeText, checked
from unbraid.sources.base import (
    Batch,
    Block,
    Contexts,
    Counterfactuals,
    NextTokens,
    Source,
    Split,
    passes,
    with_own_cache,
)
from unbraid.sources.cache_files import FORMAT, INDEX, StorageType, fault_of, read_index, row_bytes, settings_of
from unbraid.sources.cached_truth import cached_truth
from unbraid.sources.stream import check_finite
from unbraid.sources.truth import Truth
from unbraid.system.files import clear_leftovers, write_atomically, write_json
from unbraid.system.locks import held

SAMPLES = 8
"""Decoded windows kept in the index."""

Progress = Callable[[Split, int, int | float], None]


@dataclass(frozen=True, kw_only=True)
class Cached(Source):
    """Blocks that `write_cache` put in a folder."""

    more_held_out: ClassVar[str] = "write more of it with `unbraid cache`, from a text with an eval split"

    folder: SomeText
    """The folder of the shards and index.json."""
    epochs: PositiveInt = 1
    """Passes over the shards; from the second on, in another order."""
    downstream_layer: Annotated[int, Ge(-1)] = added(-1)
    """Block of the model behind it at which pushes are measured; -1: the one set when the cache was written."""

    @property
    def d_in(self) -> int:
        return self._index["d_in"]

    @property
    def has_documents(self) -> bool:
        """True when the first shard has two rows of one document: a world's rows are each a document."""
        shards = [shard for split in self._index["shards"].values() for shard in split]
        documents = self._read(shards[0]).rows.documents if shards else torch.empty(0)
        known = documents[documents >= 0]
        return len(known.unique()) < len(known)

    def block(self, index: int, *, split: Split, seed: int) -> Block | None:
        shards = self._shards(split)
        epoch, place = divmod(index, max(len(shards), 1))
        if epoch >= passes(self.epochs, split) or not shards:
            return None
        if epoch == 0 and seed == self._index["seed"]:
            return self._read(shards[place])
        name = "shards" if epoch == 0 else f"shards/{epoch}"
        order = torch.randperm(len(shards), generator=seeding.stream(seed, name))
        return self._read(shards[int(order[place])])

    def contexts(self, count: int, *, split: Split, seed: int) -> Contexts:
        return self.reread().contexts(count, split=split, seed=seed)

    def unpadded_contexts(self, count: int, *, split: Split, seed: int) -> Contexts:
        return self.reread().unpadded_contexts(count, split=split, seed=seed)

    def counterfactuals(self, count: int, *, split: Split, seed: int) -> Counterfactuals:
        return self.reread().counterfactuals(count, split=split, seed=seed)

    def corrupted(self, count: int, *, share: float, split: Split, seed: int) -> Float[Tensor, "row d_in"]:
        return self.reread().corrupted(count, share=share, split=split, seed=seed)

    def sequences(self, split: Split) -> float:
        return math.inf if self.why_not_reread else self.live().sequences(split)

    def predicting(self, split: Split) -> float:
        return math.inf if self.why_not_reread else self.live().predicting(split)

    def token_texts(self, rows: Batch) -> list[str]:
        return [] if self.why_not_reread else self.live().token_texts(rows)

    def next_tokens(self, directions: Float[Tensor, "direction d_in"], count: int) -> NextTokens | None:
        return None if self.why_not_reread else self.live().next_tokens(directions, count)

    def available(self, split: Split) -> float:
        return float(sum(shard["rows"] for shard in self._shards(split)) * passes(self.epochs, split))

    def check(self) -> None:
        """Raise ValueError unless all shards are there in full. Their content is checked as each is read."""
        for shard in (shard for shards in self._index["shards"].values() for shard in shards):
            path = Path(self.folder) / shard["file"]
            if not path.is_file() or path.stat().st_size != shard["bytes"]:
                raise ValueError(
                    f"shard {path} is missing or cut short; run `unbraid cache` again: it rewrites this shard alone"
                )

    def metadata(self) -> Mapping[str, str | int | bool]:
        return self._index["metadata"]

    def origin(self) -> Mapping[str, Any]:
        """Return the settings of the source that the cache was written from."""
        return self._index["source"]

    def live(self) -> Source:
        """Return the source that the cache was written from, one object: it reads its model and text where they are
        needed, which a cache does not hold."""
        return self._live

    def reread(self) -> Source:
        """Return `live`, whose model and text are there. Raises ValueError when they are not, or have changed."""
        if self.why_not_reread:
            raise ValueError(
                f"the cache {self.folder} holds activations alone, and {self.why_not_reread}; mend that, or write "
                "the cache again"
            )
        return self.live()

    @cached_property
    def why_not_reread(self) -> str:
        """Why the source that the cache was written from cannot be read again, or is another one; empty when it can."""
        stored = self.metadata()
        try:
            live = self.live()
            live.check()
            live.sequences("train")  # reads the text
            now = live.metadata()
        except (ValueError, OSError) as error:
            return f"what it was written from cannot be read: {str(error).rstrip('.')}"
        changed = [name for name, value in stored.items() if now.get(name) != value]
        return f"what it was written from has another {', '.join(changed)} now" if changed else ""

    @cached_property
    def _live(self) -> Source:
        origin = from_json(self.origin())
        if not isinstance(origin, Source):
            raise ValueError(f"{Path(self.folder) / INDEX} names no source that it was written from; write it again")
        origin = with_own_cache(origin)
        if self.downstream_layer < 0:
            return origin
        if not hasattr(origin, "downstream_layer"):
            raise ValueError(
                f"downstream_layer {self.downstream_layer} is of a language model, and {self.folder} was written from "
                f"a {type(origin).__name__}; leave it out"
            )
        return replace(origin, downstream_layer=self.downstream_layer)  # pyright: ignore

    def truth(self) -> Truth:
        """Return the factors behind the cached activations: those of the synthetic language, by document and place.

        Raises NoTruth for a cache of anything else.
        """
        return cached_truth(self)

    def token_policy(self) -> str:
        known, named = self.metadata().get("prepend_bos"), self.metadata().get("prepended_token")
        bos = f"{named or 'BOS'} in front of every window, " if named or known else "" if known is None else "no BOS, "
        return f"{bos}tokens as they were cached"

    def sample_text(self, count: int) -> list[str]:
        return self._index["sample_text"][:count]

    @cached_property
    def _index(self) -> dict[str, Any]:
        path = Path(self.folder) / INDEX
        if not path.is_file():
            raise ValueError(
                f"there is no cache of activations at {self.folder!r}; write one with `unbraid cache NAME --to "
                f"{self.folder}`"
            )
        return read_index(path)

    @cached_property
    def _verified(self) -> set[str]:
        return set()

    def _shards(self, split: Split) -> list[dict[str, Any]]:
        written = self._index["shards"]
        if split not in written:
            raise ValueError(f"the cache at {self.folder!r} holds {sorted(written)}, not {split}; write that split too")
        return written[split]

    def _read(self, shard: Mapping[str, Any]) -> Block:
        path = Path(self.folder) / shard["file"]
        if shard["file"] not in self._verified:
            fault = fault_of(path, shard)
            if fault:
                raise ValueError(f"shard {path} {fault}; run write_cache again: it rewrites this shard and no other")
            self._verified.add(shard["file"])
        try:
            with safe_open(path, framework="pt") as tensors:
                columns = [tensors.get_tensor(name) for name in ("x", "tokens", "documents", "positions")]
        except (OSError, SafetensorError) as error:
            raise ValueError(f"shard {path} cannot be read ({error}); run write_cache again") from error
        x, *ids = columns
        return Block(Batch(x.float(), *(column.long() for column in ids)), shard["filtered"])


def write_cache(
    source: Source,
    folder: str | Path,
    *,
    seed: int,
    blocks: int | float = math.inf,
    tokens: int | float = math.inf,
    splits: Sequence[Split] = ("train", "eval"),
    dtype: StorageType = "float32",
    progress: Progress = lambda split, rows, total: None,
) -> Cached:
    """Harvest each split block by block until it has `blocks` blocks or `tokens` rows, or all there is.

    A write that was stopped continues where it stopped, and asking for more later adds to what is there: shards already
    written are checked against their SHA-256 and kept. `progress` hears, after each shard, the rows of a split so far
    and about how many there will be.
    """

    def blocks_of(index: int, *, split: Split, seed: int) -> list[Block] | None:
        found = source.block(index, split=split, seed=seed)
        return None if found is None else [found]

    asked = {"seed": seed, "blocks": blocks, "tokens": tokens, "splits": splits, "dtype": dtype, "progress": progress}
    return write_caches({folder: source}, blocks_of, **asked)[0]


def write_caches(
    sources: Mapping[str | Path, Source],
    blocks_of: Callable[..., Sequence[Block] | None],
    *,
    seed: int,
    blocks: int | float = math.inf,
    tokens: int | float = math.inf,
    splits: Sequence[Split] = ("train", "eval"),
    dtype: StorageType = "float32",
    progress: Progress = lambda split, rows, total: None,
) -> list[Cached]:
    """Write a cache of each source, by folder, from blocks that are read together.

    blocks_of: called with an index, the split and the seed; gives each source's block, or None past the end. Otherwise
    as `write_cache`; `progress` hears of the cache that has the fewest rows.
    """
    checked("seed", seed, Seed)
    checked("dtype", dtype, StorageType)
    checked("splits", tuple(splits), Annotated[tuple[Split, ...], MinLen(1)])
    for name, most in (("blocks", blocks), ("tokens", tokens)):
        if most != math.inf:  # no end to what is wanted
            checked(name, most, PositiveInt)
    homes = [Path(folder) for folder in sources]
    with held(homes):
        caches = [Growing.started(home, of, seed, dtype) for home, of in zip(homes, sources.values(), strict=True)]
        for split in splits:
            _continued(caches, split, partial(blocks_of, split=split, seed=seed), blocks, tokens, progress)
        for cache in caches:
            cache.write_index()
    return [Cached(folder=str(folder)) for folder in sources]


def _continued(
    caches: "Sequence[Growing]", split: Split, read: Callable[[int], Sequence[Block] | None], blocks: int | float,
    tokens: int | float, progress: Progress,
) -> None:  # fmt: skip
    """Add to a split of caches whose folders are ours."""
    total = min(tokens, caches[0].source.available(split))
    if math.isinf(min(blocks, total)):
        raise ValueError(f"the {split} split has no end; say how many blocks or tokens of it to keep")
    rows, number = [0] * len(caches), 0
    while min(rows) < tokens and number < blocks:
        growing = [place for place in range(len(caches)) if rows[place] < tokens]
        lacking = [place for place in growing if caches[place].lacks(split, number)]
        if lacking:
            found = read(number)
            if found is None:
                break
            for place in lacking:
                missing = min(total - rows[place], (blocks - number) * len(found[place].rows))
                caches[place].write(found[place], split, number, missing)
        for place in growing:
            rows[place] += caches[place].shards(split)[number]["rows"]
        number += 1
        progress(split, min(rows), total)


@dataclass(frozen=True)
class Growing:
    """A cache that is being written."""

    home: Path
    source: Source
    index: dict[str, Any]

    @staticmethod
    def started(home: Path, source: Source, seed: int, dtype: StorageType) -> "Growing":
        """Return the cache to continue. Raises ValueError when the folder was written from something else."""
        index = _started(home, source, seed=seed, dtype=dtype)
        clear_leftovers(home, held=True)
        return Growing(home, source, index)

    def shards(self, split: Split) -> list[dict[str, Any]]:
        return self.index["shards"].setdefault(split, [])

    def lacks(self, split: Split, number: int) -> bool:
        """Return whether a shard is not there, or not whole."""
        known = self.shards(split)
        return number >= len(known) or bool(fault_of(self.home / known[number]["file"], known[number]))

    def write(self, block: Block, split: Split, number: int, missing: int | float) -> None:
        """Write one block; `missing` rows of its split, these included, are still to be written."""
        shard = _write_shard(block, self.home, f"{split}-{number:05d}", self.index["dtype"], missing)
        self.shards(split)[number : number + 1] = [shard]
        self.write_index()

    def write_index(self) -> None:
        write_json(self.home / INDEX, self.index)


def _started(home: Path, source: Source, *, seed: int, dtype: StorageType) -> dict[str, Any]:
    """Return the index to continue. Raises ValueError when the folder was written from something else."""
    expected = {"format": FORMAT, "source": to_json(source), "seed": seed, "dtype": dtype}
    path = home / INDEX
    if path.is_file():
        index = read_index(path)
        was, now = settings_of({**index, "source": upgraded(index["source"])}), settings_of(expected)
        differing = sorted(key for key in was.keys() | now.keys() if was.get(key) != now.get(key))
        if differing:
            raise ValueError(f"{home} was written with other settings ({', '.join(differing)}); give another folder")
        return index
    metadata, sample_text = dict(source.metadata()), source.sample_text(SAMPLES)
    return {**expected, "d_in": source.d_in, "metadata": metadata, "sample_text": sample_text, "shards": {}}


def narrowed(ids: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
    """Return ids in 32 bits where they fit, as those of all text do: half the bytes."""
    least, most = (int(ids.min()), int(ids.max())) if len(ids) else (0, 0)
    limits = torch.iinfo(torch.int32)
    return ids.int() if limits.min <= least and most <= limits.max else ids


def _write_shard(block: Block, home: Path, name: str, dtype: StorageType, missing: int | float) -> dict[str, Any]:
    """Write one block; `missing` rows of its split, these included, are still to be written."""
    rows = block.rows.to("cpu")
    check_finite(rows.x, name)
    columns = {"tokens": rows.tokens, "documents": rows.documents, "positions": rows.positions}
    narrow = {name: narrowed(column).contiguous() for name, column in columns.items()}
    data = save({"x": rows.x.to(getattr(torch, dtype)).contiguous(), **narrow})
    file = f"{name}.safetensors"

    def write(partial: Path) -> None:
        partial.write_bytes(data)

    try:
        write_atomically(home / file, write)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        more = missing * row_bytes(rows.x.shape[1], dtype)
        raise OSError(
            error.errno,
            f"the disk is full: this shard needs {len(data):,} bytes, and what is left of its split about {more:,.0f}; "
            "free some space and run this again, it continues where it stopped",
            str(home / file),
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    return {"file": file, "rows": len(rows), "filtered": block.filtered, "sha256": digest, "bytes": len(data)}
