"""What bfloat16 does to gradients through later layers: a trained dictionary, a calibrated radius.

    python -m benchmarks.slice_gradients RUN --downstream-layer 16 --out docs/results/slice-gradients.json

`effect`, `orthogonal_jacobian` and `hessian` (second differences, where rounding weighs most) on the run's own atoms
and the model behind it, in float32 and in bfloat16, with the same contexts, latents and random draws: the gradient on
the atoms that were sampled, compared atom by atom, and CPU time of one thread, in turn. Beside it, in float32, what
other contexts change: the noise that a step has anyway.
"""

import argparse
import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from unbraid import seeding
from unbraid.effects.radius import calibrate_radius
from unbraid.evals.dose import Inputs, Measured
from unbraid.objective.objective import Term
from unbraid.objective.step_data import CONTEXTS, ExtraInputs
from unbraid.runs.run import Run
from unbraid.sources.behind import behind
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.stream import held_out
from unbraid.system.files import write_json
from unbraid.terms.causal.effect import Effect
from unbraid.terms.causal.hessian import Hessian
from unbraid.terms.causal.orthogonal_jacobian import OrthogonalJacobian

ROWS = 1024
LATENTS = 16


class Gradient(NamedTuple):
    """The gradient of a term on the atoms, and what it took."""

    atoms: Float[Tensor, "d_sae d_in"]
    seconds: float


def terms(radius: float) -> dict[str, Term]:
    """Terms that sample latents by number: those of `melbo` and `interaction` are of latents that fire, which rounding
    changes."""
    return {
        "effect": Effect(columns=LATENTS, radius=radius),
        "orthogonal_jacobian": OrthogonalJacobian(radius=radius),
        "hessian": Hessian(radius=radius),
    }


def gradient(measured: Measured, name: str, term: Term, inputs: Inputs) -> Gradient:
    """The gradient of one term at one step; its first use, so that its averages are those of this step."""
    atoms = measured.dictionary.W_dec
    atoms.requires_grad_(True).grad = None
    inputs.extra.contexts()  # drawn beforehand: terms of a step share them
    before = time.process_time()
    term(measured.step(name, inputs, {})).loss.backward()
    seconds = time.process_time() - before
    found = torch.zeros_like(atoms) if atoms.grad is None else atoms.grad.clone()
    return Gradient(found, seconds)


def alike(one: Tensor, other: Tensor) -> dict[str, float]:
    """Cosines of the gradients of atoms that have one in both, and the ratio of their sizes."""
    there = (one.norm(dim=1) > 0) & (other.norm(dim=1) > 0)
    cosines = cosine_similarity(one[there], other[there], dim=1)
    return {
        "atoms": int(there.sum()), "cosine": float(cosines.mean()), "least_cosine": float(cosines.min()),
        "size": float(other[there].norm() / one[there].norm()),
    }  # fmt: skip


def measure(run: Run, models: Mapping[str, LanguageModel], radius: float, repetitions: int) -> list[dict[str, Any]]:
    """One row a term and repetition."""
    rows = held_out(run.source, ROWS)
    parts = {name: Inputs(rows, ExtraInputs(model, 0, 0, "train")) for name, model in models.items()}
    measured = Measured.of(run, [parts["float32"]])
    found = []
    for number in range(repetitions):
        steps = {name: Inputs(rows, ExtraInputs(model, 0, number, "train")) for name, model in models.items()}
        steps["other"] = Inputs(rows, replace(ExtraInputs(models["float32"], 1, number, "train"), index=number))
        for name, term in terms(radius).items():
            got = {way: gradient(measured, name, term, inputs) for way, inputs in steps.items()}
            exact = got["float32"]
            found.append({
                "term": name, "step": number, "radius": radius,
                "bfloat16": alike(exact.atoms, got["bfloat16"].atoms),
                "other contexts": alike(exact.atoms, got["other"].atoms),
                "seconds": {way: got[way].seconds for way in models},
            })  # fmt: skip
            print(found[-1], flush=True)
    return found


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--downstream-layer", type=int, required=True)
    parser.add_argument(
        "--radius", type=float, default=0.0, help="size of a push; 0 calibrates it, which takes minutes"
    )
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = Run.open(options.run)
    model = behind(run.source)
    if not isinstance(model, LanguageModel):
        raise SystemExit(f"{options.run} was trained on a {type(model).__name__}; name a run of a language model")
    model = replace(model, downstream_layer=options.downstream_layer)
    models = {dtype: replace(model, dtype=dtype) for dtype in ("float32", "bfloat16")}
    contexts = models["float32"].contexts(CONTEXTS, split="train", seed=0)
    radius = options.radius or calibrate_radius(contexts, rng=seeding.stream(0, "slice_gradients"))
    rows = measure(run, models, radius, options.repetitions)
    write_json(options.out, {"model": model.model, "layer": model.layer, "to": options.downstream_layer,
                             "context_tokens": CONTEXTS * model.context, "rows": rows})  # fmt: skip
    for name in terms(radius):
        own = [row for row in rows if row["term"] == name]
        mean = lambda way, key, own=own: statistics.mean(row[way][key] for row in own)
        ratio = [row["seconds"]["bfloat16"] / row["seconds"]["float32"] for row in own]
        print(f"{name}: cosine {mean('bfloat16', 'cosine'):.4f}, size {mean('bfloat16', 'size'):.3f}; other contexts "
              f"{mean('other contexts', 'cosine'):.3f}; time {min(ratio):.2f} to {max(ratio):.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
