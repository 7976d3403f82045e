"""Registration of a claim card: its hash and date, what calibration chose, and the power that the study will have.

    forest.toml                the card
    forest.registered.json     what is written here, once; finished work is not overwritten

A card that has changed since is refused. A verdict is registered when all its runs are the card's and were finished
after the registration; what departs from it is said, and the verdict is exploratory then.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from unbraid.comparison.card import ClaimCard, card_hash, no_score, read_card, score_name
from unbraid.comparison.contrast import contrast
from unbraid.comparison.gate import GateResult, gate
from unbraid.comparison.intervals import LEVEL
from unbraid.comparison.power import (
    POWER,
    Power,
    detectable,
    pooled,
    power_of_equivalence,
    power_to_find,
    seeds_for_equivalence,
    seeds_needed,
)
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.scores import Method, Scores, arrange, own_base
from unbraid.comparison.smallest_effect import SmallestEffect, smallest_effects
from unbraid.comparison.stored_scores import StoredRun, StoredScores
from unbraid.comparison.tuning import Choice, choose
from unbraid.comparison.verdict import Rules
from unbraid.comparison.wording import listed, number, plural
from unbraid.config.settings import annotations, fault_of
from unbraid.config.version import __version__
from unbraid.experiment.experiment import Experiment
from unbraid.experiment.factorial import Factorial
from unbraid.experiment.tuning import Tuning
from unbraid.runs.provenance import machine
from unbraid.system.files import read_json, write_text

T = TypeVar("T")
SUFFIX = ".registered.json"
REMEDY = "restore it from version control, or register the card under another name"
"""What to do about a registration that cannot be read."""


@dataclass(frozen=True)
class Registration:
    """The record of what was fixed before the runs of a claim."""

    sha256: str
    registered: str
    """When, in UTC."""
    version: str
    git: str
    chosen: Mapping[str, Choice]
    smallest: Mapping[str, SmallestEffect]
    """By the score's name in the card."""
    gate: Sequence[GateResult]
    power: Sequence[Power]
    runs: int
    """Number of calibration runs."""
    expected: Sequence[str]
    """The run folders that the test will make, each named by the fingerprint of its experiment."""

    def settings(self) -> dict[str, Tuning]:
        """The chosen setting of each method."""
        return {name: choice.setting for name, choice in self.chosen.items()}


def registration_path(card: Path) -> Path:
    """The file next to a card that its registration is in."""
    return card.with_name(card.stem + SUFFIX)


def with_seeds(study: Factorial, card: ClaimCard) -> Factorial:
    """A study with the seeds that its card names. Raises ValueError when its card says another number of settings."""
    if (tried := len(study.strengths)) != card.settings:
        raise ValueError(
            f"the card says {card.settings} settings a method, and the study tries {tried}; write settings = {tried}"
        )
    return replace(study, seeds=card.seeds, calibration_seeds=card.calibration_seeds)


def register(path: Path, study: Factorial, calibration: StoredScores) -> Registration:
    """Register a card: choose settings, pass the gate and work out the power on calibration runs, and write it.

    Raises ValueError when the card is registered already, names a score that failed the gate or that a method lacks,
    has fewer seeds than its power needs, or when runs are of other seeds than its calibration seeds.
    """
    card, out = read_card(path), registration_path(path)
    check_new(path, card)
    study = with_seeds(study, card)
    check_calibration(card, study, calibration)
    scores = arrange(calibration)
    primaries = [primary(scores, card, i) for i in range(len(card.primaries))]
    results = gate(scores, study.d_sae, list(dict.fromkeys([*scores.headline, *primaries])))
    smallest = smallest_of(scores, study.d_sae, card, primaries)
    check_primaries(card, primaries, results, smallest, scores, study.d_sae)
    chosen = choose(scores, study, primaries, {q: s.value for q, s in smallest.items()}, card.fvu_cap)
    power = [power_of(scores, study, card, q, smallest[q], chosen, len(primaries)) for q in primaries]
    weak = [p for p in power if not p.to_find >= POWER]
    if weak and not card.underpowered:
        raise ValueError(
            f"{path} has fewer seeds than its power needs: {'; '.join(p.sentence for p in weak)}. Name more seeds, or "
            "set underpowered = true, which the verdict will say"
        )
    about = machine()
    made = Registration(
        card_hash(path), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), about["unbraid"], about["git"], chosen,
        {score_name(q): s for q, s in smallest.items()}, list(results.values()), power, len(calibration.runs),
        sorted(e.folder for e in study.test({name: choice.setting for name, choice in chosen.items()})),
    )  # fmt: skip
    write_text(out, json.dumps(finite(asdict(made)), indent=1, allow_nan=False) + "\n")
    return made


