"""Scores and how they are made: an eval is a function from a run to scores; the harness loops, skips, times and writes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number. NaN stays NaN."""

    metric: str
    """fvu, l0, mcc, …"""
    value: float
    better: Literal["higher", "lower", "neither"]
    params: Mapping[str, float | str] = field(default_factory=dict)
    """What tells rows of one metric apart: {"k": 5}, {"split": "eval"}."""


class NotApplicable(ValueError):
    """This eval says nothing about this run, for the stated reason: a hole with a reason, not a failure."""
