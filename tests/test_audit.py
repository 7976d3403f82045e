"""The audit of evals: statistics on hand-made rows, damages that do what they say, and the page's tables."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.audit import measure as measuring
from benchmarks.audit import testbeds
from benchmarks.audit.__main__ import main
from benchmarks.audit.committed import ON_LANGUAGE, ON_WORLDS, SAEBENCH, committed
from benchmarks.audit.damage import DAMAGES, SAMPLE, damaged, rates
from benchmarks.audit.damage_seen import change, changes
from benchmarks.audit.findings import findings
from benchmarks.audit.gate_table import gate_table
from benchmarks.audit.page import BEGIN, END, renewed, seeds_cell
from benchmarks.audit.panel import Case, damaged_cases, redrawn_cases, trained
from benchmarks.audit.redraw import other_choices, other_rows
from benchmarks.audit.reseed_noise import noise, spread, variance_of_a_draw
from benchmarks.audit.rows import Rows, add, check_versions, read, write
from benchmarks.audit.testbeds import TESTBEDS
from benchmarks.audit.text import figure
from benchmarks.audit.training_separation import rise, separation
from benchmarks.audit.truth_correlation import agreements, correlations
from scipy import stats

from tests.known import EXACT, truth
from unbraid import catalog
from unbraid.comparison.power import seeds_needed
from unbraid.evals import controllability
from unbraid.evals.absorption import absorption
from unbraid.evals.recovery import recovery_scores
from unbraid.experiment.experiment import Training
from unbraid.runs.in_memory import InMemory
from unbraid.sources.world.world import World

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
HIGHER, LOWER = {"a": "higher"}, {"a": "lower"}
DRAWS = [(0, 0), (0, 1), (1, 0), (1, 1)]


def rows_of(values: dict[Case, float], better: dict[str, str] = HIGHER) -> Rows:
    return Rows(better, {case: {"a": value} for case, value in values.items()})


# ---- noise


def test_the_variance_of_a_draw_adds_what_sources_differ_by():
    # By hand: means 1 and 5, between 2 (2^2 + 2^2) = 16, within (2 + 2) / 2 = 2, so 2 + (16 - 2) / 2.
    assert variance_of_a_draw([[0, 2], [4, 6]]) == pytest.approx(9)
    assert variance_of_a_draw([[1], [3], [5]]) == pytest.approx(4)


def test_the_spread_of_one_source_is_its_standard_deviation():
    assert spread({(0, seed): value for seed, value in enumerate((1.0, 2.0, 3.0))}) == pytest.approx(1)
    assert math.isnan(spread({(0, 0): 1.0, (0, 1): 2.0, (0, 2): math.nan}))


def test_the_variance_of_a_draw_is_unbiased_for_groups_of_unequal_size():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(4000):
        found.append(variance_of_a_draw([list(2 * rng.normal() + rng.normal(size=size)) for size in (1, 2, 4)]))
    assert np.mean(found) == pytest.approx(5, rel=0.1)


def test_noise_is_paired_with_the_base_draw_by_draw():
    shift = dict(zip(DRAWS, (0.0, 0.1, 0.3, 0.2), strict=True))
    own = dict(zip(DRAWS, (0.01, -0.01, 0.02, 0.0), strict=True))
    values = {Case("equal", "batchtopk-l0_4", *draw): 0.5 + shift[draw] for draw in DRAWS}
    values |= {Case("equal", "topk-l0_4", *draw): 0.4 + shift[draw] + own[draw] for draw in DRAWS}
    found = noise(rows_of(values), "a")
    assert found.of_difference == pytest.approx(spread(own))
    assert found.of_method > 5 * found.of_difference and found.difference == 0.02
    assert found.seeds == seeds_needed(0.02, found.of_difference)


def test_a_score_that_is_no_share_has_a_difference_relative_to_its_mean():
    values = {Case("equal", f"{name}-l0_4", *draw): 50.0 for name in ("batchtopk", "topk") for draw in DRAWS}
    found = noise(rows_of(values), "a")
    assert found.difference == pytest.approx(1) and seeds_cell(found) == "3*"


def test_the_noise_of_the_eval_is_that_of_one_dictionary():
    values = {Case("equal", "batchtopk-l0_4", 0, 0): 1.0}
    values |= {Case("redrawn", "batchtopk-l0_4", 0, 0, draw): value for draw, value in ((1.0, 2.0), (2.0, 3.0))}
    assert noise(rows_of(values), "a").of_eval == pytest.approx(1)


# ---- truth


def test_correlations_are_spearmans_with_ties_and_holes():
    rng = np.random.default_rng(0)
    values = rng.integers(5, size=(6, 9)).astype(float)
    values[2, 3] = math.nan
    found = correlations(values, values[[0]])
    for row, rho in zip(values, found, strict=True):
        both = np.isfinite(row)
        oracle: Any = stats.spearmanr(row[both], values[0][both])
        assert rho == pytest.approx(oracle.statistic)


def test_a_constant_score_and_too_few_dictionaries_have_no_correlation():
    values = np.array([[1.0, 2, 3, 4, 5], [7, 7, 7, 7, 7], [math.nan, 2, 3, 4, 5]])
    assert correlations(values, values[[0]])[0] == pytest.approx(1)
    assert np.isnan(correlations(values, values[[0]])[1:]).all()


def test_agreement_turns_scores_of_which_less_is_better():
    table = [{f"m{i}": {"truth": float(i), "good": -float(i), "bad": float(i)} for i in range(8)} for _ in range(2)]
    better = {"truth": "higher", "good": "lower", "bad": "lower"}
    found = agreements(table, ["good", "bad"], ["truth"], better)
    assert found["good", "truth"][:3] == pytest.approx((1, 1, 1))
    assert found["bad", "truth"][:3] == pytest.approx((-1, -1, -1))
    assert found["good", "truth"].draws == 2


def test_the_interval_of_a_score_without_relation_holds_0():
    rng = np.random.default_rng(1)
    table = [{f"m{i}": {"truth": rng.normal(), "a": rng.normal()} for i in range(12)} for _ in range(3)]
    found = agreements(table, ["a"], ["truth"], {"truth": "higher", "a": "higher"})["a", "truth"]
    assert found.low < 0 < found.high and found.low <= found.rho <= found.high


# ---- training


def test_separation_is_in_standard_deviations_of_one_run():
    stages = [{(0, seed): start + seed for seed in range(3)} for start in (0.0, 10.0)]
    assert separation(stages[0], stages[1], 1.0) == pytest.approx(10)
    assert separation(stages[0], stages[1], -1.0) == pytest.approx(-10)


def along(means: tuple[float, ...], better: dict[str, str] = HIGHER) -> Rows:
    values = {}
    for seed, jitter in enumerate((-0.01, 0.0, 0.01)):
        values[Case("control", "untrained-l0_4", 0, seed)] = means[0] + jitter
        for share, mean in zip((0.01, 0.03, 0.1, 0.3), means[1:-1], strict=True):
            values[Case("short", "batchtopk-l0_4", 0, seed, share)] = mean + jitter
        values[Case("equal", "batchtopk-l0_4", 0, seed)] = means[-1] + jitter
    return rows_of(values, better)


def test_a_score_rises_when_no_step_goes_back():
    assert rise(along((0.0, 0.1, 0.2, 0.3, 0.4, 0.5)), "a").rises
    assert rise(along((0.0, 0.1, 0.2, 0.3, 0.4, 0.5)), "a").steps == pytest.approx([10] * 5)
    assert not rise(along((0.0, 0.1, 0.2, 0.1, 0.4, 0.5)), "a").rises
    assert rise(along((0.5, 0.4, 0.3, 0.2, 0.1, 0.0), LOWER), "a").rises


# ---- damage


def ladder(values: tuple[float, ...]) -> Rows:
    rows = {Case("control", "truth", 0, 0): values[0]}
    rows |= {Case("damaged", "lost", 0, 0, s): v for s, v in zip((0.1, 0.3, 0.6), values[1:], strict=True)}
    return rows_of(rows)


@pytest.mark.parametrize(
    ("values", "word"),
    [((0.9, 0.8, 0.7, 0.6), "seen"), ((0.6, 0.7, 0.8, 0.9), "fooled"), ((0.6, 0.6, 0.6, 0.6), "blind"),
     ((0.6, 0.9, 0.3, 0.8), "blind"), ((0.6, 0.61, 0.62, 0.63), "blind"), ((0.9, 0.8, math.nan, 0.6), "unknown")],
)  # fmt: skip
def test_a_damage_is_seen_fooling_or_not(values, word):
    assert change(ladder(values), "a", "lost", 0.02, "truth", 1.0).word == word


def test_damages_that_were_not_made_are_unknown():
    assert changes(ladder((0.9, 0.8, 0.7, 0.6)), "a", 0.02, "truth")["mixed"].word == "unknown"


def scored(made):
    own = {s.metric: s.value for s in recovery_scores(made, EXACT) if s.kind == "measured"}
    return own | {s.metric: s.value for s in absorption(InMemory.of(made, EXACT)) if s.kind == "measured"}


@pytest.mark.parametrize("name", DAMAGES)
def test_damages_do_what_they_say(name):
    whole, x = truth(EXACT), EXACT.held_out_sample(SAMPLE)
    made = damaged(whole, name, 0.5, EXACT, 0)
    before, after = scored(whole), scored(made)
    fires = rates(made, x)[0] > 0
    if name == "lost":
        assert int(fires.sum()) <= 12 and after["mcc"] == before["mcc"] and after["f1"] < 0.6
    if name == "random":
        assert after["mcc"] < 0.8 and torch.allclose(rates(made, x)[0], rates(whole, x)[0], atol=1e-3)
    if name == "mixed":
        assert after["precision"] < 0.8 and after["recall"] > 0.99 and after["mcc"] < 0.9
    if name == "crossed":
        assert after["mcc"] == pytest.approx(1, abs=1e-5) and after["f1"] < 0.6
        assert torch.equal(made.encode(x), whole.encode(x))
    if name == "absorbed":
        assert after["absorption_full"] > 0.3 > before["absorption_full"] + 0.29
    if name == "doubled":
        assert made.d_sae == 36 and torch.allclose(made(x), whole(x), atol=1e-4)
        assert after["f1"] == pytest.approx(before["f1"])
    assert torch.allclose(torch.linalg.vector_norm(made.W_dec, dim=1), torch.ones(made.d_sae), atol=1e-4)


def test_random_latents_fire_as_often_and_as_strongly_as_before():
    whole, x = truth(EXACT), EXACT.held_out_sample(SAMPLE)
    with torch.no_grad():
        whole.threshold.fill_(0.5)
    made = damaged(whole, "random", 0.5, EXACT, 0)
    for before, after in zip(rates(whole, x), rates(made, x), strict=True):
        assert torch.allclose(before, after, atol=1e-3)


def test_a_larger_share_spoils_what_a_smaller_one_does():
    whole = truth(EXACT)
    silent = [(damaged(whole, "lost", share, EXACT, 0).W_enc == 0).all(0) for share in (0.25, 0.5)]
    assert int(silent[0].sum()) == 6 and bool((silent[1] | ~silent[0]).all())


# ---- other draws


def test_other_rows_are_of_the_same_world():
    first, other = other_rows(EXACT, 0), other_rows(EXACT, 1)
    assert torch.equal(first.labelled(64, split="eval").x, EXACT.labelled(64, split="eval").x)
    assert torch.equal(other.directions, EXACT.directions)
    assert torch.equal(other.samples(0, "train", 3), EXACT.samples(0, "train", 3))
    for split in ("labelled", "samples", "contexts"):
        draw = {
            "labelled": lambda world: world.labelled(64, split="eval").x,
            "samples": lambda world: world.samples(0, "eval", 0),
            "contexts": lambda world: world.contexts(2, split="eval", seed=0).acts,
        }[split]
        assert not torch.equal(draw(other), draw(EXACT))


def test_other_choices_are_made_inside_alone():
    before = controllability.SEED
    with other_choices(list(catalog.evals().values()), 2):
        assert before != controllability.SEED
    assert before == controllability.SEED


# ---- rows, panel and command


def test_rows_are_read_as_they_were_written(tmp_path):
    score = {"params": {}, "kind": "measured", "better": "higher"}
    swap = {"directions": "latents", "n": 4.0, "error": "kept"}
    result = {
        "eval": "one",
        "scores": [
            score | {"metric": "good", "value": 0.25},
            score | {"metric": "hole", "value": None, "better": "lower"},
            score | {"metric": "by_chance", "value": 1.0, "kind": "chance"},
            score | {"metric": "size", "value": 1.0, "better": "neither"},
            score | {"metric": "swap", "value": 0.5, "params": swap},
            score | {"metric": "swap", "value": 0.7, "params": swap | {"n": 1.0}},
            score | {"metric": "mod", "value": 0.1, "params": {"size": "own"}},
        ],
    }
    rows, case = Rows(), Case("equal", "topk-l0_4", 0, 1)
    add(rows, case, [result])
    write(tmp_path / "rows.json", {"one": 1}, {"forest": rows})
    found = read(tmp_path / "rows.json")["forest"]
    assert found.better == {"one.good": "higher", "one.hole": "lower", "one.swap": "higher", "one.mod own": "higher"}
    own = found.scores[case]
    assert math.isnan(own.pop("one.hole")) and own == {"one.good": 0.25, "one.swap": 0.5, "one.mod own": 0.1}


@pytest.mark.parametrize("name", ["forest", "realistic"])
def test_every_dictionary_of_a_panel_has_a_name_of_its_own(name):
    testbed = TESTBEDS[name]
    made = list(trained(testbed))
    cases = [one.case for one in made] + [*damaged_cases(testbed), *redrawn_cases(testbed)]
    assert len(set(cases)) == len(cases)
    assert len({one.experiment.folder for one in made}) == len(made)
    equal = [one for one in made if one.case.kind == "equal"]
    assert {one.experiment.training.tokens for one in equal} <= {testbed.training.tokens}


def test_held_out_text_is_not_drawn_again():
    assert not list(redrawn_cases(TESTBEDS["language"])) and len(list(redrawn_cases(TESTBEDS["forest"]))) == 4


SMALL = testbeds.Testbed(
    source=lambda number: replace(EXACT, seed=number), d_sae=32, l0=2, ceiling="truth",
    training=Training(tokens=1000, batch_size=100), draws=((0, 0),), other_l0s=(), other_widths=(),
    damaged_shares=(0.5,), methods=("batchtopk",),
)  # fmt: skip


def test_the_command_measures_once(tmp_path, monkeypatch):
    few = {name: item for name, item in catalog.evals().items() if name == "recovery"}
    monkeypatch.setattr(catalog, "evals", lambda *_: few)
    monkeypatch.setitem(TESTBEDS, "small", SMALL)
    monkeypatch.setattr(measuring, "redrawn_cases", lambda testbed: [])  # there is no Matryoshka to score again
    command = ["run", "--source", "small", "--runs", str(tmp_path), "--out", str(tmp_path / "rows.json")]
    main(command)
    text = (tmp_path / "rows.json").read_text()
    rows = read(tmp_path / "rows.json")["small"]
    assert {case.kind for case in rows.scores} == {"equal", "short", "control", "damaged"}
    whole, crossed = (
        rows.scores[case] for case in (Case("control", "truth", 0, 0), Case("damaged", "crossed", 0, 0, 0.5))
    )
    assert crossed["recovery.mcc"] == pytest.approx(whole["recovery.mcc"], abs=1e-4)
    assert crossed["recovery.f1"] < 0.7 * whole["recovery.f1"]
    monkeypatch.setattr(measuring, "evaluate", lambda *_, **__: pytest.fail("scored again"))
    main(command)
    assert (tmp_path / "rows.json").read_text() == text


def test_rows_of_another_version_are_not_continued(tmp_path):
    write(tmp_path / "rows.json", {"recovery": 3, "fidelity": 3}, {})
    check_versions(tmp_path / "rows.json", {"recovery": 3, "fidelity": 3})
    check_versions(tmp_path / "none.json", {"recovery": 4})
    with pytest.raises(ValueError, match=r"rows\.json has rows of other versions of recovery: name another --out"):
        check_versions(tmp_path / "rows.json", {"recovery": 4, "fidelity": 3})


# ---- committed rows


@pytest.mark.parametrize("study", ON_LANGUAGE, ids=lambda study: study.title)
def test_saebenchs_committed_rows_are_audited_by_sparsity(study):
    rows = committed(study, SAEBENCH)
    kinds = [case.kind for case in rows.scores]
    assert kinds.count("equal") == 51 and kinds.count("control") == 3
    scr = next(one for one in findings(rows, study.truths, scores=SAEBENCH) if one.score == "scr")
    assert scr.word == "not" and (scr.noise.seeds is None or scr.noise.seeds > 100)


def test_committed_rows_of_worlds_have_every_score_with_a_direction():
    rows = committed(ON_WORLDS[0])
    assert {"f1", "mcc", "isolation", "absorption", "fvu"} <= set(rows.better) and "l0" not in rows.better
    assert rows.better["absorption"] == "lower" and len({case.name for case in rows.scores}) == 32


def test_the_pages_tables_are_what_the_rows_give(tmp_path):
    page = tmp_path / "trust.md"
    page.write_text((ROOT / "docs" / "trust.md").read_text())
    main(["page", "--rows", str(RESULTS / "audit.json"), "--gate", str(RESULTS / "gate.json"), "--page", str(page)])
    assert page.read_text() == (ROOT / "docs" / "trust.md").read_text(), "python -m benchmarks.audit page"


def test_a_page_keeps_what_stands_around_its_tables():
    assert renewed(f"before\n{BEGIN}\nold\n{END}\nafter", ["new"]) == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter"
    with pytest.raises(ValueError, match="no place for tables"):
        renewed("before", ["new"])


@pytest.mark.parametrize(("value", "shown"), [(0.01234, ".0123"), (-0.5, "−.5"), (1.5e-6, "1.5e-06"), (12.0, "12")])
def test_figures_have_three_digits_and_no_leading_zero(value, shown):
    assert figure(value) == shown


def test_the_gates_table_says_the_seeds_only_where_both_numbers_are_known():
    row = {
        "testbed": "small_world", "eval": "recovery", "metric": "f1", "passed": True, "truth": 1.0, "best": 0.5,
        "untrained": None, "chance": 0.1, "smallest": 0.03, "spread": 0.0125, "seeds_needed": 5,
    }  # fmt: skip
    assert (
        gate_table([row]).splitlines()[2]
        == "| `recovery.f1` | small_world | 1 | .5 | – | .1 | **yes** | .03 | .0125 | 5 |"
    )
    assert gate_table([row | {"seeds_needed": None}]).endswith("| > 1,000 |")
    assert gate_table([row | {"smallest": None, "passed": False}]).endswith("| no | – | .0125 | – |")


def test_worlds_of_a_testbed_differ_by_number_alone():
    for name in ("forest", "realistic"):
        one, other = (TESTBEDS[name].source(number) for number in (0, 1))
        assert isinstance(one, World) and isinstance(other, World) and replace(one, seed=1) == other
