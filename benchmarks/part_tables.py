"""Rows of the parts of `make bench` as tables: terms that look through layers, reading a model, evals."""

from collections.abc import Sequence

from benchmarks.bench_tables import Row, markdown, ranged

TERMS = ("effect", "interaction", "hinge", "all")


def slices(rows: Sequence[Row]) -> str:
    """What terms add to a step when they are due, in milliseconds; the mean step with all three over a plain one, and
    over one that harvests its rows as well."""
    own = {(row["run"], row["bench"], row["who"]): row for row in rows if row["regime"] == "slice"}
    models = dict.fromkeys(key[1] for key in own)
    head = ("", "plain step, ms", "harvest", *TERMS, "of a plain step", "of step and harvest")
    lines = []
    for model in models:
        runs = sorted({run for run, bench, _ in own if bench == model})
        seconds = lambda who, model=model, runs=runs: [own[run, model, who]["cpu_seconds"] for run in runs]
        added = [one / own[runs[0], model, "all"]["every"] for one in seconds("all")]
        plain, harvest = seconds("plain"), seconds("harvest")
        of_plain = [1 + more / step for more, step in zip(added, plain, strict=True)]
        of_both = [1 + more / (step + read) for more, step, read in zip(added, plain, harvest, strict=True)]
        times = [ranged([1000 * one for one in seconds(who)]) for who in ("plain", "harvest", *TERMS)]
        lines.append([model, *times, ranged(of_plain), ranged(of_both)])
    return markdown(head, lines)


def reading(rows: Sequence[Row]) -> str:
    """Tokens a core-second, by precision and way of reading, and those of ours over transformers' own pass before."""
    own = {(row["run"], row["bench"], row["who"]): row for row in rows if row["regime"] == "harvest"}
    runs, precisions = sorted({key[0] for key in own}), dict.fromkeys(key[1] for key in own)
    ways = list(dict.fromkeys(key[2] for key in own))
    tokens = lambda precision, way: [own[run, precision, way]["tokens_per_second"] for run in runs]
    lines = []
    for precision in precisions:
        cells = []
        for plain, ours in zip(ways[::2], ways[1::2], strict=True):
            before, now = tokens(precision, plain), tokens(precision, ours)
            share = [one / other for one, other in zip(now, before, strict=True)]
            cells += [ranged(before), ranged(now), ranged(share)]
        lines.append([precision, *cells])
    pairs = zip(ways[::2], ways[1::2], strict=True)
    head = ["", *(cell for plain, ours in pairs for cell in (f"transformers, {plain}", ours, "ratio"))]
    return markdown(head, lines)


def scoring(rows: Sequence[Row]) -> str:
    """Core-seconds of each eval on the first run of a source, which pays for what all share, and on later ones."""
    own = {(row["run"], row["bench"], row["who"], row["place"]): row for row in rows if row["regime"] == "evals"}
    runs = sorted({key[0] for key in own})
    columns = [(source, place) for source in dict.fromkeys(key[1] for key in own) for place in ("first", "later")]
    taken = lambda name, source, place: ranged(
        [own[run, source, name, place]["cpu_seconds"] for run in runs if (run, source, name, place) in own]
    )
    names = sorted(dict.fromkeys(key[2] for key in own), key=lambda name: name == "all")  # the sum last
    lines = [[name, *(taken(name, *column) for column in columns)] for name in names]
    return markdown(["", *(f"{source}, {place}" for source, place in columns)], lines)


TABLES = {"slice": slices, "harvest": reading, "evals": scoring}


def text(rows: Sequence[Row]) -> str:
    """All tables of parts that have rows."""
    found = {row["regime"] for row in rows}
    return "\n\n".join(f"{name}\n{table(rows)}" for name, table in TABLES.items() if name in found)
