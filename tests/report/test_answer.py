import json
import math
import random

import pytest
from tests.report.conftest import store
from unbraid.comparison.compare import Comparison, Point, arrange

from unbraid.comparison.intervals import Difference
from unbraid.comparison.quantities import Quantity, ScoreSelector
from unbraid.comparison.stored_scores import read_scores
from unbraid.comparison.verdict import Answer, answer, evidence
from unbraid.report.limitations import limitations
from unbraid.report.table import table

SEEDS = (0, 1, 2)


def answered(folders) -> Answer:
    scores = arrange(read_scores(folders))
    return answer(scores, scores.widths[0])


def of(found: Answer, metric: str):
    return next(m for m in found.metrics if m.metric.metric == metric)


def two_methods(run, gain: float, seeds=SEEDS, at=(16.0, 32.0, 64.0), noise: float = 0.01):
    """topk and hsic; hsic has `gain` more mcc. Both share the noise of their seed, and have a little of their own."""
    folders = []
    for name, extra, penalties in (("topk", 0.0, {}), ("hsic", gain, {"hsic": 1.0})):
        for l0 in (16.0, 32.0, 64.0) if name == "topk" else at:
            for seed in seeds:
                shared, own = random.Random(f"{seed}").gauss(0, 1), random.Random(f"{name}{l0}{seed}").gauss(0, 1)
                mcc = 0.6 + 0.02 * math.log2(l0) + extra + noise * (shared + 0.3 * own)
                folders.append(
                    run(f"{name}-l0_{l0:g}", seed, {"l0": l0, "mcc": mcc, "fvu": 1 / l0}, penalties=penalties)
                )
    return folders


def test_a_planted_winner_is_found_and_named(run):
    found = answered(two_methods(run, 0.2))
    assert found.verdicts[0].tone == "yes" and "hsic is better" in found.verdicts[0].headline
    mcc = of(found, "mcc")
    assert mcc.outcome == "better"
    assert mcc.sentence.startswith("hsic is better than topk, the best standard SAE, at L0 32")
    assert "3 paired seeds" in mcc.sentence
    (comparison,) = mcc.comparisons
    assert comparison.difference.mean == pytest.approx(0.2, abs=0.02)


def test_each_claim_is_answered_by_its_own_methods(run):
    folders = two_methods(run, 0.2)
    for l0 in (16.0, 32.0, 64.0):
        for seed in SEEDS:
            mcc = 0.3 + 0.01 * random.Random(f"knobs{l0}{seed}").gauss(0, 1)
            scores = {"l0": l0, "mcc": mcc, "fvu": 1 / l0}
            folders.append(run(f"knobs-l0_{l0:g}", seed, scores, penalties={"effect": 1.0, "hsic": 1.0}))
    literature, knobs = answered(folders).verdicts
    assert literature.claim.startswith("Claim 1") and literature.tone == "yes" and "knobs" not in literature.headline
    assert knobs.claim.startswith("Claim 2") and knobs.tone == "no" and "knobs" in knobs.headline


def test_a_verdict_says_by_how_much_and_how_sure(run):
    (said,) = answered(two_methods(run, 0.2)).verdicts
    tally, gain = said.evidence
    assert tally == "Of 3 comparisons at these points: 2 better, 0 worse and 1 no difference shown."
    assert gain.startswith("Clearest gain: hsic, mcc") and "of topk at L0 32" in gain and "3 paired seeds" in gain
    (said,) = answered(two_methods(run, -0.2)).verdicts
    assert said.evidence[-1].startswith("Clearest loss: hsic, mcc")


def test_the_clearest_are_of_what_counts():
    """A void win and a loss that did not survive Holm are clearer than the real ones."""
    quantity = Quantity("recovery", "mcc", "", "higher")
    said = lambda name, outcome, mean, half, note="": Comparison(
        quantity,
        Point("L0", quantity, 8.0),
        name,
        "topk",
        outcome,
        0.8,
        0.6,
        Difference(mean, half, 0.01, 3, True),
        note,
    )
    tally, gain, loss = evidence(
        [
            said("real", "better", 0.2, 0.05), said("shrinker", "void", 0.3, 0.02, "void, latents were deleted"),
            said("slow", "worse", -0.2, 0.1), said("demoted", "no difference shown", -0.2, 0.05, "not after Holm"),
        ]
    )  # fmt: skip
    assert "1 better, 1 worse, 1 no difference shown and 1 void" in tally
    assert gain.startswith("Clearest gain: real") and loss.startswith("Clearest loss: slow")


