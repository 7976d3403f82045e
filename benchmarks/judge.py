"""Committed rows judged by `unbraid.comparison`: contrasts with each method's own base, the gate, and verdicts.

    python -m benchmarks.judge collect runs/objectives* --out docs/results/objectives.json
    python -m benchmarks.judge table docs/results/objectives.json --world forest --d-sae 384 --l0 4
    python -m benchmarks.judge gate docs/results/objectives.json --world forest --d-sae 384
    python -m benchmarks.judge gates runs/calibration/* --name language --out docs/results/gate.json
    python -m benchmarks.judge contrasts docs/results/comparison.json --against batchtopk --methods matryoshka
    python -m benchmarks.judge verdict docs/results/comparison.json
    python -m benchmarks.judge verdict docs/results/small-world.json --card docs/claims/small-world.toml

Rows of factorial studies say their base. Others say none: what is compared is taken to be BatchTopK with a term, unless
--base names another.
"""

import argparse
import json
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import unbraid
from unbraid.comparison.contrast import contrast
from unbraid.comparison.convergence import fall
from unbraid.comparison.gate import GateResult, gate
from unbraid.comparison.judgement import Judgement
from unbraid.comparison.power import pooled, seeds_needed
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.registration import rules_of
from unbraid.comparison.scores import Scores, arrange, methods
from unbraid.comparison.smallest_effect import smallest_effects
from unbraid.comparison.stored_scores import StoredRun, StoredScores, params_text, read_run, read_scores
from unbraid.comparison.verdict import answer, judge_pairs
from unbraid.comparison.wording import change, number
from unbraid.config.old_names import upgraded, upgraded_score
from unbraid.dictionary.initialisation import Claim
from unbraid.experiment.summary import requested_l0
from unbraid.sources.language_model.loading import EMBEDDED
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
    "product_share": ("memorisation", "product_share", {}),
    "interchange": ("interchange", "interchange", {"directions": "latents", "error": "kept", "n": 4}),
    "loss_recovered": ("fidelity", "loss_recovered", {"against": "mean"}),
    "bits": ("description_length", "bits_per_token", {}),
    "ce_loss_score": ("saebench_core", "ce_loss_score", {}),
    "ev_reported": ("saebench_core", "explained_variance_reported", {}),
    "dose": ("dose", "dose", {}),
    "probe_k1": ("saebench_sparse_probing", "probe_accuracy", {"k": 1.0, "reads": "latents"}),
    "probe_k5": ("saebench_sparse_probing", "probe_accuracy", {"k": 5.0, "reads": "latents"}),
    "meta": ("saebench_meta_structure", "decoder_variance_explained", {}),
    "tpp": ("saebench_tpp", "tpp", {"n": 20.0}),
    "scr": ("saebench_scr", "scr", {"n": 20.0}),
}
LOWER = (
    "fvu", "cosine", "absorption", "latents_per_factor", "overlap", "interaction", "products", "product_share",
    "bits",
)  # fmt: skip
"""Scores of which less is better."""
NEITHER = ("l0", "l2_ratio", "hit", "atom_overlap", "context_ceiling", "ev_reported", "meta")
SHOWN = (
    "l0", "fvu", "mcc", "f1", "absorption", "recall_child", "latents_per_factor", "infom", "isolation", "overlap",
    "alive",
)  # fmt: skip
PARAMS = "params"
"""The key of a row under which params of scores stand."""
BASELINE = "batchtopk"
STANDARD = (BASELINE, "topk", "relu", "matryoshka", "jumprelu", "mdl")
CEILINGS = ("truth", "probes")
UNTRAINED = ("untrained", "random", "pca", "random-directions")
KNOBS = (
    "effect", "effect-blocks", "effect-functional", "effect-head", "effect-interaction", "effect-repulsion", "melbo",
    "melbo-hinge", "sketch", "interaction", "readback", "end-to-end", "frozen-end-to-end", "functional", "jacobian",
)  # fmt: skip
"""Methods that are evidence for claim 2."""
WORLDS = {8: "memorisation", 32: "directions", 96: "forest"}
"""Names of worlds by their number of factors."""