def check_new(path: Path, card: ClaimCard) -> None:
    """Raise ValueError for a card that is registered already, under this name or another, or that another version of
    unbraid is to run."""
    out = registration_path(path)
    if out.exists():
        read_registration(path)  # says so if the card has changed since
        raise ValueError(f"{path} is registered already ({out}); a new claim is a new card")
    for other in sorted(path.parent.glob(f"*{SUFFIX}")):
        if read_json(other, remedy=REMEDY).get("sha256") == card_hash(path):
            raise ValueError(f"{path} is registered already, as {other}; a new claim is a new card")
    if card.version != __version__:
        raise ValueError(f"{path} says version {card.version}, and this is unbraid {__version__}; make them equal")


def check_calibration(card: ClaimCard, study: Factorial, stored: StoredScores) -> None:
    """Raise ValueError for runs that are not the study's calibration on the card's seeds, for seeds without any run,
    and for several testbeds or versions."""
    if strange := sorted({run.seed for run in stored.runs} - set(card.calibration_seeds)):
        tests = " (test seeds of the card)" if set(strange) & set(card.seeds) else ""
        raise ValueError(
            f"the runs have seeds {strange}{tests}, and the card calibrates on {list(card.calibration_seeds)} alone; "
            f"give the runs of `unbraid study {card.study} --calibrate`"
        )
    if len(beds := {run.source for run in stored.runs}) > 1:
        raise ValueError(
            f"the runs are of {len(beds)} testbeds, and a card is about one: {'; '.join(sorted(beds))[:300]}"
        )
    if len(versions := versions_of(stored.runs)) > 1:
        raise ValueError(f"the runs were trained by several versions of unbraid ({listed(versions)}); train them again")
    if missing := sorted(set(card.calibration_seeds) - {run.seed for run in stored.runs}):
        raise ValueError(f"there are no runs of the calibration seeds {missing}; give the runs of all seeds")
    planned = {experiment.folder for experiment in study.calibration()}
    if other := sorted({run.run for run in stored.runs} - planned):
        raise ValueError(
            f"{len(other)} of {plural(len(stored.runs), 'run')} are not of the study {card.study} as it is now, such "
            f"as {other[0]} (another study's, or flags or code have changed since); give the runs of "
            f"`unbraid study {card.study} --calibrate` alone"
        )


def versions_of(runs: Sequence[StoredRun]) -> list[str]:
    """The versions of unbraid that trained runs."""
    return sorted({str(run.provenance["unbraid"]) for run in runs if run.provenance.get("unbraid")})


def primary(scores: Scores, card: ClaimCard, index: int) -> Quantity:
    """The score that a primary names. Raises ValueError when no run has it, or it decides nothing."""
    found = scores.find(card.selectors[index])
    if found is None or not found.sign:
        raise ValueError(f"a primary cannot be judged: {no_score(card.primaries[index], scores.quantities)}")
    if found.diagnostic:
        raise ValueError(
            f"the primary {card.primaries[index]!r} is shown and decides nothing: an objective can set it directly, or "
            "an audit advises against choosing by it; take another"
        )
    return found


def smallest_of(
    scores: Scores, d_sae: int, card: ClaimCard, primaries: Sequence[Quantity]
) -> dict[Quantity, SmallestEffect]:
    """The smallest effects of interest of all headline scores: the card's, and else those of calibration."""
    found = smallest_effects(scores, d_sae)
    for q in primaries:
        if score_name(q) in card.smallest_effects:
            known = f"; calibration has {number(found[q].value)}, {found[q].source}" if q in found else ""
            found[q] = SmallestEffect(q, card.smallest_effects[score_name(q)], f"the claim card{known}")
    return found


