"""From runs of the objectives studies to rows, a table, and a word on each prediction of docs/log.md.

    python -m benchmarks.judge collect runs/objectives* --out docs/results/objectives.json
    python -m benchmarks.judge table docs/results/objectives.json --world forest --d-sae 384 --l0 4
    python -m benchmarks.judge predictions docs/results/objectives.json

A prediction is about a paired difference from plain BatchTopK, of the same L0, width and seed: *held* when the whole
95 % t-interval lies in the predicted range, *refuted* when none of it does, *undecided* else, *void* when the run has
fewer than 95 % of BatchTopK's living latents or of its |x_hat| / |x|.
"""

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unbraid.files import read_json, write_text
from unbraid.report.intervals import t_interval
from unbraid.report.rows import split_name

SCORES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "fvu": ("fidelity", "fvu", {}),
    "l0": ("fidelity", "l0", {}),
    "alive": ("fidelity", "alive", {}),
    "l2_ratio": ("fidelity", "l2_ratio", {}),
    "cosine": ("fidelity", "max_decoder_cosine", {}),
    "mcc": ("recovery", "mcc", {"kind": "measured"}),
    "f1": ("recovery", "f1", {"kind": "measured"}),
    "f1_latents": ("recovery", "f1_latents", {"kind": "measured"}),
    "absorption": ("absorption", "absorption_full", {}),
    "recall_child": ("absorption", "parent_recall_given_child", {"kind": "measured"}),
    "recall_alone": ("absorption", "parent_recall_alone", {}),
    "latents_per_factor": ("splitting", "latents_per_factor", {}),
    "represented": ("splitting", "represented", {"kind": "measured"}),
    "infom": ("disentanglement", "infom", {"kind": "measured"}),
    "mig": ("disentanglement", "mig", {"kind": "measured"}),
    "isolation": ("controllability", "isolation", {"kind": "measured"}),
    "modularity": ("controllability", "modularity", {"kind": "measured"}),
    "overlap": ("controllability", "overlap", {"kind": "measured"}),
    "interaction": ("controllability", "interaction", {"kind": "measured"}),
    "products": ("memorisation", "product_latents", {}),
    "interchange": ("interchange", "interchange", {"directions": "latents", "error": "kept", "n": 4}),
    "loss_recovered": ("fidelity", "loss_recovered", {"against": "mean"}),
}
SHOWN = (
    "l0", "fvu", "mcc", "f1", "absorption", "recall_child", "latents_per_factor", "infom", "isolation", "overlap",
    "alive",
)  # fmt: skip
BASELINE = "batchtopk"
FLAT = 0.02
"""Slope of latents per factor below which there is no splitting to change."""
WORLDS = {8: "memorisation", 96: "forest"}


