"""A full disk is one sentence, whatever library met it, and loses nothing (fault 13)."""

import errno
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from tests.callbacks import AtProgress
from tests.small import WORLD, experiment, seeded
from tests.test_train import assert_equal_runs
from unbraid.cli.main import main
from unbraid.formats import dictionary_learning
from unbraid.formats.export import export
from unbraid.runs.run_folder import finished
from unbraid.sources.cached import write_cache
from unbraid.system import files
from unbraid.training import checkpoint
from unbraid.training.checkpoint import steps_saved
from unbraid.training.loop import train

BIG = {"x": torch.zeros(100_000)}

WRITERS: dict[str, Callable[[Path], object]] = {
    "safetensors": lambda path: save_file(BIG, path),
    "torch": lambda path: dictionary_learning.save(BIG, path),
    "text": lambda path: path.write_text("x" * 100_000),
    "bytes": lambda path: path.write_bytes(b"x" * 100_000),
}


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """The system refuses to let any file grow further, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_fault_13_so_is_a_limit_on_the_size_of_files(tmp_path, write):
    with no_file_above(4096), pytest.raises(OSError, match="file larger than .* while writing .*weights.bin; free"):
        files.write_atomically(tmp_path / "weights.bin", write)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "Disk quota exceeded"),
    ],
    ids=["safetensors", "full", "quota"],
)  # fmt: skip
def test_fault_13_a_full_disk_is_one_sentence_with_the_space_left(tmp_path, error):
    def write(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise error

    path = tmp_path / "weights.bin"
    with pytest.raises(OSError, match=rf"(disk full|quota) .*\([\d,]+ bytes free\) while writing {path}; .*--resume"):
        files.write_atomically(path, write)
    assert not list(tmp_path.iterdir())


def test_fault_13_errors_that_are_not_of_the_disk_stay_what_they_are(tmp_path):
    with pytest.raises(ZeroDivisionError):
        files.write_atomically(tmp_path / "a", lambda path: 1 / 0)
    with pytest.raises(SafetensorError, match="something else"), files.explain_full_disk(tmp_path):
        raise SafetensorError("something else")
    with pytest.raises(PermissionError), files.explain_full_disk(tmp_path):
        raise SafetensorError("Error while serializing: I/O error: Permission denied (os error 13)")


def test_fault_13_one_members_checkpoint_that_finds_no_room_keeps_no_other_from_being_written(tmp_path, monkeypatch):
    members = [seeded(experiment(), n) for n in range(3)]
    whole, real = train(members, tmp_path / "whole"), checkpoint.save_file
    cut = tmp_path / "cut"

    def full(tensors, path, **settings):
        if members[1].folder in str(path) and steps_saved(cut / members[1].folder) == [10]:
            real({"x": torch.zeros(3)}, path)
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        real(tensors, path, **settings)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match=f"disk full .* while writing {cut / members[1].folder}/checkpoints/20"):
        train(members, cut, checkpoint_steps=10)
    saved = [sorted(steps_saved(cut / member.folder)) for member in members]
    assert saved == [[10, 20], [10], [10, 20]] and not list(cut.rglob(".*"))
    monkeypatch.undo()
    for left, right in zip(whole, train(members, cut, resume=True), strict=True):
        assert_equal_runs(left, right)


def test_fault_13_one_run_that_finds_no_room_keeps_no_other_from_being_saved(tmp_path, monkeypatch):
    members = [seeded(experiment(), n) for n in range(3)]
    real = files.save_file

    def full(tensors, path, **settings):
        if members[0].folder in str(path):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        real(tensors, path, **settings)

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(OSError, match="disk full"):
        train(members, tmp_path, checkpoint_steps=15)
    assert [finished(tmp_path / member.folder) for member in members] == [False, True, True]
    assert steps_saved(tmp_path / members[0].folder) == [15, 30]
    monkeypatch.undo()
    seen: list[int] = []
    train(members, tmp_path, resume=True, callbacks=[AtProgress(lambda tokens, total: seen.append(tokens // 160))])
    assert seen[0] == 31 and finished(tmp_path / members[0].folder)


def test_fault_13_the_command_line_says_so_without_a_traceback(tmp_path, capsys):
    small = ["--training.tokens", "5120", "--training.batch-size", "256", "--source.factors", "48", "--source.d-in",
             "16", "--source.l0", "3", "--source.roots", "8", "--source.depth", "1", "--dictionary.d-sae", "64",
             "--checkpoint-seconds", "0"]  # fmt: skip
    with no_file_above(12_000):
        assert main(["train", "world", "--out", str(tmp_path), *small]) == 2
    said = capsys.readouterr().err
    assert "error: " in said and "file larger than" in said and "checkpoints" in said and "Traceback" not in said
    assert main(["train", "world", "--out", str(tmp_path), "--resume", *small]) == 0


def test_fault_13_exports_caches_and_logs_say_so(tmp_path):
    (run,) = train([experiment()], tmp_path / "runs")
    out = tmp_path / "out"
    for to in ("saelens", "hub"):
        with no_file_above(2000), pytest.raises(OSError, match="file larger than .* while writing"):
            export(run, out, to)
        assert not out.exists() and not list(tmp_path.glob(".*"))
    with no_file_above(2000), pytest.raises(OSError, match="while writing"):
        write_cache(WORLD, tmp_path / "cache", blocks=1, seed=0, splits=["train"])
    with no_file_above(100), pytest.raises(OSError, match="file larger than .* while writing .*metrics.jsonl"):
        files.append_text(tmp_path / "metrics.jsonl", "x" * 200)


MOUNTED = """
import sys
from pathlib import Path
from tests.small import experiment, seeded
from unbraid.training.loop import train
train([seeded(experiment(), n) for n in range(3)], Path(sys.argv[1]), resume=True, checkpoint_steps=5)
"""


@pytest.mark.slow
def test_fault_13_on_a_file_system_that_is_full_nothing_is_lost(tmp_path):
    """A real one, of 200 kB: in a name space of our own, where mounting is allowed."""
    here = Path(__file__).parents[1]
    mount = f"mount -t tmpfs -o size=200k none {tmp_path} &&"
    try:
        tried = subprocess.run(["unshare", "-m", "sh", "-c", f"{mount} true"], capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if tried.returncode:
        pytest.skip("mounting is not allowed here")
    code = f"import sys; sys.path[:0] = {[str(here), *sys.path]!r}\n{MOUNTED}"
    script = (
        f'{mount} {{ "$0" -c "$1" {tmp_path}/runs; find {tmp_path} -name ".*" -type f; mount -o remount,size=9m '
        f'{tmp_path}; "$0" -c "$1" {tmp_path}/runs && cat {tmp_path}/runs/*/sae_weights.safetensors | sha256sum; }}'
    )
    ran = subprocess.run(["unshare", "-m", "sh", "-c", script, sys.executable, code], capture_output=True, text=True)
    assert "disk full (" in ran.stderr and "bytes free) while writing" in ran.stderr, ran.stderr
    folders = sorted(train([seeded(experiment(), n) for n in range(3)], tmp_path / "whole"))
    import hashlib

    whole = hashlib.sha256(b"".join((f / "sae_weights.safetensors").read_bytes() for f in folders)).hexdigest()
    assert ran.stdout.split() == [whole, "-"], "no temporary file stayed, and the weights are those of a whole run"
