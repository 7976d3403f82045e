"""The whole line on language models: train a cohort, load it in SAELens, score it, report it; killed and resumed
too."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.callbacks import AtProgress
from tests.data import data_folder
from tests.tiny_lm import CONTEXT, write_corpus, write_model
from unbraid import catalog
from unbraid.cli.plan import budget
from unbraid.evals.shared.evaluation import evaluate
from unbraid.experiment.experiment import Experiment, Training
from unbraid.experiment.study import Study
from unbraid.report import collect, write_report
from unbraid.runs.run import Run
from unbraid.sources.cached import Cached, write_cache
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.sites import Site
from unbraid.sources.stream import held_out
from unbraid.studies.methods import compared
from unbraid.training.loop import train


def study(source: LanguageModel | Cached, *, l0: int = 4, d_sae: int = 48, tokens: int = 1920) -> list[Experiment]:
    training = Training(tokens=tokens, batch_size=96, dead_after=960)
    return Study(source=source, d_sae=d_sae, training=training, seeds=(0,), members=compared((l0,))).experiments()


def tiny(folder: Path, family: str, site: Site = "resid_post") -> LanguageModel:
    model = write_model(folder / family, family)
    text = write_corpus(folder / "text.jsonl", 200)
    return LanguageModel(
        model=str(model),
        layer=1,
        site=site,
        text=str(text),
        context=CONTEXT,
        buffer_tokens=512,
        epochs=4,
        eval_share=0.2,
    )


def score_all(runs: list[Path], *names: str) -> dict[str, dict[str, float]]:
    """Scores by run and metric, of all evals or those named, after asserting that nothing failed."""
    opened, known = [Run.open(path) for path in runs], catalog.evals()
    assert evaluate(opened, [known[name] for name in names or known]) == 0
    rows = collect(runs)
    return {
        str(name): dict(
            zip(
                part["metric"] + part["params"].map(lambda p: p.removeprefix("against ") if "against" in p else ""),
                part["value"],
                strict=True,
            )
        )
        for name, part in rows.groupby("name")
    }


def some(members: list[Experiment], *names: str) -> list[Experiment]:
    return [member for member in members if member.name in names]


every_family = pytest.mark.parametrize("family", ["gpt_neox", "gpt2", "gemma2", "llama"])


@every_family
def test_every_family_goes_from_text_to_report(family: str, tmp_path: Path):
    members = some(study(tiny(tmp_path, family)), "batchtopk", "effect", "untrained")
    check_from_text_to_report(members, tmp_path, "fidelity")


@pytest.mark.slow
@every_family
def test_every_family_goes_from_text_to_report_by_all_evals(family: str, tmp_path: Path):
    """All members are trained on each, and scored on one: an eval sees a dictionary and the family, not the member."""
    members = study(tiny(tmp_path, family))
    assert len(members) == 14
    check_from_text_to_report(members, tmp_path, of=() if family == "llama" else ("batchtopk", "effect", "untrained"))


def check_from_text_to_report(members: list[Experiment], tmp_path: Path, *evals: str, of: Sequence[str] = ()) -> None:
    """Train members, and score and report those of these names, or all."""
    runs = train(members, tmp_path / "runs")
    assert len(runs) == len(members)
    runs = [run for run, member in zip(runs, members, strict=True) if not of or member.name in of]
    scores = score_all(runs, *evals)
    for found in scores.values():
        assert found["ce_clean"] > 0 and torch.isfinite(torch.tensor(found["loss_recoveredzero"]))
    assert scores["batchtopk-l0_4"]["fvu"] < scores["untrained-l0_4"]["fvu"]
    write_report(runs, tmp_path / "report.html")
    assert "batchtopk" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("site", ["resid_pre", "mlp_out", "attn_out"])
def test_other_sites_train_with_terms_that_need_no_slice(site: Site, tmp_path: Path):
    members = some(study(tiny(tmp_path, "llama", site)), "topk", "jumprelu", "untrained")
    runs = train(members, tmp_path / "runs")
    cfg = json.loads((runs[0] / "cfg.json").read_text())
    assert cfg["metadata"]["hook_name"] == f"blocks.1.hook_{site}"


def test_a_slice_term_at_the_mlp_is_refused_before_training(tmp_path: Path):
    with pytest.raises(ValueError, match="effect-l0_4: term 'effect' reads contexts, but mlp_out .*resid_post"):
        train(study(tiny(tmp_path, "llama", "mlp_out")), tmp_path / "runs")


class Killed(BaseException):
    """Not an Exception: nothing on the way may catch it and tidy up."""


@pytest.mark.parametrize(
    "names",
    [("batchtopk", "jumprelu", "effect"), pytest.param((), marks=pytest.mark.slow)],
    ids=["some members", "all members"],
)
def test_killed_and_resumed_on_a_language_model_equals_uninterrupted(names: tuple[str, ...], tmp_path: Path):
    members = study(tiny(tmp_path, "gpt_neox"))
    members = some(members, *names) if names else members
    whole = train(members, tmp_path / "whole")

    def kill(tokens: int, total: int) -> None:
        if tokens >= 96 * 13:
            raise Killed

    with pytest.raises(Killed):
        train(members, tmp_path / "killed", checkpoint_steps=5, callbacks=[AtProgress(kill)])
    resumed = train(members, tmp_path / "killed", resume=True)
    for left, right in zip(whole, resumed, strict=True):
        ours, theirs = (load_file(folder / "sae_weights.safetensors") for folder in (left, right))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), left.name


def test_training_from_a_cache_equals_training_live_bit_for_bit(tmp_path: Path):
    source = tiny(tmp_path, "llama")
    write_cache(source, tmp_path / "cache", seed=0)
    live, cached = (
        some(study(s), "topk", "jumprelu", "matryoshka") for s in (source, Cached(folder=str(tmp_path / "cache")))
    )
    for left, right in zip(train(live, tmp_path / "live"), train(cached, tmp_path / "from_cache"), strict=True):
        ours, theirs = (load_file(folder / "sae_weights.safetensors") for folder in (left, right))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


# The second model's ternary layers are slow to run: the ends of the line, a short held-out text and one eval are
# enough there.
@pytest.mark.parametrize(
    ("model", "names", "evals"),
    [
        ("stories260K", ("batchtopk", "untrained"), ("fidelity",)),
        pytest.param("stories260K", ("topk", "batchtopk", "effect", "untrained"), (), marks=pytest.mark.slow),
        pytest.param("bitstories-3M", ("batchtopk", "untrained"), ("fidelity",), marks=pytest.mark.slow),
    ],
    ids=["stories260K", "stories260K, all evals", "bitstories-3M"],
)
def test_a_real_model_and_real_text(model: str, names: tuple[str, ...], evals: tuple[str, ...], tmp_path: Path):
    data = data_folder()
    source = LanguageModel(
        model=str(data / "models" / model), layer=2, text=str(data / "corpora" / "tinystories_1000.jsonl.xz"),
        context=64, buffer_tokens=4096, eval_share=0.02 if model == "stories260K" else 0.005,
    )  # fmt: skip
    runs = train(some(study(source, l0=16, d_sae=128, tokens=9600), *names), tmp_path)
    scores = score_all(runs, *evals)
    trained, untrained = scores["batchtopk-l0_16"], scores["untrained-l0_16"]
    assert trained["fvu"] < untrained["fvu"]
    assert trained["loss_recoveredzero"] > untrained["loss_recoveredzero"]
    assert 1.0 < trained["ce_clean"] < 2.5, "these models were trained on such stories"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sae_lens import SAE

        theirs = SAE.load_from_disk(str(runs[0]), device="cpu")
    x = held_out(source, 64).x
    torch.testing.assert_close(theirs(x), Run.open(runs[0]).dictionary()(x), rtol=0, atol=1e-5)
    assert theirs.cfg.metadata.hook_name == "blocks.2.hook_resid_post"


def test_a_missing_layer_stops_the_plan_by_name(tmp_path: Path):
    beyond = replace(tiny(tmp_path, "gpt2"), layer=12)
    with pytest.raises(ValueError, match="layer 12 does not exist: the model has 4 blocks"):
        budget(study(beyond), tmp_path / "runs")
