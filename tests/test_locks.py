"""A folder is written by one process at a time, and no dead process keeps it (fault 11)."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.callbacks import AtProgress
from tests.kills import begun
from tests.small import WORLD, experiment
from tests.test_kills import cohort
from tests.test_train import assert_equal_runs
from unbraid.cli.main import main
from unbraid.sources.cached import write_cache
from unbraid.system import locks as holding
from unbraid.system import processes
from unbraid.system.locks import LOCK, Held, held
from unbraid.training.loop import train

HOLDS = """
import sys, time
from pathlib import Path
from unbraid.system.locks import held
with held([Path(sys.argv[1])]):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def holder(folder: Path) -> "Iterator[subprocess.Popen[str]]":
    """Another process that holds the folder."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder)], stdout=subprocess.PIPE, text=True, env=environment
    )
    with process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_fault_11_a_folder_in_use_is_refused_with_who_since_when_and_what_to_do(tmp_path):
    with holder(tmp_path) as other, pytest.raises(Held) as refused, held([tmp_path]):
        pass
    said = str(refused.value)
    assert f"{tmp_path} is being written by process {other.pid} on " in said and " since 20" in said
    assert "wait until that has ended, or stop it there" in said and "-c" in said


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_fault_11_what_a_killed_process_held_is_free_at_once(tmp_path, how):
    with holder(tmp_path) as other:
        other.send_signal(how)
        other.wait()
        assert (tmp_path / LOCK).is_file()
        with held([tmp_path]):
            assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK).exists()


def test_fault_11_one_process_cannot_hold_a_folder_twice(tmp_path):
    with held([tmp_path]):
        with pytest.raises(Held), held([tmp_path / "other", tmp_path]):
            pass
        assert not (tmp_path / "other").exists(), "what was made for nothing is gone"
    with held([tmp_path]):
        pass


def test_fault_11_two_resumes_of_one_folder_the_second_is_refused_and_nothing_is_spoiled(tmp_path):
    seconds: list[str] = []

    def watch(tokens: int, total: int) -> None:
        for resume, overwrite in ((True, False), (False, True), (False, False)):
            with pytest.raises(Held, match=f"process {os.getpid()} on") as refused:
                train(cohort()[1:], tmp_path / "runs", resume=resume, overwrite=overwrite)
            seconds.append(str(refused.value))

    made = train(cohort(), tmp_path / "runs", resume=True, callbacks=[AtProgress(watch)], checkpoint_steps=2)
    assert len(seconds) == 3 * 8
    for folder in train(cohort(), tmp_path / "whole"):
        assert_equal_runs(folder, tmp_path / "runs" / folder.name)
        log = (tmp_path / "runs" / folder.name / "metrics.jsonl").read_bytes()
        assert log == (folder / "metrics.jsonl").read_bytes()
    assert not list(made[0].glob(".*"))


def test_fault_11_other_members_of_the_same_study_train_beside(tmp_path):
    one, two = cohort()[:2]
    other: list[Path] = []
    train([one], tmp_path, callbacks=[AtProgress(lambda tokens, total: other.extend(train([two], tmp_path)))])
    assert len(set(other)) == 1


def test_fault_11_a_run_that_another_process_finished_meanwhile_is_not_trained_again(tmp_path, monkeypatch):
    """Both found it unfinished; the second gets it when the first lets it go."""
    from unbraid.training import loop as training

    real = training.held

    @contextmanager
    def late(folders):
        monkeypatch.setattr(training, "held", real)
        train([experiment()], tmp_path)
        with real(folders):
            yield

    monkeypatch.setattr(training, "held", late)
    seen: list[int] = []
    train([experiment()], tmp_path, resume=True, callbacks=[AtProgress(lambda tokens, total: seen.append(tokens))])
    assert not seen


@pytest.mark.parametrize("command", ["train", "demo", "study", "cache"])
def test_fault_11_commands_refuse_a_folder_in_use(tmp_path, capsys, command):
    out = tmp_path / "out"
    arguments = {
        "train": ["train", "world", "--out", str(tmp_path)], "demo": ["demo", "--out", str(out)],
        "study": ["study", "facts", "--saebench", "--out", str(out)],
        "cache": ["cache", "world", "--to", str(out)],
    }  # fmt: skip
    if command == "train":
        from unbraid.studies.world import world

        out = tmp_path / world().folder
    with held([out]):
        assert main(arguments[command]) == 2
    assert f"error: {out} is being written by process" in capsys.readouterr().err


def test_fault_11_two_writers_of_one_cache_the_second_is_refused(tmp_path):
    def progress(split: str, rows: int, total: int | float) -> None:
        with pytest.raises(Held):
            write_cache(WORLD, tmp_path, blocks=1, seed=0)

    write_cache(WORLD, tmp_path, blocks=1, seed=0, splits=["train"], progress=progress)


def left_by(folder: Path, **changes: object) -> None:
    """A lock that nobody's kernel knows of."""
    folder.mkdir(exist_ok=True)
    mine = processes.own()
    told = {"process": str(mine), "host": "elsewhere", "pid": mine.pid, "since": "then", "command": "unbraid"}
    (folder / LOCK).write_text(json.dumps({**told, **changes}))


