import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.small import experiment
from unbraid.config import fingerprint, from_json, permission, resolve, to_json
from unbraid.experiments.world import world
from unbraid.run import Run
from unbraid.terms.l1 import L1


def test_an_experiment_survives_the_round_trip_through_json():
    original = experiment(sparsity=L1(weight=0.3))
    assert from_json(json.loads(json.dumps(to_json(original)))) == original


def test_the_fingerprint_is_stable_and_moves_with_any_field():
    base = experiment()
    assert fingerprint(base) == fingerprint(experiment())
    assert fingerprint(base) != fingerprint(replace(base, seed=1))
    assert fingerprint(base) != fingerprint(replace(base, training=replace(base.training, lr=2e-3)))
    assert len(fingerprint(base)) == 12


def test_only_named_packages_are_imported():
    with pytest.raises(ValueError, match="outside.*--package os"):
        resolve("os:system")
    with pytest.raises(ValueError, match="not a dataclass"):
        resolve("unbraid.config:fingerprint")


def test_a_field_of_another_version_is_named():
    data = to_json(L1()) | {"strength": 2.0}
    with pytest.raises(ValueError, match="unknown fields \\['strength'\\].*provenance.json"):
        from_json(data)


def test_a_missing_required_field_is_named():
    data = to_json(experiment())
    del data["objective"]
    with pytest.raises(ValueError, match="missing \\['objective'\\]"):
        from_json(data)


def test_what_is_not_configuration_is_refused():
    @dataclass
    class Holder:
        thing: object

    with pytest.raises(TypeError, match="not configuration"):
        to_json(Holder(object()))


@dataclass(frozen=True)
class Guarded:
    old: int = 1
    allowed: bool = permission()


def test_a_permission_is_given_by_who_reads_and_by_no_file():
    assert to_json(Guarded(allowed=True)) == to_json(Guarded()) and Guarded(allowed=True) == Guarded()
    data = to_json(Guarded())
    assert not from_json(data, packages=("tests",)).allowed
    assert from_json(data, packages=("tests",), permissions=("allowed",)).allowed
    with pytest.raises(ValueError, match="allowed of .*Guarded is no setting that a file can give.*--allowed"):
        from_json(data | {"allowed": True}, packages=("tests",))


def test_the_fingerprint_of_an_experiment_trained_before_is_what_it_was():
    """Computed before settings checked themselves: folders written then must stay valid."""
    assert fingerprint(world()) == "fcdc29721e7b"


OTHER_SHAPES: dict[str, tuple[Any, str]] = {
    "a type that is no text": ({"type": 5}, "a type is 5; expected a class"),
    "a type that is a list": ({"type": ["unbraid.terms.l1:L1"]}, "expected a class, as package.module:Class"),
    "a type without a class": ({"type": "unbraid.terms.l1"}, "expected a class"),
    "a type that is no name": ({"type": "unbraid..terms:L1"}, "expected a class"),
    "an unknown class": ({"type": "unbraid.terms.l1:L7"}, "cannot import unbraid.terms.l1:L7"),
    "an unknown module": ({"type": "unbraid.terms.l7:L1"}, "cannot import"),
    "a class of others": ({"type": "unbraid.run:Path"}, "not a dataclass"),
    "an abstract class": ({"type": "unbraid.objective:Term"}, "cannot be made of"),
    "text for a number": ({"type": "unbraid.terms.l1:L1", "weight": "1"}, "weight"),
    "a list for a number": ({"type": "unbraid.terms.l1:L1", "weight": [1]}, "weight"),
    "an object for a number": ({"type": "unbraid.terms.l1:L1", "weight": {}}, "weight"),
    "null for a number": ({"type": "unbraid.terms.l1:L1", "weight": None}, "weight"),
    "beyond its bounds": ({"type": "unbraid.terms.l1:L1", "weight": -1.0}, "L1.weight is -1.0; it must be at least 0"),
    "nan": ({"type": "unbraid.terms.l1:L1", "weight": float("nan")}, "L1.weight is nan; it must be a finite number"),
    "a class that checks nothing": ({"type": "unbraid.run:Run", "path": 3, "pckages": 1}, "unknown fields"),
}


@pytest.mark.parametrize(("data", "said"), OTHER_SHAPES.values(), ids=OTHER_SHAPES)
def test_fault_23_json_of_another_shape_is_one_sentence(data: Any, said: str):
    with pytest.raises(ValueError, match=said):
        from_json(data)


CHANGES: dict[str, tuple[list[str], Any]] = {
    "a list for an object": (["objective"], [1]),
    "text for an object": (["source"], "world"),
    "another kind of class": (["source"], to_json(L1())),
    "a batch size below 0": (["training", "batch_size"], -5),
    "tokens below 0": (["training", "tokens"], -1),
    "k that is no whole number": (["dictionary", "activation", "k"], 2.5),
    "a penalty that is a number": (["objective", "penalties", "aux_k"], 3),
    "a type that is no text": (["dictionary", "type"], None),
    "a seed that is text": (["seed"], "0"),
}


@pytest.mark.parametrize(("path", "value"), CHANGES.values(), ids=CHANGES)
def test_fault_04_an_experiment_on_disk_that_cannot_be_is_refused_with_its_file(
    path: list[str], value: Any, tmp_path: Path
):
    data = to_json(experiment())
    node = data
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = value
    (tmp_path / "experiment.json").write_text(json.dumps(data))
    (tmp_path / "provenance.json").write_text("{}")
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'experiment.json'}: ")):
        Run.open(tmp_path)
