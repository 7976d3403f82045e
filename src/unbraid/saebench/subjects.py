"""What runs are of: one site of one model, and the text it was seen on. Read from their folders."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unbraid.evals.shared.evaluation import NotApplicable
from unbraid.runs.run import Run
from unbraid.sources.base import Source
from unbraid.sources.language_model.loading import located

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Subject:
    """What runs share as far as SAEBench is concerned."""

    model: str
    """As in the run: a folder, a hub id, "embedded"."""
    folder: Path | None
    """Where the model is on this machine; None: on the hub."""
    hook: str
    layer: int
    text: str
    column: str
    eval_share: float

    @property
    def local(self) -> bool:
        return self.folder is not None

    @property
    def name(self) -> str:
        """What SAEBench is to call the model; a path may hold what TransformerLens dispatches on."""
        return "local-model" if self.local else self.model


def subject_of(run: Run) -> Subject:
    """Raises NotApplicable for a run that is on no language model, ValueError for a model that is not to be found."""
    return subject_in(run.facts.cfg.get("metadata") or {}, run.source)


def subject_in(metadata: Mapping[str, Any], source: Source) -> Subject:
    """The same of a source's metadata, before there is a run."""
    if "hf_hook_name" not in metadata:
        raise NotApplicable(f"SAEBench reads language models; this is on {metadata.get('model_name', 'no model')!r}")
    model = str(metadata["model_name"])
    folder = Path(located(model)).expanduser()
    if not folder.is_dir() and not HUB_NAME.fullmatch(model):
        raise ValueError(f"the run's model is not at {model!r} any more; put it, or a link to it, back there")
    return Subject(
        model=model, folder=folder.resolve() if folder.is_dir() else None, hook=str(metadata["hook_name"]),
        layer=int(metadata["hook_layer"]), text=str(metadata["dataset_path"]),
        column=getattr(source, "text_column", "text"), eval_share=getattr(source, "eval_share", 0.0),
    )  # fmt: skip


def check(run: Run) -> None:
    """Raise ValueError for weights that SAEBench would take without a word: another orientation, atoms not of unit
    norm."""
    run.dictionary()


def grouped(runs: Sequence[Run]) -> tuple[dict[Subject, list[Run]], dict[Path, Exception]]:
    """Runs by subject, and by path why a run has none."""
    groups: dict[Subject, list[Run]] = {}
    without: dict[Path, Exception] = {}
    for run in runs:
        try:
            found = subject_of(run)
        except Exception as error:  # NotApplicable is one
            without[run.path] = error
        else:
            groups.setdefault(found, []).append(run)
    return groups, without
