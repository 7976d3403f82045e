"""Each method against the best standard SAE, at matched L0, FVU or bits.

The points of comparison are the baselines' own. Both sides are read off their curves at the same x, moved by at most
10 % so that it lies inside the measured range of every seed. Where curves do not overlap, measured points within 10 %
are compared; where there are none, nothing is.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeVar

from unbraid.comparison.curves import TOLERANCE, Curve, clusters, interpolate, nearest
from unbraid.comparison.intervals import FEWEST_SEEDS, Difference, difference, finite_only, holm, t_interval
from unbraid.comparison.stored_scores import StoredRun, Study, params_text
from unbraid.dictionary.initialisation import Claim
from unbraid.objective.l0_control import missed
from unbraid.runs.results import ScoreKind

T = TypeVar("T")
Role = Literal["standard", "compared", "control"]
Word = Literal["better", "void", "no difference shown", "worse", "no verdict", "no interval", "not comparable"]


class Wanted(NamedTuple):
    """A score by what it is."""

    eval: str
    metric: str
    params: Mapping[str, float | str] | None = None
    """All it was stored with; None: whatever they are."""
    kind: ScoreKind = "measured"

    def matches(self, quantity: "Quantity") -> bool:
        alike = (self.eval, self.metric, self.kind) == (quantity.eval, quantity.metric, quantity.kind)
        return alike and (self.params is None or params_text(self.params) == quantity.params)


COUNTED = (
    (Wanted("fidelity", "fvu"),),
    (Wanted("saebench_core", "ce_loss_score"), Wanted("fidelity", "loss_recovered")),
    (Wanted("recovery", "mcc"),),
    (Wanted("recovery", "f1"),),
    (Wanted("absorption", "absorption_full"),),
    (Wanted("absorption", "parent_recall_given_child"),),
    (Wanted("splitting", "latents_per_factor"),),
    (Wanted("controllability", "isolation"),),
    (Wanted("interchange", "interchange", {"directions": "latents", "error": "kept", "n": 4}),),
    (Wanted("saebench_sparse_probing", "probe_accuracy", {"k": 1, "reads": "latents"}),),
    (Wanted("saebench_sae_probes", "sae_probes_accuracy", {"k": 1, "reads": "latents"}),),
    (Wanted("saebench_absorption", "first_letter_absorption_full"),),
    (Wanted("saebench_ravel", "ravel_disentanglement"),),
)
DIAGNOSTIC = (
    (Wanted("saebench_tpp", "tpp", {"n": 20}),),
    (Wanted("saebench_scr", "scr", {"n": 20}),),
    (Wanted("saebench_meta_structure", "decoder_variance_explained"),),
    (Wanted("controllability", "additive_r2"),),
    (Wanted("controllability", "effect"),),
    (Wanted("fidelity", "alive"),),
    (Wanted("fidelity", "max_decoder_cosine"),),
)
"""Scores that an objective can set directly (living latents, decoder cosines, what of atoms others explain, effects,
and that they add up), or that an audit advises against choosing by (SAEBench's TPP and SCR, arXiv 2605.18229): shown,
side by side, never counted as a win."""
HEADLINE = (*COUNTED, *DIAGNOSTIC)
"""What is answered first: the first of each line that has scores. DCI and gaps in shared bits (mig, infom) are not
among them: where factors form a forest, a code that absorbs parents can score above the truth."""
AXES = (
    ("L0", Wanted("fidelity", "l0")),
    ("FVU", Wanted("fidelity", "fvu")),
    ("bits", Wanted("description_length", "bits_per_token")),
)
"""What can be held equal."""


@dataclass(frozen=True, order=True)
class Quantity:
    """What one figure or column shows."""

    eval: str
    metric: str
    params: str = ""
    better: str = "neither"
    kind: ScoreKind = "measured"

    @cached_property
    def label(self) -> str:
        shown = ", ".join(filter(None, (self.kind if self.reference else "", self.params)))
        return f"{self.metric} ({shown})" if shown else self.metric

    @property
    def chance(self) -> bool:
        """Whether this is a chance level of the metric, not a score of the run."""
        return self.kind == "chance"

    @property
    def reference(self) -> bool:
        """Whether this is a level to compare with (chance, ceiling, other directions), not a score of the run."""
        return self.kind != "measured"

    @cached_property
    def diagnostic(self) -> bool:
        """Whether it is shown, and never counted as a win."""
        return any(one.matches(self) for line in DIAGNOSTIC for one in line)

    @property
    def sign(self) -> int:
        """Turns a difference into a gain; 0 where there is no better."""
        return {"higher": 1, "lower": -1}.get(self.better, 0)


@dataclass(frozen=True)
class Method:
    name: str
    role: Role
    d_sae: int
    runs: tuple[StoredRun, ...]

    @property
    def claim(self) -> Claim:
        return self.runs[0].summary.claim

    @property
    def trivial(self) -> bool:
        return self.runs[0].summary.trivial

    @cached_property
    def settings(self) -> dict[str, list[StoredRun]]:
        """Its runs by experiment name, that is by sparsity setting, least L0 first."""
        found: dict[str, list[StoredRun]] = {}
        for run in sorted(self.runs, key=lambda r: (math.isnan(r.requested_l0), r.requested_l0, r.name, r.seed)):
            found.setdefault(run.name, []).append(run)
        return found


@dataclass(frozen=True)
class Scores:
    """The study of one source, arranged for comparison."""

    methods: tuple[Method, ...]
    quantities: tuple[Quantity, ...]
    values: Mapping[Quantity, Mapping[str, float]]
    """By quantity, its value of each run that has one."""
    _kept: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """What was worked out before: every comparison asks for the same curves."""

    @cached_property
    def missed(self) -> tuple[StoredRun, ...]:
        """Runs that did not reach the L0 they were to be trained to: shown, and compared with nothing."""
        runs = [run for method in self.methods for run in method.runs if math.isfinite(run.target_l0)]
        known = [run for run in runs if math.isfinite(self.reached(run))]
        return tuple(run for run in known if missed(run.target_l0, self.reached(run)))

    def reached(self, run: StoredRun) -> float:
        """Its L0 as scored on held-out rows, else as training stored it."""
        scored = math.nan if self.l0 is None else self.value(run, self.l0)
        return scored if math.isfinite(scored) else run.stored_l0

    def value(self, run: StoredRun, quantity: Quantity) -> float:
        return self.values.get(quantity, {}).get(run.run, math.nan)

    def kept(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """What `make` gives, made once."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def curves(self, method: Method, x: Quantity, y: Quantity) -> dict[int, Curve]:
        """By seed. Runs that measured the same x are averaged."""
        return self.kept(("curves", method.name, x, y), lambda: self._curves(method, x, y))

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

    def first(self, *wanted: Wanted) -> Quantity | None:
        """The first of these scores that there is; of several that match it, one without params if possible."""
        for one in wanted:
            if found := [quantity for quantity in self.by_metric.get(one.metric, ()) if one.matches(quantity)]:
                return min(found, key=lambda q: (bool(q.params), q))
        return None

    @cached_property
    def by_metric(self) -> dict[str, list[Quantity]]:
        found: dict[str, list[Quantity]] = {}
        for quantity in self.quantities:
            found.setdefault(quantity.metric, []).append(quantity)
        return found

    def chance(self, quantity: Quantity) -> float:
        """What the same score gives by chance, averaged over the methods' runs; NaN where no eval says."""
        return self.kept(("chance", quantity.eval, quantity.metric), lambda: self._chance(quantity))

    def _chance(self, quantity: Quantity) -> float:
        chances = [q for q in self.quantities if q.chance and (q.eval, q.metric) == (quantity.eval, quantity.metric)]
        runs = [run for method in self.methods if method.role != "control" for run in method.runs]
        return t_interval([self.value(run, q) for q in chances for run in runs]).mean

    @cached_property
    def l0(self) -> Quantity | None:
        return self.first(AXES[0][1])

    @cached_property
    def headline(self) -> list[Quantity]:
        return [q for line in HEADLINE if (q := self.first(*line)) is not None]

    @property
    def widths(self) -> list[int]:
        """Widths of the methods that are compared; controls may have others."""
        return sorted({m.d_sae for m in self.methods if m.role != "control"})

    def having(self, role: Role, d_sae: int | None = None) -> list[Method]:
        """Methods of a role, without the runs that missed their L0."""
        missed = {run.run for run in self.missed}
        asked = [m for m in self.methods if m.role == role and d_sae in (None, m.d_sae)]
        kept = [replace(m, runs=tuple(run for run in m.runs if run.run not in missed)) for m in asked]
        return [m for m in kept if m.runs]


def arrange(study: Study) -> Scores:
    values: dict[Quantity, dict[str, list[float]]] = {}
    for row in study.records:
        quantity = Quantity(row["eval"], row["metric"], params_text(row["params"]), row["better"], row["kind"])
        values.setdefault(quantity, {}).setdefault(row["run"], []).append(row["value"])
    means = {q: {run: math.fsum(of) / len(of) for run, of in by_run.items()} for q, by_run in values.items()}
    return Scores(tuple(methods(study.runs)), tuple(sorted(means)), means)


def methods(runs: Iterable[StoredRun]) -> list[Method]:
    """Baselines, then what is compared with them, then controls. One name at two widths is two methods."""
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
    """Where two methods are compared."""

    axis: str
    quantity: Quantity
    at: float


class Matched(NamedTuple):
    """Values by seed of two methods at a common x."""

    x: float
    a: dict[int, float]
    b: dict[int, float]
    note: str


@dataclass(frozen=True)
class Comparison:
    metric: Quantity
    point: Point
    method: str
    baseline: str
    word: Word
    value: float = math.nan
    baseline_value: float = math.nan
    difference: Difference = Difference(math.nan, math.nan, math.nan, 0, False)
    note: str = ""

    @property
    def gain(self) -> float:
        """The difference, positive where the method is better."""
        return self.metric.sign * self.difference.mean


def points(scores: Scores, axis: str, d_sae: int) -> list[Point]:
    """Where the standard SAEs of a width were measured on an axis."""
    quantity = scores.first(dict(AXES)[axis])
    if quantity is None:
        return []
    settings = [runs for method in scores.having("standard", d_sae) for runs in method.settings.values()]
    means = [t_interval([scores.value(run, quantity) for run in runs]).mean for runs in settings]
    return [Point(axis, quantity, at) for at in clusters(means)]


def compare(scores: Scores, point: Point, metric: Quantity, d_sae: int) -> list[Comparison]:
    """Every compared method of a width against the best standard SAE there."""
    compared = scores.having("compared", d_sae)
    baseline = best_at(scores, scores.having("standard", d_sae), point, metric)
    if baseline is None:
        reason = f"no standard SAE has {metric.label} at this {point.axis}"
        return [Comparison(metric, point, m.name, "none", "not comparable", note=reason) for m in compared]
    return corrected([against(scores, method, baseline, point, metric) for method in compared])


def best_at(scores: Scores, among: Sequence[Method], point: Point, metric: Quantity) -> Method | None:
    """The method with the best mean at a point, however few its seeds: to beat the second best would be too easy."""
    found = []
    for method in among:
        curves = scores.curves(method, point.quantity, metric)
        matched = match(curves, curves, point)
        values = finite_only(matched.a) if matched is not None else {}
        if values:
            found.append((metric.sign * t_interval(list(values.values())).mean, method))
    return max(found, key=lambda entry: entry[0])[1] if found else None


def against(scores: Scores, method: Method, baseline: Method, point: Point, metric: Quantity) -> Comparison:
    a = scores.curves(method, point.quantity, metric)
    b = scores.curves(baseline, point.quantity, metric)
    matched = match(a, b, point)
    if matched is None:
        note = f"{reach(a, point.axis)}; {baseline.name} is matched at {point.at:.3g}, and nothing is extrapolated"
        return Comparison(metric, point, method.name, baseline.name, "not comparable", note=note)
    found = difference(matched.a, matched.b)
    value, other = (t_interval(list(side.values())).mean for side in (matched.a, matched.b))
    if found.n == 0:
        word, note = "not comparable", f"no finite {metric.label} on one side"
    elif found.n < FEWEST_SEEDS:
        word, note = "no interval", f"{found.n} {'seed' if found.n == 1 else 'seeds'}: no interval"
    else:
        word, note = "no difference shown", matched.note
        if found.p < 1 and abs(found.mean) > found.half:
            word = "better" if metric.sign * found.mean > 0 else "worse"
    return Comparison(metric, point, method.name, baseline.name, word, value, other, found, note)


def match(a: Mapping[int, Curve], b: Mapping[int, Curve], point: Point) -> Matched | None:
    """Both sides at one x within TOLERANCE of the point, or at measured points within TOLERANCE of it; else None."""
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
    return {seed: found for seed, curve in side.items() if (found := nearest(curve, at)) is not None}


def reach(curves: Mapping[int, Curve], axis: str) -> str:
    """The range of x a method covers, in words."""
    xs = [x for curve in curves.values() for x, _ in curve]
    if not xs:
        return f"it has no {axis} scores"
    low, high = min(xs), max(xs)
    return f"its {axis} is {low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"its {axis} covers {low:.3g} to {high:.3g}"


def corrected(comparisons: list[Comparison]) -> list[Comparison]:
    """The same, with claims taken back that do not survive Holm's correction over the methods tried at this point."""
    claims = [c for c in comparisons if math.isfinite(c.difference.p)]
    kept = dict(zip((c.method for c in claims), holm([c.difference.p for c in claims]), strict=True))
    note = f"the interval excludes 0, but not after correcting for the {len(claims)} methods tried (Holm)"
    return [
        replace(c, word="no difference shown", note="; ".join(filter(None, (c.note, note))))
        if c.word in ("better", "worse") and not kept[c.method]
        else c
        for c in comparisons
    ]


def primary(scores: Scores, candidates: Sequence[Point], d_sae: int) -> Point | None:
    """The point most methods can be compared at with enough seeds, on scores that count, and of those the middle one:
    chosen by coverage, never by outcome."""
    if not candidates:
        return None
    middle = math.exp(math.fsum(math.log(p.at) for p in candidates) / len(candidates))

    def coverage(point: Point) -> int:
        counted = [q for q in scores.headline if q.sign and not q.diagnostic and q != point.quantity]
        found = [c for q in counted for c in compare(scores, point, q, d_sae)]
        return sum(2 if c.difference.n >= FEWEST_SEEDS else c.difference.n > 0 for c in found)

    return max(candidates, key=lambda p: (coverage(p), -abs(math.log(p.at / middle)), -p.at))
