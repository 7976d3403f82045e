"""Asking another library, in the environment it has of its own: folders in, folders out.

Environments are made by `make bench`, or wherever UNBRAID_PEERS says; without one the tests that want it are skipped.
"""

import os
import subprocess
from pathlib import Path

import pytest
from benchmarks.peers import FOLDER

HERE = Path(__file__).parent


def ask(peer: str, script: str, what: str, folder: Path) -> None:
    """Run `script` of this folder with `peer`'s Python. Skips the test when there is no such environment."""
    home = Path(os.environ.get("UNBRAID_PEERS", FOLDER)) / peer
    python = next((path for path in (home / "bin/python", home / "Scripts/python.exe") if path.is_file()), None)
    if python is None or not (home / "installed.txt").is_file():
        pytest.skip(
            f"no environment with {peer} in {home}: `make bench` makes one, or name its folder in UNBRAID_PEERS"
        )
    ran = subprocess.run([str(python), str(HERE / script), what, str(folder)], capture_output=True, text=True)
    assert ran.returncode == 0, f"{peer}: {ran.stderr[-3000:]}"
