"""Factorial studies: as many experiments as the axes say, equal budgets, contrasts in the term alone, one testbed."""

import json
from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

import unbraid as ub
from tests.small import WORLD, experiment
from unbraid.cli.main import main
from unbraid.comparison.stored_scores import read_scores
from unbraid.config.serialise import from_json, to_json
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.from_truth import TrueDirections
from unbraid.dictionary.initialisation import PrincipalComponents
from unbraid.evals.agreement import peers
from unbraid.experiment.experiment import Experiment, Training
from unbraid.experiment.factorial import Factorial
from unbraid.experiment.study import Member
from unbraid.experiment.tuning import Tuning
from unbraid.objective.objective import Objective, TargetL0
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.synth import Synth
from unbraid.studies import factorials
from unbraid.terms.dead_latents.aux_k import AuxK
from unbraid.terms.geometry.orthogonality import Orthogonality
from unbraid.terms.independence.total_correlation import TotalCorrelation
from unbraid.terms.reconstruction.nested_reconstruction import NestedReconstruction
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.terms.sparsity.l1 import L1

PLAIN = Objective(reconstruction=Reconstruction(), penalties={"aux_k": AuxK()})
TOP = Member(objective=PLAIN, activation=BatchTopK(4))
NESTED = replace(TOP, objective=replace(PLAIN, reconstruction=NestedReconstruction()))
PENALISED = Objective(reconstruction=Reconstruction(), penalties={"sparsity": L1(weight=0.2)})
RELU = Member(objective=PENALISED, activation=ReLU())
TERMS = {"tc": {"tc": TotalCorrelation()}, "two": {"o": Orthogonality(), "tc": TotalCorrelation()}}
STUDY = Factorial(
    source=WORLD,
    d_sae=64,
    training=Training(tokens=1600, batch_size=160, dead_after=1600),
    bases={"top": TOP, "nested": NESTED},
    terms=TERMS,
    sparsities=(2, 4),
    tuning_sparsities=(4,),
    widths=(32, 64),
    seeds=(0, 1, 2),
    calibration_seeds=(8, 9),
    controls={
        "untrained": replace(TOP, trained=False, control=True),
        "truth": Member(objective=PLAIN, activation=JumpReLU(), init=TrueDirections(), trained=False, control=True),
        "pca": replace(TOP, init=PrincipalComponents(), trained=False, control=True),
    },
)


@cache
def the_test() -> list[Experiment]:
    """The study's test, made once."""
    return STUDY.test()


@cache
def the_calibration() -> list[Experiment]:
    """Its calibration, made once."""
    return STUDY.calibration()


def of(found: list[Experiment], **fields: Any) -> list[Experiment]:
    return [one for one in found if all(getattr(one, name) == value for name, value in fields.items())]


def test_a_test_is_every_method_once_at_every_sparsity_width_and_seed():
    made = the_test()
    methods = [one for one in made if not one.control]
    cells = Counter((one.base, one.term, one.requested_l0, one.dictionary.d_sae, one.seed) for one in methods)
    assert len(cells) == 2 * 3 * 2 * 2 * 3 and set(cells.values()) == {1}
    assert {one.name for one in methods} == {
        "top", "nested", "top-tc-0.3", "top-two-0.3", "nested-tc-0.3", "nested-two-0.3"
    }  # fmt: skip
    assert len({one.folder for one in made}) == len(made)


def test_controls_are_there_once_where_no_sparsity_or_width_changes_them():
    made = the_test()
    assert len(of(made, name="untrained")) == 2 * 2 * 3
    assert len(of(made, name="truth")) == 3, "made from the truth, it has neither an L0 nor a width of its own"
    assert [one.dictionary.d_sae for one in of(made, name="pca", seed=0)] == [32, 32], "two directions a dimension"


def test_every_method_is_tried_at_as_many_settings():
    made = the_calibration()
    methods = [one for one in made if not one.control]
    tried = Counter((one.base, one.term, one.seed) for one in methods)
    assert set(tried.values()) == {5} and len(tried) == 6 * 2
    assert {one.seed for one in made} == {8, 9} and {one.requested_l0 for one in methods} == {4.0}
    assert {one.dictionary.d_sae for one in methods} == {64}
    rates = [one.training.lr / STUDY.training.lr for one in of(made, base="top", term=None, seed=8)]
    assert rates == pytest.approx([0.3, 0.5, 1, 2, 3])
    assert [one.strength for one in of(made, base="top", term="tc", seed=8)] == [0.03, 0.1, 0.3, 1.0, 3.0]
    assert Counter(map(len, STUDY.tunings().values())) == {5: 6}


