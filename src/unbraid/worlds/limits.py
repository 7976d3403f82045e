"""What each number of a world may be, by itself."""

from collections.abc import Mapping
from typing import Any

AT_LEAST_1 = (
    "factors",
    "d_in",
    "roots",
    "branching",
    "correlation_groups",
    "correlation_rank",
    "context_size",
    "block_rows",
)
NEVER_NEGATIVE = (
    "depth",
    "zipf",
    "spread",
    "dense",
    "dense_spread",
    "circles",
    "spheres",
    "noise",
    "bias",
    "effect",
    "effect_dimensions",
    "interaction",
    "interactions",
)
POSITIVE = ("l0", "sharpness")
SHARES = ("exclusive", "effective")


def check_numbers(fields: Mapping[str, Any]) -> None:
    """Raise ValueError for a field that no world can have."""
    for name in AT_LEAST_1:
        if fields[name] < 1:
            raise ValueError(f"{name} is {fields[name]}; it must be at least 1")
    for name in NEVER_NEGATIVE:
        if fields[name] < 0:
            raise ValueError(f"{name} is {fields[name]}; it must not be negative")
    for name in POSITIVE:
        if fields[name] <= 0:
            raise ValueError(f"{name} is {fields[name]}; it must be positive")
    for name in SHARES:
        if not 0 <= fields[name] <= 1:
            raise ValueError(f"{name} is {fields[name]}; it must be a share of 1")
    if not 0 <= fields["correlation"] < 1:
        raise ValueError(f"correlation is {fields['correlation']}; it must be at least 0 and less than 1")
    low, high = fields["dense_probability"]
    if not 0 < low <= high <= 1:
        raise ValueError(f"dense_probability is {low, high}; both must lie inside (0, 1], the smaller first")
