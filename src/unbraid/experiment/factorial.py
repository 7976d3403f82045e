"""Factorial studies: every base in every geometry, alone and with every term, tuned on seeds that no test uses.

    method = base x geometry x (nothing | term)        test = methods x sparsities x widths x seeds

Every method, a base alone too, is tried at as many settings (`tunings`): a term at strengths, a base at factors on
fields of its own. `calibration` is those trials, on seeds of its own; `test` is every method once, as it was chosen.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Literal, NamedTuple

from annotated_types import MinLen

from unbraid.config.hints import first_few
from unbraid.config.settings import FolderName, NonNegativeFloat, PositiveFloat, PositiveInt, Seed, Settings
from unbraid.experiment.experiment import Experiment, Training
from unbraid.experiment.study import Member, experiment_of, with_l0, with_terms
from unbraid.experiment.summary import WHITEN, short
from unbraid.experiment.tuning import Tuning, check_chosen, tuned
from unbraid.objective.objective import Term
from unbraid.sources.base import Source

Geometry = Literal["raw", "whitened"]
SPARSITY = "sparsity"
"""The penalty on whose weight `sparsity_weights` are factors."""


class Design(NamedTuple):
    """The parts of a method, whatever its setting."""

    base: str
    geometry: Geometry
    term: str | None = None

    @property
    def words(self) -> list[str]:
        """The words that name the base and its geometry."""
        return [self.base, *(["whitened"] if self.geometry == "whitened" else [])]

    @property
    def name(self) -> str:
        return "-".join([*self.words, *([] if self.term is None else [self.term])])

    @property
    def alone(self) -> str:
        """The name of its base in its geometry: its own for a base."""
        return "-".join(self.words)


class Planned(NamedTuple):
    """A member to train at every sparsity, width and seed."""

    name: str
    member: Member
    geometry: Geometry
    base: Tuning
    """The setting of its base."""


@dataclass(frozen=True, kw_only=True)
class Factorial(Settings):
    """Bases x geometries x terms x sparsities x widths x seeds on one testbed, tuned on seeds that no test uses."""

    source: Source
    d_sae: PositiveInt = 1024
    """Number of latents at which methods are tuned, and of the test where `widths` names none."""
    training: Training = field(default_factory=Training)
    bases: Annotated[Mapping[FolderName, Member], MinLen(1)]
    """The methods that terms are added to; each is a method itself."""
    terms: Mapping[FolderName, Mapping[str, Term]] = field(default_factory=dict)
    """What is added, by what reports call it: one term or several that belong together, by name."""
    geometries: Annotated[tuple[Geometry, ...], MinLen(1)] = ("raw",)
    """raw: activations as `training` normalises them. whitened: with training.normalise whiten, at the ridge and power
    that `training` gives where this is the only geometry, and else at their defaults."""
    strengths: Annotated[tuple[PositiveFloat, ...], MinLen(1)] = (0.03, 0.1, 0.3, 1.0, 3.0)
    """Gradient ratios tried for each term."""
    base_settings: Annotated[Mapping[str, tuple[PositiveFloat, ...]], MinLen(1)] = field(
        default_factory=lambda: {"training.lr": (0.3, 0.5, 1.0, 2.0, 3.0)}
    )
    """What is tried for each base instead, as many settings as there are strengths: factors on fields of its
    experiment, by dotted name, one field at a time."""
    sparsities: tuple[PositiveInt, ...] = ()
    """Numbers of active latents requested of every method."""
    sparsity_weights: tuple[NonNegativeFloat, ...] = ()
    """In place of sparsities: factors on the weight of each base's penalty called sparsity, 0 leaving it out. Each
    makes a base of its own, relu-sparsity_0.1, so that a term is compared with its base at the same weight."""
    tuning_sparsities: tuple[PositiveInt, ...] = ()
    """Those of the sparsities at which methods are tuned; none: all."""
    widths: tuple[PositiveInt, ...] = ()
    """Numbers of latents of the test; none: d_sae alone."""
    seeds: Annotated[tuple[Seed, ...], MinLen(1)] = (0, 1, 2, 3, 4, 5, 6, 7)
    """Seeds of the test: initialisation, the terms' randomness, the order of the data, and the source."""
    calibration_seeds: Annotated[tuple[Seed, ...], MinLen(1)] = (1000, 1001, 1002)
    """Seeds of the calibration, none of them the test's."""
    controls: Mapping[FolderName, Member] = field(default_factory=dict)
    """Baselines and ceilings, as they are: untrained, truth, probes. Those made from the truth are there once, the
    others in every geometry, and at every sparsity that can be requested of them."""
    draw_source: bool = True
    """A seed draws the source too, where it has a seed: a World, a Synth that is generated."""

    def check_together(self) -> None:
        check_axes(self)
        for name, base in self.bases.items():
            check_base(name, base, self)
        check_names(self)

    @cached_property
    def all_bases(self) -> Mapping[str, Member]:
        """The bases by name; each at every sparsity weight, where there are any."""
        named = [replace(base, base=name) for name, base in self.bases.items()]
        if self.sparsity_weights:
            named = [at_weight(base, weight) for base in named for weight in self.sparsity_weights]
        return {str(base.base): base for base in named}

    @cached_property
    def designs(self) -> Mapping[str, Design]:
        """The parts of each method, by its name; bases first."""
        found = [Design(b, g, t) for t in (None, *self.terms) for b in self.all_bases for g in self.geometries]
        return {design.name: design for design in found}

    def tunings(self) -> dict[str, tuple[Tuning, ...]]:
        """The settings tried for each method, by its name: as many for every one."""
        of_terms = tuple(Tuning(strength=strength) for strength in self.strengths)
        of_bases = tuple(Tuning(field=f, factor=x) for f, factors in self.base_settings.items() for x in factors)
        return {name: of_bases if design.term is None else of_terms for name, design in self.designs.items()}

    def default_tunings(self) -> dict[str, Tuning]:
        """The settings of a test for which none was chosen: bases as they are, terms at the middle strength."""
        middle = Tuning(strength=sorted(self.strengths)[len(self.strengths) // 2])
        return {name: Tuning() if design.term is None else middle for name, design in self.designs.items()}

    def experiment_name(self, method: str, setting: Tuning, base: Tuning | None = None) -> str:
        """The name of the experiments of a method at a setting, in calibration and test alike.

        base: the setting of the base that its term is added to; as it is by default.
        """
        return self._name(self.designs[method], setting, base)

    def _name(self, design: Design, setting: Tuning, base: Tuning | None) -> str:
        at = setting if design.term is None else base or Tuning()
        changed = [] if at.unchanged else [f"{self._word(str(at.field))}_x{short(at.factor or 1)}"]
        added = [] if design.term is None else [design.term, short(setting.strength or 0)]
        return "-".join([*design.words, *changed, *added])

    def trials(self, bases: Mapping[str, Tuning] | None = None) -> dict[str, tuple[str, Tuning]]:
        """The method and the setting of every experiment of the calibration, by the experiment's name.

        bases: as for `calibration`.
        """
        at = lambda method: (bases or {}).get(self.designs[method].alone)
        tried = [(method, setting) for method, settings in self.tunings().items() for setting in settings]
        return {self.experiment_name(method, setting, at(method)): (method, setting) for method, setting in tried}

    def calibration(self, bases: Mapping[str, Tuning] | None = None) -> list[Experiment]:
        """Every method at every setting tried, and the controls, on the calibration seeds.

        bases: settings of bases that terms are added to, by name; the others are as they are.
        """
        tried = self.tunings()
        alone = {name: tried[name] for name, design in self.designs.items() if design.term is None}
        check_chosen(bases or {}, alone, "base")
        trials = [(name, setting) for name, settings in tried.items() for setting in settings]
        sparsities = self.tuning_sparsities or self.sparsities
        return self._experiments(trials, bases or {}, sparsities, (self.d_sae,), self.calibration_seeds)

    def test(self, chosen: Mapping[str, Tuning] | None = None) -> list[Experiment]:
        """Every method once, as it was chosen, and the controls, on the test's seeds.

        chosen: the setting of each method, by its name; None for `default_tunings`. A term is added to its base as the
        base was chosen, so the two differ in the term alone. Raises ValueError for a method without a setting, a
        setting without a method, and one that was not tried.
        """
        known = self.tunings()
        settings = self.default_tunings() if chosen is None else chosen
        check_chosen(settings, known, "method")
        if missing := [name for name in known if name not in settings]:
            raise ValueError(f"no setting is chosen for {first_few(missing)}; each method of a test needs one")
        once = [(name, settings[name]) for name in known]
        return self._experiments(once, settings, self.sparsities, self.widths or (self.d_sae,), self.seeds)

    def experiments(self) -> list[Experiment]:
        """The test with nothing chosen."""
        return self.test()

    def _experiments(
        self,
        methods: Sequence[tuple[str, Tuning]],
        bases: Mapping[str, Tuning],
        sparsities: Sequence[int],
        widths: Sequence[int],
        seeds: Sequence[int],
    ) -> list[Experiment]:
        """Methods at settings, and the controls. What several settings or widths make equal is there once."""
        found: dict[tuple[str, int, int], Experiment] = {}
        every = [(planned, at_sparsities(planned.member, sparsities)) for planned in self._planned(methods, bases)]
        trainings = {"raw": self.training, "whitened": replace(self.training, normalise=WHITEN)}
        for seed in seeds:
            source = self.source.drawn(seed) if self._draws else self.source
            for planned, members in every:
                for member in members:
                    for d_sae in widths:
                        made = experiment_of(
                            planned.name, member, source=source, d_sae=d_sae, training=trainings[planned.geometry],
                            seed=seed, draws_source=self._draws,
                        )  # fmt: skip
                        key = made.label, made.dictionary.d_sae, seed
                        if key not in found:
                            found[key] = tuned(made, planned.base)
        return list(found.values())

    def _planned(self, methods: Sequence[tuple[str, Tuning]], bases: Mapping[str, Tuning]) -> Iterator[Planned]:
        designs, members = self.designs, self.all_bases
        for method, setting in methods:
            design = designs[method]
            member, at = members[design.base], setting
            if design.term is not None:
                at = bases.get(design.alone, Tuning())
                # The base's ramp, whatever the term: the two are to differ in the term alone.
                added = self.terms[design.term]
                member = with_terms(member, design.term, added, strength=setting.strength, ramp=member.objective.ramp)
            name = self._name(design, setting, at)
            yield Planned(name, replace(member, method=name), design.geometry, at)
        for name, control in self.controls.items():
            for geometry in self.geometries[:1] if control.init.uses_truth else self.geometries:
                called = Design(name, geometry).name
                yield Planned(called, replace(control, method=called), geometry, Tuning())

    @property
    def _draws(self) -> bool:
        """True where a seed draws the source."""
        return self.draw_source and self.source.drawn_by is not None

    def _word(self, name: str) -> str:
        """The word for a field in the names of experiments: its last part, where that is of one field alone."""
        last = lambda path: path.rpartition(".")[2]
        alone = sum(last(name) == last(other) for other in self.base_settings) == 1
        return (last(name) if alone else name.replace(".", "_")).lower()


def at_weight(base: Member, factor: float) -> Member:
    """A base with a factor on the weight of its sparsity, named by it; without the penalty where the factor is 0."""
    penalties = dict(base.objective.penalties)
    term = penalties.pop(SPARSITY)
    if factor:
        penalties[SPARSITY] = replace(term, weight=term.weight * factor, gradient_ratio=term.gradient_ratio * factor)
    objective = replace(base.objective, penalties=penalties)
    return replace(base, base=f"{base.base}-{SPARSITY}_{short(factor)}", objective=objective)


def asks(member: Member) -> bool:
    """True for a member of which a number of active latents can be requested."""
    return hasattr(member.activation, "k") or member.objective.target_l0 is not None


def at_sparsities(member: Member, sparsities: Sequence[int]) -> list[Member]:
    """A member at every sparsity that can be requested of it."""
    return [with_l0(member, l0) for l0 in sparsities] if sparsities and asks(member) else [member]


# ---- checks -------------------------------------------------------------------------------------------------


def check_axes(study: Factorial) -> None:
    """Raise ValueError for axes that repeat a value or contradict each other."""
    for name in ("geometries", "strengths", "sparsities", "sparsity_weights", "tuning_sparsities", "widths", "seeds",
                 "calibration_seeds"):  # fmt: skip
        values = getattr(study, name)
        if len(set(values)) < len(values):
            raise ValueError(f"{name} {values} repeat one; name each once")
    if both := sorted(set(study.seeds) & set(study.calibration_seeds)):
        raise ValueError(
            f"{first_few([str(seed) for seed in both])} are among seeds and calibration_seeds; tune on seeds that no "
            "test uses"
        )
    if bool(study.sparsities) == bool(study.sparsity_weights):
        said = "both are given" if study.sparsities else "neither is given"
        raise ValueError(f"sparsities request an L0, or sparsity_weights set a weight, and {said}; give one of them")
    if strange := sorted(set(study.tuning_sparsities) - set(study.sparsities)):
        raise ValueError(f"tuning_sparsities {strange} are not among sparsities {study.sparsities}; add them there")
    tried = sum(len(factors) for factors in study.base_settings.values())
    if study.terms and tried != len(study.strengths):
        raise ValueError(
            f"each base is tried at {tried} settings and each term at {len(study.strengths)} strengths, and every "
            "method has the same budget; change base_settings or strengths"
        )
    if study.training.normalise == WHITEN and "raw" in study.geometries:
        raise ValueError(
            "training.normalise is 'whiten', so that nothing is raw; leave it out, or name 'whitened' alone among "
            "geometries"
        )


def check_base(name: str, base: Member, study: Factorial) -> None:
    """Raise ValueError for a base that cannot be what the study makes of it."""
    if base.d_sae is not None:
        raise ValueError(f"base {name!r} has a d_sae of its own; leave it to the study's d_sae and widths")
    if study.sparsities and not asks(base):
        raise ValueError(
            f"no number of active latents can be requested of base {name!r}, whose activation has no k and whose "
            "objective no target_l0; give it one, or use sparsity_weights"
        )
    penalties = base.objective.penalties
    if study.sparsity_weights and (SPARSITY not in penalties or asks(base)):
        raise ValueError(
            f"sparsity_weights are factors on the weight of a penalty called {SPARSITY!r} that nothing else sets, and "
            f"base {name!r} has the penalties {sorted(penalties)}, a k or a target_l0; give it that penalty and neither"
        )
    for term, parts in study.terms.items():
        if not parts:
            raise ValueError(f"term {term!r} adds nothing; name a term or more in it")
        if twice := sorted(set(parts) & set(penalties)):
            raise ValueError(f"term {term!r} and base {name!r} both have a penalty called {twice[0]!r}; rename one")


def check_names(study: Factorial) -> None:
    """Raise ValueError where a name would be of two methods, or of two settings of one."""
    if both := sorted(set(study.bases) & set(study.terms)):
        raise ValueError(f"{both[0]!r} names a base and a term; rename one")
    taken: dict[str, str] = {}
    geometries = study.geometries
    alone = len(study.bases) * (len(study.sparsity_weights) or 1)
    if len(study.designs) < alone * len(geometries) * (1 + len(study.terms)):
        raise ValueError(
            "two methods would have one name, as base a-b with term c has with base a and term b-c, or bases at "
            "sparsity_weights that differ in the seventh digit; rename, or leave one out"
        )
    for method, settings in study.tunings().items():
        names = [study.experiment_name(method, setting) for setting in settings if not setting.unchanged]
        for name in [*names, method]:
            if name in taken:
                raise ValueError(f"{method!r} and {taken[name]!r} would both be called {name!r}; rename one")
            taken[name] = method
    of_controls = {Design(name, geometry).name for name in study.controls for geometry in geometries}
    if both := sorted(of_controls & set(taken)):
        raise ValueError(f"{both[0]!r} names a control and a method; rename one")
