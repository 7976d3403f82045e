"""The logits of the next token as a function of a downstream layer's output: those of the model itself."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.tiny_lm import FAMILIES, source, write_corpus, write_model

from unbraid.sources.base import Contexts
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.loading import write_chat


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "words.jsonl")


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tmp_path_factory, corpus) -> LanguageModel:
    return source(write_model(tmp_path_factory.mktemp(request.param), request.param), corpus)


def logits(contexts: Contexts, acts: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    assert contexts.predict is not None
    return contexts.predict(contexts.downstream(acts), at)


@pytest.mark.parametrize("last", [2, -1])
def test_the_logits_are_the_models_own_wherever_the_downstream_layer_is(model, last):
    used = replace(model, downstream_layer=last)
    contexts, windows = used.contexts(3, split="train", seed=0), used.windows(3, split="train", seed=0)
    ours = logits(contexts, contexts.acts, contexts.mask)
    torch.testing.assert_close(ours, used.logits(windows)[contexts.mask], rtol=1e-4, atol=1e-4)


def test_pushed_activations_give_what_the_model_says_when_they_are_put_into_it(model):
    used = replace(model, downstream_layer=2)
    contexts, windows = used.contexts(3, split="train", seed=0), used.windows(3, split="train", seed=0)
    noise = torch.randn(2, *contexts.acts.shape, generator=torch.Generator().manual_seed(0))
    put = contexts.acts + noise
    theirs = torch.stack([used.logits_from(windows, one) for one in put])
    torch.testing.assert_close(logits(contexts, put, contexts.mask), theirs[:, contexts.mask], rtol=1e-4, atol=1e-4)


def test_unpadded_contexts_predict_the_same_in_the_same_order(model):
    used = replace(model, downstream_layer=2)
    whole, apart = used.contexts(6, split="train", seed=0), used.unpadded_contexts(6, split="train", seed=0)
    assert whole.mask.sum(1).unique().numel() > 1
    of_whole, of_apart = (logits(made, made.acts, whole.mask) for made in (whole, apart))
    torch.testing.assert_close(of_whole, of_apart, rtol=1e-4, atol=1e-4)


def test_the_gradient_reaches_the_activations(model):
    contexts = model.contexts(2, split="train", seed=0)
    acts = contexts.acts.clone().requires_grad_()
    logits(contexts, acts, contexts.mask).logsumexp(-1).sum().backward()
    assert acts.grad is not None and float(acts.grad[contexts.mask].norm(dim=1).min()) > 0


def test_a_chat_that_ends_with_a_question_ends_with_the_opening_of_its_answer(model):
    tokenizer = model.loaded_tokenizer
    template = tokenizer.chat_template
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }} said {{ m['content'] }} {% endfor %}"
        "{% if add_generation_prompt %}friend said{% endif %}"
    )
    asked, answered = {"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello"}
    try:
        assert write_chat(tokenizer, [asked]) == "user said hello friend said"
        assert write_chat(tokenizer, [asked, answered]) == "user said hello assistant said hello "
    finally:
        tokenizer.chat_template = template
