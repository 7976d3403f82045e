"""What every format must do, for every format that is written: what a library has room for reads back as it was, with
what is said of the site; the rest is refused and nothing is left."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from tests.small import WORLD

from unbraid.catalog import activations
from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.dictionary import Dictionary
from unbraid.formats import recognise, saelens
from unbraid.formats.export import WRITERS

METADATA = {
    "model_name": "somebody/model", "hook_name": "blocks.1.hook_resid_post", "context_size": 64, "prepend_bos": True,
}  # fmt: skip
every_format = pytest.mark.parametrize("to", WRITERS)
every_activation = pytest.mark.parametrize("name", activations())


def dictionary(name: str) -> Dictionary:
    """As a run keeps it, with biases that are not zero."""
    kind = activations()[name]
    few = {"k", "initial_l0"} & {field.name for field in fields(kind)}  # type: ignore[arg-type]
    x = WORLD.sample(256, seed=0).x
    x = (x - x.mean(0)) / x.std()
    activation = replace(kind(), **dict.fromkeys(few, 3))  # type: ignore[type-var]
    made = DictionaryConfig(d_sae=24, activation=activation).build(x, seed=0)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for own in ("b_enc", "b_dec"):
            if isinstance(parameter := getattr(made, own, None), torch.nn.Parameter):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=rng))
    return made.for_inference(x).requires_grad_(False)


def written(to: str, name: str, folder: Path) -> Dictionary:
    """What was written to the folder; skips where this library has no such SAE, after a look at how it says so."""
    of = dictionary(name)
    folder.mkdir()
    try:
        WRITERS[to](of, folder, METADATA)
    except ValueError as error:
        assert "--to saelens" in str(error) and not list(folder.iterdir())
        pytest.skip(f"{to} has no such SAE")
    if to == "saelens" and of.activation.architecture() is None:
        with pytest.raises(ValueError, match="no library has an equivalent"):
            saelens.check_known(folder)  # a run folder is in this form, and is not exported
        pytest.skip("only Unbraid reads it")
    return of


@every_format
@every_activation
def test_what_is_written_reads_back_with_equal_outputs(to: str, name: str, tmp_path: Path):
    of, x = written(to, name, tmp_path / "out"), WORLD.sample(128, seed=2).x
    read = recognise.read(tmp_path / "out").dictionary
    torch.testing.assert_close(read(x), of(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(read.encode(x), of.encode(x), rtol=0, atol=1e-5)


@every_format
@every_activation
def test_what_is_said_of_the_site_is_kept(to: str, name: str, tmp_path: Path):
    written(to, name, tmp_path / "out")
    found = recognise.read(tmp_path / "out")
    assert found.format and found.architecture
    if to == "saelens":
        assert {key: found.trained.get(key) for key in METADATA} == METADATA
    if found.hook_name:
        assert found.hook_name == METADATA["hook_name"]


@every_format
@every_activation
def test_written_again_it_is_the_same_byte_for_byte(to: str, name: str, tmp_path: Path):
    for folder in ("one", "two"):
        written(to, name, tmp_path / folder)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / folder).iterdir()} for folder in ("one", "two"))
    assert one == two


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
@every_format
def test_damaged_weights_are_refused_in_a_sentence(to: str, damage: str, tmp_path: Path):
    written(to, "TopK", tmp_path / "out")
    path = recognise.weights_of(tmp_path / "out")
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"not weights at all"}[damage])
    with pytest.raises(ValueError) as refused:
        recognise.read(tmp_path / "out")
    assert str(tmp_path / "out") in str(refused.value) or path.name in str(refused.value)


@every_format
def test_a_config_of_something_else_is_refused(to: str, tmp_path: Path):
    written(to, "TopK", tmp_path / "out")
    (config,) = (tmp_path / "out").glob("*.json")
    config.write_text('{"architectures": ["LlamaForCausalLM"], "hidden_size": 64}')
    with pytest.raises(ValueError, match=str(tmp_path / "out")):
        recognise.read(tmp_path / "out")


def test_a_folder_of_no_format_is_refused_with_the_files_that_were_looked_for(tmp_path: Path):
    (tmp_path / "weights.bin").write_bytes(b"somebody's")
    with pytest.raises(ValueError, match="holds no SAE: expected one of .*sae_weights.safetensors"):
        recognise.read(tmp_path)
