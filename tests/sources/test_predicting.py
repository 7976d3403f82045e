"""Predictions as a function of activations: those of the model itself with the push added, padding or not."""

import pytest
import torch
from tests.small import WORLD
from tests.tiny_lm import source, write_corpus, write_model

from unbraid.effects.next_token_kl import next_token_kl
from unbraid.sources.base import Predictions
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.predicting import predictions, predictions_of


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request, tmp_path_factory) -> LanguageModel:
    home = tmp_path_factory.mktemp(request.param)
    return source(write_model(home / "model", request.param), write_corpus(home / "words.jsonl"), layer=1, context=12)


def test_pushed_predictions_are_those_of_the_model_with_the_push_added(model):
    windows = model.windows(8, split="train", seed=3)
    pushes = torch.randn(3, model.d_in, generator=torch.Generator().manual_seed(0))
    for text, (_, part) in zip(predictions_of(model, windows), windows.by_length(1024), strict=True):
        assert bool((text.mask == part.keep).all())
        torch.testing.assert_close(text.clean, model.logits(part)[part.keep].log_softmax(-1))
        for push, found in zip(pushes, text.pushed_logits(pushes), strict=True):
            torch.testing.assert_close(found, model.spliced_logits(part, lambda x, by=push: x + by)[part.keep])


def test_contexts_predict_the_same(model):
    theirs = Predictions.of(model.contexts(4, split="train", seed=3))
    ours = predictions(model, 4, split="train", seed=3)
    pushes = torch.randn(3, model.d_in, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(next_token_kl([theirs], pushes), next_token_kl(ours, pushes))
    with pytest.raises(ValueError, match="predict no tokens"):
        Predictions.of(WORLD.contexts(2, split="train", seed=0))


def test_only_the_tokens_asked_for_are_counted(model):
    windows = model.windows(4, split="train", seed=3)
    last = windows.attention & (windows.attention.cumsum(1) == windows.attention.sum(1, keepdim=True))
    found = predictions_of(model, windows, last)
    assert sum(len(text.clean) for text in found) == 4
    assert sum(int(text.mask.sum()) for text in found) == int(windows.keep.sum()) > 4


def test_a_split_is_read_as_far_as_it_goes_and_no_push_costs_nothing(model):
    found = predictions(model, 10**6, split="eval", seed=0)
    assert sum(len(text.acts) for text in found) == model.sequences("eval")
    cost = next_token_kl(found, torch.zeros(2, model.d_in))
    torch.testing.assert_close(cost, torch.zeros(2), atol=1e-6, rtol=0)


def test_a_world_predicts_no_tokens():
    with pytest.raises(ValueError, match="a World predicts no tokens; use a LanguageModel"):
        predictions(WORLD, 1, split="eval", seed=0)
