"""Translation of SAEBench's JSON to scores, checked against the run that it should be of.

SAEBench writes -1 for a missing number, which becomes NaN; None was not requested and gives no row.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unbraid.evals.shared.evaluation import NotApplicable, Score
from unbraid.saebench.environment import SAE_BENCH
from unbraid.saebench.metric_names import METRIC_NAMES, TYPE_IDS

VERSION = 1
"""Version of this translation; raised whenever its numbers change."""
MISSING = -1.0
ROOM = 0.1
"""Least accuracy that a spurious attribute must cost for SCR to be scored: below it, scores beyond +-1 were seen."""


def translate(name: str, result: Any, about: Mapping[str, Any], *, run: str, shape: tuple[int, int]) -> list[Score]:
    """Return the scores of one run. `about`: facts that the driver stored next to the JSON. `shape`: (d_in, d_sae).

    Raises ValueError when this is not a result of this eval, of the supported version, or of this run; NotApplicable
    when `about` shows that its numbers mean nothing.
    """
    check(name, result, about, run=run, shape=shape)
    scores = [score for place, value in numbers(result) for score in translated(name, place, value)]
    if not scores:
        raise ValueError(f"SAEBench's {name} holds none of the expected numbers; it may be of another version")
    if all(math.isnan(score.value) for score in scores):
        raise ValueError(f"every number of SAEBench's {name} is missing; its log says why")
    return [*scores, *extra_scores(name, about)]


def check(name: str, result: Any, about: Mapping[str, Any], *, run: str, shape: tuple[int, int]) -> None:
    """Raise ValueError unless `result` is of this eval, version, run and shape."""
    if not isinstance(result, dict) or not isinstance(result.get("eval_result_metrics"), dict):
        raise ValueError(f"this is no result of SAEBench: {name} should hold eval_result_metrics")
    found = (about.get("versions") or {}).get("sae-bench")
    if found != SAE_BENCH:
        raise ValueError(
            f"{name} was scored by sae-bench {found}, Unbraid reads {SAE_BENCH}; score it again with --force"
        )
    if result.get("eval_type_id") != TYPE_IDS[name]:
        raise ValueError(f"expected SAEBench's {TYPE_IDS[name]}, found {result.get('eval_type_id')!r}")
    if (of := result.get("sae_lens_release_id")) != run:
        raise ValueError(f"this is the result of {of!r}, not of {run!r}")
    cfg = result.get("sae_cfg_dict") or {}
    if (cfg.get("d_in"), cfg.get("d_sae")) != shape:
        raise ValueError(
            f"{name} scored an SAE of d_in {cfg.get('d_in')} and d_sae {cfg.get('d_sae')}, the run has {shape[0]} and "
            f"{shape[1]}; the run was changed since, score it again with --force"
        )


def numbers(result: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield every number as (category.name, value); those not requested are left out."""
    for category, values in result["eval_result_metrics"].items():
        for key, value in values.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield f"{category}.{key}", float(value)


def translated(name: str, place: str, value: float) -> Iterator[Score]:
    """Yield the scores that one number becomes."""
    for known in METRIC_NAMES[name]:
        if (found := re.fullmatch(known.place, place)) is not None:
            groups = {key: float(text) for key, text in found.groupdict().items()}
            missing = value == MISSING and name not in ("scr", "tpp")  # a share regained may be -1
            yield Score(
                metric=known.metric, value=math.nan if missing else value, better=known.better,
                params={**groups, **(known.params or {})},
            )  # fmt: skip


def extra_scores(name: str, about: Mapping[str, Any]) -> list[Score]:
    """The scores from facts that the driver stored next to SAEBench's numbers."""
    if name == "absorption":
        f1 = list(about["probe_f1"].values())
        return [
            Score(
                metric="first_letter_absorption_fraction", value=float(about["absorption_fraction_0_3_2"]),
                better="lower", params={"definition": "0.3.2"},
            ),
            Score(metric="first_letter_probe_f1", value=sum(f1) / len(f1), better="neither"),
            Score(metric="first_letter_letters", value=float(len(about["letters"])), better="neither"),
        ]  # fmt: skip
    if name == "scr":
        return [Score(metric="scr_room", value=room(about["accuracies"]), better="neither")]
    if name == "ravel":
        return [Score(metric="ravel_prompts", value=float(about["prompts_answered"]), better="neither")]
    return []


def room(pairs: Sequence[Mapping[str, float]]) -> float:
    """The accuracy that the spurious attribute costs, mean over pairs and directions.

    Raises NotApplicable when it is below ROOM: there is nothing to remove.
    """
    rooms = [found for accuracies in pairs for found in rooms_of(accuracies)]
    mean = sum(rooms) / len(rooms)
    if mean < ROOM:
        raise NotApplicable(
            f"the spurious attribute costs the probe {mean:.3f} of accuracy, {ROOM} is needed: there is nothing "
            "for SCR to remove, on this model with these texts"
        )
    return mean


def rooms_of(accuracies: Mapping[str, float]) -> list[float]:
    """Clean minus biased accuracy in both directions, for one pair of classes (the keys are SAEBench's for any)."""
    biased = "male_professor / female_nurse probe on {} data"
    return [accuracies[kind] - accuracies[biased.format(kind)] for kind in ("professor / nurse", "male / female")]