@pytest.mark.parametrize(("name", "params", "tone"), [("tpp", {"n": 20.0}, "same"), ("mcc", {}, "yes")])
def test_scores_that_an_audit_advises_against_are_shown_and_never_counted(run, name, params, tone):
    """The same win, of a score that counts and of one that does not."""
    folders = two_methods(run, 0.0)
    for folder in folders:
        own = random.Random(folder.name).gauss(0, 0.01)
        value = 0.6 + own + 0.2 * ("hsic" in folder.name)
        scores = [{"metric": name, "value": value, "better": "higher", "params": params}]
        store(folder, "saebench_tpp" if name == "tpp" else "recovery", {"definitions": {}, "scores": scores})
    found = answered(folders)
    assert of(found, name).outcome == "better"
    (said,) = found.verdicts
    assert said.tone == tone and bool(said.profiles) == (tone == "yes"), "and the method's profile is of what counts"


def test_a_planted_loser_is_called_worse(run):
    found = answered(two_methods(run, -0.2))
    assert found.verdicts[0].tone == "no" and of(found, "mcc").outcome == "worse"


def test_a_win_at_one_point_and_a_loss_at_another_is_no_yes(run):
    folders = []
    for name, extra, penalties in (("topk", {}, {}), ("hsic", {8: -0.2}, {"hsic": 1.0})):
        for l0 in (8, 32, 128):
            for seed in SEEDS:
                gain = 0.0 if name == "topk" else extra.get(l0, 0.2)
                mcc = 0.6 + gain + 0.01 * random.Random(f"{name}{l0}{seed}").gauss(0, 1)
                scores = {"l0": float(l0), "mcc": mcc, "fvu": 1 / l0}
                folders.append(run(f"{name}-l0_{l0}", seed, scores, penalties=penalties))
    found = answered(folders)
    assert of(found, "mcc").outcome == "better", "the headline point is the middle one"
    assert found.verdicts[0].tone == "mixed" and found.verdicts[0].headline.startswith("It depends")


def test_without_a_difference_none_is_claimed(run):
    found = answered(two_methods(run, 0.0))
    assert found.verdicts[0].tone == "same" and found.verdicts[0].headline.startswith("No difference shown")
    assert of(found, "mcc").sentence.startswith("No difference shown between hsic, and topk")


def test_identical_scores_are_no_difference(run):
    found = answered(two_methods(run, 0.0, noise=0.0))
    assert {c.outcome for c in found.all} == {"no difference shown"}


@pytest.mark.parametrize("count", [1, 2])
def test_few_seeds_give_no_interval_and_no_claim(run, count):
    found = answered(two_methods(run, 0.2, seeds=SEEDS[:count]))
    assert found.verdicts[0].tone == "unknown" and "too little data" in found.verdicts[0].headline
    assert of(found, "mcc").outcome == "no interval"
    assert f"{count} seed{'s' if count > 1 else ''}: no interval" in of(found, "mcc").sentence
    assert all(math.isnan(c.difference.half) for c in found.all)


def test_curves_that_do_not_overlap_are_not_compared(run):
    found = answered(two_methods(run, 0.2, at=(128.0, 256.0)))
    assert found.verdicts[0].tone == "unknown"
    assert (
        "its L0 covers 128 to 256" in of(found, "mcc").sentence
        and "nothing is extrapolated" in of(found, "mcc").sentence
    )


def test_unequal_sparsities_are_interpolated(run):
    found = answered(two_methods(run, 0.2, at=(12.0, 80.0), noise=0.0))
    comparison = next(c for c in found.all if c.metric.metric == "mcc" and c.point.at == pytest.approx(32))
    assert comparison.value == pytest.approx(0.9) and comparison.difference.mean == pytest.approx(0.2)


def test_the_best_baseline_is_the_one_compared_with(run):
    weak = [run("relu-l0_32", s, {"l0": 32.0, "mcc": 0.3, "fvu": 0.5}, penalties={"l1": 0.1}) for s in SEEDS]
    assert of(answered([*two_methods(run, 0.2), *weak]), "mcc").comparisons[0].baseline == "topk"


def test_a_better_baseline_with_too_few_seeds_forbids_the_claim(run):
    strong = [run("relu-l0_32", 0, {"l0": 32.0, "mcc": 0.99}, penalties={"l1": 0.1})]
    comparison = next(
        c for c in answered([*two_methods(run, 0.2), *strong]).all
        if c.metric.metric == "mcc" and c.point.axis == "L0" and c.point.at == pytest.approx(32)
    )  # fmt: skip
    assert (comparison.baseline, comparison.outcome) == ("relu", "no interval")


