"""What is done in other processes: results, lines, failures one by one, and every way to end."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests import workers_tasks
from unbraid.cli import worker_process
from unbraid.cli.worker_process import Task
from unbraid.cli.workers import crew_here, in_background


def gone(process: int) -> bool:
    return not psutil.pid_exists(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE


def wait_for(path: Path, seconds: float = 60.0) -> int:
    """The process number that a sleeping task has written."""
    until = time.monotonic() + seconds
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < until, "it has not begun"
        time.sleep(0.02)
    return int(path.read_text())


def wait_until_gone(process: int) -> None:
    until = time.monotonic() + 30
    while not gone(process):
        assert time.monotonic() < until, "it is still there"
        time.sleep(0.02)


def test_results_come_back_in_order_and_each_failure_is_its_own(capsys):
    tasks = [
        Task("two", workers_tasks.double, (2,)), Task("bad", workers_tasks.refuse, ("no such thing",)),
        Task("dead", workers_tasks.ends_abruptly), Task("loud", workers_tasks.noisy),
        Task("five", workers_tasks.double, (5,)),
    ]  # fmt: skip
    with in_background(tasks, crew_here(2, 1)) as work:
        pass
    assert (work.results[0], work.results[4]) == (4, 10)
    bad, dead = work.failures
    assert str(bad) == "bad: no such thing" and dead.what == "dead" and "ended abruptly" in dead.reason
    lines = capsys.readouterr().out.splitlines()
    assert {line[:6] for line in lines} <= {"  1 | ", "  2 | "} and "doubling 5" in {line[6:] for line in lines}
    assert not any("\x1b" in line for line in lines) and sum(line.count("x") for line in lines) >= 9000


@pytest.mark.parametrize("others", [0, 2])
def test_a_task_whose_worker_was_killed_is_done_once_more(others, tmp_path, capsys):
    tasks = [
        Task("once", workers_tasks.ends_abruptly_once, (str(tmp_path / "mark"),)),
        *(Task(f"other {number}", workers_tasks.double, (number,)) for number in range(others)),
    ]
    with in_background(tasks, crew_here(1 + others, 1)) as work:
        pass
    assert work.results == {0: "done", **{1 + number: 2 * number for number in range(others)}}
    assert "once: the process that worked on it ended abruptly; it is gone on with" in capsys.readouterr().err


def test_a_task_that_somebody_else_stops_is_no_success(tmp_path):
    mark = tmp_path / "pid"
    with in_background([Task("asleep", workers_tasks.sleep, (str(mark),))], crew_here(1, 1)) as work:
        os.kill(wait_for(mark), signal.SIGTERM)
    assert [failure.what for failure in work.failures] == ["asleep"] and "stopped by a signal" in work.failures[
        0
    ].reason


def test_workers_that_cannot_begin_are_given_up(monkeypatch):
    monkeypatch.setattr(worker_process, "serve", workers_tasks.ends_at_once)
    with in_background([Task("one", workers_tasks.double, (1,))], crew_here(2, 1)) as work:
        pass
    assert "no process that could work on it stayed alive" in work.failures[0].reason


def test_nothing_to_do_is_done_at_once():
    with in_background([], crew_here(2, 1)) as work:
        pass
    assert work.results == {} and work.failures == []


@pytest.mark.parametrize("when", ["ours is at work", "we wait for it"])
def test_what_runs_beside_is_stopped_when_ours_fails_or_is_interrupted(when, tmp_path):
    mark = tmp_path / "pid"
    tasks = [Task("asleep", workers_tasks.sleep, (str(mark),)), Task("next", workers_tasks.sleep, (str(mark),))]
    process, begun = 0, time.monotonic()
    with pytest.raises(KeyboardInterrupt), in_background(tasks, crew_here(1, 1)) as work:
        process, begun = wait_for(mark), time.monotonic()
        if when == "ours is at work":
            raise KeyboardInterrupt
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    assert work.over.is_set() and not work.hands and work.results == {} and time.monotonic() - begun < 30
    wait_until_gone(process)


ORPHANED = """
import sys
sys.path[:0] = {path!r}
from tests import workers_tasks
from unbraid.cli.worker_process import Task
from unbraid.cli.workers import crew_here, in_background
if __name__ == "__main__":
    import time
    with in_background([Task("asleep", workers_tasks.sleep, ({mark!r},))], crew_here(1, 1)) as work:
        time.sleep(600)
"""


def test_fault_11_what_runs_beside_a_command_that_is_killed_ends_with_it(tmp_path):
    """Else it would hold its folders, and a resume would be refused."""
    script, mark = tmp_path / "script.py", tmp_path / "pid"
    script.write_text(ORPHANED.format(path=sys.path, mark=str(mark)))
    with subprocess.Popen([sys.executable, str(script)]) as parent:
        process = wait_for(mark)
        parent.kill()
    wait_until_gone(process)
