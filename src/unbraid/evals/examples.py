"""Examples: what a person needs to see of every latent, stored as tables for `unbraid browse`.

    results/examples.latents.parquet    a row a latent: histogram of its values, neighbours, next tokens, factor
    results/examples.contexts.parquet   a row a context: the strongest places of a latent, and samples of the rest
    results/examples.rows.parquet       the held-out rows that contexts are stretches of: tokens, or active factors
    results/examples.factors.parquet    the factors, where they are known

All on the held-out rows of the other evals, which are read and encoded once for all of them. It is run only when it is
named: the tables take a few megabytes a run, which `size` states.
"""

from collections.abc import Mapping

import numpy as np
import torch

from unbraid.dictionary.dictionary import Dictionary
from unbraid.evals.shared.evaluation import Score
from unbraid.evals.shared.example_contexts import contexts_of
from unbraid.evals.shared.example_rows import codes_of, shown_rows, truth_of
from unbraid.evals.shared.example_tables import contexts_table, factors_table, latents_table, packed, rows_table
from unbraid.evals.shared.factor_matches import factor_matches
from unbraid.metrics.neighbours import firing_together, nearest_atoms
from unbraid.metrics.sparse_counts import active_rows
from unbraid.metrics.value_histograms import value_histograms
from unbraid.runs.run import Run
from unbraid.sources.base import Source
from unbraid.sources.behind import asked_behind
from unbraid.system.sharing import shared

VERSION = 1
BY_DEFAULT = False
DEFINITIONS = {
    "contexts": "contexts stored for a latent, mean over latents that fire on the held-out rows",
    "rows": "held-out rows in which firings are counted",
    "size": "size of the stored tables, in megabytes",
}
BINS = 24
NEIGHBOURS = 8
NEXT_TOKENS = 8


def examples(run: Run) -> list[Score]:
    """Count what is stored for a run."""
    tables = tables_of(run.dictionary(), run.source)
    contexts, living, rows = tables["counts"].tolist()
    size = sum(len(table) for name, table in tables.items() if name != "counts") / 1e6
    return [
        Score(metric="contexts", value=contexts / living if living else float("nan"), better="neither"),
        Score(metric="rows", value=float(rows), better="neither"),
        Score(metric="size", value=size, better="neither"),
    ]


def files(run: Run) -> Mapping[str, bytes]:
    """Return the tables of a run, as Parquet."""
    tables = tables_of(run.dictionary(), run.source)
    return {f"{name}.parquet": table.tobytes() for name, table in tables.items() if name != "counts"}


@shared
@torch.no_grad()
def tables_of(dictionary: Dictionary, source: Source) -> dict[str, np.ndarray]:
    """Make the tables of a dictionary of raw activations, as arrays of bytes; and count contexts, living latents and
    rows."""
    rows, truth = shown_rows(source), truth_of(source)
    codes = codes_of(dictionary, source, rows)
    contexts = contexts_of(codes, rows.windows)
    atoms = dictionary.unit_atoms().detach().float().cpu()
    matches = None if truth is None else factor_matches(dictionary, truth)
    fires = active_rows(codes)
    tables = {
        "latents": latents_table(
            fires, value_histograms(codes, BINS), nearest_atoms(atoms, NEIGHBOURS), firing_together(codes, NEIGHBOURS),
            asked_behind(source, "next tokens", lambda found: found.next_tokens(atoms, NEXT_TOKENS), None), matches,
        ),
        "contexts": contexts_table(contexts),
        "rows": rows_table(rows, contexts),
    }  # fmt: skip
    if truth is not None:
        tables["factors"] = factors_table(truth)
    counts = {"counts": np.array([len(contexts.latent), np.sum(fires > 0), len(rows.windows)])}
    return counts | {name: np.frombuffer(packed(table), dtype=np.uint8) for name, table in tables.items()}
