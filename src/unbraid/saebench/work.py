"""The work of SAEBench's evals in multiplications, and the speed of this machine at them.

A small model costs SAEBench's own bookkeeping (eval_specs.py); a large one costs its passes, which are counted here in
tokens and weighed by the model's parameters, the layer and the size of the SAE.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from unbraid.saebench.datasets import CLASSES, ROWS
from unbraid.saebench.eval_specs import EVAL_SPECS

PROMPT = 85
"""Tokens of absorption's prompts: ten examples and a word."""
WORDS, LETTERS = 20_000, 26
"""Words of a vocabulary that absorption reads where no number is set, and letters."""
MISSED = 0.05
"""Share of the words that a run's latents miss, which absorption reads again."""
FACT = 40
"""Tokens of RAVEL's prompts with padding."""
SHORT = 60_000
"""Tokens of the texts of sae-probes that are read."""
BACKWARD = 2
"""A backward pass without gradients of weights costs as much as the forward pass, which comes first."""
EFFICIENCY = 0.75
"""Speed of a model's pass as a share of that of its matrix products alone, measured on SmolLM2-135M: .77."""
SECONDS = 0.2
"""Processor time of the matrix products that are timed."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The tokens that an eval reads: once a model and layer, and each run."""

    to_hook: float | int = 0
    """Once, by the blocks up to the hook."""
    whole: float | int = 0
    """Once, by the whole model."""
    each_to_hook: float | int = 0
    each_after: float | int = 0
    """By the blocks after the hook, and the unembedding."""
    each_sae: float | int = 0
    """Encoded and decoded."""


def tokens_of(name: str, settings: Mapping[str, Any]) -> Tokens:
    """The tokens that an eval reads at some settings."""
    if name == "core":
        batch = EVAL_SPECS[name].batch * settings["context_size"]
        spliced, read = settings["reconstruction_batches"] * batch, settings["variance_batches"] * batch
        return Tokens(to_hook=read, whole=2 * spliced, each_after=spliced, each_sae=spliced + read)
    if name == "absorption":
        words = LETTERS * settings["words_a_letter"] if "words_a_letter" in settings else WORDS
        return Tokens(to_hook=words * PROMPT, each_to_hook=MISSED * words * PROMPT, each_sae=words)
    if name in ("sparse_probing", "scr", "tpp"):
        rows = sum(min(settings.get(f"probe_{split}_set_size", 4 * most) // 4, most) for split, most in ROWS.items())
        read = 2 * CLASSES * rows * settings["context_length"]
        return Tokens(to_hook=read, each_sae=read)
    if name == "sae_probes":
        return Tokens(to_hook=SHORT, each_sae=SHORT)
    if name == "ravel":
        attributes = sum(map(len, settings["entity_attribute_selection"].values()))
        pairs = 2 * attributes * settings["num_pairs_per_attribute"] * FACT
        # Two epochs, of which each reads the source up to the hook and the base text, forth and back behind the hook.
        return Tokens(
            whole=settings["full_dataset_downsample"] * FACT, each_to_hook=4 * pairs, each_after=2 * BACKWARD * pairs
        )
    if name == "autointerp":
        return Tokens(each_to_hook=settings["total_tokens"], each_sae=settings["total_tokens"])
    return Tokens()


@dataclass(frozen=True)
class Model:
    """The multiplications of a language model, a token."""

    parameters: float
    to_hook: float
    after: float
    width: int


@lru_cache(maxsize=8)
def model_in(folder: Path, layer: int) -> Model:
    """The multiplications of the model in a folder, of which only the configuration is read."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):  # its weights are never made
        model = AutoModelForCausalLM.from_config(config)
    text = config.get_text_config()
    embedded = model.get_input_embeddings().weight.numel()
    parameters = sum(weight.numel() for weight in model.parameters())
    tied = model.get_output_embeddings() is None or config.tie_word_embeddings
    blocks = parameters - (1 if tied else 2) * embedded
    before = (layer + 1) / text.num_hidden_layers
    after = blocks * (1 - before) + embedded
    return Model(float(parameters), 2 * blocks * before, 2 * after, text.hidden_size)


@lru_cache(maxsize=8)
def speed(width: int) -> float:
    """Multiplications and additions a second of one core, of matrices as wide as the model: measured now."""
    rows, weight, made = torch.randn(1024, width), torch.randn(width, 4 * width), 0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.mm(rows, weight)
        started = time.thread_time()
        while (took := time.thread_time() - started) < SECONDS:
            torch.mm(rows, weight)
            made += 1
    finally:
        torch.set_num_threads(threads)
    return made * 2.0 * rows.numel() * 4 * width / took


def minutes(name: str, settings: Mapping[str, Any], model: Model, *, runs: int, d_sae: int, products: float) -> float:
    """The minutes that the passes of an eval take for `runs` runs, at `products` multiplications a second (`speed`)."""
    tokens, whole = tokens_of(name, settings), model.to_hook + model.after
    once = tokens.to_hook * model.to_hook + tokens.whole * whole
    sae = 4.0 * model.width * d_sae
    each = tokens.each_to_hook * model.to_hook + tokens.each_after * model.after + tokens.each_sae * sae
    return (once + runs * each) / (EFFICIENCY * products) / 60
