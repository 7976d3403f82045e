"""The provenance of a run: machine, versions and the state of the code."""

import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from unbraid.config.version import __version__


def machine() -> dict[str, Any]:
    """Return versions, code state and hardware of this process."""
    packages = ("torch", "transformers", "safetensors", "numpy")
    return {
        "unbraid": __version__,
        "git": git_state(),
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
    }


@cache
def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


@cache
def git_state() -> str:
    """The commit this package's source is at, "+dirty" when changed since; "none" when it is not in a checkout of
    ours. Cached: a process runs the code that was there when it started."""
    here = Path(__file__)

    def ask(*args: str) -> str:
        return subprocess.run(
            # No monitor: it is a program that the folder's own settings name.
            ["git", "-c", "core.fsmonitor=false", *args],
            cwd=here.parents[1],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        ask("ls-files", "--error-unmatch", str(here))  # else an installed copy would name the user's own repository
        return ask("rev-parse", "HEAD") + ("+dirty" if ask("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "none"
