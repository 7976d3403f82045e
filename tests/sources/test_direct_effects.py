"""Direct effects: a token's own direction promotes it, and what is left out is the blocks in between."""

from typing import Any

import torch

from unbraid.sources.language_model.direct_effects import logits_after
from unbraid.sources.language_model.hooks import forward, logits_of, read
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.loading import load_model, load_tokenizer
from unbraid.sources.language_model.sites import hook_point

SPOKEN = LanguageModel(text="language://300", context=64, buffer_tokens=4096)


def embedded() -> Any:
    return load_model(SPOKEN.model, "main", "float32", "cpu", False)


def test_a_tokens_row_of_the_unembedding_promotes_it_and_its_negative_suppresses_it():
    rows = embedded().get_output_embeddings().weight.detach()
    chosen = torch.tensor([50, 300, 900])
    directions = rows[chosen] - rows.mean(0)
    found = SPOKEN.next_tokens(torch.cat([directions, -directions]), 3)
    names = load_tokenizer(SPOKEN.model).batch_decode(chosen[:, None])
    assert [texts[0] for texts in found.promoted[:3]] == names == [texts[0] for texts in found.suppressed[3:]]
    assert bool((found.promoted_by[:3, 0] > 0).all()) and bool((found.suppressed_by[3:, 0] < 0).all())


@torch.no_grad()
def test_states_that_the_model_reached_itself_give_its_own_logits():
    model, windows = embedded(), SPOKEN.windows(3, split="eval", seed=0)
    last = model.config.num_hidden_layers - 1
    left = read(model, hook_point(model, last, "resid_post"), windows.ids, windows.attention)
    whole = logits_of(forward(model, windows.ids, windows.attention))
    ours = logits_after(model, last, left[windows.attention])
    assert torch.allclose(ours, whole[windows.attention], atol=1e-3)
