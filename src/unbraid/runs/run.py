"""A run on disk: an SAELens folder with our configuration, logs, scores and provenance next to it.

cfg.json  sae_weights.safetensors   what SAELens loads: for raw activations, atoms of unit norm (not where whitened
                                    latents are compared: `Normaliser`)
experiment.json                     the resolved configuration
fit.safetensors                     what a fit found besides the atoms (MELBO, DCT): effects, strengths, radius
normaliser.safetensors              mean, scale and, where they were whitened, the map and its inverse that were folded
                                    in
metrics.jsonl                       one row a logged step
results/<eval>.json                 scores
provenance.json                     versions, machine, seconds, and the seals of all of these; written last, so it marks
                                    completion
failed.json                         instead of it, of a run that cannot be trained to its end
"""

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from unbraid.config.serialise import OWN_PACKAGES, from_json, to_json
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.normaliser import Normaliser
from unbraid.experiment.experiment import Experiment
from unbraid.experiment.summary import SUMMARY
from unbraid.formats import saelens
from unbraid.formats.imported import Imported
from unbraid.runs.failure import failure
from unbraid.runs.run_folder import Facts, finished, is_run, read_facts
from unbraid.sources.base import CACHE, Source, with_own_cache
from unbraid.system.devices import sent
from unbraid.system.files import reading, write_json, write_tensors
from unbraid.system.sealing import PROVENANCE, REMEDY, check_sealed, seals, signed
from unbraid.system.sharing import shared

