"""Training by several workers: equal to training by one, whatever ends in between."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.ending_terms import Diverges, Kills
from tests.small import experiment
from tests.test_cli import QUICK
from tests.test_train import assert_equal_runs
from unbraid.cli.main import main
from unbraid.cli.train_shards import ShardSettings, train_by_crew, when_free
from unbraid.cli.workers import crew_here
from unbraid.config.serialise import OWN_PACKAGES
from unbraid.experiment.experiment import Experiment
from unbraid.runs.failure import mark_failed
from unbraid.runs.run_folder import finished
from unbraid.system.locks import Held
from unbraid.training.loop import train

SWEEP = ["sweep", "world", *QUICK, "--cross", "training.lr=1e-3,1e-4", "--cross", "seed=0,1", "--threads", "1"]


def same_runs(left: Path, right: Path) -> None:
    names = sorted(folder.name for folder in left.iterdir())
    assert names == sorted(folder.name for folder in right.iterdir()) and names
    for name in names:
        assert_equal_runs(left / name, right / name)
        assert (left / name / "metrics.jsonl").read_bytes() == (right / name / "metrics.jsonl").read_bytes()


def members(first: Experiment | None = None) -> list[Experiment]:
    """Four on one stream."""
    return [first or experiment("m0"), *(experiment(f"m{number}") for number in range(1, 4))]


def killing(mark: Path, times: int) -> Experiment:
    return experiment("m0", kills=Kills(mark=str(mark), times=times))


def settings(out: Path) -> ShardSettings:
    return ShardSettings(out, checkpoint_seconds=0.0, packages=(*OWN_PACKAGES, "tests"))


def test_two_workers_give_what_one_gives_bit_for_bit(tmp_path, capsys):
    assert main([*SWEEP, "--out", str(tmp_path / "one")]) == 0
    capsys.readouterr()
    assert main([*SWEEP, "--out", str(tmp_path / "two"), "--workers", "2"]) == 0
    shown = capsys.readouterr().out
    assert "4 dictionaries in 2 shards, 2 at a time" in shown and "stream 1 of 2: 2 dictionaries" in shown
    same_runs(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("command", ["sweep", "plan"])
def test_more_workers_than_cores_can_have_are_refused_before_anything_is_read(command, tmp_path, capsys):
    assert main([command, "world", "--workers", "10000", "--out", str(tmp_path / "runs")]) == 2
    shown = capsys.readouterr()
    assert "--workers 10000 is too many for" in shown.err and "reading" not in shown.out


@pytest.mark.slow
def test_members_of_a_worker_that_was_killed_go_on_and_one_that_kills_it_twice_is_named(tmp_path, capsys):
    mark = tmp_path / "mark"
    mark.mkdir()
    alone = train(members(killing(mark, 0)), tmp_path / "alone")
    wanted = members(killing(mark, 1))
    assert train_by_crew(wanted, settings(tmp_path / "once"), crew_here(2, 1)) == 0
    assert len(list(mark.iterdir())) == 1 and "ended abruptly; it is gone on with" in capsys.readouterr().err
    for folder, one in zip(alone, wanted, strict=True):
        assert_equal_runs(folder, tmp_path / "once" / one.folder)

    wanted = members(killing(mark, 3))
    assert train_by_crew(wanted, settings(tmp_path / "twice"), crew_here(2, 1)) == 1
    said = capsys.readouterr().err
    assert "part 1 of 2 (m0-l0_3" in said and "twice" in said and "kept, for when you resume" in said
    assert sum(finished(folder) for folder in (tmp_path / "twice").iterdir()) == 2, "the other worker's"
    assert train_by_crew(wanted, settings(tmp_path / "twice"), crew_here(2, 1)) == 0
    for folder, one in zip(alone, wanted, strict=True):
        assert_equal_runs(folder, tmp_path / "twice" / one.folder)


@pytest.mark.slow
def test_stopped_by_a_signal_all_workers_save_and_resumed_by_one_they_are_equal(tmp_path, capsys):
    long = [word if word != "5120" else "51200" for word in SWEEP]
    assert main([*long, "--out", str(tmp_path / "whole")]) == 0

    def when_all_have_begun() -> None:
        until = time.monotonic() + 60
        while len(list((tmp_path / "cut").glob("*/metrics.jsonl"))) < 4 and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    capsys.readouterr()
    waiting = threading.Thread(target=when_all_have_begun)
    waiting.start()
    assert main([*long, "--out", str(tmp_path / "cut"), "--workers", "2"]) == 130
    waiting.join()
    out, err = capsys.readouterr()
    assert out.count("stopped at step") == 2 and "stopped; continue with --resume" in err
    assert len(list((tmp_path / "cut").glob("*/checkpoints/*.safetensors"))) == 4
    assert main([*long, "--out", str(tmp_path / "cut"), "--resume"]) == 0
    same_runs(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_overwrite_starts_unfinished_and_failed_runs_anew(tmp_path, capsys):
    wanted = members()
    for one in wanted[:2]:
        (tmp_path / one.folder).mkdir()
        (tmp_path / one.folder / "experiment.json").write_text("{}")
        mark_failed(tmp_path / one.folder, 3, ValueError("before"))
    assert train_by_crew(wanted, settings(tmp_path), crew_here(2, 1), overwrite=True) == 0
    assert all(finished(tmp_path / one.folder) for one in wanted) and "before" not in capsys.readouterr().err


def test_a_folder_that_another_process_holds_is_waited_for_as_long_as_was_said(tmp_path):
    tried = []

    def work() -> None:
        tried.append(len(tried))
        if len(tried) < 2:
            raise Held("by another")

    with pytest.raises(Held):
        when_free(work, patience=0.0)
    tried.clear()
    when_free(work, patience=60.0)
    assert len(tried) == 2


@pytest.mark.slow
def test_a_member_that_diverges_is_named_and_the_others_are_finished(tmp_path, capsys):
    wanted = members(experiment("m0", diverges=Diverges()))
    assert train_by_crew(wanted, settings(tmp_path), crew_here(2, 1)) == 1
    said = capsys.readouterr().err
    assert "1 of 4 failed\nm0-l0_3-s0-" in said and "nan at step 20" in said
    assert [finished(tmp_path / one.folder) for one in wanted] == [False, True, True, True]
