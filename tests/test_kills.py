"""Kills at every operation on files of a checkpoint round, twice in a row (fault 9); what is left over is removed."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.callbacks import AtProgress
from tests.kills import Place, killed, places
from tests.small import experiment, seeded
from tests.test_train import assert_equal_runs
from unbraid.experiment.experiment import Experiment
from unbraid.formats.export import export
from unbraid.runs.run_folder import finished
from unbraid.sources.cached import write_cache
from unbraid.system import files
from unbraid.training import loop as training
from unbraid.training.checkpoint import common_step, load_checkpoint, path_of, steps_saved
from unbraid.training.loop import train

STEPS, EVERY = 8, 2


def cohort() -> list[Experiment]:
    small = experiment("plain")
    base = replace(
        small,
        dictionary=replace(small.dictionary, d_sae=16),
        training=replace(small.training, tokens=160 * STEPS),
    )
    return [seeded(base, seed) for seed in range(3)]


def folders(root: Path) -> list[Path]:
    return [root / member.folder for member in cohort()]


class Stop(BaseException):
    pass


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """Without asking git each time."""
    monkeypatch.setattr(training, "machine", lambda: {"unbraid": "tested"})


def up_to(root: Path, step: int) -> None:
    """Train from what there is to just before this step's checkpoint round is over, or to the end."""

    def watch(tokens: int, total: int) -> None:
        if tokens > 160 * step:
            raise Stop

    with suppress(Stop):
        train(cohort(), root, resume=True, checkpoint_steps=EVERY, callbacks=[AtProgress(watch)])


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    train(cohort(), root)
    return root


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """A cohort with checkpoints of step 2 and 4."""
    root = tmp_path_factory.mktemp("begun")
    up_to(root, 4)
    assert [sorted(steps_saved(folder)) for folder in folders(root)] == [[2, 4]] * 3
    return root


def hidden(root: Path) -> list[Path]:
    return list(root.rglob(".*"))


def every(quick: int, slow: int) -> pytest.MarkDecorator:
    """At each of so many places; `make reliability` tries them all."""
    return pytest.mark.parametrize("every", [quick, pytest.param(slow, marks=pytest.mark.slow)])


@every(24, 4)
def test_fault_09_two_kills_anywhere_in_checkpoint_rounds_lose_at_most_one(tmp_path, whole, begun, every):
    """From step 4 on, killed in what follows up to step 6's round, and again; the rest is trained in one go."""
    count = tmp_path / "count"
    shutil.copytree(begun, count)
    where = places(lambda: up_to(count, 6), count)
    assert len(where) > 40
    try_two_kills(where[::every], tmp_path, begun, whole)


def try_two_kills(where: list[Place], scratch: Path, begun: Path, whole: Path) -> None:
    """Each place, and another after it, from `begun` on."""
    for number, place in enumerate(where):
        root = scratch / str(number)
        shutil.copytree(begun, root)
        assert killed(lambda root=root: up_to(root, 6), place, root)
        assert common_step(folders(root)) >= 4, place
        second = where[(7 * number + 3) % len(where)]
        killed(lambda root=root: up_to(root, 6), second, root)
        assert common_step(folders(root)) >= 4, (place, second)
        if number % 4 == 0:  # the weights take most of the time, and depend on what was checked above alone
            for folder in train(cohort(), root, resume=True):
                assert_equal_runs(folder, whole / folder.name)
                assert not (folder / "checkpoints").exists()
            assert not hidden(root), (place, second)
        shutil.rmtree(root)


