"""Every public class is found by name, and no two configuration classes share one."""

import importlib
import subprocess
import sys

import pytest

from unbraid import catalog
from unbraid.config import names
from unbraid.config.settings import Settings


def test_every_configuration_class_is_found_where_it_is_defined():
    assert len(names.public()) > 60
    for name, module in names.public().items():
        cls = getattr(importlib.import_module(module), name)
        assert issubclass(cls, Settings) and cls.__module__ == module == names.find(name)


def test_no_configuration_class_is_missed():
    importlib.import_module("unbraid.cli.main")
    for cls in (*catalog.terms().values(), *catalog.activations().values()):
        assert names.public()[cls.__name__] == cls.__module__


def test_the_source_is_read_without_importing_it():
    read = f"from {names.__name__} import public; found = public(); import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, check=True)
    found = names.public()
    imported = {cls for cls, module in found.items() if module in done.stdout.split()}
    assert len(found) > 100 and len(imported) < 20, "else every command waits for an import of everything"


def test_other_public_classes_are_found_too():
    assert names.find("Dictionary") == "unbraid.dictionary.dictionary"
    with pytest.raises(ValueError, match="Nowhere is no class of unbraid"):
        names.find("Nowhere")


def test_names_that_repeat_are_refused(monkeypatch: pytest.MonkeyPatch):
    twice = {"Settings": {"a": ()}, "Term": {"a": ("Settings",)}, "L1": {"a.b": ("Term",), "a.c": ("Term",)}}
    monkeypatch.setattr(names, "defined", lambda: twice)
    with pytest.raises(ValueError, match="a.b and a.c both define L1: rename one"):
        names.public.__wrapped__()


def test_every_term_says_what_kind_of_objective_it_is():
    families = {term.__name__: term.family for term in catalog.terms().values()}
    assert set(families.values()) == {
        "reconstruction", "sparsity", "dead latents", "geometry", "independence", "weak supervision", "causal",
        "control",
    }  # fmt: skip
