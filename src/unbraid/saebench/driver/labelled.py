"""Labelled texts with two crossed attributes in place of the hub's, for sparse probing, SCR and TPP.

SAEBench reads a data set from ./<name>/ where there is such a folder, and expects two attributes when the name holds
bias_in_bios. So a data set is entered into SAEBench's tables under a new name: no function is replaced.
"""

# pyright: reportMissingImports=false
from pathlib import Path


def register(request: dict) -> list[dict]:
    """Enter the request's data sets into SAEBench's tables, and return them."""
    from sae_bench.evals.scr_and_tpp import main as scr_and_tpp
    from sae_bench.sae_bench_utils import dataset_info

    for found in request["labelled"]:
        name, values = found["name"], {str(i): i for i in range(2)}
        dataset_info.dataset_metadata[name] = {
            "text_column_name": "text", "column1_name": "class", "column2_name": "attribute",
            "column2_autointerp_name": "attribute", "column1_mapping": {c: i for i, c in enumerate(found["classes"])},
            "column2_mapping": values,
        }  # fmt: skip
        dataset_info.chosen_classes_per_dataset[name] = [str(i) for i in range(len(found["classes"]))]
        scr_and_tpp.COLUMN2_VALS_LOOKUP[name] = tuple(values)
    return request["labelled"]


def probe_sizes(sets: list[dict], settings: dict) -> dict:
    """The number of rows of a probe: a quarter from each of two classes x two values; at most SAEBench's defaults, or
    what the settings ask for."""
    most = {"probe_train_set_size": 4000, "probe_test_set_size": 1000} | settings
    fits = lambda split: min(most[f"probe_{split}_set_size"], *(4 * found[split] for found in sets))
    return {
        "dataset_names": [found["name"] for found in sets],
        "probe_train_set_size": fits("train"), "probe_test_set_size": fits("test"),
    }  # fmt: skip


def pair_sizes(sets: list[dict]) -> dict:
    """The number of rows for SCR and TPP; SCR's biased data are more than half of the rows of one class and value."""
    fits = lambda split, default: min(default, *(2 * (found[split] - 1) // 4 * 4 for found in sets))
    return {
        "dataset_names": [found["name"] for found in sets],
        "column1_vals_lookup": {found["name"]: [tuple(pair) for pair in found["pairs"]] for found in sets},
        "train_set_size": fits("train", 4000), "test_set_size": fits("test", 1000),
    }  # fmt: skip


def shipped_texts(names: list[str], each: int = 50) -> list[str]:
    """The first texts of some of the data sets that come with sae-probes."""
    import pandas as pd
    import sae_probes

    folder = Path(str(sae_probes.__file__)).parent / "data" / "cleaned_data"
    found: list[str] = []
    for name in names[:8]:
        found += pd.read_csv(folder / f"{name}.csv.zst", compression="zstd")["prompt"].head(each).astype(str).tolist()
    return found