@pytest.mark.parametrize(("count", "outcome"), [(1, "better"), (3, "no difference shown")])
def test_the_more_methods_are_tried_the_more_a_claim_needs(run, count, outcome):
    """Differences 0.02, 0.03, 0.04: t = 5.2, p = 0.035. That is below 0.05, but not below 0.05 / 3."""
    folders = [run("topk-l0_32", s, {"l0": 32.0, "mcc": 0.5}) for s in SEEDS]
    for i in range(count):
        for s, gain in zip(SEEDS, (0.02, 0.03, 0.04), strict=True):
            folders.append(run(f"hsic{i}-l0_32", s, {"l0": 32.0, "mcc": 0.5 + gain}, penalties={"hsic": 1.0}))
    found = answered(folders)
    assert all(abs(c.difference.mean) > c.difference.half for c in found.all)
    assert {c.outcome for c in found.all} == {outcome}
    assert all(("methods tried (Holm)" in c.note) == (count > 1) for c in found.all)


def test_fvu_is_matched_too(run):
    found = answered(two_methods(run, 0.2))
    assert [m.point.axis for m in found.matrices] == ["L0", "FVU"]


def test_bits_are_matched_only_when_there_are_such_scores(run):
    folders = [
        run(f"{name}-l0_32", s, {"l0": 32.0, "mcc": 0.5, "bits_per_token": 900.0}, penalties=penalties)
        for name, penalties in (("topk", {}), ("hsic", {"hsic": 1.0}))
        for s in SEEDS
    ]
    assert [m.point.axis for m in answered(folders).matrices] == ["L0", "bits"]


def test_without_baselines_there_is_no_answer(run):
    found = answered([run("hsic", s, {"l0": 32.0, "mcc": 0.7}, penalties={"hsic": 1.0}) for s in SEEDS])
    assert found.verdicts[0].tone == "unknown" and "no standard SAE" in found.verdicts[0].headline


def test_a_control_as_good_as_the_methods_is_pointed_out(run):
    control = [run("untrained-l0_32", s, {"l0": 32.0, "mcc": 0.95 + 0.01 * s}, control=True) for s in SEEDS]
    found = of(answered([*two_methods(run, 0.0), *control]), "mcc")
    assert found.control_warns and "untrained" in found.control and "is better than the best method" in found.control


def test_chance_levels_are_not_scores(full_study):
    scores = arrange(read_scores(full_study))
    mcc = scores.find(ScoreSelector("recovery", "mcc"))
    assert mcc is not None and (mcc.kind, mcc.params) == ("measured", "")
    assert scores.chance(mcc) == pytest.approx(0.3)


def test_a_win_that_chance_reaches_too_is_no_evidence(run):
    folders = two_methods(run, 0.2)
    for folder in folders:
        path = folder / "results" / "recovery.json"
        result = json.loads(path.read_text())
        chance = {"metric": "mcc", "value": 2.0, "better": "higher", "params": {"kind": "chance"}}
        path.write_text(json.dumps(result | {"scores": [*result["scores"], chance]}))
    found = answered(folders)
    mcc = of(found, "mcc")
    assert mcc.outcome == "better" and "Chance (2.00) is as good" in mcc.chance
    assert found.verdicts[0].tone != "yes"
    assert answered(two_methods(run, 0.2)).verdicts[0].tone == "yes"


def test_widths_are_compared_apart(run):
    folders = two_methods(run, 0.2) + [run("topk-l0_32", s, {"l0": 32.0, "mcc": 0.9}, d_sae=4096) for s in SEEDS]
    scores = arrange(read_scores(folders))
    assert scores.widths == [1024, 4096]
    assert answer(scores, 1024).verdicts[0].tone == "yes"
    assert "only standard SAEs" in answer(scores, 4096).verdicts[0].headline


def test_gaps_name_errors_nan_and_missing_evals(full_study):
    study = read_scores(full_study)
    scores = arrange(study)
    found = {(g.kind, g.what): g for g in limitations(study, scores, [answer(scores, 1024)])}
    assert "ran out of memory" in found["error", "recovery"].reason
    assert len(found["not applicable", "controllability"].runs) == 54
    assert len(found["NaN", "fidelity: max_decoder_cosine"].runs) == 1
    assert ("not tested", "matched bits") in found


def test_table_cells_are_never_empty_and_controls_stand_apart(full_study):
    study = read_scores(full_study)
    scores = arrange(study)
    rows, controls = table(scores, scores.headline, study.missing_results)
    assert all(cell.text for row in [*rows, *controls] for cell in row.cells)
    assert {r.method for r in controls} == {"untrained", "frozen-decoder", "pca"}
    damaged = next(r for r in rows if r.method == "relu" and r.requested == 16)
    assert any("ran out of memory" in cell.note and cell.short == "2 seeds; 1 error" for cell in damaged.cells)


