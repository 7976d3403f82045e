import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from tests.data import data_folder
from tests.tiny_lm import BLOCKS, CONTEXT, FAMILIES, WORDS, source, write_corpus, write_model, write_tokenizer
from tokenizers import processors
from torch import nn
from torch.func import jvp
from transformers import AutoModelForCausalLM, AutoTokenizer

from unbraid.config import serialise as config
from unbraid.effects.forward_mode import forward_mode
from unbraid.sources.base import Block, Split
from unbraid.sources.language_model.blocks import blocks
from unbraid.sources.language_model.downstream import capture, check_replay
from unbraid.sources.language_model.hooks import forward, read
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.loading import EMBEDDED, load_model
from unbraid.sources.language_model.sites import Site, hook_point
from unbraid.sources.stream import Stream
from unbraid.steering.model_slice import Slice

LENGTHS = (9, 6, 3)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    home = tmp_path_factory.mktemp("models")
    return {family: write_model(home / family, family) for family in FAMILIES}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "words.jsonl")


@pytest.fixture
def llama(models, corpus):
    return source(models["llama"], corpus)


def loaded(folder: Path) -> Any:
    return load_model(str(folder), "main", "float32", "cpu")


def padded(side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask of three sequences of unequal length."""
    width = max(LENGTHS)
    ids = torch.randint(3, 40, (3, width), generator=torch.Generator().manual_seed(5))
    place = torch.arange(width)
    lengths = torch.tensor(LENGTHS)[:, None]
    attention = place < lengths if side == "right" else place >= width - lengths
    return ids.masked_fill(~attention, 2), attention


def hidden_states(model: Any, ids: torch.Tensor, attention: torch.Tensor) -> list[torch.Tensor]:
    """What leaves each block, by hooks of our own."""
    found: list[Any] = []
    handles = [b.register_forward_hook(lambda m, a, out: found.append(out)) for b in blocks(model)[1]]
    with torch.no_grad():
        forward(model, ids, attention)
    for handle in handles:
        handle.remove()
    return found


def rows_of(of: LanguageModel, split: Split = "train", seed: int = 0) -> list[Block]:
    """All blocks of a split."""
    found: list[Block] = []
    while (block := of.block(len(found), split=split, seed=seed)) is not None:
        found.append(block)
    return found


# ---- the downstream map


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_downstream_of_the_activations_is_the_hidden_state_of_the_later_block(models, family, side):
    model = loaded(models[family])
    ids, attention = padded(side)
    hidden = hidden_states(model, ids, attention)
    for first, last in [(0, 3), (1, 2), (2, 3)]:
        acts, base, downstream = capture(model, first, last, ids, attention)
        assert torch.equal(downstream(acts), base)
        real = attention[..., None]
        torch.testing.assert_close(base * real, hidden[last] * real, rtol=1e-4, atol=1e-5)
        if first:
            torch.testing.assert_close(acts * real, hidden[first - 1] * real, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_on_either_side_changes_nothing_for_the_tokens_read(models, family):
    model = loaded(models[family])
    results = []
    for side in ("left", "right"):
        ids, attention = padded("right")
        if side == "left":
            moved = [torch.cat([i[~a], i[a]]) for i, a in zip(ids, attention, strict=True)]
            ids, attention = torch.stack(moved), attention.flip(1)
        results.append(capture(model, 1, 3, ids, attention)[1][attention])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_folded_copies_equal_a_loop(models, family, side):
    ids, attention = padded(side)
    acts, _, downstream = capture(loaded(models[family]), 1, 3, ids, attention)
    noise = torch.randn(2, 3, *acts.shape, generator=torch.Generator().manual_seed(0))
    together = downstream(acts + noise)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(together[i, j], downstream(acts + noise[i, j]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_downstream_has_first_second_and_forward_mode_derivatives(models, family):
    ids, attention = padded("right")
    acts, _, downstream = capture(loaded(models[family]), 1, 2, ids, attention)
    direction = torch.randn(acts.shape, generator=torch.Generator().manual_seed(1))
    leaf = acts.clone().requires_grad_()
    with forward_mode():
        gradient = torch.autograd.grad(downstream(leaf)[attention].square().sum(), leaf, create_graph=True)[0]
        curvature = torch.autograd.grad((gradient * direction).sum(), leaf)[0]
        pushed = jvp(downstream, (acts,), (direction,))[1]
    step = 1e-3
    difference = (downstream(acts + step * direction) - downstream(acts - step * direction)) / (2 * step)
    assert gradient.abs().sum() > 0 and curvature.abs().sum() > 0
    assert (pushed - difference)[attention].norm() < 0.02 * pushed[attention].norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_slices_of_every_family_have_second_derivatives_along_directions(models, corpus, family):
    """What quadratic DCT takes: forward over forward, and backward over forward. T(v, v) . u both ways."""
    after = Slice.of(source(models[family], corpus).contexts(2, split="train", seed=0))
    u, v = (torch.randn(3, 16, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    curved = (u * after.second(v)).sum(1)
    assert float(curved.abs().min()) > 0
    torch.testing.assert_close((after.second_back(u, v) * v).sum(1), curved, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_left_as_it_was(models, corpus, family):
    fresh = AutoModelForCausalLM.from_pretrained(models[family]).eval()
    used = source(models[family], corpus)
    contexts = used.contexts(4, split="train", seed=0)
    contexts.downstream(contexts.acts.requires_grad_()).sum().backward()
    used.block(0, split="train", seed=0)
    model = loaded(models[family])
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))
    assert all(p.grad is None and not p.requires_grad for p in model.parameters()) and not model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_contexts_hold_whole_windows_with_their_mask_and_their_downstream_map(llama):
    contexts = llama.contexts(5, split="train", seed=3)
    windows = llama.windows(5, split="train", seed=3)
    assert contexts.acts.shape == (5, windows.ids.shape[1], 16)
    assert torch.equal(contexts.mask, windows.keep)
    assert torch.equal(contexts.downstream(contexts.acts), contexts.base)
    assert not torch.equal(llama.contexts(5, split="train", seed=4).acts, contexts.acts)


def test_contexts_reach_the_layer_that_is_asked_for(llama):
    model = loaded(Path(llama.model))
    windows = llama.windows(3, split="train", seed=0)
    hidden = hidden_states(model, windows.ids, windows.attention)
    real = windows.attention[..., None]
    for site, layer, target in [("resid_post", 0, 2), ("resid_pre", 1, 1), ("resid_pre", 2, -1)]:
        asked = replace(llama, site=site, layer=layer, downstream_layer=target)
        base = asked.contexts(3, split="train", seed=0).base
        torch.testing.assert_close(base * real, hidden[target] * real, rtol=1e-4, atol=1e-5)


def test_contexts_leave_high_norms_out_of_the_mask(llama):
    strict = replace(llama, max_norm_ratio=1.0)
    contexts = strict.contexts(6, split="train", seed=0)
    expected = strict.windows(6, split="train", seed=0).keep & (contexts.acts.norm(dim=-1) <= strict.max_norm)
    assert torch.equal(contexts.mask, expected)
    assert 0 < contexts.mask.sum() < llama.contexts(6, split="train", seed=0).mask.sum()


@pytest.mark.parametrize("site", ["mlp_out", "attn_out"])
def test_a_sublayer_has_no_downstream_map(llama, site):
    with pytest.raises(ValueError, match=f"{site} has no downstream map.*use --source.site resid_post or resid_pre"):
        replace(llama, site=site).contexts(2, split="train", seed=0)


def test_nothing_after_the_last_block_is_an_error_not_an_identity(llama):
    with pytest.raises(ValueError, match="nothing lies between resid_post of block 3 and the end of block 3"):
        replace(llama, layer=3).contexts(2, split="train", seed=0)


def test_blocks_that_do_not_replay_are_refused(models):
    acts, base, downstream = capture(loaded(models["llama"]), 1, 3, *padded("right"))
    check_replay(downstream(acts), base)
    with pytest.raises(ValueError, match="another output on their own"):
        check_replay(downstream(acts), base + 1)


# ---- reading sites


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_and_mlp_add_up_to_the_step_of_the_residual_stream(models, family):
    model = loaded(models[family])
    ids, attention = padded("right")
    sites = ("resid_pre", "attn_out", "mlp_out", "resid_post")
    pre, attn, mlp, post = (read(model, hook_point(model, 2, site), ids, attention) for site in sites)
    torch.testing.assert_close(pre + attn + mlp, post, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("layer", "site", "ran"), [(0, "resid_post", 1), (2, "resid_post", 3), (2, "resid_pre", 2)])
def test_the_forward_pass_stops_at_the_site(models, layer, site, ran):
    model = loaded(models["llama"])
    place, calls = hook_point(model, layer, site), []
    handles = [b.get_submodule("self_attn").register_forward_hook(lambda *_: calls.append(1)) for b in blocks(model)[1]]
    read(model, place, *padded("right"))
    for handle in handles:
        handle.remove()
    assert len(calls) == ran


class TupleBlock(nn.Module):
    """A block that returns (hidden states, something else), as those of older transformers do."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, hidden_states: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, str]:
        return hidden_states + self.linear(hidden_states).tanh() * scale, "attention weights"


class TupleModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.transformer = nn.Module()
        self.transformer.h = nn.ModuleList([TupleBlock() for _ in range(3)])
        self.embed = nn.Embedding(48, 4)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool) -> torch.Tensor:
        hidden = self.embed(input_ids)
        for block in blocks(self)[1]:
            hidden = block(hidden_states=hidden, scale=attention_mask[..., None])[0]
        return hidden


