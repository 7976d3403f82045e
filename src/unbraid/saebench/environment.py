"""SAEBench in a virtual environment of its own, made once: it pins numpy below 2 and datasets below 4.

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
"""Of the environment with a CPU build of torch; with CUDA about 7."""
WORKING_GIGABYTES = 4.0
"""Free space asked for before it is made."""
MINUTES = 4
PYTHONS = ((3, 11), (3, 12))
"""numpy below 2 has no wheels for later ones."""
TAIL = 15
"""Lines of a failed command that are shown."""

SAFELY = "import sys; sys.path[:] = filter(None, sys.path); "
"""Leaves the working folder out of the path, as -P does since Python 3.11: no file that lies there is to run."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Environment:
    """An interpreter that has SAEBench."""

    python: Path
    sae_bench: str
    """Its version."""


UNMADE = Environment(Path(), "")
"""Stands where none is there yet, for a plan."""


def folder_of(cache: Path) -> Path:
    """Where the environment of these pins is, or will be."""
    digest = hashlib.sha256(PINS.read_bytes()).hexdigest()[:8]
    return cache.absolute() / f"sae-bench-{SAE_BENCH}-{digest}"  # the benchmark runs in another folder


def python_in(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if platform.system() == "Windows" else "bin/python")


def made(cache: Path) -> Environment | None:
    """The finished environment, or None."""
    folder = folder_of(cache)
    marker = folder / "made.json"
    if not marker.is_file() or not python_in(folder).is_file():
        return None
    return Environment(python_in(folder), str(read_json(marker)["sae_bench"]))


def given(python: Path) -> Environment:
    """An environment of the user's own. Raises ValueError unless it has the version whose results are understood."""
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
    """The environment, made on first use. Raises ValueError with pip's last lines when it cannot be."""
    if (found := made(cache)) is not None:
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
    """An interpreter that SAEBench's pins have wheels for. Raises ValueError when there is none."""
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
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free / 1e9
    if free < WORKING_GIGABYTES:
        raise ValueError(
            f"{cache} has {free:.1f} GB free, the environment for sae-bench needs {WORKING_GIGABYTES}: free some, or "
            "name another folder with --cache"
        )


def run(command: Sequence[str], what: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-TAIL:])
        raise ValueError(
            f"no environment for sae-bench ({what} failed):\n{tail}\nIt needs a package index (a network, or a mirror "
            "named in pip's own configuration) and space; or name an environment of yours with --python"
        )


def imports(python: Path, module: str) -> bool:
    return subprocess.run([str(python), "-P", "-c", f"import {module}"], capture_output=True).returncode == 0
