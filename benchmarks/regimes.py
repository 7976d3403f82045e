"""The regimes in which training is timed: architectures, sparsities, dead latents, widths, small shapes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import get_args

from benchmarks.contender import BATCH, D_IN, Bench, K

BENCHES: tuple[Bench, ...] = get_args(Bench)
THRESHOLD_L0 = 48.0
"""Active latents a token of jumprelu and relu: between the 32 and 64 that dictionaries are commonly trained to."""
DENSITIES = (0.001, 0.01, 0.1, 0.25, 0.5)
"""Shares of latents that are active."""


@dataclass(frozen=True)
class Case:
    """One race: an architecture at a width and a sparsity."""

    regime: str
    bench: Bench
    d_sae: int
    d_in: int = D_IN
    batch: int = BATCH
    k: int = K
    """Active latents a token of the TopK family."""
    l0: float = THRESHOLD_L0
    """Active latents a token of jumprelu and relu."""
    dead: float = 0.0
    """Share of latents that count as dead."""

    @property
    def active(self) -> float:
        """Active latents a token."""
        return self.l0 if self.bench in ("jumprelu", "relu") else self.k

    @property
    def cost(self) -> float:
        """What it takes, about, in units of their own."""
        return self.batch * self.d_in * self.d_sae + 2e9  # of a small one, starting it

    def __str__(self) -> str:
        about = f"{self.bench}, {self.d_sae:,} latents, {self.active:g} active of them, {self.batch:,} rows"
        return f"{self.regime}: {about}{f', {self.dead:.0%} dead' if self.dead else ''}"


def usual(d_sae: int, batch: int = BATCH) -> Iterator[Case]:
    """Every architecture at the sparsity that dictionaries commonly have."""
    for bench in BENCHES:
        yield Case("usual", bench, d_sae, batch=batch)


def densities() -> Iterator[Case]:
    """Shares of active latents from a thousandth to a half."""
    for share in DENSITIES:
        for bench in ("topk", "batchtopk", "jumprelu", "relu"):
            active = share * 4096
            yield Case("density", bench, 4096, k=round(active), l0=active)


def dead() -> Iterator[Case]:
    """A quarter of the latents dead, with the loss by which each library revives them."""
    for bench in ("topk", "batchtopk"):
        yield Case("dead", bench, 16384, dead=0.25)


def small() -> Iterator[Case]:
    """The shape of small worlds, and their batches."""
    for bench in BENCHES:
        yield Case("small", bench, 512, d_in=64, batch=2048, k=8, l0=8.0)


def sparsities() -> Iterator[Case]:
    """TopK from 8 to 512 active latents."""
    for k in (8, 128, 512):
        yield Case("k", "topk", 16384, k=k)


def growth() -> Iterator[Case]:
    """TopK from a thousand latents to 64 thousand: the picture."""
    for d_sae in (1024, 4096, 16384, 65536):
        yield Case("growth", "topk", d_sae)


REGIMES: dict[str, Callable[[], Iterator[Case]]] = {
    "usual-16k": lambda: usual(16384),
    "usual-2k-rows": lambda: usual(16384, batch=2048),
    "small": small,
    "dead": dead,
    "density": densities,
    "usual-4k": lambda: usual(4096),
    "growth": growth,
    "k": sparsities,
}


def quick(name: str) -> list[Case]:
    """The first case of a regime, with few rows."""
    first = next(REGIMES[name]())
    rows = 128 * first.batch // BATCH  # more where the regime has more
    return [Case(first.regime, first.bench, min(first.d_sae, 4096), first.d_in, rows, first.k, first.l0, first.dead)]
