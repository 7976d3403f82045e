import json
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.small import experiment
from unbraid.config.serialise import check_stored, fingerprint, from_json, packages_of, permission, resolve, to_json
from unbraid.runs.run import Run
from unbraid.studies.world import world
from unbraid.terms.sparsity.l1 import L1
from unbraid.training.loop import train


def test_an_experiment_survives_the_round_trip_through_json():
    original = experiment(sparsity=L1(weight=0.3))
    assert from_json(json.loads(json.dumps(to_json(original)))) == original


def test_the_fingerprint_is_stable_and_moves_with_any_field():
    base = experiment()
    assert fingerprint(base) == fingerprint(experiment())
    assert fingerprint(base) != fingerprint(replace(base, seed=1))
    assert fingerprint(base) != fingerprint(replace(base, training=replace(base.training, lr=2e-3)))
    assert len(fingerprint(base)) == 12


def test_classes_of_this_package_are_stored_by_name_alone():
    data = to_json(experiment(sparsity=L1()))
    assert data["type"] == "Experiment" and data["objective"]["penalties"]["sparsity"]["type"] == "L1"
    assert to_json(Guarded())["type"] == "tests.test_config:Guarded"
    assert packages_of(data) == () and packages_of([{"a": to_json(Guarded())}]) == ("tests",)


def test_a_class_of_a_script_or_notebook_is_read_again_without_permission(monkeypatch):
    monkeypatch.setattr(Guarded, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Guarded", Guarded, raising=False)
    assert to_json(Guarded(old=3))["type"] == "__main__:Guarded"
    assert from_json(to_json(Guarded(old=3))) == Guarded(old=3)
    check_stored(Guarded(old=3), "it")


def test_a_class_of_a_notebook_is_found_in_a_package_that_is_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "fromnotebook").mkdir()
    (tmp_path / "fromnotebook" / "__init__.py").write_text("")
    text = "from dataclasses import dataclass\n\n@dataclass(frozen=True)\nclass Mine:\n    a: int = 1\n"
    (tmp_path / "fromnotebook" / "own.py").write_text(text)
    found = from_json({"type": "__main__:Mine", "a": 2}, packages=("unbraid", "fromnotebook"))
    assert type(found).__module__ == "fromnotebook.own" and found.a == 2
    with pytest.raises(ValueError, match="--package mine"):
        from_json({"type": "__main__:Mine", "a": 2})
    (tmp_path / "fromnotebook" / "other.py").write_text(text)
    with pytest.raises(ValueError, match="there are several in unbraid, fromnotebook"):
        from_json({"type": "__main__:Mine"}, packages=("unbraid", "fromnotebook"))
    with pytest.raises(ValueError, match="cannot import nowhere"):
        from_json({"type": "__main__:Mine"}, packages=("unbraid", "nowhere"))


def test_a_class_that_a_script_has_imported_is_not_its_own(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "Guarded", Guarded, raising=False)
    with pytest.raises(ValueError, match="outside.*--package tests"):
        from_json({"type": "__main__:Guarded"})


@dataclass(frozen=True, kw_only=True)
class Nudged(L1):
    """Changes what it was given: read again, it would be another."""

    shift: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shift", self.shift + 1)


def local_term() -> Any:
    @dataclass(frozen=True, kw_only=True)
    class Local(L1):
        pass

    return Local()


@dataclass(frozen=True, kw_only=True)
class Holding(L1):
    shape: Any = None


UNSTORABLE: dict[str, tuple[Any, str]] = {
    "a class inside a function": (
        local_term(),
        r"small cannot be stored: the class .*Local is defined inside a function",
    ),
    "a lambda": (Holding(shape=lambda x: x), "small cannot be stored: <function .*> is not configuration"),
    "names that are no text": (Holding(shape={1: 2}), "small cannot be stored: 1 is the name of 2, but is no text"),
    "a class that changes its settings": (Nudged(), "small is not the same once stored"),
}


@pytest.mark.parametrize(("term", "said"), UNSTORABLE.values(), ids=UNSTORABLE)
def test_what_cannot_be_read_back_is_refused_before_the_first_step(term: Any, said: str, tmp_path: Path):
    with pytest.raises(ValueError, match=said):
        train([experiment(mine=term)], tmp_path)
    assert not list(tmp_path.iterdir())


def test_only_named_packages_are_imported():
    with pytest.raises(ValueError, match="outside.*--package os"):
        resolve("os:system")
    with pytest.raises(ValueError, match="not a dataclass"):
        resolve("unbraid.config.serialise:fingerprint")


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


def test_the_fingerprint_hashes_public_names_alone():
    """So that moving a class to another file changes none. A new value here makes every folder another experiment."""
    assert fingerprint(world()) == "54b8447d2bd9"


OTHER_SHAPES: dict[str, tuple[Any, str]] = {
    "a type that is no text": ({"type": 5}, "a type is 5; expected a class"),
    "a type that is a list": ({"type": ["L1"]}, "expected a class, as L1 or package.module:Class"),
    "a type without a class": ({"type": "unbraid.terms.sparsity.l1"}, "expected a class"),
    "a type that is no name": ({"type": "tests..terms:L1"}, "expected a class"),
    "an unknown class": ({"type": "L7"}, "there is no class L7; one of another package is named as package.module:L7"),
    "an unknown module": ({"type": "unbraid_nowhere.l7:L1"}, "lives outside"),
    "a class of others": ({"type": "unbraid.runs.run:Path"}, "there is no class Path"),
    "a class of a script that is none": ({"type": "__main__:L7"}, "put it into a module, say mine.py, and name that"),
    "an abstract class": ({"type": "Term"}, "cannot be made of"),
    "text for a number": ({"type": "L1", "weight": "1"}, "weight"),
    "a list for a number": ({"type": "L1", "weight": [1]}, "weight"),
    "an object for a number": ({"type": "L1", "weight": {}}, "weight"),
    "null for a number": ({"type": "L1", "weight": None}, "weight"),
    "beyond its bounds": ({"type": "L1", "weight": -1.0}, "L1.weight is -1.0; it must be at least 0"),
    "nan": ({"type": "L1", "weight": float("nan")}, "L1.weight is nan; it must be a finite number"),
    "a class that checks nothing": ({"type": "unbraid.runs.run:Run", "path": 3}, "there is no class Run"),
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
