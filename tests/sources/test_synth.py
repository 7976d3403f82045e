"""SAELens's synthetic models read as SAELens reads them: same truth, same scores, with random access besides."""

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.small import experiment

from unbraid.config.serialise import from_json, to_json
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.encoding import code_matrix
from unbraid.evals.fidelity import reconstruction
from unbraid.evals.recovery import recovery
from unbraid.evals.shared.evaluation import Score
from unbraid.runs.run import Run
from unbraid.sources.base import Split
from unbraid.sources.stream import Stream, held_out
from unbraid.sources.synth import SYNTHSAEBENCH_16K, Synth
from unbraid.training.loop import train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    sae_lens = pytest.importorskip("sae_lens")
    synthetic = pytest.importorskip("sae_lens.synthetic")

SMALL = Synth(
    num_features=60, hidden_dim=16, total_root_nodes=4, branching_factor=3, max_depth=2, correlation_rank=4,
    min_prob=0.02, orthogonalization_steps=10, block_rows=1024,
)  # fmt: skip
"""52 factors in a forest, 8 on their own."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as SAELens saves it: its hierarchy has a node that only groups others, its vectors are not unit."""
    node = synthetic.HierarchyNode
    group = node(children=[node(2), node(5, [node(7)])])
    roots = [node(1, [node(0), group]), node(children=[node(3)])]
    often = synthetic.ZipfianFiringProbabilityConfig(max_prob=0.8, min_prob=0.5)
    cfg = synthetic.SyntheticModelConfig(num_features=8, hidden_dim=4, firing_probability=often, bias=0.5, seed=3)
    hierarchy = synthetic.Hierarchy(roots, synthetic.hierarchy_modifier(roots))
    model = synthetic.SyntheticModel(cfg, hierarchy=hierarchy)
    model.feature_dict.feature_vectors.data *= torch.linspace(0.5, 2, 8).unsqueeze(1)
    path = tmp_path_factory.mktemp("saved")
    model.save(path)
    return path


