"""Whatever happens to a file of a run folder, it is refused in a sentence, or gives the weights and scores it had."""

import shutil
from pathlib import Path

import pytest

from tests.mutations import FAULTS, Mutation, files_of, mutations, try_mutation
from tests.quick import first_quick
from tests.small import experiment, seeded
from tests.spoiled import unsealed
from unbraid import catalog
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.evals.shared.evaluation import evaluate
from unbraid.runs.run import Run
from unbraid.training.loop import train

COUNT = 42
"""Mutations: every kind of damage three times."""
CHANGES = ("flip", "bytes", "head", "truncate", "insert", "zeros")
"""What changes the bytes of weights."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two finished runs, scored."""
    cohort = [experiment("jump", activation=JumpReLU()), seeded(experiment("topk", activation=TopK(3)), 1)]
    folders = train(cohort, tmp_path_factory.mktemp("runs"))
    assert evaluate([Run.open(folder) for folder in folders], [catalog.evals()["fidelity"]]) == 0
    return folders


@pytest.mark.parametrize("number", first_quick(range(COUNT)))
def test_faults_03_10_19_any_damage_is_refused_or_changes_nothing(number: int, runs: list[Path], tmp_path: Path):
    run, other = runs[number % 2], runs[1 - number % 2]
    mutation = [*mutations(seed=1, files=files_of(run), count=COUNT)][number]
    outcome, said = try_mutation(mutation, run, tmp_path / "work", [other])
    assert outcome not in FAULTS, f"{mutation}: {said}"


@pytest.mark.parametrize("number", first_quick(range(28)))
def test_damage_to_a_folder_older_than_seals_ends_in_a_sentence(number: int, runs: list[Path], tmp_path: Path):
    """What only a seal can show may pass there: another seed, another digit of a weight."""
    run = unsealed(Path(shutil.copytree(runs[number % 2], tmp_path / runs[number % 2].name)))
    mutation = [*mutations(seed=2, files=files_of(run), count=28)][number]
    outcome, said = try_mutation(mutation, run, tmp_path / "work", [runs[1 - number % 2]])
    assert outcome in ("same", "refused", "changed"), f"{mutation}: {said}"


@pytest.mark.parametrize("seed", first_quick(range(33)))
def test_fault_03_changed_weights_are_never_scored(seed: int, runs: list[Path], tmp_path: Path):
    mutation = Mutation("sae_weights.safetensors", CHANGES[seed % len(CHANGES)], seed)
    outcome, said = try_mutation(mutation, runs[0], tmp_path / "work")
    assert outcome == "refused" or said == "nothing changed", f"{mutation}: {outcome}, {said}"
