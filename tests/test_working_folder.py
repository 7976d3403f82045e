"""No code that lies in the working folder runs, unless --package names it (fault 20)."""

import os
import subprocess
import sys
from pathlib import Path

import annotated_types
import pytest

from unbraid.runs import provenance
from unbraid.saebench import environment

SRC = str(Path(provenance.__file__).parents[2])
NAMES = ("argparse", "subprocess", "threading", "fnmatch", "pandas", "torch", "plotly", "jinja2", "csv", "email",
         "venv", "pip", "sae_bench", "importlib_metadata", "tempfile", "rich", "psutil")  # fmt: skip


@pytest.fixture
def trapped(tmp_path: Path) -> Path:
    """A folder where modules lie that leave a mark when they run."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(
            f"open({str(tmp_path / 'RAN')!r}, 'a').write({name + ' '!r})\nraise SystemExit(9)"
        )
    return tmp_path


def ran(command: list[str], folder: Path, **more: str) -> str:
    """What the command printed; its traps must not have run."""
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**environ, **more})
    mark = folder / "RAN"
    assert not mark.exists(), mark.read_text()
    assert done.returncode == 0, done.stderr
    return done.stdout


def unbraid(*words: str) -> list[str]:
    """The command line as its script starts it, which has its own folder first in the path."""
    code = f"import sys; sys.path.append({SRC!r}); from unbraid.cli.main import main; sys.exit(main())"
    return [sys.executable, "-P", "-c", code, *words]


IN_A_WORKER = """
import sys
sys.path.append({src!r})
from unbraid.cli.worker_process import Task
from unbraid.cli.workers import crew_here, in_background
if __name__ == "__main__":
    import os
    with in_background([Task("folder", os.getcwd)], crew_here(1, 1)) as work:
        pass
    print(work.failures or work.results)
"""


def test_fault_20_what_demo_and_study_start_runs_nothing_of_the_working_folder(trapped):
    script = trapped / "elsewhere" / "script.py"
    script.parent.mkdir()
    script.write_text(IN_A_WORKER.format(src=SRC))
    assert str(trapped) in ran([sys.executable, str(script)], trapped)


def test_fault_20_nor_does_the_command_line_as_a_module(trapped):
    assert "demo_world" in ran([sys.executable, "-m", "unbraid.cli", "list"], trapped, PYTHONPATH=SRC)


def test_the_command_line_is_found_where_it_is_the_working_folder_alone_that_has_it(tmp_path):
    """Run from src, not installed: of site-packages only what lies beside is on the path."""
    libraries = Path(annotated_types.__file__).parents[1]
    shown = subprocess.run(
        [sys.executable, "-S", "-c", "import sys; sys.argv[0]='-m'; import runpy; sys.path.insert(0, ''); "
         f"sys.path.append({str(libraries)!r}); "
         "runpy.run_module('unbraid.cli', run_name='__main__', alter_sys=True)", "--help"],
        cwd=SRC, capture_output=True, text=True,
    )  # fmt: skip
    assert shown.returncode == 0 and "unbraid" in shown.stdout, shown.stderr


@pytest.mark.slow  # the start of Python, torch and all, twice; the two tests before it start it once each
def test_fault_20_a_package_of_the_users_own_is_still_found_and_comes_last(trapped):
    package = trapped / "mine"
    (package / "studies").mkdir(parents=True)
    for place in (package, package / "studies"):
        (place / "__init__.py").write_text("")
    (package / "studies" / "own_world.py").write_text(
        "from unbraid.experiment.experiment import Experiment\nfrom unbraid.studies.world import world\n\n\n"
        "def own_world() -> Experiment:\n    'Ours.'\n    return world()\n"
    )
    assert "own_world" in ran(unbraid("list", "--package", "mine"), trapped)
    assert "own_world" in ran(
        [sys.executable, "-m", "unbraid.cli", "list", "--package", "mine"], trapped, PYTHONPATH=SRC
    )


def test_fault_20_asking_an_interpreter_for_saebench_runs_nothing_of_the_working_folder(trapped, monkeypatch):
    monkeypatch.chdir(trapped)
    with pytest.raises(ValueError, match="has no sae-bench|has sae-bench"):
        environment.from_interpreter(Path(sys.executable))
    assert not environment.imports(Path(sys.executable), "sae_bench")
    assert not (trapped / "RAN").exists()


def test_fault_20_making_its_environment_runs_nothing_of_the_working_folder(trapped, monkeypatch):
    commands: list[list[str]] = []
    monkeypatch.setattr(environment, "run", lambda command, what: commands.append(list(command)))
    monkeypatch.setattr(environment, "imports", lambda python, module: False)
    monkeypatch.setattr(environment, "suitable_python", lambda: sys.executable)
    environment.make(trapped / "cache", lambda text: None)
    assert commands and all("-P" in command[1 : command.index("-m") if "-m" in command else 2] for command in commands)


def test_fault_20_asking_git_runs_no_program_that_the_folder_names(tmp_path, monkeypatch):
    asked: list[list[str]] = []
    real = subprocess.run
    monkeypatch.setattr(
        provenance.subprocess, "run", lambda command, **more: asked.append(command) or real(command, **more)
    )
    provenance.git_state.__wrapped__()
    assert asked and all(command[1:3] == ["-c", "core.fsmonitor=false"] for command in asked)