def theirs(path: Path, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        return synthetic.SyntheticModel.load_from_disk(path).sample_with_features(count)


def test_a_generated_model_is_the_one_saelens_generates():
    cfg = synthetic.SyntheticModelConfig(
        num_features=60, hidden_dim=16, bias=0.5, seed=42,
        firing_probability=synthetic.ZipfianFiringProbabilityConfig(exponent=0.5, max_prob=0.4, min_prob=0.02),
        hierarchy=synthetic.HierarchyConfig(
            total_root_nodes=4, branching_factor=3, max_depth=2, mutually_exclusive_portion=1.0,
            compensate_probabilities=True, scale_children_by_parent=True,
        ),
        orthogonalization=synthetic.OrthogonalizationConfig(num_steps=10, lr=3e-4),
        correlation=synthetic.LowRankCorrelationConfig(rank=4, correlation_scale=0.1),
        mean_firing_magnitudes=synthetic.LinearMagnitudeConfig(start=5.0, end=4.0),
        std_firing_magnitudes=synthetic.FoldedNormalMagnitudeConfig(mean=0.5, std=0.5),
    )  # fmt: skip
    model, ours = synthetic.SyntheticModel(cfg), replace(SMALL)._synthetic
    assert ours.cfg == cfg and ours.hierarchy == model.hierarchy
    assert torch.equal(ours.feature_dict.feature_vectors, model.feature_dict.feature_vectors)
    assert torch.equal(ours.feature_dict.bias, model.feature_dict.bias)
    for name in ("firing_probabilities", "mean_firing_magnitudes", "std_firing_magnitudes", "correlation_thresholds"):
        assert torch.equal(getattr(ours.activation_generator, name), getattr(model.activation_generator, name))


def test_activations_are_the_bias_and_the_labelled_factors():
    for source in (SMALL, replace(SMALL, total_root_nodes=0, correlation_rank=0, orthogonalization_steps=0)):
        labelled = source.labelled(2000, split="eval")
        torch.testing.assert_close(
            labelled.x, labelled.dense() @ source.directions + source._synthetic.feature_dict.bias.detach()
        )
        assert (labelled.magnitudes > 0).all() and (labelled.rows.diff() >= 0).all()


def test_factors_fire_as_often_and_as_strongly_as_saelens_samples_them(folder: Path):
    source = Synth(model=str(folder))
    ours, (x, z) = source.labelled(20_000, split="eval"), theirs(folder, 20_000)
    z = z * torch.linspace(0.5, 2, 8)  # a magnitude is along the unit direction
    fires, expected = (ours.dense() > 0).double().mean(0), (z > 0).double().mean(0)
    assert ((fires - expected).abs() < 5 * (2 * expected / len(z)).sqrt()).all()
    assert ours.dense().amax(0).tolist() == pytest.approx(z.amax(0).tolist(), rel=1e-5)
    torch.testing.assert_close(ours.x.mean(0), x.mean(0), atol=0.1, rtol=0)


def test_what_is_saved_is_what_is_read(folder: Path):
    source = Synth(model=str(folder))
    assert source.d_in == 4 and len(source.names) == 8 and source.directions.shape == (8, 4)
    torch.testing.assert_close(source.directions.norm(dim=1), torch.ones(8))
    assert source.parents.tolist() == [1, -1, 1, -1, -1, 1, -1, 5], "a node without a factor passes its parent on"
    z = source.labelled(4000, split="train").dense()
    children = (source.parents >= 0).nonzero().squeeze(1)
    assert (z[:, children].gt(0) <= z[:, source.parents[children]].gt(0)).all()


def test_the_forest_is_the_one_that_gates():
    assert (SMALL.parents == -1).sum() == 4 + 8 and SMALL.parents.shape == (60,)
    active = SMALL.labelled(8000, split="train").dense() > 0
    children = (SMALL.parents >= 0).nonzero().squeeze(1)
    assert len(children) == 12 + 36 and (active[:, children] <= active[:, SMALL.parents[children]]).all()
    together = [int(active[:, SMALL.parents == p].sum(1).max()) for p in SMALL.parents[children].unique()]
    assert max(together) == 1, "siblings exclude one another"


@pytest.mark.parametrize("split", ["train", "eval"])
def test_blocks_are_random_access_and_leave_the_global_generator_alone(split: Split):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    second = SMALL.block(1, split=split, seed=0).rows.x
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    again = replace(SMALL)
    again.block(0, split=split, seed=0)
    assert torch.equal(again.block(1, split=split, seed=0).rows.x, second)
    other: Split = "train" if split == "eval" else "eval"
    others: list[tuple[int, Split, int]] = [(2, split, 0), (1, split, 1), (1, other, 0)]
    assert not any(torch.equal(SMALL.block(i, split=s, seed=seed).rows.x, second) for i, s, seed in others)
    assert not torch.equal(SMALL.labelled(1024, split=split).x, SMALL.block(0, split=split, seed=0).rows.x)


def test_a_restored_stream_continues_bit_for_bit():
    straight = Stream(SMALL, 160, seed=0)
    for _ in range(9):
        next(straight)
    resumed = Stream(replace(SMALL), 160, seed=0)
    resumed.restore(straight.position)
    for _ in range(9):
        assert torch.equal(next(resumed).x, next(straight).x)


def values(scores: list[Score]) -> dict[str, float]:
    return {s.metric: s.value for s in scores if s.kind == "measured"}


def test_scores_of_a_trained_run_are_those_of_saelens_own_eval(tmp_path: Path):
    base = replace(experiment(activation=TopK(4), tokens=64_000), source=SMALL)
    base = replace(base, dictionary=replace(base.dictionary, d_sae=32))
    (path,) = train([base], tmp_path)
    run = Run.open(path)
    made, x = run.dictionary(), held_out(run.source, 32_768).x
    ours = values(recovery(run)) | values(reconstruction(made, x, code_matrix(made, x)))
    model = SMALL._synthetic
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        sae = sae_lens.SAE.load_from_disk(str(path), device="cpu")
        torch.manual_seed(1)
        expected = synthetic.eval_sae_on_synthetic_data(
            sae, model.feature_dict, model.activation_generator, num_samples=32_768, batch_size=4096
        )
    assert ours["mcc"] == pytest.approx(expected.mcc, abs=1e-5)
    assert ours["uniqueness"] == pytest.approx(expected.uniqueness)
    assert ours["f1_latents"] == pytest.approx(expected.classification.f1_score, abs=0.01)
    assert 0.2 < ours["f1_latents"] < 0.95, "an extreme would show nothing"
    assert ours["explained_variance"] == pytest.approx(expected.explained_variance, abs=0.01)
    assert ours["l0"] == pytest.approx(expected.sae_l0, abs=0.02)


def test_truth_can_be_asked_for_without_gradients():
    with torch.no_grad():
        assert not replace(SMALL, seed=3).directions.requires_grad


def test_it_is_configuration_and_has_no_layers_after(folder: Path):
    for source in (SMALL, Synth(model=str(folder)), SYNTHSAEBENCH_16K):
        assert from_json(to_json(source)) == source
    assert SMALL.truth() is SMALL and SMALL.available("train") == float("inf") and SMALL.sample_text(2) == []
    with pytest.raises(ValueError, match="no downstream map"):
        SMALL.contexts(2, split="train", seed=0)
    assert SYNTHSAEBENCH_16K.d_in == 768, "known before anything is generated"


def test_bad_input_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="loaded as it was saved; num_features, seed cannot be set"):
        Synth(model="somewhere", num_features=7, seed=3)
    with pytest.raises(ValueError, match="block_rows is 0; it must be at least 1"):
        Synth(block_rows=0)
    with pytest.raises(ValueError, match="cannot load a synthetic model from .*SyntheticModel.save wrote"):
        _ = Synth(model=str(tmp_path)).d_in
    with pytest.raises(ValueError, match="branching_factor is 1; it must be at least 2"):
        Synth(branching_factor=1)
    monkeypatch.setitem(sys.modules, "sae_lens.synthetic", None)
    with pytest.raises(ValueError, match=r"pip install 'unbraid\[synth\]'"):
        _ = Synth(seed=1).directions
    assert len(Synth(seed=1, num_features=300).names) == 300, "a count asks for no model"
