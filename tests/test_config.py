import json
from dataclasses import dataclass, replace

import pytest

from tests.small import experiment
from unbraid.config import fingerprint, from_json, permission, resolve, to_json
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
