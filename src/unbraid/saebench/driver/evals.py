"""One function per eval: it builds SAEBench's configuration for a request and runs SAEBench's code.

name(request, model, run name, SAE) -> (folder with its JSON, facts to store next to it)
"""

# pyright: reportMissingImports=false
import dataclasses
import functools
import os
import types
from pathlib import Path

import labelled
import loading
from absorption import absorption  # noqa: F401 (an eval like those below)
from ravel import ravel  # noqa: F401

EvalResult = tuple[Path, dict]


def core(request: dict, model: str, name: str, sae) -> EvalResult:
    """Run SAEBench's core eval: reconstruction, sparsity, loss with the reconstruction spliced in."""
    import sae_bench.evals.core.main as main

    out, settings = loading.empty(Path("core")), request["settings"]
    if settings["documents_apart"]:  # an argument of SAELens that this eval does not hand on
        apart = functools.partial(main.ActivationsStore.from_sae, disable_concat_sequences=True)
        main.ActivationsStore = types.SimpleNamespace(from_sae=apart)
    main.multiple_evals(
        [(name, sae)],
        n_eval_reconstruction_batches=settings["reconstruction_batches"],
        n_eval_sparsity_variance_batches=settings["variance_batches"],
        eval_batch_size_prompts=request["batch"], context_size=settings["context_size"],
        compute_featurewise_density_statistics=True, compute_featurewise_weight_based_metrics=True,
        exclude_special_tokens_from_reconstruction=True, dataset=request["text"], output_folder=str(out),
        dtype=request["dtype"], device=request["device"], verbose=True, force_rerun=True,
    )  # fmt: skip
    return out, {"settings": settings, "text": request["text"]}


def sparse_probing(request: dict, model: str, name: str, sae) -> EvalResult:
    """Run sparse probing."""
    from sae_bench.evals.sparse_probing.eval_config import SparseProbingEvalConfig
    from sae_bench.evals.sparse_probing.main import run_eval

    sets, settings = labelled.register(request), request["settings"]
    config = SparseProbingEvalConfig(
        **model_settings(request, model), **{**settings, **(labelled.probe_sizes(sets, settings) if sets else {})}
    )
    out = loading.empty(Path("sparse_probing"))
    for _ in passes():
        run_eval(config, [(name, sae)], request["device"], str(out), force_rerun=True, artifacts_path="artifacts")
    return out, about(config)


def sae_probes(request: dict, model: str, name: str, sae) -> EvalResult:
    """Run sparse probing on the data sets of sae-probes."""
    from sae_bench.evals.sparse_probing_sae_probes.eval_config import SparseProbingSaeProbesEvalConfig
    from sae_bench.evals.sparse_probing_sae_probes.main import run_eval
    from sae_probes.utils_data import get_dataset_sizes  # noqa: F401 (fails early where the package is incomplete)

    loading.refuse_unknown_words(
        request, "sae-probes' texts", labelled.shipped_texts(request["settings"]["dataset_names"])
    )
    config = SparseProbingSaeProbesEvalConfig(
        model_name=model, random_seed=request["seed"], results_path="artifacts/sae_probes",
        model_cache_path="artifacts/sae_probes_activations", **request["settings"],
    )  # fmt: skip
    out = loading.empty(Path("sae_probes"))
    run_eval(config, [(name, sae)], request["device"], str(out), force_rerun=True)
    return out, about(config)


def scr(request: dict, model: str, name: str, sae) -> EvalResult:
    """Run spurious correlation removal (SCR)."""
    return scr_or_tpp(request, model, name, sae, perform_scr=True)


def tpp(request: dict, model: str, name: str, sae) -> EvalResult:
    """Run targeted probe perturbation (TPP)."""
    return scr_or_tpp(request, model, name, sae, perform_scr=False)


def scr_or_tpp(request: dict, model: str, name: str, sae, *, perform_scr: bool) -> EvalResult:
    """Run SCR or TPP, which share their code in SAEBench."""
    import sae_bench.evals.scr_and_tpp.main as main
    from sae_bench.evals.scr_and_tpp.eval_config import ScrAndTppEvalConfig

    sets, settings = labelled.register(request), request["settings"]
    n_values = [n for n in settings["n_values"] if n <= sae.cfg.d_sae]
    config = ScrAndTppEvalConfig(
        **model_settings(request, model), perform_scr=perform_scr, **(labelled.pair_sizes(sets) if sets else {}),
        **{**settings, "n_values": n_values},
    )  # fmt: skip
    seen: list[dict] = []
    out = loading.empty(Path("scr" if perform_scr else "tpp"))
    with recorded(main, "get_scr_plotting_dict", seen):
        for _ in passes():
            seen.clear()
            main.run_eval(
                config, [(name, sae)], request["device"], str(out), force_rerun=True, artifacts_path="artifacts"
            )
    return out, {**about(config), "accuracies": seen}


def meta_structure(request: dict, model: str, name: str, sae) -> EvalResult:
    """Run the meta-SAE eval: how far atoms are made of others."""
    from sae_bench.evals.meta_structure.eval_config import MetaStructureEvalConfig
    from sae_bench.evals.meta_structure.main import run_eval

    loading.seed(request["seed"])
    config = MetaStructureEvalConfig(random_seed=request["seed"], **request["settings"])
    out = loading.empty(Path("meta_structure"))
    run_eval(config, [(name, sae)], request["device"], str(out), force_rerun=True)
    return out, about(config)


def autointerp(request: dict, model: str, name: str, sae) -> EvalResult:
    """Run automated interpretability with a judge (OPENAI_API_KEY)."""
    from sae_bench.evals.autointerp.eval_config import AutoInterpEvalConfig
    from sae_bench.evals.autointerp.main import run_eval

    text = {"dataset_name": request["text"]} if request["text"] else {}
    config = AutoInterpEvalConfig(**model_settings(request, model), **text, **request["settings"])
    out, key = loading.empty(Path("autointerp")), os.environ["OPENAI_API_KEY"]
    run_eval(config, [(name, sae)], request["device"], key, str(out), force_rerun=True, artifacts_path="artifacts")
    return out, about(config)


def passes() -> range:
    """The passes to make: two where the model's probes are still to be trained, else one.

    Their training draws from the random stream that a run's probes draw from, so that the first run would have other
    negatives than later ones.
    """
    return range(1 if Path("artifacts").is_dir() else 2)


def model_settings(request: dict, model: str) -> dict:
    """The settings of the model that most evals share."""
    return {
        "model_name": model, "llm_batch_size": request["batch"], "llm_dtype": request["dtype"],
        "random_seed": request["seed"],
    }  # fmt: skip


def about(config) -> dict:
    """The facts to store next to SAEBench's JSON."""
    return {"settings": dataclasses.asdict(config)}


class recorded:
    """Context manager that records the second argument of a module's function (accuracies without the SAE)."""

    def __init__(self, module, function: str, into: list) -> None:
        self.module, self.function, self.into = module, function, into

    def __enter__(self) -> None:
        self.kept = kept = getattr(self.module, self.function)

        def noting(first, second):
            self.into.append(dict(second))
            return kept(first, second)

        setattr(self.module, self.function, noting)

    def __exit__(self, *_) -> None:
        setattr(self.module, self.function, self.kept)