def test_a_model_without_an_embedding_is_refused_in_a_sentence():
    model = nn.Module()
    model.blocks = nn.ModuleList([nn.Linear(4, 4)])
    with pytest.raises(ValueError, match=r"has no resid_post at block 0: .*no nn.Embedding and no config.vocab_size"):
        hook_point(model, 0, "resid_post")


def test_blocks_that_return_tuples_and_take_keywords_are_read_replayed_and_replaced():
    model = TupleModel()
    ids = torch.arange(6).view(2, 3)
    attention = torch.tensor([[True, True, False], [True, True, True]])
    acts, base, downstream = capture(model, 1, 2, ids, attention)
    final = forward(model, ids, attention)
    torch.testing.assert_close(base, final)
    torch.testing.assert_close(downstream(torch.stack([acts, acts])), torch.stack([base, base]))
    torch.testing.assert_close(read(model, hook_point(model, 0, "resid_post"), ids, attention), acts)
    moved = downstream(acts + 1)
    places: list[tuple[Site, int]] = [("resid_post", 0), ("resid_pre", 1)]
    for site, layer in places:
        with hook_point(model, layer, site).hooked(lambda hidden: hidden + 1):
            torch.testing.assert_close(forward(model, ids, attention), moved)


# ---- blocks of rows


