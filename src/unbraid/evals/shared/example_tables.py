"""The tables of the eval `examples`: their columns, and how they become Parquet and are read back."""

import io
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unbraid.evals.shared.example_contexts import ExampleContexts
from unbraid.evals.shared.example_rows import ShownRows
from unbraid.evals.shared.factor_matches import FactorMatches
from unbraid.metrics.neighbours import Neighbours
from unbraid.metrics.value_histograms import Histograms
from unbraid.sources.base import NextTokens
from unbraid.sources.truth import Truth

NUMBERS, INDEXES, TEXTS = pa.list_(pa.float32()), pa.list_(pa.int32()), pa.list_(pa.string())
SCHEMAS: Mapping[str, pa.Schema] = {
    "latents": pa.schema(
        {
            "fires": pa.int32(), "lowest": pa.float32(), "highest": pa.float32(), "histogram": INDEXES,
            "near": INDEXES, "near_cosine": NUMBERS, "together": INDEXES, "together_phi": NUMBERS,
            "promoted": TEXTS, "promoted_by": NUMBERS, "suppressed": TEXTS, "suppressed_by": NUMBERS,
            "factor": pa.int32(), "represents": pa.bool_(), "precision": pa.float32(), "recall": pa.float32(),
            "f1": pa.float32(), "cosine": pa.float32(), "absorbs": INDEXES, "absorbs_share": NUMBERS,
        }
    ),
    "contexts": pa.schema(
        {
            "latent": pa.int32(), "band": pa.int8(), "row": pa.int32(), "start": pa.int32(), "stop": pa.int32(),
            "fired": INDEXES, "values": NUMBERS,
        }
    ),
    "rows": pa.schema(
        {
            "row": pa.int32(), "window": pa.int32(), "position": pa.int32(), "text": pa.string(),
            "factors": INDEXES, "magnitudes": NUMBERS,
        }
    ),
    "factors": pa.schema({"name": pa.string(), "parent": pa.int32()}),
}  # fmt: skip
"""Columns by table; a row of `latents` and `factors` is the one of its number."""


def packed(table: pa.Table) -> bytes:
    """Return a table as Parquet."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def unpacked(name: str, content: bytes) -> pa.Table:
    """Read a table back. Raises ValueError when it is no such table."""
    try:
        table = pq.read_table(io.BytesIO(content))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"it is no Parquet that can be read ({' '.join(str(error).split())[:160]})") from error
    if not table.schema.equals(SCHEMAS[name]):
        raise ValueError(f"it has the columns {table.schema.names}, expected {SCHEMAS[name].names}")
    return table


def latents_table(
    fires: np.ndarray, histograms: Histograms, near: Neighbours, together: Neighbours, next_tokens: NextTokens | None,
    matches: FactorMatches | None,
) -> pa.Table:  # fmt: skip
    """Return the table of latents."""
    columns: dict[str, object] = {
        "fires": fires, "lowest": histograms.lowest, "highest": histograms.highest, "histogram": [*histograms.counts],
        "near": [*near.latents], "near_cosine": [*near.closeness],
        "together": [row[row >= 0] for row in together.latents],
        "together_phi": [row[other >= 0] for row, other in zip(together.closeness, together.latents, strict=True)],
    }  # fmt: skip
    if next_tokens is not None:
        columns |= {"promoted": next_tokens.promoted, "promoted_by": [*next_tokens.promoted_by.numpy()]}
        columns |= {"suppressed": next_tokens.suppressed, "suppressed_by": [*next_tokens.suppressed_by.numpy()]}
    if matches is not None:
        named = ("factor", "represents", "precision", "recall", "f1", "cosine")
        columns |= {name: getattr(matches, name) for name in named}
        absorbs = [matches.absorbs.get(latent, []) for latent in range(len(fires))]
        columns |= {"absorbs": [[factor for factor, _ in pairs] for pairs in absorbs]}
        columns |= {"absorbs_share": [[share for _, share in pairs] for pairs in absorbs]}
    return table_of("latents", len(fires), columns)


def contexts_table(contexts: ExampleContexts) -> pa.Table:
    """Return the table of contexts."""
    columns: dict[str, object] = {name: getattr(contexts, name) for name in ("latent", "band", "row", "start", "stop")}
    columns["fired"], columns["values"] = (ragged(flat, contexts.bounds) for flat in (contexts.fired, contexts.values))
    return table_of("contexts", len(contexts.latent), columns)


def rows_table(rows: ShownRows, contexts: ExampleContexts) -> pa.Table:
    """Return the table of rows: all words of a text, and else those that contexts are of."""
    which = np.arange(len(rows.windows)) if rows.texts else np.unique(contexts.row)
    columns: dict[str, object] = {"row": which, "window": rows.windows[which], "position": rows.positions[which]}
    if rows.texts:
        columns["text"] = rows.texts
    if rows.factors is not None:
        active = rows.factors[which]
        columns["factors"], columns["magnitudes"] = (ragged(f, active.indptr) for f in (active.indices, active.data))
    return table_of("rows", len(which), columns)


def factors_table(truth: Truth) -> pa.Table:
    """Return the table of factors."""
    return table_of("factors", len(truth.names), {"name": [*truth.names], "parent": truth.parents.numpy()})


def ragged(flat: np.ndarray, bounds: np.ndarray) -> list[np.ndarray]:
    """Return the parts of an array between these bounds."""
    return [flat[start:stop] for start, stop in pairwise(bounds.tolist())]


def table_of(name: str, length: int, columns: Mapping[str, object]) -> pa.Table:
    """Return a table with the columns of its schema; those that are not given hold nulls."""
    schema = SCHEMAS[name]
    made = {
        field.name: pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(length, field.type)
        for field in schema
    }
    return pa.table(made, schema=schema)
