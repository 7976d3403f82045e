"""What a suite will take, before anything starts: minutes, gigabytes, and what cannot be asked, with the reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unbraid.runs.run import Run
from unbraid.saebench import environment, subjects
from unbraid.saebench.bench import Bench, up_to_date, why_not
from unbraid.saebench.materials import CLASSES, ROWS
from unbraid.saebench.offers import Offer
from unbraid.saebench.subjects import Subject

IMPORTS = 0.3
"""Minutes that a process of SAEBench takes to start."""
PROBED_ROWS = {"sparse_probing": 60_000, "scr": 80_000, "tpp": 25_000, "sae_probes": 300_000}
"""Texts whose activations the hub's sets keep on disk, about."""
FLOAT = 4


@dataclass(frozen=True)
class Line:
    """One eval of the runs of one model and layer."""

    offer: Offer
    subject: Subject
    runs: int
    """Still to be scored."""
    kept: int
    """Scored already."""
    minutes: float
    gigabytes: float
    """Of activations and probes, while it runs."""
    reason: str
    """Why it cannot be asked; empty when it can."""


def forecast(runs: Sequence[Run], offers: Sequence[Offer], bench: Bench) -> tuple[list[Line], list[str]]:
    """A line an eval and subject, and what runs are left out, with the reason."""
    groups, without = subjects.grouped(runs)
    lines = [
        line(offer, subject, bench, runs=len(members) - kept, kept=kept, d_in=members[0].d_in)
        for subject, members in groups.items()
        for offer in offers
        for kept in [sum(up_to_date(run, offer, bench.asked(offer, subject)) for run in members)]
    ]
    return lines, [f"left out        {', '.join(names)}: {reason}" for reason, names in by_reason(without).items()]


def by_reason(without: Mapping[Path, Exception]) -> dict[str, list[str]]:
    """Names of the runs that are left out, the first few where they are many."""
    reasons: dict[str, list[str]] = {}
    for path, reason in without.items():
        reasons.setdefault(str(reason), []).append(path.name)
    return {
        why: [*names[:2], f"… ({len(names)} in all)"] if len(names) > 3 else names for why, names in reasons.items()
    }


def line(offer: Offer, subject: Subject, bench: Bench, *, runs: int, kept: int, d_in: int) -> Line:
    small, reason = bench.small(subject), why_not(offer, subject, bench)
    cost = offer.small_cost if small else offer.published_cost
    minutes = IMPORTS + cost.once + cost.each * runs if runs and not reason else 0.0
    return Line(offer, subject, runs, kept, minutes, gigabytes(offer, d_in, small) if minutes else 0.0, reason)


def gigabytes(offer: Offer, d_in: int, small: bool) -> float:
    """Activations that an eval keeps, at 128 positions a text."""
    if offer.name not in PROBED_ROWS:
        return 0.1
    rows = 2 * CLASSES * sum(ROWS.values()) if small else PROBED_ROWS[offer.name]
    return rows * 128 * d_in * FLOAT / 1e9


def described(lines: Sequence[Line], without: Sequence[str], cache: Path | None) -> list[str]:
    """For the reader. `cache`: where the environment is to be made; None when there is one."""
    told = [f"environment     to be made in {cache}: about {environment.MINUTES} min, {environment.GIGABYTES} GB, once"
            if cache else "environment     there"]  # fmt: skip
    for subject in dict.fromkeys(one.subject for one in lines):
        where = subject.folder or "on the hub: its weights and SAEBench's data sets are downloaded"
        told.append(f"{subject.model}, {subject.hook} ({where})")
        for one in (one for one in lines if one.subject == subject):
            told.append(f"  {one.offer.name:<15} {said(one)}")
    return [*told, *without, summed(lines)]


def summed(lines: Sequence[Line]) -> str:
    minutes, most = sum(one.minutes for one in lines), max((one.gigabytes for one in lines), default=0.0)
    return f"together        about {duration(minutes)} on one core, {most:.1f} GB at the peak"


def duration(minutes: float) -> str:
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def said(one: Line) -> str:
    if one.reason and one.runs:
        return f"not possible: {one.reason}"
    if not one.runs:
        return f"{one.kept} runs, scored already"
    already = f", {one.kept} scored already" if one.kept else ""
    caveat = f"; {one.offer.caveat}" if one.offer.caveat else ""
    return f"{one.runs} runs, about {one.minutes:.0f} min, {one.gigabytes:.1f} GB{already}{caveat}"
