"""From runs of the objectives studies to rows, a table, and a word on each prediction of docs/log.md.

    python -m benchmarks.judge collect runs/objectives* --out docs/results/objectives.json
    python -m benchmarks.judge table docs/results/objectives.json --world forest --d-sae 384 --l0 4
    python -m benchmarks.judge differences docs/results/causal.json --l0 4 --scores fvu mcc effect
    python -m benchmarks.judge predictions docs/results/objectives.json

A prediction is about a paired difference from plain BatchTopK, of the same L0, width and seed: *held* when the whole
95 % t-interval lies in the predicted range, *refuted* when none of it does, *undecided* else, and VOID stands before it
when the method breaks one of the report's guards there.
"""

import argparse
import json
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unbraid.comparison.guards import GUARDS, PARENTS
from unbraid.comparison.intervals import FEWEST_SEEDS, t_interval
from unbraid.config.old_names import upgraded, upgraded_score
from unbraid.experiment.summary import requested_l0
from unbraid.system.files import read_json, write_text

SCORES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "fvu": ("fidelity", "fvu", {}),
    "l0": ("fidelity", "l0", {}),
    "alive": ("fidelity", "alive", {}),
    "l2_ratio": ("fidelity", "l2_ratio", {}),
    "cosine": ("fidelity", "max_decoder_cosine", {}),
    "mcc": ("recovery", "mcc", {}),
    "f1": ("recovery", "f1", {}),
    "f1_latents": ("recovery", "f1_latents", {}),
    "absorption": ("absorption", "absorption_full", {}),
    "recall_child": ("absorption", "parent_recall_given_child", {}),
    "recall_rarest": ("recovery", "recall_by_frequency", {}),
    "recall_alone": ("absorption", "parent_recall_alone", {}),
    "latents_per_factor": ("splitting", "latents_per_factor", {}),
    "represented": ("splitting", "represented", {}),
    "infom": ("disentanglement", "infom", {}),
    "mig": ("disentanglement", "mig", {}),
    "isolation": ("controllability", "isolation", {}),
    "modularity": ("controllability", "modularity", {}),
    "overlap": ("controllability", "overlap", {}),
    "interaction": ("controllability", "interaction", {}),
    "effect": ("controllability", "effect", {}),
    "hit": ("controllability", "hit", {}),
    "atom_overlap": ("controllability", "atom_overlap", {}),
    "additive_r2": ("controllability", "additive_r2", {}),
    "context_ceiling": ("controllability", "context_ceiling", {}),
    "pw_mcc": ("agreement", "pw_mcc", {}),
    "products": ("memorisation", "product_latents", {}),
    "interchange": ("interchange", "interchange", {"directions": "latents", "error": "kept", "n": 4}),
    "loss_recovered": ("fidelity", "loss_recovered", {"against": "mean"}),
    "bits": ("description_length", "bits_per_token", {}),
    "ce_loss_score": ("saebench_core", "ce_loss_score", {}),
    "ev_reported": ("saebench_core", "explained_variance_reported", {}),
    "probe_k1": ("saebench_sparse_probing", "probe_accuracy", {"k": 1.0, "reads": "latents"}),
    "probe_k5": ("saebench_sparse_probing", "probe_accuracy", {"k": 5.0, "reads": "latents"}),
    "meta": ("saebench_meta_structure", "decoder_variance_explained", {}),
    "tpp": ("saebench_tpp", "tpp", {"n": 20.0}),
    "scr": ("saebench_scr", "scr", {"n": 20.0}),
}
SHOWN = (
    "l0", "fvu", "mcc", "f1", "absorption", "recall_child", "latents_per_factor", "infom", "isolation", "overlap",
    "alive",
)  # fmt: skip
BASELINE = "batchtopk"
STANDARD = (BASELINE, "topk", "matryoshka", "jumprelu", "mdl")
GUARDED = {"alive": "alive", "l2_ratio": "l2_ratio", "recall_by_frequency": "recall_rarest"}
"""What the report's guards read, by the names used here."""
FLAT = 0.02
"""Slope of latents per factor below which there is no splitting to change."""
WORLDS = {8: "memorisation", 32: "directions", 96: "forest"}


