"""The command line helps: names of crossed runs, help that can be read, mistakes in one sentence, silence broken."""

import contextlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests import tiny_lm
from tests.small import experiment
from tests.test_cli import QUICK, train_quickly
from unbraid.cli.command_line import sentence
from unbraid.cli.crossing import axes, axis
from unbraid.cli.main import main
from unbraid.experiment.grid import cross
from unbraid.sources.language_model.language_model import LanguageModel

COMMANDS = (
    "demo",
    "plan",
    "train",
    "sweep",
    "study",
    "eval",
    "report",
    "browse",
    "steer",
    "import",
    "export",
    "copy",
    "cache",
    "list",
)


def ended(argv: list[str]) -> int:
    """The exit code, however the command ends."""
    try:
        return main(argv)
    except SystemExit as stopped:
        return int(stopped.code or 0)


# ---- --cross ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "values", "words"),
    [
        ("source.text", ["/a/b/One Book.txt", "../two.jsonl"], ["one-book.txt", "two.jsonl"]),
        ("source.model", ["EleutherAI/pythia-70m", "gpt2"], ["pythia-70m", "gpt2"]),
        ("source.text", ["x/train.txt", "y/train.txt"], None),
        ("source.text", ["hf://a/b:train", "language://20?seed=1", "…/ü"], None),
        ("source.mask_special", [True, False], ["mask_special_true", "mask_special_false"]),
        ("training.betas", [(0.9, 0.99), (0.8, 0.9)], None),
        ("training.tokens", [1_000_000, 20_000_000], ["tokens_1e06", "tokens_2e07"]),
        ("training.tokens", [1_234_567, 1_234_568], None),
        ("training.lr", [-1e-30, 1e-30], None),
    ],
)  # fmt: skip
def test_fault_26_any_value_that_is_crossed_names_a_folder(field, values, words):
    base = replace(experiment(), source=LanguageModel())
    with contextlib.suppress(ValueError):  # a learning rate below 0 cannot be, under whatever name
        crossed = cross(base, {field: values})
        assert len({e.name for e in crossed}) == len({e.folder for e in crossed}) == len(values)
        assert words is None or [e.name for e in crossed] == [f"small-{word}" for word in words]


def test_fault_26_texts_and_models_are_crossed_on_the_command_line(tmp_path):
    model = tiny_lm.write_model(tmp_path / "Tiny Model")
    texts = [tiny_lm.write_corpus(tmp_path / name) for name in ("a,b.jsonl", "c.jsonl")]
    asked = ["sweep", "lm_topk", "--source.model", "x", "--source.layer", "1", "--source.context", "12",
             "--source.buffer-tokens", "200", "--source.eval-share", "0.2", "--dictionary.d-sae", "32",
             "--dictionary.activation.k", "4", "--training.tokens", "64", "--training.batch-size", "32",
             "--out", str(tmp_path / "runs"), "--cross", f"source.model={model}",
             "--cross", f"source.text='{texts[0]}',{texts[1]}"]  # fmt: skip
    assert main(asked) == 0
    names = sorted(path.name.rpartition("-s0-")[0] for path in (tmp_path / "runs").iterdir())
    assert names == ["lm-topk-tiny-model-a-b.jsonl-l0_4", "lm-topk-tiny-model-c.jsonl-l0_4"]


def test_fault_26_values_with_commas_are_quoted_or_in_brackets():
    assert axis("a='x,y',z") == ("a", ["x,y", "z"])
    assert axis('a="x,y"') == ("a", ["x,y"])
    assert axis("training.betas=(0.9,0.99),(0.8,0.9)") == ("training.betas", [(0.9, 0.99), (0.8, 0.9)])
    assert axis("a=it's,that") == ("a", ["it's", "that"])
    assert axis("a=f(x,y.txt") == ("a", ["f(x", "y.txt"])


@pytest.mark.parametrize("text", ["seed", "seed=", "=1", "seed=1,,2", "seed=1,", "a='x", "a=(1,2", "seed=1,1"])
def test_fault_26_what_cannot_be_crossed_is_refused(text):
    with pytest.raises(ValueError, match="--cross"):
        axis(text)


def test_a_field_crossed_twice_is_refused():
    with pytest.raises(ValueError, match="seed is given twice; write all its values in one"):
        axes(["seed=1", "seed=2"])


