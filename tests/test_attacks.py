"""A stranger's folder does no harm (faults 19, 20, 21): every attack of `attacks` comes to nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks import ATTACKS, Stage
from tests.finished_runs import make_language_run, make_world_run
from tests.quick import every_second_quick


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("finished")
    yield make_world_run(folder), make_language_run(folder)


@pytest.mark.parametrize("name", every_second_quick(ATTACKS))
def test_faults_19_20_21_an_attack_comes_to_nothing(
    name: str, finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stage = Stage(tmp_path / "stage", *finished)
    ATTACKS[name](stage)
    assert stage.harm() == "", stage.said[-2000:]
    assert stage.codes, "the attack ran no command"
