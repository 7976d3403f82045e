"""Aggregates: the mixed model against paired contrasts, and interquartile means against their definition."""

import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tests.comparison.hand_made import D_SAE, F1, arranged, contrast_of, method

from unbraid.comparison.aggregate import mixed_model, over_testbeds, tidy
from unbraid.comparison.contrast import contrast

SEEDS, L0 = 8, (2.0, 4.0, 8.0)


def table(terms: dict[str, float], bases: dict[str, float] | None = None, *, shared: float = 1.0) -> pd.DataFrame:
    """Balanced rows with planted effects, noise by seed, by method within seed, and by run."""
    rng = np.random.default_rng(0)
    of_seed = shared * rng.standard_normal(SEEDS)
    rows = []
    for base, level in (bases or {"batchtopk": 1.0}).items():
        for term, effect in {"none": 0.0, **terms}.items():
            of_method = 0.2 * rng.standard_normal(SEEDS)
            for seed in range(SEEDS):
                for l0 in L0:
                    noise = of_seed[seed] + of_method[seed] + 0.1 * rng.standard_normal()
                    rows.append((base, term, l0, seed, level + effect * level + 0.1 * l0 + noise))
    return pd.DataFrame(rows, columns=pd.Index(["base", "term", "l0", "seed", "value"]))


def paired(rows: pd.DataFrame, base: str, term: str) -> np.ndarray:
    """The paired differences by seed, averaged over L0."""
    means: Any = rows[rows["base"] == base].groupby(["term", "seed"])["value"].mean()
    return (means[term] - means["none"]).to_numpy()


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e4])
def test_one_base_and_one_term_are_the_paired_t_test(scale: float):
    rows = table({"hsic": 0.3})
    rows["value"] *= scale
    found = mixed_model(rows).iloc[0]
    expected: Any = stats.ttest_1samp(paired(rows, "batchtopk", "hsic"), 0)
    interval = expected.confidence_interval(0.95)
    assert found["effect"] == pytest.approx(paired(rows, "batchtopk", "hsic").mean())
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high), rel=1e-3)
    assert found["p"] == pytest.approx(expected.pvalue, rel=1e-2) and found["seeds"] == SEEDS


def test_rows_that_would_be_lumped_or_dropped_are_refused():
    rows = table({"hsic": 0.3})
    with pytest.raises(ValueError, match="repeat a base, term, L0 and seed"):
        mixed_model(pd.concat([rows, rows]))
    some = rows.assign(l0=rows["l0"].where(rows["l0"] > 2))
    with pytest.raises(ValueError, match="have no L0"):
        mixed_model(some)
    none = rows[rows["l0"] == 2.0].assign(l0=float("nan"))
    assert mixed_model(none).iloc[0]["effect"] == pytest.approx(paired(none, "batchtopk", "hsic").mean())


def test_effects_on_several_bases_are_the_means_of_paired_contrasts():
    rows = table({"hsic": 0.3, "support": -0.2}, {"batchtopk": 1.0, "matryoshka": 2.0})
    found = mixed_model(rows)
    assert len(found) == 4
    row: Any
    for row in found.itertuples():
        own = paired(rows, row.base, row.term)
        assert row.effect == pytest.approx(own.mean(), abs=1e-6)
        # The noise of all methods is pooled: between a half and twice that of one contrast.
        half = stats.t.ppf(0.975, SEEDS - 1) * own.std(ddof=1) / np.sqrt(SEEDS)
        assert 0.4 < (row.high - row.low) / 2 / half < 2.5


def test_scores_are_arranged_and_agree_with_their_contrast():
    noise = np.random.default_rng(1).normal(0, 0.05, (2, 6, 3))
    level = lambda seed, l0, side: 0.5 + 0.05 * seed + float(noise[side, seed, int(np.log2(l0)) - 1])
    scores = arranged(
        {"batchtopk": lambda s, at: {"f1": level(s, at, 0)}, "hsic": lambda s, at: {"f1": 0.1 + level(s, at, 1)}},
        seeds=range(6),
    )
    rows = tidy(scores, D_SAE, F1)
    assert len(rows) == 36 and set(rows["term"]) == {"none", "hsic"} and set(rows["l0"]) == set(L0)
    own = contrast(scores, method(scores, "hsic"), method(scores, "batchtopk"), F1)
    found = mixed_model(rows).iloc[0]
    assert found["effect"] == pytest.approx(own.gain, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.drop(columns=["seed"]), "seed not found"),
        (lambda rows: rows[rows["term"] != "none"], '"none"'),
        (lambda rows: rows[rows["seed"] < 2], "2 seeds, and 3 are needed"),
        (lambda rows: rows[(rows["base"] != "matryoshka") | (rows["term"] != "hsic")], "not run: hsic on matryoshka"),
        (lambda rows: rows.assign(value=np.nan), "not finite"),
    ],
)
def test_what_cannot_be_fitted_is_refused_with_what_is_missing(change, said: str):
    with pytest.raises(ValueError, match=said):
        mixed_model(change(table({"hsic": 0.3}, {"batchtopk": 1.0, "matryoshka": 2.0})))


def test_values_without_any_noise_are_an_error():
    rows = table({"hsic": 0.3}, shared=0.0)
    rows["value"] = 1.0 + 0.3 * (rows["term"] == "hsic")
    with pytest.raises(ValueError, match="the mixed model"):
        mixed_model(rows)


GAINS = {"forest": [0.1, 0.2, 0.3, 0.4], "twin": [1.0, 2.0, 3.0, 4.0]}
SIZES = {"forest": 0.1, "twin": 1.0}
NEEDS = "over_testbeds is by rliable, of the extra [aggregates]"


def test_gains_over_testbeds_are_in_smallest_effects():
    pytest.importorskip("rliable", reason=NEEDS, exc_type=ImportError)
    found = over_testbeds({name: contrast_of(gains) for name, gains in GAINS.items()}, SIZES, reps=200)
    # In smallest effects both testbeds have the gains 1, 2, 3, 4: the middle half has the mean 2.5.
    assert found.gain.value == pytest.approx(2.5) and found.gain.low < 2.5 < found.gain.high
    assert found.probability.value == 1.0 and found.testbeds == ("forest", "twin") and found.seeds == 4


def test_the_probability_of_improvement_is_that_of_mann_and_whitney():
    pytest.importorskip("rliable", reason=NEEDS, exc_type=ImportError)
    gains = [-0.1, 0.2, -0.3, 0.4, 0.5]
    found = over_testbeds({"forest": contrast_of(gains)}, {"forest": 0.1}, reps=100)
    assert found.probability.value == pytest.approx(3 / 5)  # against 0 at each seed
    again = over_testbeds({"forest": contrast_of(gains)}, {"forest": 0.1}, reps=100)
    assert found == again


def test_testbeds_without_seeds_or_sizes_are_refused():
    pytest.importorskip("rliable", reason=NEEDS, exc_type=ImportError)
    one = {"forest": contrast_of([0.1, 0.2])}
    with pytest.raises(ValueError, match="no smallest effect"):
        over_testbeds(one, {})
    with pytest.raises(ValueError, match="2 seeds in all testbeds"):
        over_testbeds(one, {"forest": 0.1})


def test_without_rliable_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rliable", None)
    with pytest.raises(ImportError, match=r"unbraid\[aggregates\]"):
        over_testbeds({"forest": contrast_of([0.1, 0.2, 0.3])}, {"forest": 0.1})
