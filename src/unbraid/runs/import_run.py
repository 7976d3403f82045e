"""A run from an SAE that others trained, so that every eval and the report see it as they see any run.

Its experiment says where it came from; its provenance holds what the folder said of itself, and what was changed.
"""

import math
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.normaliser import Normaliser
from unbraid.experiment.experiment import Experiment, Training
from unbraid.formats import recognise
from unbraid.formats.claims import contradictions, sparsity
from unbraid.formats.imported import Imported
from unbraid.formats.published import Published
from unbraid.objective.objective import Objective
from unbraid.runs.provenance import machine
from unbraid.runs.run import Run, save_run
from unbraid.runs.run_folder import finished
from unbraid.sources.base import Source
from unbraid.sources.fitting_sample import fitting_sample
from unbraid.system.locks import held
from unbraid.terms.reconstruction.reconstruction import Reconstruction

SIGHT = 4096
"""Rows that an SAE is looked at on."""
DEPTH = 20
"""To which settings of others are kept; no library nests as deep."""
LONGEST = 80
"""Letters of a name that is made of a folder's."""
POOR_FVU = 1.0
"""An SAE that explains less than the mean does is most likely on the wrong site."""


@dataclass(frozen=True)
class Fit:
    """A quick fit of an SAE to a source's activations: FVU and L0 on training rows, before any eval."""

    fvu: float
    l0: float


def experiment_of(
    folder: Path,
    published: Published,
    source: Source,
    *,
    name: str = "",
    seed: int = 0,
    standard: bool = True,
    l0: float | None = None,
) -> Experiment:
    """The experiment an imported SAE is. `name`: what the report calls it; made from the folder's when empty. `seed`:
    tells SAEs of one name apart that were trained alike, so that a report has intervals over them. `l0`: the sparsity
    it was trained for, where its activation does not say."""
    init = Imported(
        folder=str(folder), sha256=recognise.digest(folder), format=published.format,
        architecture=published.architecture, standard=standard,
    )  # fmt: skip
    activation, d_sae = published.dictionary.activation, published.dictionary.d_sae
    return Experiment(
        name=name or default_name(folder), source=source, objective=Objective(reconstruction=Reconstruction()),
        dictionary=DictionaryConfig(d_sae=d_sae, activation=activation, init=init),
        training=Training(tokens=0, normalise="none"), seed=seed, l0=l0,
    )  # fmt: skip


def default_name(folder: Path) -> str:
    """imported-<release>-<folder>, in the letters a run's name may have."""
    parts = folder.resolve().parts[-2:]
    name = re.sub(r"[^a-z0-9_.-]+", "-", "-".join(parts).lower()).strip("-.")[-LONGEST:].strip("-.")
    return f"imported-{name or 'sae'}"


def import_run(
    folder: Path,
    source: Source,
    root: Path,
    *,
    name: str = "",
    seed: int = 0,
    standard: bool = True,
    l0: float | None = None,
) -> tuple[Run, Fit, tuple[str, ...]]:
    """Write the run under `root`. Return it, its quick fit to the source, and warnings.

    Raises ValueError for a folder that cannot be read, and when the source's activations have other dimensions.
    """
    made_by, started = machine(), time.monotonic()
    published = recognise.read(folder)
    experiment = experiment_of(folder, published, source, name=name, seed=seed, standard=standard, l0=l0)
    path = root / experiment.folder
    if finished(path):
        raise ValueError(f"{path} is there already: the same SAE on the same source, under the same name")
    if source.d_in != published.dictionary.d_in:
        raise ValueError(
            f"{folder} explains {published.dictionary.d_in} dimensions, the source's activations have {source.d_in}: "
            "name the model, layer and site it was trained on"
        )
    sample = fitting_sample(source, experiment.data_seed)
    fit = quick_fit(published.dictionary, sample)
    warnings = (*published.notes, *consistency_warnings(published, source, fit, sample))
    about = {"imported": provenance(published, experiment, fit, warnings), "tokens": 0}
    seconds = {"seconds": round(time.monotonic() - started, 2)}
    normaliser = Normaliser.fit(sample, "none")
    with held([path]):
        run = save_run(path, experiment, published.dictionary, normaliser, sample, made_by | about | seconds)
    return run, fit, warnings


def provenance(published: Published, experiment: Experiment, fit: Fit, notes: tuple[str, ...]) -> dict[str, Any]:
    """Return the provenance of an imported run."""
    init = experiment.dictionary.init
    assert isinstance(init, Imported)
    return {
        "from": init.folder, "sha256": init.sha256, "format": published.format,
        "architecture": published.architecture, "trained": plain(published.trained), "quick_fit": asdict(fit),
        "notes": list(notes),
    }  # fmt: skip


def plain(node: Any, depth: int = DEPTH) -> Any:
    """Another library's metadata as JSON; values that JSON cannot hold become text."""
    if depth == 0:
        return "…"
    if isinstance(node, Mapping):
        return {str(key): plain(value, depth - 1) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [plain(value, depth - 1) for value in node]
    storable = node is None or isinstance(node, bool | int | str) or (isinstance(node, float) and math.isfinite(node))
    return node if storable else str(node)


@torch.no_grad()
def quick_fit(dictionary: Dictionary, sample: torch.Tensor) -> Fit:
    """Measure FVU and L0 on the first rows of the sample."""
    x = sample[:SIGHT].float()
    z = dictionary.codes(x)
    error, spread = (x - dictionary.decode(z)).square().sum(), (x - x.mean(0)).square().sum()
    return Fit(float(error / spread), float(z.l0()))


def consistency_warnings(published: Published, source: Source, fit: Fit, sample: torch.Tensor) -> list[str]:
    """Signs that the SAE was trained on another source, or that its weights have changed; each in a sentence."""
    found = contradictions(published.stated, source.metadata())
    found += sparsity(published, fit.l0, sample[:SIGHT].float())
    if not fit.fvu < POOR_FVU:
        found.append(
            f"FVU {fit.fvu:.3g} on this source, worse than its mean: is it the right model, layer, site and scale?"
        )
    return found