@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_block_depends_on_its_arguments_alone(llama, split):
    whole = rows_of(llama, split, seed=1)
    fresh = replace(llama)
    for index in (1, 0, len(whole) - 1):
        again = fresh.block(index, split=split, seed=1)
        assert again is not None and torch.equal(again.rows.x, whole[index].rows.x)
        assert torch.equal(again.rows.documents, whole[index].rows.documents)
    assert fresh.block(len(whole), split=split, seed=1) is None


def test_another_seed_gives_another_order_of_the_same_rows(llama):
    def rows(seed):
        return torch.cat([b.rows.documents * 1000 + b.rows.tokens for b in rows_of(llama, seed=seed)])

    assert not torch.equal(rows(0), rows(1))
    assert torch.equal(rows(0).sort().values, rows(1).sort().values)


def test_blocks_hold_every_kept_token_once_an_epoch_and_then_end(llama):
    for epochs in (1, 3):
        more = replace(llama, epochs=epochs, max_norm_ratio=0.0)
        sizes = [len(block.rows) for block in rows_of(more)]
        assert sum(sizes) == more.available("train") == epochs * llama.available("train")
        assert all(abs(size - 200) < 2 * CONTEXT for size in sizes[:-1])
        assert more.block(len(sizes) + 5, split="train", seed=0) is None


