"""The real SmolLM2, where its package is installed. Tests of what is said without it are in test_gguf."""

from dataclasses import replace

import pytest
import torch

from unbraid.sources.language_model import smollm
from unbraid.sources.language_model.language_model import LanguageModel


@pytest.mark.slow
def test_the_real_smollm2_predicts_text_and_gets_no_bos():
    try:
        smollm.smollm2_file()
    except ValueError as error:
        pytest.skip(str(error))
    facts = "The capital of France is Paris. The sun rises in the east. Water boils at one hundred degrees."
    here = LanguageModel(model="smollm2", layer=10, text=[facts] * 2, context=32, eval_share=0.0)
    assert here.d_in == 576 and here.metadata()["prepend_bos"] is False and "no BOS" in here.token_policy()
    assert begins(here) == here.loaded_tokenizer("The")["input_ids"]
    assert begins(replace(here, bos="<|endoftext|>")) == [here.loaded_tokenizer.convert_tokens_to_ids("<|endoftext|>")]
    windows = here.windows(1, split="train", seed=0)
    with torch.no_grad():
        logits = here.logits(windows)[0, :-1]
    nats = torch.nn.functional.cross_entropy(logits, windows.ids[0, 1:])
    assert nats < 3.5, "chance is ln 49,152 = 10.8"


def begins(of: LanguageModel) -> list[int]:
    return of.windows(1, split="train", seed=0).ids[0, :1].tolist()
