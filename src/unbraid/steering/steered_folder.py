"""A folder with a push, as EleutherAI's evaluation harness reads it (lm_eval --model steered, tested with 0.4.13).

steer.pt    {HOOKPOINT: {steering_vector, steering_coefficient, action: "add", bias: None}}
steer.csv   loader, action, sparse_model, hookpoint, feature_index, steering_coefficient, sae_id, description
HOOKPOINT/  cfg.json, sae.safetensors: what the .csv names, one latent whose atom is the direction, as sparsify has it

    acts + steering_coefficient * steering_vector       at every position of the output of module HOOKPOINT

The harness keeps one push a module, so several latents are one direction. Its 0.4.13 refuses every .csv whose action is
"add" ("Bias is not supported"), as sparse models always have a bias; so steer.pt, a torch pickle of a tensor and plain
values, cannot be avoided, and the .csv is for versions before. It pushes special tokens and attention sinks too, which
no dictionary sees, and the budget of the push is spent as it will be there.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from unbraid.config.settings import PositiveFloat, checked
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.dictionary import Dictionary
from unbraid.effects.next_token_kl import next_token_kl
from unbraid.formats import sparsify
from unbraid.formats.export import new_folder
from unbraid.runs.run import Run
from unbraid.sources.base import Predictions
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.predicting import predictions_of
from unbraid.steering.push import Push, Unit, push_by_budget, push_by_hand, scaled_latents
from unbraid.steering.side_effects import other_text
from unbraid.steering.steer import opened
from unbraid.system.files import write_atomically, write_text

COLUMNS = (
    "loader", "action", "sparse_model", "hookpoint", "feature_index", "steering_coefficient", "sae_id", "description",
)  # fmt: skip
WINDOWS = 4
"""Windows of text on which a budget is spent."""


@dataclass(frozen=True)
class SteeredFolder:
    """The push in a folder that was written."""

    hookpoint: str
    """Module whose output is pushed, in the names of the model without its head."""
    length: float
    """Length of the push, in raw units."""
    kl: float
    """Next-token KL of the push at every position, in nats a token of the run's text."""


@torch.no_grad()
def write_steered(
    run: Run | str | Path, out: Path, latents: int | Sequence[int], *, scale: float | Sequence[float] = 1.0,
    kl: float | None = None, unit: Unit = "auto",
) -> SteeredFolder:  # fmt: skip
    """Write the push along latents of a run into a new folder that `lm_eval --model steered` reads.

    `scale`, `kl` and `unit` as `steer`; the budget is spent on a few windows of the run's text.

    Raises:
        ValueError: as `steer`; for a folder that exists, and a site that is no module's output.
    """
    run, source = opened(run)
    which = scaled_latents(latents, scale, run.dictionary())
    hookpoint = hookpoint_of(source)
    texts = pushed_everywhere(source)
    if kl is None:
        push = push_by_hand(run, source, which, unit)
    else:
        push = push_by_budget(run, source, which, unit, texts, checked("kl", kl, PositiveFloat))
    length = float(push.vector.norm())
    if not length > 0:
        raise ValueError("the push is of no length, so there is nothing to write; give a --scale other than 0")
    cost = float(next_token_kl(texts, push.vector.unsqueeze(0)))
    described = f"latents {' '.join(map(str, which.latents))} of {run.path.resolve().name}"
    with new_folder(out) as folder:
        (folder / hookpoint).mkdir()
        sparsify.write(one_latent(push.vector / length), folder / hookpoint, {})
        write_text(folder / "steer.csv", table(hookpoint, length, described))
        write_pickle(folder / "steer.pt", hookpoint, push.vector / length, length)
        write_text(folder / "README.md", readme(source, described, push, hookpoint, cost))
    return SteeredFolder(hookpoint, length, cost)


def hookpoint_of(source: LanguageModel) -> str:
    """Return the module whose output is the site, as the harness names it. Raises ValueError when there is none."""
    layer = source.layer
    path = str(source.metadata()["hf_hook_name"])
    if source.site == "resid_pre":
        if layer == 0:
            raise ValueError(
                "resid_pre of block 0 is no block's output, and the harness pushes outputs; train on another site"
            )
        path = f"{path.removesuffix(str(layer))}{layer - 1}"
    head, _, inner = path.partition(".")
    if not inner:
        raise ValueError(f"{head!r} is not inside the model without its head, where the harness looks for modules")
    return inner


def pushed_everywhere(source: LanguageModel) -> list[Predictions]:
    """Return predictions of a few windows, with pushes at every position."""
    windows, _ = other_text(source)
    texts = [text for part in windows[:WINDOWS].parts(1) for text in predictions_of(source, part)]
    return [replace(text, mask=torch.ones_like(text.mask)) for text in texts]


def one_latent(direction: Tensor) -> Dictionary:
    """Return a dictionary of one atom."""
    made = Dictionary(len(direction), 1, TopK(1))
    with torch.no_grad():
        made.W_dec.copy_(direction.unsqueeze(0))
        made.W_enc.copy_(direction.unsqueeze(1))
        made.b_enc.zero_()
        made.b_dec.zero_()
    return made


def table(hookpoint: str, length: float, described: str) -> str:
    """Return steer.csv. The sparse model is the folder that the harness is run in."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    rows.writerow(("sparsify", "add", ".", hookpoint, 0, repr(length), "", described))
    return text.getvalue()


def write_pickle(path: Path, hookpoint: str, direction: Tensor, length: float) -> None:
    """Write steer.pt."""
    push = {"steering_vector": direction.clone(), "steering_coefficient": length, "action": "add", "bias": None}
    write_atomically(path, lambda temporary: torch.save({hookpoint: push}, temporary))


def readme(source: LanguageModel, described: str, push: Push, hookpoint: str, cost: float) -> str:
    """Return the text of README.md."""
    model = source.model if not Path(source.model).is_absolute() else "MODEL"
    return f"""# A push along {described}

Added to the output of module `{hookpoint}`: a push of length {float(push.vector.norm()):.6g}, by {push.unit}. It costs
{cost:.3g} nats of next-token KL a token of the run's text.

In this folder, with `pip install lm_eval peft`:

    lm_eval --model steered --model_args pretrained={model},steer_path=steer.pt --tasks hellaswag

The push is added at every position, special tokens included. `steer.csv` holds the same push for versions of lm_eval
before 0.4.13, which read it with eai-sparsify; 0.4.13 refuses every .csv that adds.
"""
