"""The causal cards of a run, read from its folder and checked; a browser shows them where they were made."""

import io
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from unbraid.browser.stored_examples import within
from unbraid.evals.causal_cards import SCHEMA
from unbraid.runs.results import read_file, read_result, result_path
from unbraid.runs.run import Run

EVAL = "causal_cards"


class StoredCards(NamedTuple):
    """The cards by latent, and what holds for all of them."""

    by_latent: dict[int, dict[str, Any]]
    budget: float
    """In nats."""
    random: float
    """Median length of random directions that spend the budget, in median norms of the activations."""


def read_cards(run: Run) -> StoredCards | None:
    """Read the cards of a run; None where they were not made, or of other weights. Raises ValueError when they are
    damaged, with the command that makes them anew."""
    path = result_path(run.path, EVAL)
    if not path.exists():
        return None
    result = read_result(path)
    if result.get("weights", "") != run.facts.weights or "files" not in result:
        return None
    remedy = f"make them anew with: unbraid eval {run.path} --evals {EVAL} --force"
    try:
        table = pq.read_table(io.BytesIO(read_file(run.path, result, "latents.parquet")))
    except (ValueError, OSError, pa.ArrowException) as error:
        raise ValueError(f"the causal cards of {run.path} cannot be read: {error}; {remedy}") from error
    d_sae = run.dictionary().d_sae
    if not table.schema.equals(SCHEMA):
        raise ValueError(f"the causal cards of {run.path} have other columns than are read here; {remedy}")
    if not (
        within(table["latent"], d_sae) and within(pa.chunked_array([table["with"].combine_chunks().flatten()]), d_sae)
    ):
        raise ValueError(f"the causal cards of {run.path} name a latent that there is not; {remedy}")
    scores = {(row["metric"], row["kind"]): row["value"] for row in result["scores"]}
    cards = {row["latent"]: row for row in table.to_pylist()}
    return StoredCards(cards, scores["budget", "measured"], scores["length", "chance"])
