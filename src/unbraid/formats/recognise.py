"""Which library wrote a folder, by the files in it, and the SAE it holds."""

from pathlib import Path

from unbraid.formats import dictionary_learning, saelens_published, sparsify
from unbraid.formats.published import Published, sha256

READERS = {
    dictionary_learning.WEIGHTS: dictionary_learning.read,
    sparsify.WEIGHTS: sparsify.read,
    saelens_published.WEIGHTS: saelens_published.read,
}
"""By the name of the weights."""


def weights_of(folder: Path) -> Path:
    """Raises ValueError unless there is exactly one file of weights we know the name of."""
    found = [folder / name for name in READERS if (folder / name).is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{folder} holds {[path.name for path in found]}; put one SAE in a folder")
    deeper = sorted({path.parent for name in READERS for path in folder.glob(f"*/{name}")})
    hint = f"; did you mean {deeper[0]}?" if deeper else ""
    raise ValueError(f"{folder} holds no SAE: expected one of {', '.join(READERS)}{hint}")


def read(folder: Path) -> Published:
    """The SAE in a folder of SAELens, dictionary_learning or sparsify."""
    return READERS[weights_of(folder).name](folder)


def digest(folder: Path) -> str:
    """Of the weights: what an imported run is named by."""
    return sha256(weights_of(folder))
