"""Every bad input of the table ends in one sentence with a remedy, and nothing is written or lost (fault 23)."""

from collections import Counter

import pytest

from tests.bad_inputs import CASES, Case, Ground, faults_of, prepare
from tests.quick import every_second_quick


@pytest.fixture(scope="session")
def ground(tmp_path_factory) -> Ground:
    return prepare(tmp_path_factory.mktemp("ground"))


@pytest.mark.parametrize("case", every_second_quick(CASES), ids=lambda case: case.id)
def test_fault_23_a_bad_input_is_refused_in_a_sentence(case: Case, ground: Ground, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert not (faults := faults_of(case, ground)), "\n".join(faults)


def test_every_subcommand_and_every_public_function_is_in_the_table():
    count = Counter(case.surface for case in CASES)
    for command in (
        "demo",
        "plan",
        "train",
        "sweep",
        "study",
        "eval",
        "report",
        "check published",
        "steer",
        "import",
        "export",
        "copy",
        "browse",
        "cache",
        "list",
    ):
        assert count[command] >= 3, command
    assert len(CASES) > 300 and len({case.id for case in CASES}) == len(CASES)
