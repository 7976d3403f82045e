"""Many experiments from one: crossed with values, by dotted field."""

import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, cast

from unbraid.config.hints import nearest
from unbraid.config.settings import shown
from unbraid.experiment.experiment import Experiment
from unbraid.experiment.summary import short

SPARSITY = ("dictionary.activation.k", "objective.target_l0.l0", "l0")
"""Fields that say what sparsity is requested."""
SLUG = 40
"""Letters of a text in a run's name."""


def cross(base: Experiment, axes: Mapping[str, Sequence[Any]]) -> list[Experiment]:
    """Every combination of values, by dotted field: {"training.lr": [1e-4, 3e-4], "seed": [0, 1, 2]}.

    Values join the name, but those of the seed and of the requested sparsity, which name a folder anyhow. Raises
    ValueError for a field that does not exist, one without values or with the same twice, and a value, or a
    combination, that cannot be.
    """
    for path, values in axes.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not len(values):
            raise ValueError(f"{path} is crossed with {shown(values)}; give a list of one value or more")
        if any(value in values[:place] for place, value in enumerate(values)):
            raise ValueError(f"{path} is crossed with {shown(values)}, in which one repeats; name each once")
    words = {path: words_of(path, values) for path, values in axes.items() if path not in ("seed", *SPARSITY)}
    crossed = []
    for places in itertools.product(*(range(len(values)) for values in axes.values())):
        at = dict(zip(axes, places, strict=True))
        chosen = {path: axes[path][place] for path, place in at.items()}
        name = "-".join([base.name, *(words[path][at[path]] for path in words)])
        crossed.append(with_values(base, {**chosen, "name": name}))
    return crossed


def words_of(path: str, values: Sequence[Any]) -> list[str]:
    """The words that the values of a crossed field add to a run's name: a word for a folder, and none twice."""
    words = [word(path, value) for value in values]
    return [
        f"{one}-{hashlib.sha256(repr(value).encode(errors='surrogatepass')).hexdigest()[:6]}"
        if words.count(one) > 1
        else one
        for one, value in zip(words, values, strict=True)
    ]


def word(path: str, value: Any) -> str:
    """A value in letters that a run's name can have. Of a path, or a name on a hub, its last part."""
    name = path.rpartition(".")[2].lower()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{name}_{short(value)}"
    last = value.rstrip("/").rpartition("/")[2] if isinstance(value, str) else str(value)
    slug = re.sub(r"[^a-z0-9_.]+", "-", last.lower()).strip("-.")[:SLUG]
    return slug if slug and isinstance(value, str) else f"{name}_{slug or 'empty'}"


def with_values(node: Any, values: Mapping[str, Any]) -> Any:
    """A copy of a nested dataclass or mapping with fields changed by dotted name, all at once: what is possible
    together need not be one after another."""
    inside: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        first, _, rest = path.partition(".")
        inside.setdefault(known_field(node, first), {})[rest] = value
    old = node if isinstance(node, Mapping) else vars(node)
    new = {n: to[""] if "" in to else with_values(old[n], to) for n, to in inside.items()}
    return {**node, **new} if isinstance(node, Mapping) else replace(cast(Any, node), **new)


def value_at(node: Any, path: str) -> Any:
    """The value of a field by dotted name. Raises ValueError for a field that does not exist."""
    first, _, rest = path.partition(".")
    name = known_field(node, first)
    value = node[name] if isinstance(node, Mapping) else getattr(node, name)
    return value_at(value, rest) if rest else value


def known_field(node: Any, name: str) -> str:
    """The field, with hyphens or underscores. Raises ValueError, suggesting the nearest, when there is none."""
    is_config = is_dataclass(node) and not isinstance(node, type)
    name = name.replace("-", "_") if is_config else name
    names = [f.name for f in fields(node)] if is_config else list(node) if isinstance(node, Mapping) else []
    if name not in names:
        raise ValueError(f"no field {name!r} here; {nearest(name, names)}")
    return name
