"""What runs share: a model's activations by the tokens they are of, and losses from one pass of the blocks after."""

# pyright: reportMissingImports=false

import sys
from types import SimpleNamespace

import pytest
import torch

from unbraid.saebench.bench import DRIVER

HOOK = "blocks.1.hook_resid_post"
WIDTH, VOCABULARY = 4, 11


@pytest.fixture
def driver(monkeypatch):
    """The driver's modules, which import one another as scripts of one folder do."""
    monkeypatch.syspath_prepend(str(DRIVER.parent))
    import sharing
    import tail

    yield SimpleNamespace(sharing=sharing, tail=tail)
    for name in ("sharing", "tail"):
        sys.modules.pop(name)


class Residual:
    """A model of three blocks that double the stream, and the passes that it was asked for."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        self.embedding = torch.randn(VOCABULARY, WIDTH, generator=draw)
        self.W_U = torch.randn(WIDTH, VOCABULARY, generator=draw)
        self.cfg = SimpleNamespace(
            n_layers=3, dtype=torch.float32, normalization_type="RMS", positional_embedding_type="rotary",
            output_logits_soft_cap=0.0,
        )  # fmt: skip
        self.tokenizer = SimpleNamespace(padding_side="right")
        self.passes: list[tuple[int, int | None]] = []

    def __call__(self, x, start_at_layer=0, stop_at_layer=None):
        self.passes.append((start_at_layer, stop_at_layer))
        return x * 2 ** ((3 if stop_at_layer is None else stop_at_layer) - start_at_layer)

    def run_with_cache(self, tokens, names_filter, stop_at_layer=None, **kwargs):
        assert names_filter == [HOOK]
        return self(self.embedding[tokens], stop_at_layer=stop_at_layer), {HOOK: self.embedding[tokens] * 4}

    def ln_final(self, x):
        return x - 1

    def unembed(self, x):
        return x @ self.W_U


def test_a_pass_stops_after_the_hook_and_is_made_once_for_the_same_tokens(driver):
    model, shared = Residual(), driver.sharing.Shared()
    shared.remembering(model)
    tokens = torch.tensor([[1, 2, 3]])
    found = model.run_with_cache(tokens, names_filter=[HOOK])[1][HOOK]
    expected = found.clone()
    found.zero_()  # what a caller does to its copy is its own
    again = model.run_with_cache(tokens.clone(), names_filter=[HOOK], stop_at_layer=2)[1][HOOK]
    torch.testing.assert_close(again, expected)
    assert model.passes == [(0, 2)]
    model.run_with_cache(tokens + 1, names_filter=[HOOK])
    model.run_with_cache(tokens, names_filter=[HOOK], stop_at_layer=1)  # before the hook: not what is kept
    assert model.passes == [(0, 2), (0, 2), (0, 1)]


def test_what_does_not_fit_is_computed_again(driver, monkeypatch):
    monkeypatch.setattr(driver.sharing, "MOST_BYTES", 3 * WIDTH * 4)
    model, shared = Residual(), driver.sharing.Shared()
    shared.remembering(model)
    for tokens in ([[1, 2, 3]], [[4, 5, 6]], [[1, 2, 3]], [[4, 5, 6]]):
        model.run_with_cache(torch.tensor(tokens), names_filter=[HOOK])
    assert len(model.passes) == 3
    shared.kept.clear()
    model.run_with_cache(torch.tensor([[4, 5, 6]]), names_filter=[HOOK])
    model.run_with_cache(torch.tensor([[4, 5, 6]]), names_filter=[HOOK])
    assert len(model.passes) == 4


def test_of_a_list_of_texts_those_that_are_new_are_read(driver):
    words, model, shared = {"a b": [1, 2], "c d": [3, 4], "e f": [5, 6], "g": [7]}, Residual(), driver.sharing.Shared()
    read, passes = [], model.run_with_cache

    def run_with_cache(texts, **kwargs):
        read.append(list(texts))
        longest = max(len(words[text]) for text in texts)
        return passes(torch.tensor([(words[text] + [0, 0])[:longest] for text in texts]), **kwargs)

    setattr(model, "run_with_cache", run_with_cache)  # noqa: B010 (its argument has another name)
    shared.remembering(model)
    ask = lambda *texts: model.run_with_cache(list(texts), names_filter=[HOOK])[1][HOOK]
    ask("a b", "c d")
    found = ask("e f", "c d", "a b")
    torch.testing.assert_close(found, model.embedding[torch.tensor([[5, 6], [3, 4], [1, 2]])] * 4)
    ask("g")
    padded = ask("g", "a b")  # kept alone it has another length: all are read
    assert padded.shape == (2, 2, WIDTH)
    assert read == [["a b", "c d"], ["e f"], ["g"], ["g", "a b"]]


def distribution(model, residual):
    return (model.ln_final(residual * 2) @ model.W_U).log_softmax(-1)


def test_losses_are_those_of_the_whole_distributions(driver):
    model, shared = Residual(), driver.sharing.Shared()
    shared.remembering(model)
    tokens = torch.tensor([[1, 2, 3, 0], [7, 8, 9, 10]])
    sae = SimpleNamespace(
        cfg=SimpleNamespace(hook_name=HOOK, hook_head_index=None), device="cpu", encode=lambda x: x.relu(),
        decode=lambda z: z * 0.9,
    )  # fmt: skip
    losses = driver.tail.recons_loss(shared, own=None)
    asked = {
        "compute_kl": True, "compute_ce_loss": True, "ignore_tokens": {0, None},
        "exclude_special_tokens_from_reconstruction": True,
    }  # fmt: skip
    found = losses(sae, model, tokens, None, **asked)
    clean = model.embedding[tokens] * 4
    spliced = torch.where((tokens == 0)[..., None], clean, clean.relu() * 0.9)
    p, q, ablated = (distribution(model, x) for x in (clean, spliced, torch.zeros_like(clean)))
    kl = lambda other: (p.exp() * (p - other)).sum(-1)
    loss = lambda logs: -logs[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    expected = {
        "kl_div_with_sae": kl(q), "kl_div_with_ablation": kl(ablated), "ce_loss_with_sae": loss(q),
        "ce_loss_without_sae": loss(p), "ce_loss_with_ablation": loss(ablated),
    }  # fmt: skip
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    made = len(model.passes)
    losses(sae, model, tokens, None, **asked)
    assert model.passes[made:] == [(2, 3)]  # the next run needs the blocks after the hook alone


@pytest.mark.parametrize("changed", [{"output_logits_soft_cap": 30.0}, {"dtype": torch.bfloat16}])
def test_a_model_that_cannot_be_replayed_is_left_to_saebench(driver, changed):
    model = Residual()
    vars(model.cfg).update(changed)
    sae = SimpleNamespace(cfg=SimpleNamespace(hook_name=HOOK, hook_head_index=None))
    losses = driver.tail.recons_loss(driver.sharing.Shared(), own=lambda *args, **kwargs: "its own")
    assert losses(sae, model, torch.zeros(1, 2), None, compute_kl=True, compute_ce_loss=True) == "its own"


def test_the_blocks_that_read_a_hook(driver):
    of = driver.sharing.start_of
    assert (of("blocks.3.hook_resid_post"), of("blocks.3.hook_resid_pre"), of("blocks.3.hook_mlp_out")) == (4, 3, None)


def test_of_each_first_letter_so_many_words_are_read_at_equal_distances(monkeypatch):
    monkeypatch.syspath_prepend(str(DRIVER.parent))
    monkeypatch.setitem(sys.modules, "loading", SimpleNamespace())  # it needs SAEBench's environment
    import absorption

    words = sorted([" as", " at", "Ab", "ant", "air", "b", " by", "zoo"])
    assert absorption.fewer(words, None) == words
    assert absorption.fewer(words, 2) == [" as", " by", "Ab", "b", "zoo"]
