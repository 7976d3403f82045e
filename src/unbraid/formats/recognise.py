"""Recognition of the library that wrote a folder, by its files, and reading of the SAE in it."""

import re
from itertools import islice
from pathlib import Path

from unbraid.formats import dictionary_learning, gemma_scope, saelens_published, sparsify
from unbraid.formats.published import Published
from unbraid.system.files import sha256

READERS = {
    dictionary_learning.WEIGHTS: dictionary_learning.read,
    sparsify.WEIGHTS: sparsify.read,
    saelens_published.WEIGHTS: saelens_published.read,
    gemma_scope.FIRST: gemma_scope.read_first,
    gemma_scope.SECOND: gemma_scope.read_second,
}
"""By the name of the weights."""


def weights_of(folder: Path) -> Path:
    """Find the file of weights. Raises ValueError unless there is exactly one with a known name."""
    found = [folder / name for name in READERS if (folder / name).is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{folder} holds {[path.name for path in found]}; put one SAE in a folder")
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; fetch the SAE, and name the folder that its weights are in")
    odd = [name for name in READERS if (folder / name).exists()]
    if odd:
        raise ValueError(f"{folder / odd[0]} is no ordinary file; fetch it again")
    if re.search(r"transcoder|crosscoder|\bclt\b", str(folder).lower()):
        raise ValueError(
            f"{folder} holds no SAE, and seems to hold transcoders or crosscoders, which are out of scope (SAELens and "
            "circuit-tracer use them)"
        )
    deeper = sorted({path.parent for name in READERS for path in islice(folder.glob(f"*/{name}"), 50)})
    hint = f"; did you mean {deeper[0]}?" if deeper else ""
    raise ValueError(f"{folder} holds no SAE: expected one of {', '.join(READERS)}{hint}")


def read(folder: Path) -> Published:
    """The SAE in a folder of SAELens, dictionary_learning, sparsify or Gemma Scope."""
    return READERS[weights_of(folder).name](folder)


def digest(folder: Path) -> str:
    """Return the SHA-256 of the weights, which names an imported run."""
    return sha256(weights_of(folder))
