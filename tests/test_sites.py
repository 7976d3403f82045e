"""Sites and downstream maps of small models of many architectures: exact, or refused in a sentence."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from benchmarks.architectures import SHORT, small_model, tried
from torch import Tensor, nn

from unbraid.sources.language_model.blocks import blocks
from unbraid.sources.language_model.downstream import capture, check_downstream
from unbraid.sources.language_model.hooks import HookPoint, read
from unbraid.sources.language_model.probe import random_tokens
from unbraid.sources.language_model.sites import Site, hook_point

REFUSED: dict[str, dict[str, str]] = {
    "granite": dict.fromkeys(("attn_out", "mlp_out"), "adds 0.22 times what"),
    "gemma3n_text": dict.fromkeys(
        ("resid_pre", "resid_post", "attn_out", "mlp_out", "downstream"), "not one vector a token"
    ),
    "gemma4_text": dict.fromkeys(("attn_out", "mlp_out"), "scales, normalises or gates"),
    "mamba": dict.fromkeys(("attn_out", "mlp_out"), "none of which is that by its name"),
    "openai-gpt": dict.fromkeys(("attn_out", "mlp_out"), "scales, normalises or gates"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SHORT)
def test_fault_01_and_24_every_site_is_exact_or_refused_with_the_reason(kind: str):
    cells = tried(kind).cells
    refused = REFUSED.get(kind, {})
    assert {what for what, cell in cells.items() if cell} == set(refused)
    assert all(reason in cells[what] for what, reason in refused.items())


def test_fault_01_blooms_sublayers_are_read_before_the_residual_is_added_in_them():
    model = small_model("bloom")
    assert hook_point(model, 1, "mlp_out").name == "transformer.h.1.mlp.dense_4h_to_h"
    assert hook_point(model, 1, "attn_out").name == "transformer.h.1.self_attention.dense"


# ---- models that are made to be hard


class Block(nn.Module):
    """A block whose sum can be spoilt."""

    def __init__(self, spoil: str):
        super().__init__()
        self.spoil = spoil
        self.attn, self.mlp = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, hint: Tensor | float = 0.0) -> Any:
        attn = self.attn(x)
        middle = x + attn
        mlp = self.mlp(middle)
        if self.spoil == "unused":  # equal to what is added, but not it
            mlp = nn.functional.linear(middle, self.mlp.weight, self.mlp.bias)
        if self.spoil == "twice":
            mlp = self.mlp(middle + 0)
        if self.spoil == "dict":
            return {"hidden": middle + mlp}
        if self.spoil == "third":
            return middle + mlp + attn.tanh()
        return middle + mlp + hint


class Model(nn.Module):
    def __init__(self, spoil: str = "", between: Callable[[Tensor], Tensor] = lambda x: x):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([Block(spoil) for _ in range(3)])
        self.model = nn.Module()
        self.model.layers = self.layers
        self.embed, self.head = nn.Embedding(20, 4), nn.Linear(4, 20)
        self.between = between

    def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> Tensor:
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x)
            x = x["hidden"] if isinstance(x, dict) else self.between(x)
        return self.head(x)


@pytest.mark.parametrize(
    ("spoil", "site", "reason"),
    [
        ("unused", "mlp_out", "putting|does not add what is put at model.layers.1.mlp"),
        ("twice", "mlp_out", "mlp gives no tensor of the size of the residual stream, once a pass"),
        ("dict", "resid_post", "hand on a dict"),
        ("third", "mlp_out", "adds no mlp as it stands"),
        ("third", "attn_out", "adds no attn as it stands"),
    ],
)
def test_fault_01_what_cannot_be_proven_is_refused(spoil: str, site: Site, reason: str):
    with pytest.raises(ValueError, match=reason):
        hook_point(Model(spoil), 1, site)


def test_fault_01_a_stream_changed_between_blocks_is_no_residual_stream():
    scaled = Model(between=lambda x: 0.5 * x)
    with pytest.raises(ValueError, match="what block 1 gives is not what the next one gets"):
        hook_point(scaled, 1, "resid_post")
    with pytest.raises(ValueError, match="what enters block 1 is not what the one before gave"):
        hook_point(scaled, 1, "resid_pre")
    with pytest.raises(ValueError, match="another output on their own"):
        check_downstream(scaled, 1, 2, *random_tokens(scaled))


class Telling(Model):
    """Tells every block what it saw of the one before, besides handing on the stream."""

    def __init__(self):
        super().__init__()
        self.model.layers = self.layers = nn.ModuleList([Block("hinted") for _ in range(3)])

    def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> Tensor:
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x, x.mean())
        return self.head(x)


def test_fault_24_a_map_that_is_exact_only_for_the_models_own_activations_is_refused():
    model = Telling()
    ids, attention = random_tokens(model)
    acts, base, downstream = capture(model, 1, 2, ids, attention)
    assert torch.equal(downstream(acts), base)
    with pytest.raises(ValueError, match="another output on their own"):
        check_downstream(model, 1, 2, ids, attention)


def test_a_place_without_faults_is_found_and_kept():
    model = Model()
    places: list[tuple[Site, str]] = [("mlp_out", "model.layers.1.mlp"), ("attn_out", "model.layers.1.attn")]
    for site, name in places:
        assert hook_point(model, 1, site).name == name and hook_point(model, 1, site) is hook_point(model, 1, site)
    ids, attention = random_tokens(model)
    pre, post, attn, mlp = (
        read(model, hook_point(model, 1, site), ids, attention)
        for site in ("resid_pre", "resid_post", "attn_out", "mlp_out")
    )
    torch.testing.assert_close(pre + attn + mlp, post)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["llama", "bloom"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fault_28_sites_and_replay_of_16_bit_models_are_proven_too(kind: str, dtype: torch.dtype):
    model = small_model(kind, dtype)
    for site in ("resid_pre", "resid_post", "attn_out", "mlp_out"):
        assert hook_point(model, 1, site).name.startswith(blocks(model)[0])
    check_downstream(model, 1, 2, *random_tokens(model))
    with pytest.raises(ValueError, match="adds 0.2"):
        hook_point(small_model("granite", dtype), 1, "mlp_out")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("sequences", [1, 2, 4, 8])
def test_fault_24_folding_repeats_what_counts_sequences_and_nothing_else(sequences: int):
    """BLOOM's ALiBi has an entry for every head of every sequence."""
    model = small_model("bloom")
    ids, attention = random_tokens(model, sequences, 8)
    acts, base, downstream = capture(model, 1, 2, ids, attention)
    torch.testing.assert_close(
        downstream(torch.stack([acts, acts, acts])), torch.stack([base] * 3), rtol=1e-4, atol=1e-4
    )


def test_what_is_put_is_not_changed_by_the_model():
    """Falcon adds to a sublayer's output in place."""

    class InPlace(Block):
        def forward(self, x: Tensor, hint: Tensor | float = 0.0) -> Tensor:
            out = self.mlp(x)
            out += x
            return out

    block, put = InPlace(""), torch.ones(1, 2, 4)
    with HookPoint(block.mlp, "mlp").hooked(lambda _: put):
        assert torch.equal(block(torch.ones(1, 2, 4)), 2 * torch.ones(1, 2, 4))
    assert torch.equal(put, torch.ones(1, 2, 4))
