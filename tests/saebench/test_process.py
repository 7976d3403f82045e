"""A process says facts among other lines, dies, hangs, and leaves nothing behind."""

import os
import sys
import time
from pathlib import Path

import pytest

from unbraid.saebench.process import Stopped, events


def said(code: str, folder: Path, limit: float = 30.0):
    command = [sys.executable, "-c", code]
    return list(events(command, folder=folder, environment=dict(os.environ), log=folder / "log.txt", limit=limit))


def test_only_marked_lines_are_facts_and_all_lines_are_kept(tmp_path):
    code = "print('hello'); print('unbraid> {\"is\": \"begin\"}'); print('bye')"
    assert said(code, tmp_path) == [{"is": "begin"}]
    assert (tmp_path / "log.txt").read_text().splitlines()[::2] == ["hello", "bye"]


def test_death_is_told_with_the_last_lines_only(tmp_path):
    code = "import sys\nfor i in range(40): print('line', i, flush=True)\nsys.exit(5)"
    with pytest.raises(Stopped, match="exit code 5") as error:
        said(code, tmp_path)
    assert "line 39" in str(error.value) and "line 20" not in str(error.value)


def test_a_signal_is_named(tmp_path):
    with pytest.raises(Stopped, match="signal 9"):
        said("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", tmp_path)


@pytest.mark.slow
def test_a_turning_progress_bar_is_no_sign_of_life(tmp_path):
    code = "import time\nwhile True: print('\\r50 %', end='', flush=True); time.sleep(0.05)"
    with pytest.raises(Stopped, match="said nothing.*\n.*50 %"):
        said(code, tmp_path, limit=1.0)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="asks /proc what became of a process")
@pytest.mark.slow
def test_what_it_started_ends_with_it(tmp_path):
    child = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    code = f"{child}; print('unbraid> {{\"is\": ' + str(p.pid) + '}}', flush=True); time.sleep(600)"
    found = []
    with pytest.raises(Stopped):
        for event in events(
            [sys.executable, "-c", code], folder=tmp_path, environment=dict(os.environ), log=tmp_path / "log.txt",
            limit=2.0,
        ):  # fmt: skip
            found.append(event["is"])
    until = time.monotonic() + 10  # a signal arrives when the machine finds time
    while running(found[0]) and time.monotonic() < until:
        time.sleep(0.05)
    assert not running(found[0])


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
