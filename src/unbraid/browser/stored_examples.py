"""The examples of a run, read from its folder and checked: what they point to must be there."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unbraid.evals.shared.example_tables import SCHEMAS, unpacked
from unbraid.runs.results import read_file, read_result, result_path
from unbraid.runs.run import Run

EVAL = "examples"


@dataclass(frozen=True, eq=False)
class StoredExamples:
    """The tables of the eval `examples`."""

    latents: pa.Table
    contexts: pa.Table
    rows: pa.Table
    factors: pa.Table | None
    """None where the factors are not known."""
    held_out: int
    """Rows in which firings are counted."""

    @property
    def has_text(self) -> bool:
        """True where rows are tokens of a text."""
        return self.rows.num_rows > 0 and self.rows["text"].null_count == 0


def read_examples(run: Run) -> StoredExamples:
    """Read the examples of a run. Raises ValueError, with the command that makes them, when there are none."""
    result = examples_result(run)
    parts = {name.split(".")[1] for name in result["files"]}
    tables: dict[str, pa.Table] = {}
    for part in SCHEMAS:
        if part not in parts and part == "factors":
            continue
        try:
            tables[part] = unpacked(part, read_file(run.path, result, f"{part}.parquet"))
        except ValueError as error:
            raise ValueError(f"the examples of {run.path} cannot be read: {error}; {command(run)} --force") from error
    (held_out,) = [row["value"] for row in result["scores"] if row["metric"] == "rows"]
    found = StoredExamples(tables["latents"], tables["contexts"], tables["rows"], tables.get("factors"), int(held_out))
    if fault := fault_of(found, run.dictionary().d_sae):
        raise ValueError(f"the examples of {run.path} are damaged: {fault}; {command(run)} --force")
    return found


def examples_result(run: Run) -> dict[str, Any]:
    """Read the result of the eval. Raises ValueError where it has no tables of these weights."""
    path = result_path(run.path, EVAL)
    if not path.exists():
        raise ValueError(f"{run.path} has no examples to show; {command(run)}")
    result = read_result(path)
    reason = result.get("error") or result.get("not_applicable")
    if reason:
        raise ValueError(f"{run.path} has no examples to show, as making them ended so: {reason}; {command(run)}")
    if result.get("weights", "") != run.facts.weights or "files" not in result:
        raise ValueError(f"the examples of {run.path} are of other weights than it has now; {command(run)}")
    return result


def command(run: Run) -> str:
    """The remedy."""
    return f"make them with: unbraid eval {run.path} --evals {EVAL}"


def fault_of(found: StoredExamples, d_sae: int) -> str:
    """The fault that would lead a page astray; empty when there is none."""
    contexts, rows = found.contexts, found.rows["row"].to_numpy()
    factors = found.factors.num_rows if found.factors is not None else 0
    if found.latents.num_rows != d_sae:
        return f"they are of {found.latents.num_rows} latents, and the dictionary has {d_sae}"
    if not within(contexts["latent"], d_sae):
        return "a context is of a latent that there is not"
    if not (np.isin(contexts["row"].to_numpy(), rows).all() and (np.diff(rows) > 0).all()):
        return "a context is of a row that is not stored"
    start, stop = contexts["start"].to_numpy(), contexts["stop"].to_numpy()
    if contexts.num_rows and not (start.min() >= 0 and (start < stop).all() and stop.max() <= rows[-1] + 1):
        return "a context leaves the rows"
    named = [pc.list_flatten(found.latents["absorbs"]), pc.list_flatten(found.rows["factors"])]  # pyright: ignore
    matched = pc.filter(found.latents["factor"], pc.greater_equal(found.latents["factor"], 0))  # pyright: ignore
    if not all(within(column, factors) for column in (*named, matched)):
        return "a factor is named that there is not"
    neighbours = [pc.list_flatten(found.latents[name]) for name in ("near", "together")]  # pyright: ignore
    return "" if all(within(column, d_sae) for column in neighbours) else "a neighbour is named that there is not"


def within(column: pa.ChunkedArray, count: int) -> bool:
    """True when all values are in [0, count)."""
    values = column.drop_null().to_numpy()
    return not len(values) or (int(values.min()) >= 0 and int(values.max()) < count)