_sources: dict[tuple[Source, tuple[str, ...]], Source] = {}


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder alone."""

    path: Path
    packages: tuple[str, ...] = OWN_PACKAGES
    """Packages whose classes experiment.json may name."""
    permissions: tuple[str, ...] = ()
    """What is allowed that no file may allow itself (`serialise.permission`)."""

    @classmethod
    def open(cls, path: Path, packages: tuple[str, ...] = OWN_PACKAGES, permissions: tuple[str, ...] = ()) -> "Run":
        """Open a run. Raises ValueError when there is no finished run at `path`, its files were changed or do not
        agree, or its experiment is of another version."""
        if not is_run(path):
            raise ValueError(f"{path} is not a run folder (no experiment.json)")
        if not finished(path):
            reason = failure(path) or "is not finished: train it to the end with --resume"
            raise ValueError(f"{path} {reason}")
        run = cls(path, packages, permissions)
        _ = run.experiment
        return run

    @cached_property
    def facts(self) -> Facts:
        """The contents of its JSON files."""
        found = read_facts(self.path)
        if not found.cfg:
            raise ValueError(f"{self.path / 'cfg.json'} is missing; {REMEDY}")
        return found

    @cached_property
    def experiment(self) -> Experiment:
        """The experiment of the run. Raises ValueError when experiment.json does not describe one."""
        path = self.path / "experiment.json"
        try:
            experiment = built(self.facts.experiment, self.packages, self.permissions)
        except (TypeError, AttributeError, KeyError) as error:  # what a class makes of values of another kind
            raise ValueError(f"{path} holds values of another kind ({error}); {REMEDY}") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if not isinstance(experiment, Experiment):
            raise ValueError(f"{path} does not hold an Experiment")
        return experiment

    @property
    def source(self) -> Source:
        """The source trained on; one object for all runs that share it, so that a model is loaded once. It writes
        nowhere but where it does by default, whatever the file says."""
        source = with_own_cache(self.experiment.source)
        return _sources.setdefault((source, self.permissions), source)

    @property
    def notes(self) -> list[str]:
        """Settings in its files that are not used here, each in a sentence."""
        stored, used = self.experiment.source, self.source
        if stored == used:
            return []
        where, own = getattr(stored, CACHE), getattr(used, CACHE)
        why = "a file does not choose where this machine writes"
        return [f"{self.path.name}: text is kept in {own}, not in {where!r} as its experiment.json says: {why}"]

    @property
    def d_in(self) -> int:
        """Width of the activations, as cfg.json states."""
        return saelens.whole(self.facts.cfg, "d_in", self.path / "cfg.json")

    def dictionary(self) -> Dictionary:
        """The dictionary for raw activations, as SAELens would load it. Raises ValueError when a file is not the one
        that was saved, or holds what no run saves."""
        weights = self.facts.weights
        return _read_shared(dataclasses.replace(self, path=self.path.absolute()), weights) if weights else _read(self)

    def normaliser(self) -> Normaliser:
        """The normalisation that was folded into its dictionary. Raises ValueError when its file is not the one that
        was saved."""
        path = self.path / "normaliser.safetensors"
        check_sealed(self.path, path.name, self.facts.seals)
        with reading(path, REMEDY):
            return Normaliser.of(load_file(path))

    def fit(self) -> dict[str, torch.Tensor]:
        """Results of a fit besides the atoms; empty where nothing was fitted."""
        path = self.path / "fit.safetensors"
        if not path.is_file():
            return {}
        check_sealed(self.path, path.name, self.facts.seals)
        with reading(path, REMEDY):
            return load_file(path)


def _read(run: Run) -> Dictionary:
    found = saelens.read(run.path, run.packages)
    trained = run.experiment.dictionary.activation
    found.trained_as = type(trained).__name__ if type(trained) is not type(found.activation) else ""
    return found


@shared
def _read_shared(run: Run, weights: str) -> Dictionary:
    """The dictionary of a run whose weights have this SHA-256; one object for all evals that read it together."""
    return _read(run)


def built(data: Mapping[str, Any], packages: tuple[str, ...], permissions: tuple[str, ...]) -> Any:
    """The object that JSON describes. Runs of a study share most of their parts, and each is made once."""
    parts = {
        key: _part(json.dumps(value, sort_keys=True), packages, permissions) if isinstance(value, dict) else value
        for key, value in data.items()
    }
    return from_json(parts, packages=packages, permissions=permissions)


@lru_cache(maxsize=4096)
def _part(text: str, packages: tuple[str, ...], permissions: tuple[str, ...]) -> Any:
    return from_json(json.loads(text), packages=packages, permissions=permissions)


def save_run(
    path: Path,
    experiment: Experiment,
    dictionary: Dictionary,
    normaliser: Normaliser,
    sample: torch.Tensor,
    provenance: Mapping[str, Any],
) -> Run:
    """Write a finished run, from the CPU.

    `sample`: raw activations on which folding is checked and BatchTopK calibrated, where the dictionary is.
    `provenance`: `machine()` as it was when the work began, and what it took.

    Raises ValueError when folding the normalisation would change the reconstructions; nothing is written then.
    """
    fitted, rows = dictionary.fitted, sent(sample, dictionary.W_dec.device)
    dictionary, normaliser = dictionary.for_inference(normaliser(rows)).cpu(), normaliser.to("cpu")
    folded = normaliser.fold(dictionary)
    normaliser.check(dictionary, folded, sample[:2048])
    init = experiment.dictionary.init
    made = {"imported": to_json(init)} if isinstance(init, Imported) else {"objective": to_json(experiment.objective)}
    details = {"experiment": experiment.folder, **made, "seed": experiment.seed}
    site = {
        "training_architecture": type(experiment.dictionary.activation).__name__.lower(),
        **experiment.source.metadata(),
    }
    if normaliser.whitening is not None and not folded.activation.homogeneous:
        site[saelens.UNIT_NORM] = False
    saelens.write(folded, path, {**site, "training_architecture_details": details})
    write_tensors(path / "normaliser.safetensors", normaliser.tensors())
    if fitted:
        write_tensors(path / "fit.safetensors", fitted)
    write_json(path / "experiment.json", to_json(experiment))
    finished_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    summary = {SUMMARY: asdict(experiment.summary)}
    whole = {**provenance, **summary, "finished": finished_at, "files": seals(path)}
    write_json(path / PROVENANCE, signed(whole))
    return Run(path)
