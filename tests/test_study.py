from dataclasses import asdict, replace
from typing import Any

import pytest

from tests.small import WORLD, experiment
from unbraid.config.serialise import from_json, to_json
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.initialisation import PrincipalComponents
from unbraid.experiment.experiment import Training
from unbraid.experiment.grid import cross
from unbraid.experiment.study import Member, Study, at_l0, cohorts, with_l0, with_terms
from unbraid.experiment.summary import stored
from unbraid.objective.objective import Objective, TargetL0
from unbraid.terms.dead_latents.aux_k import AuxK
from unbraid.terms.geometry.orthogonality import Orthogonality
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.terms.sparsity.l1 import L1


def test_axes_cross_and_name_what_they_change():
    crossed = cross(experiment(), {"training.lr": [1e-4, 3e-4], "seed": [0, 1, 2]})
    assert [(e.name, e.training.lr, e.seed) for e in crossed][:4] == [
        ("small-lr_0.0001", 1e-4, 0),
        ("small-lr_0.0001", 1e-4, 1),
        ("small-lr_0.0001", 1e-4, 2),
        ("small-lr_0.0003", 3e-4, 0),
    ]
    assert len({e.folder for e in crossed}) == 6


def test_sparsity_axes_tell_runs_of_one_method_apart():
    crossed = cross(experiment(), {"dictionary.activation.k": [2, 4]})
    assert [(e.name, e.label) for e in crossed] == [("small", "small-l0_2"), ("small", "small-l0_4")]
    assert [e.summary.l0 for e in crossed] == [2.0, 4.0] and {e.summary.method for e in crossed} == {"small"}


def test_a_penalty_is_reached_by_its_name():
    base = experiment(sparsity=L1())
    (crossed,) = cross(base, {"objective.penalties.sparsity.weight": [0.5]})
    assert crossed.objective.penalties["sparsity"].weight == 0.5
    assert base.objective.penalties["sparsity"].weight == 1.0


