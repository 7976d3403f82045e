"""The names under which SAEBench's numbers are stored, which direction is better, and their definitions.

Metrics whose formula is not sound keep SAEBench's number under a name that says "reported", and are never compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class MetricName:
    """The metric that a number in SAEBench's JSON becomes."""

    place: str
    """Regular expression of category.name in eval_result_metrics; its groups become params."""
    metric: str
    better: Better
    definition: str
    params: Mapping[str, float | str] | None = None
    """Params that are the same for every match, added to the groups."""


TYPE_IDS = {
    "core": "core",
    "absorption": "absorption_first_letter",
    "sparse_probing": "sparse_probing",
    "sae_probes": "sparse_probing_sae_probes",
    "scr": "scr",
    "tpp": "tpp",
    "ravel": "ravel",
    "autointerp": "autointerp",
    "meta_structure": "meta_structure_decoder_variance",
}
AUDIT = (
    "; an audit of SAEBench (arXiv 2605.18229) finds that it fails several checks at its canonical settings and should "
    "not be used to choose between SAEs"
)
PROBED = (
    "accuracy of a probe that reads the k latents (reads=latents), or the activations or k of their channels "
    "(reads=activations), that separate a class best, mean over labelled sets; higher is better for latents"
)
SHIPPED = "of a probe on the k best latents, or on all activations, mean over sae-probes' labelled sets"
LATENTS, ACTIVATIONS = {"reads": "latents"}, {"reads": "activations"}

