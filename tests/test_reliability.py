"""The short form of `make reliability`: a few kills, and the page that tells of trials."""

from pathlib import Path

import pytest
from benchmarks.reliability.kills import kills, other_commands
from benchmarks.reliability.page import page
from benchmarks.reliability.trial import HELD, Trial

from tests.finished_runs import make_world_run


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.slow
def test_fault_09_killed_once_and_twice_training_ends_with_the_weights_of_a_run_nobody_killed(
    tmp_path: Path,
) -> None:
    trials = list(kills(tmp_path, 5, only=["world, latents restarted"]))  # the fifth is killed twice
    assert [trial.outcome for trial in trials] == [HELD] * 5, trials


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_fault_13_a_killed_command_leaves_nothing_and_can_be_run_again(tmp_path: Path, count: int) -> None:
    trials = list(other_commands(tmp_path, make_world_run(tmp_path / "runs"), count))
    assert [trial.outcome for trial in trials] == [HELD] * count, trials


def test_the_page_counts_and_names_what_did_not_end_as_promised() -> None:
    trials = [
        Trial(kind="kills", group="world", case="SIGKILL at 1 s", outcome=HELD, good=True),
        Trial(kind="kills", group="world", case="SIGKILL | at 2 s", outcome="not bit-equal", good=False),
        Trial(kind="attacks", group="pickles", case="ae.pt", outcome=HELD, good=True),
    ]
    text = page(trials, {"seed": "0"})
    assert "| Kills | 2 | 1 | 1 |" in text and "| Attacks | 1 | 1 | 0 |" in text
    assert "- world: SIGKILL \\| at 2 s: not bit-equal" in text and "## Bad input" not in text
