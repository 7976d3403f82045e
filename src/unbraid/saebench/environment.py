"""The separate virtual environment of SAEBench, made once: it pins numpy below 2 and datasets below 4.

What it pulls in is pinned in pins.txt. On a CPU build of torch the torchvision that comes along cannot load, and
transformers would import it because it is there; so it is removed where it does not import, and with it 470 MB of NCCL.
"""

import hashlib
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unbraid.system.files import read_json, write_json

SAE_BENCH = "0.6.0"
PINS = Path(__file__).parent / "pins.txt"
GIGABYTES = 2.4
"""Size of the environment with a CPU build of torch; with CUDA about 7."""
WORKING_GIGABYTES = 4.0
"""Free space required before it is made."""
MINUTES = 4
PYTHONS = ((3, 11), (3, 12))
"""Python versions for which numpy below 2 has wheels."""
TAIL = 15
"""Lines of a failed command that are shown."""

SAFELY = "import sys; sys.path[:] = filter(None, sys.path); "
"""Leaves the working folder out of the path, as -P does since Python 3.11, so that no file in it is imported."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Environment:
    """An interpreter that has SAEBench."""

    python: Path
    sae_bench: str
    """The version of SAEBench that it has."""


NOT_MADE = Environment(Path(), "")
"""A placeholder for a plan, before an environment exists."""


def folder_of(cache: Path) -> Path:
    """The folder of the environment for the current pins, whether it exists or not."""
    digest = hashlib.sha256(PINS.read_bytes()).hexdigest()[:8]
    return cache.absolute() / f"sae-bench-{SAE_BENCH}-{digest}"  # the benchmark runs in another folder


def python_in(folder: Path) -> Path:
    """The interpreter of the virtual environment in `folder`."""
    return folder / ("Scripts/python.exe" if platform.system() == "Windows" else "bin/python")


def find(cache: Path) -> Environment | None:
    """Find the finished environment in `cache`; None when there is none."""
    folder = folder_of(cache)
    marker = folder / "made.json"
    if not marker.is_file() or not python_in(folder).is_file():
        return None
    return Environment(python_in(folder), str(read_json(marker)["sae_bench"]))


def from_interpreter(python: Path) -> Environment:
    """Use the user's environment, by its interpreter. Raises ValueError unless it has the supported SAEBench."""
    ask = f"{SAFELY}from importlib.metadata import version; print(version('sae-bench'))"
    try:
        found = subprocess.run([str(python), "-c", ask], capture_output=True, text=True)
    except OSError as error:
        raise ValueError(f"cannot run {python} ({error}); --python names the interpreter of an environment") from error
    if found.returncode:
        raise ValueError(f"{python} has no sae-bench; install sae-bench=={SAE_BENCH} there, or leave --python out")
    if (version := found.stdout.strip()) != SAE_BENCH:
        raise ValueError(
            f"{python} has sae-bench {version}; Unbraid reads the results of {SAE_BENCH}: install that, or leave "
            "--python out"
        )
    return Environment(python.absolute(), version)  # a link: resolved, it would be another environment


def make(cache: Path, say: Say) -> Environment:
    """Return the environment, made on first use. Raises ValueError with pip's last lines when that fails."""
    if (found := find(cache)) is not None:
        return found
    folder, started = folder_of(cache), time.monotonic()
    interpreter = suitable_python()
    check_space(cache)
    say(f"making an environment for sae-bench {SAE_BENCH} in {folder}: about {MINUTES} minutes, {GIGABYTES} GB, once")
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted attempt left
    python = python_in(folder)
    pip = [str(python), "-P", "-m", "pip", "--disable-pip-version-check", "--no-input"]
    steps: list[tuple[str, Sequence[str]]] = [
        ("an empty environment", [interpreter, "-P", "-m", "venv", str(folder)]),
        ("torch", [*pip, "install", "-c", str(PINS), "torch"]),
        ("sae-bench", [*pip, "install", "-c", str(PINS), f"sae-bench=={SAE_BENCH}", "loguru"]),
    ]
    for number, (what, command) in enumerate(steps, 1):
        say(f"  {number}/{len(steps)} {what} …")
        run(command, what)
    if not imports(python, "torchvision"):
        run([*pip, "uninstall", "-y", "torchvision", "nvidia-nccl-cu12"], "removing what cannot load here")
    run([str(python), "-P", "-c", "import sae_bench.evals.core.main"], "importing sae-bench")
    seconds = round(time.monotonic() - started)
    write_json(folder / "made.json", {"sae_bench": SAE_BENCH, "seconds": seconds})
    say(f"  made in {seconds / 60:.1f} minutes")
    return Environment(python, SAE_BENCH)


def suitable_python() -> str:
    """Find an interpreter that SAEBench's pins have wheels for. Raises ValueError when there is none."""
    if sys.version_info[:2] in PYTHONS:
        return sys.executable
    names = [f"python{major}.{minor}" for major, minor in PYTHONS]
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        raise ValueError(
            f"sae-bench {SAE_BENCH} needs Python {' or '.join(f'{a}.{b}' for a, b in PYTHONS)} (it pins numpy below "
            f"2), this is {platform.python_version()}; install one, or name an environment that has it with --python"
        )
    return found


def check_space(cache: Path) -> None:
    """Raise ValueError when the disk of `cache` has too little free space for the environment."""
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free / 1e9
    if free < WORKING_GIGABYTES:
        raise ValueError(
            f"{cache} has {free:.1f} GB free, the environment for sae-bench needs {WORKING_GIGABYTES}: free some, or "
            "name another folder with --cache"
        )


def run(command: Sequence[str], what: str) -> None:
    """Run one installation step. Raises ValueError with the last lines of its output when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-TAIL:])
        raise ValueError(
            f"no environment for sae-bench ({what} failed):\n{tail}\nIt needs a package index (a network, or a mirror "
            "named in pip's own configuration) and space; or name an environment of yours with --python"
        )


def imports(python: Path, module: str) -> bool:
    """True if `python` can import `module`."""
    return subprocess.run([str(python), "-P", "-c", f"import {module}"], capture_output=True).returncode == 0
