"""The plan: what will be scored, what cannot be and why, what is there already; nothing is begun."""

from dataclasses import astuple
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from unbraid.cli.main import main
from unbraid.saebench import work
from unbraid.saebench.bench import evaluate
from unbraid.saebench.cost import by_reason, describe, estimate
from unbraid.saebench.eval_specs import EVAL_SPECS, chosen
from unbraid.saebench.targets import target_of


def test_it_adds_up_and_names_what_is_missing(runs, bench):
    lines, _ = estimate(runs, chosen([]), bench())
    by_name = {line.eval_spec.name: line for line in lines}
    assert by_name["core"].minutes > 0 and by_name["core"].runs == 3
    assert "--labelled" in by_name["scr"].reason and by_name["scr"].minutes == 0
    shown = describe(lines, [], Path("cache"))
    assert "to be made in cache: about 4 min, 2.4 GB" in shown[0]
    assert any("core" in line and "explained_variance is wrong" in line for line in shown)
    assert f"{sum(line.minutes for line in lines):.0f} min" in shown[-1]


def test_a_larger_model_takes_longer_by_its_passes_at_the_speed_that_is_measured(runs, bench, monkeypatch):
    monkeypatch.setattr(work, "speed", lambda width: 1e9)
    tiny, _ = estimate(runs, [EVAL_SPECS["core"]], bench())
    large = work.Model(parameters=1e8, to_hook=1e8, after=3e8, width=32)
    monkeypatch.setattr(work, "model_in", lambda folder, layer: large)
    (line,), _ = estimate(runs, [EVAL_SPECS["core"]], bench())
    # 81,920 tokens to the hook and 20,480 through the rest; clean and ablated once, 102,400 through each of three SAEs.
    tokens = 81_920 * 1e8 + 2 * 20_480 * 4e8 + 3 * (20_480 * 3e8 + 102_400 * 4 * 32 * 32)
    assert line.minutes == pytest.approx(0.3 + 0.1 + 3 * 0.3 + tokens / (0.75 * 1e9) / 60)
    assert line.minutes > 10 * tiny[0].minutes


def test_every_eval_counts_tokens_at_every_size_and_fewer_at_the_least():
    for name, spec in EVAL_SPECS.items():
        small, least = (work.tokens_of(name, settings) for settings in (spec.small, {**spec.small, **spec.least}))
        counts = [(a, b) for a, b in zip(astuple(small), astuple(least), strict=True)]
        assert all(a >= b for a, b in counts), name
        assert any(a > b for a, b in counts) == bool(spec.least), name


def test_the_model_is_weighed_without_its_weights(runs):
    target = target_of(runs[0])
    assert target.folder is not None
    model = work.model_in(target.folder, target.layer)
    lm = AutoModelForCausalLM.from_pretrained(target.folder)
    assert model.parameters == sum(weight.numel() for weight in lm.parameters())
    blocks = sum(weight.numel() for name, weight in lm.named_parameters() if ".layers." in name or ".h." in name)
    after = model.to_hook / 2 * (lm.config.num_hidden_layers / (target.layer + 1))
    assert after == pytest.approx(blocks, rel=0.02)  # but for the last normalisation


def test_runs_that_are_left_out_share_a_line_by_reason():
    world, gone = ValueError("a world"), ValueError("gone")
    without = {Path(f"runs/w{i}"): world for i in range(5)} | {Path("runs/x"): gone}
    assert by_reason(without) == {"a world": ["w0", "w1", "… (5 in all)"], "gone": ["x"]}


def test_what_is_scored_costs_nothing(runs, bench):
    evaluate(runs, [EVAL_SPECS["core"]], bench())
    (line,), _ = estimate(runs, [EVAL_SPECS["core"]], bench())
    assert (line.runs, line.kept, line.minutes) == (0, 3, 0.0)


def test_small_is_for_models_in_folders_and_published_for_the_hub(runs, bench):
    (small,), _ = estimate(runs, [EVAL_SPECS["core"]], bench())
    (published,), _ = estimate(runs, [EVAL_SPECS["core"]], bench(size="published"))
    assert published.minutes > 5 * small.minutes


def test_the_command_plans_without_making_an_environment(runs, tmp_path, capsys):
    folders = [str(run.path) for run in runs]
    assert main(["eval", *folders, "--suite", "saebench", "--plan", "--cache", str(tmp_path / "cache")]) == 0
    shown = capsys.readouterr().out
    assert "to be made in" in shown and "together" in shown
    assert not (tmp_path / "cache").exists()
    assert not any((run.path / "results").exists() for run in runs)


def test_the_command_refuses_an_eval_that_is_none(runs, capsys):
    assert main(["eval", str(runs[0].path), "--suite", "saebench", "--plan", "--evals", "unlearning"]) == 2
    assert "gemma-2-2b-it" in capsys.readouterr().err


def test_fault_26_one_column_of_labels_serves_evals_that_ask_for_classes_alone(runs, bench, tmp_path):
    path = tmp_path / "sst2.jsonl"
    path.write_text("".join(f'{{"text": "film number {i}", "label": {i % 2}}}\n' for i in range(900)))
    asked = bench(labelled=(f"{path}:label",))
    lines, _ = estimate(runs, [EVAL_SPECS[name] for name in ("sparse_probing", "tpp", "scr")], asked)
    reasons = {line.eval_spec.name: line.reason for line in lines}
    assert not reasons["sparse_probing"] and not reasons["tpp"]
    assert "two columns" in reasons["scr"] and "FILE:CLASS:ATTRIBUTE" in reasons["scr"]
    both = bench(labelled=(f"{path}:label", "language://10"))
    target = lines[0].target
    assert both.labelled_for(EVAL_SPECS["scr"], target) == ("language://10",)
    assert len(both.labelled_for(EVAL_SPECS["tpp"], target)) == 2
