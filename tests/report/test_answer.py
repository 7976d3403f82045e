"""Verdicts on made-up studies in which every effect is planted."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from tests.report.conftest import store
from tests.report.planted import BASES, WORST, change_scores, planted, planted_run

from unbraid.comparison.quantities import ScoreSelector
from unbraid.comparison.scores import arrange, own_base
from unbraid.comparison.stored_scores import read_scores
from unbraid.comparison.verdict import Answer, Rules, answer
from unbraid.report.limitations import limitations, unscored
from unbraid.report.table import table

SEEDS = range(6)
TWO = {name: BASES[name] for name in ("batchtopk", "matryoshka")}
PLAIN = {"hsic": {}}
WIN = {"hsic": {"f1": 0.06}}
LOSS = {"hsic": {"f1": -0.06}}


def answered(folders, rules: Rules | None = None) -> Answer:
    scores = arrange(read_scores(folders))
    return answer(scores, scores.widths[0], rules)


def study(root: Path, terms=WIN, **changes) -> list[Path]:
    return planted(root / "runs", terms, **{"bases": TWO, "seeds": SEEDS, "l0s": (8, 16)} | changes)


def word(found: Answer, metric: str, method: str = "hsic", axis: str = "L0"):
    judged = [j for said in found.verdicts for term in said.terms for j in term.primaries] + list(found.exploratory)
    return next(
        j for j in judged if (j.metric.metric, j.contrast.method, j.contrast.axis) == (metric, method, axis)
    )  # fmt: skip


def test_a_planted_winner_is_found_and_named(tmp_path):
    found = answered(study(tmp_path))
    (said,) = found.verdicts
    assert said.tone == "yes" and said.claim.startswith("Claim 1")
    assert said.headline.startswith("Yes: HSIC is materially better than its base by F1 of one latent a factor")
    contrast = word(found, "f1").contrast
    assert contrast.other == "batchtopk" and contrast.n == 6 and len(contrast.levels) == 2
    assert contrast.difference == pytest.approx(0.06, abs=0.02)
    assert word(found, "absorption_full").word in ("equivalent", "undecided")
    assert "1 better (HSIC)" in said.evidence[0]


def test_each_claim_is_answered_by_its_own_methods(tmp_path):
    terms = WIN | {"melbo": {"isolation": -0.08, "interchange": -0.2}}
    first, second = answered(study(tmp_path, terms, knobs=("melbo",))).verdicts
    assert first.claim.startswith("Claim 1") and first.tone == "yes" and "melbo" not in str(first.evidence)
    assert second.claim.startswith("Claim 2") and second.tone == "no"
    assert {j.metric.metric for t in second.terms for j in t.primaries} == {"isolation", "interchange"}


def test_a_planted_loser_is_no(tmp_path):
    found = answered(study(tmp_path, {"hsic": {"f1": -0.06}}, noise=0.004))
    assert found.verdicts[0].tone == "no" and word(found, "f1").word == "materially worse"


def test_of_two_terms_one_win_is_enough_for_yes_and_the_other_is_named_as_none(tmp_path):
    (said,) = answered(study(tmp_path, WIN | {"gate": {}})).verdicts
    assert said.tone == "yes" and "the other 1 term is not" in said.headline


def test_better_by_one_primary_and_worse_by_the_other_depends(tmp_path):
    """The base finds parents more often, so its lower absorption counts."""
    terms = {"hsic": {"f1": 0.06, "absorption_full": 0.2, "parent_recall_given_child": -0.1}}
    (said,) = answered(study(tmp_path, terms)).verdicts
    assert said.tone == "mixed" and said.headline.startswith("It depends: HSIC is better")


def test_without_an_effect_enough_seeds_say_equivalent_and_no(tmp_path):
    found = answered(study(tmp_path, PLAIN, noise=0.004))
    assert {word(found, m).word for m in ("f1", "absorption_full")} == {"equivalent"}
    assert found.verdicts[0].tone == "no" and "is equivalent to its base" in found.verdicts[0].headline


@pytest.mark.parametrize("seeds", [range(3), range(8)])
def test_without_an_effect_noise_is_undecided_and_says_what_it_could_have_found(tmp_path, seeds):
    """No lack of power is a "no"."""
    found = answered(study(tmp_path, PLAIN, noise=0.06, seeds=seeds))
    (said,) = found.verdicts
    assert said.tone == "undecided" and said.headline.startswith("Undecided: these seeds")
    assert "could have found a difference of" in said.headline and "the smallest of interest is" in said.headline
    assert math.isfinite(word(found, "f1").could_find)


def test_copies_of_a_base_are_never_yes_and_never_a_loss(tmp_path):
    found = answered(study(tmp_path, {f"copy{i}": {} for i in range(4)}))
    assert found.verdicts[0].tone in ("no", "undecided")
    assert not any(t.outcome in ("better", "worse", "mixed") for t in found.verdicts[0].terms)


@pytest.mark.parametrize("count", [1, 2])
def test_few_seeds_give_no_interval_and_no_claim(tmp_path, count):
    passed = {result.metric: result for result in answered(study(tmp_path / "calibration")).gate}
    found = answered(study(tmp_path, seeds=range(count)), Rules(gate=passed))
    assert found.verdicts[0].tone == "undecided" and "too few seeds" in found.verdicts[0].headline
    judged = word(found, "f1")
    assert judged.word == "undecided" and f"{count} paired seed" in judged.reason
    assert math.isnan(judged.contrast.tested.half)


@pytest.mark.parametrize(("terms", "method"), [(WIN, "hsic"), (LOSS, "batchtopk")])
@pytest.mark.parametrize(
    ("eval_name", "metric", "value", "says"),
    [
        ("fidelity", "l2_ratio", 0.6, "reconstructions shrank: |x_hat| / |x|"),
        ("recovery", "recall_by_frequency", 0.3, "rare factors were given up: recall of the rarest"),
    ],
)
def test_a_lead_bought_by_either_side_is_void_and_says_by_what(
    tmp_path, terms, method, eval_name, metric, value, says
):  # fmt: skip
    """A gain that the term has bought, and a loss that is the base's purchase."""
    folders = study(tmp_path, terms, noise=0.004)
    change_scores(folders, method, eval_name, {metric: value})
    found = answered(folders)
    judged = word(found, "f1")
    assert judged.word == "void" and f"{method} broke a guard: {says}" in judged.note
    assert found.verdicts[0].tone == "undecided"
    assert answered(study(tmp_path / "kept", terms, noise=0.004)).verdicts[0].tone != "undecided"


