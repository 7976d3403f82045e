"""What can be named is found by reading files: no module is imported for a list of names."""

import subprocess
import sys

import pytest

from unbraid import catalog
from unbraid.experiment.experiment import Experiment
from unbraid.experiment.factorial import Factorial
from unbraid.experiment.study import Study
from unbraid.objective.objective import Term


def test_listing_imports_no_torch():
    code = (
        "import sys\nfrom unbraid.cli.main import main\nmain(['list'])\n"
        "heavy = {'torch', 'numpy', 'scipy', 'pandas', 'rich'} & set(sys.modules)\nassert not heavy, heavy"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "demo_world" in shown.stdout and "total_correlation" in shown.stdout and "fidelity" in shown.stdout


def test_what_is_read_is_what_importing_finds():
    for entry in catalog.experiments().values():
        assert entry.headline and entry.load().__annotations__["return"] in (Experiment, Study, Factorial)
    assert all(issubclass(cls, Term) for cls in catalog.terms().values())
    assert "total_correlation" in catalog.terms() and "terms" not in catalog.terms()
    assert set(catalog.evals()) == set(catalog.eval_entries())


def mine(tmp_path, monkeypatch, **files: str) -> tuple[str, ...]:
    """A package of a user's, imported by nobody yet."""
    for name, text in files.items():
        path = tmp_path / "mine_unread" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return ("mine_unread",)


def test_a_package_of_ones_own_is_read_not_run(tmp_path, monkeypatch):
    base = "from unbraid.terms.sparsity.l1 import L1\nraise SystemExit\nclass Mine(L1):\n    pass\n"
    study = "import unbraid\ndef a() -> 'Study':\n    'Ours.'\ndef b(x: int) -> Study: ...\ndef c(): ...\n"
    packages = mine(tmp_path, monkeypatch, terms__mine=base, terms__helper="class Helper: ...", studies__s=study)
    assert list(catalog.term_entries(packages)) == ["mine"]
    assert {name: entry.headline for name, entry in catalog.experiments(packages).items()} == {"a": "Ours."}


def test_a_file_that_is_not_python_is_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"broken\.py is not Python: .*leave out its --package"):
        catalog.term_entries(mine(tmp_path, monkeypatch, terms__broken="def (:"))
