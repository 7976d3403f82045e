"""The wheel holds all that it needs: built from what is tracked, installed elsewhere, it runs the demo."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of the tracked files."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "-w", str(out)]
    subprocess.run([*pip, str(copy)], check=True)
    return next(out.glob("unbraid-*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel):
    listed = subprocess.run(["git", "ls-files", "src"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = {name.removeprefix("src/") for name in listed.splitlines() if (ROOT / name).is_file()}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == tracked


@pytest.mark.slow
def test_the_wheel_runs_the_demo_in_a_fresh_environment_outside_the_checkout(wheel, tmp_path):
    """By one of its seeds: two of its six tasks, all members, evals and pages."""
    home = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "UNBRAID_DATA")}
    run = {"cwd": tmp_path, "env": environment, "check": True, "capture_output": True, "text": True}
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), str(wheel)], **run)
    where = subprocess.run(
        [str(home / "bin" / "python"), "-c", "import unbraid; print(unbraid.__file__)"], **run
    ).stdout
    assert Path(where.strip()).is_relative_to(home)
    subprocess.run([str(home / "bin" / "unbraid"), "demo", "--seeds", "0", "--out", "demo"], **run)
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert "</html>" in page and "batchtopk" in page
    assert {"browser", "browser-world"} <= {path.name for path in (tmp_path / "demo").iterdir()}
    assert len([*(tmp_path / "demo").glob("*/provenance.json")]) == 21
