"""What is left out of passes through a language model: blocks before a replaced site, and padding."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from unbraid.effects.effect import pooled_effect
from unbraid.sources.language_model.blocks import blocks
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.loaded import reference_of
from unbraid.sources.language_model.skipping import KNOWN, skippable

MODEL = LanguageModel(text="language://400", layer=2)


@pytest.mark.parametrize(("site", "count"), [("resid_post", 3), ("resid_pre", 2), ("mlp_out", 0)])
def test_logits_are_those_of_the_whole_pass(site: str, count: int):
    model = replace(MODEL, site=site)
    windows = model.windows(4, split="eval", seed=0)
    acts = model.activations(windows)
    put = acts + torch.randn(acts.shape, generator=torch.Generator().manual_seed(0))
    with model._hook_point.hooked(lambda hidden: put):
        whole = model.logits(windows)
    assert torch.equal(model.logits_from(windows, put), whole)
    assert skippable(model._model, 2, model.site) == count
    assert not any("forward" in vars(block) for block in blocks(model._model)[1])


def test_windows_by_length_are_all_windows_without_padding():
    windows = MODEL.windows(12, split="eval", seed=0)
    for positions in (0, 100, 10_000):
        found = list(windows.by_length(positions))
        assert torch.cat([which for which, _ in found]).sort().values.tolist() == list(range(12))
        for which, part in found:
            assert part.attention.sum(1).tolist() == windows.attention[which].sum(1).tolist()
            assert part.ids.shape[1] == int(part.attention.sum(1).max())
            assert torch.equal(part.ids, windows.ids[which, : part.ids.shape[1]])


def test_contexts_without_padding_have_the_same_effects():
    padded, unpadded = (draw(6, split="eval", seed=0) for draw in (MODEL.contexts, MODEL.unpadded_contexts))
    assert torch.equal(padded.mask, unpadded.mask)
    torch.testing.assert_close(unpadded.acts[padded.mask], padded.acts[padded.mask])
    torch.testing.assert_close(unpadded.downstream(unpadded.acts), unpadded.base)
    pushes = torch.randn(5, MODEL.d_in, generator=torch.Generator().manual_seed(0))
    ours, theirs = (pooled_effect(contexts, pushes) for contexts in (unpadded, padded))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_what_was_tried_is_forgotten_when_the_weights_change():
    model = nn.Linear(2, 2)
    for changed in (False, True):
        reference_of(model)
        KNOWN[model] = {(2, "resid_post"): 3}
        model.weight.data.add_(changed)
        reference_of(model)
        assert (model in KNOWN) != changed
