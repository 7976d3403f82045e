"""Many experiments: a study (methods x seeds on one stream), and a base experiment crossed with values."""

import difflib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, cast

from unbraid.activation import Activation, TopK
from unbraid.dictionary import DictionaryConfig, Initialisation, PrincipalComponents, RandomAtoms
from unbraid.experiment import Experiment, Training
from unbraid.informed import SupervisedProbes, TrueDirections
from unbraid.objective import Objective
from unbraid.source import Source


@dataclass(frozen=True, kw_only=True)
class Member:
    """One method of a study."""

    objective: Objective
    activation: Activation = TopK(32)
    init: Initialisation = RandomAtoms()
    frozen: tuple[str, ...] = ()
    """Parameters left untrained."""
    leash: float = -1.0
    """Smallest cosine of a trained atom to where it started."""
    orthonormal_blocks: int = 0
    """Keep every so many atoms exactly orthonormal."""
    trained: bool = True
    """False leaves the dictionary as initialised."""
    control: bool = False
    """A baseline no method should lose to; shown apart in the report."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Methods x seeds, same source, same width, same tokens, same order of data: one cohort."""

    source: Source
    d_sae: int = 1024
    """Number of latents of every member, but of those whose initialisation sets it (`width`)."""
    training: Training = field(default_factory=Training)
    seeds: tuple[int, ...] = (0, 1, 2)
    """Initialisations and terms' randomness; the order of data is training.data_seed."""
    members: Mapping[str, Member]
    """By name. "-l0_32" at the end of a name states the sparsity asked for; the report reads it."""

    def experiments(self) -> list[Experiment]:
        return [self._experiment(name, seed) for name in self.members for seed in self.seeds]

    def _experiment(self, name: str, seed: int) -> Experiment:
        member = self.members[name]
        dictionary = DictionaryConfig(
            d_sae=width(member.init, self.d_sae, self.source), activation=member.activation, init=member.init,
            frozen=member.frozen, leash=member.leash, orthonormal_blocks=member.orthonormal_blocks,
        )  # fmt: skip
        training = self.training if member.trained else replace(self.training, tokens=0)
        return Experiment(
            name=name, source=self.source, objective=member.objective, dictionary=dictionary, training=training,
            seed=seed, control=member.control,
        )  # fmt: skip


def width(init: Initialisation, d_sae: int, source: Source) -> int:
    """Latents of a member: PCA has at most two signed directions a dimension, what is told the truth one a factor."""
    if isinstance(init, PrincipalComponents):
        return min(d_sae, 2 * source.d_in)
    if isinstance(init, TrueDirections | SupervisedProbes):
        return len(source.truth().names)
    return d_sae


def cross(base: Experiment, axes: Mapping[str, Sequence[Any]]) -> list[Experiment]:
    """Every combination of values, by dotted field: {"training.lr": [1e-4, 3e-4], "seed": [0, 1, 2]}.

    Values other than the seed's join the name. Raises ValueError for a field that does not exist.
    """
    crossed = []
    for values in itertools.product(*axes.values()):
        experiment, suffix = base, ""
        for path, value in zip(axes, values, strict=True):
            experiment = with_value(experiment, path.split("."), value)
            suffix += (
                ""
                if path == "seed"
                else f"-{short_name(path)}_{value:g}"
                if isinstance(value, int | float)
                else f"-{value}"
            )
        crossed.append(replace(experiment, name=base.name + suffix))
    return crossed


def short_name(path: str) -> str:
    return "l0" if path in ("dictionary.activation.k", "objective.target_l0.l0") else path.rpartition(".")[2]


def with_value(node: Any, path: Sequence[str], value: Any) -> Any:
    """A copy of a nested dataclass or mapping with one field changed."""
    is_config = is_dataclass(node) and not isinstance(node, type)
    name, rest = path[0].replace("-", "_") if is_config else path[0], path[1:]
    names = [f.name for f in fields(node)] if is_config else list(node) if isinstance(node, Mapping) else []
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        raise ValueError(f"no field {name!r} here; " + (f"did you mean {near[0]!r}?" if near else f"there are {names}"))
    old = node[name] if isinstance(node, Mapping) else getattr(node, name)
    if (
        not rest
        and old is not None
        and not isinstance(value, type(old))
        and not (isinstance(old, float) and isinstance(value, int))
    ):
        raise ValueError(f"{name} is {type(old).__name__}, such as {old!r}; {value!r} is not")
    new = with_value(old, rest, value) if rest else value
    return {**node, name: new} if isinstance(node, Mapping) else replace(cast(Any, node), **{name: new})


def cohorts(experiments: Iterable[Experiment]) -> list[list[Experiment]]:
    """Groups that can share a stream, in order of first appearance."""
    groups: list[list[Experiment]] = []
    for experiment in experiments:
        key = shared(experiment)
        for group in groups:
            if shared(group[0]) == key:
                group.append(experiment)
                break
        else:
            groups.append([experiment])
    return groups


def shared(experiment: Experiment) -> tuple[Source, int, int, str]:
    training = experiment.training
    return experiment.source, training.batch_size, training.data_seed, training.device
