"""Several layers of a language model from one pass, each as it would be alone; windows of like length run together."""

import json
from pathlib import Path

import pytest
import torch
from tests import tiny_lm

from unbraid.cli.main import main
from unbraid.sources.cached import Cached, write_cache
from unbraid.sources.language_model.harvest import Harvest, at_layers, layer_number
from unbraid.sources.language_model.language_model import LanguageModel


@pytest.fixture(scope="module")
def live(tmp_path_factory) -> LanguageModel:
    home = tmp_path_factory.mktemp("harvest")
    text = tiny_lm.write_corpus(home / "words.jsonl", 40)
    return tiny_lm.source(tiny_lm.write_model(home / "llama"), text, max_norm_ratio=1.1)


def test_rows_are_those_of_each_window_alone_in_the_order_of_the_text(live):
    block = live.block(1, split="train", seed=3)
    found = live._corpus.block(1, split="train", seed=3)
    assert block is not None and found is not None
    packed, which = found
    alone = [packed.windows(which[at : at + 1]) for at in range(len(which))]
    assert len({len(windows.ids[0]) for windows in alone}) > 2, "windows of several lengths"
    acts = torch.cat([live.activations(windows)[windows.keep] for windows in alone])
    kept = acts.norm(dim=1) <= live.max_norm
    assert 0 < block.filtered == int((~kept).sum())
    torch.testing.assert_close(block.rows.x, acts[kept], rtol=1e-4, atol=1e-5)
    for name, wanted in {
        "tokens": torch.cat([windows.ids[windows.keep] for windows in alone]),
        "documents": torch.cat([windows.documents.expand(int(windows.keep.sum())) for windows in alone]),
        "positions": torch.cat([windows.keep[0].nonzero()[:, 0] for windows in alone]),
    }.items():
        assert torch.equal(getattr(block.rows, name), wanted[kept]), name


def test_each_layer_of_one_pass_is_the_source_at_that_layer_bit_for_bit(live):
    several = at_layers(live, ["1/2", "0"])
    assert [source.layer for source in several] == [2, 0]
    passes: list[int] = []
    model = live._model
    assert [source._hook_point.of_input for source in several] == [False, False], "proven, by passes of their own"
    hook = model.register_forward_pre_hook(lambda *_: passes.append(1))
    found = Harvest(several).blocks(0, split="train", seed=0)
    hook.remove()
    packed = live._corpus.block(0, split="train", seed=0)
    assert packed is not None and len(passes) == -(-len(packed[1]) // live.batch), (
        "and the norms took none of their own"
    )
    assert found is not None
    for source, block in zip(several, found, strict=True):
        own = tiny_lm.source(Path(live.model), live.text, max_norm_ratio=1.1, layer=source.layer)
        alone = own.block(0, split="train", seed=0)
        assert alone is not None and torch.equal(alone.rows.x, block.rows.x) and alone.filtered == block.filtered
    assert Harvest(several).blocks(10**6, split="train", seed=0) is None


def test_the_command_writes_a_folder_a_layer_equal_to_one_written_alone(live, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["lm_topk", "--source.model", live.model, "--source.text", live.text, "--source.context", "12",
             "--source.buffer-tokens", "200", "--training.tokens", "500"]  # fmt: skip
    assert main(["cache", *flags, "--layers", "1", "3/4", "--stored", "bfloat16", "--to", "acts"]) == 0
    assert "acts/layer_1" in (said := capsys.readouterr().out) and "acts/layer_3" in said
    assert main(["cache", *flags, "--source.layer", "3", "--stored", "bfloat16", "--to", "alone"]) == 0
    for path in sorted((tmp_path / "alone").iterdir()):
        assert path.read_bytes() == (tmp_path / "acts" / "layer_3" / path.name).read_bytes(), path.name
    index = json.loads((tmp_path / "acts" / "layer_1" / "index.json").read_text())
    assert index["source"]["layer"] == 1 and index["dtype"] == "bfloat16"
    assert main(["cache", *flags, "--layers", "1", "4", "--to", "none"]) == 2
    assert "'4' is no layer of this model, which has 4: name a number from 0 to 3" in capsys.readouterr().err
    assert main(["cache", "world", "--layers", "1", "--to", "none"]) == 2
    assert "--layers is for language models, and a World has none" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_shares_of_the_depth_are_rounded_down_and_each_layer_is_named_once(live):
    assert [layer_number(name, 30) for name in ("1/3", "1/2", "10", "29")] == [10, 15, 10, 29]
    for name in ("30", "-1", "1/0", "2/1", "a third", "1.5"):
        with pytest.raises(ValueError, match=f"'{name}' is no layer of this model, which has 30"):
            layer_number(name, 30)
    with pytest.raises(ValueError, match="name layer 2 twice; name each once"):
        at_layers(live, ["2", "1/2"])


def test_ids_take_twelve_bytes_a_row(live, tmp_path):
    from safetensors import safe_open

    cached = write_cache(live, tmp_path, seed=3, splits=("train",), blocks=1)
    with safe_open(next(tmp_path.glob("*.safetensors")), framework="pt") as stored:
        ids = [stored.get_tensor(name) for name in ("tokens", "documents", "positions")]
    assert sum(column.element_size() for column in ids) == 12
    block = Cached(folder=cached.folder).block(0, split="train", seed=3)
    assert block is not None and block.rows.tokens.dtype == torch.int64
