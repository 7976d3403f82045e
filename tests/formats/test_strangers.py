"""Folders of strangers: whatever they hold is a dictionary, or one sentence that names the file."""

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tests.formats.folders import CONFIGS, D_IN, D_SAE, WRITERS, K, gemma_scope_1, made, saelens, weights

from unbraid.dictionary.activations.topk import TopK
from unbraid.formats import recognise, tensors
from unbraid.formats.published import Published

ROWS = torch.randn(20, D_IN, generator=torch.Generator().manual_seed(1))
KINDS = pytest.mark.parametrize("name", CONFIGS)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.text(max_size=8)
    | st.sampled_from(["none", "relu", "topk", "standard", "jumprelu", "gated", "abstopk", "matching_pursuit", "hook_z",
                       "expected_average_only_in", "GatedAutoEncoder", "BatchTopKSAE", "AutoEncoder"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=6,
)  # fmt: skip


@st.composite
def configs(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """A config with some of its settings changed, left out or added, at the top and one level down."""
    config = json.loads(json.dumps(CONFIGS[name]))
    for at in [config, *(value for value in config.values() if isinstance(value, dict))]:
        keys = st.sampled_from([*at, "architecture", "k", "d_in", "signed"]) | st.text(max_size=6)
        for key, value in draw(st.dictionaries(keys, JSON, max_size=3)).items():
            at[key] = value
        for key in draw(st.sets(st.sampled_from(sorted(at) or ["k"]), max_size=1)):
            at.pop(key, None)
    return config


def dictionary_or_sentence(folder: Path) -> Published | None:
    """The SAE, if it is one that computes. What is raised must name the folder, in one line."""
    try:
        published = recognise.read(folder)
    except ValueError as error:
        assert str(folder) in str(error) and "\n" not in str(error)
        return None
    made = published.dictionary
    assert all(torch.isfinite(value).all() for value in made.parameters())
    assert torch.isfinite(made(ROWS[:, :1].expand(-1, made.d_in))).all()
    return published


COMMON = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@KINDS
def test_fault_06_any_settings_beside_whole_weights_are_read_or_refused(name: str, tmp_path: Path):
    made(tmp_path, name)
    file = tmp_path / ("cfg.json" if (tmp_path / "cfg.json").exists() else "config.json")
    whole = dictionary_or_sentence(tmp_path)
    assert whole is not None

    @COMMON
    @given(config=configs(name))
    def check(config: dict[str, Any]) -> None:
        file.write_text(json.dumps(config))
        dictionary_or_sentence(tmp_path)

    check()


@pytest.mark.parametrize(
    "text", ["[]", "3", '"x"', "null", "{", "", "[" * 100_000, "1" * 5000, '{"k": ' + "9" * 5000 + "}"]
)
@pytest.mark.parametrize("name", ["topk", "sparsify", "dictionary_learning", "gemma scope 2"])
def test_fault_06_what_is_no_settings_is_refused(text: str, name: str, tmp_path: Path):
    made(tmp_path, name)
    file = tmp_path / ("cfg.json" if (tmp_path / "cfg.json").exists() else "config.json")
    file.write_text(text)
    assert dictionary_or_sentence(tmp_path) is None


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    how = draw(st.sampled_from(["cut", "set", "insert", "other", "zero"]))
    at = draw(st.integers(0, len(whole) - 1))
    if how == "cut":
        return whole[:at]
    if how == "zero":
        return whole[:at] + bytes(len(whole) - at)
    some = draw(st.binary(min_size=1, max_size=12))
    return some if how == "other" else whole[:at] + some + whole[at + (len(some) if how == "set" else 0) :]


@pytest.mark.parametrize("name", ["jumprelu", "sparsify", "dictionary_learning", "gemma scope 2", "gemma scope 1"])
def test_fault_06_any_bytes_as_weights_are_read_or_refused(name: str, tmp_path: Path):
    folder = gemma_scope_1(tmp_path) if name == "gemma scope 1" else made(tmp_path, name)
    file = recognise.weights_of(folder)
    whole = file.read_bytes()

    @COMMON
    @given(data=damaged(whole))
    def check(data: bytes) -> None:
        file.write_bytes(data)
        dictionary_or_sentence(folder)

    check()


class Trap:
    """A pickle that leaves a mark when it is run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def test_fault_19_no_pickle_runs_however_it_is_wrapped(tmp_path: Path):
    folder, mark = made(tmp_path / "sae", "dictionary_learning"), tmp_path / "sprung"
    raw = pickle.dumps({"b_dec": Trap(mark)})
    zipped = io.BytesIO()
    torch.save({"b_dec": Trap(mark)}, zipped)
    old = io.BytesIO()
    torch.save({"b_dec": Trap(mark)}, old, _use_new_zipfile_serialization=False)
    for data in (raw, zipped.getvalue(), old.getvalue()):
        (folder / "ae.pt").write_bytes(data)
        with pytest.raises(ValueError, match=r"ae\.pt cannot be read as tensors alone"):
            recognise.read(folder)
    npz = gemma_scope_1(tmp_path / "npz", b_dec=np.array([Trap(mark)], dtype=object))
    with pytest.raises(ValueError, match=r"params\.npz cannot be read as tensors alone"):
        recognise.read(npz)
    assert not mark.exists()


def test_fault_19_a_model_in_place_of_tensors_is_refused(tmp_path: Path):
    folder = made(tmp_path, "dictionary_learning")
    for held in (torch.zeros(3), {"b_dec": [1, 2]}, {3: torch.zeros(2)}, [torch.zeros(2)]):
        torch.save(held, folder / "ae.pt")
        with pytest.raises(ValueError, match=r"ae\.pt"):
            recognise.read(folder)


def test_fault_19_what_would_not_fit_into_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Memory:
        available = 1000

    monkeypatch.setattr(tensors.psutil, "virtual_memory", Memory)
    folders = [made(tmp_path / name, name) for name in ("topk", "sparsify", "dictionary_learning", "gemma scope 2")]
    for folder in (*folders, gemma_scope_1(tmp_path / "npz")):
        with pytest.raises(ValueError, match=r"takes about 0\.0 GB of memory, and 0\.0 GB are free"):
            recognise.read(folder)


def test_fault_19_a_zip_that_unpacks_to_more_than_there_is_is_refused(tmp_path: Path):
    """40 kB that say they hold 64 TB; and an array that states more numbers than its file has bytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**44,)})
    with zipfile.ZipFile(tmp_path / "params.npz", "w") as archive:
        archive.writestr("W_enc.npy", header.getvalue() + bytes(400))
    with pytest.raises(ValueError, match=r"states the shape \(17592186044416,\), and holds"):
        recognise.read(tmp_path)
    folder = made(tmp_path / "dl", "dictionary_learning")
    data = bytearray((folder / "ae.pt").read_bytes())
    at = data.index(b"PK\x01\x02")  # the directory's first entry, whose unpacked size stands 24 bytes on
    data[at + 24 : at + 28] = struct.pack("<I", 2**32 - 2)
    for _ in range(7):
        at = data.find(b"PK\x01\x02", at + 1)
        if at > 0:
            data[at + 24 : at + 28] = struct.pack("<I", 2**32 - 2)
    (folder / "ae.pt").write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"ae\.pt"):
        recognise.read(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_fault_19_a_pipe_in_place_of_a_file_does_not_wait_for_ever(tmp_path: Path):
    folder = made(tmp_path / "a", "topk")
    (folder / "cfg.json").unlink()
    os.mkfifo(folder / "cfg.json")
    with pytest.raises(ValueError, match=r"cfg\.json is no ordinary file"):
        recognise.read(folder)
    other = made(tmp_path / "b", "topk")
    (other / "sae_weights.safetensors").unlink()
    os.mkfifo(other / "sae_weights.safetensors")
    with pytest.raises(ValueError, match=r"sae_weights\.safetensors is no ordinary file"):
        recognise.read(other)


def test_a_hub_cache_is_read_through_its_links(tmp_path: Path):
    """Its folders hold links into a store beside them, so links are no reason to refuse."""
    real = made(tmp_path / "blobs", "topk")
    (tmp_path / "snapshot").mkdir()
    for file in real.iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(file)
    assert recognise.read(tmp_path / "snapshot").dictionary.activation == TopK(K)


ON: list[tuple[str, dict[str, Any], str]] = [
    ("sparsify", {"signed": True}, "signed is True; its latents have either sign"),
    ("sparsify", {"transcode": True}, "transcode is True; it is a transcoder.*out of scope"),
    ("sparsify", {"skip_connection": True}, "is a transcoder"),
    ("sparsify", {"embed_skip": True}, "embed_skip is True; it adds a map of the embedding"),
    ("sparsify", {"gram_lookup": True}, "a table of n-grams"),
    ("sparsify", {"post_scale": 2.0}, "says post_scale = 2.0, which is not known here and may change"),
    ("topk", {"use_error_term": True}, "use_error_term is True; it adds to its output"),
    ("topk", {"hook_head_index": 0}, "hook_head_index is 0; it reads one head"),
    ("topk", {"activation_fn_kwargs": {"signed": True}}, "activation_fn_kwargs is .*SAELens 6 reads none"),
    ("standard", {"k": 32}, "says k = 32, which is not known here"),
    ("standard", {"noise": 0.1}, "says noise = 0.1"),
    ("standard", {"activation_fn": "tanh"}, "says activation_fn = tanh"),
    ("standard", {"finetuning_scaling_factor": True}, "scales its latents after training"),
    ("standard", {"architecture": "matryoshka_batchtopk"}, "a checkpoint of training, and the final folder"),
    ("standard", {"architecture": "skip_transcoder", "d_out": 6}, "is a transcoder .*out of scope"),
    ("standard", {"architecture": "crosscoder"}, "is a crosscoder .*out of scope"),
    ("standard", {"metadata": {"sae_lens_version": "6.0", "hook_head_index": 3}}, "reads one head"),
    ("standard", {"apply_b_dec_to_input": "false"}, "apply_b_dec_to_input is false; expected true or false"),
    ("standard", {"apply_b_dec_to_input": None}, "says no apply_b_dec_to_input, which SAELens always writes"),
    ("matching_pursuit", {"residual_threshold": None}, "says no residual_threshold"),
    ("topk", {"k": None}, "k is None; expected a whole number above 0: add what it was trained with"),
    ("topk", {"k": K + 0.5}, r"k is 3\.5; expected a whole number"),
    ("topk", {"k": True}, "k is True; expected a whole number"),
    ("topk", {"k": D_SAE + 1}, "k = 11 latents cannot be active out of d_sae = 10"),
    ("topk", {"d_in": None}, "d_in is None; expected a whole number"),
    ("before 6", {"activation_fn_kwargs": {"k": K, "signed": True}}, "of an activation function only k can be read"),
    ("before 6", {"activation_fn_kwargs": {}}, "k is None"),
    ("before 6", {"activation_fn_str": "relu"}, "'relu', and its kwargs say k"),
    ("before 6", {"hook_point_head_index": 2}, "reads one head"),
    ("before 6", {"uses_scaling_factor": True}, "says uses_scaling_factor = True"),
    ("before 6", {"finetuning_scaling_factor": "yes"}, "scales its latents after training"),
    ("gemma scope 2", {"affine_connection": True}, "a linear map past its latents"),
    ("gemma scope 2", {"type": "crosscoder"}, "is a crosscoder.*out of scope"),
    ("gemma scope 2", {"hf_hook_point_in": "model.layers.1.self_attn.o_proj.input"}, "which no site here gives"),
    ("gemma scope 2", {"width": 16}, "width is 16, the weights have 10"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "fields", "says"), ON)
def test_fault_06_settings_that_change_the_maths_are_refused_by_name(
    name: str, fields: dict[str, Any], says: str, tmp_path: Path
):
    with pytest.raises(ValueError, match=says):
        recognise.read(made(tmp_path, name, **fields))


TRAINER: list[tuple[dict[str, Any], str]] = [
    ({"dict_class": "CrossCoder"}, "cannot be read; these can: AutoEncoder,.*crosscoders are out of scope"),
    ({"dict_class": "GatedAutoEncoder2"}, "cannot be read; these can: [A-Za-z, ]+$"),
    ({"apply_gain": 2}, "says apply_gain = 2, which is not known here"),
    ({"k": K + 1}, "k is 4, and in ae.pt 3"),
    ({"dict_size": D_SAE + 1}, "dict_size is 11, the weights have 10"),
    ({"dict_class": "AutoEncoder"}, r"tensors \['bias'\] are missing"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "says"), TRAINER)
def test_fault_06_dictionary_learnings_settings_too(fields: dict[str, Any], says: str, tmp_path: Path):
    trainer = {**CONFIGS["dictionary_learning"]["trainer"], **fields}
    with pytest.raises(ValueError, match=says):
        recognise.read(made(tmp_path, "dictionary_learning", trainer=trainer))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("sparsify", {"multi_topk": True, "signed": False, "skip_connection": False, "transcode": False}),
        ("standard", {"l1_coefficient": 5.0, "lp_norm": 1.0, "decoder_init_norm": 0.1, "hook_head_index": None}),
        ("standard", {"model_name": "x", "activation_fn": "relu", "activation_fn_kwargs": {}, "wandb_id": "3"}),
        ("topk", {"activation_fn": "topk", "finetuning_scaling_factor": False}),
        ("before 6", {"noise_scale": 0.1, "lr": 1e-3, "wandb_project": "x", "finetuning_scaling_factor": False}),
        ("gemma scope 2", {"hf_hook_point_out": "model.layers.1.output"}),
    ],
)
def test_settings_of_training_change_nothing(name: str, fields: dict[str, Any], tmp_path: Path):
    plain, more = recognise.read(made(tmp_path / "a", name)), recognise.read(made(tmp_path / "b", name, **fields))
    assert torch.equal(plain.dictionary(ROWS), more.dictionary(ROWS))


