"""The small experiment of MDL-SAEs again, on scikit-learn's digits: does the shortest description consist of strokes?

    python -m benchmarks.digits --out runs/digits       (docs/digits.png is what a browser makes of digits.svg there)

Ayonrinde et al. (2024, arXiv 2410.11179) find that SAEs on MNIST that are too sparse memorise digits, that those too
dense have fragments, and that the shortest description has strokes. Here: 1,438 images of 8 x 8 to describe, 359 held
out; BatchTopK at many widths and sparsities, and one atom an image with one active latent, which is memory itself.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.datasets import load_digits
from torch import Tensor

from unbraid.comparison.intervals import t_interval
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.encoding import code_matrix
from unbraid.dictionary.initialisation import set_tied
from unbraid.experiment.experiment import Training
from unbraid.experiment.study import Member, Study, at_l0
from unbraid.metrics.description_length import coarsest_steps, description_length, rounded, rounding_error
from unbraid.objective.objective import Objective
from unbraid.runs.run import Run
from unbraid.sources.base import Batch, Block, Contexts, Source, Split, no_downstream
from unbraid.system.files import write_json, write_text
from unbraid.terms.dead_latents.aux_k import AuxK
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.training.loop import train

SIDE = 8
WIDTHS = (16, 32, 64, 128, 256)
SPARSITIES = (1, 2, 4, 8, 16, 32)
FVUS = (0.1, 0.2, 0.3)
EPOCHS = 150
SEEDS = 3
SHOWN = 24
"""Atoms of each dictionary in the picture, those that fire most."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Digits(Source):
    """Images as activations, again and again; every fifth is held out."""

    @property
    def has_documents(self) -> bool:
        return False

    @property
    def d_in(self) -> int:
        return SIDE**2

    def block(self, index: int, *, split: Split, seed: int) -> Block | None:
        if split == "eval" and index:
            return None
        x = images(split)
        order = torch.arange(len(x))
        return Block(Batch(x, torch.full_like(order, -1), order, torch.zeros_like(order)))

    def contexts(self, count: int, *, split: Split, seed: int) -> Contexts:
        raise no_downstream("an image")

    def available(self, split: Split) -> float:
        return float("inf") if split == "train" else float(len(images("eval")))

    def metadata(self) -> Mapping[str, str | int | bool]:
        return {"model_name": "digits", "hook_name": "pixels"}

    def sample_text(self, count: int) -> list[str]:
        return []


@cache
def images(split: Split) -> Float[Tensor, "image pixel"]:
    pixels = torch.from_numpy(load_digits(return_X_y=True)[0]).float() / 16
    held_out = torch.arange(len(pixels)) % 5 == 4
    return pixels[held_out if split == "eval" else ~held_out]


def study(width: int) -> Study:
    objective = Objective(reconstruction=Reconstruction(), penalties={"aux_k": AuxK()})
    tokens = EPOCHS * len(images("train"))
    return Study(
        source=Digits(),
        d_sae=width,
        seeds=tuple(range(SEEDS)),
        training=Training(tokens=tokens, batch_size=256, lr=3e-3, dead_after=20_000),
        members={
            key: member
            for k in SPARSITIES
            if k < width
            for key, member in at_l0(k, {"batchtopk": Member(objective=objective, activation=BatchTopK(k))}).items()
        },
    )


def memory() -> Dictionary:
    """One atom an image, the nearest in angle is active."""
    x = images("train")
    made = Dictionary(SIDE**2, len(x), TopK(1)).requires_grad_(False)
    set_tied(made, x - x.mean(0), x)
    return made


def scored(method: str, asked: int, seed: int, dictionary: Dictionary) -> list[Row]:
    """A row for each FVU that is reached on the images described."""
    x = images("train")
    z = code_matrix(dictionary, x)
    atoms, bias = (w.detach().double().numpy() for w in (dictionary.W_dec, dictionary.b_dec))
    exact = x.double().numpy()
    error = rounding_error(z, atoms, bias, exact)
    about = {
        "method": method, "asked": asked, "d_sae": dictionary.d_sae, "seed": seed, "l0": z.nnz / len(x),
        "fvu": error(1e-6).value(), "fvu_held_out": held_out_fvu(dictionary),
        "pixels": float(np.median(participation(atoms[most_used(z.indices, SHOWN)]))),
    }  # fmt: skip
    rows = []
    for at, step in coarsest_steps(z, error, FVUS).items():
        bits = description_length(rounded(z, step), SIDE**2)
        rows.append(about | {"at": at, "bits": bits.total(), "with_decoder": bits.total(decoder=True)})
    return [{key: float(f"{v:.5g}") if isinstance(v, float) else v for key, v in row.items()} for row in rows]


def held_out_fvu(dictionary: Dictionary) -> float:
    x = images("eval")
    with torch.no_grad():
        return float((dictionary(x) - x).square().sum() / (x - x.mean(0)).square().sum())


def participation(atoms: Float[np.ndarray, "atom pixel"]) -> Float[np.ndarray, " atom"]:
    """Over how many pixels an atom is spread: (sum a^2)^2 / sum a^4."""
    return np.square(np.square(atoms).sum(1)) / np.power(atoms, 4).sum(1)


def most_used(latents: np.ndarray, count: int) -> np.ndarray:
    used = np.bincount(latents)
    return np.argsort(-used, kind="stable")[: min(count, int((used > 0).sum()))]