def test_base_and_base_with_a_term_differ_in_the_term_alone():
    faster = Tuning(field="training.lr", factor=2.0)
    chosen = {**STUDY.default_tunings(), "top": faster, "top-two": Tuning(strength=3.0)}
    test = STUDY.test(chosen)
    made = of(test, base="top", seed=1)
    base, added = (to_json(of(made, term=term)[0]) for term in (None, "two"))
    assert base["name"] == "top-lr_x2" and added["name"] == "top-lr_x2-two-3"
    assert base["training"]["lr"] == 2 * STUDY.training.lr
    ratios = [added["objective"]["penalties"].pop(name)["gradient_ratio"] for name in ("o", "tc")]
    assert ratios == [3.0, 3.0] and (added.pop("term"), added.pop("strength")) == ("two", 3.0)
    assert {**added, "name": ""} == {**base, "name": ""}
    nested = of(test, base="nested", term="two")[0]
    assert nested.training.lr == STUDY.training.lr, "each base has a setting of its own"


def test_equal_experiments_of_calibration_and_test_have_one_name():
    by_content = lambda made: {
        json.dumps({**to_json(one), "name": "", "seed": 0, "source": 0}, sort_keys=True): one.name for one in made
    }
    calibration, test = by_content(the_calibration()), by_content(the_test())
    both = set(calibration) & set(test)
    assert len(both) >= 6, "bases as they are and terms at the middle strength are in both"
    assert all(calibration[one] == test[one] for one in both)
    names = [one.name for one in the_calibration() if one.seed == 8]
    assert len(set(names)) == len(names)


def test_terms_are_calibrated_on_their_base_as_it_was_chosen():
    made = STUDY.calibration({"top": Tuning(field="training.lr", factor=0.5)})
    assert {one.training.lr for one in of(made, base="top", term="tc")} == {0.5 * STUDY.training.lr}
    assert {one.training.lr for one in of(made, base="nested", term="tc")} == {STUDY.training.lr}
    assert {one.name for one in of(made, base="top", term="tc", strength=1.0)} == {"top-lr_x0.5-tc-1"}
    trials = STUDY.trials({"top": Tuning(field="training.lr", factor=0.5)})
    assert trials["top-lr_x0.5-tc-1"] == ("top-tc", Tuning(strength=1.0)) and trials["top"][0] == "top"
    assert set(trials) == {one.name for one in made if not one.control}


def test_whitened_activations_are_an_axis_that_runs_state():
    made = replace(STUDY, geometries=("raw", "whitened")).test()
    geometries = {(one.name, one.training.normalise, one.summary.geometry) for one in of(made, base="top")}
    assert geometries == {
        ("top", "centre-scale", "raw"), ("top-whitened", "whiten", "whitened"),
        ("top-tc-0.3", "centre-scale", "raw"), ("top-whitened-tc-0.3", "whiten", "whitened"),
        ("top-two-0.3", "centre-scale", "raw"), ("top-whitened-two-0.3", "whiten", "whitened"),
    }  # fmt: skip
    controls = {one.name for one in made if one.control}
    assert controls == {"untrained", "untrained-whitened", "pca", "pca-whitened", "truth"}
    white = replace(STUDY.training, normalise="whiten", whiten_power=0.5)
    half = replace(STUDY, training=white, geometries=("whitened",)).test()
    assert {one.training.whiten_power for one in half} == {0.5}
    with pytest.raises(ValueError, match="nothing is raw; leave it out, or name 'whitened' alone"):
        replace(STUDY, training=white, geometries=("raw", "whitened"))


def test_settings_are_stored_and_whole_numbers_stay_whole():
    chosen = STUDY.default_tunings()
    assert from_json(json.loads(json.dumps(to_json(chosen)))) == chosen
    assert from_json(json.loads(json.dumps(to_json(STUDY)))).test() == the_test()
    five = (0.3, 0.5, 1.0, 2.0, 3.0)
    later = replace(STUDY, base_settings={"training.dead_after": five})
    made = later.test({**STUDY.default_tunings(), "top": Tuning(field="training.dead_after", factor=0.3)})
    assert of(made, base="top")[0].training.dead_after == 480