def test_rows_are_the_activations_of_their_token_and_position(llama):
    block = rows_of(llama)[0]
    texts = Path(llama.text).read_text().splitlines()
    model, rows = loaded(Path(llama.model)), block.rows
    document = int(rows.documents[0])
    words = [WORDS.index(word) + 3 for word in json.loads(texts[document])["text"].split()][: CONTEXT - 1]
    own = rows.positions[: len(words)]
    assert rows.tokens[: len(words)].tolist() == words
    assert own.tolist() == list(range(1, len(words) + 1))
    with torch.no_grad():
        states = model(torch.tensor([[1, *words]]), output_hidden_states=True).hidden_states
    torch.testing.assert_close(rows.x[: len(words)], states[2][0, 1:], rtol=1e-4, atol=1e-5)
    assert rows.x.dtype == torch.float32


def test_train_and_eval_share_no_document(llama):
    def documents(split):
        return {int(d) for b in rows_of(llama, split) for d in b.rows.documents}

    assert documents("train") and documents("eval") and not documents("train") & documents("eval")


def test_special_tokens_are_never_rows_even_when_they_also_pad_or_stand_in_the_text(models, tmp_path):
    lines = write_corpus(tmp_path / "words.jsonl", 40).read_text().replace(" the ", " </s> nonsense <s> ")
    (tmp_path / "words.jsonl").write_text(lines)
    strict = source(models["llama"], tmp_path / "words.jsonl")
    tokens = torch.cat([block.rows.tokens for block in rows_of(strict)])
    assert set(tokens.tolist()) & {0, 1, 2} == set()
    loose = replace(strict, mask_special=False)
    block = rows_of(loose)[0]
    assert {0, 1, 2} <= set(block.rows.tokens.tolist())
    assert (block.rows.positions == 0).sum() == (block.rows.tokens[block.rows.positions == 0] == 1).sum() > 0
    assert sum(len(b.rows) + b.filtered for b in rows_of(loose, "eval")) == loose.available("eval")


def test_bos_never_starts_windows_with_text(llama):
    bare = replace(llama, bos="never")
    windows = bare.windows(4, split="train", seed=0)
    assert (windows.ids[:, 0] != 1).all() and windows.keep[:, 0].all()
    assert bare.metadata()["prepend_bos"] is False


def test_rows_of_high_norm_are_left_out_and_counted(llama):
    all_rows = replace(llama, max_norm_ratio=0.0)
    everything, first = rows_of(all_rows, seed=7)[1], rows_of(all_rows)[0]
    block = rows_of(replace(llama, max_norm_ratio=1.0), seed=7)[1]
    limit = first.rows.x.norm(dim=1).median()
    kept = everything.rows.x[everything.rows.x.norm(dim=1) <= limit]
    assert torch.equal(block.rows.x, kept)
    assert block.filtered == len(everything.rows) - len(kept) > 0


