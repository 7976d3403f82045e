"""Objects given in this process, found again by the SHA-256 of their content.

Settings are text and numbers, which a loaded model, a list of texts or an array is not. A source keeps the SHA-256 in
its place, mostly in a reference, `given://LlamaForCausalLM?parameters=7240&sha256=…`: it says what the object was, is
written to the run folder, and leads back to the object for as long as this process has it.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl, urlencode
from weakref import WeakValueDictionary

SCHEME = "given://"
T = TypeVar("T")


@dataclass(frozen=True)
class Reference:
    """A description of an object that was given, and the SHA-256 it is found by."""

    kind: str
    """The name of its class."""
    facts: Mapping[str, str]
    sha256: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.kind}?{urlencode({**self.facts, 'sha256': self.sha256}, safe='/:')}"

    @property
    def in_words(self) -> str:
        """Return the object as errors name it: LlamaForCausalLM (name tiny, parameters 7240, SHA-256 0a1b2c3d4e5f…)."""
        facts = [f"{name} {value}" for name, value in self.facts.items() if value]
        return f"{self.kind} ({', '.join([*facts, f'SHA-256 {self.sha256[:12]}…'])})"

    @staticmethod
    def parse(text: str) -> "Reference":
        """Return the reference that `text` is. Raises ValueError when it is none."""
        kind, _, query = text.removeprefix(SCHEME).partition("?")
        facts = dict(parse_qsl(query, keep_blank_values=True))
        if not is_reference(text) or not facts.get("sha256"):
            raise ValueError(f"{text!r:.80} refers to no object; expected {SCHEME}Class?…&sha256=…")
        return Reference(kind, facts, facts.pop("sha256"))


def is_reference(value: Any) -> bool:
    """Return whether a setting refers to an object that was given."""
    return isinstance(value, str) and value.startswith(SCHEME)


class Registry(Generic[T]):
    """Objects by SHA-256: the latest ones are kept, others are found while something else holds them."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self._latest: OrderedDict[str, T] = OrderedDict()
        self._alive: WeakValueDictionary[str, Any] = WeakValueDictionary()

    def add(self, sha256: str, item: T) -> None:
        """Keep `item`, and let the oldest go where there are too many."""
        self._alive[sha256] = self._latest[sha256] = item
        self._latest.move_to_end(sha256)
        while len(self._latest) > self.kept:
            self._latest.popitem(last=False)

    def find(self, sha256: str) -> T | None:
        """Return the object with this content; None when this process has none."""
        return self._alive.get(sha256)

    def clear(self) -> None:
        """Let all objects go, as when another process starts."""
        self._latest.clear()
        self._alive.clear()