def collect(folders: Sequence[Path], name: str | None = None) -> list[dict[str, Any]]:
    """One row a finished run, the scores of `SCORES` by short name. name: what the testbed is called in the rows."""
    rows = []
    for folder in folders:
        if not (folder / "provenance.json").is_file():
            continue
        experiment = upgraded(read_json(folder / "experiment.json"))
        method, l0 = experiment["name"], requested_l0(experiment)
        source = experiment["source"]
        world = name or ("twin" if source.get("independent") else world_of(source))
        row = {
            "world": world, "method": method, "asked": finite(l0),
            "d_sae": read_json(folder / "cfg.json")["d_sae"], "seed": experiment["seed"],
            "control": bool(experiment.get("control")),
        }  # fmt: skip
        rows.append(row | design_of(folder) | scores_of(folder))
    return sorted(rows, key=lambda r: json.dumps([r["world"], r["d_sae"], r["asked"] or 0, r["method"], r["seed"]]))


def design_of(folder: Path) -> dict[str, Any]:
    """What a run of a factorial study says of itself, by which a registered verdict can be drawn from rows alone."""
    provenance = read_json(folder / "provenance.json")
    if "geometry" not in (provenance.get("summary") or {}):  # trained before runs said their design
        return {}
    run = read_run(folder)
    about = {"run": folder.name, "finished": provenance.get("finished"), "version": provenance.get("unbraid")}
    about |= {"tokens": run.experiment["training"]["tokens"], "fall": finite(round(fall(run), 4))}
    return about | {"summary": asdict(run.summary)}


def world_of(source: dict[str, Any]) -> str:
    """The name of a testbed: its model's, or its world's by the number of factors."""
    return model_name(source["model"]) if "model" in source else WORLDS[source["factors"]]


def model_name(model: str) -> str:
    """The embedded model's text is the synthetic language; others go by their folder or name."""
    return {EMBEDDED: "language", "embedded": "small-language"}.get(model, Path(model).name)


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def scores_of(folder: Path) -> dict[str, Any]:
    """The scores of a run by short name, with the params of those that SCORES names without."""
    found: dict[str, Any] = {}
    said: dict[str, str] = {}
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
            said[name] = params_text(own[-1]["params"])
    return found | {PARAMS: {name: text for name, text in said.items() if text and not SCORES[name][2]}}


Row = dict[str, Any]


def chosen(rows: Sequence[Row], **where: Any) -> list[Row]:
    """The rows with these values; None asks for nothing."""
    return [row for row in rows if all(value is None or row[key] == value for key, value in where.items())]


def scores_of_rows(rows: Sequence[Row], *, base: str = BASELINE) -> Scores:
    """Arrange rows of one testbed for judging, as if their runs had been read."""
    params = {short: text for row in rows for short, text in row.get(PARAMS, {}).items()}
    quantities = {short: quantity_of(short, params.get(short)) for short in SCORES if any(short in row for row in rows)}
    runs = [run_of(row, base) for row in rows]
    values: dict[Quantity, dict[str, float]] = {quantity: {} for quantity in quantities.values()}
    for row, run in zip(rows, runs, strict=True):
        for short, quantity in quantities.items():
            if row.get(short) is not None:
                values[quantity][run.run] = float(row[short])
    return Scores(tuple(methods(runs)), tuple(sorted(values)), values)


def quantity_of(short: str, said: str | None = None) -> Quantity:
    """The quantity that a short name stands for; said: its params as rows have them."""
    eval_name, metric, params = SCORES[short]
    better = "lower" if short in LOWER else "neither" if short in NEITHER else "higher"
    return Quantity(eval_name, metric, said or params_text(dict(sorted(params.items()))), better)


