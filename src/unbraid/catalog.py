"""The experiments, terms, activations and evals that a package holds, found by reading its files; no registry to keep.

Files are read, not imported: `unbraid list` needs no torch, and naming one study imports that study alone. A study's
entry is a function without parameters whose annotation says `-> Experiment`, `-> Study` or `-> Factorial`; a term's is
a class derived from Term, named by its file; an activation's a class derived from Activation, named by its class; an
eval's is the function named as its file.
"""

import ast
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from unbraid.config import names
from unbraid.config.hints import nearest
from unbraid.config.serialise import OWN_PACKAGES

if TYPE_CHECKING:  # what imports torch is imported by the functions that load an entry
    from unbraid.dictionary.activations.base import Activation
    from unbraid.evals.shared.evaluation import Eval
    from unbraid.experiment.experiment import Experiment
    from unbraid.experiment.factorial import Factorial
    from unbraid.experiment.study import Study
    from unbraid.objective.objective import Term

T = TypeVar("T")
SHARED_PARTS = ("shared", "statistics")
"""Packages that hold what several members use, and no member."""
NAMED_KINDS = ("Experiment", "Study", "Factorial")


@dataclass(frozen=True)
class Entry:
    """Something that can be named on the command line: where it is defined, and its first line."""

    module: str
    attribute: str
    headline: str

    def load(self) -> Any:
        """The function or class itself; its module is imported now."""
        return getattr(importlib.import_module(self.module), self.attribute)


@dataclass(frozen=True)
class ModuleText:
    """A module as its file reads."""

    module: str
    tree: ast.Module

    @property
    def name(self) -> str:
        return self.module.rpartition(".")[2]

    @property
    def headline(self) -> str:
        return first_line(self.tree)


def first_line(node: ast.Module | ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0]


def modules(folder: str, packages: tuple[str, ...]) -> Iterator[ModuleText]:
    """Every module in `<package>.<folder>`, read, for each package that has one. Raises ValueError for an unknown
    package and for a file that is not Python."""
    for package in packages:
        for home in homes(package):
            if (home / folder).is_dir():
                yield from below(home / folder, ".".join([package, *folder.split("/")]))


