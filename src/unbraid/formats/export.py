"""Copy a finished run into a folder that another library loads. The folder appears whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from unbraid.dictionary import Dictionary
from unbraid.files import read_json, write_json
from unbraid.formats import dictionary_learning, hub, saelens, sparsify

Target = Literal["saelens", "dictionary_learning", "sparsify", "hub"]

WRITERS: dict[str, Callable[[Dictionary, Path, Mapping[str, Any]], None]] = {
    "saelens": saelens.write, "dictionary_learning": dictionary_learning.write, "sparsify": sparsify.write,
}  # fmt: skip


def export(run: Path, out: Path, to: Target = "saelens", *, repo: str = "", model: str = "") -> None:
    """Write `run`'s dictionary at `out` as another library has it, or as a folder to upload to a hub, where
    it will be `repo`, of `model`. Raises ValueError when there is no run, `out` exists, or the library has no such
    SAE."""
    if not (run / "provenance.json").is_file():
        raise ValueError(f"{run} holds no finished run (no provenance.json); train it to the end first")
    if out.exists():
        raise ValueError(f"{out} exists already and is left as it is; name another folder with --out")
    dictionary = saelens.read(run)  # proves that the weights are whole before anything is copied
    metadata = read_json(run / "cfg.json")["metadata"]
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        if to == "hub":
            hub.write(dictionary, run, temporary, metadata, release=out.name, repo=repo, model=model)
        else:
            WRITERS[to](dictionary, temporary, metadata)
            write_json(temporary / "unbraid_experiment.json", read_json(run / "experiment.json"))
        os.chmod(temporary, 0o755)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