def test_the_best_of_comparable_l0_is_marked_once_a_column(run):
    study = read_scores(two_methods(run, 0.2))
    scores = arrange(study)
    rows, _ = table(scores, scores.headline, study.missing_results)
    column = [q.metric for q in scores.headline].index("mcc")
    assert [r.method for r in rows if r.cells[column].best] == ["hsic"] * 3


@pytest.mark.parametrize(
    ("metric", "baseline", "winner", "says"),
    [
        ("alive", 1.0, 0.9, "latents were deleted: living share 0.900, topk 1.00"),
        ("l2_ratio", 0.95, 0.8, "reconstructions shrank"),
        ("recall_by_frequency", 0.5, 0.4, "rare factors were given up: recall of the rarest 0.400, topk 0.500"),
    ],
)
def test_a_win_by_deleting_or_shrinking_is_void_and_says_by_what(run, metric, baseline, winner, says):
    def study(value: float):
        folders = two_methods(run, 0.2)
        for folder in folders:
            path = folder / "results" / "fidelity.json"
            result = json.loads(path.read_text())
            own = value if folder.name.startswith("hsic") else baseline
            bands = {"1e-1 to 1e0": 0.9, "1e-3 to 1e-2": own} if metric == "recall_by_frequency" else {"": own}
            guards = [
                {"metric": metric, "value": v, "better": "neither", "params": {"band": b} if b else {}}
                for b, v in bands.items()
            ]
            path.write_text(json.dumps(result | {"scores": [*result["scores"], *guards]}))
        return answered(folders)

    void = study(winner)
    assert of(void, "mcc").outcome == "void" and says in of(void, "mcc").sentence
    assert void.verdicts[0].tone != "yes" and any("void on mcc" in line for line in void.verdicts[0].profiles)
    assert (
        void.verdicts[0].headline.startswith("No win that counts")
        and "Wins of hsic are void" in void.verdicts[0].headline
    )
    assert study(baseline).verdicts[0].tone == "yes"


def test_adding_up_by_doing_nothing_is_void_and_the_table_shows_both_side_by_side(run):
    def study(effect: float):
        folders = two_methods(run, 0.2)
        for folder in folders:
            own = folder.name.startswith("hsic")
            seed = int(folder.name.split("-s")[1][0]) * 1e-3
            added = [
                {"metric": "additive_r2", "value": (0.99 if own else 0.6) + seed, "better": "higher", "params": {}},
                {"metric": "effect", "value": effect if own else 3.0, "better": "higher", "params": {}},
            ]
            store(folder, "controllability", {"definitions": {}, "scores": added})
        return folders

    hollow = study(2.0)
    names = [q.metric for q in arrange(read_scores(hollow)).headline]
    assert names[names.index("additive_r2") + 1] == "effect"
    said = of(answered(hollow), "additive_r2")
    assert said.outcome == "void" and "effects shrank" in said.sentence
    assert of(answered(study(2.9)), "additive_r2").outcome == "better"


def test_a_baseline_that_overshoots_asks_for_no_overshoot(run):
    folders = two_methods(run, 0.2)
    for folder in folders:
        path = folder / "results" / "fidelity.json"
        result = json.loads(path.read_text())
        own = 1.0 if folder.name.startswith("hsic") else 1.2
        guard = {"metric": "l2_ratio", "value": own, "better": "neither", "params": {}}
        path.write_text(json.dumps(result | {"scores": [*result["scores"], guard]}))
    assert answered(folders).verdicts[0].tone == "yes"


def test_guards_that_were_not_measured_are_listed(run):
    study = read_scores(two_methods(run, 0.2))
    scores = arrange(study)
    (limitation,) = [g for g in limitations(study, scores, [answer(scores, 1024)]) if "guards" in g.what]
    assert "alive" in limitation.what and "recall_by_frequency" in limitation.what


def test_less_absorption_without_more_parents_is_void(run):
    def study(recall: float):
        folders = two_methods(run, 0.0)
        for folder in folders:
            own, seed = folder.name.startswith("hsic"), int(folder.name.rpartition("-s")[2][0])
            values = {
                "absorption_full": (0.05 if own else 0.3) + 0.005 * seed,
                "parent_recall_given_child": recall if own else 0.6,
            }
            scores = [
                {"metric": m, "value": v, "better": "lower" if "absorption" in m else "higher", "params": {}}
                for m, v in values.items()
            ]
            (folder / "results" / "absorption.json").write_text(
                json.dumps({"eval": "absorption", "version": 1, "scores": scores})
            )
        return of(answered(folders), "absorption_full")

    assert study(0.6).outcome == "void" and "no parent is found more often" in study(0.6).sentence
    assert study(0.8).outcome == "better"
