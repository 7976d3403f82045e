"""The files of a cache of activations: its index, checked as it is read, faults of its shards, and what all take."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from unbraid.sources.base import Block, Source, Split
from unbraid.system.files import inside, read_json, sha256

FORMAT = 1
INDEX = "index.json"
EVAL_ROWS = 32_768
"""Number of held-out activations that a cache keeps: those that the evals read."""
INDEX_BYTES = 1_500
"""Of the index without its shards, about: settings of the source and some of its text."""
SHARD_BYTES = 600
"""Bytes of a shard's header and its line in the index, about."""

StorageType = Literal["float32", "bfloat16"]


def row_bytes(d_in: int, dtype: StorageType) -> int:
    """Return the bytes of a row on disk: its activations, its token, its document and its position."""
    return d_in * (4 if dtype == "float32" else 2) + 3 * 4


def cache_bytes(source: Source, block: Block, tokens: int, dtype: StorageType = "float32") -> int:
    """Return the bytes on disk of `tokens` training rows and the eval split's, in whole blocks as they are written.

    `block` is any block of the source: it shows the size of a block and the share of rows that the norm filter drops.
    """
    each = len(block.rows)
    share = each / (each + block.filtered)

    def rows(split: Split, wanted: int) -> int | float:
        try:
            there = source.available(split) * share
        except ValueError:  # a cache without an eval split
            there = 0.0
        return min(there, math.ceil(wanted / each) * each)

    total = rows("train", tokens) + rows("eval", EVAL_ROWS)
    return round(total * row_bytes(block.rows.x.shape[1], dtype) + INDEX_BYTES + math.ceil(total / each) * SHARD_BYTES)


def fault_of(path: Path, shard: Mapping[str, Any]) -> str:
    """Return the fault of a shard, as the end of a sentence; empty when there is none."""
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != shard["bytes"]:
        return f"is cut short or overwritten ({size:,} bytes, not {shard['bytes']:,})"
    return "" if sha256(path) == shard["sha256"] else "is corrupt (its SHA-256 is not the one in index.json)"


def read_index(path: Path) -> dict[str, Any]:
    """Return the checked index of a cache.

    Raises ValueError for another format, a faulty field, or a shard elsewhere.
    """
    index = read_json(path)
    if index.get("format") != FORMAT:
        raise ValueError(f"{path} has format {index.get('format')}, not {FORMAT}; run write_cache into a new folder")
    if fault := index_fault(index):
        raise ValueError(f"{path}: {fault}; delete the folder and write the cache again")
    for shard in (shard for shards in index["shards"].values() for shard in shards):
        inside(path.parent, shard["file"], f"a shard's name in {path}")
    return index


FIELDS: Mapping[str, type] = {"d_in": int, "seed": int, "source": dict, "metadata": dict, "sample_text": list,
                              "shards": dict}  # fmt: skip
SHARD_FIELDS: Mapping[str, type] = {"file": str, "rows": int, "filtered": int, "sha256": str, "bytes": int}


def index_fault(index: Mapping[str, Any]) -> str:
    """Return the fault of an index: a field that is missing or of another kind; empty when there is none."""
    if name := wrong(index, FIELDS):
        return f"{name!r} is missing, or not what write_cache puts there"
    shards = [shard for found in index["shards"].values() for shard in (found if isinstance(found, list) else [found])]
    for shard in shards:
        if not isinstance(shard, dict) or (name := wrong(shard, SHARD_FIELDS)):
            return f"the shard {shard!r:.60} is not what write_cache puts there"
    return "" if index["d_in"] > 0 else f"'d_in' is {index['d_in']}"


def wrong(found: Mapping[str, Any], fields: Mapping[str, type]) -> str:
    """Return the first field that is missing, of another type, or below 0; empty when there is none."""
    kept = lambda value, kind: isinstance(value, kind) and not (kind is int and (isinstance(value, bool) or value < 0))
    return next((name for name, kind in fields.items() if not kept(found.get(name), kind)), "")


def settings_of(index: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a cache was, or would be, written from, by name."""
    return {"seed": index["seed"], "dtype": index["dtype"]} | {f"source.{k}": v for k, v in index["source"].items()}
