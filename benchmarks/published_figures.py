"""The published figures that `unbraid check published` compares with: python -m benchmarks.published_figures FOLDER

FOLDER holds the files as their authors published them, named `reliability__…` (meowmaryexe/SAEBench-Reliability),
`saebench__…` (adamkarvonen/SAEBench) and `synthsaebench__…` (bigsnarfdude/researchRalph). Written is published.json of
the package. Absorption, RAVEL and unlearning come without an L0: theirs is that of the same SAE in core's rows, found
by architecture and number of the trainer, which is checked.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from unbraid.saebench.figures import FILE
from unbraid.saebench.translation import numbers, translated
from unbraid.system.files import read_json, write_text

Saes = dict[str, list[tuple[float, float]]]
"""L0 and figure of each SAE, by architecture."""
RELIABILITY = "meowmaryexe/SAEBench-Reliability, branch alor/core-baseline-cache"
SAEBENCH = "adamkarvonen/SAEBench, tests (its acceptance numbers)"
RALPH = "bigsnarfdude/researchRalph, domains/battlebotgym-sae-bench-v3"
NAMES = {"gatedsae": "gated", "matryoshkabatchtopk": "matryoshka"}
"""Our names of architectures, where a file has another."""
WIDTHS = {"4k": 4096, "16k": 16_384, "65k": 65_536}
TOKENS = 500_000_000  # Karvonen et al. 2025 (arXiv 2503.09532); cfg of the fixture: 499,998,720
LARGEST_DRIFT = 0.1
"""Share by which an SAE's L0 may differ between two texts; more, and it is another SAE."""
LADDER = {
    "batchtopk": {"baseline": 25, "exp1-k50": 50}, "ista": {"exp003-ista": 25}, "matryoshka": {"exp004-matryoshka": 25},
    "ista_matryoshka": {"exp005-ista-matryoshka": 25}, "detached": {"exp015-detach-only": 25},
    "sorted": {"exp016-freqsort-noterm": 25}, "annealed": {"exp019-ref-k100": 25},
    "six_widths": {"exp025-ref-200m-k80-warmup-6widths": 25},
}  # fmt: skip
"""Entries of SynthSAEBench-16k and their k, by what was new in them."""
ABOUT = {
    "batchtopk": "default settings", "ista": "3 steps of ISTA of .3", "matryoshka": "widths 256 to 4,096, doubling",
    "ista_matryoshka": "with 3 steps of ISTA of .3", "detached": "with 5 learned steps of ISTA, four widths",
    "sorted": "detached, with 5 learned steps of ISTA, four widths",
    "annealed": "detached, sorted, a step of ISTA, k from 100 down to 25, errors tilted, four widths",
    "six_widths": "detached, sorted, a step of ISTA, k from 80 down to 25, errors tilted, 200 M samples",
}  # fmt: skip


def figures(name: str, value: float, *, place: str) -> list[dict[str, Any]]:
    """The metrics, by the names they are stored by, that a number of SAEBench's becomes."""
    return [
        {"eval": f"saebench_{name}", "metric": one.metric, "params": dict(one.params), "better": one.better}
        for one in translated(name, place, value)
    ]


def rounded(saes: Saes) -> Saes:
    return {name: sorted((round(l0, 2), round(value, 5)) for l0, value in pairs) for name, pairs in saes.items()}


def core(folder: Path) -> list[dict[str, Any]]:
    """Core's loss recovered of 252 SAEs, each suite with the noise between machines that its cross-check found."""
    check = read_json(folder / "reliability__core__CROSSCHECK_vs_published_0125.json")["suites"]
    found = []
    for suite in check:
        (path,) = folder.glob(f"reliability__core__{suite}_*saebench_core.json")
        data = read_json(path)
        saes: Saes = {}
        for one in data["per_sae"]:
            saes.setdefault(one["arch"], []).append((one["l0"], one["loss_recovered"]))
        about = data["eval"]
        settings = {
            "reconstruction_batches": about["n_reconstruction_seqs"] // about["batch_size_prompts"],
            "variance_batches": about["n_sparsity_seqs"] // about["batch_size_prompts"],
            "context_size": about["context_size"], "seed": about["seed"],
        }  # fmt: skip
        (score,) = figures("core", 1.0, place="model_performance_preservation.ce_loss_score")
        found.append({
            **score, **site(data["model"], data["layer"], WIDTHS[suite.rpartition("_")[2]]), "tokens": TOKENS,
            "noise": round(check[suite]["max_abs_dLR"], 5), "settings": settings, "source": RELIABILITY,
            "file": path.name.removeprefix("reliability__core__"), "saes": rounded(saes),
        })  # fmt: skip
    return found


