"""The settings that methods are tuned over: a term's strength, or a factor on one field of a base."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unbraid.config.hints import nearest
from unbraid.config.settings import PositiveFloat, Settings, SomeText, is_number, shown
from unbraid.experiment.experiment import Experiment
from unbraid.experiment.grid import value_at, with_values


@dataclass(frozen=True, kw_only=True)
class Tuning(Settings):
    """The setting of one method: its term's strength, or a factor on a field of its base. Without either the base is
    as its study gives it."""

    strength: PositiveFloat | None = None
    """Gradient ratio of the term."""
    field: SomeText | None = None
    """Field of the base's experiment, by dotted name: training.lr."""
    factor: PositiveFloat | None = None
    """What its value is multiplied by."""

    def check_together(self) -> None:
        if (self.field is None) != (self.factor is None) or None not in (self.strength, self.field):
            raise ValueError(f"a setting is {self.text!r}; give a strength, or a field and a factor, or nothing")

    @property
    def text(self) -> str:
        """The setting in a few words, for messages."""
        said = {"strength": self.strength, "field": self.field, "factor": self.factor}
        return ", ".join(f"{name} {value}" for name, value in said.items() if value is not None) or "as it is"

    @property
    def unchanged(self) -> bool:
        """True for a base as its study gives it."""
        return self.strength is None and self.factor in (None, 1)


def tuned(experiment: Experiment, base: Tuning) -> Experiment:
    """An experiment with its base's setting applied. Raises ValueError for a field that is no number, or not there."""
    if base.unchanged or base.field is None or base.factor is None:
        return experiment
    value = value_at(experiment, base.field)
    if not is_number(value):
        raise ValueError(f"{base.field} of {experiment.name} is {shown(value)}; a factor needs a number")
    new = value * base.factor
    return with_values(experiment, {base.field: round(new) if isinstance(value, int) else new})


def check_chosen(chosen: Mapping[str, Tuning], tried: Mapping[str, Sequence[Tuning]], what: str) -> None:
    """Raise ValueError for a setting of a method that there is not, or one that was not tried. `what`: what they are
    called, method or base."""
    for name, setting in chosen.items():
        if name not in tried:
            raise ValueError(f"a setting is chosen for {name!r}, and no {what} is called that; {nearest(name, tried)}")
        base = any(one.strength is None for one in tried[name])
        if setting not in tried[name] and not (base and setting.unchanged):
            texts = "; ".join(one.text for one in tried[name])
            raise ValueError(f"the setting chosen for {name!r} is {setting.text!r}, and none that was tried: {texts}")
