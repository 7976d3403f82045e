"""Whose folder it is."""

from pathlib import Path

from tests.formats.saelens_saes import saved

from unbraid.formats import recognise


def test_the_digest_is_of_the_weights_alone(tmp_path: Path):
    saved("standard", tmp_path, seed=0)
    first = recognise.digest(tmp_path)
    (tmp_path / "cfg.json").write_text("{}")
    assert recognise.digest(tmp_path) == first and len(first) == 64
    saved("standard", tmp_path, seed=1)
    assert recognise.digest(tmp_path) != first
