"""The environment: refusals before anything is installed, pip's own words when it fails, nothing half made."""

import shutil
import stat
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from unbraid.saebench import environment
from unbraid.saebench.environment import (
    PINS,
    check_space,
    find,
    folder_of,
    from_interpreter,
    make,
    run,
    suitable_python,
)


def interpreter(path: Path, prints: str, code: int = 0) -> Path:
    path.write_text(f"#!/bin/sh\necho '{prints}'\nexit {code}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_an_environment_of_ones_own_must_have_the_version_that_is_read(tmp_path):
    assert from_interpreter(interpreter(tmp_path / "right", "0.6.0")).sae_bench == "0.6.0"
    with pytest.raises(ValueError, match="has sae-bench 0.5.1; Unbraid reads the results of 0.6.0"):
        from_interpreter(interpreter(tmp_path / "old", "0.5.1"))
    with pytest.raises(ValueError, match="has no sae-bench"):
        from_interpreter(interpreter(tmp_path / "without", "", code=1))
    with pytest.raises(ValueError, match="cannot run"):
        from_interpreter(tmp_path / "nowhere")


def test_without_space_nothing_is_begun(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 1_000_000_000))
    with pytest.raises(ValueError, match="1.0 GB free.*--cache"):
        check_space(tmp_path)


def test_a_failed_installation_ends_with_pips_last_words_and_is_not_taken_for_made(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "run", lambda command, what: run(refusing(command), what))
    told = []
    with pytest.raises(ValueError, match="no environment for sae-bench.*\n.*Could not find.*\n.*--python"):
        make(tmp_path, told.append)
    assert "about 4 minutes" in told[0]
    assert find(tmp_path) is None


def refusing(command):
    if "venv" in command:
        return [sys.executable, "-c", ""]
    return [sys.executable, "-c", "print('ERROR: Could not find a version'); raise SystemExit(1)"]


def test_an_environment_is_made_once_and_found_again(tmp_path, monkeypatch):
    commands = []

    def instead(command, what):
        commands.append(command)
        python = environment.python_in(folder_of(tmp_path))
        python.parent.mkdir(parents=True, exist_ok=True)
        python.touch()

    monkeypatch.setattr(environment, "run", instead)
    monkeypatch.setattr(environment, "imports", lambda python, module: False)
    first = make(tmp_path, lambda text: None)
    installed = len(commands)
    assert any("uninstall" in command for command in commands)
    assert make(tmp_path, lambda text: None) == first == find(tmp_path)
    assert len(commands) == installed


def test_its_python_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert folder_of(Path("cache")) == folder_of(tmp_path / "cache")
    (tmp_path / "bin").mkdir()
    python = interpreter(tmp_path / "bin" / "python", "0.6.0")
    assert from_interpreter(Path("bin/python")).python == python


def test_too_new_a_python_says_which_will_do(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="needs Python 3.11 or 3.12"):
        suitable_python()
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert suitable_python() == "/usr/bin/python3.11"


def test_everything_is_pinned_and_no_index_is_named():
    lines = [line for line in PINS.read_text().splitlines() if not line.startswith("#")]
    assert all(line.count("==") == 1 for line in lines)
    assert {"sae-bench==0.6.0", "numpy==1.26.4", "torch==2.13.0"} <= set(lines)
    assert "://" not in PINS.read_text()
