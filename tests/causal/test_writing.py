"""What a model writes with a push, by its own `generate`: token for token what its logits say, one step at a time."""

from dataclasses import replace

import pytest
import torch
from tests.tiny_lm import source, write_corpus, write_model

from unbraid.effects.coherence import perplexity
from unbraid.steering.writing import perplexities, write


@pytest.fixture(scope="module", params=["llama", "gpt2", "gemma3"])
def model(request, tmp_path_factory):
    home = tmp_path_factory.mktemp(request.param)
    return source(write_model(home / "model", request.param), write_corpus(home / "words.jsonl"), context=24)


PROMPTS = ["the cat saw a red house", "once upon a time", "bird"]


def ids_of(model) -> list[list[int]]:
    return [model.loaded_tokenizer(prompt).input_ids for prompt in PROMPTS]


@pytest.mark.parametrize("mask_special", [True, False])
def test_pushed_continuations_are_those_of_spliced_logits_one_token_at_a_time(model, mask_special):
    model = replace(model, mask_special=mask_special)  # False: what BOS has is pushed, too
    push = 3.0 * torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    push[0] = 0
    texts = write(model, ids_of(model), push, 5)
    tokenizer, special = model.loaded_tokenizer, set(model.loaded_tokenizer.all_special_ids)
    for number, way in enumerate(push):
        for prompt, words in enumerate(PROMPTS):
            expected = tokenizer.tokenize(words)
            for _ in range(5):
                logits = model.spliced_logits(model.whole([expected]), lambda x, way=way: x + way)[
                    0, -1, : len(tokenizer)
                ]
                if int(logits.argmax()) in special:
                    break
                expected += tokenizer.convert_ids_to_tokens([int(logits.argmax())])
            written = texts.ids[number, prompt][texts.written()[number, prompt]].tolist()
            assert tokenizer.convert_ids_to_tokens(written) == expected[len(tokenizer.tokenize(words)) :]


def test_perplexities_are_of_what_was_written_alone(model):
    texts = write(model, ids_of(model), torch.zeros(1, 16), 4)
    found = perplexities(model, texts)
    prompt = ids_of(model)[0]
    row = texts.ids[0, 0][texts.attention[0, 0]].tolist()
    assert row[: len(prompt)] == prompt
    windows = model.whole([model.loaded_tokenizer.convert_ids_to_tokens(row[1:])])
    written = torch.arange(len(row)) >= len(prompt)
    expected = perplexity(model.logits(windows), windows.ids, written.unsqueeze(0))
    torch.testing.assert_close(found[0, :1], expected, rtol=1e-3, atol=1e-3)
