"""Trials as docs/reliability.md: a table a kind, a row a group, and every trial that did not end as promised."""

from collections import Counter
from collections.abc import Mapping, Sequence

from benchmarks.reliability.trial import Trial

TITLES: Mapping[str, str] = {
    "kills": "Kills",
    "bad input": "Bad input",
    "mutations": "Damaged run folders",
    "attacks": "Attacks",
}
PROMISES: Mapping[str, str] = {
    "kills": "Training and commands are killed at random moments or at a file operation, once or several times in a "
    "row, and run again. Promised: the weights, settings and logs of a run that nobody killed, bit for bit; no "
    "finished file changes; nothing is left behind.",
    "bad input": "What cannot be is given to every subcommand and public function. Promised: one sentence with a "
    "remedy, exit code 2 (1 where other work went on), no traceback, no silent acceptance, nothing written or lost.",
    "mutations": "One file of a finished run is changed, cut short, replaced, or made a link or a pipe; then the run "
    "is opened, scored and reported. Promised: a sentence that names the file, or exactly the weights there were; "
    "changed weights are never scored.",
    "attacks": "A stranger's folder tries to run code, to write elsewhere, to reach the terminal or the page, or to "
    "fill the memory. Promised: nothing of it happens.",
}


def page(trials: Sequence[Trial], facts: Mapping[str, str]) -> str:
    """The whole document."""
    lines = [
        "# Reliability: what was tried, and how it ended",
        "",
        "Written by `make reliability`, which tries all of it again; the rows are in `docs/results/reliability.json`. "
        "A short form of each table runs in the test suite. "
        + "; ".join(f"{name}: {value}" for name, value in facts.items())
        + ".",
        "",
        *overview(trials),
    ]
    for kind, title in TITLES.items():
        own = [trial for trial in trials if trial.kind == kind]
        if own:
            lines += ["", f"## {title}", "", PROMISES[kind], "", *table(own), *failures(own)]
    return "\n".join(lines) + "\n"


def overview(trials: Sequence[Trial]) -> list[str]:
    lines = ["| | tried | as promised | not |", "|---|---|---|---|"]
    for kind, title in TITLES.items():
        own = [trial for trial in trials if trial.kind == kind]
        good = sum(trial.good for trial in own)
        lines.append(f"| {title} | {len(own)} | {good} | {len(own) - good} |")
    return lines


def table(own: Sequence[Trial]) -> list[str]:
    lines = ["| | tried | as promised | how they ended |", "|---|---|---|---|"]
    for group in dict.fromkeys(trial.group for trial in own):
        rows = [trial for trial in own if trial.group == group]
        ends = Counter(trial.outcome for trial in rows if trial.good)
        words = ", ".join(f"{outcome} {count}" for outcome, count in sorted(ends.items()))
        lines.append(f"| {cell(group)} | {len(rows)} | {sum(trial.good for trial in rows)} | {cell(words)} |")
    return lines


def failures(own: Sequence[Trial]) -> list[str]:
    bad = [trial for trial in own if not trial.good]
    return (
        ["", "Not as promised:", "", *(f"- {cell(t.group)}: {cell(t.case)}: {cell(t.outcome)}" for t in bad)]
        if bad
        else []
    )


def cell(text: str) -> str:
    """Text that cannot break a Markdown table."""
    plain = text.encode("unicode_escape").decode("ascii").replace("\\\\", "\\")
    return plain.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")[:300]
