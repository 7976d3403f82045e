"""The architecture of a run by the names of published SAEs, as far as the run says it."""

import re

from unbraid.comparison.stored_scores import StoredRun, class_name
from unbraid.config.serialise import to_json
from unbraid.experiment.summary import wanted
from unbraid.sources.synth import SYNTHSAEBENCH_16K

SYNTH = "SynthSAEBench-16k"
TRAINED = {"ReLU": "standard", "TopK": "topk", "BatchTopK": "batchtopk", "JumpReLU": "jumprelu", "Gated": "gated"}
"""By the activation trained with."""
ELSEWHERE = {
    "autoencoder": "standard", "autoencodernew": "standard", "gatedautoencoder": "gated", "autoencodertopk": "topk",
    "batchtopksae": "batchtopk", "jumpreluautoencoder": "jumprelu", "matryoshkabatchtopksae": "matryoshka",
    "matryoshkabatchtopk": "matryoshka",
}  # fmt: skip
"""By what other libraries call them, in letters alone."""


def architecture_of(run: StoredRun) -> str:
    """The architecture of a run; empty where it is none of those published, or only what is left at inference is
    known."""
    if run.imported:
        return imported_architecture(run)
    objective, activation = run.experiment["objective"], run.experiment["dictionary"].get("activation") or {}
    if is_full_synth(run) and (found := step_of_ladder(objective["reconstruction"], activation)):
        return found
    if class_name(objective["reconstruction"]) in ("NestedReconstruction", "SampledPrefixes"):
        return "matryoshka" if class_name(activation) in ("TopK", "BatchTopK") else ""
    annealed = any(class_name(term) == "PAnnealing" for term in wanted(run.experiment))
    return "panneal" if annealed else TRAINED.get(class_name(activation), "")


def imported_architecture(run: StoredRun) -> str:
    """The architecture that the library of an imported SAE names."""
    trained = (run.provenance.get("imported") or {}).get("trained") or {}
    if "PAnneal" in str(trained.get("trainer_class")):
        return "panneal"
    if "NestedReconstruction" in str(trained.get("training_architecture_details")):  # a folder of ours
        return "matryoshka"
    named = str(trained.get("training_architecture") or run.imported.get("architecture", ""))
    letters = re.sub(r"[^a-z]", "", named.lower())
    if letters == "jumprelu" and run.imported.get("format") == "SAELens":
        return ""  # BatchTopK and gated SAEs are saved as it, too
    return ELSEWHERE.get(letters, letters if letters in TRAINED.values() else "")


def is_full_synth(run: StoredRun) -> bool:
    """True for a run on SynthSAEBench-16k as published: saved under that name, or generated from its settings."""
    source = run.experiment["source"]
    if class_name(source) != "Synth":
        return False
    settings = {k: v for k, v in to_json(SYNTHSAEBENCH_16K).items() if k not in ("block_rows", "seed", "model")}
    saved = "synth-sae-bench-16k" in str(source.get("model"))
    return saved or all(source.get(key) == value for key, value in settings.items())


def step_of_ladder(form: dict, activation: dict) -> str:
    """The step of SynthSAEBench-16k's ladder by reconstruction and activation; empty for those that are on none."""
    ista = class_name(activation) == "IstaBatchTopK"
    if class_name(form) != "NestedReconstruction":
        return "ista" if ista else ""
    if not form.get("detached"):
        return "ista_matryoshka" if ista else "matryoshka"
    if form.get("order", "index") == "index":
        return "detached"
    if activation.get("first_k", 1.0) == 1.0:
        return "sorted"
    return "six_widths" if len(form["shares"]) > 5 else "annealed"