def test_a_guard_that_is_not_shown_to_be_kept_leaves_the_word_and_decides_nothing(tmp_path):
    folders = study(tmp_path)
    for seed in SEEDS:  # around the bound of 95 %
        change_scores(folders, "hsic", "fidelity", {"l2_ratio": 0.95**2 + 0.05 * (-1) ** seed}, seed=seed)
        change_scores(folders, "batchtopk", "fidelity", {"l2_ratio": 0.95}, seed=seed)
    judged = word(answered(folders), "f1")
    assert judged.word == "materially better" and "not shown to keep a guard" in judged.doubt
    assert answered(folders).verdicts[0].tone == "undecided"


def test_a_base_that_overshoots_asks_for_no_overshoot(tmp_path):
    folders = study(tmp_path)
    change_scores(folders, "batchtopk", "fidelity", {"l2_ratio": 1.2})
    change_scores(folders, "hsic", "fidelity", {"l2_ratio": 1.0})
    assert answered(folders).verdicts[0].tone == "yes"


def test_less_absorption_without_more_parents_does_not_count(tmp_path):
    judge = lambda name, recall: word(
        answered(study(
            tmp_path / name, {"hsic": {"absorption_full": -0.1, "parent_recall_given_child": recall}}, noise=0.004
        )), "absorption_full",
    )  # fmt: skip
    assert judge("lost", -0.1).word == "void" and "parents are found less often" in judge("lost", -0.1).note
    assert judge("same", 0.0).doubt and not judge("same", 0.0).gained
    assert judge("found", 0.1).gained