def run_of(row: Row, base: str) -> StoredRun:
    """A run as its row describes it."""
    name, control = row["method"], bool(row["control"])
    if "summary" in row:
        experiment = {"name": name, "seed": row["seed"], "control": control, "source": {"type": row["world"]},
                      "objective": {}, "dictionary": {}, "training": {}}  # fmt: skip
        provenance = {"summary": row["summary"], "finished": row["finished"], "unbraid": row["version"]}
        return StoredRun(Path(row["run"]), experiment, provenance, {"d_sae": row["d_sae"]}, {})
    standard = name in STANDARD and not control
    claim: Claim = 2 if name in KNOBS else 1
    summary = {
        "method": name, "l0": row["asked"], "standard": standard, "claim": claim,
        "trivial": control and name in UNTRAINED, "sees_truth": name in CEILINGS,
        "base": name if standard else None if control else base, "term": None if standard or control else name,
    }  # fmt: skip
    experiment = {
        "name": name, "seed": row["seed"], "control": control, "source": {"type": row["world"]},
        "objective": {"target_l0": {"l0": row["asked"]} if row["asked"] else None}, "dictionary": {}, "training": {},
    }  # fmt: skip
    folder = Path(f"{name}-l0_{row['asked']}-w{row['d_sae']}-s{row['seed']}")
    return StoredRun(folder, experiment, {"summary": summary}, {"d_sae": row["d_sae"]}, {})


# ---- tables


def table(rows: Sequence[Row], scores: Sequence[str] = SHOWN) -> str:
    """Means and standard deviations over seeds; methods, then controls in italics, by score."""
    lines = ["| | " + " | ".join(scores) + " |", "|---" * (len(scores) + 1) + "|"]
    for control, method in sorted({(row["control"], row["method"]) for row in rows}):
        name = f"*{method}*" if control else method
        cells = [cell([r[s] for r in chosen(rows, method=method) if r.get(s) is not None]) for s in scores]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return re.sub(r"\b0\.", ".", f"{statistics.fmean(values):.3f}{spread}") if values else ""


def gate_table(results: Sequence[GateResult]) -> str:
    """What the gate found, a row a score."""
    lines = ["| score | truth | best | untrained | chance | passed |", "|---|---|---|---|---|---|"]
    for r in results:
        values = [number(v) if math.isfinite(v) else "–" for v in (r.truth, r.best, r.untrained, r.chance)]
        best = f"{values[1]} ({r.best_method})"
        low = f"{values[2]} ({r.untrained_method})" if r.untrained_method else "–"
        word = "yes" if r.passed else f"no: {'; '.join(r.reasons)}"
        lines.append(f"| {r.metric.metric} | {values[0]} | {best} | {low} | {values[3]} | {word} |")
    return "\n".join(lines)


