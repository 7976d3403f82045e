"""The benchmark in a separate process: the events it reports and how it ended, within a time limit."""

import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MARK = "unbraid> "
"""Prefix of the lines that hold events; driver/drive.py writes them."""
TAIL = 12
"""Number of last lines shown of a process that died or hung."""
GRACE = 10.0
"""Seconds between asking a process to end and killing it."""


class Stopped(RuntimeError):
    """The process died or hung; the message ends with its last lines."""


def events(
    command: Sequence[str], *, folder: Path, environment: Mapping[str, str], log: Path, limit: float
) -> Iterator[dict[str, Any]]:
    """Yield the events that the process reports, as they come. Raises Stopped when it fails or is silent too long.

    `limit`: seconds between two events; other output does not count, as a progress bar may go on for ever.
    """
    tail: deque[str] = deque(maxlen=TAIL)
    lines: queue.Queue[str | None] = queue.Queue()
    with subprocess.Popen(
        # Its input stays open as long as this process lives: driver/drive.py exits when it closes.
        command, cwd=folder, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        reader = threading.Thread(target=read, args=(process, log, lines), daemon=True)
        reader.start()
        try:
            deadline = time.monotonic() + limit
            while (line := within(lines, deadline)) is not None:
                if line.startswith(MARK):
                    yield json.loads(line.removeprefix(MARK))
                    deadline = time.monotonic() + limit
                elif line.strip():
                    tail.append(line.rstrip())
        except queue.Empty:
            raise Stopped(f"said nothing for {limit / 60:g} minutes and was ended; {last(tail)}") from None
        finally:
            end(process)
    if process.returncode:
        how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
        raise Stopped(f"died ({how}{', out of memory?' if process.returncode == -9 else ''}); {last(tail)}")


def read(process: "subprocess.Popen[str]", log: Path, lines: "queue.Queue[str | None]") -> None:
    """Put every line into the queue and into the log. A progress bar's carriage returns end lines too."""
    assert process.stdout is not None
    with log.open("a", encoding="utf-8") as kept:
        for line in process.stdout:
            kept.write(line)
            kept.flush()
            lines.put(line)
    lines.put(None)


def within(lines: "queue.Queue[str | None]", deadline: float) -> str | None:
    """Wait for the next line until the deadline; None at the end of output. Raises queue.Empty when none comes."""
    return lines.get(timeout=max(0.0, deadline - time.monotonic()))


def last(tail: Sequence[str]) -> str:
    """Format the last lines of output, as the end of an error message."""
    return "its last lines:\n" + "\n".join(tail) if tail else "it printed nothing"


def end(process: "subprocess.Popen[str]") -> None:
    """End the process and those that it started, unless it has ended."""
    if process.poll() is not None:
        return
    try:
        process.wait(timeout=0.5)  # it closed its output and is about to go
    except subprocess.TimeoutExpired:
        send_signal(process, signal.SIGTERM)
        try:
            process.wait(timeout=GRACE)
        except subprocess.TimeoutExpired:
            send_signal(process, signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
            process.wait()


def send_signal(process: "subprocess.Popen[str]", number: int) -> None:
    """Send a signal to the process and those that it started."""
    if os.name == "nt":
        process.kill()
    else:
        os.killpg(process.pid, number)
