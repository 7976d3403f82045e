"""The estimated cost of a suite, before anything starts: minutes, gigabytes, and evals that do not apply, with why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unbraid.experiment.experiment import Experiment
from unbraid.runs.run import Run
from unbraid.saebench import environment, targets, work
from unbraid.saebench.bench import Bench, reason_not_applicable, up_to_date
from unbraid.saebench.datasets import CLASSES, ROWS
from unbraid.saebench.eval_specs import EvalSpec
from unbraid.saebench.targets import Target

IMPORTS = 0.3
"""Minutes that one process of SAEBench takes to start."""
PROBED_ROWS = {"sparse_probing": 60_000, "scr": 80_000, "tpp": 25_000, "sae_probes": 300_000}
"""Approximate number of texts whose activations are kept on disk for the hub's data sets."""
FLOAT = 4


@dataclass(frozen=True)
class CostEstimate:
    """The estimated cost of one eval for the runs of one model and layer."""

    eval_spec: EvalSpec
    target: Target
    runs: int
    """Runs still to be scored."""
    kept: int
    """Runs scored already."""
    minutes: float
    gigabytes: float
    """Size of activations and probes while it runs."""
    reason: str
    """Why the eval does not apply; empty when it does."""


def estimate(runs: Sequence[Run], eval_specs: Sequence[EvalSpec], bench: Bench) -> tuple[list[CostEstimate], list[str]]:
    """Return one estimate per eval and target, and lines that say which runs are left out, with the reason."""
    groups, without = targets.group_by_target(runs)
    lines = [
        estimate_one(eval_spec, target, bench, runs=len(members) - kept, kept=kept, of=members[0].experiment)
        for target, members in groups.items()
        for eval_spec in eval_specs
        for kept in [sum(up_to_date(run, eval_spec, bench.request_key(eval_spec, target)) for run in members)]
    ]
    return lines, [f"left out        {', '.join(names)}: {reason}" for reason, names in by_reason(without).items()]


def by_reason(without: Mapping[Path, Exception]) -> dict[str, list[str]]:
    """Group the runs that are left out by reason; of many, the first few are named."""
    reasons: dict[str, list[str]] = {}
    for path, reason in without.items():
        reasons.setdefault(str(reason), []).append(path.name)
    return {
        why: [*names[:2], f"… ({len(names)} in all)"] if len(names) > 3 else names for why, names in reasons.items()
    }


def estimate_one(
    eval_spec: EvalSpec, target: Target, bench: Bench, *, runs: int, kept: int, of: Experiment
) -> CostEstimate:
    """Estimate the cost of one eval for `runs` runs of one target, each as large as the experiment `of`."""
    small, reason = bench.small(target), reason_not_applicable(eval_spec, target, bench)
    if not runs or reason:
        return CostEstimate(eval_spec, target, runs, kept, 0.0, 0.0, reason)
    cost = eval_spec.small_cost if small else eval_spec.published_cost
    minutes = IMPORTS + cost.once + cost.each * runs
    if small and target.folder is not None:
        model, settings = work.model_in(target.folder, target.layer), bench.settings(eval_spec, target)
        minutes += work.minutes(
            eval_spec.name,
            settings,
            model,
            runs=runs,
            d_sae=of.dictionary.d_sae,
            products=work.speed(model.width),
        )
    return CostEstimate(eval_spec, target, runs, kept, minutes, gigabytes(eval_spec, of.source.d_in, small), reason)


def gigabytes(eval_spec: EvalSpec, d_in: int, small: bool) -> float:
    """Estimate the size of the activations that an eval keeps, at 128 positions a text."""
    if eval_spec.name not in PROBED_ROWS:
        return 0.1
    rows = 2 * CLASSES * sum(ROWS.values()) if small else PROBED_ROWS[eval_spec.name]
    return rows * 128 * d_in * FLOAT / 1e9


def describe(lines: Sequence[CostEstimate], without: Sequence[str], cache: Path | None) -> list[str]:
    """Format estimates for the user, one line each. `cache`: where the environment will be made; None if it exists."""
    shown = [f"environment     to be made in {cache}: about {environment.MINUTES} min, {environment.GIGABYTES} GB, once"
            if cache else "environment     there"]  # fmt: skip
    for target in dict.fromkeys(one.target for one in lines):
        where = target.folder or "on the hub: its weights and SAEBench's data sets are downloaded"
        shown.append(f"{target.model}, {target.hook} ({where})")
        for one in (one for one in lines if one.target == target):
            shown.append(f"  {one.eval_spec.name:<15} {describe_one(one)}")
    return [*shown, *without, describe_total(lines)]


def describe_total(lines: Sequence[CostEstimate]) -> str:
    """Format the total time and the largest size."""
    minutes, most = sum(one.minutes for one in lines), max((one.gigabytes for one in lines), default=0.0)
    return f"together        about {duration(minutes)} on one core, {most:.1f} GB at the peak"


def duration(minutes: float) -> str:
    """Format a time given in minutes: "12 min", or "1.5 h" from 90 minutes on."""
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def describe_one(one: CostEstimate) -> str:
    """Format one estimate: the reason why it does not apply, or runs, minutes and gigabytes."""
    if one.reason and one.runs:
        return f"not possible: {one.reason}"
    if not one.runs:
        return f"{one.kept} runs, scored already"
    already = f", {one.kept} scored already" if one.kept else ""
    caveat = f"; {one.eval_spec.caveat}" if one.eval_spec.caveat else ""
    return f"{one.runs} runs, about {one.minutes:.0f} min, {one.gigabytes:.1f} GB{already}{caveat}"
