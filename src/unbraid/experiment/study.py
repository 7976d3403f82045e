"""Studies: methods with several seeds each, on one source."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, cast

from annotated_types import MinLen

from unbraid.config.settings import FolderName, PositiveFloat, PositiveInt, Seed, Settings
from unbraid.dictionary.config import DictionaryChoices, DictionaryConfig
from unbraid.dictionary.from_truth import FromTruth
from unbraid.dictionary.initialisation import Initialisation, PrincipalComponents
from unbraid.dictionary.linear_bases import IndependentComponents, Neurons, RandomBasis
from unbraid.experiment.experiment import Experiment, Training, check_design
from unbraid.experiment.summary import label
from unbraid.objective.objective import Objective, Term
from unbraid.sources.base import Source


@dataclass(frozen=True, kw_only=True)
class Member(DictionaryChoices):
    """A partial experiment: all but the source, the training, the seed and mostly the width, which its study gives."""

    method: FolderName | None = None
    """What the report calls it, the same at every sparsity; None: its key among the members."""
    objective: Objective
    d_sae: PositiveInt | None = None
    """Number of latents; None: the study's."""
    trained: bool = True
    """False leaves the dictionary as initialised."""
    control: bool = False
    """A baseline no method should lose to; shown apart in the report."""
    l0: PositiveFloat | None = None
    """The requested sparsity, where neither the activation's k nor objective.target_l0 says it."""
    base: FolderName | None = None
    """The method that this is, or that `term` is added to."""
    term: FolderName | None = None
    """What is added to the base's objective; None for the base itself."""
    strength: PositiveFloat | None = None
    """Size of the added term's gradient, as a share of the reconstruction's (gradient_ratio)."""

    def check_together(self) -> None:
        check_design(self.base, self.term, self.strength)


def with_l0(member: Member, l0: int) -> Member:
    """A member at another sparsity: the activation's k, else the L0 that a weight is moved to reach, else what
    it states."""
    if hasattr(member.activation, "k"):
        return replace(member, activation=replace(cast(Any, member.activation), k=l0))
    if member.objective.target_l0 is not None:
        target = replace(member.objective.target_l0, l0=float(l0))
        return replace(member, objective=replace(member.objective, target_l0=target))
    return replace(member, l0=float(l0))


def at_l0(l0: int, members: Mapping[str, Member]) -> dict[str, Member]:
    """Members by method at a sparsity, as members of a study that has them at several: topk-l0_32."""
    return {label(name, float(l0)): replace(with_l0(member, l0), method=name) for name, member in members.items()}


def of_methods(members: Mapping[str, Member], methods: Collection[str]) -> dict[str, Member]:
    """The members that are one of these methods."""
    return {key: member for key, member in members.items() if (member.method or key) in methods}


def with_terms(
    base: Member, name: str, terms: Mapping[str, Term], *, strength: float | None = None, ramp: float | None = None
) -> Member:
    """A base with terms added to its objective, together called `name`.

    strength: gradient ratio of each, in place of their own. ramp: share of training over which penalties rise to their
    weight; None: the base's, but 0 for terms that read the decoder alone, which can act from the first step.
    """
    added = {key: term if strength is None else replace(term, gradient_ratio=strength) for key, term in terms.items()}
    if ramp is None:
        ramp = 0.0 if all(term.reads == ("decoder",) for term in added.values()) else base.objective.ramp
    objective = replace(base.objective, penalties={**added, **base.objective.penalties}, ramp=ramp)
    return replace(base, objective=objective, method=name, term=name, strength=strength)


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
        """All members at all seeds, member by member."""
        return [self._experiment(name, seed) for name in self.members for seed in self.seeds]

    def _experiment(self, name: str, seed: int) -> Experiment:
        member = self.members[name]
        return experiment_of(name, member, source=self.source, d_sae=self.d_sae, training=self.training, seed=seed)


def experiment_of(
    name: str,
    member: Member,
    *,
    source: Source,
    d_sae: int,
    training: Training,
    seed: int,
    draws_source: bool = False,
) -> Experiment:
    """Return the experiment of a member, with what its study gives. `name`: what tells it apart there, in errors and
    where it names no method. Raises ValueError for a member that cannot be."""
    choices = {field.name: getattr(member, field.name) for field in fields(DictionaryChoices)}
    latents = width(member.init, member.d_sae or d_sae, source)
    try:
        dictionary = DictionaryConfig(d_sae=latents, **choices)
    except ValueError as error:
        raise ValueError(f"member {name!r}: {error}") from error
    return Experiment(
        name=member.method or name, source=source, objective=member.objective, dictionary=dictionary,
        training=training if member.trained else replace(training, tokens=0), seed=seed, control=member.control,
        l0=member.l0, base=member.base, term=member.term, strength=member.strength, draws_source=draws_source,
    )  # fmt: skip


def width(init: Initialisation, d_sae: int, source: Source) -> int:
    """Latents of a member: a basis has at most two signed directions a dimension, the truth one a factor."""
    if isinstance(init, PrincipalComponents | IndependentComponents | Neurons | RandomBasis):
        return min(d_sae, 2 * source.d_in)
    if isinstance(init, FromTruth):
        return len(source.truth().names)
    return d_sae


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
