"""Stitching: a copy restates everything, strangers nothing, and an untrained pair of one seed half."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.small import WORLD, experiment
from torch import Tensor

from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.normaliser import Normaliser
from unbraid.evals.shared.evaluation import NotApplicable
from unbraid.evals.stitching import DEFINITIONS, novel, peers, stitching
from unbraid.runs.run import Run, save_run

THREE = TopK(3)


def units(count: int, d_in: int, seed: int) -> Tensor:
    atoms = torch.randn(count, d_in, generator=torch.Generator().manual_seed(seed))
    return atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True)


def saved(root: Path, d_sae: int, atoms: Tensor | None = None, seed: int = 0) -> Run:
    """Untrained, or with these atoms."""
    made_by = replace(experiment(f"w{d_sae}"), dictionary=DictionaryConfig(d_sae=d_sae, activation=THREE), seed=seed)
    sample = WORLD.sample(512, seed=0).x
    dictionary = made_by.dictionary.build(sample, seed=seed)
    if atoms is not None:
        dictionary.W_dec.data.copy_(atoms)
        dictionary.W_enc.data.copy_(atoms.T)
    return save_run(root / made_by.folder, made_by, dictionary, Normaliser.fit(sample, "none"), sample, {})


def scored(run: Run) -> dict[tuple[str, str], float]:
    return {(s.metric, s.kind): s.value for s in stitching(run, peers(run))}


def test_shares_are_counted_by_hand():
    atoms = torch.tensor([[1.0, 0, 0], [0.8, 0.6, 0], [0.6, 0.8, 0], [0, 0, 1], [-1, 0, 0]])
    assert novel(atoms, atoms[:1]) == 3 / 5, "0.8 is close, 0.6 is not, and an opposite is not the same"
    assert math.isnan(novel(atoms[:0], atoms))


def test_copies_restate_everything_and_strangers_nothing():
    atoms = units(64, 64, 0)
    assert novel(atoms.repeat(2, 1), atoms) == 0
    assert novel(units(128, 64, 1), atoms) == 1


def test_an_untrained_pair_of_one_seed_is_at_the_stated_chance(tmp_path: Path):
    saved(tmp_path, 64)
    found = scored(saved(tmp_path, 128))
    assert found["novel", "measured"] == pytest.approx(found["novel", "chance"], abs=0.1)
    assert found["novel", "measured"] + found["restated", "measured"] == pytest.approx(1)
    assert {metric for metric, _ in found} == set(DEFINITIONS)


def test_dead_latents_are_not_counted(tmp_path: Path):
    """Of the wider one's latents half are the narrower one's; the others are new, and never fire."""
    narrow = saved(tmp_path, 64)
    wide = saved(tmp_path, 128)
    dictionary = wide.dictionary()
    dictionary.W_enc[:, 64:] = 0
    dictionary.b_enc[64:] = -1e6
    sample = WORLD.sample(512, seed=0).x
    save_run(wide.path, wide.experiment, dictionary, Normaliser.fit(sample, "none"), sample, {})
    assert torch.equal(narrow.dictionary().W_dec, wide.dictionary().W_dec[:64])
    assert scored(wide)["novel", "measured"] == 0


def test_the_peer_is_the_run_of_half_the_width_and_the_same_seed(tmp_path: Path):
    narrow, wide = saved(tmp_path, 64), saved(tmp_path, 128)
    saved(tmp_path, 32)
    stranger = saved(tmp_path, 256, seed=1)
    assert [run.path for run in peers(wide)] == [narrow.path]
    with pytest.raises(NotApplicable, match="half of this one's 256"):
        stitching(stranger, peers(stranger))


def test_latents_that_never_fire_score_nan(tmp_path: Path):
    saved(tmp_path, 64)
    wide = saved(tmp_path, 128)
    silent: Dictionary = wide.dictionary()
    silent.b_enc.fill_(-1e6)
    sample = WORLD.sample(512, seed=0).x
    save_run(wide.path, wide.experiment, silent, Normaliser.fit(sample, "none"), sample, {})
    assert math.isnan(scored(wide)["novel", "measured"])
