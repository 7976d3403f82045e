"""The tables of the page on trust, made from the rows."""

import math
from collections.abc import Collection, Mapping, Sequence

from benchmarks.audit.committed import ON_LANGUAGE, ON_WORLDS, SAEBENCH, Earlier, committed
from benchmarks.audit.damage import DAMAGES
from benchmarks.audit.damage_seen import Change
from benchmarks.audit.findings import Finding, findings
from benchmarks.audit.gate_table import Row, gate_table
from benchmarks.audit.reseed_noise import Noise
from benchmarks.audit.rows import Rows
from benchmarks.audit.testbeds import TESTBEDS
from benchmarks.audit.text import NONE, figure, markdown, short, signed_minus
from benchmarks.audit.training_separation import STAGES
from benchmarks.audit.truth_correlation import Agreement

KNOWN = ("recovery.f1", "recovery.mcc", "controllability.isolation", "interchange.interchange")
"""What is known to be true of dictionaries on a source whose factors are known: those that a testbed has."""
BEGIN, END = "<!-- tables of python -m benchmarks.audit: begin -->", "<!-- end -->"
Found = Mapping[str, Sequence[Finding]]
"""By testbed, what was found."""


def found_in(testbeds: Mapping[str, Rows]) -> Found:
    """Work out what was found on every testbed."""
    return {name: findings(rows, KNOWN, TESTBEDS[name].ceiling) for name, rows in testbeds.items()}


def tables(testbeds: Mapping[str, Rows], gated: Sequence[Row]) -> list[str]:
    """Return all tables of the page, each with its heading. gated: rows of the gate."""
    found = found_in(testbeds)
    parts = ["## Which score, for what\n\n" + summary(found)]
    parts.append("## Which score passes the gate, where\n\n" + gate_table(gated))
    for name, own in found.items():
        parts.append(f"## Noise and truth: {name}\n\n" + truth_table(own))
        parts.append(f"## Training and damage: {name}\n\n" + training_table(own))
    parts.append("## Terms on worlds, from committed rows\n\n" + earlier_table(ON_WORLDS))
    parts.append("## The language, from committed rows\n\n" + earlier_table(ON_LANGUAGE[1:2]))
    return [*parts, "## SAEBench's scores, from committed rows\n\n" + earlier_table(ON_LANGUAGE, SAEBENCH)]


def summary(found: Found) -> str:
    """Return a row a score: the word on each testbed, the truths it orders like, what it sees, what fools it, seeds."""
    beds = list(found)
    head = ["score", *beds, "orders like", "sees", "fooled by", *(f"seeds for .02, {bed}" for bed in beds)]
    lines = []
    for score in sorted({one.score for own in found.values() for one in own}):
        own = {bed: one for bed in beds for one in found[bed] if one.score == score}
        words = [own[bed].word if bed in own else NONE for bed in beds]
        seeds = [seeds_cell(own[bed].noise) if bed in own else NONE for bed in beds]
        seen, fooled = (kinds(own.values(), word) for word in ("seen", "fooled"))
        lines.append([f"`{score}`", *words, truths(own.values()), seen, fooled, *seeds])
    return markdown(head, lines)


def truths(found: Collection[Finding]) -> str:
    """Return the known truths that a score orders dictionaries like on every testbed, or (in brackets) on some."""
    said = []
    for truth in KNOWN:
        agreed = [one.truth[truth].low > 0 for one in found if truth in one.truth]
        name = truth.rpartition(".")[2]
        if any(agreed):
            said.append(name if all(agreed) else f"({name})")
    return ", ".join(said) or NONE


def kinds(found: Collection[Finding], word: str) -> str:
    """Return the damages that have this word on every testbed that knows, or (in brackets) on some."""
    said = []
    for kind in DAMAGES:
        words = [one.damage[kind].word for one in found if kind in one.damage and one.damage[kind].word != "unknown"]
        if word in words:
            said.append(kind if set(words) == {word} else f"({kind})")
    return ", ".join(said) or NONE


