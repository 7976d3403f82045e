"""Claim cards: what is refused before anything runs."""

from pathlib import Path

import pytest

from unbraid.comparison.card import card_hash, read_card, selector_of

CARD = """
claim = 1
study = "small_world"
prediction = "Total correlation lifts one-to-one F1."
primaries = ["recovery.f1", "absorption.absorption_full"]
seeds = [0, 1, 2, 3, 4, 5, 6, 7]
calibration_seeds = [1000, 1001, 1002]
settings = 5
command = "unbraid study small_world --card card.toml"
version = "0.1.0"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "card.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_card_is_read_as_it_was_written(tmp_path):
    card = read_card(written(tmp_path, CARD))
    assert card.claim == 1 and card.study == "small_world" and card.seeds == tuple(range(8))
    assert [(s.eval, s.metric) for s in card.selectors] == [("recovery", "f1"), ("absorption", "absorption_full")]
    assert card.fvu_cap == 1.1 and not card.underpowered


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("claim = 1", "claim = 3"), "claim"),
        (("claim = 1", "claim = true"), "claim"),
        (('study = "small_world"', 'study = "../x"'), "study"),
        (("settings = 5", "setting = 5"), "did you mean 'settings'"),
        (("settings = 5", ""), "lacks settings"),
        (("settings = 5", "settings = 0"), "settings"),
        (("[1000, 1001, 1002]", "[7, 1001, 1002]"), "test and calibration seeds at once"),
        (("[1000, 1001, 1002]", "[1000, 1001]"), "calibration_seeds"),
        (("[1000, 1001, 1002]", "[1000, 1001, 1001]"), "repeat one"),
        (("[0, 1, 2, 3, 4, 5, 6, 7]", "[]"), "seeds"),
        (("[0, 1, 2, 3, 4, 5, 6, 7]", "[0, -1]"), "seeds"),
        (('"recovery.f1", ', '"f1", '), "recovery.f1"),
        (('["recovery.f1", "absorption.absorption_full"]', "[]"), "primaries"),
        (('"absorption.absorption_full"]', '"absorption.absorption_full", "fidelity.fvu"]'), "primaries"),
        (('"absorption.absorption_full"]', '"recovery.f1"]'), "repeat one"),
        (("settings = 5", 'settings = 5\nsmallest_effects = {"fidelity.fvu" = 0.1}'), "no primaries"),
        (("settings = 5", 'settings = 5\nsmallest_effects = {"recovery.f1" = -0.1}'), "smallest_effects"),
        (("claim = 1", "claim = ="), "is not TOML"),
        (("claim = 1", f"claim = {'9' * 5000}"), "is not TOML"),
        (("claim = 1", f"claim = {'[' * 5000}"), "is not TOML"),
    ],
)
def test_a_card_that_cannot_be_is_refused_in_a_sentence(tmp_path, change, said):
    assert change[0] in CARD
    path = written(tmp_path, CARD.replace(*change))
    with pytest.raises(ValueError) as refused:
        read_card(path)
    assert said in str(refused.value) and str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_a_card_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no claim card"):
        read_card(tmp_path / "none.toml")
    with pytest.raises(ValueError, match="there is no claim card"):
        read_card(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not TOML"):
        read_card(tmp_path / "bytes.toml")


def test_one_character_changes_the_hash(tmp_path):
    path = written(tmp_path, CARD)
    before = card_hash(path)
    path.write_text(CARD.replace("lifts", "lifts "), encoding="utf-8")
    assert card_hash(path) != before


def test_the_ends_of_lines_do_not(tmp_path):
    path = written(tmp_path, CARD)
    before, card = card_hash(path), read_card(path)
    path.write_bytes(CARD.replace("\n", "\r\n").encode())
    assert card_hash(path) == before and read_card(path) == card


def test_a_headline_score_is_selected_with_its_parameters():
    assert selector_of("interchange.interchange").params == {"directions": "latents", "error": "kept", "n": 4}
    assert selector_of("mine.own").params is None