def test_a_stream_reads_the_source_to_its_end(llama):
    stream = Stream(llama, 50, seed=0)
    for _ in range(int(llama.available("train")) // 50):
        assert next(stream).x.shape == (50, 16)
    with pytest.raises(ValueError, match="--source.epochs"):
        next(stream)


def test_half_precision_models_hand_on_float32(llama):
    half = replace(llama, dtype="bfloat16")
    contexts = half.contexts(2, split="train", seed=0)
    assert (
        half.block(0, split="train", seed=0).rows.x.dtype == contexts.acts.dtype == contexts.base.dtype == torch.float32
    )
    assert torch.equal(contexts.downstream(contexts.acts), contexts.base)


# ---- for evals, plans and the run folder


def test_splicing_the_activations_themselves_changes_no_logit(llama):
    windows = llama.windows(4, split="eval", seed=0)
    clean = llama.logits(windows)
    for site in ("resid_post", "resid_pre", "mlp_out", "attn_out"):
        torch.testing.assert_close(replace(llama, site=site).spliced_logits(windows, lambda x: x), clean)


def test_splicing_rewrites_kept_tokens_only(llama):
    windows = llama.windows(4, split="eval", seed=0)
    seen = []

    def zero(rows):
        seen.append(rows)
        return torch.zeros_like(rows)

    spliced = llama.spliced_logits(windows, zero)
    kept = llama.activations(windows)[windows.keep]
    torch.testing.assert_close(seen[0], kept)
    change = (spliced - llama.logits(windows)).abs().sum(-1)
    assert (change[windows.keep] > 0).all()
    # BOS comes first and is left alone, so what it predicts stays.
    assert (change[:, 0] == 0).all()


def test_windows_are_different_and_padded_on_the_right(llama):
    windows = llama.windows(20, split="train", seed=0)
    assert len({tuple(ids.tolist()) for ids in windows.ids}) == 20
    lengths = windows.attention.sum(1)
    assert torch.equal(windows.attention, torch.arange(windows.ids.shape[1]) < lengths[:, None])
    assert (windows.ids[:, 0] == 1).all() and not windows.keep[:, 0].any()
    with pytest.raises(ValueError, match="5000 windows are needed, but the eval split holds"):
        llama.windows(5000, split="eval", seed=0)


def test_sampled_lines_show_what_the_model_reads(llama):
    lines = llama.sample_text(2)
    assert len(lines) == 2 and all(line.startswith("<s>") for line in lines)


@pytest.mark.parametrize(
    ("family", "site", "hook", "path"),
    [
        ("llama", "resid_post", "blocks.1.hook_resid_post", "model.layers.1"),
        ("llama", "resid_pre", "blocks.1.hook_resid_pre", "model.layers.1"),
        ("gpt2", "mlp_out", "blocks.1.hook_mlp_out", "transformer.h.1.mlp"),
        ("gpt_neox", "attn_out", "blocks.1.hook_attn_out", "gpt_neox.layers.1.attention"),
        ("gemma2", "mlp_out", "blocks.1.hook_mlp_out", "model.layers.1.post_feedforward_layernorm"),
    ],
)
def test_metadata_names_the_site_for_saelens_and_for_hugging_face(models, corpus, family, site, hook, path):
    metadata = source(models[family], corpus, site=site).metadata()
    assert metadata["hook_name"] == hook and metadata["hf_hook_name"] == path
    assert metadata["hook_layer"] == 1 and metadata["context_size"] == CONTEXT and metadata["prepend_bos"] is True
    assert metadata["model_name"] == str(models[family]) and len(str(metadata["tokenizer_sha256"])) == 64


def test_a_source_is_configuration(llama):
    assert config.from_json(config.to_json(llama)) == llama and hash(llama) == hash(replace(llama))


def test_sources_of_one_model_share_its_weights(llama):
    assert replace(llama, layer=2)._model is llama._model


def test_importing_the_module_loads_no_transformers():
    name = "unbraid.sources.language_model.language_model"
    code = f"import sys, {name}; sys.exit(bool({{'transformers', 'datasets'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- what users get wrong


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": 12}, f"layer 12 does not exist: the model has {BLOCKS} blocks, 0 to {BLOCKS - 1}"),
        ({"context": 64}, "context 64 exceeds the model's 40 positions"),
        ({"model": "embeded"}, "there is no model 'embeded'; did you mean 'embedded-2'?"),
        ({"model": "/no/such/folder"}, "there is no model folder at '/no/such/folder'; check --source.model"),
        ({"text": "missing.jsonl"}, "there is no text at 'missing.jsonl'"),
        ({"device": "cuda:99"}, "torch sees no CUDA device here"),
    ],
)
def test_errors_name_the_remedy(llama, changes, message):
    if changes.get("device") and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ValueError, match=message):
        replace(llama, **changes).block(0, split="train", seed=0)


@pytest.mark.parametrize(
    "changes",
    [{"layer": -1}, {"site": "resid_mid"}, {"context": 1}, {"epochs": 0}, {"buffer_tokens": 3}, {"eval_share": 1.0}],
)
def test_settings_that_cannot_be_are_refused_at_once(changes):
    with pytest.raises(Exception, match=next(iter(changes))):
        LanguageModel(**({"model": "m", "layer": 0, "text": "t"} | changes))


