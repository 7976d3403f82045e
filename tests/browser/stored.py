"""Runs with examples, made by hand where a test needs tokens that no world has."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from tests.known import making
from tests.small import experiment

from unbraid import catalog
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.normaliser import Normaliser
from unbraid.evals.shared.evaluation import Score, evaluate
from unbraid.evals.shared.example_contexts import contexts_of
from unbraid.evals.shared.example_rows import ShownRows
from unbraid.evals.shared.example_tables import contexts_table, latents_table, packed, rows_table
from unbraid.metrics.neighbours import firing_together, nearest_atoms
from unbraid.metrics.sparse_counts import active_rows
from unbraid.metrics.value_histograms import value_histograms
from unbraid.runs.run import Run, save_run
from unbraid.sources.world.world import World


def save(folder: Path, dictionary: Dictionary, world: World, name: str = "made") -> Run:
    """Save a dictionary as a finished run on a world."""
    base = replace(experiment(name), source=world)
    sample = world.sample(512, seed=0).x
    return save_run(folder, making(base, dictionary), dictionary, Normaliser.fit(sample, "none"), sample, {})


def with_examples(run: Run) -> Run:
    """Make the examples of a run."""
    assert evaluate([run], [catalog.evals()["examples"]], force=True) == 0
    return run


def with_text(run: Run, texts: list[str], rows_per_window: int) -> Run:
    """Store examples in which row i is the token i of this text, and the latents fire at random."""
    d_sae = run.dictionary().d_sae
    rng = np.random.default_rng(0)
    codes = csr_array(rng.random((len(texts), d_sae)) * (rng.random((len(texts), d_sae)) < 0.5))
    rows = ShownRows(np.arange(len(texts)) // rows_per_window, np.arange(len(texts)) % rows_per_window, texts, None)
    contexts = contexts_of(codes, rows.windows)
    near = nearest_atoms(torch.from_numpy(rng.normal(size=(d_sae, 4))), 3)
    latents = latents_table(active_rows(codes), value_histograms(codes, 8), near, firing_together(codes, 3), None, None)
    tables = {"latents": latents, "contexts": contexts_table(contexts), "rows": rows_table(rows, contexts)}
    store(run, {name: packed(table) for name, table in tables.items()}, len(texts))
    return run


def store(run: Run, tables: Mapping[str, bytes], rows: int) -> None:
    """Store tables as if the eval had made them."""
    score = lambda run: [Score(metric="rows", value=float(rows), better="neither")]
    files = lambda run: {f"{name}.parquet": table for name, table in tables.items()}
    item = replace(catalog.evals()["examples"], score=score, files=files)
    assert evaluate([run], [item], force=True) == 0


def copied(run: Run, folder: Path) -> Run:
    """Copy a run, for a test that spoils it."""
    return Run.open(Path(shutil.copytree(run.path, folder)))


def told(path: Path) -> tuple[str, list[Any]]:
    """The function that a script of data calls, and what with."""
    text = path.read_text(encoding="utf-8")
    name, _, values = text.removeprefix("unbraid.data.").partition("(")
    return name, json.loads(f"[{values.removesuffix(');' + chr(10))}]")
