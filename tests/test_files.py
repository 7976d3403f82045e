"""Damage is told in one sentence that names the file; names out of files stay inside (faults 13, 19, 23)."""

import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from unbraid.system.files import inside, read_json, reading

DAMAGED = {
    "empty": b"", "cut short": b'{"a": [1, 2', "not text": b"\xff\xfe\x00{", "deeply nested": b"[" * 100_000,
    "a list": b"[1]", "a number": b"3", "null": b"null", "text": b'"abc"',
}  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_json_that_is_no_object_is_refused_with_the_file_and_the_remedy(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "thing.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"thing\.json .*; make it again"):
        read_json(path, remedy="make it again")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"thing\.json is missing; fetch it"):
        read_json(tmp_path / "thing.json", remedy="fetch it")


@given(st.binary(max_size=200))
def test_any_bytes_read_as_safetensors_or_xz_end_in_a_sentence(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "some.bin"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"some\.bin"), reading(path, "fetch it"), safe_open(path, "pt") as file:
            if not list(file.keys()):
                raise ValueError("some.bin holds nothing")
        try:
            with reading(path, "fetch it"), lzma.open(path, "rt", encoding="utf-8") as lines:
                list(lines)
        except ValueError as error:
            assert "some.bin" in str(error)


@pytest.mark.parametrize(
    "name", ["../up", "/etc/passwd", "a/../../b", "", "a//b", "a b", "a\x1b[2J", ".", "a\n", None, 3]
)
def test_a_name_out_of_a_file_that_could_lead_elsewhere_is_refused(name: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hook_name is"):
        inside(tmp_path, name, "hook_name")


def test_a_plain_name_stays_and_a_link_out_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    assert inside(home, "blocks.3/hook_resid_post", "hook_name") == home / "blocks.3/hook_resid_post"
    (home / "results").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leads out"):
        inside(home, "results/a.json", "result")