def collect(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """One row a finished run, the scores of `SCORES` by short name."""
    rows = []
    for folder in folders:
        if not (folder / "provenance.json").is_file():
            continue
        experiment = read_json(folder / "experiment.json")
        method, l0 = split_name(experiment["name"])
        source = experiment["source"]
        world = "language" if "model" in source else WORLDS[source["factors"]]
        row = {
            "world": "twin" if source.get("independent") else world, "method": method, "asked": finite(l0),
            "d_sae": read_json(folder / "cfg.json")["d_sae"], "seed": experiment["seed"],
            "control": bool(experiment.get("control")),
        }  # fmt: skip
        rows.append(row | scores_of(folder))
    return sorted(rows, key=lambda r: json.dumps([r["world"], r["d_sae"], r["asked"] or 0, r["method"], r["seed"]]))


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def scores_of(folder: Path) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, (eval_name, metric, params) in SCORES.items():
        path = folder / "results" / f"{eval_name}.json"
        for score in read_json(path).get("scores", []) if path.is_file() else []:
            own = score["metric"] == metric and all(score["params"].get(k) == v for k, v in params.items())
            if own and "size" not in score["params"] and name not in found:
                value = score["value"]
                found[name] = value if value is None else float(f"{value:.5g}")
    return found


Row = dict[str, Any]


def chosen(rows: Sequence[Row], **where: Any) -> list[Row]:
    return [row for row in rows if all(row[key] == value for key, value in where.items())]


def by_seed(rows: Sequence[Row], score: str) -> dict[int, float]:
    return {row["seed"]: row[score] for row in rows if row.get(score) is not None}


def less(own: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    """Differences of the seeds that both have."""
    return [own[seed] - other[seed] for seed in sorted(own.keys() & other.keys())]


def mean(values: Mapping[int, float]) -> float:
    return statistics.fmean(values.values()) if values else math.nan


# ---- the table


def table(rows: Sequence[Row], world: str, d_sae: int, l0: float) -> str:
    here = chosen(rows, world=world, d_sae=d_sae, asked=l0)
    here += [row for row in chosen(rows, world=world) if row["method"] in ("truth", "probes")]
    lines = ["| | " + " | ".join(SHOWN) + " |", "|---" * (len(SHOWN) + 1) + "|"]
    for control, method in sorted({(row["control"], row["method"]) for row in here}):
        own = chosen(here, method=method)
        name = f"*{method}*" if control else method
        lines.append(f"| {name} | " + " | ".join(cell(by_seed(own, score)) for score in SHOWN) + " |")
    return "\n".join(lines)


def cell(values: Mapping[int, float]) -> str:
    spread = f" ± {statistics.stdev(values.values()):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{spread}".replace("0.", ".") if values else ""


# ---- predictions


def paired(
    rows: Sequence[Row], method: str, score: str, *, against: str = BASELINE, **where: Any
) -> tuple[list[float], float]:
    """Differences by seed, and the other's mean."""
    own, other = (by_seed(chosen(rows, method=m, **where), score) for m in (method, against))
    return less(own, other), mean(other)


def word(differences: Sequence[float], low: float, high: float) -> str:
    """Of a predicted range."""
    if len(differences) < 2:
        return "not measured"
    interval = t_interval(list(differences))
    a, b = interval.mean - interval.half, interval.mean + interval.half
    verdict = "held" if low <= a and b <= high else "refuted" if b < low or a > high else "undecided"
    return f"{verdict} ({interval.mean:+.3f} [{a:+.3f}, {b:+.3f}])"


def slopes(rows: Sequence[Row], method: str) -> dict[int, float]:
    """Of latents per factor on log2 width, by seed, at the true L0 of the forest."""
    here = chosen(rows, world="forest", asked=4, method=method)
    found = {}
    for seed in {row["seed"] for row in here}:
        points = {row["d_sae"]: row.get("latents_per_factor") for row in chosen(here, seed=seed)}
        known = {math.log2(d): y for d, y in points.items() if y is not None}
        if len(known) > 1:
            found[seed] = statistics.linear_regression(list(known), list(known.values())).slope
    return found


def relative(rows: Sequence[Row], method: str, score: str, low: float, high: float, **where: Any) -> str:
    """A predicted range in shares of the baseline's mean."""
    differences, base = paired(rows, method, score, **where)
    return f"{word([d / base for d in differences], low, high)} of {base:.3f}" if base else "baseline is 0"


def slope_change(rows: Sequence[Row], method: str, low: float, high: float) -> str:
    own, base = (slopes(rows, m) for m in (method, BASELINE))
    if abs(mean(base)) < FLAT:
        return f"not judged: {BASELINE} itself does not split ({mean(base):+.3f} latents a factor and doubling)"
    return f"{word([d / mean(base) for d in less(own, base)], low, high)} of {mean(base):.3f} a doubling"


def guard(rows: Sequence[Row], method: str, **where: Any) -> str:
    for score, keeps in (("alive", 0.95), ("l2_ratio", 0.95)):
        differences, base = paired(rows, method, score, **where)
        if differences and base + sum(differences) / len(differences) < keeps * base:
            return f"VOID: {score} {base + sum(differences) / len(differences):.3f} against {base:.3f}; "
    return ""


def predictions(rows: Sequence[Row]) -> list[str]:
    far, at = math.inf, {"world": "forest", "d_sae": 384, "asked": 4}

    def absolute(method: str, score: str, low: float, high: float, **other: Any) -> str:
        return word(paired(rows, method, score, **(at | other))[0], low, high)

    def line(number: str, method: str, *parts: tuple[str, str]) -> str:
        return f"{number} {method}: {guard(rows, method, **at)}" + "; ".join(f"{what} {found}" for what, found in parts)

    share = lambda method, score, low, high: relative(rows, method, score, low, high, **at)
    found = [
        line("1", "orthogonality", ("S", slope_change(rows, "orthogonality", -far, -0.3)),
             ("absorption", share("orthogonality", "absorption", -far, -0.4)),
             ("recall", absolute("orthogonality", "recall_child", 0.1, far))),
        line("2", "c2r-sum", ("absorption", share("c2r-sum", "absorption", -far, -0.3))),
        line("2", "c2r-coactivation", ("absorption", share("c2r-coactivation", "absorption", -0.1, 0.1))),
        line("3", "correlation", ("S", slope_change(rows, "correlation", -0.1, 0.1)),
             ("absorption", share("correlation", "absorption", 0.2, far)),
             ("recall", absolute("correlation", "recall_child", -far, 0)),
             ("FVU", absolute("correlation", "fvu", -far, 0.01))),
        line("4", "hsic", ("absorption", share("hsic", "absorption", 0.2, far)),
             ("against correlation", word(paired(rows, "hsic", "absorption", against="correlation", **at)[0], 0, far))),
        line("5", "support", ("S", slope_change(rows, "support", -0.2, -0.05)),
             ("absorption", share("support", "absorption", -0.1, 0.1))),
        line("6", "functional", ("S", slope_change(rows, "functional", -far, -0.2)),
             ("absorption", share("functional", "absorption", -far, -0.2)),
             ("isolation", absolute("functional", "isolation", 0.03, far))),
        line("6", "functional-apart", ("S", slope_change(rows, "functional-apart", -0.1, 0.1))),
        line("7", "gate-kl", ("latents per factor", share("gate-kl", "latents_per_factor", -far, -0.1)),
             ("absorption", share("gate-kl", "absorption", 0.1, far)),
             ("alive", absolute("gate-kl", "alive", -far, -1e-9))),
    ]  # fmt: skip
    spoken = {"world": "language", "d_sae": 512, "asked": 8}
    found += [
        f"8 {method}: {guard(rows, method, **spoken)}"
        f"absorption {relative(rows, method, 'absorption', -0.1, 0.1, **spoken)}; "
        f"latents per factor lower {relative(rows, method, 'latents_per_factor', -far, 0, **spoken)}"
        for method in ("temporal", "temporal-nested")
    ]
    return found + decisive(rows, at)


def decisive(rows: Sequence[Row], at: dict[str, Any]) -> list[str]:
    def family(methods: Sequence[str], score: str, **where: Any) -> list[float]:
        each = [paired(rows, m, score, **where)[0] for m in methods]
        return [sum(found) / len(found) for found in zip(*each, strict=False)]

    lower, higher = ("orthogonality", "c2r-sum", "functional"), ("correlation", "hsic", "gate-kl")
    found = [
        f"a geometry and mechanism: absorption {word(family(lower, 'absorption', **at), -math.inf, 0)}; "
        f"independence and capacity {word(family(higher, 'absorption', **at), 0, math.inf)}"
    ]
    wide = {"world": "memorisation", "d_sae": 256}
    for method, low, high in (
        ("correlation", -0.1, 0.1), ("hsic", -0.1, 0.1),
        ("orthogonality", -math.inf, -0.3), ("functional", -math.inf, -0.3),
    ):  # fmt: skip
        said = [f"L0 {l0}: {relative(rows, method, 'products', low, high, asked=l0, **wide)}" for l0 in (2, 4)]
        found.append(f"b {method}: product latents {'; '.join(said)}")
    for method in ("correlation", "hsic"):
        twin = word(paired(rows, method, "mcc", **(at | {"world": "twin"}))[0], 0, math.inf)
        forest = word(paired(rows, method, "mcc", **at)[0], -math.inf, 0)
        found.append(f"c {method}: MCC on the twin not lower {twin}; on the forest lower {forest}")
    return [*found, *beaten(rows, at)]


def beaten(rows: Sequence[Row], at: Mapping[str, Any]) -> list[str]:
    """Methods at twice the L0 that beat Matryoshka and masked regularisation at the true L0 on both scores."""
    here = chosen(rows, world=at["world"], d_sae=at["d_sae"])
    names = sorted({row["method"] for row in here if not row["control"]} - {"topk", "matryoshka"})

    def differences(method: str, other: str, score: str) -> list[float]:
        own, base = (by_seed(chosen(here, method=m, asked=l0), score) for m, l0 in ((method, 8), (other, 4)))
        return less(own, base)

    def wins(method: str) -> bool:
        others = ("matryoshka", "masked")
        gains = [differences(method, o, score) for o in others for score in ("recall_child", "isolation")]
        losses = [differences(method, o, "fvu") for o in others]
        return all(surely_higher(g) for g in gains) and all(f and statistics.fmean(f) <= 0.02 for f in losses)

    winners = [name for name in names if wins(name)]
    return [f"d beat Matryoshka and masked at twice their L0: {', '.join(winners) or 'none'}"]


def surely_higher(differences: Sequence[float]) -> bool:
    interval = t_interval(list(differences))
    return len(differences) > 2 and interval.mean - interval.half > 0


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("collect")
    made.add_argument("folders", nargs="+", type=Path)
    made.add_argument("--out", type=Path, required=True)
    shown = commands.add_parser("table")
    shown.add_argument("rows", type=Path)
    shown.add_argument("--world", default="forest")
    shown.add_argument("--d-sae", type=int, default=384)
    shown.add_argument("--l0", type=float, default=4)
    commands.add_parser("predictions").add_argument("rows", type=Path)
    options = parser.parse_args(argv)
    if options.command == "collect":
        runs = [run for folder in options.folders for run in sorted(folder.iterdir()) if run.is_dir()]
        rows = collect(runs)
        write_text(options.out, "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
        print(f"{len(rows)} rows in {options.out}")
        return
    rows = json.loads(options.rows.read_text())
    shown = options.command == "table"
    print(table(rows, options.world, options.d_sae, options.l0) if shown else "\n".join(predictions(rows)))


if __name__ == "__main__":
    main()
