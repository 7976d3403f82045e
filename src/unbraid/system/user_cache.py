"""The user's folder for what can be made again: help texts, SAEBench's environment, converted models."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder: what the variable UNBRAID_CACHE says, or ~/.cache/unbraid."""
    return Path(os.environ.get("UNBRAID_CACHE") or Path.home() / ".cache" / "unbraid")
