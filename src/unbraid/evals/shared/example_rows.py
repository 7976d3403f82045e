"""The held-out rows that examples are chosen from: words of a text, or activations with the factors behind them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from scipy.sparse import csr_array

from unbraid.dictionary.dictionary import Dictionary
from unbraid.evals.shared.observe import ROWS, factor_matrix, held_out_codes, observe
from unbraid.sources.base import Source
from unbraid.sources.behind import asked_behind
from unbraid.sources.stream import held_out
from unbraid.sources.truth import NoTruth, Truth
from unbraid.system.sharing import shared


@dataclass(frozen=True, eq=False)
class ShownRows:
    """The rows with all that is known of each. They are the same for every run of a source."""

    windows: Int[np.ndarray, " rows"]
    """The window that each row is in, ascending; rows of a world stand alone."""
    positions: Int[np.ndarray, " rows"]
    """Position in the window, with gaps where tokens were left out."""
    texts: list[str]
    """Of each row's token; empty where there is no text."""
    factors: csr_array | None
    """Magnitudes [rows, factors] of those active in each row; None where there is text, or they are not known."""


@shared
def shown_rows(source: Source) -> ShownRows:
    """Return the rows of a source: of its text, else those with known factors, else held-out ones."""
    rows = held_out(source, ROWS)
    if int(rows.tokens.max()) >= 0:
        windows = rows.window_starts().cumsum(0).numpy() - 1
        texts = asked_behind(source, "words", lambda found: found.token_texts(rows), [])
        texts = texts or [f"#{token}" for token in rows.tokens.tolist()]
        return ShownRows(windows, rows.positions.cpu().numpy(), texts, None)
    truth = truth_of(source)
    factors = None if truth is None else factor_matrix(truth)
    count = len(rows) if factors is None else len(factors.indptr) - 1
    return ShownRows(np.arange(count), np.zeros(count, dtype=np.int64), [], factors)


def codes_of(dictionary: Dictionary, source: Source, rows: ShownRows) -> csr_array:
    """Return the codes of these rows."""
    truth = truth_of(source)
    if rows.factors is not None and truth is not None:
        return observe(dictionary, truth).latents
    return held_out_codes(dictionary, source)


def truth_of(source: Source) -> Truth | None:
    """Return the factors behind a source; None where they are not known."""
    try:
        return source.truth()
    except NoTruth:
        return None
