import json
import subprocess
import sys
from pathlib import Path

import pytest

from unbraid import catalog
from unbraid.cli.crossing import axis
from unbraid.cli.main import main

QUICK = ["--training.tokens", "5120", "--training.batch-size", "256", "--source.factors", "48", "--source.d-in", "16",
         "--source.l0", "3", "--source.roots", "8", "--source.depth", "1", "--source.block-rows", "2048",
         "--dictionary.d-sae", "64"]  # fmt: skip


def train_quickly(out: Path, *more: str) -> int:
    return main(["train", "world", "--out", str(out), *QUICK, *more])


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom unbraid.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'plotly', 'pandas', 'tyro', 'rich', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    for command in ("demo", "plan", "train", "sweep", "eval", "report", "import", "export", "cache", "list"):
        assert command in shown.stdout


@pytest.mark.parametrize("evals", [("fidelity", "recovery"), pytest.param((), marks=pytest.mark.slow)])
def test_train_eval_report_and_export_follow_one_another(tmp_path, capsys, evals):
    assert train_quickly(tmp_path / "runs") == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert main(["eval", str(run), *(["--evals", *evals] if evals else [])]) == 0
    assert {path.stem for path in (run / "results").iterdir()} == set(evals or catalog.default_evals())
    assert main(["report", str(run), "--out", str(tmp_path / "report.html")]) == 0
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert main(["export", str(run), "--out", str(tmp_path / "exported")]) == 0
    assert (tmp_path / "exported" / "cfg.json").is_file()
    assert "next: unbraid eval" in capsys.readouterr().out


def test_scores_are_kept_until_forced(tmp_path, capsys):
    train_quickly(tmp_path)
    (run,) = tmp_path.iterdir()
    main(["eval", str(run), "--evals", "fidelity"])
    capsys.readouterr()
    main(["eval", str(run), "--evals", "fidelity"])
    assert "kept" in capsys.readouterr().out
    main(["eval", str(run), "--evals", "fidelity", "--force"])
    assert "kept" not in capsys.readouterr().out


def test_plan_adds_up_and_writes_nothing(tmp_path, capsys):
    assert main(["plan", "world", "--out", str(tmp_path / "runs"), *QUICK]) == 0
    shown = capsys.readouterr().out
    assert "5,120 needed" in shown and "memory" in shown and "time" in shown and "more if you write" in shown
    assert not (tmp_path / "runs").exists()


