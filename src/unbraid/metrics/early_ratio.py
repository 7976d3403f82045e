"""A ratio of sums over many units, compared with a bound on the first units where these leave no doubt.

    sum_u above_u / sum_u below_u <= bound   <=>   sum_u d_u <= 0,   d_u = above_u - bound below_u
    no doubt: |mean d| > 5 standard errors of it, over 16 units or more

Units come in random order, a part at a time, and all are looked at where doubt remains, so that a wrong answer takes a
first part 5 standard errors off: less than one in 5,000 for normal d, and then the ratio is close to the bound.
"""

import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

Part = tuple[Float[np.ndarray, " unit"], Float[np.ndarray, " unit"]]
"""What some units add above and below."""
FEWEST = 16
"""Units from which their spread is known well enough."""
SURE = 5.0
"""Standard errors from the bound at which no more units are looked at."""


class EarlyRatio:
    """A ratio of sums, of which no more is computed than is needed. `known`: what is to be added to it, so that the
    units may hold differences, which spread less."""

    def __init__(self, parts: Iterable[Part], known: float = 0.0):
        self.parts, self.known = iter(parts), known
        self.above, self.below = np.zeros((2, 0))

    def at_most(self, bound: float) -> bool:
        """Return whether the ratio is at most a bound."""
        bound -= self.known
        while not self.sure(bound) and self.more():
            pass
        return bool(self.above.sum() <= bound * self.below.sum())

    def value(self) -> float:
        """Return the ratio itself, over all units."""
        while self.more():
            pass
        return self.known + float(self.above.sum() / self.below.sum())

    def sure(self, bound: float) -> bool:
        """Return whether the units so far tell on which side of the bound the ratio is."""
        apart, count = self.above - bound * self.below, len(self.above)
        return count >= FEWEST and bool(abs(apart.mean()) > SURE * apart.std(ddof=1) / math.sqrt(count))

    def more(self) -> bool:
        """Look at one more part; return whether there was one."""
        part = next(self.parts, None)
        if part is not None:
            self.above, self.below = (
                np.append(old, new) for old, new in zip((self.above, self.below), part, strict=True)
            )
        return part is not None
