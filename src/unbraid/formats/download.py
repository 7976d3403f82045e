"""Fetches an SAE from the Hugging Face hub."""

import re
from pathlib import Path

PATTERNS = ("*.json", "*.safetensors", "*.npz", "*.pt", "*.md")
"""Files that hold an SAE or say what it is."""


def downloaded(name: str) -> Path:
    """Return the folder in the hub's cache that holds `name`: "owner/name", or "owner/name:folder" for one in a folder.

    Raises ValueError for a name that cannot be one on a hub, and when it cannot be fetched.
    """
    repository, _, inside = name.partition(":")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or ".." in Path(inside).parts or inside.startswith("/"):
        raise ValueError(
            f"{name!r} is no folder here and no name on a hub; give a folder that holds an SAE, owner/name, or "
            "owner/name:folder"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = [f"{inside.rstrip('/')}/{one}" if inside else one for one in PATTERNS]
    try:
        folder = Path(snapshot_download(repository, allow_patterns=patterns))
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{name} is no folder here, and the hub does not give it: {reason}") from error
    return folder / inside