def test_the_weight_of_sparsity_falls_to_zero_as_an_axis():
    study = replace(
        STUDY, bases={"relu": RELU}, sparsities=(), tuning_sparsities=(), widths=(), sparsity_weights=(0.0, 0.1, 1.0)
    )
    made = [one for one in study.test() if not one.control]
    weights = {one.base: one.objective.penalties.get("sparsity") for one in of(made, term=None)}
    assert {name: term and term.weight for name, term in weights.items()} == {
        "relu-sparsity_0": None, "relu-sparsity_0.1": pytest.approx(0.02), "relu-sparsity_1": 0.2
    }  # fmt: skip
    assert of(made, term="tc", seed=0)[0].label == "relu-sparsity_0-tc-0.3"
    assert {one.requested_l0 for one in made} == {None} and len(made) == 3 * 3 * 3


# ---- the source ---------------------------------------------------------------------------------------------


def test_a_seed_draws_the_world_where_there_is_one_to_draw():
    made = the_test()
    assert {(one.seed, one.source.drawn_by, one.draws_source) for one in made} == {(k, k, True) for k in (0, 1, 2)}
    fixed = replace(STUDY, draw_source=False).test()
    assert all(one.source == WORLD and not one.draws_source for one in fixed)
    saved = Synth(model="saved")
    assert saved.drawn(3) is saved and Synth().drawn(3) == Synth(seed=3)


def test_an_experiment_says_truly_what_drew_its_source():
    with pytest.raises(ValueError, match="seed 1 drew the source, and seed 0 did; give the source that seed"):
        replace(experiment(), seed=1, draws_source=True)
    drawn = replace(experiment(), seed=0, draws_source=True)
    assert drawn.folder != experiment().folder and from_json(to_json(drawn)) == drawn


def test_worlds_that_seeds_drew_are_one_testbed_and_others_are_not(tmp_path):
    few = {"sparsities": (4,), "widths": (), "seeds": (0, 1), "controls": {}}
    tiny = replace(STUDY, **few, bases={"top": TOP}, terms={"tc": TERMS["tc"]})
    drawn = ub.train(tiny, tmp_path)
    alone = replace(tiny.test()[0], draws_source=False)
    other = replace(alone, source=replace(WORLD, seed=5), seed=5)
    runs = [*drawn, *ub.train([alone, other], tmp_path)]
    ub.evaluate([run.path for run in runs], ["fidelity"])
    stored = read_scores([run.path for run in runs])
    (testbed,) = {run.source for run in stored.runs if run.experiment.get("draws_source")}
    assert "seed=drawn" in testbed and sorted(Counter(run.source for run in stored.runs).values()) == [1, 1, 4]
    rows = stored.of(testbed).rows
    fvu = rows[rows.metric == "fvu"]
    assert sorted(zip(fvu.seed, fvu.term.fillna(""), fvu.strength.fillna(0.0), strict=True)) == [
        (0, "", 0.0), (0, "tc", 0.3), (1, "", 0.0), (1, "tc", 0.3),
    ]  # fmt: skip
    assert set(rows.geometry) == {"raw"} and set(stored.rows.source) == {run.source for run in stored.runs}
    assert peers(drawn[0]) == [], "seeds on other worlds have nothing to agree on"
    ub.write_report([run.path for run in drawn], tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text().count('class="source-title"') <= 1


# ---- misuse -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"terms": {"top": TERMS["tc"]}}, "'top' names a base and a term"),
        ({"strengths": ()}, "strengths .*at least 1 long"),
        ({"strengths": (0.1, 0.3)}, "each base is tried at 5 settings and each term at 2 strengths"),
        ({"calibration_seeds": (7, 2, 1)}, "1, 2 are among seeds and calibration_seeds"),
        ({"tuning_sparsities": (3,)}, r"tuning_sparsities \[3\] are not among sparsities"),
        ({"sparsities": (), "tuning_sparsities": ()}, "neither is given"),
        ({"sparsity_weights": (0.1,)}, "both are given"),
        ({"bases": {"relu": RELU}}, "no number of active latents can be requested of base 'relu'"),
        ({"bases": {"top": replace(TOP, d_sae=3)}}, "base 'top' has a d_sae of its own"),
        ({"terms": {"x": {"aux_k": L1()}}}, "term 'x' and base 'top' both have a penalty called 'aux_k'"),
        ({"terms": {"x": {}}}, "term 'x' adds nothing"),
        (
            {"bases": {"a": TOP, "a-tc": TOP}, "terms": {"tc": TERMS["tc"], "b": TERMS["two"]}},
            "two methods .* one name",
        ),
        ({"bases": {"a": TOP, "a-lr_x2": TOP}}, "'a-lr_x2' and 'a' would both be called 'a-lr_x2'"),
        ({"controls": {"top-tc": TOP}}, "'top-tc' names a control and a method"),
        ({"seeds": (1, 1)}, "seeds .* repeat one"),
        ({"widths": (8, 8)}, "widths .* repeat one"),
    ],
)
def test_a_study_that_cannot_be_is_refused(changes: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        replace(STUDY, **changes)


def test_sparsity_weights_need_a_weight_that_nothing_else_moves():
    axis = {"sparsities": (), "tuning_sparsities": (), "sparsity_weights": (0.0, 1.0)}
    moved = replace(RELU, objective=replace(PENALISED, target_l0=TargetL0(l0=4.0)))
    for base in (TOP, moved):
        with pytest.raises(ValueError, match="give it that penalty and neither"):
            replace(STUDY, bases={"b": base}, **axis)
    close = {**axis, "sparsity_weights": (0.1, 0.1 + 1e-9)}
    with pytest.raises(ValueError, match="sparsity_weights that differ in the seventh digit"):
        replace(STUDY, bases={"relu": RELU}, **close)
    near = {**axis, "sparsity_weights": (0.1234, 0.12341)}
    assert len(replace(STUDY, bases={"relu": RELU}, **near).all_bases) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"top-tv": Tuning(strength=0.3)}, "chosen for 'top-tv', and no method is called that; did you mean 'top-tc'"),
        ({"top-tc": None}, "no setting is chosen for top-tc"),
        ({"top-tc": Tuning(strength=0.2)}, "chosen for 'top-tc' is 'strength 0.2', and none that was tried: strength"),
        ({"top": Tuning(strength=0.3)}, "chosen for 'top' is 'strength 0.3', and none that was tried: field training"),
        ({"top-tc": Tuning()}, "chosen for 'top-tc' is 'as it is', and none that was tried"),
    ],
)
def test_a_choice_must_fit_the_study(change: dict[str, Tuning | None], said: str):
    chosen = {name: one for name, one in {**STUDY.default_tunings(), **change}.items() if one is not None}
    with pytest.raises(ValueError, match=said):
        STUDY.test(chosen)