def homes(package: str) -> list[Path]:
    """The folders of a package; a module that is a single file has none, and still defines classes that runs name.
    Raises ValueError when there is no module of this name."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError) as error:
        raise ValueError(f"cannot import package {package!r} ({error}); is it installed, or on PYTHONPATH?") from error
    if spec is None:
        raise ValueError(
            f"cannot import package {package!r} (no module has this name); is it installed, or on PYTHONPATH?"
        )
    return [Path(place) for place in spec.submodule_search_locations or ()]


def below(folder: Path, package: str) -> Iterator[ModuleText]:
    """Every module in a folder and in the folders inside it, but those called `shared` or `statistics`."""
    for found in pkgutil.iter_modules([str(folder)]):
        name = f"{package}.{found.name}"
        if found.name in SHARED_PARTS:
            continue
        if found.ispkg:
            yield from below(folder / found.name, name)
        elif (path := folder / f"{found.name}.py").is_file():
            try:
                about = path.stat()
                yield ModuleText(name, parsed(path, about.st_mtime_ns, about.st_size))
            except (SyntaxError, ValueError) as error:
                raise ValueError(f"{path} is not Python: {error}; correct it, or leave out its --package") from error


@lru_cache(maxsize=4096)
def parsed(path: Path, changed: int, size: int) -> ast.Module:
    """Return the syntax tree of a file, parsed again only when its time of change or its size is another."""
    return ast.parse(path.read_bytes(), str(path))


def experiments(packages: tuple[str, ...] = OWN_PACKAGES) -> dict[str, Entry]:
    """The named experiments and studies: functions without parameters annotated to return one of NAMED_KINDS."""
    return {
        node.name: Entry(source.module, node.name, first_line(node) or source.headline)
        for source in modules("studies", packages)
        for node in source.tree.body
        if isinstance(node, ast.FunctionDef) and not any(ast.iter_child_nodes(node.args)) and returned(node)
    }


def returned(node: ast.FunctionDef) -> bool:
    """Tell whether the annotation says that an experiment or a study is returned."""
    return node.returns is not None and ast.unparse(node.returns).strip("'\"").rpartition(".")[2] in NAMED_KINDS


def make(entry: Entry) -> "Experiment | Study | Factorial":
    """The experiment or study of an entry."""
    return entry.load()()


def term_entries(packages: tuple[str, ...] = OWN_PACKAGES) -> dict[str, Entry]:
    """The term classes, by the name of their file."""
    return classes_of("Term", list(modules("terms", packages)), by_file=True)


def classes_of(root: str, sources: list[ModuleText], *, by_file: bool) -> dict[str, Entry]:
    """The classes in these modules that derive from `root`, by the name of their file or by their own."""
    classes = {name: {base for bases in at.values() for base in bases} for name, at in names.defined().items()}
    for source in sources:
        classes |= {node.name: bases_of(node) for node in source.tree.body if isinstance(node, ast.ClassDef)}
    derived = deriving(root, classes)
    return {
        source.name if by_file else node.name: Entry(source.module, node.name, source.headline)
        for source in sources
        for node in source.tree.body
        if isinstance(node, ast.ClassDef) and node.name in derived
    }


def bases_of(node: ast.ClassDef) -> set[str]:
    return {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases}


def deriving(root: str, classes: Mapping[str, set[str]]) -> set[str]:
    """The names of the classes that derive from `root`, through however many others."""
    known = {root}
    while more := {name for name, bases in classes.items() if name not in known and known & bases}:
        known |= more
    return known - {root}


def terms(packages: tuple[str, ...] = OWN_PACKAGES) -> "dict[str, type[Term]]":
    """Term classes by the name of their file, imported."""
    return {name: entry.load() for name, entry in term_entries(packages).items()}


def activation_entries(packages: tuple[str, ...] = OWN_PACKAGES) -> dict[str, Entry]:
    """The activation classes by name: this package's, and those in `<package>.activations` of others."""
    sources = [s for s in modules("dictionary/activations", OWN_PACKAGES) if s.name != "base"]
    return classes_of("Activation", [*sources, *modules("activations", packages)], by_file=False)


def activations(packages: tuple[str, ...] = OWN_PACKAGES) -> "dict[str, type[Activation]]":
    """Activation classes by name, imported."""
    return {name: entry.load() for name, entry in activation_entries(packages).items()}


def eval_entries(packages: tuple[str, ...] = OWN_PACKAGES) -> dict[str, Entry]:
    """The evals, by the name of their file."""
    found = modules("evals", packages)
    return {source.name: Entry(source.module, source.name, source.headline) for source in found}


def evals(packages: tuple[str, ...] = OWN_PACKAGES) -> "dict[str, Eval]":
    """Evals by the name of their file, imported."""
    from unbraid.evals.shared.evaluation import Eval

    found: dict[str, Eval] = {}
    for name, entry in eval_entries(packages).items():
        module = importlib.import_module(entry.module)
        also = {part: getattr(module, part) for part in ("peers", "lacks", "files") if hasattr(module, part)}
        also["by_default"] = getattr(module, "BY_DEFAULT", True)
        found[name] = Eval(name, module.VERSION, module.DEFINITIONS, getattr(module, name), **also)
    return found


def default_evals(packages: tuple[str, ...] = OWN_PACKAGES) -> "dict[str, Eval]":
    """Evals that a run is scored by when none is named."""
    return {name: item for name, item in evals(packages).items() if item.by_default}


def pick(name: str, among: Mapping[str, T], what: str) -> T:
    """The entry called `name` (hyphens or underscores). Raises ValueError suggesting the nearest."""
    key = name.replace("-", "_")
    if key in among:
        return among[key]
    raise ValueError(f"no {what} called {name!r}; {nearest(key, sorted(among), cutoff=0.4)} (`unbraid list` shows all)")
