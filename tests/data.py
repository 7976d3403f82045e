"""Where the small real models and corpora are: UNBRAID_DATA, or ../shared/data beside the repository."""

import os
from pathlib import Path

import pytest


def data_folder() -> Path:
    folder = Path(os.environ.get("UNBRAID_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}; set UNBRAID_DATA")
    return folder
