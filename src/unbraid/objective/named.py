"""Makes an objective of terms that are given without names."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unbraid.config.settings import shown
from unbraid.objective.objective import Objective, TargetL0, Term

Penalties = Term | Sequence[Term] | Mapping[str, Term]
"""One term, several, or several by name."""


def objective_of(
    reconstruction: Term, penalties: Penalties = (), target_l0: float | TargetL0 | None = None
) -> Objective:
    """Return the objective of a reconstruction term and penalties. A number for `target_l0` moves the weight of the
    penalty called "sparsity", or of the only one.

    Raises ValueError for what is no term, and for a target without a penalty to move.
    """
    named = named_terms(penalties)
    target = target_l0 if isinstance(target_l0, TargetL0 | None) else TargetL0(l0=target_l0, penalty=movable(named))
    return Objective(reconstruction=as_term(reconstruction), penalties=named, target_l0=target)


def movable(named: Mapping[str, Term]) -> str:
    """Return the name of the penalty whose weight reaches an L0. Raises ValueError where that is not clear."""
    if "sparsity" in named or len(named) == 1:
        return "sparsity" if "sparsity" in named else next(iter(named))
    there = f"there are {sorted(named)}; call one 'sparsity'" if named else "there is none; give unbraid.terms.L1()"
    raise ValueError(
        f"target_l0 moves the weight of one penalty, and {there}, or give unbraid.TargetL0(l0=…, penalty=…)"
    )


def named_terms(penalties: Penalties) -> dict[str, Term]:
    """Return terms by name: those given, or their class names as words, with -2 at the end of a second of a kind."""
    if isinstance(penalties, Mapping):
        return {name: as_term(term) for name, term in penalties.items()}
    terms = [penalties] if isinstance(penalties, Term | type) else penalties
    if isinstance(terms, str) or not isinstance(terms, Iterable):
        raise ValueError(f"penalties are {shown(penalties)}; expected terms such as unbraid.terms.L1(weight=.1)")
    named: dict[str, Term] = {}
    for term in map(as_term, terms):
        word = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(term).__name__).lower()
        same = sum(re.sub(r"-\d+$", "", name) == word for name in named)
        named[f"{word}-{same + 1}" if same else word] = term
    return named


def as_term(term: Any) -> Term:
    """Return `term`. Raises ValueError when it is none, with how to make one."""
    if isinstance(term, Term):
        return term
    if isinstance(term, type) and issubclass(term, Term):
        raise ValueError(f"{term.__name__} is a class of terms; give one of them: {term.__name__}()")
    raise ValueError(
        f"a term is {shown(term)}; expected one such as unbraid.terms.L1(weight=.1), or of a class of yours derived "
        "from unbraid.Term (a function cannot be stored with the run)"
    )