def test_adding_up_by_doing_nothing_is_void_and_the_table_shows_both_next_to_each_other(tmp_path):
    def judged(effect: float):
        folders = study(tmp_path / f"{effect}")
        for folder in folders:
            own, seed = folder.name.startswith("hsic"), int(folder.name.split("-s")[1][0]) * 1e-3
            control = folder.name.startswith(("untrained", "truth"))
            value = {"untrained": 0.1, "truth": 1.2}[folder.name.split("-")[0]] if control else 0.99 if own else 0.6
            added = [
                {"metric": "additive_r2", "value": value + seed, "better": "higher", "params": {}},
                {"metric": "effect", "value": effect if own else 3.0, "better": "higher", "params": {}},
            ]
            store(folder, "controllability", {"definitions": {}, "scores": added})
        return folders

    names = [q.metric for q in arrange(read_scores(judged(2.0))).headline]
    assert names[names.index("additive_r2") + 1] == "effect"
    said = word(answered(judged(2.0)), "additive_r2")
    assert said.word == "void" and "effects shrank" in said.note
    assert word(answered(judged(2.9)), "additive_r2").gained


def test_a_score_that_cannot_tell_untrained_from_trained_decides_nothing(tmp_path):
    shift = WORST | {"f1": 0.2}
    found = answered(study(tmp_path, controls={"untrained": shift, "truth": {"f1": 0.4, "absorption_full": -0.28}}))
    (gated,) = [r for r in found.gate if r.metric.metric == "f1"]
    assert not gated.passed and "not shown to be better than untrained" in gated.sentence
    (said,) = found.verdicts
    assert said.tone != "yes" and any(line.startswith("Not counted: F1") for line in said.evidence)
    assert "f1" not in {j.metric.metric for j in found.exploratory}


def test_when_no_primary_passes_there_is_no_answer(tmp_path):
    near = {"f1": 0.2, "absorption_full": -0.2}
    (said,) = answered(study(tmp_path, controls={"untrained": WORST | near})).verdicts
    assert said.tone == "unknown" and "no primary passed its controls here" in said.headline


def test_scores_that_an_objective_sets_by_itself_are_no_primaries(tmp_path):
    """Of the same win by TPP no verdict changes."""
    folders = study(tmp_path, PLAIN, noise=0.004)
    for folder in folders:
        scores = [
            {"metric": "tpp", "value": 0.6 + 0.2 * ("hsic" in folder.name), "better": "higher", "params": {"n": 20}}
        ]
        store(folder, "saebench_tpp", {"definitions": {}, "scores": scores})
    found = answered(folders)
    assert found.verdicts[0].tone == "no" and "tpp" in {q.metric for q in arrange(read_scores(folders)).headline}


def test_the_more_terms_are_tried_the_more_a_claim_needs(tmp_path):
    """Holm over terms x primaries: the same difference of the same seeds."""
    few = word(answered(study(tmp_path / "one", WIN)), "f1")
    many = word(answered(study(tmp_path / "many", WIN | {f"copy{i}": {} for i in range(5)})), "f1")
    assert few.contrast.gains == many.contrast.gains
    assert (few.family, many.family) == (2, 12) and many.p > few.p and few.correction == "holm"


def test_what_is_exploratory_has_q_values_and_every_axis(tmp_path):
    found = answered(study(tmp_path, WIN | {"gate": {}}))
    assert {j.correction for j in found.exploratory} == {"q"}
    assert {j.contrast.axis for j in found.exploratory} == {"L0", "FVU"}
    assert word(found, "latents_per_factor").word in ("equivalent", "undecided")


