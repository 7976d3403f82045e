"""Run by dictionary_learning's own Python, so that nothing of ours is imported: it makes, loads and trains its SAEs.

make FOLDER    an SAE of every class, in a folder each, with x.safetensors and its answer in answer.safetensors
load FOLDER    the answer of every SAE in FOLDER to x.safetensors
loss FOLDER    loss and gradients of each case in FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from dictionary_learning import trainers  # pyright: ignore[reportMissingImports]
from dictionary_learning.utils import load_dictionary  # pyright: ignore[reportMissingImports]
from safetensors.torch import load_file, save_file

D_IN, D_SAE, K = 12, 40, 5

COMMON = {"steps": 100_000, "activation_dim": D_IN, "dict_size": D_SAE, "layer": 3, "lm_name": "somebody/model",
          "submodule_name": "resid_post_layer_3", "device": "cpu", "seed": 0}  # fmt: skip


def trainer(name, **settings):
    module = {
        "StandardTrainer": "standard", "StandardTrainerAprilUpdate": "standard", "GatedSAETrainer": "gdm",
        "JumpReluTrainer": "jumprelu", "TopKTrainer": "top_k", "BatchTopKTrainer": "batch_top_k",
        "MatryoshkaBatchTopKTrainer": "matryoshka_batch_top_k", "PAnnealTrainer": "p_anneal",
    }[name]  # fmt: skip
    __import__(f"dictionary_learning.trainers.{module}")
    return getattr(getattr(trainers, module), name)(**{**COMMON, **settings})


def april(**settings):
    from dictionary_learning.dictionary import AutoEncoderNew  # pyright: ignore[reportMissingImports]

    made = trainer("StandardTrainerAprilUpdate", **settings)
    made.ae = AutoEncoderNew(D_IN, D_SAE)
    return made


MADE = {
    "AutoEncoder": lambda: trainer("StandardTrainer"),
    "AutoEncoderNew": april,
    "GatedAutoEncoder": lambda: trainer("GatedSAETrainer"),
    "JumpReluAutoEncoder": lambda: trainer("JumpReluTrainer"),
    "AutoEncoderTopK": lambda: trainer("TopKTrainer", k=K),
    "BatchTopKSAE": lambda: trainer("BatchTopKTrainer", k=K),
    "MatryoshkaBatchTopKSAE": lambda: trainer(
        "MatryoshkaBatchTopKTrainer", k=K, group_fractions=[0.25, 0.75]
    ),
}  # fmt: skip


@torch.no_grad()
def scramble(ae, *, unit):
    """Arbitrary weights; atoms of unit norm where the class holds them so."""
    rng = torch.Generator().manual_seed(0)
    for name, parameter in ae.named_parameters():
        drawn = torch.randn(parameter.shape, generator=rng)
        parameter.copy_(drawn.abs() if name == "threshold" else 0.3 * drawn if name == "r_mag" else drawn)
    if unit:
        atoms = ae.W_dec if hasattr(ae, "W_dec") else ae.decoder.weight.T
        atoms.div_(atoms.norm(dim=1, keepdim=True))
    if "threshold" in dict(ae.named_buffers()):
        ae.threshold.fill_(0.7)


@torch.no_grad()
def make(folder):
    x = torch.randn(300, D_IN, generator=torch.Generator().manual_seed(1))
    save_file({"x": x}, folder / "x.safetensors")
    for name, build in MADE.items():
        made = build()
        scramble(made.ae, unit="TopK" in name)
        out = folder / name
        out.mkdir()
        torch.save(made.ae.state_dict(), out / "ae.pt")
        config = {**made.config, "dict_class": name}
        (out / "config.json").write_text(json.dumps({"trainer": config, "buffer": {}}))
        answer(made.ae, x, out)


@torch.no_grad()
def answer(ae, x, out):
    f = ae.encode(x)
    save_file({"f": f.contiguous(), "x_hat": ae.decode(f).contiguous()}, out / "answer.safetensors")


def load(folder):
    x = load_file(folder / "x.safetensors")["x"]
    for path in sorted(folder.glob("*/ae.pt")):
        answer(load_dictionary(str(path.parent), "cpu")[0], x, path.parent)


LINEAR = {"W_enc": ("encoder.weight", True), "b_enc": ("encoder.bias", False), "W_dec": ("decoder.weight", True)}
CASES = {
    "l1": ("StandardTrainer", {"l1_penalty": 0.1}, {**LINEAR, "b_dec": ("bias", False)}),
    "p_annealing": (
        "PAnnealTrainer",
        {"sparsity_function": "Lp^p", "initial_sparsity_penalty": 0.1, "anneal_start": 0, "anneal_end": 100,
         "p_end": 0.2,
         "n_sparsity_updates": 5, "sparsity_queue_length": 1},
        {**LINEAR, "b_dec": ("bias", False)},
    ),
    "gated": (
        "GatedSAETrainer", {"l1_penalty": 0.1},
        {"W_enc": ("encoder.weight", True), "b_enc": ("gate_bias", False), "r_mag": ("r_mag", False),
         "b_mag": ("mag_bias", False), "W_dec": ("decoder.weight", True), "b_dec": ("decoder_bias", False)},
    ),
    "topk": ("TopKTrainer", {"k": K, "auxk_alpha": 1 / 32}, {**LINEAR, "b_dec": ("b_dec", False)}),
    "batchtopk": ("BatchTopKTrainer", {"k": K, "auxk_alpha": 1 / 32}, {**LINEAR, "b_dec": ("b_dec", False)}),
    "jumprelu": (
        "JumpReluTrainer", {"bandwidth": 0.5, "sparsity_penalty": 0.0},
        {"W_enc": ("W_enc", False), "b_enc": ("b_enc", False), "W_dec": ("W_dec", False), "b_dec": ("b_dec", False),
         "threshold": ("threshold", False)},
    ),
}  # fmt: skip
"""Trainer, its settings, and what it calls our parameters (and whether transposed)."""


def loss(folder):
    for name, (kind, settings, names) in CASES.items():
        given = load_file(folder / name / "in.safetensors")
        made = trainer(kind, warmup_steps=0, sparsity_warmup_steps=0, **settings) if kind not in (
            "TopKTrainer", "BatchTopKTrainer"
        ) else trainer(kind, warmup_steps=0, **settings)  # fmt: skip
        made.ae.double()
        parameters = dict(made.ae.named_parameters())
        with torch.no_grad():
            for ours, (theirs, turned) in names.items():
                parameters[theirs].copy_(given[ours].T if turned else given[ours])
        if "dead" in given:
            made.num_tokens_since_fired[given["dead"].bool()] = made.dead_feature_threshold
        said = run_loss(made, given["x"], name)
        said["loss"].backward()
        out = {"loss": said["loss"].detach(), **{key: value for key, value in said.items() if key != "loss"}}
        for ours, (theirs, turned) in names.items():
            grad = parameters[theirs].grad
            out[f"grad/{ours}"] = (grad.T if turned else grad).contiguous()
        save_file(out, folder / name / "out.safetensors")


def run_loss(made, x, name):
    """The loss of step 0; of p-annealing, of the step after p has fallen for the first time."""
    if name != "p_annealing":
        return {"loss": made.loss(x, step=0)}
    for step in (0, 1, 24, 25, 26):  # p falls at 25: linspace(0, 100, 5)
        value = made.loss(x, step=step)
    return {"loss": value, "p": torch.tensor(made.p), "scale": torch.tensor(made.sparsity_coeff / 0.1)}


if __name__ == "__main__":
    {"make": make, "load": load, "loss": loss}[sys.argv[1]](Path(sys.argv[2]))