def truth_table(own: Sequence[Finding]) -> str:
    """Return a row a score: its noise, and its agreement with known truths."""
    truths = list(dict.fromkeys(truth for one in own for truth in one.truth))
    names = [truth.rpartition(".")[2] for truth in truths]
    head = ["score", "mean", "sd of a method", "of a difference", "of the eval", *(f"ρ {name}" for name in names)]
    head += [f"ρ {name}, alike" for name in names]
    lines = []
    for one in own:
        cells = [figure(v) for v in (one.noise.mean, one.noise.of_method, one.noise.of_difference, one.noise.of_eval)]
        agreed = [agreement_cell(part.get(truth)) for part in (one.truth, one.alike) for truth in truths]
        lines.append([f"`{one.score}`", *cells, *agreed])
    return markdown(head, lines)


def training_table(own: Sequence[Finding]) -> str:
    """Return a row a score: its separation of stages of training, and what damages do to it."""
    stages = [f"{100 * share:g}" for share in STAGES]
    steps = [f"{a} → {b} %" for a, b in zip(stages, stages[1:], strict=False)]
    head = ["score", *steps, f"0 → {stages[-1]} %", *DAMAGES]
    lines = [
        [f"`{one.score}`", *map(apart, one.rise.steps), apart(one.rise.whole),
         *(damage_cell(one.damage[kind]) for kind in DAMAGES)]
        for one in own
    ]  # fmt: skip
    return markdown(head, lines)


def earlier_table(studies: Sequence[Earlier], scores: Sequence[str] = ()) -> str:
    """Return a row a score and earlier study: noise, seeds, agreement with known truths, and both ends of training."""
    truths = studies[0].truths
    head = ["score", "rows", "mean", "sd of a method", "of a difference", "seeds for .02"]
    head += [*(f"ρ {truth}" for truth in truths), "untrained → trained", "word"]
    lines: dict[str, list[list[str]]] = {}
    for study in studies:
        for one in findings(committed(study, scores), study.truths, scores=scores):
            cells = [figure(v) for v in (one.noise.mean, one.noise.of_method, one.noise.of_difference)]
            agreed = [agreement_cell(one.truth.get(truth)) for truth in truths]
            line = [f"`{one.score}`", study.title, *cells, seeds_cell(one.noise), *agreed, apart(one.rise.whole)]
            lines.setdefault(one.score, []).append([*line, one.word])
    return markdown(head, [line for group in lines.values() for line in group])


def seeds_cell(noise: Noise) -> str:
    """Return the seeds that the difference takes; a star where it is .02 of the mean."""
    if not math.isfinite(noise.of_difference):
        return NONE
    star = "" if noise.difference == 0.02 else "*"
    return ("3" if noise.of_difference == 0 else "> 1,000" if noise.seeds is None else str(noise.seeds)) + star


def agreement_cell(found: Agreement | None) -> str:
    """Return a correlation with its interval."""
    if found is None or not math.isfinite(found.rho):
        return NONE
    return short(f"{found.rho:+.2f} [{found.low:+.2f}, {found.high:+.2f}]")


def damage_cell(found: Change) -> str:
    """Return a change in standard deviations: bold where it fools the score, a dot where the score is blind to it."""
    shown = {"seen": apart, "fooled": lambda size: f"**{apart(size)}**", "blind": lambda _: "·"}
    return shown[found.word](found.size) if found.word in shown else NONE


def apart(size: float) -> str:
    """Return a separation in standard deviations."""
    if math.isnan(size):
        return NONE
    return signed_minus("∞" if size > 0 else "-∞") if math.isinf(size) else signed_minus(f"{size:+.{places(size)}f}")


def places(size: float) -> int:
    """Return the decimals of a separation."""
    return 1 if abs(size) < 10 else 0


def renewed(page: str, parts: Sequence[str]) -> str:
    """Return the page with other tables between its two marks. Raises ValueError for a page without them."""
    if BEGIN not in page or END not in page:
        raise ValueError(f"the page has no place for tables: put {BEGIN!r} and {END!r} into it, each on a line")
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    return before + "\n\n".join([BEGIN, *parts, END]) + after