def site(model: str, layer: int, width: int) -> dict[str, Any]:
    return {"model": model.rpartition("/")[2], "layer": layer, "site": "resid_post", "width": width}


def sparsities(folder: Path, suite: str) -> dict[tuple[str, int], float]:
    """L0 by architecture and trainer. Raises ValueError where a trainer's own folder states another."""
    found = {}
    for one in read_json(folder / f"reliability__core__{suite}_saebench_core.json")["per_sae"]:
        stated = one["bundle_l0"]
        if stated is not None and abs(one["l0"] / stated - 1) > LARGEST_DRIFT:
            raise ValueError(f"{suite} {one['arch']} {one['trainer']}: L0 {one['l0']}, its folder says {stated}")
        found[one["arch"], one["trainer"]] = one["l0"]
    return found


def values(rows: dict[str, Any], key: str) -> dict[tuple[str, int], float]:
    """A number of each SAE by architecture and trainer, which its name ends in."""
    return {
        (NAMES.get(name, name), int(sae.rpartition("_")[2])): one[key]
        for name, group in rows.items()
        for sae, one in group["per_sae"].items()
    }


def again(data: dict[str, Any]) -> dict[str, Any]:
    """The rows that were scored again, in the form of those first published."""
    rows: dict[str, Any] = {}
    for one in data["result"]["per_sae"]:
        rows.setdefault(one["arch"], {"per_sae": {}})["per_sae"][one["location"]] = one
    return rows


def paired(
    by_l0: dict[tuple[str, int], float], first: dict[tuple[str, int], float], second: dict[tuple[str, int], float]
) -> tuple[Saes, float]:
    """Each SAE's L0 and figure as first published, and the largest difference of the second scoring."""
    if set(by_l0) != set(first) or set(first) != set(second):
        raise ValueError(f"SAEs of one file only: {sorted(set(by_l0) ^ set(first) ^ set(second))}")
    saes: Saes = {}
    for (name, trainer), value in first.items():
        saes.setdefault(name, []).append((by_l0[name, trainer], value))
    return rounded(saes), round(max(abs(first[sae] - second[sae]) for sae in first), 5)


def first_letters(folder: Path) -> list[dict[str, Any]]:
    """Full absorption and both fractions: that of 0.3.2 as published, that of 0.6.0 as scored again by it."""
    by_l0 = sparsities(folder, "pythia-160m_4k")
    new, old = (f"reliability__absorption_pythia-160m_4k_v{version}.json" for version in ("0.6.0", "0.3.2"))
    found = []
    for path, key, definition in ((new, "full", ""), (old, "fraction", "0.3.2"), (new, "fraction", "0.6.0")):
        data, place = read_json(folder / path), f"mean_{'full_absorption' if key == 'full' else 'absorption_fraction'}"
        first, second = values(data["published_ref"], f"{place}_score"), values(again(data), f"{place}_score")
        saes, noise = paired(by_l0, second if definition == "0.6.0" else first, second)
        (score,) = figures("absorption", 0.0, place=f"mean.{place}_score")
        params = {"definition": definition} if definition else {}
        settings = settings_of(data["config"])
        found.append({
            **score, "params": params, **site(data["model_name"], 8, 4096), "tokens": TOKENS, "settings": settings,
            "noise": None if definition == "0.6.0" else noise, "source": RELIABILITY,
            "file": path.removeprefix("reliability__"), "saes": saes,
        })  # fmt: skip
    return found


def on_gemma(folder: Path) -> list[dict[str, Any]]:
    """RAVEL and unlearning, as published; noise by the second scoring."""
    by_l0, found = sparsities(folder, "gemma-2-2b_4k"), []
    unlearning = {"eval": "saebench_unlearning", "metric": "unlearning_score", "params": {}, "better": "higher"}
    kinds = [("ravel_gemma-2-2b", f"{part}_score") for part in ("disentanglement", "cause", "isolation")]
    for name, key in (*kinds, ("unlearning_gemma-2-2b-it", "unlearning_score")):
        path = f"reliability__{name}_4k.json"
        data = read_json(folder / path)
        score = figures("ravel", 1.0, place=f"ravel.{key}")[0] if name.startswith("ravel") else unlearning
        saes, noise = paired(by_l0, values(data["published_ref"], key), values(again(data), key))
        settings = settings_of(data["config"] | {"dataset_names": None})
        found.append({
            **score, **site("gemma-2-2b", 12, 4096), "tokens": TOKENS, "settings": settings, "noise": noise,
            "source": RELIABILITY, "file": path.removeprefix("reliability__"), "saes": saes,
        })  # fmt: skip
    return found