def shortest(rows: Sequence[Row], at: float, score: str) -> list[Row]:
    """The seeds of the setting with the fewest bits, of those that all seeds reach."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["at"] == at:
            groups.setdefault((row["method"], row["asked"], row["d_sae"]), []).append(row)
    full = [group for group in groups.values() if len(group) == SEEDS or group[0]["method"] == "memory"]
    if not full:
        raise ValueError(f"no setting reaches FVU {at} with all its seeds; train longer (EPOCHS) or allow more")
    return min(full, key=lambda group: t_interval([row[score] for row in group]).mean)


def sentence(rows: Sequence[Row]) -> str:
    row, mean = rows[0], lambda key: t_interval([r[key] for r in rows]).mean
    return (
        f"FVU {row['at']}: {row['method']}, {row['d_sae']} latents, L0 {mean('l0'):.1f}: {mean('bits'):.1f} bits, "
        f"with decoder {mean('with_decoder'):.1f}; FVU {mean('fvu'):.2f}, held out {mean('fvu_held_out'):.2f}; "
        f"atoms over {mean('pixels'):.1f} pixels"
    )


# -- the picture


def tile(atom: Float[np.ndarray, " pixel"], left: float, top: float, size: float) -> str:
    """An atom: red where it adds ink, blue where it takes some away."""
    cell, largest = size / SIDE, np.abs(atom).max()
    parts = []
    for place, value in enumerate(atom / largest):
        shade = round(255 * (1 - min(1.0, abs(float(value)))))
        colour = f"rgb(255,{shade},{shade})" if value > 0 else f"rgb({shade},{shade},255)"
        x, y = left + place % SIDE * cell, top + place // SIDE * cell
        parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{cell:.2f}" height="{cell:.2f}" fill="{colour}"/>')
    edge = f'<rect x="{left}" y="{top}" width="{size}" height="{size}" fill="none" stroke="#bbb"/>'
    return "".join([*parts, edge])


def panel(title: str, lines: Sequence[str], atoms: Float[np.ndarray, "atom pixel"], left: float) -> str:
    size, gap, across = 40, 6, 6
    tiles = [
        tile(atom, left + i % across * (size + gap), 92 + i // across * (size + gap), size)
        for i, atom in enumerate(atoms)
    ]
    text = [f'<text x="{left}" y="26" class="title">{title}</text>']
    text += [f'<text x="{left}" y="{48 + 17 * i}">{line}</text>' for i, line in enumerate(lines)]
    return "".join(text + tiles)


def picture(panels: Sequence[tuple[str, Sequence[str], Float[np.ndarray, "atom pixel"]]]) -> str:
    body = "".join(panel(*each, left=20 + 310 * i) for i, each in enumerate(panels))
    style = "text{font:13px sans-serif;fill:#222}.title{font-weight:bold;font-size:16px}"
    body += f'<text x="20" y="292">The {SHOWN} atoms that fire most: red adds ink, blue takes it away.</text>'
    width, height = 20 + 310 * len(panels), 304
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<style>{style}</style><rect width="100%" height="100%" fill="white"/>{body}</svg>\n'
    )


def shown(dictionary: Dictionary) -> Float[np.ndarray, "atom pixel"]:
    z = code_matrix(dictionary, images("train"))
    return dictionary.W_dec.detach().numpy()[most_used(z.indices, SHOWN)]


def about(rows: Sequence[Row]) -> list[str]:
    mean = lambda key: t_interval([row[key] for row in rows]).mean
    return [
        f"{rows[0]['d_sae']:,} atoms, {mean('l0'):.1f} active; FVU held out {mean('fvu_held_out'):.2f}",
        f"{mean('bits'):.0f} bits an image, {mean('with_decoder'):.0f} with the decoder",
    ]


Trained = Mapping[tuple[int, int, int], Dictionary]
"""By width, L0 asked for and seed."""


def trained(root: Path) -> Trained:
    found = {}
    for width in WIDTHS:
        experiments = study(width).experiments()
        for experiment, path in zip(experiments, train(experiments, root, resume=True), strict=True):
            asked = round(experiment.requested_l0 or 0)
            found[width, asked, experiment.seed] = Run(path).dictionary()
    return found


def compared(rows: Sequence[Row], by_setting: Trained, at: float) -> str:
    """The picture: memory, the shortest with its decoder, and the densest, at an FVU."""
    best = shortest(rows, at, "with_decoder")
    dense = shortest([row for row in rows if row["asked"] == max(SPARSITIES)], at, "with_decoder")
    memorised = [row for row in rows if row["method"] == "memory" and row["at"] == at]
    own = lambda group: by_setting[group[0]["d_sae"], group[0]["asked"], 0]
    return picture(
        [
            ("One atom an image", about(memorised), shown(memory())),
            ("Shortest with its decoder", about(best), shown(own(best))),
            (f"L0 {max(SPARSITIES)}", about(dense), shown(own(dense))),
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="MDL-SAEs' small experiment on digits")
    parser.add_argument("--out", type=Path, default=Path("runs/digits"), help="folder of runs, rows and picture")
    parser.add_argument("--at", type=float, default=0.2, choices=FVUS, help="FVU of the picture (default: 0.2)")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    by_setting = trained(options.out / "runs")
    rows = [row for (_, k, seed), made in by_setting.items() for row in scored("batchtopk", k, seed, made)]
    rows += scored("memory", 1, 0, memory())
    write_json(options.out / "digits.json", rows)
    for at in FVUS:
        for score in ("bits", "with_decoder"):
            print(f"shortest {score:12}", sentence(shortest(rows, at, score)))
    write_text(options.out / "digits.svg", compared(rows, by_setting, options.at))


if __name__ == "__main__":
    # Runs name the classes of their configuration, and nobody could import this one from __main__.
    from benchmarks.digits import main as imported

    imported()
