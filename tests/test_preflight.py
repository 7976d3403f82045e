"""What would be found out after the night is refused before any work, with the remedy."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests import tiny_lm
from tests.small import WORLD, experiment
from unbraid import catalog
from unbraid.cli import plan
from unbraid.cli.fit_timing import fit_seconds
from unbraid.cli.main import main
from unbraid.evals.shared.evaluation import evaluate
from unbraid.experiment.study import Study
from unbraid.runs.run import Run
from unbraid.sources.base import NoHeldOut
from unbraid.sources.cache_files import EVAL_ROWS
from unbraid.sources.cached import Cached, write_cache
from unbraid.sources.stream import held_out
from unbraid.steering.linear_dct import LinearDct
from unbraid.steering.melbo import Melbo
from unbraid.steering.push_length import FixedRadius
from unbraid.steering.quadratic_dct import QuadraticDct
from unbraid.steering.steer import steer

SMALL = ["--source.layer", "1", "--source.context", "12", "--source.buffer-tokens", "200", "--dictionary.d-sae", "32",
         "--dictionary.activation.k", "4", "--training.tokens", "320", "--training.batch-size", "32"]  # fmt: skip
EVALS = list(catalog.evals().values())


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_lm.write_model(tmp_path_factory.mktemp("model"))


def told(path: Path, documents: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
    return path


def words(count: int, seed: int = 0) -> str:
    return " ".join(random.Random(seed).choices(tiny_lm.WORDS, k=count))


def command(name: str, model: Path, text: Path, out: Path, *more: str) -> list[str]:
    return [name, "lm_topk", "--source.model", str(model), "--source.text", str(text), "--out", str(out), *SMALL, *more]


@pytest.mark.parametrize("name", ["plan", "train", "sweep"])
@pytest.mark.parametrize("book", [True, False], ids=["one book without blank lines", "a few documents, none held out"])
def test_fault_12_an_empty_eval_split_is_refused_before_any_work(name, book, model, tmp_path, capsys):
    text = tmp_path / ("book.txt" if book else "few.jsonl")
    if book:
        text.write_text(words(1500))
    else:
        told(text, [words(400, seed) for seed in (1, 2)])
    assert main(command(name, model, text, tmp_path / "runs", "--source.eval-share", "0.0001")) == 2
    said = capsys.readouterr().err
    assert "could not be scored: the eval split holds 0 tokens" in said and "--source.eval-share" in said
    assert "fidelity" in said and not (tmp_path / "runs").exists()


def test_fault_12_an_eval_split_without_a_next_token_is_refused(model, tmp_path, capsys):
    """A document of one word has a row, and nothing to predict."""
    held = next(word for word in tiny_lm.WORDS if tiny_lm_split(word) == "eval")
    text = told(tmp_path / "words.jsonl", [words(500, 3), held])
    assert main(command("train", model, text, tmp_path / "runs", "--source.eval-share", "0.2")) == 2
    assert "none with a next token to predict" in capsys.readouterr().err


def tiny_lm_split(document: str) -> str:
    from unbraid.sources.text.corpus import split_of

    return split_of(document, 0.2)


def test_no_eval_split_is_a_note_where_none_was_wanted(model, tmp_path, capsys):
    text = told(tmp_path / "few.jsonl", [words(400, seed) for seed in (1, 2)])
    assert main(command("plan", model, text, tmp_path / "runs", "--source.eval-share", "0")) == 0
    assert "note: " in (said := capsys.readouterr()).err and "could not be scored" in said.err


def test_fault_12_several_cohorts_are_all_checked_before_the_first_is_trained(model, tmp_path, capsys):
    good = tiny_lm.write_corpus(tmp_path / "good.jsonl")
    bad = told(tmp_path / "bad.jsonl", [words(600)])
    asked = command("sweep", model, good, tmp_path / "runs", "--source.eval-share", "0.2")
    assert main([*asked, "--cross", f"source.text={good},{bad}"]) == 2
    assert not (tmp_path / "runs").exists()


def test_fault_12_more_passes_over_the_text_leave_the_eval_split_as_it_is(model, tmp_path):
    source = tiny_lm.source(model, tiny_lm.write_corpus(tmp_path / "text.jsonl"))
    again = replace(source, epochs=10)
    assert again.available("train") == 10 * source.available("train")
    assert again.available("eval") == source.available("eval")
    torch.testing.assert_close(held_out(again, 10**6).x, held_out(source, 10**6).x)
    made = replace(experiment(tokens=1600), source=again)
    from unbraid.training.loop import train

    (run,) = train([made], tmp_path / "runs")
    chosen = [item for item in EVALS if item.name in ("fidelity", "description_length")]
    assert evaluate([Run.open(run)], chosen) == 0


def test_fault_12_a_cache_read_several_times_has_one_eval_split(tmp_path):
    write_cache(WORLD, tmp_path, seed=0, blocks=2)
    once, thrice = Cached(folder=str(tmp_path)), Cached(folder=str(tmp_path), epochs=3)
    assert thrice.available("train") == 3 * once.available("train")
    assert thrice.available("eval") == once.available("eval") == len(held_out(thrice, 10**6))


@pytest.mark.parametrize("prompts", [1, 3, 20])
@pytest.mark.slow
def test_fault_12_directions_fitted_to_a_few_prompts_are_steered_by_and_evaluated(prompts, model, tmp_path, capsys):
    text = told(tmp_path / "prompts.jsonl", [words(6, seed) for seed in range(prompts)])
    asked = ["--source.model", str(model), "--source.text", str(text), "--source.eval-share", "0", "--d-sae", "16",
             "--source.context", "12", "--members.melbo-l0-16.init.steps", "2", "--seeds", "0",
             "--only", "melbo-l0_16", "linear-*"]  # fmt: skip
    assert main(["sweep", "directions_lm", "--out", str(tmp_path / "runs"), *asked]) == 0
    melbo = next(path for path in (tmp_path / "runs").iterdir() if path.name.startswith("melbo"))
    assert main(["steer", str(melbo), "--latent", "0", "--prompt", "the cat", "--tokens", "2"]) == 0
    assert "tokens of other text (the text the run was made from" in " ".join(capsys.readouterr().out.split())
    assert "held-out" not in (found := steer(Run.open(melbo), 0, "the cat", unit="own", tokens=1)).unit
    assert math.isfinite(found.size) and found.note
    assert main(["eval", *map(str, (tmp_path / "runs").iterdir())]) == 0
    assert main(["report", *map(str, (tmp_path / "runs").iterdir()), "--out", str(tmp_path / "r.html")]) == 0


def test_rows_there_are_none_of_are_said_to_be_missing(model, tmp_path):
    source = tiny_lm.source(model, told(tmp_path / "one.jsonl", [words(30)]), eval_share=0.0)
    with pytest.raises(NoHeldOut, match="no eval data: give more text"):
        held_out(source, 10)
    with pytest.raises(NoHeldOut, match="no eval data"):
        source.windows(1, split="eval", seed=0)


@pytest.mark.parametrize("command", ["plan", "train", "study"])
def test_fault_12_a_device_there_is_not_is_refused_before_any_folder(command, tmp_path, capsys):
    more = ["--saebench"] if command == "study" else []
    name = "facts" if command == "study" else "world"
    assert main([command, name, "--training.device", "cuda:0", "--out", str(tmp_path / "runs"), *more]) == 2
    assert "cuda" in capsys.readouterr().err and not (tmp_path / "runs").exists()


def test_plan_says_the_token_policy_and_both_splits(model, tmp_path, capsys):
    text = tiny_lm.write_corpus(tmp_path / "text.jsonl")
    assert main(command("plan", model, text, tmp_path / "runs", "--source.eval-share", "0.2")) == 0
    said = capsys.readouterr().out
    assert "<s> in front of every window; special tokens are no rows" in said
    assert "held out for evals" in said
    never = command("plan", model, text, tmp_path / "runs", "--source.eval-share", "0.2", "--source.bos", "never")
    assert main(never) == 0
    assert "no BOS" in capsys.readouterr().out


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.slow
def test_fault_16_the_cache_takes_what_plan_said(blocks, model, tmp_path):
    """In whole blocks, with the eval split, of a world and of a text."""
    for source in (WORLD, tiny_lm.source(model, tiny_lm.write_corpus(tmp_path / "text.jsonl"))):
        tokens = int(blocks * 0.7 * (1024 if source is WORLD else 150))
        member = experiment(tokens=tokens)
        member = replace(member, source=source, training=replace(member.training, batch_size=16))
        said = plan.estimate([member]).cache
        folder = tmp_path / type(source).__name__
        write_cache(source, folder, seed=0, tokens=tokens, splits=["train"])
        write_cache(source, folder, seed=0, tokens=EVAL_ROWS, splits=["eval"])
        assert said == pytest.approx(sum(path.stat().st_size for path in folder.iterdir()), rel=0.03)


def directions(*only: str) -> list:
    from unbraid.studies.directions import directions

    study = directions()
    assert isinstance(study, Study)
    chosen = {name: member for name, member in study.members.items() if name in only}
    return replace(study, members=chosen, seeds=(0, 1)).experiments()


def test_fault_16_plan_does_not_make_the_fits_it_estimates(monkeypatch):
    steps = []
    whole = Melbo._ascended

    def counted(self, u, earlier, given, done, total):
        told = given._replace(watch=lambda at, of: (steps.append((at, of)), given.watch(at, of)))
        return whole(self, u, earlier, told, done, total)

    monkeypatch.setattr(Melbo, "_ascended", counted)
    found = plan.estimate(directions("melbo-l0_3"))
    assert 0 < len(steps) < 10, "a few steps of one seed's, of 300 for each of 32 directions"
    assert steps[0][1] >= 16 * 300
    assert found.kinds == 1 and found.fitting > 0 and found.seconds >= found.fitting


@pytest.mark.parametrize("init", [Melbo(steps=40, orthogonality="joint"), LinearDct(form="power"), QuadraticDct()])
@pytest.mark.slow
def test_fault_16_a_fit_takes_about_what_its_steps_say(init, monkeypatch):
    """On a clock of its own, which every pass through the downstream layers moves on by a second a direction."""
    clock = [0.0]
    from unbraid.cli import fit_timing
    from unbraid.dictionary.initialisation import no_progress
    from unbraid.steering.base import FitContext
    from unbraid.steering.model_slice import Slice

    for name in ("value_and_gradient", "first", "second", "second_back"):
        real = getattr(Slice, name)

        def passed(self, directions, *rest, real=real):
            clock[0] += len(directions)
            return real(self, directions, *rest)

        monkeypatch.setattr(Slice, name, passed)
    monkeypatch.setattr(fit_timing.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(fit_timing, "PATIENCE", math.inf)
    said = fit_seconds(init, 20, replace(WORLD, d_in=24))
    clock[0] = 0.0
    contexts = init.contexts_of(replace(WORLD, d_in=24))
    init.fit(20, FitContext(Slice.of(contexts), FixedRadius(1.0), torch.Generator().manual_seed(0), no_progress))
    assert said == pytest.approx(clock[0], rel=0.25)


def test_a_fit_that_cannot_be_is_refused_by_plan_though_it_is_not_made():
    with pytest.raises(ValueError, match="at most 16 directions are orthogonal"):
        fit_seconds(Melbo(), 17, WORLD)


def test_fault_16_members_that_cost_the_same_are_measured_once(monkeypatch):
    measured = []
    real = plan.cost
    monkeypatch.setattr(plan, "cost", lambda member, *rest: measured.append(member) or real(member, *rest))
    base = experiment()
    cohort = [replace(base, seed=seed, name=f"m{seed}") for seed in range(5)] + [experiment("other", tokens=12_800)]
    seen: list[tuple[int, int]] = []
    found = plan.estimate(cohort, watch=lambda done, total: seen.append((done, total)))
    assert len(measured) == found.measured == found.kinds == 2 and seen == [(1, 2), (2, 2)]


def test_fault_16_measuring_ends_when_patience_does_and_says_so(monkeypatch):
    cohort = [experiment(f"m{tokens}", tokens=tokens) for tokens in (6400, 7200, 8000, 8800)]
    monkeypatch.setattr(plan, "cost", lambda *_: plan.Cost(10.0, 1.0, 4))
    found = plan.estimate(cohort, patience=0.0)
    assert (found.measured, found.kinds, found.fitting, found.kept) == (1, 4, 4.0, 16)


@pytest.mark.parametrize("name", ["plan", "train"])
def test_fault_12_tokens_that_the_norm_filter_leaves_out_are_missed_before_training(name, model, tmp_path, capsys):
    text = tiny_lm.write_corpus(tmp_path / "text.jsonl", count=300)
    few = ["--source.eval-share", "0.2", "--source.max-norm-ratio", "1.0"]  # half of all rows exceed the median
    source = tiny_lm.source(model, text)
    tokens = str(int(0.9 * source.available("train")))
    assert main([*command(name, model, text, tmp_path / "runs", *few), "--training.tokens", tokens]) == 2
    assert "exceed the norm that --source.max-norm-ratio allows" in capsys.readouterr().err
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.name != ".lock" and path.is_file()]


def test_fault_12_an_unfinished_run_of_a_later_cohort_is_found_before_the_first_is_trained(tmp_path, capsys):
    from unbraid.config.serialise import to_json

    second = replace(experiment("small-batch_size_80"), training=replace(experiment().training, batch_size=80))
    unfinished = tmp_path / second.folder
    unfinished.mkdir()
    (unfinished / "experiment.json").write_text(json.dumps(to_json(second)))
    from unbraid.training.checks import check_unfinished
    from unbraid.training.cohort import left_to_train

    left = left_to_train({tmp_path / e.folder: e for e in (experiment(), second)})
    with pytest.raises(ValueError, match="holds an unfinished run: continue it with --resume"):
        check_unfinished(left, resume=False, overwrite=False)
    check_unfinished(left, resume=True, overwrite=False)
    check_unfinished(left, resume=False, overwrite=True)
