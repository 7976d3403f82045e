"""Scores of one testbed, arranged for judging: methods with their runs, and curves against L0, FVU or bits."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import cached_property
from typing import Any, Literal, TypeVar

from unbraid.comparison.curves import Curve
from unbraid.comparison.intervals import t_interval
from unbraid.comparison.names import method_name
from unbraid.comparison.quantities import AXES, DOSE, HEADLINE, Quantity, ScoreSelector
from unbraid.comparison.stored_scores import StoredRun, StoredScores, params_text
from unbraid.dictionary.initialisation import Claim
from unbraid.objective.l0_control import missed
from unbraid.runs.results import ScoreKind

T = TypeVar("T")
Role = Literal["standard", "compared", "control"]


@dataclass(frozen=True)
class Method:
    """An objective and activation function under one name and width, with its runs."""

    name: str
    role: Role
    d_sae: int
    runs: tuple[StoredRun, ...]
    short: str = ""
    """Its name among methods of one width, where the width goes without saying."""

    @property
    def title(self) -> str:
        """The name that readers know it by."""
        return method_name(self.short or self.name)

    @property
    def claim(self) -> Claim:
        """The claim that the method is evidence for."""
        return self.runs[0].summary.claim

    @property
    def base(self) -> str | None:
        """The base that a term was added to; None for bases, and for methods of their own."""
        about = self.runs[0].summary
        return about.base if about.term is not None else None

    @property
    def geometry(self) -> str:
        """The metric in which the error is measured: raw or whitened."""
        return getattr(self.runs[0].summary, "geometry", None) or "raw"

    @property
    def untuned(self) -> str:
        """Its name in a factorial study, where it is one method whatever the settings of its base and its term."""
        about = self.runs[0].summary
        if about.base is None:
            return self.short
        return "-".join(filter(None, (about.base, "whitened" if self.geometry == "whitened" else "", about.term)))

    def named(self, patterns: Sequence[str]) -> bool:
        """True if one of the patterns matches its name, with its settings or without."""
        return any(fnmatch(name, pattern) for name in (self.short, self.untuned) for pattern in patterns)

    @property
    def trivial(self) -> bool:
        """True for a control that nothing was trained for and that did not see the truth."""
        return self.runs[0].summary.trivial

    @property
    def sees_truth(self) -> bool:
        """True for a control that is made from the truth, or trained on it: a ceiling."""
        return self.role == "control" and bool(self.runs[0].summary.sees_truth)

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
    _cache: dict[Any, Any] = field(init=False, default_factory=dict, compare=False, repr=False)
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

    def chance(self, quantity: Quantity, d_sae: int | None = None) -> float:
        """The chance level of a quantity, averaged over the methods' runs of a width, or of all; NaN when no eval
        measured it. Of more latents the best by chance is better."""
        return self.level("chance", quantity, d_sae)

    def ceiling(self, quantity: Quantity, d_sae: int | None = None) -> float:
        """The best that an eval says a dictionary could reach, averaged likewise; NaN when it says nothing."""
        return self.level("ceiling", quantity, d_sae)

    def level(self, kind: ScoreKind, quantity: Quantity, d_sae: int | None) -> float:
        """The mean of what an eval stores of a kind for a quantity: of its very params, or else of fewer of them."""
        key = (kind, quantity.eval, quantity.metric, quantity.params, d_sae)
        return self.cached(key, lambda: self._level(kind, quantity, d_sae))

    def _level(self, kind: ScoreKind, quantity: Quantity, d_sae: int | None) -> float:
        levels = [q for q in self.by_metric.get(quantity.metric, ()) if q.kind == kind and q.is_level_of(quantity)]
        levels = [q for q in levels if q.params == quantity.params] or levels
        methods = [m for m in self.methods if m.role != "control" and d_sae in (None, m.d_sae)]
        runs = [run for method in methods for run in method.runs]
        return t_interval([self.value(run, q) for q in levels for run in runs]).mean

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

    def controls(self, d_sae: int) -> list[Method]:
        """The controls to judge a width by: of this width, and of others those that have none of it."""
        every = self.with_role("control")
        here = {m.runs[0].method for m in every if m.d_sae == d_sae}
        return [m for m in every if m.d_sae == d_sae or m.runs[0].method not in here]

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
    at_width = [(name, d_sae) for name, _, d_sae in groups]
    found = [
        Method(
            name if seen.count(name) == 1 else f"{name} ({role}, {d_sae} latents)", role, d_sae, tuple(members),
            name if at_width.count((name, d_sae)) == 1 else f"{name} ({role})",
        )
        for (name, role, d_sae), members in groups.items()
    ]  # fmt: skip
    return sorted(found, key=lambda m: (("standard", "compared", "control").index(m.role), m.name))


def values_by_seed(scores: Scores, method: Method, quantity: Quantity) -> dict[int, float]:
    """The method's values of a quantity by seed, averaged over its sparsity settings."""
    found: dict[int, list[float]] = {}
    for run in method.runs:
        if math.isfinite(value := scores.value(run, quantity)):
            found.setdefault(run.seed, []).append(value)
    return {seed: math.fsum(values) / len(values) for seed, values in sorted(found.items())}


