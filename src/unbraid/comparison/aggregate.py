"""Effects over several bases by a mixed model, and gains over several testbeds by their interquartile mean.

    y ~ C(base) * C(term) + C(l0) + (1 | seed) + (1 | seed : method)         statsmodels' MixedLM, by REML
    IQM of gain / smallest effect, and P(term > base), over testbeds         rliable (Agarwal et al. 2021)

A method's runs at several L0 share its seed's luck: without the second intercept they would count as independent, and
intervals would be too narrow. On balanced data a term's effect is the mean of its paired contrast; with one base and
one term its interval is the contrast's too. With more, all methods are taken to vary alike, and their noise is pooled.
"""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from unbraid.comparison.contrast import Contrast
from unbraid.comparison.intervals import FEWEST_SEEDS, LEVEL, t_quantile
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.scores import Scores, own_base
from unbraid.comparison.wording import listed, plural

NONE = "none"
"""The term of a base as it is."""
COLUMNS = ["base", "term", "l0", "seed", "value"]
EXTRA = "pip install 'unbraid[aggregates]'"


class Estimated(NamedTuple):
    """A number with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


class OverTestbeds(NamedTuple):
    """A term against its base over several testbeds."""

    gain: Estimated
    """The interquartile mean of the gain, in smallest effects of interest."""
    probability: Estimated
    """The probability that a run with the term is better than one without, averaged over testbeds."""
    testbeds: tuple[str, ...]
    seeds: int


def tidy(scores: Scores, d_sae: int, metric: Quantity) -> pd.DataFrame:
    """Arrange one score of a width for `mixed_model`: a row a run of each compared method and of its base."""
    methods = [(m, base) for m in scores.with_role("compared", d_sae) if (base := own_base(scores, m)) is not None]
    parts = {base.short: (base, base.short, NONE) for _, base in methods}
    parts |= {m.short: (m, base.short, m.runs[0].summary.term or m.short) for m, base in methods}
    rows = [
        (base, term, run.requested_l0, run.seed, scores.value(run, metric))
        for method, base, term in parts.values()
        for run in method.runs
    ]
    return pd.DataFrame(rows, columns=pd.Index(COLUMNS)).dropna(subset=["value"])


def mixed_model(rows: pd.DataFrame) -> pd.DataFrame:
    """Fit a score to bases, terms, L0 and seeds: a row a base and term, with the effect, its 95 % interval and p-value.

    rows: a row a run, with the columns base, term ("none" for the base as it is), l0, seed and value.
    """
    checked(rows)
    names, values, covariance = fitted(rows)
    bases, terms = (sorted(set(rows[column])) for column in ("base", "term"))
    seeds, methods = len(set(rows["seed"])), len(bases) * len(terms)
    df = (seeds - 1) * (methods - 1)  # of methods within seeds: exact on balanced data
    effects = []
    for base in bases:
        for term in terms:
            if term == NONE:
                continue
            weights = np.array([float(part_of_effect(name, base, term)) for name in names])
            effect, error = float(weights @ values), float(np.sqrt(weights @ covariance @ weights))
            half = t_quantile(df) * error
            effects.append((base, term, effect, effect - half, effect + half, p_value(effect, error, df), seeds))
    return pd.DataFrame(effects, columns=pd.Index(["base", "term", "effect", "low", "high", "p", "seeds"]))


def checked(rows: pd.DataFrame) -> None:
    """Raise ValueError where a mixed model could not be fitted, with what is missing."""
    if missing := [column for column in COLUMNS if column not in rows]:
        raise ValueError(f"a mixed model takes the columns {listed(COLUMNS)}; {listed(missing)} not found")
    if not np.isfinite(rows["value"].to_numpy(dtype=float)).all():
        raise ValueError("some values are not finite; drop those runs, and say so")
    bases, terms = set(rows["base"]), set(rows["term"])
    if NONE not in terms or len(terms) < 2:
        raise ValueError(f'the terms are {listed(sorted(terms))}; "{NONE}" (bases as they are) and another are needed')
    there = set(zip(rows["base"], rows["term"], strict=True))
    if absent := sorted(f"{term} on {base}" for base in bases for term in terms if (base, term) not in there):
        raise ValueError(f"not run: {listed(absent)}; leave out those terms or bases, or run them")
    unknown = int(pd.isna(rows["l0"].to_numpy()).sum())
    if 0 < unknown < len(rows):
        raise ValueError(f"{unknown} of {len(rows)} runs have no L0; leave those out, or give all of them one")
    if twice := len(rows) - len(rows.drop_duplicates(COLUMNS[:4])):
        raise ValueError(f"{plural(twice, 'run')} repeat a base, term, L0 and seed; leave one of each, as of strengths")
    if (count := len(set(rows["seed"]))) < FEWEST_SEEDS:
        raise ValueError(f"{plural(count, 'seed')}, and {FEWEST_SEEDS} are needed for an interval")


def fitted(rows: pd.DataFrame) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Fit the model, and return its fixed effects: names, values and covariance. Raises ValueError when it does not
    converge."""
    from statsmodels.regression.mixed_linear_model import MixedLM
    from statsmodels.tools.sm_exceptions import ConvergenceWarning

    data = rows.assign(method=rows["base"].astype(str) + " + " + rows["term"].astype(str))
    scale = float(np.std(data["value"].to_numpy())) or 1.0  # the optimiser's tolerances are absolute
    data["value"] /= scale
    parts = [f"C(term, Treatment('{NONE}'))"]
    parts[0] = f"C(base) * {parts[0]}" if len(set(data["base"])) > 1 else parts[0]
    parts += ["C(l0)"] if len(set(data["l0"].dropna())) > 1 else []
    with warnings.catch_warnings():
        # A variance of 0 lies on the boundary, and is an answer; what failed says so itself.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            model = MixedLM.from_formula(
                f"value ~ {' + '.join(parts)}", data, re_formula="1", groups="seed",
                vc_formula={"method": "0 + C(method)"},
            )  # fmt: skip
            found = model.fit(reml=True, method=["lbfgs", "powell"])
        except np.linalg.LinAlgError as error:
            raise ValueError(f"the mixed model has no solution ({error}): are some columns the same?") from error
    fixed = len(found.fe_params)
    covariance = np.asarray(found.cov_params())[:fixed, :fixed]
    if not (found.converged and (np.diag(covariance) > 0).all()):
        why = "did not converge" if not found.converged else "found no noise to measure effects by"
        raise ValueError(f"the mixed model {why}; compare term by term (unbraid.comparison.contrast)")
    return list(found.fe_params.index), np.asarray(found.fe_params) * scale, covariance * scale**2


