"""Committed rows judged: made-up rows in which what holds is known, and tables of them."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from benchmarks import judge
from benchmarks.judge import cell, chosen, contrast_table, contrasts, gate_table

from tests.small import WORLD
from unbraid.comparison.committed import SCORES, quantity_of, scores_of_rows
from unbraid.comparison.gate import gate
from unbraid.comparison.quantities import PRIMARIES
from unbraid.comparison.verdict import answer
from unbraid.sources.cached import write_cache

LEVELS = {"f1": 0.5, "absorption": 0.3, "fvu": 0.1, "l2_ratio": 1.0, "recall_rarest": 0.5, "recall_child": 0.6}
PLANTED = {
    "batchtopk": {},
    "topk": {"f1": -0.1},
    "matryoshka": {"f1": -0.06, "absorption": -0.12, "recall_child": 0.1, "fvu": 0.03},
    "hsic": {"f1": 0.1},
    "support": {},
    "gate-kl": {"f1": 0.1, "recall_rarest": -0.3},
    "untrained": {"f1": -0.4, "absorption": 0.5, "fvu": 0.8, "recall_rarest": -0.4},
    "truth": {"f1": 0.5, "absorption": -0.29},
}
CONTROLS = ("untrained", "truth")
D_SAE = 384


def rows(planted: dict[str, dict[str, float]] = PLANTED, seeds: int = 8) -> list[dict[str, Any]]:
    """Every method as BatchTopK but for planted shifts; half of the noise is shared by the runs of a seed."""
    found = []
    for method, shifts in planted.items():
        for asked in (2.0, 4.0, 8.0):
            for seed in range(seeds):
                noise = lambda score, key: 0.005 * random.Random(f"{score}{key}").gauss(0, 1)
                values = {
                    s: v + shifts.get(s, 0.0) + noise(s, seed) + noise(s, f"{method}{asked}{seed}")
                    for s, v in LEVELS.items()
                }
                about = {"world": "forest", "method": method, "asked": asked, "d_sae": D_SAE, "seed": seed, "l0": asked}
                found.append(about | {"control": method in CONTROLS} | values)
    return found


def test_rows_become_methods_with_roles_bases_and_claims():
    scores = scores_of_rows(rows(PLANTED | {"effect": {}}))
    roles = {m.name: m.role for m in scores.methods}
    assert roles["batchtopk"] == roles["matryoshka"] == "standard" and roles["hsic"] == "compared"
    by_name = {m.name: m for m in scores.methods}
    assert by_name["untrained"].trivial and by_name["truth"].sees_truth and not by_name["truth"].trivial
    assert by_name["hsic"].base == "batchtopk" and (by_name["hsic"].claim, by_name["effect"].claim) == (1, 2)


def test_short_names_are_the_quantities_that_claims_are_decided_by():
    known = [quantity_of(short) for short in SCORES]
    for lines in PRIMARIES.values():
        assert all(any(selector.matches(q) for q in known for selector in line) for line in lines)


def test_a_missing_score_is_a_hole():
    some = rows()
    for row in some[:3]:
        row["f1"] = None
    scores = scores_of_rows(some)
    assert len(scores.values[quantity_of("f1")]) == len(some) - 3


def test_a_verdict_names_the_term_with_the_planted_gain_and_voids_the_one_that_gave_rare_factors_up():
    found = answer(scores_of_rows(rows()), D_SAE)
    said = {t.method.name: t for t in found.verdicts[0].terms}
    assert found.verdicts[0].tone == "yes"
    assert {name: t.outcome for name, t in said.items()} == {
        "hsic": "better", "support": "equivalent", "gate-kl": "undecided",
    }  # fmt: skip
    assert said["gate-kl"].primaries[0].word == "void" and said["hsic"].primaries[0].word == "materially better"


def test_another_base_can_be_named():
    found = answer(scores_of_rows(rows(), base="topk"), D_SAE)
    assert {t.base.name for t in found.verdicts[0].terms} == {"topk"}
    # Against TopK, which is worse, a term that does nothing to BatchTopK is a gain.
    assert {t.method.name: t.outcome for t in found.verdicts[0].terms}["support"] == "better"


def test_a_placebo_study_is_no_yes():
    found = answer(scores_of_rows(rows(PLANTED | {"hsic": {}, "gate-kl": {}})), D_SAE)
    assert found.verdicts[0].tone == "no"


def test_contrasts_of_named_methods_against_another():
    scores = scores_of_rows(rows())
    found = contrasts(scores, D_SAE, ["matryoshka"], "batchtopk")
    assert {(j.contrast.method, j.contrast.other) for j in found} == {("matryoshka", "batchtopk")}
    words = {j.metric.metric: j.word for j in found}
    assert words["absorption_full"] == "materially better" and words["f1"] == "materially worse"
    lines = contrast_table(found).splitlines()
    assert len(lines) == 2 + len(found) and all(line.count("|") == 10 for line in lines)


def test_the_gate_is_a_row_a_score_with_what_failed():
    same = PLANTED | {"untrained": {"absorption": 0.5, "fvu": 0.8}}
    text = gate_table(list(gate(scores_of_rows(rows(same)), D_SAE).values()))
    of = {line.split(" | ")[0].strip("| "): line for line in text.splitlines()}
    assert "not shown to be better than untrained" in of["f1"] and of["absorption_full"].endswith("| yes |")


def test_the_table_has_a_row_a_method_and_controls_in_italics():
    lines = judge.table(chosen(rows(), asked=4.0), ["f1", "absorption"]).splitlines()
    assert len(lines) == 2 + len(PLANTED) and lines[-1].startswith("| *untrained* |")


def test_a_leading_zero_is_dropped_and_no_other():
    assert cell([10.005, 20.5]).startswith("15.25") and cell([0.5]) == ".500" and cell([]) == ""


@pytest.mark.parametrize("command", ["gate", "contrasts", "verdict", "table"])
def test_commands_print_what_they_found(command: str, tmp_path: Path, monkeypatch, capsys):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows(seeds=3)))
    monkeypatch.setattr("sys.argv", ["judge", command, str(path), "--d-sae", str(D_SAE)])
    judge.main()
    said = capsys.readouterr().out
    assert "|---" in said and ("hsic" in said or command == "gate")


def test_a_testbed_has_the_name_of_its_model_or_world_and_a_cache_that_of_what_it_was_written_from(tmp_path: Path):
    write_cache(WORLD, tmp_path / "cache", seed=0, blocks=1)
    index = tmp_path / "cache" / "index.json"
    cached = {"type": "Cached", "folder": str(tmp_path / "cache")}
    known = {"type": "LanguageModel", "model": "smollm2"}, {"type": "World", "factors": 96, "independent": True}
    for node, name in ((known[0], "smollm2"), (known[1], "twin"), ({"type": "World", "factors": 96}, "forest")):
        index.write_text(json.dumps(json.loads(index.read_text()) | {"source": node}))
        assert judge.world_of(node) == judge.world_of(cached) == name


@pytest.mark.parametrize("node", [{"type": "World", "factors": 5}, {"type": "Cached", "folder": "gone"}])
def test_a_testbed_without_a_name_ends_in_one_sentence(node: dict):
    with pytest.raises(SystemExit, match="no name is known of the testbed .*; give one by --name"):
        judge.world_of(node)


def test_the_committed_study_is_undecided_on_both_claims():
    path = Path(__file__).parents[1] / "docs" / "results" / "comparison.json"
    scores = scores_of_rows(chosen(json.loads(path.read_text()), world="language", d_sae=512))
    found = answer(scores, 512)
    assert [v.tone for v in found.verdicts] == ["undecided", "undecided"], "as docs/results.md says"
    primaries = [j.metric.metric for v in found.verdicts for j in v.terms[0].primaries]
    assert primaries == ["f1", "interchange"]


def test_the_committed_registered_study_is_a_no_by_its_card():
    root = Path(__file__).parents[1] / "docs"
    scores = scores_of_rows(json.loads((root / "results" / "small-world.json").read_text()))
    (width,) = scores.widths
    said = judge.verdict_text(scores, width, root / "claims" / "small-world.toml")
    assert "No: each of 4 terms is equivalent to its base, or worse, by" in said and "(registered on 2026-" in said


def test_the_committed_study_of_vectors_is_a_yes_by_minimal_pairs_alone():
    root = Path(__file__).parents[1] / "docs"
    scores = scores_of_rows(json.loads((root / "results" / "vectors.json").read_text()))
    (width,) = scores.widths
    said = judge.verdict_text(scores, width, root / "claims" / "vectors.toml")
    assert "2 better (BatchTopK lr x2 invariance Ada 0.1 and BatchTopK whitened lr x3 invariance Ada 0.3); 9 eq" in said
    assert "Yes: " in said and "(registered on 2026-" in said


def test_spreads_are_of_the_differences_from_batchtopk_pooled_over_standard_saes():
    slopes = {"batchtopk": 0.1, "topk": 0.1, "matryoshka": 0.2}
    about = {"world": "forest", "asked": 4.0, "d_sae": D_SAE, "control": False, "l0": 4.0}
    made = [
        about | {"method": name, "seed": seed, "f1": slope * seed}
        for name, slope in slopes.items()
        for seed in range(3)
    ]
    found = judge.spreads(scores_of_rows(made))
    assert found[D_SAE, "recovery", "f1", ""] == pytest.approx(0.1 / 2**0.5)
    assert judge.spreads(scores_of_rows([row for row in made if row["method"] != "batchtopk"])) == {}


def test_the_committed_gate_has_the_spreads_of_its_rows():
    results = Path(__file__).parents[1] / "docs" / "results"
    found = judge.spreads(scores_of_rows(json.loads((results / "language.json").read_text())))
    gated = [row for row in json.loads((results / "gate.json").read_text()) if row["testbed"] == "language"]
    stored = {(row["d_sae"], row["eval"], row["metric"], row["params"]): row["spread"] for row in gated}
    both = [key for key in found if stored.get(key) is not None]
    assert len(both) >= 6
    for key in both:
        assert found[key] == pytest.approx(stored[key], rel=0.02)
