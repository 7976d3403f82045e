import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import eval_cost, peers, run, small_shapes, stacked_steps, terms, worker
from benchmarks.contender import CannotRun, Contender, Setting
from benchmarks.contenders import floor, unbraid

from unbraid import catalog
from unbraid.objective.objective import Term
from unbraid.sources.world.world import World
from unbraid.terms.controls.masked import Masked
from unbraid.terms.sparsity.gate_kl import GateKl

SMALL = {"d_in": 16, "batch": 64, "k": 2}


def small(bench: run.Bench, batches: torch.Tensor, d_sae: int = 128) -> Setting:
    setting = run.problem(bench, d_sae, batches)
    return Setting(bench, d_sae, threshold=setting.threshold, **SMALL)


@pytest.fixture
def batches() -> torch.Tensor:
    return torch.randn(2, SMALL["batch"], SMALL["d_in"], generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bench", run.BENCHES)
def test_our_contender_takes_training_steps(bench, batches):
    contender = unbraid.build(small(bench, batches))
    before = [p.detach().clone() for p in contender.parameters]
    for index, x in enumerate(batches):
        contender.step(index, x)
    moved = [not torch.equal(p, start) for p, start in zip(contender.parameters, before, strict=True)]
    assert sum(moved) >= 4 and all(bool(torch.isfinite(p).all()) for p in contender.parameters)


@pytest.mark.parametrize("bench", ["relu", "jumprelu"])
def test_threshold_activations_start_at_the_agreed_density(bench, batches):
    contender = unbraid.build(small(bench, batches))
    assert contender.active is not None
    active = (contender.active(batches[0]) != 0).sum(1).double().mean()
    assert float(active) == pytest.approx(run.THRESHOLD_L0, abs=0.1)


def test_the_floors_hold_only_their_weights(batches):
    setting = small("topk", batches)
    weights = 4 * setting.d_sae * setting.d_in
    for made, count in ((floor.dense(setting), 2), (floor.encoder(setting), 1)):
        made.step(0, batches[0])
        assert made.parameter_bytes() == made.state_bytes() == count * weights


def test_state_is_parameters_gradients_and_both_moments(batches):
    contender = unbraid.build(small("topk", batches))
    contender.step(0, batches[0])
    trained = sum(p.numel() for p in contender.parameters if p.requires_grad)
    frozen = sum(p.numel() for p in contender.parameters if not p.requires_grad)
    counters = 4 * len([p for p in contender.parameters if p.requires_grad])
    assert contender.state_bytes() == 4 * (4 * trained + frozen) + counters


def test_matryoshka_groups_cover_the_dictionary():
    for d_sae in (128, 4096, 16384):
        assert sum(Setting("matryoshka", d_sae, 0.0).widths()) == d_sae


def test_peak_memory_is_beyond_the_start_and_the_weights():
    assert worker.above_weights(peak=500 * 2**20, before=300 * 2**20, parameters=64 * 2**20) == 136


def test_a_worker_answers_steps_and_memory(batches, tmp_path, monkeypatch):
    saved = tmp_path / "problem.pt"
    torch.save({"setting": small("topk", batches).__dict__, "batches": batches}, saved)
    answers = io.StringIO()
    monkeypatch.setattr("sys.stdin", io.StringIO("step\nreset\nstep\nmemory\n"))
    worker.serve("floor-encoder", saved, answers)
    ready, step, reset, _, memory = map(json.loads, answers.getvalue().splitlines())
    assert ready == {"ready": True} and reset == {} and step["cpu_seconds"] >= 0
    assert memory["weights_mb"] == pytest.approx(128 * 16 * 4 / 2**20) and memory["l0"] is None


def test_a_worker_says_what_it_cannot_run(batches, tmp_path, monkeypatch):
    def build(setting: Setting) -> Contender:
        raise CannotRun("TopK only")

    saved, answers = tmp_path / "problem.pt", io.StringIO()
    torch.save({"setting": small("relu", batches).__dict__, "batches": batches}, saved)
    monkeypatch.setattr("benchmarks.contenders.unbraid.build_for_topk", build, raising=False)
    monkeypatch.setitem(worker.CONTENDERS, "for-topk", ("unbraid", "build_for_topk"))
    worker.serve("for-topk", saved, answers)
    assert json.loads(answers.getvalue()) == {"cannot": "TopK only"}


def test_a_worker_reports_a_failing_step(batches, tmp_path, monkeypatch):
    saved, answers = tmp_path / "problem.pt", io.StringIO()
    torch.save({"setting": small("topk", batches).__dict__, "batches": batches[:, :, :3]}, saved)
    monkeypatch.setattr("sys.stdin", io.StringIO("step\n"))
    worker.serve("floor-encoder", saved, answers)
    assert "RuntimeError" in json.loads(answers.getvalue().splitlines()[-1])["error"]


class FakeLane(run.Lane):
    """Answers at once, and writes down the order of the steps."""

    def __init__(self, who: str, order: list[str]):
        self.who, self.order, self.seconds = who, order, []

    def ask(self, command: str) -> dict[str, float]:
        self.order.append(f"{self.who}:{command}")
        memory = {"peak_mb_above_weights": 1.0, "weights_mb": 2.0, "state_mb": 8.0, "l0": 32.0}
        return {"cpu_seconds": 0.5 if self.who == "unbraid" else 3.0} if command == "step" else memory


def rows_of(names: list[str], order: list[str]) -> list[dict[str, Any]]:
    return run.race([FakeLane(who, order) for who in names], Setting("topk", 4096, 0.0), repetitions=3)


def test_contenders_take_measured_steps_in_turn():
    order: list[str] = []
    rows_of(["a", "b", "c"], order)
    measured = order[3 * (run.WARM_UP + 1) :]
    assert measured[:9] == ["a:step", "b:step", "c:step"] * 3


def test_rows_hold_what_the_report_reads():
    rows = rows_of(["unbraid", "sae-lens"], [])
    assert rows[0]["tokens_per_second"] == 4096 and rows[1]["cpu_seconds_per_step"] == 3.0
    wanted = {
        "bench",
        "d_sae",
        "who",
        "cpu_seconds_per_step",
        "tokens_per_second",
        "peak_mb_above_weights",
        "repetitions",
    }
    assert all(wanted <= row.keys() for row in rows)


def test_the_table_gives_times_as_multiples_of_ours():
    lines = run.table(rows_of(["unbraid", "sae-lens"], [])).splitlines()
    assert "1.00" in lines[1] and "6.00" in lines[2] and "sae-lens" in lines[2]


def test_unknown_names_are_refused_with_the_choice(capsys):
    with pytest.raises(SystemExit):
        run.arguments(["--only", "topk,gated"])
    assert "there is no 'gated'; choose from topk, batchtopk" in capsys.readouterr().err


def test_a_peer_that_cannot_be_installed_is_refused_with_the_end_of_the_log(tmp_path, monkeypatch):
    def fail(command: list[str], **kwargs: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, stdout="first\n" * 30 + "no matching distribution\n")

    monkeypatch.setattr(subprocess, "run", fail)
    (tmp_path / "sparsify").mkdir()
    with pytest.raises(SystemExit, match="no environment for sparsify(.|\n)*no matching distribution(.|\n)*--who"):
        peers.python_of("sparsify", tmp_path)


def test_an_installed_peer_is_not_installed_again(tmp_path, monkeypatch):
    commands: list[list[str]] = []

    def succeed(command: list[str], **kwargs: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, stdout="")

    monkeypatch.setattr(subprocess, "run", succeed)
    (tmp_path / "dictionary-learning").mkdir()
    first = peers.python_of("dictionary-learning", tmp_path)
    assert any("torchvision" in command for command in commands)
    assert any(peers.torch_requirement() in command for command in commands)
    commands.clear()
    assert peers.python_of("dictionary-learning", tmp_path) == first == Path(first) and not commands


def test_a_contender_without_parameters_has_no_state():
    assert Contender(lambda index, x: None).state_bytes() == 0


TINY = terms.Bench(d_in=16, d_sae=64, batch=128, k=4)


def added(term: Term, monkeypatch, patched: Any, name: str, seconds: float) -> tuple[float, float]:
    """What the benchmark says when nothing but a call of `patched.name` takes time."""
    clock, original = [0.0], getattr(patched, name)

    def slow(*args: Any, **kwargs: Any) -> Any:
        clock[0] += seconds
        return original(*args, **kwargs)

    monkeypatch.setattr(patched, name, slow)
    monkeypatch.setattr(terms.time, "process_time", lambda: clock[0])
    world = TINY.world()
    return terms.measure(TINY, world, TINY.batches(world, 2), term, 2, jump=False)


def test_drawing_corrupted_rows_is_not_a_terms_own_cost(monkeypatch):
    assert added(Masked(), monkeypatch, World, "corrupted", 100.0) == (0.0, 0.0)


def test_what_a_term_does_now_and_then_is_averaged_over_its_applications(monkeypatch):
    assert added(GateKl(apart=4), monkeypatch, GateKl, "_inactive", 8.0) == (0.0, 2.0)


@pytest.mark.slow
def test_every_term_is_timed_and_its_row_is_kept(tmp_path, capsys):
    out = tmp_path / "terms.json"
    tiny = ["--d-in", "16", "--d-sae", "64", "--batch", "128", "--k", "4", "--repetitions", "1", "--out", str(out)]
    terms.main(tiny)
    rows = json.loads(out.read_text())
    assert [row["term"] for row in rows] == [name for name in catalog.terms() if name not in terms.NOT_PENALTIES]
    assert all(row["plain_seconds"] > 0 and row["d_sae"] == 64 for row in rows)
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(rows)


def test_the_cost_of_evals_is_told_by_first_and_later_runs_and_scores_that_differ_are_seen():
    def found(seconds: list[float], value: float) -> list[dict[str, Any]]:
        scores = [{"metric": "fvu", "kind": "measured", "params": {}, "value": value}]
        about = {"source": "World", "d_sae": 96, "eval": "fidelity", "scores": scores}
        return [{**about, "run": f"r{i}", "number": i, "seconds": s} for i, s in enumerate(seconds)]

    before, after = found([3.0, 2.0, 2.5], 0.25), found([2.0, 0.5, 0.25], 0.5)
    rows = {(row["eval"], row["run"]): row for row in eval_cost.rows_of({"before": [before], "after": [after, after]})}
    later = rows["fidelity", "later"]
    assert later["before"] == [2.0, 2.5] and later["after"] == [0.5, 0.25, 0.5, 0.25] and later["apart"] == 0.25
    assert rows["all", "first"]["before"] == [3.0] and rows["all", "first"]["after"] == [2.0, 2.0]
    assert eval_cost.rows_of({"before": [before], "after": [found([1.0], 0.5)]})[0]["apart"] is None


def test_members_stepped_together_learn_what_they_learn_alone():
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    together = stacked_steps.Stacked([0, 1, 2], d_in=8, d_sae=24, k=3)
    alone = [stacked_steps.Stacked([seed], d_in=8, d_sae=24, k=3) for seed in range(3)]
    start = together.W_dec.detach().clone()
    for _ in range(5):
        for stacked in (together, *alone):
            stacked.step(x)
    for parameter, parts in zip(together.parameters, zip(*(one.parameters for one in alone), strict=True), strict=True):
        torch.testing.assert_close(parameter, torch.cat(parts))
    assert torch.equal(together.fired, torch.cat([one.fired for one in alone])) and together.fired.sum() > 0
    assert (together.W_dec - start).abs().max() > 0.01


class Answering(small_shapes.Side):
    """A checkout that takes so many seconds a step, without a process."""

    def __init__(self, seconds: float, trained: str):
        self.seconds, self.trained = seconds, trained

    def ask(self, what: str, shape: str = "", kind: str = "", count: int = 0) -> Any:
        return self.trained if what == "trained" else 0.001 if kind == "floor" else self.seconds


def test_a_row_of_a_small_shape_compares_both_sides_and_the_floor():
    rows = [*small_shapes.rows_of({"before": Answering(0.009, "a"), "after": Answering(0.003, "a")}, "demo", 3)]
    assert [row["kind"] for row in rows] == list(small_shapes.KINDS)
    for row in rows:
        assert (row["before_over_floor"], row["after_over_floor"], row["before_over_after"]) == (9.0, 3.0, 3.0)
        assert row["after_ms"] == [3.0, 3.0, 3.0] and row["equal"]
    (other, *_) = small_shapes.rows_of({"before": Answering(0.009, "a"), "after": Answering(0.003, "b")}, "demo", 1)
    assert not other["equal"]
    (single, *_) = small_shapes.rows_of({"after": Answering(0.003, "a")}, "demo", 1)
    assert "before_over_after" not in single and single["after_over_floor"] == 3.0