def test_a_downstream_layer_that_does_not_exist_is_named(llama):
    with pytest.raises(ValueError, match="layer 9 does not exist"):
        replace(llama, downstream_layer=9).contexts(2, split="train", seed=0)


def test_a_hub_model_that_cannot_be_reached_is_named(llama, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ValueError, match="cannot load the configuration of model 'nobody/nothing'.*check --source.model"
    ):
        _ = replace(llama, model="nobody/nothing").d_in


def test_a_site_the_model_lacks_is_named():
    with pytest.raises(ValueError, match=r"TupleModel has no mlp_out at block 0: its blocks hold \['linear'\]"):
        hook_point(TupleModel(), 0, "mlp_out")


def test_a_model_whose_blocks_cannot_be_found_lists_what_it_has():
    model = nn.Sequential(nn.ModuleList([nn.Linear(2, 2)]))
    with pytest.raises(ValueError, match=r"cannot tell where Sequential keeps its blocks.*module lists \['0'\]"):
        blocks(model)


def test_text_with_ids_that_are_not_embedded_is_refused(models, corpus, tmp_path):
    folder = copied(models["llama"], tmp_path)
    text = (folder / "config.json").read_text().replace('"vocab_size": 48', '"vocab_size": 20')
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match="the tokenizer gave id .* but the model embeds 20 tokens"):
        source(folder, corpus).available("train")