def check_primaries(
    card: ClaimCard, primaries: Sequence[Quantity], results: Mapping[Quantity, GateResult],
    smallest: Mapping[Quantity, SmallestEffect], scores: Scores, d_sae: int,
) -> None:  # fmt: skip
    """Raise ValueError for a primary that failed the gate, has no smallest effect, or that a judged method lacks."""
    judged = judged_methods(scores, d_sae, card)
    if not judged:
        raise ValueError(f"no method of claim {card.claim} matches {list(card.methods)}, so nothing would be judged")
    for name, q in zip(card.primaries, primaries, strict=True):
        if not results[q].passed:
            raise ValueError(f"the primary {name} failed its controls on calibration seeds: {results[q].sentence}")
        if q not in smallest or not smallest[q].value > 0:
            why = smallest[q].source if q in smallest else "it is no headline score"
            raise ValueError(
                f"no smallest effect of interest is known of {name} ({why}); say it under smallest_effects"
            )
        if lacking := sorted(m.short for m in judged if not any(math.isfinite(scores.value(r, q)) for r in m.runs)):
            raise ValueError(
                f"{listed(lacking[:5])} of {len(judged)} methods lack the primary {name}; score them by it"
            )


def judged_methods(scores: Scores, d_sae: int, card: ClaimCard) -> list[Method]:
    """The methods that a card is about."""
    return [m for m in scores.with_role("compared", d_sae) if m.claim == card.claim and m.named(card.methods)]


def power_of(
    scores: Scores, study: Factorial, card: ClaimCard, q: Quantity, smallest: SmallestEffect,
    chosen: Mapping[str, Choice], primaries: int,
) -> Power:  # fmt: skip
    """The power by one primary, from the spread of the judged terms at their chosen settings."""
    designs = study.designs
    names = {study.experiment_name(m, c.setting) for m, c in chosen.items() if designs[m].term is not None}
    judged = [m for m in judged_methods(scores, study.d_sae, card) if m.short in names]
    sd = pooled_sd(scores, judged, q)
    n, family = len(card.seeds), max(1, len(judged)) * primaries
    alpha = (1 - LEVEL) / family
    return Power(
        score_name(q), smallest.value, sd, n, family, power_to_find(smallest.value, sd, n, alpha),
        power_of_equivalence(smallest.value, sd, n), detectable(sd, n, alpha), seeds_needed(smallest.value, sd, alpha),
        seeds_for_equivalence(smallest.value, sd),
    )  # fmt: skip


def pooled_sd(scores: Scores, methods: Sequence[Method], q: Quantity) -> float:
    """The standard deviation of a difference from the own base over seeds, pooled over methods."""
    pairs = [(m, base) for m in methods if (base := own_base(scores, m)) is not None]
    sd = pooled(contrast(scores, m, base, q).tested.sd for m, base in pairs)
    if not math.isfinite(sd):
        raise ValueError(f"no judged method has {q.label} on enough calibration seeds to know its spread; run more")
    return sd


def finite(value: Any) -> Any:
    """Data with None in place of numbers that JSON lacks."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---- reading ------------------------------------------------------------------------------------------------


def read_registration(path: Path) -> Registration:
    """Read the registration of a card. Raises ValueError when there is none, or the card has changed since."""
    out = registration_path(path)
    now = card_hash(path)
    if not out.is_file():
        raise ValueError(f"{path} is not registered ({out} does not exist); run `unbraid study register {path} RUNS`")
    data = read_json(out, remedy=REMEDY)
    try:
        found = registration_of(data)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{out} is no registration ({error!r}); {REMEDY}") from error
    if found.sha256 != now:
        raise ValueError(
            f"{path} has changed since it was registered on {found.registered} (its SHA-256 is {now[:12]}…, registered "
            f"was {found.sha256[:12]}…): restore it, or register the new claim under another name"
        )
    return found


def registration_of(data: Mapping[str, Any]) -> Registration:
    """A registration from what its file holds. Raises ValueError for values of other kinds than are written."""
    quantity = lambda node: typed(Quantity(**node))
    datetime.fromisoformat(data["registered"])
    return typed(Registration(
        data["sha256"], data["registered"], data["version"], data["git"],
        {name: part(Choice, c, setting=Tuning(**c["setting"])) for name, c in data["chosen"].items()},
        {name: part(SmallestEffect, s, metric=quantity(s["metric"])) for name, s in data["smallest"].items()},
        [part(GateResult, r, metric=quantity(r["metric"])) for r in data["gate"]],
        [part(Power, p) for p in data["power"]],
        data["runs"], data["expected"],
    ))  # fmt: skip


def typed(made: T) -> T:
    """A part of a registration. Raises ValueError where a value is not of its field's type; NaN is a number here."""
    for name, hints in annotations(type(made)).items():
        value = getattr(made, name)
        is_nan = isinstance(value, float) and math.isnan(value)
        if fault := "" if is_nan else next(filter(None, (fault_of(value, hint) for hint in hints)), ""):
            raise ValueError(f"{name} must be {fault}")
    return made


