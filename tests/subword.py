"""A tiny random language model whose tokenizer writes most words of the language as several tokens."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.text.documents import from_language

VOCABULARY = 1600
POSITIONS = 1024


@cache
def tokenizer() -> Any:
    """Byte-level BPE, trained on 200 documents."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<end>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train_from_iterator(from_language("language://200?seed=9"), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", pad_token="<end>")


def write_model(folder: Path) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=POSITIONS, initializer_range=0.4, bos_token_id=0,
        eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def source(model: Path, **changes: Any) -> LanguageModel:
    settings = {"text": "language://60", "layer": 1, "context": 400, "buffer_tokens": 2000, "eval_share": 0.3} | changes
    return LanguageModel(model=str(model), **settings)
