"""Many experiments: a study (methods x seeds on one stream), and a base experiment crossed with values."""

import difflib
import hashlib
import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Annotated, Any, cast

from annotated_types import MinLen

from unbraid.config.settings import FolderName, NonNegativeInt, PositiveFloat, PositiveInt, Seed, Settings, shown
from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.config import DictionaryConfig, Leash, Parameter
from unbraid.dictionary.from_truth import SupervisedProbes, TrueDirections
from unbraid.dictionary.initialisation import Initialisation, PrincipalComponents, RandomAtoms
from unbraid.experiment.experiment import Experiment, Training
from unbraid.experiment.summary import label
from unbraid.objective.objective import Objective
from unbraid.sources.base import Source

SPARSITY = ("dictionary.activation.k", "objective.target_l0.l0", "l0")
"""Fields that say what sparsity is asked for."""
SLUG = 40
"""Letters of a text in a run's name."""


@dataclass(frozen=True, kw_only=True)
class Member(Settings):
    """One method of a study, at one sparsity."""

    method: FolderName | None = None
    """What the report calls it, the same at every sparsity; None: its key among the members."""
    objective: Objective
    activation: Activation = TopK(32)
    init: Initialisation = RandomAtoms()
    frozen: tuple[Parameter, ...] = ()
    """Parameters left untrained."""
    leash: Leash = -1.0
    """Smallest cosine of a trained atom to where it started."""
    orthonormal_blocks: NonNegativeInt = 0
    """Keep every so many atoms exactly orthonormal."""
    trained: bool = True
    """False leaves the dictionary as initialised."""
    control: bool = False
    """A baseline no method should lose to; shown apart in the report."""
    l0: PositiveFloat | None = None
    """The sparsity asked for, where neither the activation's k nor objective.target_l0 says it."""


def at_l0(l0: int, members: Mapping[str, Member]) -> dict[str, Member]:
    """Members by method, as members of a study that has them at several sparsities: topk-l0_32."""
    return {label(name, float(l0)): replace(member, method=name) for name, member in members.items()}


def of_methods(members: Mapping[str, Member], methods: Collection[str]) -> dict[str, Member]:
    """The members that are one of these methods."""
    return {key: member for key, member in members.items() if (member.method or key) in methods}


@dataclass(frozen=True, kw_only=True)
class Study(Settings):
    """Methods x seeds, same source, same width, same tokens. The methods of one seed see the same data in the same
    order: they are one cohort, for which a language model runs once."""

    source: Source
    d_sae: PositiveInt = 1024
    """Number of latents of every member, but of those whose initialisation sets it (`width`)."""
    training: Training = field(default_factory=Training)
    seeds: Annotated[tuple[Seed, ...], MinLen(1)] = (0, 1, 2)
    """Initialisations, the terms' randomness and, unless training.data_seed is set, the order of the data. With
    training.data_seed all seeds share one stream, and a language model runs once for all of them."""
    members: Annotated[Mapping[FolderName, Member], MinLen(1)]
    """By what tells them apart, as on the command line: the method, and its sparsity where it has several."""

    def check_together(self) -> None:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds} repeat one, which would train the same run twice; name each once")

    def experiments(self) -> list[Experiment]:
        return [self._experiment(name, seed) for name in self.members for seed in self.seeds]

    def _experiment(self, name: str, seed: int) -> Experiment:
        member = self.members[name]
        d_sae = width(member.init, self.d_sae, self.source)
        try:
            dictionary = DictionaryConfig(
                d_sae=d_sae, activation=member.activation, init=member.init, frozen=member.frozen,
                leash=member.leash, orthonormal_blocks=member.orthonormal_blocks,
            )  # fmt: skip
        except ValueError as error:
            raise ValueError(f"member {name!r}: {error}") from error
        training = self.training if member.trained else replace(self.training, tokens=0)
        return Experiment(
            name=member.method or name, source=self.source, objective=member.objective, dictionary=dictionary,
            training=training, seed=seed, control=member.control, l0=member.l0,
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

    Values join the name, but those of the seed and of the sparsity asked for, which name a folder anyhow. Raises
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
    """What each value of a crossed field adds to a run's name: a word for a folder, and none twice."""
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
        return f"{name}_{value:g}".replace("+", "")
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


def known_field(node: Any, name: str) -> str:
    """The field, with hyphens or underscores. Raises ValueError, suggesting the nearest, when there is none."""
    is_config = is_dataclass(node) and not isinstance(node, type)
    name = name.replace("-", "_") if is_config else name
    names = [f.name for f in fields(node)] if is_config else list(node) if isinstance(node, Mapping) else []
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        raise ValueError(f"no field {name!r} here; " + (f"did you mean {near[0]!r}?" if near else f"there are {names}"))
    return name


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
    return experiment.source, training.batch_size, experiment.data_seed, training.device
