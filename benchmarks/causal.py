"""MELBO and DCT where the answer is known, and beside the authors' own code: python -m benchmarks.causal

synthetic  the authors' target: 32 exponentials in 4,096 dimensions, 512 directions fitted
toys       slices of 64 dimensions, smooth and with hard gates: which solver finds their factors
model      a language model: effects, agreement over seeds, seconds

`--public FOLDER`: a checkout of amack315/melbo-dct-post; its fits are made in turn with ours, in the same process, with
one thread. Nothing of it is copied.
"""

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import torch
from rich.progress import track
from torch import Tensor
from torch.nn.functional import normalize, relu

from unbraid import seeding
from unbraid.dictionary.initialisation import no_progress
from unbraid.effects.forward_mode import forward_mode
from unbraid.metrics.matching import best_atom_pairs
from unbraid.sources.base import Contexts
from unbraid.sources.language_model.loading import EMBEDDED
from unbraid.steering.base import FitContext, SliceFit
from unbraid.steering.exponential_dct import ExponentialDct
from unbraid.steering.linear_dct import LinearDct
from unbraid.steering.melbo import Melbo
from unbraid.steering.model_slice import Slice
from unbraid.steering.push_length import FixedRadius
from unbraid.steering.quadratic_dct import QuadraticDct

