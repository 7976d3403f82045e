"""SAELens: `SAETrainer.step` as its own `fit` calls it, with its defaults."""

import importlib

import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from benchmarks.contender import BANDWIDTH, LEARNING_RATE, Contender, Setting

CLASSES = {
    "topk": ("topk_sae", "TopKTrainingSAE"),
    "batchtopk": ("batchtopk_sae", "BatchTopKTrainingSAE"),
    "matryoshka": ("matryoshka_batchtopk_sae", "MatryoshkaBatchTopKTrainingSAE"),
    "jumprelu": ("jumprelu_sae", "JumpReLUTrainingSAE"),
    "relu": ("standard_sae", "StandardTrainingSAE"),
}


def build(setting: Setting, *, autocast: bool = False) -> Contender:
    module, name = CLASSES[setting.bench]
    classes = importlib.import_module(f"sae_lens.saes.{module}")
    prefixes = [sum(setting.widths()[: level + 1]) for level in range(len(setting.widths()))]
    own = {
        "topk": {"k": setting.k},
        "batchtopk": {"k": float(setting.k)},
        "matryoshka": {"k": float(setting.k), "matryoshka_widths": prefixes},
        "jumprelu": {"jumprelu_bandwidth": BANDWIDTH},
        "relu": {},
    }[setting.bench]
    config = getattr(classes, f"{name}Config")(d_in=setting.d_in, d_sae=setting.d_sae, device="cpu", **own)
    torch.manual_seed(0)
    sae = getattr(classes, name)(config)
    if setting.bench in ("relu", "jumprelu"):
        with torch.no_grad():
            sae.W_dec.copy_(setting.atoms())
            sae.W_enc.copy_(sae.W_dec.T)
            sae.b_dec.zero_()
            if setting.bench == "relu":
                sae.b_enc.fill_(-setting.threshold)
            else:
                sae.threshold.fill_(setting.threshold)
    trainer = SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=10**9,
            train_batch_size_samples=setting.batch,
            lr=LEARNING_RATE,
            lr_end=LEARNING_RATE / 10,
            device="cpu",
            autocast=autocast,
        ),
        sae=sae,
        data_provider=iter(()),
    )

    def step(index: int, x: Tensor) -> None:
        if setting.dead:
            trainer.n_forward_passes_since_fired[: setting.dead_latents] = 10**6
        trainer.maybe_reset_sparsity()
        trainer.step(x)
        trainer.n_training_steps += 1

    return Contender(step, list(sae.parameters()), trainer.optimizer, sae.encode)


def build_autocast(setting: Setting) -> Contender:
    """The same with its own switch for products in bfloat16."""
    return build(setting, autocast=True)