def test_a_count_of_0_latents_stands_for_the_factor(tmp_path: Path):
    with pytest.raises(ValueError, match="states 6 dimensions and 12 latents, the weights have 6 and 10"):
        recognise.read(made(tmp_path, "sparsify", num_latents=0, expansion_factor=2))


def test_fault_06_an_empty_config_is_no_relu(tmp_path: Path):
    """Of the same weights a TopK was, and is now refused."""
    made(tmp_path, "topk")
    for text in ("{}", json.dumps({"d_in": D_IN, "d_sae": D_SAE})):
        (tmp_path / "cfg.json").write_text(text)
        with pytest.raises(ValueError, match="says neither architecture nor activation_fn, and a TopK's weights look"):
            recognise.read(tmp_path)
    (tmp_path / "cfg.json").write_text(json.dumps({"d_in": D_IN, "d_sae": D_SAE, "l1_coefficient": 0.1}))
    assert recognise.read(tmp_path).architecture == "standard"


def test_fault_06_tensors_that_nothing_reads_are_refused(tmp_path: Path):
    """A JumpReLU's weights under a config that says ReLU."""
    saelens(made(tmp_path, "standard"), "jumprelu")
    with pytest.raises(
        ValueError, match="threshold is no tensor of this kind of SAE, which has W_enc, b_enc, W_dec, b_dec"
    ):
        recognise.read(tmp_path)
    held = {key: value for key, value in weights().items() if key != "threshold"}
    save_file({**held, "scaling_factor": torch.ones(D_SAE)}, tmp_path / "sae_weights.safetensors")
    assert recognise.read(tmp_path).dictionary.d_sae == D_SAE
    save_file({**held, "scaling_factor": torch.full((D_SAE,), 2.0)}, tmp_path / "sae_weights.safetensors")
    with pytest.raises(ValueError, match="scaling_factor is no tensor of this kind"):
        recognise.read(tmp_path)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int8, torch.bool])
