"""Targets: the model, site and text that runs share, read from the runs' folders."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unbraid.evals.shared.evaluation import NotApplicable
from unbraid.runs.run import Run
from unbraid.sources.base import Source
from unbraid.sources.in_process import Reference, is_reference
from unbraid.sources.language_model.loading import located

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Target:
    """The model, site and text that SAEBench scores runs on."""

    model: str
    """The model's name as stored in the run: a folder, a hub id, or "embedded-2"."""
    folder: Path | None
    """The model's folder on this machine; None for a model on the hub."""
    hook: str
    layer: int
    text: str
    column: str
    eval_share: float

    @property
    def local(self) -> bool:
        """True if the model is a folder on this machine."""
        return self.folder is not None

    @property
    def name(self) -> str:
        """The name under which SAEBench knows the model; a path could hold words that TransformerLens dispatches on."""
        return "local-model" if self.local else self.model


def target_of(run: Run) -> Target:
    """The target of a run. Raises NotApplicable without a language model, ValueError when the model is not found."""
    return target_in(run.facts.cfg.get("metadata") or {}, run.source)


def target_in(metadata: Mapping[str, Any], source: Source) -> Target:
    """The target of a source, from its metadata, before there is a run. Raises as `target_of`."""
    if "hf_hook_name" not in metadata:
        raise NotApplicable(
            f"SAEBench needs a language model; this run is on {metadata.get('model_name', 'no model')!r}"
        )
    model = str(metadata["model_name"])
    if is_reference(model):
        raise NotApplicable(
            "SAEBench loads models by name, and this run's was given as an object "
            f"({Reference.parse(model).in_words}); train on the model's name or folder"
        )
    folder = Path(located(model)).expanduser()
    if not folder.is_dir() and not HUB_NAME.fullmatch(model):
        raise ValueError(f"the run's model is not at {model!r} any more; put it, or a link to it, back there")
    return Target(
        model=model, folder=folder.resolve() if folder.is_dir() else None, hook=str(metadata["hook_name"]),
        layer=int(metadata["hook_layer"]), text=str(metadata["dataset_path"]),
        column=getattr(source, "text_column", "text"), eval_share=getattr(source, "eval_share", 0.0),
    )  # fmt: skip


def check(run: Run) -> None:
    """Raise ValueError for weights that SAEBench would accept silently: transposed, or with atoms not of unit norm."""
    dictionary = run.dictionary()
    if bool((dictionary.norms() != 1).any()):
        raise ValueError(
            f"{run.path.name} was trained on whitened activations, and its {type(dictionary.activation).__name__} "
            "chooses other latents once atoms have norm 1, which SAEBench asks for: train it with BatchTopK, JumpReLU "
            "or ReLU"
        )


def group_by_target(runs: Sequence[Run]) -> tuple[dict[Target, list[Run]], dict[Path, Exception]]:
    """Group runs by target; the second mapping gives, by path, the reason why a run has none."""
    groups: dict[Target, list[Run]] = {}
    without: dict[Path, Exception] = {}
    for run in runs:
        try:
            found = target_of(run)
        except Exception as error:  # NotApplicable is one
            without[run.path] = error
        else:
            groups.setdefault(found, []).append(run)
    return groups, without
