"""Models in GGUF files: converted once, by transformers, into a folder of safetensors that everything else reads.

    <user's cache>/gguf/<file>-<SHA-256, 16 digits>-<version of transformers>/
        config.json, model.safetensors, tokenizer.json, …      weights dequantised to float32
        converted.json      the file it came from, its SHA-256, its types of numbers, the size of every file here

transformers parses a GGUF file anew for the configuration, the tokenizer and the weights, at each start: 16 s for 135 M
parameters, of which reading the converted folder takes 1 s. And a folder is what SAEBench and other libraries load.
"""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unbraid.system.each import PASSED_ON
from unbraid.system.files import check_plain, explain_full_disk, read_json, sha256, temporary_folder, write_json
from unbraid.system.notices import log
from unbraid.system.user_cache import cache_folder

ENDING = ".gguf"
MAGIC = b"GGUF"
MARKER = "converted.json"
PLAIN = frozenset({"F64", "F32", "F16", "BF16"})
"""Types of numbers that are not quantised."""


@dataclass(frozen=True)
class ConvertedFolder:
    """A folder that a GGUF file was converted into."""

    folder: Path
    sha256: str
    """Of the GGUF file."""
    types: tuple[str, ...]
    """Types of numbers in the file, such as Q4_1 and F32; in the folder all are float32."""

    @property
    def in_words(self) -> str:
        """Return what was done to the weights."""
        listed, quantised = ", ".join(self.types), not PLAIN.issuperset(self.types)
        return f"weights {'quantised' if quantised else 'stored'} in GGUF ({listed}), {'de' * quantised}" + (
            "quantised to float32" if quantised else "read as float32"
        )


def names_gguf(model: str) -> bool:
    """Return whether a model's name is a GGUF file, or a folder that has such files and no configuration."""
    folder = Path(model).expanduser()
    return model.endswith(ENDING) or (
        folder.is_dir() and not (folder / "config.json").exists() and any(folder.glob(f"*{ENDING}"))
    )


def file_of(model: str, revision: str) -> Path:
    """Return the GGUF file on this machine, fetched from the hub where it is named owner/name/FILE.gguf.

    Raises ValueError when there is none, or a folder has several.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        found = sorted(path.glob(f"*{ENDING}"))
        if len(found) > 1:
            raise ValueError(
                f"{model} holds {len(found)} GGUF files ({', '.join(f.name for f in found[:4])}); name one: "
                f"--source.model {path / found[0].name}"
            )
        return found[0]
    if path.is_file():
        return path
    owner, _, rest = model.partition("/")
    name, _, file = rest.partition("/")
    if not (owner and name and file) or owner.startswith((".", "~")) or path.parent.is_dir():
        raise ValueError(f"there is no GGUF file at {model!r}; check --source.model")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(f"{owner}/{name}", file, revision=revision))
    except (*PASSED_ON, MemoryError):
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"cannot get the GGUF file {model!r} from the hub: {reason}; check --source.model, or download it where "
            "there is a network"
        ) from error


def converted(path: Path) -> ConvertedFolder:
    """Return the folder that a GGUF file is converted into, making it where it is missing, damaged or out of date.

    Raises ValueError, with the remedy, for a file that is none, or that transformers cannot read; OSError on a full
    disk. The file's SHA-256 is taken once a process (0.7 s a GB): unlike its size, it shows a damaged byte.
    """
    check_plain(path, "check --source.model")
    found = path.stat()
    return _converted(path.resolve(), found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=8)
def _converted(path: Path, size: int, changed: int) -> ConvertedFolder:
    """Convert, once for each state of the file."""
    from transformers import __version__ as version

    check_magic(path, size)
    digest = sha256(path)
    home = cache_folder() / "gguf"
    folder = home / f"{path.stem[:80]}-{digest[:16]}-{version}"
    if not whole(folder):
        if find_spec("gguf") is None:
            raise ValueError(
                f"to read {path.name} transformers needs the package gguf, which is not installed; run: "
                "pip install gguf (or: pip install 'unbraid[smollm]')"
            )
        log.info("converting %s for the first time, into %s …", path.name, folder)
        with temporary_folder(home, folder.name) as partial, explain_full_disk(folder):
            facts = {"file": path.name, "sha256": digest, "types": write_converted(path, partial)}
            sizes = {file.name: file.stat().st_size for file in sorted(partial.iterdir())}
            write_json(partial / MARKER, facts | {"bytes": sizes})
            put_in_place(partial, folder)
    marker = read_json(folder / MARKER)
    return ConvertedFolder(folder, digest, tuple(map(str, marker["types"])))


def check_magic(path: Path, size: int) -> None:
    """Raise ValueError for a file that does not begin as GGUF does."""
    with path.open("rb") as file:
        head = file.read(len(MAGIC))
    if head != MAGIC:
        raise ValueError(
            f"{path} is no GGUF file: its {size:,} bytes begin with {head!r}, expected {MAGIC!r}; fetch it again, or "
            "name another with --source.model"
        )


def whole(folder: Path) -> bool:
    """Return whether a converted folder has all its files in their full size."""
    try:
        marker = read_json(folder / MARKER)
        sizes: Mapping[str, Any] = marker["bytes"]
        return bool(marker["types"]) and all(
            Path(name).name == name and (folder / name).stat().st_size == size for name, size in sizes.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def write_converted(path: Path, folder: Path) -> list[str]:
    """Write the model and tokenizer of a GGUF file as transformers keeps them, in float32; return types of numbers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    named = {"gguf_file": path.name, "local_files_only": True}
    try:
        types = types_in(path)
        AutoTokenizer.from_pretrained(path.parent, **named).save_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **named)
    except (*PASSED_ON, MemoryError):
        raise
    except BaseException as error:  # panics of tokenizers, written in Rust, are no Exception
        from transformers import __version__ as version

        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"transformers {version} cannot read the GGUF file {path} ({type(error).__name__}: {reason}); fetch it "
            "again if it is cut short, or name the model's folder of safetensors with --source.model"
        ) from error
    without_quantisation(model).save_pretrained(folder)
    for file in folder.iterdir():
        os.chmod(file, 0o644)  # safetensors leaves its files to their owner alone
    return types


def without_quantisation(model: Any) -> Any:
    """Return a model with the same weights that does not say that it came from a GGUF file: such are not saved."""
    import torch
    from transformers import AutoModelForCausalLM

    config = type(model.config).from_dict(
        {key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
    )
    with torch.device("meta"):  # its own weights are never made
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    return plain


def types_in(path: Path) -> list[str]:
    """Return the types of numbers in a GGUF file, those of most tensors first."""
    from collections import Counter

    from gguf import GGUFReader

    count = Counter(tensor.tensor_type.name for tensor in GGUFReader(path, "r").tensors)
    return [name for name, _ in count.most_common()]


def put_in_place(partial: Path, folder: Path) -> None:
    """Move a finished folder to its place. Where another process was faster, its folder stays."""
    if folder.exists() and not whole(folder):
        shutil.rmtree(folder)
    with suppress(OSError):
        os.rename(partial, folder)
    if not whole(folder):
        raise ValueError(f"{folder} cannot be written, or is damaged at once; delete it and run this again")
