"""The choice of a setting: among those that keep to the cap on FVU and have every primary."""

import math
from collections.abc import Mapping

import pytest
from tests.comparison.hand_made import ABSORPTION, F1, arranged, method

from unbraid.comparison.tuning import Choice, choice
from unbraid.experiment.tuning import Tuning

WIGGLE = (0.0, 0.004, -0.004)
SETTINGS = {"hsic-0.1": Tuning(strength=0.1), "hsic-0.3": Tuning(strength=0.3), "hsic-1": Tuning(strength=1.0)}
SMALLEST = {F1: 0.1, ABSORPTION: 0.1}


def chosen(**changes: Mapping[str, float | None]) -> Choice:
    """The choice among settings of which the last gains most."""
    gains = {"hsic-0.1": 0.0, "hsic-0.3": 0.1, "hsic-1": 0.2}
    values = lambda name, gain: (
        lambda seed, l0: {"f1": 0.5 + gain + WIGGLE[seed], "absorption": 0.3, "fvu": 0.1} | dict(changes.get(name, {}))
    )
    scores = arranged({"batchtopk": values("batchtopk", 0.0)} | {n: values(n, gain) for n, gain in gains.items()})
    tried = [(setting, method(scores, name)) for name, setting in SETTINGS.items()]
    return choice(scores, "hsic", method(scores, "batchtopk"), tried, [F1, ABSORPTION], SMALLEST, 1.1)


def test_the_largest_gain_is_chosen_in_smallest_effects():
    found = chosen()
    assert found.setting.strength == 1.0 and found.worth == pytest.approx(1.0)
    assert found.note == "at the end of what was tried: the best may lie beyond"


@pytest.mark.parametrize("fvu", [0.2, None])
def test_a_setting_that_is_not_shown_to_keep_to_the_cap_is_not_chosen(fvu: float | None):
    assert chosen(**{"hsic-1": {"fvu": fvu}}).setting.strength == 0.3


def test_a_setting_that_lacks_a_primary_is_not_chosen_by_the_other():
    assert chosen(**{"hsic-1": {"absorption": None}}).setting.strength == 0.3


def test_where_none_can_be_chosen_the_lowest_fvu_is_taken_and_said():
    over = chosen(**{name: {"fvu": fvu} for name, fvu in zip(SETTINGS, (0.3, 0.2, 0.4), strict=True)})
    assert over.setting.strength == 0.3 and "no setting keeps FVU within 1.10 of its base's" in over.note
    bare = chosen(**dict.fromkeys(SETTINGS, {"absorption": None}))
    assert math.isnan(bare.worth) and bare.note.startswith("none that keeps to the cap has every primary")