def test_fault_22_a_tokenizer_with_more_ids_than_are_embedded_reads_text_that_has_none_of_them(
    models, corpus, tmp_path
):
    folder = copied(models["llama"], tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<image{i}>" for i in range(9)], special_tokens=True)
    tokenizer.pad_token = "<image8>"
    tokenizer.save_pretrained(folder)
    larger = source(folder, corpus)
    assert len(larger.loaded_tokenizer) == 50 > 48 and larger.loaded_tokenizer.pad_token_id == 49
    block, same = (
        larger.block(0, split="train", seed=0),
        source(models["llama"], corpus).block(0, split="train", seed=0),
    )
    assert block is not None and same is not None and torch.equal(block.rows.x, same.rows.x)
    (tmp_path / "image.jsonl").write_text('{"text": "the cat <image8> ran"}\n')
    with pytest.raises(ValueError, match="gave id 49 but the model embeds 48"):
        source(folder, tmp_path / "image.jsonl", eval_share=0.0).available("train")


def begins(of: LanguageModel) -> list[list[int]]:
    """The first two ids of every train window."""
    pool = of._corpus.pool("train")
    return pool.windows(torch.arange(len(pool))).ids[:, :2].tolist()


def test_fault_02_a_bos_of_the_texts_own_is_not_joined_by_a_second(models, tmp_path):
    lines = [" ".join(["the cat saw a dog"] * n) for n in range(1, 9)]
    for name, lead, middle in (("plain", "", " "), ("chat", "<s> ", " "), ("inside", "<s> ", " <s> ")):
        text = "".join(json.dumps({"text": lead + line.replace(" saw ", middle + "saw ")}) + "\n" for line in lines)
        (tmp_path / f"{name}.jsonl").write_text(text)
    plain, chat, inside = (
        source(models["llama"], tmp_path / f"{name}.jsonl", eval_share=0.0) for name in ("plain", "chat", "inside")
    )
    windows = [of._corpus.pool("train").windows(torch.arange(10)) for of in (plain, chat)]
    assert torch.equal(windows[0].ids, windows[1].ids)
    for of in (chat, inside):
        assert all(first == 1 and second != 1 for first, second in begins(of))
    assert any(first == 1 for first, _ in begins(replace(chat, bos="never"))), "the text's own stays"
    assert 1 not in {first for first, _ in begins(replace(plain, bos="never"))}


def test_fault_02_auto_puts_what_the_tokenizer_puts_not_what_it_calls_bos(models, corpus, tmp_path):
    folder = copied(models["llama"], tmp_path)
    silent = AutoTokenizer.from_pretrained(folder)
    silent.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    silent.save_pretrained(folder)
    auto = source(folder, corpus)
    assert auto.loaded_tokenizer.bos_token == "<s>" and auto.metadata()["prepend_bos"] is False
    assert 1 not in {first for first, _ in begins(auto)}
    assert "the tokenizer adds none; --source.bos '<s>' puts it there" in auto.token_policy()
    assert auto == source(folder, corpus, bos="auto"), "the default, so fingerprints stay"


def test_fault_02_the_token_can_be_named_and_a_wrong_name_is_told_near_ones(llama):
    ours, named = replace(llama, bos="<s>"), replace(llama, bos="</s>")
    assert begins(ours) == begins(llama) and ours.metadata()["prepend_bos"] is True
    assert {first for first, _ in begins(named)} == {2}
    assert named.metadata()["prepend_bos"] is False and named.metadata()["prepended_token"] == "</s>"
    with pytest.raises(
        ValueError, match="'</s' is no token of this tokenizer; use auto, never or a token, such as '</s>'"
    ):
        replace(llama, bos="</s").available("train")
    with pytest.raises(ValueError, match="such as"):
        replace(llama, bos="always, please").available("train")


@pytest.mark.parametrize("model", [EMBEDDED, "stories260K", "bitstories-3M"])
def test_fault_02_models_trained_with_bos_still_get_it(model):
    folder = model if model == EMBEDDED else str(data_folder() / "models" / model)
    assert LanguageModel(model=folder)._reader.bos == 1


def test_text_the_tokenizer_does_not_know_is_refused(models, tmp_path, corpus):
    folder = copied(models["llama"], tmp_path)
    write_tokenizer(folder, words=10)
    with pytest.raises(ValueError, match="% of the text is unknown to the tokenizer"):
        source(folder, corpus).available("train")


def test_a_corpus_without_a_train_document_is_too_short(models, tmp_path):
    (tmp_path / "empty.jsonl").write_text('{"text": "</s>"}\n')
    with pytest.raises(ValueError, match="too short: none of its 1 documents leaves a token to train on"):
        source(models["llama"], tmp_path / "empty.jsonl").available("train")


def test_activations_that_are_not_finite_are_refused(models, corpus, tmp_path):
    folder = copied(models["llama"], tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("nan")
    model.save_pretrained(folder)
    with pytest.raises(ValueError, match="hold NaN or infinity .layer 1 of .*block 0 of the train split"):
        source(folder, corpus).block(0, split="train", seed=0)


def copied(folder: Path, to: Path) -> Path:
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


# ---- real models


@pytest.mark.parametrize("name", ["stories260K", "bitstories-3M"])
def test_a_real_model_replays_splices_and_predicts(name):
    folder = data_folder()
    real = LanguageModel(
        model=str(folder / "models" / name),
        layer=2,
        text=str(folder / "corpora" / "tinystories_1000.jsonl.xz"),
        buffer_tokens=2048,
    )
    assert 4e5 < real.available("train") < 5e5
    block = real.block(3, split="train", seed=0)
    assert block is not None
    assert abs(len(block.rows) + block.filtered - 2048) < 256 and block.rows.x.shape[1] == real.d_in
    contexts = real.contexts(4, split="eval", seed=1)
    assert torch.equal(contexts.downstream(contexts.acts), contexts.base)
    windows = real.windows(8, split="eval", seed=0)
    clean, same = real.logits(windows), real.spliced_logits(windows, lambda x: x)
    assert torch.equal(clean, same)
    likelihood = clean[:, :-1].log_softmax(-1).gather(2, windows.ids[:, 1:, None])[..., 0]
    # A model that reads its text right predicts it: ln 512 = 6.2 nats would be a guess.
    assert -float(likelihood[windows.keep[:, 1:]].mean()) < 2.0


def test_a_source_goes_on_when_its_model_has_made_room_for_others_and_is_loaded_again(tmp_path: Path):
    text = write_corpus(tmp_path / "text.jsonl")
    found = source(write_model(tmp_path / "model"), text)
    before = found.block(0, split="train", seed=0)
    load_model.cache_clear()
    after = found.block(0, split="train", seed=0)
    assert before is not None and after is not None and torch.equal(before.rows.x, after.rows.x)
