"""Runs as other libraries have them, and as a folder to upload."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.small import WORLD, experiment
from tests.spoiled import resealed

from unbraid.cli.main import main
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.matching_pursuit import MatchingPursuit
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.evals.fidelity import DEFINITIONS, VERSION, fidelity
from unbraid.evals.shared.evaluation import Eval, evaluate
from unbraid.formats import recognise
from unbraid.formats.export import Target, export
from unbraid.runs.run import Run
from unbraid.sources.stream import held_out
from unbraid.training.loop import train

KINDS = {"relu": ReLU(), "topk": TopK(3), "jumprelu": JumpReLU(), "pursuit": MatchingPursuit(3)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    members = [experiment(name, activation=activation, tokens=1600) for name, activation in KINDS.items()]
    paths = train(members, tmp_path_factory.mktemp("runs"))
    evaluate([Run.open(paths[1])], [Eval("fidelity", VERSION, DEFINITIONS, fidelity)])
    return dict(zip(KINDS, paths, strict=True))


CAN: list[tuple[str, Target]] = [
    ("relu", "dictionary_learning"), ("topk", "dictionary_learning"), ("jumprelu", "dictionary_learning"),
    ("topk", "sparsify"), ("pursuit", "saelens"), ("jumprelu", "saelens"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "to"), CAN)
def test_what_is_exported_reads_back_as_the_run(name: str, to: Target, runs: dict[str, Path], tmp_path: Path):
    export(runs[name], tmp_path / "out", to)
    published, x = recognise.read(tmp_path / "out"), held_out(WORLD, 256).x
    torch.testing.assert_close(published.dictionary(x), Run.open(runs[name]).dictionary()(x), rtol=0, atol=1e-5)
    assert (tmp_path / "out" / "unbraid_experiment.json").is_file()


@pytest.mark.parametrize(
    ("name", "to"), [("pursuit", "dictionary_learning"), ("relu", "sparsify"), ("jumprelu", "sparsify")]
)
def test_what_a_library_has_no_room_for_leaves_nothing(name: str, to: Target, runs: dict[str, Path], tmp_path: Path):
    with pytest.raises(ValueError, match="export it --to saelens"):
        export(runs[name], tmp_path / "out", to)
    assert list(tmp_path.iterdir()) == []


def test_a_hub_folder_has_a_card_an_index_entry_and_what_saelens_loads(runs: dict[str, Path], tmp_path: Path):
    export(runs["topk"], tmp_path / "topk-world", "hub", repo="somebody/topk-world")
    folder = tmp_path / "topk-world" / "blocks.0.hook_resid_post"
    x = held_out(WORLD, 256).x
    torch.testing.assert_close(recognise.read(folder).dictionary(x), Run.open(runs["topk"]).dictionary()(x))
    card = (tmp_path / "topk-world" / "README.md").read_text(encoding="utf-8")
    front, _, body = card.removeprefix("---\n").partition("---\n")
    assert "library_name: saelens" in front and "base_model" not in front, "a world is no model on a hub"
    assert 'SAE.from_pretrained("somebody/topk-world", "blocks.0.hook_resid_post")' in body
    assert "| reconstruction | Reconstruction, weight 1 |" in body and "| aux_k | AuxK, weight 0.03125 |" in body
    assert "| fvu |" in body and "Not scored yet" not in body
    assert {p.name for p in folder.iterdir()} == {
        "cfg.json", "sae_weights.safetensors", "unbraid_experiment.json", "unbraid_provenance.json"
    }  # fmt: skip


def test_saelens_understands_the_index_entry(runs: dict[str, Path], tmp_path: Path):
    yaml = pytest.importorskip("yaml")
    export(runs["topk"], tmp_path / "topk-world", "hub", repo="somebody/topk-world")
    entry = yaml.safe_load((tmp_path / "topk-world" / "pretrained_saes.yaml").read_text(encoding="utf-8"))
    assert set(entry) == {"topk-world"}
    assert entry["topk-world"]["repo_id"] == "somebody/topk-world" and entry["topk-world"]["model"] == "world"
    (sae,) = entry["topk-world"]["saes"]
    assert (
        sae["id"] == sae["path"] == "blocks.0.hook_resid_post" and sae["neuronpedia"] == "world/0-resid-post-topk-world"
    )
    assert 0 < sae["l0"] <= 3 and 0 < sae["variance_explained"] < 1


def test_a_card_without_scores_says_so(runs: dict[str, Path], tmp_path: Path):
    export(runs["relu"], tmp_path / "out", "hub")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "Not scored yet." in card and 'from_pretrained("OWNER/out"' in card


def test_the_command_line_says_how_to_load(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for to, says in {
        "sparsify": "sparsify.SparseCoder.load_from_disk", "dictionary_learning": "load_dictionary(",
        "hub": "hf upload",
    }.items():  # fmt: skip
        assert main(["export", str(runs["topk"]), "--out", str(tmp_path / to), "--to", to]) == 0
        assert says in capsys.readouterr().out
    assert json.loads((tmp_path / "sparsify" / "cfg.json").read_text())["k"] == 3


def test_a_model_that_was_a_folder_wants_a_name(runs: dict[str, Path], tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(runs["topk"], run)
    cfg = json.loads((run / "cfg.json").read_text())
    cfg["metadata"]["model_name"] = str(tmp_path)
    (run / "cfg.json").write_text(json.dumps(cfg))
    resealed(run)
    with pytest.raises(ValueError, match="which others do not have; say what it is called on the hub with --model"):
        export(run, tmp_path / "out", "hub")
    assert not (tmp_path / "out").exists()
    export(run, tmp_path / "out", "hub", model="somebody/model")
    assert "base_model: somebody/model" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    written = json.loads((tmp_path / "out" / "blocks.0.hook_resid_post" / "cfg.json").read_text())
    assert written["metadata"]["model_name"] == "somebody/model"
