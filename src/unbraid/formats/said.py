"""Reading of settings from another library's JSON: each is read by its type, known to be harmless, or refused by name.

A setting that is not known may change what the SAE computes (a second scale, another sign, a skip), and reading past it
would score another SAE. So it is refused, and the sentence says how to go on when it is harmless.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unbraid.formats.tensors import shown
from unbraid.system.files import read_json

REMEDY = "fetch it again"
LARGEST = 2**31
"""No count in a setting is as large."""


@dataclass(frozen=True)
class Said:
    """A JSON object out of `file`. Every method raises ValueError, naming file and setting, when it is not said or not
    of the kind."""

    fields: Mapping[str, Any]
    file: Path

    @classmethod
    def read(cls, file: Path) -> "Said":
        return cls(read_json(file, remedy=REMEDY), file)

    def flag(self, key: str, default: bool | None = None) -> bool:
        value = self._value(key, default)
        return value if isinstance(value, bool) else self._refuse(key, value, "true or false")

    def count(self, key: str, default: int | None = None) -> int:
        value = self._value(key, default)
        whole = isinstance(value, int) and not isinstance(value, bool) and 0 < value < LARGEST
        return value if whole else self._refuse(key, value, "a whole number above 0")

    def number(self, key: str, default: float | None = None) -> float:
        value = self._value(key, default)
        real = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30
        return float(value) if real and math.isfinite(value) else self._refuse(key, value, "a number")

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value(key, default)
        return value if isinstance(value, str) else self._refuse(key, value, "text")

    def part(self, key: str) -> "Said":
        """An object inside; empty when it is not said."""
        value = self.fields.get(key)
        if value is None:
            return Said({}, self.file)
        return Said(value, self.file) if isinstance(value, dict) else self._refuse(key, value, "an object")

    def _value(self, key: str, default: Any) -> Any:
        value = self.fields.get(key)
        return default if value is None else value

    def _refuse(self, key: str, value: Any, expected: str) -> Any:
        if value is None:
            raise ValueError(f"{self.file}: {key} is None; expected {expected}: add what it was trained with")
        raise ValueError(f"{self.file}: {key} is {shown(value)}; expected {expected}")

    def refuse_unread(self, read: frozenset[str], harmless: frozenset[str], off: Mapping[str, str]) -> None:
        """Raise ValueError for a setting of `off` that is on, with its reason, and for settings that are not known.

        `read`: what the reader reads; `harmless`: what does not change what the SAE computes.
        """
        for key in sorted(off.keys() & self.fields.keys()):
            if not is_off(self.fields[key]):
                raise ValueError(f"{self.file}: {key} is {shown(self.fields[key])}; {off[key]}")
        known = read | harmless | off.keys()
        unknown = [key for key in self.fields if key not in known and self.fields[key] is not None]
        if unknown:
            named = ", ".join(f"{shown(key)} = {shown(self.fields[key])}" for key in sorted(unknown)[:5])
            raise ValueError(
                f"{self.file} says {named}, which is not known here and may change what the SAE computes; if it does "
                "not, take it out of the file"
            )


def is_off(value: Any) -> bool:
    """True if a setting states that something is not used. 0 may be an index, so it is not off."""
    return value is None or value is False or value in ("none", "", [], {})
