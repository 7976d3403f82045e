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
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import unbraid
from unbraid.comparison.committed import (
    BASELINE,
    CEILINGS,
    LEVELS,
    PARAMS,
    SCORES,
    Row,
    finite,
    scores_of_rows,
)
from unbraid.comparison.contrast import contrast
from unbraid.comparison.convergence import fall
from unbraid.comparison.gate import GateResult, gate
from unbraid.comparison.judgement import Judgement
from unbraid.comparison.names import testbed_name
from unbraid.comparison.power import pooled, seeds_needed
from unbraid.comparison.registration import rules_of
from unbraid.comparison.scores import Scores, arrange
from unbraid.comparison.smallest_effect import smallest_effects
from unbraid.comparison.stored_scores import StoredScores, params_text, read_run, read_scores
from unbraid.comparison.verdict import answer, judge_pairs
from unbraid.comparison.wording import change, number
from unbraid.config.old_names import upgraded, upgraded_score
from unbraid.experiment.summary import requested_l0
from unbraid.sources.cached import Cached
from unbraid.sources.language_model.loading import EMBEDDED
from unbraid.system.files import read_json, write_text

SHOWN = (
    "l0", "fvu", "mcc", "f1", "absorption", "recall_child", "latents_per_factor", "infom", "isolation", "overlap",
    "alive",
)  # fmt: skip
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
        row = {
            "world": name or world_of(experiment["source"]), "method": method, "asked": finite(l0),
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
    about |= {"target_l0": finite(run.target_l0), "seconds": run.provenance.get("seconds")}
    return about | {"summary": asdict(run.summary)}


def world_of(source: Mapping[str, Any]) -> str:
    """The name of a testbed: its model's, or its world's by the number of factors; of a cache that of what it was
    written from."""
    try:
        node = Cached(folder=source["folder"]).origin() if source.get("type") == "Cached" else source
        if node.get("independent"):
            return "twin"
        return model_name(node["model"]) if node.get("model") else WORLDS[node["factors"]]
    except (KeyError, ValueError) as error:
        why = f": {error}" if isinstance(error, ValueError) else ""
        raise SystemExit(f"no name is known of the testbed {testbed_name(source)}{why}; give one by --name") from error


def model_name(model: str) -> str:
    """The embedded model's text is the synthetic language; others go by their folder or name."""
    return {EMBEDDED: "language", "embedded": "small-language"}.get(model, Path(model).name)


def scores_of(folder: Path) -> dict[str, Any]:
    """The scores of a run by short name, with the params of those that SCORES names without."""
    found: dict[str, Any] = {}
    said: dict[str, str] = {}
    levels: dict[str, dict[str, Any]] = {}
    for name, (eval_name, metric, params) in SCORES.items():
        path = folder / "results" / f"{eval_name}.json"
        scores = read_json(path).get("scores", []) if path.is_file() else []
        every = [*map(upgraded_score, scores)]
        scores = [s for s in every if s["kind"] == "measured"]
        own = [s for s in scores if s["metric"] == metric and all(s["params"].get(k) == v for k, v in params.items())]
        # Of a score by frequency, the rarest band: they are named 1e-1 to 1e0, 1e-2 to 1e-1, …
        own = sorted((s for s in own if "size" not in s["params"]), key=lambda s: s["params"].get("band", ""))
        if own:
            value = own[-1]["value"]
            found[name] = value if value is None else float(f"{value:.5g}")
            said[name] = params_text(own[-1]["params"])
            for kind in LEVELS:
                if (level := level_of(every, own[-1], kind)) is not None:
                    levels.setdefault(kind, {})[name] = float(f"{level:.5g}")
    return found | levels | {PARAMS: {name: text for name, text in said.items() if text and not SCORES[name][2]}}


def chosen(rows: Sequence[Row], **where: Any) -> list[Row]:
    """The rows with these values; None asks for nothing."""
    return [row for row in rows if all(value is None or row[key] == value for key, value in where.items())]


def level_of(scores: Sequence[dict[str, Any]], own: dict[str, Any], kind: str) -> float | None:
    """The chance or ceiling that an eval stored for a score: of its very params, or else of fewer of them."""
    fits = lambda s: s["metric"] == own["metric"] and s["kind"] == kind and s["params"].items() <= own["params"].items()
    return max(filter(fits, scores), key=lambda s: len(s["params"]), default={"value": None})["value"]


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
        writes = name in ("collect", "gates")
        one.add_argument("--out", type=Path, required=writes, help="the file to write (collect, gates)")
        one.add_argument("--world")
        called = "what the testbed is called in the rows (collect, gates)"
        one.add_argument("--name", required=name == "gates", help=called)
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
