"""Does sampling a world keep up with training on it? python -m benchmarks.world --only hour,hours

Blocks of each preset and training steps (TopK(32), as many latents as factors, batches of 2,048) in turn, on one
thread of one process, so that both see the same machine; the figures are rows over the median CPU time.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import count

import torch

from benchmarks.contender import Setting
from benchmarks.contenders import unbraid as ours
from benchmarks.run import names
from unbraid.dictionary.normaliser import Normaliser
from unbraid.sources.world.presets import PRESETS
from unbraid.sources.world.world import World

K = 32
WARM_UP = 2
ROWS = 2048
"""Of a batch."""


def sampling(world: World) -> Callable[[], None]:
    """Draws the next block when called."""
    blocks = count()

    def draw() -> None:
        world.block(next(blocks), split="train", seed=0)

    return draw


def training(world: World) -> Callable[[], None]:
    """Takes the next training step when called, on rows of the world drawn beforehand."""
    x = world.labelled(4 * ROWS, split="train").x
    batches = Normaliser.fit(x, "centre-scale")(x).view(4, ROWS, world.d_in)
    setting = Setting("topk", max(world.factors, 2 * K), threshold=0.0, d_in=world.d_in, batch=ROWS)
    contender, steps = ours.build(setting), count()

    def step() -> None:
        index = next(steps)
        contender.step(index, batches[index % len(batches)])

    return step


def cpu_seconds(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(world: World, repetitions: int) -> tuple[float, float]:
    """Samples a second of the world, and of training on it."""
    draw, step = sampling(world), training(world)
    for _ in range(WARM_UP):
        draw()
        step()
    pairs = [(cpu_seconds(draw), cpu_seconds(step)) for _ in range(repetitions)]
    drawing, stepping = (statistics.median(column) for column in zip(*pairs, strict=True))
    return world.block_rows / drawing, ROWS / stepping


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: names(text, list(PRESETS)), default=list(PRESETS), help="presets")
    parser.add_argument("--repetitions", type=int, default=9, help="measured blocks and steps of each preset")
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(f"{'world':<14}{'factors':>8}{'d_in':>6}{'samples/s':>12}{'trained/s':>12}{'ratio':>8}")
    for name in chosen.only:
        world = PRESETS[name]()
        drawn, trained = measure(world, chosen.repetitions)
        print(
            f"{name:<14}{world.factors:>8}{world.d_in:>6}{drawn:>12,.0f}{trained:>12,.0f}{drawn / trained:>8.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