@pytest.mark.parametrize(
    ("path", "message"),
    [("training.lrr", "did you mean 'lr'"), ("objective.penalties.spars.weight", "did you mean|there are")],
)
def test_a_misspelt_axis_fails(path, message):
    with pytest.raises(ValueError, match=message):
        cross(experiment(), {path: [1.0]})


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"seed": []}, "seed is crossed with .*one value or more"),
        ({"seed": "01"}, "one value or more"),
        ({"seed": [0, 1, 0]}, "one repeats"),
        ({"sead": [0]}, "no field 'sead' here; did you mean 'seed'"),
        ({"training.lr": [1e-3, -1.0]}, "Training.lr is -1.0; it must be above 0"),
        ({"dictionary.d_sae": [2]}, "k = 3 latents cannot be active out of d_sae = 2"),
    ],
)
def test_fault_23_axes_that_cannot_be_crossed_are_refused(axes: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        cross(experiment(), axes)


def test_values_that_are_possible_together_need_not_be_one_after_another():
    (narrow,) = cross(experiment(), {"dictionary.d_sae": [2], "dictionary.activation.k": [1]})
    assert narrow.dictionary.d_sae == 2 and narrow.dictionary.activation == BatchTopK(1)


def test_large_numbers_name_a_folder():
    (long,) = cross(experiment(), {"training.tokens": [1_000_000]})
    assert long.name == "small-tokens_1e06"


def test_experiments_that_share_a_stream_are_trained_together():
    crossed = cross(experiment(), {"training.batch_size": [80, 160], "seed": [0, 1]})
    assert [[e.training.batch_size for e in group] for group in cohorts(crossed)] == [[80, 80], [160, 160]]


def test_a_study_is_methods_times_seeds_on_one_stream():
    plain = Objective(reconstruction=Reconstruction())
    study = Study(
        source=WORLD,
        d_sae=64,
        seeds=(0, 5),
        members={
            **at_l0(3, {"a": Member(objective=plain, activation=BatchTopK(3))}),
            "pca": Member(objective=plain, init=PrincipalComponents(), trained=False, control=True),
        },
    )
    made = study.experiments()
    assert list(study.members) == ["a-l0_3", "pca"], "keys tell members apart, also on the command line"
    assert [(e.name, e.label, e.seed, e.control) for e in made] == [
        ("a", "a-l0_3", 0, False), ("a", "a-l0_3", 5, False),
        ("pca", "pca-l0_32", 0, True), ("pca", "pca-l0_32", 5, True),
    ]  # fmt: skip
    assert made[2].dictionary.d_sae == 32, "PCA has two signed directions a dimension"
    assert made[2].training.tokens == 0
    assert [{e.seed for e in group} for group in cohorts(made)] == [{0}, {5}], "a stream for each seed"
    one = replace(study, training=replace(study.training, data_seed=0))
    assert len(cohorts(one.experiments())) == 1


def test_the_seed_moves_the_order_of_the_data_unless_that_has_its_own():
    base = replace(experiment(), seed=4, training=Training())
    assert base.data_seed == 4 and replace(base, training=Training(data_seed=0)).data_seed == 0


def test_a_sparsity_that_contradicts_what_is_trained_is_refused():
    assert replace(experiment(activation=ReLU()), l0=5.0).label == "small-l0_5"
    with pytest.raises(ValueError, match="l0 is 5, but the activation's k .* asks for 4; leave l0 out"):
        replace(experiment(activation=TopK(4)), l0=5.0)


def test_target_l0_fields_can_be_crossed():
    base = experiment(sparsity=L1(), activation=ReLU())
    controlled = Objective(reconstruction=Reconstruction(), penalties={"sparsity": L1()}, target_l0=TargetL0(l0=4.0))
    crossed = cross(replace(base, objective=controlled), {"objective.target_l0.l0": [2.0, 8.0]})
    assert [e.label for e in crossed] == ["small-l0_2", "small-l0_8"]


BASE = Member(
    objective=Objective(reconstruction=Reconstruction(), penalties={"aux_k": AuxK()}), activation=TopK(4), base="topk"
)


def test_a_member_is_asked_for_another_sparsity_where_it_says_it():
    assert with_l0(BASE, 7).activation == TopK(7)
    plain = replace(BASE, activation=ReLU())
    assert with_l0(plain, 7).l0 == 7.0
    penalties, target = {"sparsity": L1()}, TargetL0(l0=4.0, penalty="sparsity")
    controlled = Objective(reconstruction=Reconstruction(), penalties=penalties, target_l0=target)
    found = with_l0(replace(plain, objective=controlled), 7)
    assert found.objective.target_l0 == TargetL0(l0=7.0, penalty="sparsity") and found.l0 is None


def test_terms_of_the_decoder_alone_act_from_the_first_step():
    assert with_terms(BASE, "o", {"o": Orthogonality()}).objective.ramp == 0.0
    assert with_terms(BASE, "l1", {"l1": L1()}).objective.ramp == BASE.objective.ramp > 0


@pytest.mark.parametrize(
    ("design", "said"),
    [({"term": "l1"}, "base does not say"), ({"base": "topk", "strength": 0.1}, "term does not say")],
)
def test_half_a_design_is_refused(design: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        replace(experiment(), **design)


def test_a_design_that_is_not_stated_leaves_fingerprints_as_they_were():
    written = to_json(experiment())
    assert not {"base", "term", "strength", "draws_source"} & set(written)
    stated = replace(experiment(), base="small")
    assert from_json(to_json(stated)) == stated and stated.folder != experiment().folder


def test_a_summary_from_before_designs_is_read():
    found = asdict(experiment().summary)
    old = {name: found[name] for name in ("method", "l0", "standard", "claim", "trivial")}
    assert stored(old).base is None and stored(found) == experiment().summary
    assert stored(old).geometry == "raw"
    with pytest.raises(ValueError, match="base"):
        stored({**found, "base": 3})
