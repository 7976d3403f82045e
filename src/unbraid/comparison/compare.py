"""Comparison of each method with the best standard SAE, at matched L0, FVU or bits.

Comparisons are made at the points where baselines were measured. Both curves are read at the same x, which may move by
up to 10 % to lie inside the measured range of every seed. Where the curves do not overlap, measured points within 10 %
are compared; where there are none, nothing is compared.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeVar

from unbraid.comparison.curves import TOLERANCE, Curve, clusters, interpolate, nearest
from unbraid.comparison.intervals import FEWEST_SEEDS, Difference, difference, holm, t_interval
from unbraid.comparison.quantities import AXES, HEADLINE, Quantity, ScoreSelector
from unbraid.comparison.stored_scores import StoredRun, StoredScores, params_text
from unbraid.comparison.wording import plural
from unbraid.dictionary.initialisation import Claim
from unbraid.objective.l0_control import missed

T = TypeVar("T")
Role = Literal["standard", "compared", "control"]
Outcome = Literal["better", "void", "no difference shown", "worse", "no verdict", "no interval", "not comparable"]


@dataclass(frozen=True)
class Method:
    """An objective and activation function under one name and width, with its runs."""

    name: str
    role: Role
    d_sae: int
    runs: tuple[StoredRun, ...]

    @property
    def claim(self) -> Claim:
        """The claim that the method is evidence for."""
        return self.runs[0].summary.claim

    @property
    def trivial(self) -> bool:
        """True for a control that was not trained."""
        return self.runs[0].summary.trivial

    @cached_property
    def settings(self) -> dict[str, list[StoredRun]]:
        """The runs by experiment name, that is by sparsity setting, in order of requested L0."""
        found: dict[str, list[StoredRun]] = {}
        for run in sorted(self.runs, key=lambda r: (math.isnan(r.requested_l0), r.requested_l0, r.name, r.seed)):
            found.setdefault(run.name, []).append(run)
        return found


@dataclass(frozen=True)
class Scores:
    """All scores of one source, arranged for comparison."""

    methods: tuple[Method, ...]
    quantities: tuple[Quantity, ...]
    values: Mapping[Quantity, Mapping[str, float]]
    """Values by quantity and run."""
    _cache: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """Intermediate results: all comparisons need the same curves."""

    @cached_property
    def missed(self) -> tuple[StoredRun, ...]:
        """The runs that did not reach their target L0: shown, and compared with nothing."""
        runs = [run for method in self.methods for run in method.runs if math.isfinite(run.target_l0)]
        known = [run for run in runs if math.isfinite(self.reached_l0(run))]
        return tuple(run for run in known if missed(run.target_l0, self.reached_l0(run)))

    def reached_l0(self, run: StoredRun) -> float:
        """The run's L0 as scored on held-out rows, or else as training stored it."""
        scored = math.nan if self.l0 is None else self.value(run, self.l0)
        return scored if math.isfinite(scored) else run.stored_l0

    def value(self, run: StoredRun, quantity: Quantity) -> float:
        """The run's value of a quantity; NaN when it has none."""
        return self.values.get(quantity, {}).get(run.run, math.nan)

    def cached(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """Return the result of `make`, computed once per key."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def curves(self, method: Method, x: Quantity, y: Quantity) -> dict[int, Curve]:
        """The method's curves of y against x, by seed. Runs with equal x are averaged."""
        return self.cached(("curves", method.name, x, y), lambda: self._curves(method, x, y))

    def _curves(self, method: Method, x: Quantity, y: Quantity) -> dict[int, Curve]:
        found: dict[int, dict[float, list[float]]] = {}
        for run in method.runs:
            at = self.value(run, x)
            if math.isfinite(at) and at > 0:
                found.setdefault(run.seed, {}).setdefault(at, []).append(self.value(run, y))
        return {
            seed: [(at, math.fsum(ys) / len(ys)) for at, ys in sorted(points.items())]
            for seed, points in sorted(found.items())
        }

    def find(self, *selectors: ScoreSelector) -> Quantity | None:
        """Find the first selector that matches, and of its matches one without params if possible; None if none."""
        for one in selectors:
            if found := [quantity for quantity in self.by_metric.get(one.metric, ()) if one.matches(quantity)]:
                return min(found, key=lambda q: (bool(q.params), q))
        return None

    @cached_property
    def by_metric(self) -> dict[str, list[Quantity]]:
        """The quantities of each metric."""
        found: dict[str, list[Quantity]] = {}
        for quantity in self.quantities:
            found.setdefault(quantity.metric, []).append(quantity)
        return found

    def chance(self, quantity: Quantity) -> float:
        """The chance level of a quantity, averaged over the methods' runs; NaN when no eval measured it."""
        return self.cached(("chance", quantity.eval, quantity.metric), lambda: self._chance(quantity))

    def _chance(self, quantity: Quantity) -> float:
        chances = [q for q in self.quantities if q.chance and (q.eval, q.metric) == (quantity.eval, quantity.metric)]
        runs = [run for method in self.methods if method.role != "control" for run in method.runs]
        return t_interval([self.value(run, q) for q in chances for run in runs]).mean

    @cached_property
    def l0(self) -> Quantity | None:
        """The measured L0; None when no run has one."""
        return self.find(AXES[0][1])

    @cached_property
    def headline(self) -> list[Quantity]:
        """The headline scores that were measured."""
        return [q for line in HEADLINE if (q := self.find(*line)) is not None]

    @property
    def widths(self) -> list[int]:
        """The widths of baselines and compared methods; controls may have others."""
        return sorted({m.d_sae for m in self.methods if m.role != "control"})

    def with_role(self, role: Role, d_sae: int | None = None) -> list[Method]:
        """Return the methods of a role, without the runs that missed their L0."""
        missed = {run.run for run in self.missed}
        chosen = [m for m in self.methods if m.role == role and d_sae in (None, m.d_sae)]
        kept = [replace(m, runs=tuple(run for run in m.runs if run.run not in missed)) for m in chosen]
        return [m for m in kept if m.runs]


def arrange(stored: StoredScores) -> Scores:
    """Arrange the stored scores of one source for comparison; repeated values of one run are averaged."""
    values: dict[Quantity, dict[str, list[float]]] = {}
    for row in stored.records:
        quantity = Quantity(row["eval"], row["metric"], params_text(row["params"]), row["better"], row["kind"])
        values.setdefault(quantity, {}).setdefault(row["run"], []).append(row["value"])
    means = {q: {run: math.fsum(of) / len(of) for run, of in by_run.items()} for q, by_run in values.items()}
    return Scores(tuple(methods(stored.runs)), tuple(sorted(means)), means)


def methods(runs: Iterable[StoredRun]) -> list[Method]:
    """Group runs into methods: baselines, compared methods, controls. One name at two widths is two methods."""
    groups: dict[tuple[str, Role, int], list[StoredRun]] = {}
    for run in runs:
        role: Role = "control" if run.control else "standard" if run.summary.standard else "compared"
        groups.setdefault((run.method, role, run.d_sae), []).append(run)
    seen = [name for name, _, _ in groups]
    found = [
        Method(name if seen.count(name) == 1 else f"{name} ({role}, {d_sae} latents)", role, d_sae, tuple(members))
        for (name, role, d_sae), members in groups.items()
    ]
    return sorted(found, key=lambda m: (("standard", "compared", "control").index(m.role), m.name))


class Point(NamedTuple):
    """A point of comparison: the quantity that is matched, and its value."""

    axis: str
    quantity: Quantity
    at: float


class Matched(NamedTuple):
    """The values of two methods at a common x, by seed."""

    x: float
    a: dict[int, float]
    b: dict[int, float]
    note: str


@dataclass(frozen=True)
class Comparison:
    """The outcome of comparing one method with a baseline by one metric at one point."""

    metric: Quantity
    point: Point
    method: str
    baseline: str
    outcome: Outcome
    value: float = math.nan
    baseline_value: float = math.nan
    difference: Difference = Difference(math.nan, math.nan, math.nan, 0, False)
    note: str = ""

    @property
    def gain(self) -> float:
        """The difference, positive where the method is better."""
        return self.metric.sign * self.difference.mean


def points(scores: Scores, axis: str, d_sae: int) -> list[Point]:
    """Return the points at which the standard SAEs of a width were measured on an axis."""
    quantity = scores.find(dict(AXES)[axis])
    if quantity is None:
        return []
    settings = [runs for method in scores.with_role("standard", d_sae) for runs in method.settings.values()]
    means = [t_interval([scores.value(run, quantity) for run in runs]).mean for runs in settings]
    return [Point(axis, quantity, at) for at in clusters(means)]


def compare(scores: Scores, point: Point, metric: Quantity, d_sae: int) -> list[Comparison]:
    """Compare every method of a width with the best standard SAE at a point, corrected for multiplicity."""
    compared = scores.with_role("compared", d_sae)
    baseline = best_method(scores, scores.with_role("standard", d_sae), point, metric)
    if baseline is None:
        reason = f"no standard SAE has {metric.label} at this {point.axis}"
        return [Comparison(metric, point, m.name, "none", "not comparable", note=reason) for m in compared]
    return correct_for_multiplicity([compare_pair(scores, method, baseline, point, metric) for method in compared])


def best_method(scores: Scores, among: Sequence[Method], point: Point, metric: Quantity) -> Method | None:
    """Find the method with the best mean at a point, however few its seeds; None when none was measured there."""
    found = [(mean, method) for method in among if math.isfinite(mean := mean_at(scores, method, point, metric))]
    return max(found, key=lambda entry: metric.sign * entry[0])[1] if found else None


def mean_at(scores: Scores, method: Method, point: Point, quantity: Quantity) -> float:
    """The mean over seeds of a method's quantity at a point; NaN when it was not measured there."""
    curves = scores.curves(method, point.quantity, quantity)
    matched = match(curves, curves, point)
    return math.nan if matched is None else t_interval(list(matched.a.values())).mean


def compare_pair(scores: Scores, method: Method, baseline: Method, point: Point, metric: Quantity) -> Comparison:
    """Compare two methods by one metric at one point."""
    a = scores.curves(method, point.quantity, metric)
    b = scores.curves(baseline, point.quantity, metric)
    matched = match(a, b, point)
    if matched is None:
        note = f"{reach(a, point.axis)}; {baseline.name} is matched at {point.at:.3g}, and nothing is extrapolated"
        return Comparison(metric, point, method.name, baseline.name, "not comparable", note=note)
    found = difference(matched.a, matched.b)
    value, other = (t_interval(list(side.values())).mean for side in (matched.a, matched.b))
    if found.n == 0:
        outcome, note = "not comparable", f"no finite {metric.label} on one side"
    elif found.n < FEWEST_SEEDS:
        outcome, note = "no interval", f"{plural(found.n, 'seed')}: no interval"
    else:
        outcome, note = "no difference shown", matched.note
        if found.p < 1 and abs(found.mean) > found.half:
            outcome = "better" if metric.sign * found.mean > 0 else "worse"
    return Comparison(metric, point, method.name, baseline.name, outcome, value, other, found, note)


def match(a: Mapping[int, Curve], b: Mapping[int, Curve], point: Point) -> Matched | None:
    """Read both sides at one x within TOLERANCE of the point, or else at measured points within it; else None."""
    curves = [*a.values(), *b.values()]
    if not a or not b:
        return None
    low, high = max(c[0][0] for c in curves), min(c[-1][0] for c in curves)
    x = min(max(point.at, low), high)
    if low <= high and abs(x / point.at - 1) <= TOLERANCE:
        read_a, read_b = ({seed: interpolate(curve, x) for seed, curve in side.items()} for side in (a, b))
        return Matched(x, read_a, read_b, "")
    near_a, near_b = near(a, point.at), near(b, point.at)
    if not near_a or not near_b:
        return None
    xa, xb = (t_interval([x for x, _ in side.values()]).mean for side in (near_a, near_b))
    note = f"measured at {point.axis} {xa:.3g} and {xb:.3g}, not interpolated" if abs(xa / xb - 1) > 0.005 else ""
    return Matched(point.at, {s: y for s, (_, y) in near_a.items()}, {s: y for s, (_, y) in near_b.items()}, note)


def near(side: Mapping[int, Curve], at: float) -> dict[int, tuple[float, float]]:
    """Return the measured point of each seed that is nearest to `at`, where one is within TOLERANCE."""
    return {seed: found for seed, curve in side.items() if (found := nearest(curve, at)) is not None}


def reach(curves: Mapping[int, Curve], axis: str) -> str:
    """Describe the range of x that a method covers."""
    xs = [x for curve in curves.values() for x, _ in curve]
    if not xs:
        return f"it has no {axis} scores"
    low, high = min(xs), max(xs)
    return f"its {axis} is {low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"its {axis} covers {low:.3g} to {high:.3g}"


def correct_for_multiplicity(comparisons: list[Comparison]) -> list[Comparison]:
    """Withdraw claims that do not survive Holm's correction over the methods tried at this point."""
    claims = [c for c in comparisons if math.isfinite(c.difference.p)]
    kept = dict(zip((c.method for c in claims), holm([c.difference.p for c in claims]), strict=True))
    note = f"the interval excludes 0, but not after correcting for the {len(claims)} methods tried (Holm)"
    return [
        replace(c, outcome="no difference shown", note="; ".join(filter(None, (c.note, note))))
        if c.outcome in ("better", "worse") and not kept[c.method]
        else c
        for c in comparisons
    ]


def primary_point(scores: Scores, candidates: Sequence[Point], d_sae: int) -> Point | None:
    """Choose the headline point: the one with most comparisons of enough seeds, and of equals the middle one.

    It is chosen by coverage, never by outcome.
    """
    if not candidates:
        return None
    middle = math.exp(math.fsum(math.log(p.at) for p in candidates) / len(candidates))

    def coverage(point: Point) -> int:
        counted = [q for q in scores.headline if q.sign and not q.diagnostic and q != point.quantity]
        found = [c for q in counted for c in compare(scores, point, q, d_sae)]
        return sum(2 if c.difference.n >= FEWEST_SEEDS else c.difference.n > 0 for c in found)

    return max(candidates, key=lambda p: (coverage(p), -abs(math.log(p.at / middle)), -p.at))