def gate_rows(folders: Sequence[Path], testbed: str, out: Path) -> list[dict[str, Any]]:
    """What the gate finds on runs of a testbed, with chance levels and seeds, added to a file in place of what it has
    of it."""
    found = unbraid.gate(list(folders)).drop(columns=["source"])
    before = json.loads(out.read_text()) if out.is_file() else []
    rows = [row for row in before if row["testbed"] != testbed]
    stored = read_scores(list(folders))
    spread = {}
    for source in dict.fromkeys(run.source for run in stored.runs):
        spread |= spreads(arrange(stored.of(source)))
    for row in json.loads(str(found.to_json(orient="records"))):
        sd = spread.get((row["d_sae"], row["eval"], row["metric"], row["params"]), math.nan)
        known = math.isfinite(sd) and row["smallest"] is not None
        needed = seeds_needed(row["smallest"], sd) if known else None
        rows.append({"testbed": testbed} | row | {"spread": finite(sd), "seeds_needed": needed})
    write_text(out, "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    return rows


def spreads(scores: Scores) -> dict[tuple[int, str, str, str], float]:
    """The standard deviation over seeds of a standard SAE's difference from BatchTopK, pooled over standard SAEs, by
    width and score."""
    found = {}
    for d_sae in scores.widths:
        standard = scores.with_role("standard", d_sae)
        base = next((method for method in standard if method.short == BASELINE), None)
        if base is None:
            continue
        for metric in scores.quantities:
            sides = [contrast(scores, other, base, metric) for other in standard if other != base]
            found[d_sae, metric.eval, metric.metric, metric.params] = pooled([one.tested.sd for one in sides])
    return found


def contrasts(scores: Scores, d_sae: int, names: Sequence[str], against: str) -> list[Judgement]:
    """Judge named methods against another by every headline score, with q-values."""
    by_name = {m.short: m for role in ("standard", "compared") for m in scores.with_role(role, d_sae)}
    pairs = [(by_name[name], by_name[against]) for name in (names or by_name) if name != against]
    return judge_pairs(scores, pairs, [q for q in scores.headline if q.sign], smallest_effects(scores, d_sae))


def contrast_table(found: Sequence[Judgement]) -> str:
    """Judgements, a row each."""
    lines = ["| method | score | difference | word | smallest of interest | could find | p (Holm) or q | flips | why |"]
    lines.append("|---" * 9 + "|")
    for j in found:
        c = j.contrast
        parts = [c.method, j.metric.metric, change(c.difference, c.tested.half), j.word, number(j.smallest),
                 number(j.could_find), f"{j.p:.3f}", f"{c.p_flipped():.3f}", j.note]  # fmt: skip
        lines.append(f"| {' | '.join(parts)} |")
    return "\n".join(lines)


def verdict_text(scores: Scores, d_sae: int, card: Path | None = None) -> str:
    """The verdicts at a width, term by term; by a registered card if there is one."""
    runs = tuple(run for method in scores.methods for run in method.runs)
    rules = None if card is None else rules_of(card, StoredScores(runs, (), (), (), (), ()), scores)
    found = answer(scores, d_sae, rules)
    lines = []
    for v in found.verdicts:
        lines += [f"## {v.claim}", "", f"{v.headline} ({v.status})", "", *v.evidence, ""]
        if v.terms:
            lines += [contrast_table([j for t in v.terms for j in t.primaries]), ""]
    return "\n".join(lines)


# ---- the command


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("collect", "table", "gate", "gates", "contrasts", "verdict"):
        one = commands.add_parser(name)
        one.add_argument("paths", nargs="+", type=Path, help="run folders (collect), or a file of rows")
        one.add_argument("--out", type=Path, help="the file to write (collect)")
        one.add_argument("--world")
        one.add_argument("--name", help="what the testbed is called in the rows (collect)")
        one.add_argument("--card", type=Path, help="a registered claim card (verdict)")
        one.add_argument("--d-sae", type=int)
        one.add_argument("--l0", type=float, help="of the table")
        one.add_argument("--scores", nargs="+", default=SHOWN)
        one.add_argument("--base", default=BASELINE, help="what compared methods are made of")
        one.add_argument("--methods", nargs="+", default=())
        one.add_argument("--against", default=BASELINE)
    return parser.parse_args()


def main() -> None:
    """Run the command."""
    options = arguments()
    if options.command == "collect":
        rows = collect(options.paths, options.name)
        write_text(options.out, "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
        print(f"{len(rows)} rows in {options.out}")
        return
    if options.command == "gates":
        rows = gate_rows(options.paths, options.name, options.out)
        print(f"{len(rows)} rows in {options.out}")
        return
    rows = chosen(json.loads(options.paths[0].read_text()), world=options.world)
    if options.command == "table":
        ceilings = [row for row in rows if row["method"] in CEILINGS]
        print(table(chosen(rows, d_sae=options.d_sae, asked=options.l0) + ceilings, options.scores))
        return
    for world in dict.fromkeys(row["world"] for row in rows):
        scores = scores_of_rows(chosen(rows, world=world), base=options.base)
        for d_sae in scores.widths if options.d_sae is None else [options.d_sae]:
            print(f"\n# {world}, {d_sae} latents\n")
            print(said(options, scores, d_sae))


def said(options: argparse.Namespace, scores: Scores, d_sae: int) -> str:
    """What a command says of one testbed at one width."""
    if options.command == "gate":
        return gate_table(list(gate(scores, d_sae).values()))
    if options.command == "verdict":
        return verdict_text(scores, d_sae, options.card)
    return contrast_table(contrasts(scores, d_sae, options.methods, options.against))


if __name__ == "__main__":
    main()
