"""dictionary_learning: each trainer's `update`, with its defaults."""

import importlib

import torch
from torch import Tensor

from benchmarks.contender import BANDWIDTH, LEARNING_RATE, Contender, Setting

TRAINERS = {
    "topk": ("top_k", "TopKTrainer"),
    "batchtopk": ("batch_top_k", "BatchTopKTrainer"),
    "matryoshka": ("matryoshka_batch_top_k", "MatryoshkaBatchTopKTrainer"),
    "jumprelu": ("jumprelu", "JumpReluTrainer"),
    "relu": ("standard", "StandardTrainer"),
}


def build(setting: Setting) -> Contender:
    module, name = TRAINERS[setting.bench]
    own = {
        "topk": {"k": setting.k},
        "batchtopk": {"k": setting.k},
        "matryoshka": {"k": setting.k, "group_fractions": [width / setting.d_sae for width in setting.widths()]},
        "jumprelu": {"bandwidth": BANDWIDTH, "target_l0": float(setting.k)},
        "relu": {},
    }[setting.bench]
    trainer = getattr(importlib.import_module(f"dictionary_learning.trainers.{module}"), name)(
        steps=100_000,
        activation_dim=setting.d_in,
        dict_size=setting.d_sae,
        layer=0,
        lm_name="none",
        device="cpu",
        seed=0,
        lr=LEARNING_RATE,
        **own,
    )
    model = trainer.ae
    with torch.no_grad():
        if setting.bench == "relu":
            model.decoder.weight.copy_(setting.atoms().T)
            model.encoder.weight.copy_(setting.atoms())
            model.encoder.bias.fill_(-setting.threshold)
            model.bias.zero_()
        elif setting.bench == "jumprelu":
            model.W_dec.copy_(setting.atoms())
            model.W_enc.copy_(model.W_dec.T)
            model.threshold.fill_(setting.threshold)
    # Its BatchTopK encodes with a threshold it has not fitted yet, which says nothing about training.
    active = model.encode if setting.bench in ("relu", "jumprelu") else None

    def step(index: int, x: Tensor) -> None:
        if setting.dead:
            trainer.num_tokens_since_fired[: setting.dead_latents] = 10**9
        trainer.update(index, x)

    return Contender(step, list(model.parameters()), trainer.optimizer, active)
