"""sparsify: what its `Trainer` does with one batch of activations, around its own coder and optimiser.

The trainer itself cannot be given activations (it runs a language model), so its step is written out here.
"""

import torch
from schedulefree import ScheduleFreeWrapper  # pyright: ignore[reportMissingImports]
from sparsify.config import SparseCoderConfig  # pyright: ignore[reportMissingImports]
from sparsify.sign_sgd import SignSGD  # pyright: ignore[reportMissingImports]
from sparsify.sparse_coder import SparseCoder  # pyright: ignore[reportMissingImports]
from torch import Tensor

from benchmarks.contender import LEARNING_RATE, CannotRun, Contender, Setting


def build(setting: Setting) -> Contender:
    if setting.bench != "topk":
        raise CannotRun("sparsify has TopK and GroupMax only")
    torch.manual_seed(0)
    config = SparseCoderConfig(num_latents=setting.d_sae, k=setting.k)
    coder = SparseCoder(setting.d_in, config, "cpu", dtype=torch.float32)
    # Its default optimiser, and the cheaper one for it: one moment less than Adam.
    inner = SignSGD([{"params": list(coder.parameters()), "lr": LEARNING_RATE}])
    optimiser = ScheduleFreeWrapper(inner, momentum=0.95)
    optimiser.train()
    silent = torch.zeros(setting.d_sae, dtype=torch.long)
    fired = torch.zeros(setting.d_sae, dtype=torch.bool)
    dead = torch.arange(setting.d_sae) < setting.dead_latents if setting.dead else None

    def step(index: int, x: Tensor) -> None:
        coder.set_decoder_norm_to_unit_norm()
        out = coder(x=x, y=x, dead_mask=dead, total_variance=(x - x.mean(0)).pow(2).sum())
        fired[out.latent_indices.flatten()] = True
        float(out.fvu.detach())  # logged every step
        # Its loss on dead latents has no weight by default; with one, it is that of the paper it is from.
        (out.fvu + out.multi_topk_fvu / 8 + (out.auxk_loss / 32 if setting.dead else 0)).backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimiser.step()
        optimiser.zero_grad()
        silent.add_(len(x)).masked_fill_(fired, 0)
        fired.zero_()

    return Contender(step, list(coder.parameters()), optimiser)
