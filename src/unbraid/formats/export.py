"""Copy a finished run into a folder that another library loads. The folder appears whole or not at all."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from unbraid.dictionary.dictionary import Dictionary
from unbraid.formats import dictionary_learning, hub, saelens, sparsify
from unbraid.system.files import explain_full_disk, read_json, stays_inside, temporary_folder, write_json

Target = Literal["saelens", "dictionary_learning", "sparsify", "hub"]

WRITERS: dict[str, Callable[[Dictionary, Path, Mapping[str, Any]], None]] = {
    "saelens": saelens.write, "dictionary_learning": dictionary_learning.write, "sparsify": sparsify.write,
}  # fmt: skip
COPIED = ("cfg.json", "sae_weights.safetensors", "experiment.json", "provenance.json", "results")
"""What an export reads of a run, and others may then read."""


def export(run: Path, out: Path, to: Target = "saelens", *, repo: str = "", model: str = "") -> None:
    """Write `run`'s dictionary at `out` as another library has it, or as a folder to upload to a hub, where
    it will be `repo`, of `model`. Raises ValueError when there is no run, a link in it leads out of its folder, `out`
    exists, or the library has no such SAE."""
    if not (run / "provenance.json").is_file():
        raise ValueError(f"{run} holds no finished run (no provenance.json); train it to the end first")
    if out.resolve().is_relative_to(run.resolve()) and not out.exists():
        raise ValueError(f"{out} is inside the run, which stays as it was trained; name a folder elsewhere with --out")
    for name in COPIED:
        stays_inside(run, run / name)
    saelens.check_known(run)
    dictionary = saelens.read(run)  # proves that the weights are whole before anything is copied
    metadata = read_json(run / "cfg.json").get("metadata")
    if not isinstance(metadata, dict):
        raise ValueError(f"{run}/cfg.json says nothing of the site (metadata), as every run does; train it again")
    experiment = read_json(run / "experiment.json")
    with new_folder(out) as folder:
        if to == "hub":
            hub.write(dictionary, run, folder, metadata, release=out.name, repo=repo, model=model)
        else:
            WRITERS[to](dictionary, folder, metadata)
            write_json(folder / "unbraid_experiment.json", experiment)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Context manager of a temporary folder that becomes `out` when the block ends without an error.

    Raises ValueError when `out` exists, before or by then.
    """
    refuse_existing(out)
    with explain_full_disk(out), temporary_folder(out.parent, out.name) as folder:
        yield folder
        os.chmod(folder, 0o755)
        refuse_existing(out)
        try:
            os.rename(folder, out)
        except OSError:
            refuse_existing(out)  # another was quicker
            raise


def refuse_existing(out: Path) -> None:
    if os.path.lexists(out):
        raise ValueError(f"{out} exists already and is left as it is; name another folder with --out")
