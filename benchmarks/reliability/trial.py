"""One trial of reliability, and the forked processes that trials run in."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HELD = "held"
"""The outcome of a trial in which everything was as promised."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One thing tried: its kind (a table of the page), its group (a row), what was tried, and how it ended."""

    kind: str
    group: str
    case: str
    outcome: str
    """`HELD`, a word for another end that is as promised ("refused"), or what went wrong."""
    good: bool


def fork(work: Callable[[], object], log: Path) -> int:
    """Run `work` in a forked process, which spares the imports; its process id. What it prints goes to `log`."""
    sys.stdout.flush()
    sys.stderr.flush()
    log.write_text("", encoding="utf-8")  # here: the process may be killed before it opens anything
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setpgid(0, 0)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        result = work()
        code = result if isinstance(result, int) else 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # the process ends here, whatever it was
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child: int, seconds: float) -> int | None:
    """The exit code of a forked process, negative for a signal; None while it runs on after `seconds`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def finish(child: int, seconds: float) -> int:
    """The exit code of a forked process. One that does not end in `seconds` is killed, and its code is -9."""
    code = ended(child, seconds)
    if code is None:
        os.kill(child, signal.SIGKILL)
        code = ended(child, 60)
    assert code is not None, f"process {child} cannot be killed"
    return code