# ---- help ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_fault_26_every_command_has_help_that_can_be_read(command, capsys):
    assert ended([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"usage: unbraid {command}" in shown and 5 < len(shown.splitlines()) < 120


@pytest.mark.parametrize("words", [["plan", "lm"], ["train", "lm_topk"], ["study", "objectives"], ["cache", "synth"],
                                   ["sweep", "directions_lm"], ["import", "x", "world"]])  # fmt: skip
def test_fault_26_help_of_an_experiment_is_short_and_leads_to_the_rest(words, capsys):
    assert ended([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 130 and "--training.tokens" in shown and "--help-all" in shown
    assert max(map(len, shown.splitlines())) <= 120


def test_all_flags_are_shown_when_all_are_asked_for(capsys):
    assert ended(["plan", "directions", "--help-all"]) == 0
    assert "--members.melbo-l0-3.init.steps" in capsys.readouterr().out


def test_fault_26_members_are_named_in_the_help_of_a_study(capsys):
    ended(["plan", "demo_world", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--only NAME" in shown and "topk-l0_5" in shown and "--members.relu-l0-5" in shown


# ---- mistakes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["trian", "world"], "did you mean train?"),
        (["eval", "x", "--forse"], "did you mean --force?"),
        (["plan", "world", "--training.tokns", "3"], "did you mean --training.tokens?"),
        (["plan", "world", "--training.tokens", "many"], "Error parsing --training.tokens"),
        (["plan", "--training.tokens", "3", "world"], "the name comes first"),
        (["cache", "world"], "give one with --to FOLDER"),
        (["train", "world", "--only", "topk"], "--only chooses members of a study"),
        (["export", "x", "--out", "y", "--to", "saelen"], "did you mean saelens?"),
    ],
)
def test_a_mistake_is_one_sentence(argv, said, capsys):
    assert ended(argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and len(err.splitlines()) == 1 and said in err


def test_boxes_of_either_kind_become_a_sentence():
    for frame, rule in (("│", "─" * 20), (" ", "-" * 20)):
        top = f"╭─ Value error {rule}╮" if frame == "│" else f" Value error\n {rule}"
        box = f"{top}\n{frame} Error parsing --a: no   {frame}\n{frame} {rule} {frame}\n{frame} more {frame}\n"
        assert sentence(box, "unbraid plan x") == "Error parsing --a: no; see `unbraid plan x --help`"


@pytest.mark.parametrize("shown", [False, True])
def test_what_nobody_expected_ends_in_one_sentence_with_its_traceback_kept(shown, capsys, monkeypatch):
    def broken(call):
        raise KeyError("surprise")

    monkeypatch.setattr("unbraid.cli.show.run_list", broken)
    monkeypatch.setenv("UNBRAID_TRACEBACK", "1") if shown else monkeypatch.delenv("UNBRAID_TRACEBACK", raising=False)
    assert main(["list"]) == 3
    err = capsys.readouterr().err
    assert "error: this is a bug in unbraid: KeyError: 'surprise'" in err and ("Traceback" in err) == shown
    if not shown:
        kept = Path(err.partition("traceback in ")[2].partition(", or with")[0])
        assert "unbraid list" in kept.read_text() and "KeyError" in kept.read_text()
        kept.unlink()


def test_no_memory_is_no_bug(capsys, monkeypatch):
    def full(call):
        raise MemoryError("3 TB")

    monkeypatch.setattr("unbraid.cli.show.run_list", full)
    assert main(["list"]) == 2
    assert "out of memory (3 TB)" in capsys.readouterr().err


# ---- what is printed meanwhile ------------------------------------------------------------------------------


def test_fault_26_something_is_said_before_the_first_step(tmp_path, capsys, monkeypatch):
    said = []
    monkeypatch.setattr(
        "unbraid.training.loop.Learner.step", lambda *_, **__: said.append(capsys.readouterr().out) or {}
    )
    train_quickly(tmp_path)
    assert "reading the text and the model" in said[0] and "starting dictionaries" in said[0]


def test_fault_26_evals_that_do_not_apply_are_one_line(tmp_path, capsys):
    cached = tmp_path / "cache"
    assert main(["cache", "world", "--to", str(cached), *QUICK]) == 0
    small = ["--d-sae", "64", "--training.tokens", "1024", "--training.batch-size", "256", "--seeds", "0"]
    assert main(["sweep", "cached", "--source.folder", str(cached), "--only", "topk-*", "--out", str(tmp_path / "runs"),
                 *small]) == 0  # fmt: skip
    (run,) = (tmp_path / "runs").iterdir()
    capsys.readouterr()
    assert main(["eval", str(run)]) == 0
    shown = capsys.readouterr().out.splitlines()
    results = [json.loads(path.read_text()) for path in (run / "results").iterdir()]
    holes = [result["eval"] for result in results if "not_applicable" in result]
    assert len(holes) > 5 and len(shown) == len(results) - len(holes) + 1
    assert all(name in shown[-1] for name in holes) and f"{len(holes)} evals do not apply" in shown[-1]
    assert main(["eval", str(run), "--verbose"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(results)


@pytest.mark.slow
def test_a_log_holds_no_bars_of_other_libraries():
    words = ["plan", "language", "--only", "batchtopk-l0_8", "--training.tokens", "2048"]
    done = subprocess.run([sys.executable, "-m", "unbraid", *words], capture_output=True, text=True, check=True)
    assert "reading took" in done.stderr + done.stdout and "it/s" not in done.stderr
