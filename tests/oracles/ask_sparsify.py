"""Run by sparsify's own Python, so that nothing of ours is imported: it makes, loads and trains its SAEs.

make FOLDER    an SAE in layers.3, with x.safetensors and its answer in answer.safetensors
load FOLDER    the answer of every SAE in FOLDER to x.safetensors
loss FOLDER    loss and gradients of the case in FOLDER
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sparsify import SparseCoder, SparseCoderConfig  # pyright: ignore[reportMissingImports]

D_IN, D_SAE, K = 12, 40, 5


def coder(**settings):
    return SparseCoder(D_IN, SparseCoderConfig(num_latents=D_SAE, k=K, **settings))


@torch.no_grad()
def make(folder):
    x = torch.randn(300, D_IN, generator=torch.Generator().manual_seed(1))
    save_file({"x": x}, folder / "x.safetensors")
    rng = torch.Generator().manual_seed(0)
    for name, settings in {
        "layers.3": {}, "transcoder": {"transcode": True}, "skip": {"skip_connection": True},
        "groupmax": {"activation": "groupmax"},
    }.items():  # fmt: skip
        made = coder(**settings)
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng))
        made.set_decoder_norm_to_unit_norm()
        made.save_to_disk(folder / name)
        answer(made, x, folder / name)


@torch.no_grad()
def answer(made, x, out):
    values, latents, _ = made.encode(x)
    f = torch.zeros(len(x), made.num_latents).scatter(1, latents, values)
    save_file({"f": f, "x_hat": made.decode(values, latents).contiguous()}, out / "answer.safetensors")


def load(folder):
    x = load_file(folder / "x.safetensors")["x"]
    for path in sorted(folder.glob("*/sae.safetensors")):
        answer(SparseCoder.load_from_disk(path.parent), x, path.parent)


def loss(folder):
    given = load_file(folder / "in.safetensors")
    made = coder().double()
    named = {"W_enc": made.encoder.weight, "b_enc": made.encoder.bias, "W_dec": made.W_dec, "b_dec": made.b_dec}
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(given[name].T if name == "W_enc" else given[name])
    out = {}
    said = made(given["x"], dead_mask=given["dead"].bool())
    for part, value in (("fvu", said.fvu), ("auxk", said.auxk_loss)):
        grads = torch.autograd.grad(value, list(named.values()), retain_graph=True, allow_unused=True)
        out[part] = value.detach()
        for (name, parameter), grad in zip(named.items(), grads, strict=True):
            grad = torch.zeros_like(parameter) if grad is None else grad
            out[f"{part}/{name}"] = (grad.T if name == "W_enc" else grad).contiguous()
    save_file(out, folder / "out.safetensors")


if __name__ == "__main__":
    {"make": make, "load": load, "loss": loss}[sys.argv[1]](Path(sys.argv[2]))