def test_fault_06_weights_that_are_whole_numbers_are_refused(dtype: torch.dtype, tmp_path: Path):
    made(tmp_path, "standard")
    held = {key: value for key, value in weights().items() if key != "threshold"}
    save_file({**held, "W_enc": held["W_enc"].to(dtype)}, tmp_path / "sae_weights.safetensors")
    with pytest.raises(ValueError, match="expected floating-point weights, found {'W_enc'.*dequantise"):
        recognise.read(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions_are_read_as_they_round(dtype: torch.dtype, tmp_path: Path):
    made(tmp_path, "jumprelu")
    held = {key: value.to(dtype) for key, value in weights().items()}
    save_file(held, tmp_path / "sae_weights.safetensors")
    read = recognise.read(tmp_path).dictionary
    assert torch.equal(read.b_dec, held["b_dec"].float()) and read.W_dec.dtype == torch.float32


CHANGED: list[tuple[str, torch.Tensor, str]] = [
    ("b_dec", torch.full((D_IN,), torch.inf), "b_dec hold NaN or infinity"),
    ("W_enc", torch.zeros(D_SAE, D_IN), "transpose W_enc and save again"),
    ("threshold", torch.zeros(1), r"expected {'threshold': \[10\]}, found {'threshold': \[1\]}"),
    ("W_dec", torch.zeros(D_SAE, D_IN, 1), r"found {'W_dec': \[10, 6, 1\]}"),
    ("b_enc", torch.zeros(0), r"the weights have \(6, 0\)"),
    ("W_enc", torch.full((D_IN, D_SAE), 3e38, dtype=torch.float64) * 10, "W_enc hold NaN or infinity"),
    ("W_dec", torch.full((D_SAE, D_IN), 3e38), r"W_dec hold numbers above 1e\+15: the file is damaged"),
    ("b_enc", torch.full((D_SAE,), -3e38), r"b_enc hold numbers above 1e\+15: the file is damaged"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "says"), CHANGED, ids=str)
def test_fault_06_weights_that_cannot_be_are_named(key: str, value: torch.Tensor, says: str, tmp_path: Path):
    made(tmp_path, "jumprelu")
    save_file({**weights(), key: value}, tmp_path / "sae_weights.safetensors")
    with pytest.raises(ValueError, match=says):
        recognise.read(tmp_path)


@pytest.mark.parametrize("norm", [2.0, 0.25, 1e-20])
def test_atoms_of_any_norm_are_folded_exactly(norm: float, tmp_path: Path):
    w = weights()
    made(tmp_path, "jumprelu")
    save_file({**w, "W_dec": w["W_dec"] * norm}, tmp_path / "sae_weights.safetensors")
    pre = (ROWS - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    wanted = (pre * (pre > w["threshold"])).relu() @ (w["W_dec"] * norm) + w["b_dec"]
    torch.testing.assert_close(recognise.read(tmp_path).dictionary(ROWS), wanted, rtol=1e-5, atol=1e-5)


def test_negative_thresholds_are_zeros(tmp_path: Path):
    w = weights()
    made(tmp_path, "jumprelu")
    save_file({**w, "threshold": w["threshold"] - 0.5}, tmp_path / "sae_weights.safetensors")
    pre = (ROWS - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    wanted = pre.relu() * (pre > w["threshold"] - 0.5)
    torch.testing.assert_close(recognise.read(tmp_path).dictionary.encode(ROWS), wanted)


def test_every_format_is_fuzzed():
    assert set(WRITERS) < set(CONFIGS)