def test_known_differences_of_standard_saes_come_out(tmp_path):
    found = answered(study(tmp_path, PLAIN))
    said = {j.metric.metric: j.word for j in found.standards if j.contrast.method == "matryoshka"}
    assert said["absorption_full"] == said["f1"] == "materially better" and said["fvu"] == "materially worse"
    assert found.smallest[word(found, "f1").metric].value == pytest.approx(0.06 / 3, abs=0.005)


def test_a_registered_claim_says_so_and_says_what_departs_from_it(tmp_path):
    folders = study(tmp_path)
    status = lambda **rules: answered(folders, Rules(**rules)).verdicts[0].status
    assert status() == "exploratory: no claim card was registered before the runs"
    assert status(registered="on 2026-01-01 as forest.toml") == "registered on 2026-01-01 as forest.toml"
    departed = status(registered="on 2026-01-01 as forest.toml", departures=["2 runs finished before"])
    assert departed.startswith("exploratory, though registered on 2026-01-01") and "2 runs finished" in departed


def test_a_registered_primary_decides_in_place_of_the_default(tmp_path):
    rules = Rules(primaries={1: [[ScoreSelector("splitting", "latents_per_factor")]]})
    found = answered(study(tmp_path, {"hsic": {"latents_per_factor": -1.0}}), rules)
    assert found.verdicts[0].tone == "yes" and "latents per factor" in found.verdicts[0].headline


# ---- bases --------------------------------------------------------------------------------------------------


def test_a_term_on_two_bases_is_judged_against_each(tmp_path):
    found = answered(study(tmp_path, WIN, on=("batchtopk", "matryoshka")))
    pairs = {(t.method.name, t.base.name) for t in found.verdicts[0].terms}
    assert pairs == {("batchtopk-hsic", "batchtopk"), ("matryoshka-hsic", "matryoshka")}
    assert {t.outcome for t in found.verdicts[0].terms} == {"better"}


def test_a_term_is_judged_against_its_base_in_the_same_geometry(tmp_path):
    """Whitening lifts F1 by .2; the term adds nothing to it."""
    folders = study(tmp_path, {"hsic": {"f1": 0.06}})
    for seed in SEEDS:
        for l0 in (8, 16):
            white = {"base": "batchtopk", "geometry": "whitened"}
            make = lambda name, seed=seed, l0=l0, white=white, **about: folders.append(
                planted_run(tmp_path / "runs", name, seed, l0, {"f1": 0.2}, summary=white | about)
            )
            make("batchtopk-whitened", standard=True)
            make("hsic-whitened", term="hsic")
    pairs = {t.method.short: (t.base.short, t.primaries[0].word) for t in answered(folders).verdicts[0].terms}
    assert pairs["hsic"] == ("batchtopk", "materially better")
    assert pairs["hsic-whitened"][0] == "batchtopk-whitened" and pairs["hsic-whitened"][1] in (
        "equivalent",
        "undecided",
    )


def test_a_method_without_a_base_decides_no_claim_and_is_listed(tmp_path):
    folders = study(tmp_path)
    for seed in SEEDS:
        said = {"term": "blocks", "base": "gated"}
        folders += [planted_run(tmp_path / "runs", "odd", seed, l0, {"f1": 0.3}, summary=said) for l0 in (8, 16)]
    found = answered(folders)
    assert found.orphans == ["odd"] and "odd" in found.compared and "odd" not in str(found.verdicts)
    stored = read_scores(folders)
    listed = [g.what for g in limitations(stored, arrange(stored), [found])]
    assert "odd with a base of its own" in listed


def test_runs_that_name_no_base_are_judged_against_the_standard_sae_that_they_contain(full_study):
    """Experiments of earlier versions: topk and hsic have AuxK, relu has L1."""
    scores = arrange(read_scores(full_study))
    bases = {m.name: own_base(scores, m) for m in scores.with_role("compared")}
    assert {name: base.name for name, base in bases.items() if base} == {"orthogonality": "topk", "hsic": "topk"}
    (said,) = answered(full_study).verdicts
    assert said.tone == "yes" and "orthogonality is better, not shown to be materially so," in said.headline


