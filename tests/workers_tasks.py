"""Functions that tests of `cli.workers` have done in other processes, which import nothing else."""

import os
import signal
import sys
import time


def double(number: int) -> int:
    print(f"doubling {number}")
    return 2 * number


def refuse(why: str) -> None:
    raise ValueError(why)


def noisy() -> None:
    sys.stdout.write("\x1b[2J" + "x" * 9000 + "\n")


def ends_abruptly() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def ends_abruptly_once(mark: str) -> str:
    if not os.path.exists(mark):
        open(mark, "w").close()
        ends_abruptly()
    return "done"


def ends_at_once(*_: object) -> None:
    os._exit(1)


def sleep(mark: str) -> None:
    with open(mark, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)
