"""The facts that a report needs of an experiment, as data: method, requested sparsity, standard SAE or not, claim.

Training stores it in provenance.json, so that a report need not know the classes an experiment is made of, and terms of
other packages are judged by what they say of themselves. For folders written before that, it is worked out from their
experiment.json.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from unbraid.config.serialise import OWN_PACKAGES, resolve
from unbraid.dictionary.initialisation import Claim

SUMMARY = "summary"
"""Its key in provenance.json."""
WHITEN = "whiten"
"""The value of training.normalise that whitens activations."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    method: str
    """The experiment's name: one method at several sparsities has one name."""
    l0: float | None
    """The requested sparsity; None when none was."""
    standard: bool
    """Whether it is one of the field's standard SAEs, the baselines of every answer: reconstruction, nested
    (Matryoshka) or not, and penalties that ask for sparsity or living latents and nothing else."""
    claim: Claim
    """What a win of it would speak for, were it compared."""
    trivial: bool
    """Whether it is a control that nothing was trained for and that did not see the truth: untrained, random, PCA."""
    base: str | None = None
    """The method that it is, or that a term was added to; None where the experiment does not say it."""
    term: str | None = None
    """What was added to the base's objective; None for the base itself."""
    strength: float | None = None
    """Size of the added term's gradient, as a share of the reconstruction's."""
    width: int | None = None
    """Requested number of latents."""
    seed: int | None = None
    sees_truth: bool | None = None
    """Whether its initialisation is made from the truth, or trained on it; None in folders that do not say."""
    geometry: str = "raw"
    """raw, or whitened: the metric of the activations in which it was trained (training.normalise)."""


def summarise(experiment: Mapping[str, Any], packages: tuple[str, ...] = OWN_PACKAGES) -> Summary:
    """The summary of an experiment given as today's JSON. Classes that cannot be imported, as those outside `packages`,
    count as neither standard nor about claim 2."""
    dictionary, training = experiment["dictionary"], experiment["training"]
    control = bool(experiment.get("control", False))
    init = dictionary.get("init") or {}
    start = said_by(init, packages)
    penalties = [said_by(term, packages) for term in wanted(experiment)]
    fitted = start.get("claim") == 2
    if control or fitted or dictionary.get("orthonormal_blocks"):
        standard = False
    elif "standard" in init:  # trained elsewhere, and whoever imported it knows
        standard = bool(init["standard"])
    else:
        terms = [said_by(experiment["objective"]["reconstruction"], packages), *penalties]
        standard = all(term.get("standard", False) for term in terms)
    knobs = fitted or any(term.get("claim") == 2 for term in penalties)
    untrained = training.get("tokens") == 0 and not start.get("uses_truth", False)
    return Summary(
        method=str(experiment["name"]), l0=requested_l0(experiment), standard=standard, claim=2 if knobs else 1,
        trivial=control and untrained, base=experiment.get("base"), term=experiment.get("term"),
        strength=experiment.get("strength"), width=dictionary.get("d_sae"), seed=experiment.get("seed"),
        sees_truth=bool(start.get("uses_truth", False)),
        geometry="whitened" if training.get("normalise") == WHITEN else "raw",
    )  # fmt: skip


def stored(summary: Any) -> Summary:
    """The summary that a provenance.json holds. Raises ValueError when it is of another shape."""
    kinds = {"method": str, "l0": int | float | None, "standard": bool, "claim": int, "trivial": bool}
    design = {
        "base": str | None,
        "term": str | None,
        "strength": int | float | None,
        "width": int | None,
        "seed": int | None,
        "sees_truth": bool | None,
        "geometry": str,
    }
    fields = cast("dict[str, Any]", summary) if isinstance(summary, dict) else {}
    missing = [name for name in kinds if name not in fields]  # what says the design came later, and may be missing
    every = kinds | design
    wrong = [name for name, value in fields.items() if name not in every or not isinstance(value, every[name])]
    if missing or wrong or fields["claim"] not in (1, 2):
        said = ", ".join([*missing, *wrong]) or sorted(fields)
        raise ValueError(f"a summary of another shape ({said}); train the run again")
    return Summary(**fields)


def wanted(experiment: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Penalties that do anything."""
    for term in (experiment["objective"].get("penalties") or {}).values():
        if term.get("weight", 1.0) or term.get("gradient_ratio"):
            yield term


def said_by(node: Mapping[str, Any], packages: tuple[str, ...]) -> Mapping[str, Any]:
    """The attributes by which the class of a node describes itself; nothing where it cannot be had."""
    try:
        cls = resolve(node.get("type"), packages=packages)
    except ValueError:
        return {}
    return {name: getattr(cls, name, None) for name in ("claim", "standard", "uses_truth")}


def requested_l0(experiment: Mapping[str, Any]) -> float | None:
    """The activation's k, the L0 that a weight is moved to reach, or what the experiment states; None for neither."""
    activation = experiment["dictionary"].get("activation") or {}
    target = experiment["objective"].get("target_l0") or {}
    found = activation.get("k") or target.get("l0") or experiment.get("l0")
    return None if found is None else float(found)


def label(name: str, l0: float | None) -> str:
    """A method and the sparsity requested of it: topk-l0_32."""
    return name if l0 is None else f"{name}-l0_{short(l0)}"


def short(value: int | float) -> str:
    """A number in letters that a folder's name can have."""
    return f"{value:g}".replace("+", "")
