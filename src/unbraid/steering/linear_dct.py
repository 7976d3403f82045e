"""Linear DCT: the directions that move the downstream layers most, to first order (Mack and Turner 2024, Algorithm 1).

    v_1, v_2, …: right singular vectors of J, the Jacobian of the pooled effect, by singular value

`projected`: of W J, W a few random rows (Algorithm 1'). `power`: block power iteration on J'J, which forms nothing
(O. Ayyub 2026, "Power Steering"). The text of the algorithm swaps U and V, and the released code takes columns of V'
for rows: it reaches |J v| = 2.6 where the first singular value is 10.
"""

from dataclasses import dataclass
from typing import Literal

from unbraid.config.settings import PositiveInt
from unbraid.steering.base import FitContext, FitResult, SliceFit
from unbraid.steering.jacobian import jacobian, power_iteration, sketch, stronger_side, top_right


@dataclass(frozen=True, kw_only=True)
class LinearDct(SliceFit):
    """The linear DCT's fit. Strength: singular value."""

    form: Literal["full", "projected", "power"] = "full"
    """full: d_in forward passes. projected: `rows` backward passes, and only so many directions. power: 2 `rounds`
    passes of all directions."""
    rows: PositiveInt = 32
    """Number of rows of the projection."""
    rounds: PositiveInt = 15
    """Number of rounds of power iteration."""

    def grows(self) -> bool:
        return self.form == "power"

    def fit(self, count: int, context: FitContext) -> FitResult:
        self._check(count, context)
        state = (context.watch, context.reached, context.keep)
        match self.form:
            case "full":
                directions, values = top_right(jacobian(context.slice, *state), count)
            case "projected":
                directions, values = top_right(sketch(context.slice, self.rows, context.rng, *state), count)
            case "power":
                directions, values = power_iteration(context.slice, count, self.rounds, context.rng, *state)
        return FitResult(stronger_side(context.slice, directions, context.length), values)

    def _check(self, count: int, context: FitContext) -> None:
        most = min(context.slice.d_in, context.slice.contexts.base.shape[-1])
        if self.form == "projected" and count > self.rows:
            raise ValueError(
                f"a projection to {self.rows} rows has {self.rows} directions, and {count} latents were requested: "
                "raise --dictionary.init.rows, or lower --dictionary.d-sae"
            )
        if count > most:
            raise ValueError(
                f"a Jacobian of {context.slice.d_in} dimensions has {most} singular vectors, and {count} latents were "
                f"requested: set --dictionary.d-sae {most} or less, or fit the exponential DCT"
            )