def test_a_field_that_is_not_there_or_no_number_is_refused():
    five = (0.3, 0.5, 1.0, 2.0, 3.0)
    with pytest.raises(ValueError, match="no field 'lrr' here; did you mean 'lr'"):
        replace(STUDY, base_settings={"training.lrr": five}).calibration()
    with pytest.raises(ValueError, match="training.normalise of top.* a factor needs a number"):
        replace(STUDY, base_settings={"training.normalise": five}).calibration()
    with pytest.raises(ValueError, match="give a strength, or a field and a factor, or nothing"):
        Tuning(strength=1.0, field="x", factor=2.0)


# ---- the studies, and the command line ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    ["forest", "twin", "realistic_forest", "small_world", "synth_bases", "width", "without_sparsity", "language"],
)
def test_the_studies_can_be_made(make: str):
    study = getattr(factorials, make)()
    assert isinstance(study, Factorial) and len(study.seeds) >= 8
    axes = {"seeds": (0,), "sparsities": study.sparsities[:1], "tuning_sparsities": (), "widths": study.widths[:1]}
    if isinstance(study.source, LanguageModel):  # its probes need a latent a factor, so its text is told
        axes["source"] = replace(study.source, text="language://300")
    small = replace(study, **axes, strengths=(0.3,), base_settings={"training.lr": (2.0,)}, calibration_seeds=(1000,))
    made = small.test() + small.calibration()
    assert len({one.folder for one in made}) == len(made)


def test_the_command_line_trains_the_test_or_the_calibration(tmp_path, capsys):
    quick = ["small_world", "--out", str(tmp_path), "--training.tokens", "1024"]
    assert main(["train", *quick, "--seeds", "0", "--only", "batchtopk-l0*"]) == 0
    tuned = ["--calibrate", "--calibration-seeds", "99", "--only", "batchtopk-lr_x2*", "--evals", "fidelity"]
    assert main(["study", *quick, *tuned]) == 0
    names = sorted(path.name.rpartition("-")[0] for path in tmp_path.iterdir() if path.is_dir())
    assert names == ["batchtopk-l0_5-s0", "batchtopk-lr_x2-l0_5-s99"]
    capsys.readouterr()
    assert main(["study", "demo_world", "--calibrate", "--out", str(tmp_path)]) == 2
    assert "--calibrate is for factorial studies, and demo_world is none" in capsys.readouterr().err
    assert main(["study", "demo_world", "--card", "card.toml", "--out", str(tmp_path)]) == 2
    assert "--card is for factorial studies, and demo_world is none" in capsys.readouterr().err
    assert main(["plan", "small_world", "--only", "nothing*"]) == 2
    assert "matches no member; there are: batchtopk-l0_5" in capsys.readouterr().err
