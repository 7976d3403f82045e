"""The testbeds of the audit: a source, and the sizes at which dictionaries are trained on it.

Of a world each number draws another world; a language is one source, and seeds draw all else.
"""

from collections.abc import Callable
from dataclasses import dataclass

from unbraid.experiment.experiment import Training
from unbraid.sources.base import Source
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.world import presets
from unbraid.sources.world.world import World


@dataclass(frozen=True)
class Testbed:
    """A kind of source, with the sizes of the audit on it."""

    source: Callable[[int], Source]
    """Return the source that a number draws."""
    d_sae: int
    l0: int
    training: Training
    draws: tuple[tuple[int, int], ...]
    """What is drawn, as (source, seed) pairs: every method is trained once on each."""
    other_l0s: tuple[int, ...]
    other_widths: tuple[int, ...]
    ceiling: str
    """The dictionary made from the truth that is damaged: truth where factors are directions, else probes."""
    damaged_shares: tuple[float, ...] = (0.3, 0.6)
    """Shares of the ceiling's latents that are spoiled."""
    methods: tuple[str, ...] = ("relu", "topk", "batchtopk", "jumprelu", "matryoshka", "frozen-decoder")
    """Methods trained at the testbed's own L0 and width."""

    @property
    def first_draws(self) -> tuple[tuple[int, int], ...]:
        """The first draw of every source."""
        first: dict[int, tuple[int, int]] = {}
        for draw in self.draws:
            first.setdefault(draw[0], draw)
        return tuple(first.values())


def forest(number: int) -> World:
    """Return a world of the objectives' study: 96 factors in 48 dimensions."""
    return World(factors=96, d_in=48, l0=4.0, roots=12, seed=number)


def realistic(number: int) -> Source:
    """Return a world with every dial on."""
    return presets.realistic().drawn(number)


def language(number: int) -> Source:
    """Return the embedded model, which reads the synthetic language."""
    return LanguageModel(text="language://8000", buffer_tokens=32_768)


TESTBEDS = {
    "forest": Testbed(
        source=forest, d_sae=192, l0=4, ceiling="truth",
        training=Training(tokens=200_000, batch_size=256, lr=3e-3, dead_after=50_000),
        draws=((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)), other_l0s=(2, 8), other_widths=(96, 384),
    ),
    "realistic": Testbed(
        source=realistic, d_sae=512, l0=8, ceiling="truth",
        training=Training(tokens=200_000, batch_size=128, lr=3e-3, dead_after=50_000),
        draws=((0, 0), (1, 0), (2, 0)), other_l0s=(4,), other_widths=(), damaged_shares=(0.6,),
    ),
    "language": Testbed(
        source=language, d_sae=512, l0=8, ceiling="probes",
        training=Training(tokens=200_000, batch_size=1024, lr=2e-3, dead_after=50_000),
        draws=((0, 0), (0, 1), (0, 2)), other_l0s=(4,), other_widths=(),
    ),
}  # fmt: skip
