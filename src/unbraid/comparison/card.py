"""Claim cards: what a claim predicts of a testbed and how it will be judged, in a TOML file written before the runs.

    claim = 1
    study = "forest"
    prediction = "Total correlation and support lift one-to-one F1 by .02 or more; absorption does not move."
    primaries = ["recovery.f1", "absorption.absorption_full"]
    seeds = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    calibration_seeds = [1000, 1001, 1002]
    settings = 5
    command = "unbraid study forest --card forest.toml --out runs/forest"
    version = "0.1.0"

`unbraid study register` stores the file's hash next to it; a card that has changed since is refused.
"""

import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from annotated_types import MaxLen, MinLen

from unbraid.comparison.intervals import FEWEST_SEEDS
from unbraid.comparison.quantities import HEADLINE, Quantity, ScoreSelector
from unbraid.config.hints import nearest
from unbraid.config.settings import FolderName, PositiveFloat, PositiveInt, Seed, Settings, SomeText
from unbraid.dictionary.initialisation import Claim

CARD_BYTES = 2**20
"""Largest card that is read, in bytes."""
MOST_PRIMARIES = 2


@dataclass(frozen=True, kw_only=True)
class ClaimCard(Settings):
    """A claim about a testbed, and how it will be judged."""

    claim: Claim
    """1: objectives from the disentanglement literature; 2: MELBO and DCT objectives."""
    study: FolderName
    """The factorial study that is the testbed."""
    prediction: SomeText
    """What is expected to come out."""
    primaries: Annotated[tuple[str, ...], MinLen(1), MaxLen(MOST_PRIMARIES)]
    """The scores that decide, as eval.metric; all others are exploratory."""
    seeds: Annotated[tuple[Seed, ...], MinLen(FEWEST_SEEDS)]
    """Test seeds: fresh ones, on which nothing was chosen."""
    calibration_seeds: Annotated[tuple[Seed, ...], MinLen(FEWEST_SEEDS)]
    """Seeds of the gate, the tuning and the power, used for nothing else."""
    settings: PositiveInt
    """Settings that every method is tried at on calibration seeds, baselines too."""
    methods: Annotated[tuple[str, ...], MinLen(1)] = ("*",)
    """Patterns of the methods that the claim is about; the others are not judged by it."""
    fvu_cap: PositiveFloat = 1.1
    """Largest FVU of a chosen setting, as a multiple of its base's."""
    smallest_effects: Mapping[str, PositiveFloat] = field(default_factory=dict)
    """Smallest effects of interest by primary; those not named are from calibration."""
    underpowered: bool = False
    """True to register with fewer seeds than the smallest effects need; the verdict says so."""
    command: SomeText
    """The command that will be run."""
    version: SomeText
    """The version of unbraid that will run it."""

    def check_together(self) -> None:
        if shared := sorted(set(self.seeds) & set(self.calibration_seeds)):
            raise ValueError(
                f"seeds {shared} are test and calibration seeds at once, and what is tuned on a seed cannot be tested "
                "on it; choose others"
            )
        for name in ("seeds", "calibration_seeds", "primaries"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} {list(values)} repeat one; name each once")
        for name in (*self.primaries, *self.smallest_effects):
            selector_of(name)
        if unknown := sorted(set(self.smallest_effects) - set(self.primaries)):
            raise ValueError(f"smallest_effects names {unknown}, which are no primaries of the card ({self.primaries})")

    @property
    def selectors(self) -> list[ScoreSelector]:
        """The primaries, as what selects their scores."""
        return [selector_of(name) for name in self.primaries]


def selector_of(name: str) -> ScoreSelector:
    """Return what eval.metric selects: the headline score of this name, or any measured score. Raises ValueError for
    text that is not of this form."""
    eval_name, dot, metric = name.partition(".")
    if not (dot and eval_name and metric):
        raise ValueError(f"a score is called {name!r}; it is named by its eval and its metric, as in recovery.f1")
    known = [s for line in HEADLINE for s in line if (s.eval, s.metric) == (eval_name, metric)]
    return known[0] if known else ScoreSelector(eval_name, metric)


def score_name(quantity: Quantity) -> str:
    """The name of a score in a card."""
    return f"{quantity.eval}.{quantity.metric}"


def no_score(name: str, measured: Iterable[Quantity]) -> str:
    """Say that no run has a score of this name, with the nearest that there is, or all."""
    known = sorted({score_name(q) for q in measured if q.sign and not q.reference})
    return f"no run has the score {name!r}; {nearest(name, known)}"


def read_card(path: Path) -> ClaimCard:
    """Read a claim card. Raises ValueError, naming the file, for what is none."""
    content = card_bytes(path)
    try:
        data = tomllib.loads(content.decode())
    # A number of thousands of digits is a plain ValueError, and what is nested too deeply a RecursionError.
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    known = {f.name: f for f in fields(ClaimCard)}
    for name in data:
        if name not in known:
            raise ValueError(f"{path} has a field {name!r} that no claim card has; {nearest(name, known)}")
    needed = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING and n not in data]
    if needed:
        raise ValueError(f"{path} lacks {', '.join(needed)}; a claim card says all of it before the runs")
    try:
        return ClaimCard(**{name: plain(value) for name, value in data.items()})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def plain(value: Any) -> Any:
    """A value of TOML as a card holds it: lists as tuples."""
    return tuple(value) if isinstance(value, list) else value


def card_bytes(path: Path) -> bytes:
    """The content of a card's file. Raises ValueError when it is no file, or too large for a card."""
    if not path.is_file():
        raise ValueError(f"there is no claim card {path}; write one (docs/judging.md shows how), or correct the path")
    if (size := path.stat().st_size) > CARD_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, and a claim card at most {CARD_BYTES:,}: it is something else")
    return path.read_bytes()


def card_hash(path: Path) -> str:
    """The SHA-256 of a card's file, byte for byte but for the ends of its lines."""
    # A checkout on Windows turns them, and TOML reads both alike.
    return hashlib.sha256(card_bytes(path).replace(b"\r\n", b"\n")).hexdigest()
