"""What there is to name on the command line, found by looking: experiments, terms, evals. No registry to keep."""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, TypeVar

from unbraid.config.serialise import OWN_PACKAGES
from unbraid.dictionary.activation import Activation
from unbraid.evals.shared.evaluation import Eval
from unbraid.experiment.experiment import Experiment
from unbraid.experiment.study import Study
from unbraid.objective.objective import Term

T = TypeVar("T")
SHARED_PARTS = ("shared", "statistics")
"""Packages that hold what several members use, and no member."""

Named = Callable[[], Experiment | Study]


def modules(folder: str, packages: tuple[str, ...]) -> Iterator[ModuleType]:
    """Every module in `<package>.<folder>`, for each package that has one. Raises ValueError for an unknown package."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ValueError(
                f"cannot import package {package!r} ({error}); is it installed, or on PYTHONPATH?"
            ) from error
        try:
            parent = importlib.import_module(f"{package}.{folder}")
        except ModuleNotFoundError as error:
            if error.name != f"{package}.{folder}":
                raise
            continue
        yield from below(parent)


def below(parent: ModuleType) -> Iterator[ModuleType]:
    """Every module in a package and in the packages inside it, but those called `shared` or `statistics`."""
    for found in pkgutil.iter_modules(parent.__path__):
        if found.name in SHARED_PARTS:
            continue
        module = importlib.import_module(f"{parent.__name__}.{found.name}")
        if found.ispkg:
            yield from below(module)
        else:
            yield module


def experiments(packages: tuple[str, ...] = OWN_PACKAGES) -> dict[str, Named]:
    """Functions without arguments that return an Experiment or a Study, by name."""
    return {
        name: function
        for module in modules("studies", packages)
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and inspect.signature(function).return_annotation in (Experiment, Study)
        and not inspect.signature(function).parameters
    }


def terms(packages: tuple[str, ...] = OWN_PACKAGES) -> dict[str, type[Term]]:
    """Term classes by the name of their file."""
    found: dict[str, type[Term]] = {}
    for module in modules("terms", packages):
        for cls in vars(module).values():
            if inspect.isclass(cls) and issubclass(cls, Term) and cls.__module__ == module.__name__:
                found[module.__name__.rpartition(".")[2]] = cls
    return found


def activations() -> dict[str, type[Activation]]:
    """Activation classes by name: those the dictionary knows."""
    return {cls.__name__: cls for cls in Activation.__subclasses__()}


def evals(packages: tuple[str, ...] = OWN_PACKAGES) -> dict[str, Eval]:
    """Evals by the name of their file."""
    found: dict[str, Eval] = {}
    for module in modules("evals", packages):
        name = module.__name__.rpartition(".")[2]
        also = {part: getattr(module, part) for part in ("peers", "lacks") if hasattr(module, part)}
        found[name] = Eval(name, module.VERSION, module.DEFINITIONS, getattr(module, name), **also)
    return found


def pick(name: str, among: Mapping[str, T], what: str) -> T:
    """The entry called `name` (hyphens or underscores). Raises ValueError suggesting the nearest."""
    key = name.replace("-", "_")
    if key in among:
        return among[key]
    near = difflib.get_close_matches(key, among, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(among))}"
    raise ValueError(f"no {what} called {name!r}; {hint} (`unbraid list` shows all)")


def headline(thing: Any) -> str:
    """First line of a docstring: of a function, or of the module a class lives in."""
    text = inspect.getdoc(thing) if inspect.isfunction(thing) or inspect.ismodule(thing) else None
    text = text or inspect.getdoc(inspect.getmodule(thing)) or ""
    return text.partition("\n")[0]
