"""Copy a finished run into a folder that another library loads. The folder appears whole or not at all."""

import os
import shutil
import tempfile
from pathlib import Path

from unbraid.files import read_json, write_json
from unbraid.formats import saelens


def export(run: Path, out: Path) -> None:
    """Write `run`'s dictionary as an SAELens folder at `out`. Raises ValueError when there is no run, or `out`
    exists."""
    if not (run / "provenance.json").is_file():
        raise ValueError(f"{run} holds no finished run (no provenance.json); train it to the end first")
    if out.exists():
        raise ValueError(f"{out} exists already and is left as it is; name another folder with --out")
    dictionary = saelens.read(run)  # proves that the weights are whole before anything is copied
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        saelens.write(dictionary, temporary, read_json(run / "cfg.json")["metadata"])
        write_json(temporary / "unbraid_experiment.json", read_json(run / "experiment.json"))
        os.chmod(temporary, 0o755)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
