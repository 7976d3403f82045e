"""The pages' own JavaScript: its types are checked from its comments, where TypeScript is."""

import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

STATIC = Path(str(files("unbraid.browser") / "static"))
OURS = Path(sys.prefix) / "js" / "node_modules" / ".bin" / "tsc"
"""Where `make` puts it when there is npm."""
TSC = os.environ.get("UNBRAID_TSC") or (str(OURS) if OURS.exists() else shutil.which("tsc")) or ""
STRICT = ["--noEmit", "--checkJs", "--allowJs", "--strict", "--target", "es2022", "--lib", "es2023,dom,dom.iterable"]


@pytest.mark.skipif(not TSC, reason="no TypeScript here: install npm before make, or name a tsc by UNBRAID_TSC")
def test_types_hold():
    scripts = sorted(map(str, STATIC.glob("*.js")))
    ran = subprocess.run([TSC, *STRICT, *scripts], capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and len(scripts) >= 7, ran.stdout


def test_every_script_is_checked_and_in_the_page_once():
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    for script in STATIC.glob("*.js"):
        text = script.read_text(encoding="utf-8")
        assert text.startswith("// @ts-check\n") and page.count(f'src="{script.name}"') == 1, script.name
        assert "innerHTML" not in text and "eval(" not in text and "document.write" not in text, script.name
