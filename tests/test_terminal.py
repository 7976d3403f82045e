"""What a terminal would obey is shown instead (fault 21)."""

import io
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.small import experiment
from unbraid.cli.main import main
from unbraid.system.terminal import clean, name, say
from unbraid.training.loop import train

OWNED = "\x1b]0;owned\x07\x1b[2J"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("\x1b[31mred", "\\x1b[31mred"), ("a\rb", "a\\x0db"), ("\x9b2J", "\\x9b2J"), ("\x7f\b", "\\x7f\\x08"),
     ("exe\u202egpj", "exe\\u202egpj"), ("a\u2028b", "a\\u2028b"), ("\udc80", "\\udc80"),
     ("two\nlines\t", "two\nlines\t"),
     ("größer 日本 👩\u200d🔬", "größer 日本 👩\u200d🔬")],
)  # fmt: skip
def test_fault_21_what_a_terminal_obeys_is_shown(text: str, shown: str):
    assert clean(text) == shown


def test_a_name_stays_on_one_line():
    assert name("run\n[1/1] fidelity  0.1 s") == "run\\x0a[1/1] fidelity  0.1 s"


@given(st.text())
def test_fault_21_no_control_character_is_left(text: str):
    assert not [c for c in clean(text) if ord(c) < 32 and c not in "\n\t" or 0x7F <= ord(c) < 0xA0]


def test_what_a_stream_cannot_write_is_shown():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    say("größer \udc80", file=stream)
    assert raw.getvalue() == b"gr\\xf6\\xdfer \\udc80\n"


def test_fault_21_escapes_in_folder_names_and_results_do_not_reach_the_terminal(tmp_path: Path, capsys):
    (good,) = train([experiment()], tmp_path / "runs")
    folder = Path(shutil.copytree(good, tmp_path / f"run{OWNED}"))
    broken = Path(shutil.copytree(good, tmp_path / f"broken{OWNED}\nrun"))
    (broken / "experiment.json").write_text("{")
    unfinished = Path(shutil.copytree(good, tmp_path / f"unfinished{OWNED}"))
    (unfinished / "provenance.json").unlink()
    (unfinished / "failed.json").write_text('{"step": 3, "error": "\\u001b[2Jgone"}')
    every = [str(folder), str(broken), str(unfinished)]
    assert main(["eval", *every, "--evals", "fidelity", "agreement"]) == 1
    assert main(["report", *every, "--out", str(tmp_path / f"out{OWNED}.html")]) == 1
    assert main(["export", str(broken), "--out", str(tmp_path / "out")]) == 2
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err and "\\x1b]0;owned\\x07" in shown.out
