"""Model folders that are damaged, or of another kind, are told in one sentence that names the model (fault 23)."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests import tiny_lm


def cut(name: str, length: int) -> Callable[[Path], object]:
    return lambda model: (model / name).write_bytes((model / name).read_bytes()[:length])


def put(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda model: (model / name).write_bytes(content)


def pickled(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(b"garbage")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "weights cut short": cut("model.safetensors", 1000), "weights empty": cut("model.safetensors", 0),
    "weights in a pickle that is none": pickled,
    "weights missing": lambda model: (model / "model.safetensors").unlink(),
    "configuration cut short": cut("config.json", 20), "configuration of nothing": put("config.json", b"{}"),
    "configuration of another shape": put("config.json", b"[1]"),
    "configuration binary": put("config.json", b"\xff\x00"),
    "configuration of an unknown kind": put("config.json", b'{"model_type": "never-seen"}'),
    "tokenizer cut short": cut("tokenizer.json", 30), "tokenizer empty": cut("tokenizer.json", 0),
    "tokenizer of another shape": put("tokenizer.json", b'{"model": 3}'),
    "tokenizer binary": put("tokenizer.json", b"\xff\xfe\x00"),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny_lm.write_model(tmp_path_factory.mktemp("model")))


@pytest.mark.filterwarnings("ignore")  # transformers warns of some of them before it fails
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_fault_23_a_damaged_model_folder_is_named_with_a_remedy(
    damage: Callable[[Path], object], whole: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(whole, tmp_path / "damaged-model"))
    damage(model)
    source = tiny_lm.source(model, tiny_lm.write_corpus(tmp_path / "text.jsonl"))
    with pytest.raises(
        ValueError, match=r"cannot load the (configuration|tokenizer|weights) of model '.*damaged-model'.*;"
    ):
        source.available("train")
        source.block(0, split="train", seed=0)
