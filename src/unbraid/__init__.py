"""Unbraid: should we optimise sparse autoencoders for disentanglement instead of sparsity?

    import unbraid as ub

    sae = ub.fit(x, d_sae=1024, activation=ub.BatchTopK(32))

Names are imported when they are first used, so `import unbraid` itself is light.
"""

from unbraid.config.version import __version__ as __version__

# Type checkers go by the name alone. No module is imported here that may lie in the working folder too, under the
# name of a library: `python -m unbraid.cli` reads this file before it takes that folder off the path.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from unbraid import sources as sources
    from unbraid import steering as steering
    from unbraid import terms as terms
    from unbraid.api import compare, evaluate, fit, gate, load, score, scores, train, verdicts, write_report
    from unbraid.browser.inline import browse
    from unbraid.objective.objective import Step, Term, TermOutput
    from unbraid.report import plot
    from unbraid.runs.run import Run
    from unbraid.steering.steer import find_latents, steer
    from unbraid.training import callbacks


LAZY = {
    **dict.fromkeys(("fit", "score", "load", "train", "evaluate", "scores"), "api"),
    **dict.fromkeys(("compare", "gate", "verdicts", "write_report"), "api"),
    **dict.fromkeys(("Term", "TermOutput", "Step"), "objective.objective"),
    **dict.fromkeys(("steer", "find_latents"), "steering.steer"),
    "browse": "browser.inline",
    "Dictionary": "dictionary.dictionary",
    "Run": "runs.run",
    "Score": "evals.shared.evaluation",
}
"""By name, the module that defines it."""
MODULES = {
    "callbacks": "training.callbacks",
    "plot": "report.plot",
    "terms": "terms",
    "steering": "steering",
    "sources": "sources",
}
"""By name, the module that it is."""
APART = ("terms", "steering", "saebench", "cli")
"""Packages whose classes are reached through them: unbraid.terms.L1."""


def __getattr__(name: str) -> "Any":
    from importlib import import_module

    from unbraid.config.names import classes

    if name in MODULES:
        return import_module(f"{__name__}.{MODULES[name]}")
    module = f"{__name__}.{LAZY[name]}" if name in LAZY else classes(__name__, APART).get(name)
    if module is None:
        raise AttributeError(f"module 'unbraid' has no attribute {name!r}; dir(unbraid) lists what it has")
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    from unbraid.config.names import classes

    return sorted({"__version__", *LAZY, *MODULES, *classes(__name__, APART)})