Effect = Callable[[Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["synthetic", "toys", "model"])
    parser.add_argument("--public", type=Path, help="a checkout of the authors' code, to run beside")
    parser.add_argument("--seeds", type=int, default=3, help="at least two")
    parser.add_argument("--model", default=EMBEDDED, help=f"of `model`: a folder, a hub id, or {EMBEDDED}")
    parser.add_argument("--text", default="language://2000", help="of `model`")
    parser.add_argument("--layer", type=int, default=1, help="of `model`")
    parser.add_argument("--directions", type=int, default=32, help="of `model`")
    parser.add_argument("--contexts", type=int, default=8, help="of `model`")
    parser.add_argument("--out", type=Path, help="write the rows to this JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    public = imported(options.public) if options.public else None
    rows = {"synthetic": synthetic, "toys": toys, "model": model}[options.what](options, public)
    print(table(rows))
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def imported(folder: Path) -> ModuleType:
    """The authors' module `dct`, from their own checkout."""
    path = folder / "src" / "dct.py"
    if not path.is_file():
        raise SystemExit(f"{path} does not exist: give a checkout of amack315/melbo-dct-post")
    spec = importlib.util.spec_from_file_location("public_dct", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["public_dct"] = module
    spec.loader.exec_module(module)
    module.tqdm = lambda items: items  # type: ignore[attr-defined]  (its bars would hide ours)
    return module


# ---- slices that are formulas


def around_zero(effect: Effect, d_in: int) -> Slice:
    """A residual slice with this effect of what is added to a token at zero."""
    acts = torch.zeros(1, 1, d_in)
    downstream = lambda at: at + effect(at)
    return Slice.of(Contexts(acts, torch.ones(1, 1, dtype=torch.bool), downstream(acts), downstream))


def fitted(method: SliceFit, after: Slice, count: int, seed: int, radius: float = 1.0) -> tuple[Tensor, float]:
    """Directions, and the seconds they took."""
    begun = time.perf_counter()
    rng = seeding.stream(seed, "benchmarks/causal")
    found = method.fit(count, FitContext(after, FixedRadius(radius), rng, no_progress)).directions
    return found, time.perf_counter() - begun


def nearest(found: Tensor, true: Tensor, above: float) -> dict[str, float]:
    best = (true @ normalize(found, dim=1).T).amax(1)
    return {"recovered": float((best > above).double().mean()), "mmcs": float(best.mean())}


def synthetic(options: argparse.Namespace, public: ModuleType | None) -> list[dict[str, Any]]:
    d_in, factors, count = 4096, 32, 512
    methods: dict[str, tuple[SliceFit, dict[str, Any]]] = {
        "OGI, Jacobian start, 10 rounds": (
            ExponentialDct(solver="ogi", start="jacobian", steps=10),
            {"init": "jacobian", "max_iters": 10},
        ),
        "OGI, random start, 100 rounds": (
            ExponentialDct(solver="ogi", steps=100),
            {"init": "random", "max_iters": 100},
        ),
        "SOGI, random start, 100 rounds": (ExponentialDct(solver="sogi", steps=100), {}),
        "kernel, 300 steps": (ExponentialDct(), {}),
    }
    rows = []
    for seed in range(options.seeds):
        rng = seeding.stream(seed, "benchmarks/causal/target")
        true = normalize(torch.randn(factors, d_in, generator=rng), dim=1)
        out = normalize(torch.randn(factors, d_in, generator=rng), dim=1)
        effect = lambda x, true=true, out=out: torch.expm1(x @ true.T) @ out
        for name, (method, theirs) in track(methods.items(), f"seed {seed}"):
            found, seconds = fitted(method, around_zero(effect, d_in), count, seed)
            rows.append(
                {"method": name, "by": "unbraid", "seed": seed, "seconds": seconds} | nearest(found, true, 0.99)
            )
            if public is not None and theirs:
                found, seconds = published(public, effect, d_in, count, seed, theirs)
                made = {"method": name, "by": "authors", "seed": seed, "seconds": seconds}
                rows.append(made | nearest(found, true, 0.99))
    return rows


def published(
    public: ModuleType, effect: Effect, d_in: int, count: int, seed: int, settings: dict[str, Any]
) -> tuple[Tensor, float]:
    """The authors' exponential DCT of the same target. Its random start needs a batch size it never sets."""
    torch.manual_seed(seed)
    single: Any = lambda v, x, y: effect(v).unsqueeze(0)
    single.device = "cpu"
    zeros = torch.zeros(1, 1, d_in)
    public.batch_size = 1  # type: ignore[attr-defined]
    begun = time.perf_counter()
    found = public.ExponentialDCT(num_factors=count).fit(
        single, zeros, zeros, d_proj=32, input_scale=1.0, beta=1.0, **settings
    )[1]
    return found.detach().T, time.perf_counter() - begun


TOYS = {
    "exp, 32 factors, 64 directions": ("exp", 32, 64, 0.0, 0.95),
    "exp, 96 factors, 128 directions": ("exp", 96, 128, 0.0, 0.95),
    "exp + deep noise": ("exp", 32, 64, 0.3, 0.9),
    "thresholded ReLU": ("relu", 32, 64, 0.0, 0.9),
    "sigmoid gate": ("sigmoid", 32, 64, 0.0, 0.9),
}
"""Gate, factors, directions, noise, |cos| that counts as found."""
SOLVERS: dict[str, SliceFit] = {
    "MELBO": Melbo(orthogonality="joint"),
    "MELBO, repelled": Melbo(orthogonality="repelled"),
    "linear": LinearDct(),
    "quadratic": QuadraticDct(),
    "OGI": ExponentialDct(solver="ogi", steps=60),
    "SOGI": ExponentialDct(solver="sogi", steps=60),
    "kernel": ExponentialDct(),
}


def toys(options: argparse.Namespace, public: ModuleType | None) -> list[dict[str, Any]]:
    rows = []
    for name, (gate, factors, count, noise, above) in track(TOYS.items(), "toys"):
        for seed in range(options.seeds):
            after, true = toy(gate, factors, noise, seed)
            rows += [
                {"slice": name, "solver": solver, "seed": seed, "seconds": seconds} | nearest(found, true, above)
                for solver, found, seconds in solved(after, count, seed)
            ]
    return rows


def solved(after: Slice, count: int, seed: int) -> Iterator[tuple[str, Tensor, float]]:
    """By every solver that can give so many directions, or what there is of them; and random ones."""
    random = normalize(torch.randn(count, after.d_in, generator=seeding.stream(seed, "random")), dim=1)
    yield "random", random, 0.0
    for solver, method in SOLVERS.items():
        free = solver in ("SOGI", "kernel", "MELBO, repelled")
        try:
            found, seconds = fitted(method, after, count if free else min(count, after.d_in), seed)
        except ValueError as reason:  # a ReLU has no second derivative to fit
            print(f"{solver}: {reason}")
            continue
        yield solver, found, seconds


def toy(gate: str, factors: int, noise: float, seed: int, d_in: int = 64) -> tuple[Slice, Tensor]:
    rng = seeding.stream(seed, "benchmarks/causal/toy")
    true = normalize(torch.randn(factors, d_in, generator=rng), dim=1)
    tail = 0.7 if gate == "exp" and not noise else 0.5
    sizes = torch.arange(1, factors + 1).pow(-tail).unsqueeze(1)
    out = sizes * normalize(torch.randn(factors, d_in, generator=rng), dim=1)
    deep = torch.randn(d_in, 4 * d_in, generator=rng) / d_in**0.5
    back = torch.randn(4 * d_in, d_in, generator=rng) / (4 * d_in) ** 0.5
    gates: dict[str, Effect] = {
        "exp": torch.expm1,
        "relu": lambda x: relu(x - 0.3) + 0.1 * x,
        "sigmoid": lambda x: torch.sigmoid(6 * (x - 0.5)) - torch.sigmoid(torch.tensor(-3.0)),
    }
    effect = lambda x: gates[gate](x @ true.T) @ out + noise * torch.tanh(2 * x @ deep) @ back
    return around_zero(effect, d_in), true


# ---- a language model


def model(options: argparse.Namespace, public: ModuleType | None) -> list[dict[str, Any]]:
    from unbraid.effects.radius import calibrate_radius, random_units, typical_norm
    from unbraid.sources.language_model.language_model import LanguageModel

    source = LanguageModel(
        model=options.model, text=options.text, layer=options.layer, downstream_layer=-2, context=64, buffer_tokens=4096
    )
    contexts = source.contexts(options.contexts, split="train", seed=0)
    held = Slice.of(source.contexts(options.contexts, split="train", seed=1), last=3)
    radius = calibrate_radius(contexts, rng=seeding.stream(0, "radius"))
    print(f"radius {radius:.3g}, {radius / typical_norm(contexts):.2g} of the median norm")
    after, count = Slice.of(contexts, last=3), options.directions
    methods: dict[str, SliceFit | None] = {
        "random": None,
        "linear": LinearDct(),
        "power iteration": LinearDct(form="power"),
        "projected": LinearDct(form="projected", rows=max(32, count)),
        "quadratic": QuadraticDct(),
        "OGI": ExponentialDct(solver="ogi", start="jacobian", steps=10),
        "SOGI": ExponentialDct(solver="sogi"),
        "kernel": ExponentialDct(steps=100),
        "MELBO": Melbo(steps=30),
        "MELBO, joint": Melbo(orthogonality="joint"),
    }
    rows, atoms = [], {}
    for seed in range(options.seeds):
        for name, method in track(methods.items(), f"seed {seed}"):
            if method is None:
                found, seconds = random_units(count, after.d_in, seeding.stream(seed, "random")), 0.0
            else:
                found, seconds = fitted(method, after, count, seed, radius)
            made = [("unbraid", found, seconds)]
            if public is not None and name in PUBLISHED:
                made.append(("authors", *published_fit(public, name, contexts, count, seed, radius)))
            for by, found, seconds in made:
                atoms[name, by, seed] = found
                row = {"method": name, "by": by, "seed": seed, "seconds": seconds}
                rows.append(row | effects(held, found, radius))
    usual = sum(row["effect"] for row in rows if row["method"] == "random") / options.seeds
    for row in rows:
        row["effect_over_random"] = row.pop("effect") / usual
        own, seed = (row["method"], row["by"]), row["seed"]
        others = [matched(atoms[*own, seed], atoms[*own, other]) for other in range(options.seeds) if other != seed]
        row["matched"] = sum(others) / len(others)
    return rows


PUBLISHED = ("linear", "projected", "quadratic", "OGI")


def published_fit(
    public: ModuleType, name: str, contexts: Contexts, count: int, seed: int, radius: float
) -> tuple[Tensor, float]:
    """The authors' fit through our passes of the model: their own slice reads hidden states that transformers 5 gives
    after the last norm. As published otherwise: the skip path is in, and all tokens are pushed."""
    torch.manual_seed(seed)
    single: Any = lambda v, x, y: (contexts.downstream(x + v) - y)[:, -3:].mean(1)
    single.device = "cpu"
    rest = {"X": contexts.acts, "Y": contexts.base, "batch_size": len(contexts.acts)}
    solvers: dict[str, Callable[[], Any]] = {
        "linear": lambda: public.LinearDCT(count).fit(single, method="full", **rest),
        "projected": lambda: public.LinearDCT(count).fit(single, input_scale=radius, **rest),
        "quadratic": lambda: public.QuadraticDCT(count).fit(single, **rest),
        "OGI": lambda: public.ExponentialDCT(count).fit(single, init="jacobian", input_scale=radius, **rest),
    }
    begun = time.perf_counter()
    with forward_mode():
        found = solvers[name]()[1]
    return found.detach().T[:count], time.perf_counter() - begun


def effects(held: Slice, found: Tensor, radius: float) -> dict[str, float]:
    """On contexts that were not fitted: root mean square effect, and mean largest |cosine| of effects."""
    moved = held.pooled(radius * found)
    units = normalize(moved, dim=1)
    return {
        "effect": float(moved.square().sum(1).mean().sqrt()),
        "overlap": float((units @ units.T).abs().fill_diagonal_(0).amax(1).mean()),
    }


def matched(one: Tensor, other: Tensor) -> float:
    rows, columns = best_atom_pairs(one, other)
    return float((normalize(one, dim=1)[rows] * normalize(other, dim=1)[columns]).sum(1).abs().mean())


def table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds."""
    keys = [key for key in ("slice", "method", "solver", "by") if key in rows[0]]
    means = pd.DataFrame(rows).drop(columns="seed").pivot_table(index=keys, sort=False)
    return means.to_string(float_format="%.3f")


if __name__ == "__main__":
    main()
