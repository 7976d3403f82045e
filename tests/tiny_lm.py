"""Random language models of a few thousand parameters, one per family, with a tokenizer of a few dozen words."""

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from unbraid.sources.language_model.language_model import LanguageModel

# fmt: off
WORDS = [
    "the", "a", "cat", "dog", "bird", "saw", "ran", "to", "from", "house", "tree", "and", "then", "it", "was",
    "big", "small", "red", "blue", "happy", "sad", "once", "upon", "time", "there", "lived", "who", "went", "home",
    "found", "key", "door", "under", "over", "with", "friend", "said", "hello",
]
# fmt: on
BLOCKS = 4
CONTEXT = 12
SHARED: dict[str, Any] = {
    "vocab_size": 48, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4, "max_position_embeddings": 40, "initializer_range": 0.4,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
GROUPED: dict[str, Any] = SHARED | {"num_key_value_heads": 2, "head_dim": 8}
SLIDING: dict[str, Any] = GROUPED | {"sliding_window": 5}
GPT2: dict[str, Any] = {
    "vocab_size": 48, "n_embd": 16, "n_layer": BLOCKS, "n_head": 4, "n_positions": 40, "initializer_range": 0.4,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FAMILIES: dict[str, Any] = {
    "llama": lambda: LlamaConfig(**GROUPED),
    "gpt2": lambda: GPT2Config(**GPT2),
    "gpt_neox": lambda: GPTNeoXConfig(**SHARED),
    "gemma2": lambda: Gemma2Config(**SLIDING, query_pre_attn_scalar=8),
    "gemma3": lambda: Gemma3TextConfig(
        **SLIDING, query_pre_attn_scalar=8, layer_types=["sliding_attention", "full_attention"] * 2
    ),
    "qwen3": lambda: Qwen3Config(**GROUPED),
}


def write_tokenizer(folder: Path, *, bos: bool = True, words: int = len(WORDS)) -> None:
    """A word-level tokenizer. Padding is EOS, as in many released models."""
    special = ["<unk>", "<s>", "</s>"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS[:words]])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    named = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "</s>"} | ({"bos_token": "<s>"} if bos else {})
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)


def write_model(folder: Path, family: str = "llama") -> Path:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(FAMILIES[family]())
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_corpus(path: Path, count: int = 80, seed: int = 0) -> Path:
    """`count` documents of 3 to 40 words."""
    rng = random.Random(seed)
    lines = (" ".join(rng.choices(WORDS, k=rng.randint(3, 40))) for _ in range(count))
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return path


def source(model: Path, text: Path | str, **changes: Any) -> LanguageModel:
    settings = {"layer": 1, "context": CONTEXT, "buffer_tokens": 200, "batch": 7, "eval_share": 0.2} | changes
    return LanguageModel(model=str(model), text=str(text), **settings)