METRIC_NAMES: dict[str, tuple[MetricName, ...]] = {
    "core": (
        MetricName(r"sparsity\.l0", "l0", "neither", "mean latents above 0 a token; signed codes are undercounted"),
        MetricName(r"model_performance_preservation\.ce_loss_score", "ce_loss_score", "higher",
                   "share of the cross-entropy lost by zero ablation that the reconstruction regains"),
        MetricName(r"model_performance_preservation\.ce_loss_with_sae", "ce_loss_with_sae", "lower",
                   "cross-entropy with the reconstruction spliced in, nats a token"),
        MetricName(r"model_behavior_preservation\.kl_div_score", "kl_div_score", "higher",
                   "1 - KL with the reconstruction / KL with zero ablation"),
        MetricName(r"reconstruction_quality\.explained_variance", "explained_variance_reported", "neither",
                   "explained variance as SAEBench reports it: it squares activations before it averages them, so "
                   "that a predictor of the mean scores above 0; explained_variance is ours"),
        MetricName(r"reconstruction_quality\.explained_variance_legacy", "explained_variance_legacy", "neither",
                   "explained variance by the formula of SAEBench's paper, as reported"),
        MetricName(r"reconstruction_quality\.cossim", "cossim", "higher", "mean cosine of x and x_hat"),
        MetricName(r"shrinkage\.l2_ratio", "saebench_l2_ratio", "neither", "mean |x_hat| / |x|; below 1 is shrinkage"),
        MetricName(r"misc_metrics\.frac_alive", "frac_alive", "higher", "share of latents that fire on the texts read"),
        MetricName(r"misc_metrics\.average_max_decoder_cosine_sim", "average_max_decoder_cosine_sim", "lower",
                   "mean over atoms of the largest cosine with another"),
    ),
    "absorption": (
        MetricName(r"mean\.mean_full_absorption_score", "first_letter_absorption_full", "lower",
                   "share of words of a letter in which its main latents do not fire and one other supplies it, mean "
                   "over letters whose probe has F1 above 0.6"),
        MetricName(r"mean\.mean_absorption_fraction_score", "first_letter_absorption_fraction", "lower",
                   "share of a letter's projection that latents other than the main ones supply, mean over words, then "
                   "letters; as SAEBench computes it (definition=0.6.0), and as it did for its published results "
                   "(definition=0.3.2, recomputed on the same words)", {"definition": "0.6.0"}),
        MetricName(r"mean\.mean_num_split_features", "first_letter_main_latents", "lower",
                   "main latents a letter, mean"),
    ),
    "sparse_probing": (
        MetricName(r"sae\.sae_top_(?P<k>\d+)_test_accuracy", "probe_accuracy", "higher", PROBED, LATENTS),
        MetricName(r"sae\.sae_test_accuracy", "probe_accuracy_all_latents", "higher",
                   "accuracy of a probe that reads all latents, mean over labelled sets"),
        MetricName(r"llm\.llm_top_(?P<k>\d+)_test_accuracy", "probe_accuracy", "neither", PROBED, ACTIVATIONS),
        MetricName(r"llm\.llm_test_accuracy", "probe_accuracy_activations", "neither",
                   "accuracy of a probe that reads the activations, mean over labelled sets: the ceiling"),
    ),
    "sae_probes": tuple(
        known
        for name, what in (("accuracy", "accuracy"), ("auc", "area under the ROC curve"), ("f1", "F1"))
        for known in (
            MetricName(rf"sae\.sae_top_(?P<k>\d+)_test_{name}", f"sae_probes_{name}", "higher", f"{what} {SHIPPED}",
                       LATENTS),
            MetricName(rf"llm\.llm_test_{name}", f"sae_probes_{name}", "neither", f"{what} {SHIPPED}", ACTIVATIONS),
        )
    ),
    "scr": (
        MetricName(r"scr_metrics\.scr_metric_threshold_(?P<n>\d+)", "scr", "higher",
                   "share of the accuracy that a spurious attribute costs a probe which is regained by removing the n "
                   f"latents that predict it best; read it together with scr_room{AUDIT}"),
    ),
    "tpp": (
        MetricName(r"tpp_metrics\.tpp_threshold_(?P<n>\d+)_total_metric", "tpp", "higher",
                   "accuracy a class's probe loses when the n latents that predict it best are removed, less what "
                   f"other probes lose{AUDIT}"),
        MetricName(r"tpp_metrics\.tpp_threshold_(?P<n>\d+)_intended_diff_only", "tpp_intended", "neither",
                   "accuracy that the class's own probe loses"),
        MetricName(r"tpp_metrics\.tpp_threshold_(?P<n>\d+)_unintended_diff_only", "tpp_unintended", "neither",
                   "accuracy that other probes lose"),
    ),
    "ravel": (
        MetricName(r"ravel\.disentanglement_score", "ravel_disentanglement", "higher",
                   "mean of ravel_cause and ravel_isolation; follows L0 closely, so compare at matched L0"),
        MetricName(r"ravel\.cause_score", "ravel_cause", "higher",
                   "share of prompts that take over an attribute when its latents do"),
        MetricName(r"ravel\.isolation_score", "ravel_isolation", "higher",
                   "share of prompts whose other attributes stay"),
    ),
    "autointerp": (
        MetricName(r"autointerp\.autointerp_score", "autointerp", "higher",
                   "accuracy of a language model that predicts from an explanation where a latent fires; answering "
                   "\"nowhere\" scores .714"),
    ),
    "meta_structure": (
        MetricName(r"meta_structure\.decoder_fraction_variance_explained", "decoder_variance_explained", "lower",
                   "share of the variance of the atoms that a small SAE of atoms explains: atoms made of others"),
    ),
}  # fmt: skip
EXTRA_METRICS = {
    "core": {"explained_variance": "1 - FVU on held-out activations of the run's source, as Unbraid computes it"},
    "absorption": {
        "first_letter_probe_f1": "F1 of the probes of first letters, mean over all letters",
        "first_letter_letters": "letters whose probe has F1 above 0.6; only these are scored",
    },
    "scr": {
        "scr_room": "accuracy that the spurious attribute costs the probe before anything is removed, mean over pairs "
        "of classes and both directions: where it is near 0 there is nothing to regain and scr is noise",
    },
    "ravel": {"ravel_prompts": "prompts that the model answers correctly: what RAVEL has to work with"},
}
"""Definitions of the metrics that are not in SAEBench's JSON, by eval."""


def definitions(name: str) -> dict[str, str]:
    """The definitions of an eval's metrics, by metric."""
    return {m.metric: m.definition for m in METRIC_NAMES[name]} | EXTRA_METRICS.get(name, {})