TOPK_80 = (site("pythia-70m-deduped", 4, 16_384), "topk", 80)
"""The SAE of most acceptance numbers, by its configuration in absorption's file: TopK, k = 80."""
ACCEPTANCE = {
    "core": (site("pythia-70m-deduped", 3, 4096), "gated", 376.98),  # L0 and width by its own file
    "ravel": (site("gemma-2-2b", 5, 16_384), "topk", 80),
    **dict.fromkeys(("absorption", "sparse_probing", "scr", "tpp", "autointerp"), TOPK_80),
}
BOTH = ["city", "nobel_prize_winner"]
"""Kinds of entities that RAVEL reads by default."""


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of an eval that a run may differ in, by the names that our requests have; SAEBench's defaults are
    left out."""
    ours = {"seed": "random_seed", "dtype": "llm_dtype", "labelled": "dataset_names", "n_latents": "n_latents"}
    found = {name: config.get(key) for name, key in ours.items()}
    entities = config.get("entity_attribute_selection", {})
    if entities and list(entities) != BOTH:
        found["entity_attribute_selection"] = entities
    return {key: value for key, value in found.items() if value is not None}


def acceptance(folder: Path) -> list[dict[str, Any]]:
    """SAEBench's acceptance numbers, one SAE an eval; absorption's are from before its fraction was redefined."""
    found = []
    for name, (where, architecture, l0) in ACCEPTANCE.items():
        path = f"saebench__{name}_expected_results.json"
        data = read_json(folder / path)
        data = data if "eval_config" in data else next(iter(data.values()))
        config = data["eval_config"]
        settings = settings_of(config)
        if name == "core":
            settings["reconstruction_batches"] = config["n_eval_reconstruction_batches"]
            settings["variance_batches"] = config["n_eval_sparsity_variance_batches"]
            settings["context_size"] = config["context_size"]
        for place, value in numbers(data):
            for score in figures(name, value, place=place):
                if score["better"] == "neither" or value == -1:
                    continue
                if score["metric"] == "first_letter_absorption_fraction":
                    score["params"] = {"definition": "0.3.2"}
                found.append({
                    **score, **where, "tokens": None, "settings": settings, "noise": None, "source": SAEBENCH,
                    "file": path.removeprefix("saebench__"), "saes": {architecture: [(l0, round(value, 5))]},
                })  # fmt: skip
    return found


def ladder(folder: Path) -> list[dict[str, Any]]:
    """The ladder of SynthSAEBench-16k: F1 of 4,096 latents, one seed each."""
    path = "synthsaebench__researchRalph_v3_results.tsv"
    with (folder / path).open(encoding="utf-8") as file:
        scores = {row["commit"]: float(row["score"]) for row in csv.DictReader(file, delimiter="\t")}
    return [{
        "eval": "recovery", "metric": "f1_latents", "params": {"matching": "cosine"}, "better": "higher",
        "model": "SynthSAEBench-16k", "layer": 0, "site": "resid_post", "width": 4096, "tokens": None, "noise": None,
        "settings": {}, "source": RALPH, "file": path.removeprefix("synthsaebench__"), "about": ABOUT,
        "saes": {name: [(k, scores[entry]) for entry, k in entries.items()] for name, entries in LADDER.items()},
    }]  # fmt: skip


def made(folder: Path) -> str:
    """The text of published.json: a line a set of figures."""
    every = [*core(folder), *first_letters(folder), *on_gemma(folder), *acceptance(folder), *ladder(folder)]
    return '{"figures": [\n' + ",\n".join(json.dumps(one, ensure_ascii=False) for one in every) + "\n]}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the published files")
    parser.add_argument("--out", type=Path, default=FILE, help="file to write (default: the package's)")
    options = parser.parse_args()
    write_text(options.out, made(options.folder))
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
