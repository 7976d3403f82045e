"""torchrun: the commands that share work, what one process says for all, and a training whose process is killed."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from torch import distributed

from tests.bad_inputs import SMALL
from unbraid.cli.main import main
from unbraid.cli.torchrun import LAUNCHED, is_to_say, local_device, processes
from unbraid.system.group import Lost


def test_a_command_that_processes_cannot_share_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv(LAUNCHED, "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert processes() == 2
    assert main(["eval", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: torchrun has started 2 processes of `unbraid eval`") and said.count("\n") == 1
    monkeypatch.delenv(LAUNCHED)
    assert processes() == 1, "another launcher's variables mean nothing"


def test_one_process_has_nobody_to_share_latents_out_to(capsys, tmp_path):
    assert main(["train", "world", "--shard-latents", "--out", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "error: --shard-latents shares latents out to processes that torchrun starts, and this is one"
    )
    assert said.count("\n") == 1 and not (tmp_path / "runs").exists()


def test_a_process_without_a_gpu_of_its_own_is_refused():
    assert local_device(1, 2) == 1
    with pytest.raises(ValueError, match="more processes here than there are GPUs \\(2\\); set --nproc-per-node 2"):
        local_device(2, 2)


def test_one_process_says_why_all_end_and_another_only_what_is_its_own():
    store = distributed.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    assert is_to_say(store, 1, ValueError("no text"))
    assert not is_to_say(store, 0, ValueError("no text"))
    assert not is_to_say(store, 0, Lost("another has ended")), "it ended because of the first"
    assert is_to_say(store, 2, ValueError("no disk"))


@pytest.mark.slow  # Python and torch start three times; is_to_say has quick tests
def test_what_is_refused_ends_all_processes_with_one_sentence(tmp_path):
    run = torchrun("--training.batch-size", "161", out=tmp_path)
    said = run.communicate()[0]
    assert run.returncode != 0
    assert said.count("error: batches of 161 cannot be shared out equally to 2 processes") == 1
    assert "terminate called" not in said and "exitcode  : -6" not in said, said


def torchrun(*words: str, out: Path) -> "subprocess.Popen[str]":
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "-m",
        "unbraid",
        "train",
        "world",
    ]
    settings = ["--training.tokens", "60000", "--checkpoint-seconds", "0.1", "--out", str(out), *SMALL[2:]]
    return subprocess.Popen([*command, *settings, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow  # Python and torch start six times; test_groups has the same without torchrun, and bit for bit
@pytest.mark.parametrize("words", [(), ("--shard-latents",)])
def test_a_killed_process_ends_torchrun_with_one_sentence_and_all_resume(tmp_path, words):
    first = torchrun(*words, out=tmp_path)
    while first.poll() is None and not [*tmp_path.glob("*/checkpoints/*.safetensors")]:
        time.sleep(0.05)
    victim = psutil.Process(first.pid).children()[-1]
    victim.kill()
    said = first.communicate()[0]
    assert first.returncode != 0
    # torchrun asks the other to stop as it sees that one has ended, now and then before that one has said so.
    sentences = ("error: another of the processes that train together has ended", "stopped; continue with --resume")
    assert sum(said.count(sentence) for sentence in sentences) == 1, said
    assert "Interrupted" not in said and "bug in unbraid" not in said
    assert [*tmp_path.glob("*/checkpoints/*.safetensors")], "what was saved is kept"

    again = torchrun("--resume", *words, out=tmp_path)
    said = again.communicate()[0]
    assert again.returncode == 0, said
    assert [*tmp_path.glob("*/provenance.json")] and not [*tmp_path.glob("*/checkpoints")]