def test_fault_09_rounds_of_other_lengths_after_each_kill_keep_a_common_step(tmp_path, whole):
    """The second attempt's rounds fall between those of the first, one member ahead of the others."""
    root = tmp_path / "runs"
    up_to(root, 6)
    for folder in folders(root)[1:]:
        path_of(folder, 6).unlink()
    seen: list[int] = []

    def watch(tokens: int, total: int) -> None:
        seen.append(tokens // 160)
        if tokens // 160 == 6:
            raise Stop

    with pytest.raises(Stop):
        train(cohort(), root, resume=True, checkpoint_steps=5, callbacks=[AtProgress(watch)])
    assert seen == [5, 6], "the others go on from their own newest, step 4; the first waits for them"
    assert common_step(folders(root)) == 4
    assert [sorted(steps_saved(folder)) for folder in folders(root)] == [[4, 6], [4, 5], [4, 5]]
    for folder in train(cohort(), root, resume=True, checkpoint_steps=1):
        assert_equal_runs(folder, whole / folder.name)
        rows = [json.loads(row)["step"] for row in (folder / "metrics.jsonl").read_text().splitlines()]
        assert rows == list(range(STEPS))


def flipped(path: Path, where: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(where * (len(data) - 1))] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit of a tensor": lambda path: flipped(path, 0.7),
    "the last byte": lambda path: flipped(path, 1.0),
    "a bit of the header": lambda path: flipped(path, 0.003),
    "the length of the header": lambda path: flipped(path, 0.0),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "cut in the header": lambda path: path.write_bytes(path.read_bytes()[:200]),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "another step": lambda path: shutil.copyfile(path_of(path.parents[1], 2), path),
    "another member": lambda path: path.write_bytes(b"{}" * 500),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("who", [(0,), (0, 1, 2)], ids=["one member", "all members"])
def test_fault_09_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, whole, begun, caplog, damage, who):
    shutil.copytree(begun, tmp_path / "runs")
    for number in who:
        damage(path_of(folders(tmp_path / "runs")[number], 4))
    seen: list[int] = []
    made = train(
        cohort(), tmp_path / "runs", resume=True, callbacks=[AtProgress(lambda tokens, _: seen.append(tokens // 160))]
    )
    for folder in made:
        assert_equal_runs(folder, whole / folder.name)
    assert seen[0] == 3
    told = caplog.text
    assert told.count("goes on from step 2") == len(who) and f"{folders(tmp_path)[0].name} goes on" in told


def test_fault_09_every_bit_of_a_checkpoint_is_covered(begun, tmp_path):
    path = path_of(folders(begun)[0], 4)
    copy = tmp_path / "checkpoints" / "4.safetensors"
    copy.parent.mkdir()
    data = path.read_bytes()
    state = load_checkpoint(path.parents[1], 4)[0]
    for place in range(0, len(data), max(1, len(data) // 300)):
        copy.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        try:
            found = load_checkpoint(tmp_path, 4)[0]
        except ValueError:
            continue
        assert found.keys() == state.keys() and all(bool((found[n] == state[n]).all()) for n in state), place


def test_fault_09_with_no_whole_checkpoint_a_member_starts_anew_and_the_others_wait(tmp_path, whole, begun, caplog):
    shutil.copytree(begun, tmp_path / "runs")
    for step in (2, 4):
        flipped(path_of(folders(tmp_path / "runs")[1], step), 0.8)
    for folder in train(cohort(), tmp_path / "runs", resume=True):
        assert_equal_runs(folder, whole / folder.name)
    assert "goes on from step 0" in caplog.text


def test_fault_09_half_a_row_of_a_log_is_no_obstacle(tmp_path, whole, begun):
    shutil.copytree(begun, tmp_path / "runs")
    log = folders(tmp_path / "runs")[0] / "metrics.jsonl"
    log.write_bytes(log.read_bytes() + b'{"step": 5, \xff\x00\n{"st')
    for folder in train(cohort(), tmp_path / "runs", resume=True):
        assert (folder / "metrics.jsonl").read_bytes() == (whole / folder.name / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_killed_anywhere_a_whole_training_is_gone_on_with(tmp_path, whole):
    """From nothing to finished runs: the first claims, the last saves."""
    count = tmp_path / "count"
    work = lambda root: train(cohort(), root, resume=True, checkpoint_steps=6)
    where = places(lambda: work(count), count)
    for number, place in enumerate(where[::12]):
        root = tmp_path / str(number)
        assert killed(lambda root=root: work(root), place, root)
        kept = [(f, f.stat().st_mtime_ns) for folder in folders(root) if finished(folder) for f in folder.iterdir()]
        for folder in work(root):
            assert_equal_runs(folder, whole / folder.name)
        assert all(f.stat().st_mtime_ns == then for f, then in kept if f.is_file()), "what was finished stays as it is"
        assert not hidden(root), place
        shutil.rmtree(root)


@pytest.mark.slow
def test_fault_13_a_killed_export_leaves_nothing_behind_at_the_next(tmp_path, whole):
    run = whole / cohort()[0].folder
    count, left = tmp_path / "count", 0
    for number, place in enumerate(places(lambda: export(run, count / "out"), count)):
        home = tmp_path / str(number)
        assert killed(lambda home=home: export(run, home / "out"), place, home), place
        left += len(list(home.glob(".*")))
        export(run, home / "another")
        assert not list(home.glob(".*")) and (home / "another" / "cfg.json").is_file(), place
    assert left > 3


def test_fault_13_a_killed_write_of_any_file_leaves_nothing_behind_at_the_next(tmp_path):
    path = tmp_path / "report.html"
    for place in places(lambda: files.write_text(path, "new"), tmp_path):
        killed(lambda: files.write_text(path, "new"), place, tmp_path)
    assert list(tmp_path.glob(".*"))
    files.write_text(path, "newer")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_what_a_living_process_is_writing_is_left_alone(tmp_path):
    with files.temporary_folder(tmp_path, "export") as ours:
        files.write_text(tmp_path / "beside.json", "{}")
        assert ours.is_dir()


@every(9, 3)
def test_fault_13_a_killed_cache_is_gone_on_with(tmp_path, every):
    from tests.small import WORLD

    whole = tmp_path / "whole"
    write_cache(WORLD, whole, blocks=2, seed=0, splits=["train"])
    count = tmp_path / "count"
    work = lambda root: write_cache(WORLD, root, blocks=2, seed=0, splits=["train"])
    for number, place in enumerate(places(lambda: work(count), count)[::every]):
        root = tmp_path / str(number)
        assert killed(lambda root=root: work(root), place, root)
        work(root)
        assert {p.name: p.read_bytes() for p in root.iterdir()} == {p.name: p.read_bytes() for p in whole.iterdir()}
