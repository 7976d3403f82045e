"""The known name that a misspelt one most likely means."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the name among `known` that is `name` in other letter case, or the shortest that begins with it, or the
    most similar one, by difflib's ratio of at least `cutoff`; empty when there is none."""
    given = name.casefold()
    folded = {one.casefold(): one for one in sorted(known)}
    if given in folded:
        return folded[given]
    longer = sorted((one for one in folded if len(given) > 2 and one.startswith(given)), key=len)
    similar = longer or difflib.get_close_matches(given, folded, n=1, cutoff=cutoff)
    return folded[similar[0]] if similar else ""