ELSEWHERE = "00000000-17-1700000000"


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(holding, "BEAT", 0.1)
    monkeypatch.setattr(holding, "PATIENCE", 0.3)


def test_fault_11_a_holder_on_another_machine_counts_while_its_heart_beats(tmp_path, soon, monkeypatch):
    left_by(tmp_path, process=ELSEWHERE)
    beats = iter(range(1, 100))
    real = holding._touched
    monkeypatch.setattr(holding, "_touched", lambda path: real(path) + next(beats))
    with pytest.raises(Held, match="process .* on elsewhere since then"), held([tmp_path]):
        pass
    monkeypatch.setattr(holding, "_touched", real)
    with held([tmp_path]):
        pass


def test_fault_11_a_holder_beats(tmp_path, soon):
    with held([tmp_path]):
        os.utime(tmp_path / LOCK, (0, 0))
        until = time.monotonic() + 10
        while (tmp_path / LOCK).stat().st_mtime == 0 and time.monotonic() < until:
            time.sleep(0.02)
        assert (tmp_path / LOCK).stat().st_mtime > 0


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"process": 3}', '{"process": "x-y-z"}', "\0" * 99])
def test_fault_11_a_damaged_lock_of_nobody_is_taken(tmp_path, content):
    (tmp_path / LOCK).write_text(content)
    with held([tmp_path]):
        pass


def test_fault_11_without_locks_of_the_kernel_numbers_decide(tmp_path, soon, monkeypatch):
    monkeypatch.setattr(holding, "_kernel_lock", lambda handle: None)
    with held([tmp_path]), pytest.raises(Held), held([tmp_path]):
        pass
    mine = processes.own()
    left_by(tmp_path, process=f"{mine.place}-{mine.pid}-{mine.start - 1000}")  # the number of another, before us
    with held([tmp_path]):
        pass
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left_by(tmp_path, process=f"{mine.place}-{gone.pid}-{mine.start}")
    with held([tmp_path]):
        pass


def test_fault_11_evals_of_one_run_beside_each_other_are_both_right(tmp_path):
    """Results are put in place whole, and are the same whoever makes them: neither is refused."""
    (run,) = train([experiment()], tmp_path)
    asked = ["eval", str(run), "--evals", "fidelity", "--force", "--threads", "1"]
    both = [begun(lambda: sys.exit(main(asked))) for _ in range(2)]
    assert [os.waitpid(process, 0)[1] for process in both] == [0, 0]
    assert json.loads((run / "results" / "fidelity.json").read_text())["scores"]
    assert [path.name for path in (run / "results").iterdir()] == ["fidelity.json"]
