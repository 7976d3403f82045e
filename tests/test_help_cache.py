"""Help texts are kept as long as no file of the package changes, and made anew whenever that cannot be told."""

import json

import pytest

from unbraid.cli import help_cache
from unbraid.cli.help_cache import kept


@pytest.fixture
def made(tmp_path, monkeypatch) -> list[str]:
    """What has been made, in a folder of its own."""
    monkeypatch.setenv("UNBRAID_CACHE", str(tmp_path / "cache"))
    return []


def text(made: list[str], name: str = "train-world") -> str:
    return kept(name, lambda: made.append(name) or f"help {len(made)}")


def test_a_text_is_made_once(made):
    assert text(made) == text(made) == "help 1" and text(made, "plan-world") == "help 2"


def test_a_text_is_made_again_when_a_file_of_the_package_has_changed(made, tmp_path, monkeypatch):
    monkeypatch.setattr(help_cache, "PACKAGE", tmp_path)
    (tmp_path / "a.py").write_text("one")
    assert text(made) == "help 1"
    (tmp_path / "a.py").write_text("other")
    assert text(made) == "help 2"


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"key": 1}', '{"key": "KEY", "text": 3}', "\0"])
def test_a_damaged_text_is_made_again(made, tmp_path, content):
    text(made)
    (path,) = (tmp_path / "cache" / "help").iterdir()
    path.write_text(content.replace("KEY", json.loads(path.read_text())["key"]))
    assert text(made) == "help 2" and text(made) == "help 2"


def test_where_nothing_can_be_written_the_text_is_made_each_time(made, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert [text(made), text(made)] == ["help 1", "help 2"]