def test_a_method_of_another_activation_has_no_base_among_old_runs(run):
    folders = [run("topk", s, {"l0": 32.0, "f1": 0.5}, k=32) for s in range(3)]
    folders += [run("hsic", s, {"l0": 32.0, "f1": 0.6}, penalties={"hsic": 1.0}) for s in range(3)]
    found = answered(folders)
    assert found.orphans == ["hsic"] and found.verdicts[0].tone == "unknown"
    assert "no compared method is a standard SAE of this study with a term added" in found.verdicts[0].headline


def test_widths_are_compared_apart(tmp_path):
    folders = study(tmp_path) + study(tmp_path / "wide", {}, d_sae=4096)
    scores = arrange(read_scores(folders))
    assert scores.widths == [1024, 4096]
    assert answer(scores, 1024).verdicts[0].tone == "yes" and answer(scores, 1024).standards
    assert "only standard SAEs" in answer(scores, 4096).verdicts[0].headline


def test_without_standard_saes_there_is_no_answer(run):
    found = answered([run("hsic", s, {"l0": 32.0, "f1": 0.7}, penalties={"hsic": 1.0}) for s in range(3)])
    assert found.verdicts[0].tone == "unknown" and "no standard SAE" in found.verdicts[0].headline


# ---- what the page lists ------------------------------------------------------------------------------------


def test_chance_levels_are_not_scores(full_study):
    scores = arrange(read_scores(full_study))
    mcc = scores.find(ScoreSelector("recovery", "mcc"))
    assert mcc is not None and (mcc.kind, mcc.params) == ("measured", "")
    assert scores.chance(mcc) == pytest.approx(0.3)


def test_gaps_name_errors_nan_and_missing_evals(full_study):
    stored = read_scores(full_study)
    scores = arrange(stored)
    found = {(g.kind, g.what): g for g in limitations(stored, scores, [answer(scores, 1024)])}
    assert "ran out of memory" in found["error", "recovery"].reason
    assert len(found["not applicable", "controllability"].runs) == 54
    assert len(found["NaN", "fidelity: max_decoder_cosine"].runs) == 1
    assert ("not tested", "matched bits") in found


@pytest.mark.parametrize("name, listed", [("examples", False), ("splitting", True)])
def test_evals_that_run_only_when_named_are_no_gap_where_they_are_not(full_study, name, listed):
    stored = read_scores(full_study)
    first = {**stored.records[0], "eval": name}
    found = unscored(replace(stored, records=(*stored.records, first)))
    assert any(g.what == name for g in found) == listed


def test_guards_that_were_not_measured_are_listed(full_study):
    stored = read_scores(full_study)
    (limitation,) = [g for g in limitations(stored, arrange(stored), []) if "guards" in g.what]
    assert "size of reconstructions" in limitation.what and "recall by frequency" in limitation.what


def test_table_cells_are_never_empty_and_controls_stand_apart(full_study):
    stored = read_scores(full_study)
    scores = arrange(stored)
    rows, controls = table(scores, scores.headline, stored.missing_results)
    assert all(cell.text for row in [*rows, *controls] for cell in row.cells)
    assert {r.method for r in controls} == {"untrained", "frozen-decoder", "pca"}
    damaged = next(r for r in rows if r.method == "relu" and r.requested == 16)
    assert any("ran out of memory" in cell.note and cell.short == "2 seeds; 1 error" for cell in damaged.cells)


def test_the_best_of_comparable_l0_is_marked_once_a_column(tmp_path):
    stored = read_scores(study(tmp_path, {"hsic": {"f1": 0.2}}, bases={"batchtopk": {}}))
    scores = arrange(stored)
    rows, _ = table(scores, scores.headline, stored.missing_results)
    column = [q.metric for q in scores.headline].index("f1")
    assert [r.method for r in rows if r.cells[column].best] == ["hsic"] * 2
