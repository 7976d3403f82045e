"""The speed of reading activations next to the plain forward pass: python -m benchmarks.harvest --out FILE

Tokens a core-second (user and system time of one thread) of SmolLM2, or another model, at a third and half of its
depth, in both precisions. plain: transformers' own forward pass over full windows of the same text, of a model cut off
after the layer, with no hook and nothing kept. one: `LanguageModel.block`. two: both layers in one pass, as `unbraid
cache --layers` reads them. Each round measures every arm once, in turn, so that the machine's load meets all alike.
Blocks here are small, so passes are of 8 windows: in a block of the usual 65,536 tokens windows of one length fill 32.
`apart`: squared difference of the bfloat16 rows from the float32 ones, as a share of the variance.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from unbraid.sources.language_model.harvest import Harvest, at_layers
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.system.files import write_json

LAYERS = ("1/3", "1/2")
PAGES = Path(__file__).parents[1] / "docs"
DTYPES: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
Arm = Callable[[int], int]
"""Reads a block of this number, and returns how many tokens it has read."""


def plain(source: LanguageModel) -> Arm:
    """Return the forward pass of transformers alone, up to the source's layer."""
    from transformers import AutoModelForCausalLM

    from unbraid.sources.language_model.loading import located

    dtype = getattr(torch, source.dtype)
    model: Any = AutoModelForCausalLM.from_pretrained(located(source.model), dtype=dtype).eval()
    body = model.base_model
    body.layers = body.layers[: source.layer + 1]
    pool = source._corpus.pool("train")
    full = (pool.length == pool.length.max()).nonzero()[:, 0]
    windows = source.buffer_tokens // source.context

    @torch.no_grad()
    def read(number: int) -> int:
        tokens = 0
        for which in full.roll(-number * windows)[:windows].split(source.batch):
            ids = pool.windows(which).ids
            body(input_ids=ids, use_cache=False)
            tokens += ids.numel()
        return tokens

    return read


def harvested(sources: list[LanguageModel]) -> Arm:
    """Return our way of reading one layer or several."""
    harvest = Harvest(sources)
    harvest.known = [float("inf")] * len(sources)  # the first block is not read for the limits alone
    for source in sources:
        assert source._hook_point  # proven when a model is first read, by passes of its own

    def read(number: int) -> int:
        found = harvest.blocks(number, split="train", seed=1)
        assert found is not None
        return len(found[0].rows)

    return read


def arms(source: LanguageModel) -> dict[str, Arm]:
    """Return all arms of one precision."""
    first, second = at_layers(source, LAYERS)
    return {
        f"plain to {first.layer}": plain(first), f"one, {first.layer}": harvested([first]),
        f"plain to {second.layer}": plain(second), f"two, {first.layer} and {second.layer}": harvested([first, second]),
    }  # fmt: skip


def apart(sources: list[LanguageModel]) -> list[float]:
    """Return how far bfloat16's rows are from float32's, by layer of LAYERS."""
    exact, low = (Harvest(at_layers(source, LAYERS)) for source in sources)
    exact.known = low.known = [float("inf")] * len(LAYERS)
    pairs = zip(exact.blocks(0, split="train", seed=2) or [], low.blocks(0, split="train", seed=2) or [], strict=True)
    rows = [(a.rows.x, b.rows.x) for a, b in pairs]
    # Massive activations would be most of the variance: rows of ten times the median norm are left out, as in training.
    usual = [(a, b, a.norm(dim=1) <= 10 * a.norm(dim=1).median()) for a, b in rows]
    return [float((a[k] - b[k]).square().sum() / (a[k] - a[k].mean(0)).square().sum()) for a, b, k in usual]


def pages(folder: Path) -> str:
    """Write this project's pages as a text of one document each, and return its path: long documents, and at hand."""
    path = folder / "pages.jsonl"
    texts = [json.dumps({"text": page.read_text()}) for page in sorted(PAGES.glob("*.md"))]
    path.write_text("\n".join(texts) + "\n")
    return str(path)


def measure(model: str, text: str, rounds: int, block: int) -> dict[str, Any]:
    """Return the rows, and what they were measured on."""
    torch.set_num_threads(1)
    base = LanguageModel(model=model, text=text, layer=0, buffer_tokens=block, batch=8, eval_share=0.0)
    sources = [replace(base, dtype=dtype) for dtype in DTYPES]
    all_arms = {(source.dtype, name): arm for source in sources for name, arm in arms(source).items()}
    speeds: dict[tuple[str, str], list[float]] = {key: [] for key in all_arms}
    for number in range(rounds):
        for key, arm in all_arms.items():
            before = time.process_time()
            tokens = arm(number)
            speeds[key].append(round(tokens / (time.process_time() - before), 1))
    found = [{"dtype": dtype, "arm": name, "tokens_a_core_second": speeds[dtype, name]} for dtype, name in all_arms]
    return {
        "model": model, "text": Path(text).name, "tokens_a_block": block, "rounds": rounds,
        "machine": platform.processor() or platform.machine(), "torch": torch.__version__,
        "bfloat16_apart": dict(zip(LAYERS, map(float, apart(sources)), strict=True)), "rows": found,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--text", help="a file or a dataset (the pages of docs/)")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--block", type=int, default=4096, help="tokens read by each arm in each round")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        result = measure(given.model, given.text or pages(Path(made)), given.rounds, given.block)
    write_json(given.out, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
