"""Tests run on one thread: their matrices are too small to share, and a busy machine makes sharing far slower."""

import os
import signal
import tempfile

# Triton, where it is installed, is told how to run kernels before anything imports it: no test needs a GPU for them.
os.environ.setdefault("TRITON_INTERPRET", "1")
import pytest
import torch

from tests import type_checks

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of commands that tests run
# A shell starts what runs in its background with SIGINT ignored, also by what that starts: tests of Ctrl-C would wait.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Tests write nothing into the user's cache; one folder serves all workers, so that help is made once.
os.environ.setdefault("UNBRAID_CACHE", os.path.join(tempfile.gettempdir(), f"unbraid-tests-{os.getuid()}"))
type_checks.install()


@pytest.fixture(autouse=True)
def _nothing_is_shared_with_the_next_test():
    """A test that does a worker's task in its own process leaves what workers share to their end."""
    from unbraid.system import sharing  # not before types are checked

    yield
    sharing._store.set(None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-call", action="store_true", help="check types at every call, not once for each combination of them"
    )


def pytest_configure(config: pytest.Config) -> None:
    type_checks.Checks.every_call = bool(config.getoption("--every-call"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    type_checks.Checks.test += 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reasons = {
        "gpu": "" if torch.cuda.is_available() else "no GPU here",
        "network": "" if os.environ.get("UNBRAID_NETWORK") else "reaches a hub; set UNBRAID_NETWORK=1 to run it",
        "saebench": ""
        if os.environ.get("UNBRAID_SAEBENCH")
        else "runs SAEBench itself; set UNBRAID_SAEBENCH to the python of its environment",
    }
    for item in items:
        for marker, reason in reasons.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
    # The longest tests first, a third of the demo and the tutorial: started last they would run on alone.
    items.sort(key=lambda item: item.path.name not in ("test_wheel.py", "test_tutorial.py"))