def mean_value(scores: Scores, method: Method | None, quantity: Quantity | None) -> float:
    """The method's mean over settings and seeds; NaN of no method, no quantity or no value."""
    known = values_by_seed(scores, method, quantity) if method is not None and quantity is not None else {}
    return math.fsum(known.values()) / len(known) if known else math.nan


def dose(scores: Scores, method: Method) -> float:
    """The share of its own target that a method's term reached, averaged over what was added; NaN where the eval `dose`
    was not run, or could not tell."""
    # Each penalty's dose is a quantity of its own, with the penalty's name among its params.
    doses = [mean_value(scores, method, q) for q in scores.by_metric.get(DOSE.metric, ()) if DOSE.matches(q)]
    known = [value for value in doses if math.isfinite(value)]
    return math.fsum(known) / len(known) if known else math.nan


def standard_named(scores: Scores, d_sae: int, name: str) -> Method | None:
    """The standard SAE of this name, or the raw one of this base, as its study gives it if it was tried in several
    settings; None when there is none."""
    standard = scores.with_role("standard", d_sae)
    found = [m for m in standard if name in (m.short, m.runs[0].summary.base) and m.geometry == "raw"]
    return min(found, key=lambda m: (m.short != name, len(m.short), m.short), default=None)


def own_base(scores: Scores, method: Method) -> Method | None:
    """The base of a method: the one that its design names, or the standard SAE that it is with terms added; else None.

    A named base is looked for in the same geometry, and trained alike where it was tried in several settings. Of runs
    that do not name theirs, all that a standard SAE has must be in the method's experiment, and of several the one with
    most in common is taken.
    """
    others = (*scores.with_role("standard", method.d_sae), *scores.with_role("compared", method.d_sae))
    same = [m for m in others if m.short != method.short and m.geometry == method.geometry and m.base is None]
    if method.base is not None:
        named = [m for m in same if method.base in (m.runs[0].summary.base, m.short)]
        alike = lambda m: m.runs[0].experiment["training"] == method.runs[0].experiment["training"]
        return max(named, key=lambda m: (alike(m), method.short.startswith(m.short), len(m.short)), default=None)
    common = [(n, m) for m in same if m.role == "standard" and (n := parts_in_common(m, method)) is not None]
    return max(common, key=lambda entry: entry[0])[1] if common else None


def parts_in_common(base: Method, method: Method) -> int | None:
    """The number of penalties of `base` that `method` has too; None unless it has all, and the same kind of dictionary.

    Sizes that follow the requested sparsity (k, the target L0) may differ.
    """
    ours, theirs = (m.runs[0].experiment for m in (method, base))
    kind = lambda node, *path: _part(node, *path).get("type")
    for path in (("dictionary", "activation"), ("dictionary", "init"), ("objective", "reconstruction")):
        if kind(ours, *path) != kind(theirs, *path):
            return None
    mine, its = ({kind(t) for t in _part(e, "objective", "penalties").values()} for e in (ours, theirs))
    return len(its) if its <= mine and mine > its else None


def _part(node: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    for key in path:
        node = node.get(key) or {}
    return node
