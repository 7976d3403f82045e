"""overcomplete: its own `train_sae`, a batch at a time, with its defaults."""

import importlib.util
import math
import sys
import types

import torch
from torch import Tensor

from benchmarks.contender import LEARNING_RATE, CannotRun, Contender, Setting

# Its __init__ imports vision models, and these a torchvision that fits the build of torch; its SAEs need neither.
found = importlib.util.find_spec("overcomplete")
if found is None or found.submodule_search_locations is None:
    raise ImportError("there is no overcomplete here")
package = types.ModuleType("overcomplete")
package.__path__ = list(found.submodule_search_locations)
sys.modules["overcomplete"] = package
import overcomplete.sae as library  # noqa: E402  # pyright: ignore[reportMissingImports]


def build(setting: Setting) -> Contender:
    if setting.bench == "matryoshka":
        raise CannotRun("overcomplete has no Matryoshka")
    if setting.dead:
        raise CannotRun("overcomplete has no loss on dead latents alone")
    torch.manual_seed(0)
    shape = (setting.d_in, setting.d_sae)
    # The budget of its BatchTopK is that of the whole batch.
    make = {
        "topk": lambda: library.TopKSAE(*shape, top_k=setting.k),
        "batchtopk": lambda: library.BatchTopKSAE(*shape, top_k=setting.k * setting.batch),
        "jumprelu": lambda: library.JumpSAE(*shape),
        "relu": lambda: library.SAE(*shape),
    }
    model = make[setting.bench]()
    if setting.bench in ("relu", "jumprelu"):
        linear = model.encoder.final_block[0]
        with torch.no_grad():
            model.dictionary._weights.copy_(setting.atoms())
            linear.weight.copy_(setting.atoms())
            linear.bias.fill_(-setting.threshold if setting.bench == "relu" else 0.0)
            if setting.bench == "jumprelu":
                model.thresholds.fill_(math.log(max(setting.threshold, 1e-6)))
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    loss = library.mse_l1 if setting.bench in ("relu", "jumprelu") else error

    def step(index: int, x: Tensor) -> None:
        library.train_sae(model, [x], loss, optimiser, nb_epochs=1, device="cpu")

    active = lambda x: model.encode(x)[1]
    return Contender(step, list(model.parameters()), optimiser, active)


def error(x: Tensor, x_hat: Tensor, pre: Tensor, z: Tensor, atoms: Tensor) -> Tensor:
    """The mean squared error: how its users train TopK."""
    return (x - x_hat).square().mean()