def test_plan_refuses_what_cannot_fit(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("unbraid.cli.plan.free_memory", lambda: 1000)
    assert main(["plan", "world", "--out", str(tmp_path), *QUICK]) == 2
    assert "bytes of memory are needed and 1,000 free" in capsys.readouterr().err


def test_training_refuses_what_cannot_fit(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("unbraid.cli.plan.free_memory", lambda: 1000)
    assert train_quickly(tmp_path / "runs") == 2
    assert "bytes of memory are needed" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_crossing_trains_every_combination(tmp_path):
    done = main(
        [
            "sweep",
            "world",
            "--out",
            str(tmp_path),
            *QUICK,
            "--cross",
            "seed=0,1",
            "--cross",
            "dictionary.activation.k=2,4",
        ]
    )
    assert done == 0
    assert sorted(path.name.rpartition("-")[0] for path in tmp_path.iterdir()) == [
        "world-batchtopk-l0_2-s0", "world-batchtopk-l0_2-s1",
        "world-batchtopk-l0_4-s0", "world-batchtopk-l0_4-s1",
    ]  # fmt: skip


def test_a_term_is_added_by_name(tmp_path):
    assert train_quickly(tmp_path, "--add", "orthogonality", "--objective.penalties.orthogonality.weight", "2") == 0
    (run,) = tmp_path.iterdir()
    penalties = json.loads((run / "experiment.json").read_text())["objective"]["penalties"]
    assert penalties["orthogonality"]["weight"] == 2.0


DROPPED_IN = '''"""Squared latents, for the sake of the test."""

from dataclasses import dataclass

from unbraid.objective.objective import Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class Quadratic(Term):
    weight: float = 0.1

    def __call__(self, step: Step) -> TermOutput:
        return TermOutput(step.z.values.square().sum() / step.z.batch)
'''


def test_a_new_term_is_one_file_dropped_into_a_package_and_trained_by_name(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "elsewhere" / "terms"
    folder.mkdir(parents=True)
    (folder / "quadratic.py").write_text(DROPPED_IN)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["list", "--package", "elsewhere"]) == 0
    assert "quadratic                Squared latents, for the sake of the test." in capsys.readouterr().out
    assert train_quickly(tmp_path / "runs", "--package", "elsewhere", "--add", "quadratic") == 0
    (run,) = (tmp_path / "runs").iterdir()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(row["losses/quadratic"] > 0 for row in rows[1:])
    assert main(["eval", str(run), "--package", "elsewhere", "--evals", "fidelity"]) == 0
    assert main(["eval", str(run), "--evals", "fidelity"]) == 2, (
        "a run that names a stranger's class is not imported unasked"
    )
    assert "--package elsewhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train", "wrld"], "did you mean 'world'"),
        (["train", "qqqq"], "there are: "),
        (["train", "world", "--add", "ortogonality"], "did you mean 'orthogonality'"),
        (["eval", "nowhere"], "no run folder"),
        (["report", "nowhere"], "no run folder"),
        (["export", "nowhere", "--out", "x"], "no finished run"),
        (["sweep", "world", "--cross", "seed"], "write FIELD=VALUE,VALUE"),
        (["sweep", "world", "--cross", "training.lrr=1"], "did you mean 'lr'"),
        (["sweep", "facts", "--cross", "seed=1,2"], "works on a single experiment"),
        (["train", "world", "--dictionary.activation.k", "9999"], "k = 9999"),
        (["train", "world", "--name", "../up"], "lower-case"),
        (["train", "world", "--package", "no_such_package"], "cannot import package 'no_such_package'"),
        (["train", "lm_topk", "--source.model", "./no-such-model", "--source.text", "x.txt"], "no-such-model"),
    ],
)
def test_mistakes_end_in_one_line_with_the_remedy_and_code_2(command, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.startswith("error: ") and len(shown.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == [], "nothing is written"


@pytest.mark.parametrize(
    "command", [["trian"], ["train", "world", "--training.tokns", "3"], ["eval", "--runs"], ["train"]]
)
def test_unknown_commands_and_flags_end_with_code_2(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == 2


def test_a_misspelt_flag_suggests_the_right_one(capsys):
    with pytest.raises(SystemExit):
        main(["train", "world", "--training.tokns", "3"])
    shown = capsys.readouterr()
    assert "--training.tokens" in shown.err + shown.out


def test_crossed_values_are_read_as_python_would():
    assert axis("training.lr=1e-4,3e-4") == ("training.lr", [1e-4, 3e-4])
    assert axis("training.matmul=float32,bfloat16") == ("training.matmul", ["float32", "bfloat16"])


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("unbraid 0.")


def test_help_of_a_command_teaches_with_and_without_a_name(capsys):
    for words in (["train", "--help"], ["sweep", "facts", "--help"]):
        assert main(words) == 0
    shown = capsys.readouterr().out
    assert "unbraid list" in shown and "--resume" in shown and "--training.tokens" in shown and "--seeds" in shown


def test_unfinished_runs_are_passed_over_by_name(tmp_path, capsys):
    train_quickly(tmp_path)
    train_quickly(tmp_path, "--seed", "1")
    first, second = sorted(tmp_path.iterdir())
    (second / "provenance.json").unlink()
    assert main(["eval", str(first), str(second), "--evals", "fidelity"]) == 0
    assert f"passed over {second}" in capsys.readouterr().err
    assert not (second / "results").exists()
    assert main(["eval", str(second)]) == 2


def test_members_of_a_study_are_chosen_by_pattern(tmp_path, capsys):
    quick = ["--training.tokens", "1024", "--training.batch-size", "256", "--d-sae", "32", "--seeds", "0"]
    assert main(["sweep", "demo_world", "--out", str(tmp_path), "--only", "re*-*", "pca-l0_5", *quick]) == 0
    assert {path.name.rpartition("-s0")[0] for path in tmp_path.iterdir()} == {"relu-l0_5", "pca-l0_5"}
    assert main(["sweep", "demo_world", "--out", str(tmp_path), "--only", "topl-*", *quick]) == 2
    assert "matches no member; there are: relu-l0_5" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "k"), [("JumpReLU", None), ("MatchingPursuit", 8), ("Gated", None)])
def test_an_experiment_is_given_another_activation_by_name(tmp_path, name, k):
    assert train_quickly(tmp_path, "--dictionary.activation", name) == 0
    (run,) = tmp_path.iterdir()
    activation = json.loads((run / "experiment.json").read_text())["dictionary"]["activation"]
    assert activation["type"] == name and activation.get("k") == k
    assert run.name.startswith(f"world-batchtopk-{name.lower()}{f'-l0_{k}' if k else ''}-s0-")


def test_an_activation_that_is_not_is_named_with_those_that_are(tmp_path, capsys):
    assert train_quickly(tmp_path, "--dictionary.activation", "Sigmoid") == 2
    said = capsys.readouterr().err
    assert "no activation called 'Sigmoid'; there are: BatchTopK, Gated, " in said and "JumpReLU" in said
    assert main(["train", "facts", "--dictionary.activation", "ReLU", "--out", str(tmp_path)]) == 2
    assert "a study's members have their own" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--saebench", "corr"], "SAEBench has no eval 'corr'"),
        (["--evals", "recovry"], "no eval called 'recovry'; did you mean 'recovery'"),
    ],
)
@pytest.mark.parametrize("plan", [[], ["--plan"]])
def test_a_study_refuses_evals_that_are_none_before_it_trains(tmp_path, capsys, asked, said, plan):
    assert main(["study", "facts", "--out", str(tmp_path / "runs"), *asked, *plan]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_study_trains_scores_reports_and_goes_on_where_it_stopped(tmp_path, capsys):
    small = ["--source.factors", "48", "--source.d-in", "16", "--source.l0", "3", "--source.roots", "8",
             "--source.depth", "1", "--source.block-rows", "2048", "--d-sae", "64", "--training.tokens", "5120",
             "--training.batch-size", "256", "--seeds", "0", "1"]  # fmt: skip
    asked = ["study", "facts", "--only", "topk-*", "--evals", "fidelity", "--saebench", "--out", str(tmp_path), *small]
    assert main(asked) == 0
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert {row["eval"] for row in json.loads((tmp_path / "scores.json").read_text())} == {"fidelity"}
    capsys.readouterr()
    assert main(asked) == 0
    shown = capsys.readouterr().out
    assert shown.count("1 finished already") == 2 and shown.count("kept") == 2, "one stream a seed"