def part(of: type[T], node: Mapping[str, Any], **made: Any) -> T:
    """A part of a registration from its stored node: NaN where null is a number that JSON lacks, tuples for lists."""
    numbers = {f.name for f in fields(cast(Any, of)) if f.type is float}
    plain = {key: math.nan if key in numbers and value is None else value for key, value in node.items()}
    return typed(of(**{key: tuple(v) if isinstance(v, list) else v for key, v in plain.items()} | made))


# ---- judging ------------------------------------------------------------------------------------------------


def rules_of(path: Path, stored: StoredScores, scores: Scores | None = None) -> Rules:
    """The rules by which a card's runs are judged, with what departs from its registration. scores: theirs, if
    arranged already."""
    card, registration = read_card(path), read_registration(path)
    notes = [f"registered underpowered ({p.sentence})" for p in registration.power if not p.to_find >= POWER]
    commits = sorted({str(run.provenance.get("git"))[:12] for run in stored.runs if run.provenance.get("git")})
    if len(commits) > 1:
        notes.append(f"runs of {len(commits)} states of the code ({listed(commits[:5])})")
    scores = arrange(stored) if scores is None else scores
    if missed := len(scores.missed):
        notes.append(f"{plural(missed, 'run')} missed the requested L0 and count nowhere")
    if (widths := len(scores.widths)) > 1:
        notes.append(f"judged at {widths} widths, each with error rates of its own")
    return Rules(
        primaries={card.claim: [[selector] for selector in card.selectors]},
        smallest={s.metric: s for s in registration.smallest.values()},
        gate={r.metric: r for r in registration.gate},
        registered=f"on {registration.registered} as {path.name} ({registration.sha256[:12]})",
        prediction=" ".join(card.prediction.split()), only=card.claim, methods=card.methods,
        departures=departures(card, registration, stored, scores), notes=notes,
    )  # fmt: skip


def departures(card: ClaimCard, registration: Registration, stored: StoredScores, scores: Scores) -> list[str]:
    """Say what departs from a registration: runs, their primaries, dates and versions."""
    expected, found = set(registration.expected), []
    have = {run.run: run for run in stored.runs}
    if missing := expected - set(have):
        lost = sorted(set(card.seeds) - {run.seed for run in stored.runs})
        seeds = f", all of seeds {lost} among them" if lost else ""
        found.append(f"{len(missing)} of {plural(len(expected), 'registered run')} are missing{seeds}")
    if strange := [run for name, run in have.items() if name not in expected]:
        seeds = sorted({run.seed for run in strange})
        found.append(f"{plural(len(strange), 'run')} (seeds {seeds}) are not as they were registered")
    missed = {run.run for run in scores.missed}
    judged = [run for run in stored.runs if not run.control and run.run not in missed]
    for name, selector in zip(card.primaries, card.selectors, strict=True):
        metric = scores.find(selector)
        without = [run for run in judged if metric is None or not math.isfinite(scores.value(run, metric))]
        if without:
            found.append(f"{plural(len(without), 'run')} of {len(judged)} lack the primary {name}")
    # A run that does not say when it was finished may have been there before.
    finished = [str(run.provenance.get("finished") or "") for run in stored.runs]
    if early := sum(at[:19] < registration.registered[:19] for at in finished):
        found.append(f"{plural(early, 'run')} finished before the registration, or do not say when")
    versions = versions_of(stored.runs)
    if set(versions) != {registration.version}:
        found.append(f"runs of version {listed(versions) or 'unknown'}, registered with {registration.version}")
    return found


def registered_experiments(path: Path, study: Factorial) -> list[Experiment]:
    """The experiments of a registered card's test. Raises ValueError when the study is not what was registered."""
    registration = read_registration(path)
    found = with_seeds(study, read_card(path)).test(registration.settings())
    expected, made = set(registration.expected), {e.folder for e in found}
    if made != expected:
        raise ValueError(
            f"the study is no longer what {path} registered: {len(expected - made)} of {plural(len(expected), 'run')} "
            "would differ (its code has changed since, or flags change it); leave the flags out, restore the code, or "
            "register a new card"
        )
    return found
