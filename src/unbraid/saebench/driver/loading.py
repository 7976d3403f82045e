"""Loading for SAEBench: a folder becomes a model that TransformerLens knows, a run becomes an SAE object."""

# pyright: reportMissingImports=false
import random
from pathlib import Path

import numpy as np
import torch
from sae_lens import SAE
from transformer_lens import supported_models

DISPATCHED_ON = ("llama", "gemma", "hubert", "wav2vec2", "bert", "t5")
"""Words in a name by which TransformerLens chooses a hard-coded architecture."""

WORDS_UNKNOWN = 0.3
"""Share of unknown tokens above which a model's input is noise."""


class Refused(Exception):
    """SAEBench's eval does not apply to this model or SAE, for the stated reason."""


def register(request: dict) -> str:
    """Return the name by which SAEBench knows the model; a folder is added to TransformerLens's lists of names."""
    torch.set_num_threads(request["threads"])
    name, folder = request["model"], request["model_folder"]
    if folder is None:
        return name
    if bad := [part for part in DISPATCHED_ON if part in folder.lower()]:
        raise ValueError(
            f"the folder {folder} holds {bad[0]!r}, which TransformerLens takes for an architecture; move it"
        )
    if folder not in supported_models.OFFICIAL_MODEL_NAMES:
        supported_models.OFFICIAL_MODEL_NAMES.append(folder)
    aliases = supported_models.MODEL_ALIASES.setdefault(folder, [])
    if name not in aliases:
        aliases.append(name)
    return name


def load_sae(folder: str, model: str, device: str) -> SAE:
    """Load a run's dictionary, with the model's name in its metadata as `register` returns it."""
    sae = SAE.load_from_disk(folder, device=device)
    sae.cfg.metadata.model_name = model
    norms = sae.W_dec.detach().norm(dim=1)
    worst = float((norms - 1).abs().max())
    if not worst <= 1e-5:  # SAEBench only warns
        raise ValueError(f"an atom's norm is off 1 by {worst:.1e}; fold the norms into the encoder first")
    return sae


def seed(value: int) -> None:
    """Seed everything: absorption ignores its seed, and meta-structure sets it only from the command line."""
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


def empty(folder: Path) -> Path:
    """Make or empty the folder for the JSON of one run, since some evals do not create theirs."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.rglob("*_eval_results.json"):
        path.unlink()
    return folder


def unknown_share(tokenizer, texts: list[str]) -> float:
    """The share of the tokens of `texts` that the tokenizer does not know."""
    ids = [i for text in texts for i in tokenizer.encode(text, add_special_tokens=False)]
    return (
        sum(i == tokenizer.unk_token_id for i in ids) / max(1, len(ids)) if tokenizer.unk_token_id is not None else 0.0
    )


def refuse_unknown_words(request: dict, what: str, texts: list[str]) -> None:
    """Raise Refused when the model's tokenizer does not know too many of the words of `texts`."""
    from transformers import AutoTokenizer

    share = unknown_share(
        AutoTokenizer.from_pretrained(request["model_folder"] or request["model"], trust_remote_code=False), texts
    )
    if share > WORDS_UNKNOWN:
        raise Refused(f"{share:.0%} of {what} is unknown to the model's tokenizer: the model would read noise")
