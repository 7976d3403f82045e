"""What the commands about claim cards print, on made-up calibrations of a study."""

import io

import pytest
from rich.console import Console

from tests.comparison.made_up import scored
from unbraid.cli.arguments import PowerFlags
from unbraid.cli.claims import SEEDS, WIDTH, about_power, chosen_text, laid_out, power_rows, power_tables
from unbraid.comparison.scores import Scores, arrange
from unbraid.comparison.tuning import Choice
from unbraid.experiment.tuning import Tuning
from unbraid.studies.factorials import small_world


@pytest.fixture(scope="module")
def scores() -> Scores:
    return arrange(scored(small_world().calibration()))


def printed(rows) -> list[str]:
    text = io.StringIO()
    for table in power_tables(rows):
        Console(file=text, width=80).print(table)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_tables_of_power_fit_eighty_columns_and_show_every_number(scores):
    rows = power_rows(scores, small_world().d_sae, PowerFlags(runs=()))
    lines = printed(rows)
    assert max(map(len, lines)) <= WIDTH and not any("…" in line for line in lines)
    assert {row.score for row in rows} >= {"recovery.f1", "absorption.absorption_full"}
    for row in rows:
        needs, finds = (line.split() for line in lines if line.split()[:1] == [row.score])
        assert len(needs) == 5 and len(finds) == 1 + len(SEEDS)
        assert list(row.found) == sorted(row.found, reverse=True)


def test_more_comparisons_and_smaller_differences_need_more_seeds(scores):
    needed = lambda **how: power_rows(scores, small_world().d_sae, PowerFlags(runs=(), scores=("recovery.f1",), **how))
    (easy,), (hard,), (many,) = needed(effect=0.03), needed(effect=0.006), needed(effect=0.03, comparisons=20)
    assert easy.to_find and hard.to_find and many.to_find and easy.to_find < many.to_find < hard.to_find
    assert "corrected for 20" in about_power(PowerFlags(runs=(), comparisons=20))


def test_power_without_a_spread_or_by_a_misspelt_score_is_refused(scores):
    one = arrange(scored(e for e in small_world().calibration() if e.seed == 1000))
    with pytest.raises(ValueError, match="no method here shares 3 seeds with its base"):
        power_rows(one, small_world().d_sae, PowerFlags(runs=()))
    with pytest.raises(ValueError, match="did you mean 'recovery.f1'"):
        power_rows(scores, small_world().d_sae, PowerFlags(runs=(), scores=("recovery.f2",)))


def test_what_was_chosen_is_said_in_lines_of_eighty_columns():
    choice = Choice("topk-hsic", Tuning(strength=0.3), -0.0369, 1.003, float("nan"), 5, "at the end of what was tried")
    said = laid_out(chosen_text(choice))
    assert max(map(len, said.splitlines())) <= WIDTH
    assert "topk-hsic: strength 0.3, of 5 tried: gain −0.037, FVU × 1.00; at the end of what was tried" in " ".join(
        said.split()
    )