def collect(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """One row a finished run, the scores of `SCORES` by short name."""
    rows = []
    for folder in folders:
        if not (folder / "provenance.json").is_file():
            continue
        experiment = upgraded(read_json(folder / "experiment.json"))
        method, l0 = experiment["name"], requested_l0(experiment)
        source = experiment["source"]
        world = model_name(source["model"]) if "model" in source else WORLDS[source["factors"]]
        row = {
            "world": "twin" if source.get("independent") else world, "method": method, "asked": finite(l0),
            "d_sae": read_json(folder / "cfg.json")["d_sae"], "seed": experiment["seed"],
            "control": bool(experiment.get("control")),
        }  # fmt: skip
        rows.append(row | scores_of(folder))
    return sorted(rows, key=lambda r: json.dumps([r["world"], r["d_sae"], r["asked"] or 0, r["method"], r["seed"]]))


def model_name(model: str) -> str:
    """The embedded model's text is the synthetic language; others go by their folder or name."""
    return "language" if model == "embedded" else Path(model).name


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def scores_of(folder: Path) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, (eval_name, metric, params) in SCORES.items():
        path = folder / "results" / f"{eval_name}.json"
        scores = read_json(path).get("scores", []) if path.is_file() else []
        scores = [s for s in map(upgraded_score, scores) if s["kind"] == "measured"]
        own = [s for s in scores if s["metric"] == metric and all(s["params"].get(k) == v for k, v in params.items())]
        # Of a score by frequency, the rarest band: they are named 1e-1 to 1e0, 1e-2 to 1e-1, …
        own = sorted((s for s in own if "size" not in s["params"]), key=lambda s: s["params"].get("band", ""))
        if own:
            value = own[-1]["value"]
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


def shown_rows(rows: Sequence[Row], world: str, d_sae: int, l0: float) -> list[Row]:
    """At a width and an L0, ceilings beside them."""
    ceilings = [row for row in chosen(rows, world=world) if row["method"] in ("truth", "probes")]
    return chosen(rows, world=world, d_sae=d_sae, asked=l0) + ceilings


def table(rows: Sequence[Row], scores: Sequence[str] = SHOWN) -> str:
    """Means and standard deviations over seeds."""
    return lined(rows, scores, lambda method, score: cell(by_seed(chosen(rows, method=method), score)))


def differences(rows: Sequence[Row], scores: Sequence[str]) -> str:
    """From plain BatchTopK of the same seed, with 95 % t-intervals; bold where 0 is outside. Of many cells some are
    bold by luck. Empty with too few seeds for an interval."""

    def entry(method: str, score: str) -> str:
        gains, baseline = paired(rows, method, score)
        if method == BASELINE:
            return trimmed(f"{baseline:.3f}")
        if len(gains) < FEWEST_SEEDS:
            return ""
        found = t_interval(gains)
        text = trimmed(f"{found.mean:+.3f} ± {found.half:.3f}")
        return f"**{text}**" if abs(found.mean) > found.half else text

    return lined(rows, scores, entry)


def lined(rows: Sequence[Row], scores: Sequence[str], entry: Callable[[str, str], str]) -> str:
    """Methods, then controls in italics, by score."""
    lines = ["| | " + " | ".join(scores) + " |", "|---" * (len(scores) + 1) + "|"]
    for control, method in sorted({(row["control"], row["method"]) for row in rows}):
        name = f"*{method}*" if control else method
        lines.append(f"| {name} | " + " | ".join(entry(method, score) for score in scores) + " |")
    return "\n".join(lines)


def cell(values: Mapping[int, float]) -> str:
    spread = f" ± {statistics.stdev(values.values()):.3f}" if len(values) > 1 else ""
    return trimmed(f"{mean(values):.3f}{spread}") if values else ""


def trimmed(text: str) -> str:
    return re.sub(r"\b0\.", ".", text)


# ---- predictions


def paired(
    rows: Sequence[Row], method: str, score: str, *, against: str = BASELINE, **where: Any
) -> tuple[list[float], float]:
    """Differences by seed, and the other's mean."""
    own, other = (by_seed(chosen(rows, method=m, **where), score) for m in (method, against))
    return less(own, other), mean(other)


def word(differences: Sequence[float], low: float, high: float) -> str:
    """Of a predicted range."""
    if len(differences) < FEWEST_SEEDS:
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
    if not base or math.isnan(base):
        return "not measured"
    return f"{word([d / base for d in differences], low, high)} of {base:.3f}"


def slope_change(rows: Sequence[Row], method: str, low: float, high: float) -> str:
    own, base = (slopes(rows, m) for m in (method, BASELINE))
    if not base:
        return "not measured"
    if abs(mean(base)) < FLAT:
        return f"not judged: {BASELINE} itself does not split ({mean(base):+.3f} latents a factor and doubling)"
    return f"{word([d / mean(base) for d in less(own, base)], low, high)} of {mean(base):.3f} a doubling"


def guard(rows: Sequence[Row], method: str, **where: Any) -> str:
    """The report's guards, against BatchTopK at the same point."""
    for each in GUARDS:
        differences, base = paired(rows, method, GUARDED[each.metric], **where)
        if differences and each.broken(own := base + statistics.fmean(differences), base):
            return f"VOID, {each.says} {own:.3f} against {base:.3f}; "
    return ""


def lowered(rows: Sequence[Row], method: str, share: float, **where: Any) -> str:
    """Absorption down by a share; void when parents are not found more often beside their children."""
    found = relative(rows, method, "absorption", -math.inf, -share, **where)
    recall, _ = paired(rows, method, "recall_child", **where)
    gamed = found.startswith("held") and bool(recall) and statistics.fmean(recall) <= 0
    return f"VOID, {PARENTS.says} {statistics.fmean(recall):+.3f}, {found}" if gamed else found


def predictions(rows: Sequence[Row]) -> list[str]:
    far, at = math.inf, {"world": "forest", "d_sae": 384, "asked": 4}

    def absolute(method: str, score: str, low: float, high: float) -> str:
        return word(paired(rows, method, score, **at)[0], low, high)

    def line(number: str, method: str, *parts: tuple[str, str]) -> str:
        return f"{number} {method}: {guard(rows, method, **at)}" + "; ".join(f"{what} {found}" for what, found in parts)

    share = lambda method, score, low, high: relative(rows, method, score, low, high, **at)
    beside = lambda method, other, low, high: relative(rows, method, "absorption", low, high, against=other, **at)
    found = [
        line("1", "orthogonality", ("S", slope_change(rows, "orthogonality", -far, -0.3)),
             ("absorption", lowered(rows, "orthogonality", 0.4, **at)),
             ("recall", absolute("orthogonality", "recall_child", 0.1, far))),
        line("2", "c2r-sum", ("absorption", lowered(rows, "c2r-sum", 0.3, **at)),
             ("beside orthogonality", beside("c2r-sum", "orthogonality", -0.1, 0.1))),
        line("2", "c2r-coactivation", ("absorption", share("c2r-coactivation", "absorption", -0.1, 0.1))),
        line("3", "correlation", ("S", slope_change(rows, "correlation", -0.1, 0.1)),
             ("absorption", share("correlation", "absorption", 0.2, far)),
             ("recall", absolute("correlation", "recall_child", -far, 0)),
             ("FVU", absolute("correlation", "fvu", -far, 0.01))),
        line("4", "hsic", ("absorption", share("hsic", "absorption", 0, far)),
             ("beside correlation", beside("hsic", "correlation", 0, far))),
        line("5", "support", ("S", slope_change(rows, "support", -0.2, -0.05)),
             ("absorption", share("support", "absorption", -0.1, 0.1))),
        line("6", "functional", ("S", slope_change(rows, "functional", -far, -0.2)),
             ("absorption", lowered(rows, "functional", 0.2, **at)),
             ("isolation", absolute("functional", "isolation", 0.03, far)),
             ("largest gain of isolation", largest_gain(rows, "isolation", **at))),
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
    return [*found, families(rows, at), *memorised(rows), *flipped(rows, at), beaten(rows, at)]


def contenders(rows: Sequence[Row], **where: Any) -> list[str]:
    return sorted({r["method"] for r in chosen(rows, **where) if not r["control"]} - set(STANDARD))


def largest_gain(rows: Sequence[Row], score: str, **where: Any) -> str:
    gains = {m: paired(rows, m, score, **where)[0] for m in contenders(rows, **where)}
    known = {m: statistics.fmean(gain) for m, gain in gains.items() if gain}
    best = max(known, key=lambda m: known[m], default="")
    return f"is {best}'s ({known[best]:+.3f})" if best else "not measured"


def families(rows: Sequence[Row], at: Mapping[str, Any]) -> str:
    """Refuted when both family means have one sign; held when each interval is on its side."""

    def family(methods: Sequence[str]) -> list[float]:
        each = [paired(rows, m, "absorption", **at)[0] for m in methods]
        return [statistics.fmean(found) for found in zip(*each, strict=False)]

    lower, higher = family(("orthogonality", "c2r-sum", "functional")), family(("correlation", "hsic", "gate-kl"))
    if min(len(lower), len(higher)) < FEWEST_SEEDS:
        return "a families: not measured"
    words = word(lower, -math.inf, 0), word(higher, 0, math.inf)
    sides = statistics.fmean(lower) * statistics.fmean(higher) < 0
    verdict = "refuted" if not sides else "held" if all(w.startswith("held") for w in words) else "undecided"
    return f"a {verdict}: absorption, geometry and mechanism {words[0]}; independence and capacity {words[1]}"


def memorised(rows: Sequence[Row]) -> list[str]:
    """With the share of living latents that are products: a count falls with every latent that dies."""
    found = []
    for method, low, high in (
        ("correlation", -0.1, 0.1), ("hsic", -0.1, 0.1),
        ("orthogonality", -math.inf, -0.3), ("functional", -math.inf, -0.3),
    ):  # fmt: skip
        said = []
        for l0 in (2, 4):
            at = {"world": "memorisation", "d_sae": 256, "asked": l0}
            count = relative(rows, method, "products", low, high, **at)
            said.append(
                f"L0 {l0}: {guard(rows, method, **at)}{count}, {product_share(chosen(rows, method=method, **at))}"
            )
        found.append(f"b {method}: product latents {'; '.join(said)}")
    return found


def product_share(rows: Sequence[Row]) -> str:
    """Of living latents, the mean over runs."""
    known = [r["products"] / (r["alive"] * r["d_sae"]) for r in rows if r.get("products") is not None and r["alive"]]
    return f"{statistics.fmean(known):.0%} of the living" if known else "not measured"


def flipped(rows: Sequence[Row], at: Mapping[str, Any]) -> list[str]:
    found = []
    for method in ("correlation", "hsic"):
        twin = dict(at) | {"world": "twin"}
        on_twin = word(paired(rows, method, "mcc", **twin)[0], 0, math.inf)
        on_forest = word(paired(rows, method, "mcc", **at)[0], -math.inf, 0)
        said = f"{guard(rows, method, **twin)}{on_twin}; on the forest lower {guard(rows, method, **at)}{on_forest}"
        found.append(f"c {method}: MCC on the twin not lower {said}")
    return found


def beaten(rows: Sequence[Row], at: Mapping[str, Any]) -> str:
    """Terms at twice the L0 that beat Matryoshka and masked regularisation at the true L0 on both scores."""
    here = chosen(rows, world=at["world"], d_sae=at["d_sae"])
    wide = dict(at) | {"asked": 2 * at["asked"]}

    def differences(method: str, other: str, score: str) -> list[float]:
        own, base = (by_seed(chosen(here, method=m, asked=l0), score) for m, l0 in ((method, 8), (other, 4)))
        return less(own, base)

    def wins(method: str) -> bool:
        others = ("matryoshka", "masked")
        gains = [differences(method, o, score) for o in others for score in ("recall_child", "isolation")]
        losses = [differences(method, o, "fvu") for o in others]
        enough = all(surely_higher(g) for g in gains) and all(f and statistics.fmean(f) <= 0.02 for f in losses)
        return enough and not guard(rows, method, **wide)

    winners = [name for name in contenders(rows, **wide) if wins(name)]
    return f"d beat Matryoshka and masked at twice their L0: {', '.join(winners) or 'none'}"


def surely_higher(differences: Sequence[float]) -> bool:
    interval = t_interval(list(differences))
    return len(differences) >= FEWEST_SEEDS and interval.mean - interval.half > 0


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("collect")
    made.add_argument("folders", nargs="+", type=Path)
    made.add_argument("--out", type=Path, required=True)
    for name in ("table", "differences"):
        shown = commands.add_parser(name)
        shown.add_argument("rows", type=Path)
        shown.add_argument("--world", default="forest")
        shown.add_argument("--d-sae", type=int, default=384)
        shown.add_argument("--l0", type=float, default=4)
        shown.add_argument("--scores", nargs="+", default=list(SHOWN), choices=list(SCORES), metavar="SCORE")
    commands.add_parser("predictions").add_argument("rows", type=Path)
    options = parser.parse_args(argv)
    if options.command == "collect":
        runs = [run for folder in options.folders for run in sorted(folder.iterdir()) if run.is_dir()]
        if not (rows := collect(runs)):
            raise SystemExit(f"no finished run in {', '.join(map(str, options.folders))}: name folders that hold runs")
        write_text(options.out, "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
        print(f"{len(rows)} rows in {options.out}")
        return
    rows = json.loads(options.rows.read_text())
    if options.command == "predictions":
        print("\n".join(predictions(rows)))
        return
    show = {"table": table, "differences": differences}[options.command]
    print(show(shown_rows(rows, options.world, options.d_sae, options.l0), options.scores))


if __name__ == "__main__":
    main()
