import io
import json
import subprocess
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import (
    bench_tables,
    cohort_steps,
    eval_cost,
    growth,
    part_tables,
    peers,
    regimes,
    run,
    small_shapes,
    stacked_steps,
    terms,
    worker,
)
from benchmarks.contender import Bench, CannotRun, Contender, Setting
from benchmarks.contenders import floor, unbraid
from benchmarks.regimes import Case

from unbraid import catalog
from unbraid.objective.objective import Term
from unbraid.sources.world.world import World
from unbraid.terms.controls.masked import Masked
from unbraid.terms.dead_latents.aux_k import AuxK
from unbraid.terms.sparsity.gate_kl import GateKl

SMALL = {"d_in": 16, "batch": 64, "k": 2}


def small(bench: Bench, batches: torch.Tensor, **changed: Any) -> Setting:
    return run.problem(Case("small", bench, 128, **SMALL, **changed), batches)


@pytest.fixture
def batches() -> torch.Tensor:
    return torch.randn(2, SMALL["batch"], SMALL["d_in"], generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bench", regimes.BENCHES)
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
    assert float(active) == pytest.approx(regimes.THRESHOLD_L0, abs=0.1)


@pytest.mark.parametrize("bench", ["relu", "jumprelu"])
def test_a_case_says_how_many_are_active(bench, batches):
    contender = unbraid.build(small(bench, batches, l0=64.0))
    assert contender.active is not None
    assert float((contender.active(batches[0]) != 0).sum(1).double().mean()) == pytest.approx(64, abs=0.1)


def test_latents_that_count_as_dead_get_the_loss_that_revives_them(batches, monkeypatch):
    seen: list[int] = []
    original = AuxK.__call__
    monkeypatch.setattr(
        AuxK, "__call__", lambda self, step: (seen.append(len(step.dead_latents)), original(self, step))[1]
    )
    for share in (0.0, 0.25):
        contender = unbraid.build(small("topk", batches, dead=share))
        for index, x in enumerate(batches):
            contender.step(index, x)
    assert seen == [0, 0, 32, 32]


def test_the_floors_hold_only_their_weights(batches):
    setting = small("topk", batches)
    weights = 4 * setting.d_sae * setting.d_in
    for made, count in ((floor.dense(setting), 2), (floor.encoder(setting), 1)):
        made.step(0, batches[0])
        assert made.parameter_bytes() == made.state_bytes() == count * weights


@pytest.mark.parametrize("build", [floor.build, floor.build_bfloat16])
def test_the_floor_of_a_step_updates_all_weights_and_holds_what_the_optimiser_does(build, batches):
    setting = small("topk", batches)
    made = build(setting)
    before = [p.detach().clone() for p in made.parameters]
    made.step(0, batches[0])
    assert all(not torch.equal(p, start) for p, start in zip(made.parameters, before, strict=True))
    numbers = 2 * setting.d_sae * setting.d_in + setting.d_sae + setting.d_in
    assert made.state_bytes() == 4 * 4 * numbers + 4 * len(before)


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


USUAL = Case("usual", "topk", 4096)


def rows_of(names: list[str], order: list[str]) -> list[dict[str, Any]]:
    rows = run.race([FakeLane(who, order) for who in names], USUAL, seconds=0.0)
    return [{**row, "run": number} for number in (1, 2) for row in rows]


def test_contenders_take_measured_steps_in_turn():
    order: list[str] = []
    rows_of(["a", "b", "c"], order)
    measured = order[3 * (run.WARM_UP + 1) :]
    assert measured[:9] == ["a:step", "b:step", "c:step"] * 3


def test_rows_hold_what_the_report_reads():
    rows = rows_of(["unbraid", "sae-lens"], [])
    assert rows[0]["tokens_per_second"] == 2 * USUAL.batch and rows[1]["cpu_seconds_per_step"] == 3.0
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


def test_the_table_gives_times_as_multiples_of_ours_and_their_range_over_runs():
    rows = rows_of(["unbraid", "sae-lens"], [])
    rows[3]["cpu_seconds_per_step"] = 3.5
    line = bench_tables.times(rows, "usual").splitlines()[2]
    assert line.startswith("| topk 4,096, 32 active, 512 rows | 500 | 6.00 to 7.00 |  |")
    assert bench_tables.times_sae_lens(rows) == (6.0, 7.0) and bench_tables.slower(rows) == []
    assert "| 3.00 | 3.00 |" in bench_tables.memory(rows, "usual")


def test_pages_say_what_the_rows_do():
    rows = json.loads((peers.ROOT / "docs/results/bench.json").read_text())
    page, readme = ((peers.ROOT / name).read_text() for name in ("docs/performance.md", "README.md"))
    races = dict.fromkeys(row["regime"] for row in rows if bench_tables.raced(row))
    tables = [bench_tables.times(rows, regime) for regime in races]
    measured = {row["regime"] for row in rows}
    tables += [table(rows) for name, table in part_tables.TABLES.items() if name in measured]
    assert all(table in page for table in [*tables, bench_tables.memory(rows, "usual")])
    assert bench_tables.said_of_sae_lens(rows) in readme


def test_a_peer_that_is_faster_in_every_run_is_named():
    rows = rows_of(["unbraid", "sparsify"], [])
    for row in rows:
        if row["who"] == "sparsify":
            row["cpu_seconds_per_step"] = 0.4
    assert bench_tables.slower(rows) == ["usual: topk 4,096, 32 active, 512 rows: sparsify takes 0.80 of our time"]
    rows[3]["cpu_seconds_per_step"] = 0.6
    assert bench_tables.slower(rows) == []


def test_fast_contenders_take_more_steps_until_the_time_is_spent():
    order: list[str] = []
    run.race([FakeLane("unbraid", order)], USUAL, seconds=4.0)
    assert order.count("unbraid:step") == run.WARM_UP + 8  # half a second each
    assert run.race([FakeLane("unbraid", [])], USUAL, seconds=1e9)[0]["repetitions"] == run.MOST


def test_every_case_is_named_once_in_a_run_and_a_quick_run_has_one_a_regime():
    chosen = run.arguments([])
    plan = run.plan(chosen)
    assert len({run.planned(case, number, "unbraid") for number, case in plan}) == len(plan)
    assert {number for number, _ in plan} == {1, 2}
    quick = run.plan(run.arguments(["--quick"]))
    assert {case for _, case in quick} == {case for name in regimes.REGIMES for case in regimes.quick(name)}
    assert len(set(quick)) == len(quick) and {case.batch for _, case in quick} == {128, 512}
    assert len({str(case) for _, case in plan}) == len(plan) / 2, "progress says which case it is"


@pytest.mark.parametrize("words", [["--regimes", "slice"], ["--only", "topk"], ["--who", "unbraid"], ["--batch", "64"]])
def test_a_selection_does_not_take_the_place_of_the_published_rows(words, capsys):
    with pytest.raises(SystemExit):
        run.arguments(words)
    assert "name a file with --out" in capsys.readouterr().err
    chosen = run.arguments([*words, "--out", "some.json"])
    assert chosen.regimes == (["slice"] if words[0] == "--regimes" else list(regimes.REGIMES))
    assert run.arguments([*words, "--quick"]).out.name == "bench-quick-done.json"


class Workers:
    """What stands for starting workers and measuring: it remembers which cases were asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.asked: list[str] = []
        monkeypatch.setattr(run, "start", lambda who, folder: FakeLane(who, []))
        monkeypatch.setattr(FakeLane, "close", lambda self: None)
        monkeypatch.setattr(run, "measure", self.measure)

    def measure(self, case: Case, lanes: Any, folder: Path, seconds: float) -> list[dict[str, Any]]:
        self.asked.append(str(case))
        return run.race(lanes, case, seconds=0.0)


def test_an_interrupted_bench_goes_on_where_it_was_and_ends_in_the_rows(tmp_path, monkeypatch, capsys):
    workers, out, kept = Workers(monkeypatch), tmp_path / "out.json", tmp_path / "kept.json"
    asked = ["--regimes", "small", "--who", "unbraid,floor", "--kept", str(kept), "--out", str(out)]
    rows, _ = run.bench(run.arguments([*asked, "--runs", "1"]))
    assert len(rows) == 10 and json.loads(kept.read_text()) == rows and not out.exists()
    run.main(asked)
    assert len(workers.asked) == 10 and workers.asked[:5] == workers.asked[5:]
    assert len(json.loads(out.read_text())) == 20 and not kept.exists()
    assert "min left" in capsys.readouterr().out


def test_a_case_that_memory_does_not_hold_is_left_out_and_said(tmp_path, monkeypatch):
    workers = Workers(monkeypatch)
    free = lambda: types.SimpleNamespace(available=1e9)
    monkeypatch.setattr(run.psutil, "virtual_memory", free)
    asked = ["--regimes", "growth", "--who", "unbraid,floor", "--runs", "1", "--kept", str(tmp_path / "kept.json")]
    with pytest.raises(SystemExit, match="left out(.|\n)*65,536 latents(.|\n)*takes about 2 GB, of which 1 are free"):
        run.main([*asked, "--out", str(tmp_path / "out.json")])
    assert len(workers.asked) == 3 and not (tmp_path / "out.json").exists()


def test_growth_is_drawn_a_line_a_library_with_its_range_over_runs():
    rows = [
        {"regime": "growth", "who": who, "d_sae": d_sae, "tokens_per_second": 1e6 / (d_sae * number)}
        for who in ("unbraid", "sae-lens")
        for d_sae in (4096, 1024)
        for number in (1, 3)
    ]
    ours, theirs = growth.lines(rows)
    assert ours["name"] == "unbraid" and theirs["name"] == "sae-lens" and ours["x"] == [1024, 4096]
    assert ours["y"] == pytest.approx([2048, 8192]) and ours["error_y"]["array"] == pytest.approx([1024, 4096])
    assert "Plotly.newPlot" in growth.page(rows)
    with pytest.raises(SystemExit, match="no row is of the regime growth; run"):
        growth.page([])


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


@pytest.mark.parametrize("kind", ["topk", "batchtopk"])
def test_members_stepped_together_learn_what_they_learn_alone(kind):
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    together = stacked_steps.Stacked([0, 1, 2], d_in=8, d_sae=24, k=3, kind=kind)
    alone = [stacked_steps.Stacked([seed], d_in=8, d_sae=24, k=3, kind=kind) for seed in range(3)]
    start = together.W_dec.detach().clone()
    for _ in range(5):
        for stacked in (together, *alone):
            stacked.step(x)
    for parameter, parts in zip(together.parameters, zip(*(one.parameters for one in alone), strict=True), strict=True):
        torch.testing.assert_close(parameter, torch.cat(parts))
    assert torch.equal(together.fired, torch.cat([one.fired for one in alone])) and together.fired.sum() > 0
    assert (together.W_dec - start).abs().max() > 0.01


def test_what_stacking_could_save_counts_members_that_are_alike_alone(monkeypatch):
    monkeypatch.setattr(cohort_steps, "step_ms", lambda member, *_: 6.0 if "total" in member.label else 2.0)
    rows = list(cohort_steps.rows_of("small_world", 2.0))
    assert [row["alike"] for row in rows[:-1]] == [6] * 6 and sum(row["plain"] for row in rows[:-1]) == 3
    assert rows[-1]["ms"] == 20.0 and rows[-1]["at_most"] == round(20 / (20 - 3 - 3 * cohort_steps.ENCODING), 2)


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