def part_of_effect(name: str, base: str, term: str) -> bool:
    """True for a coefficient that is part of a term's effect on a base: the term's own, and the interaction."""
    parts = name.split(":")
    own = any(part.startswith("C(term") and part.endswith(f"[T.{term}]") for part in parts)
    return own and (len(parts) == 1 or any(p.startswith("C(base") and p.endswith(f"[T.{base}]") for p in parts))


def p_value(effect: float, error: float, df: int) -> float:
    """The two-sided p-value of an effect of 0."""
    from scipy.special import stdtr

    return float(2 * stdtr(df, -abs(effect / error))) if error > 0 else float(effect == 0)


def over_testbeds(
    contrasts: Mapping[str, Contrast], smallest: Mapping[str, float], *, reps: int = 2000, seed: int = 0
) -> OverTestbeds:
    """Aggregate a term's contrasts with its base over testbeds, with stratified bootstrap intervals.

    contrasts: by testbed. smallest: the smallest effect of interest by testbed, which makes gains comparable.
    """
    library, metrics = rliable()
    names = tuple(contrasts)
    if wrong := [name for name in names if not smallest.get(name, 0.0) > 0]:
        raise ValueError(f"no smallest effect of interest above 0 is given for {listed(wrong)}")
    seeds = sorted(set.intersection(*(set(c.own_by_seed) for c in contrasts.values()))) if names else []
    if len(seeds) < FEWEST_SEEDS:
        raise ValueError(f"{plural(len(seeds), 'seed')} in all testbeds, and {FEWEST_SEEDS} are needed for an interval")
    sides = [
        np.array(
            [[(c.metric.sign or 1) * side[s] for c, side in zip(contrasts.values(), of, strict=True)] for s in seeds]
        )
        for of in ([c.own_by_seed for c in contrasts.values()], [c.other_by_seed for c in contrasts.values()])
    ]
    gains = (sides[0] - sides[1]) / np.array([smallest[name] for name in names])
    estimate = lambda data, function: estimate_of(library, data, function, reps, seed)
    return OverTestbeds(
        estimate(gains, metrics.aggregate_iqm), estimate(sides, metrics.probability_of_improvement), names, len(seeds)
    )


def estimate_of(library: Any, data: Any, function: Any, reps: int, seed: int) -> Estimated:
    """Estimate a number by rliable, with its percentile interval."""
    # rliable 1.2 resamples by numpy's global stream, whatever its argument random_state says.
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        points, intervals = library.get_interval_estimates(
            {"": data}, lambda *x: np.array([function(*x)]), reps=reps, confidence_interval_size=LEVEL
        )
    finally:
        np.random.set_state(state)
    low, high = np.asarray(intervals[""]).ravel()
    return Estimated(float(points[""][0]), float(low), float(high))


def rliable() -> tuple[Any, Any]:
    """Import rliable's library and metrics. Raises ImportError with the extra that has it."""
    try:
        from rliable import library, metrics  # pyright: ignore[reportMissingImports]
    except (ImportError, TypeError) as error:  # arch 7, which it needs, cannot be imported next to pandas 3: TypeError
        raise ImportError(f"aggregates over testbeds need rliable ({error}): {EXTRA}") from error
    return library, metrics
