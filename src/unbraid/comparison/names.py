"""Names that readers know methods, scores and testbeds by; identifiers are for files and code."""

from collections.abc import Mapping
from typing import Any

SCORES: Mapping[str, str] = {
    "fvu": "fraction of variance unexplained", "ce_loss_score": "loss recovered", "loss_recovered": "loss recovered",
    "mcc": "match with true directions (MCC)", "f1": "F1 of one latent a factor", "absorption_full": "full absorption",
    "parent_recall_given_child": "recall of parents next to a child", "latents_per_factor": "latents per factor",
    "isolation": "isolation of effects", "interchange": "interchange of factors", "probe_accuracy": "1-sparse probing",
    "sae_probes_accuracy": "1-sparse probing (sae-probes)", "first_letter_absorption_full": "first-letter absorption",
    "ravel_disentanglement": "RAVEL", "tpp": "TPP", "scr": "SCR",
    "decoder_variance_explained": "atoms explained by other atoms", "additive_r2": "additivity of effects",
    "effect": "size of effects", "alive": "living latents", "max_decoder_cosine": "largest decoder cosine",
    "l0": "active latents a token (L0)", "l1": "sum of values (L1)", "l2_ratio": "size of reconstructions",
    "kl": "KL of next tokens", "infom": "InfoM", "mig": "MIG", "bits_per_token": "bits a token",
    "recall_by_frequency": "recall by frequency", "absorption_fractional": "absorption, by share",
    "parent_recall_alone": "recall of parents alone", "represented": "represented factors",
    "atom_overlap": "overlap of atoms", "f1_latents": "F1 over latents", "dose": "dose",
}  # fmt: skip
"""Scores by metric; the others go by their metric's words."""
WORDS: Mapping[str, str] = {
    "batchtopk": "BatchTopK", "topk": "TopK", "relu": "ReLU", "jumprelu": "JumpReLU", "gated": "Gated",
    "matryoshka": "Matryoshka", "hsic": "HSIC", "pca": "PCA", "ica": "ICA", "rica": "RICA", "mdl": "MDL",
    "melbo": "MELBO", "dct": "DCT", "ima": "IMA", "c2r": "C2R", "ada": "Ada", "tsae": "T-SAE", "vicreg": "VICReg",
    "barlow": "Barlow", "l1": "L1", "l2": "L2", "kl": "KL", "sae": "SAE", "lista": "LISTA", "icm": "ICM",
}  # fmt: skip
"""Words of methods' names that are written otherwise than in identifiers."""
TESTBEDS: Mapping[str, str] = {
    "Activations": "activations as given", "Cached": "stored activations", "Synth": "SynthSAEBench's model",
}  # fmt: skip
"""Testbeds by the class of their source; worlds and language models say more."""
EMBEDDED_NAMES = ("embedded", "embedded-2")


def method_name(identifier: str) -> str:
    """Return what readers call a method, as in "BatchTopK total correlation 0.1" of batchtopk-total-correlation-0.1."""
    return " ".join(map(_word, filter(None, identifier.split("-"))))


def _word(word: str) -> str:
    return WORDS.get(word, word.replace("l0_", "L0 ").replace("_", " "))


def score_name(metric: str) -> str:
    """Return what readers call a metric."""
    return SCORES.get(metric, metric.replace("_", " "))


def testbed_name(source: Mapping[str, Any]) -> str:
    """Return what readers call a testbed, as in "world of 96 factors" and "pythia-70m, layer 3"."""
    kind = str(source.get("type", "")).rpartition(":")[2] or "unknown testbed"
    if kind == "World" and "factors" in source:
        return f"world of {source['factors']} factors"
    if kind == "LanguageModel" and "model" in source:
        model = str(source["model"])
        if model in EMBEDDED_NAMES:
            return "small language model"
        return f"{model.rstrip('/').rpartition('/')[2]}, layer {source.get('layer', '?')}"
    return TESTBEDS.get(kind, kind)


def capital(text: str) -> str:
    """Return a text with a capital at its beginning, for headings and beginnings of sentences."""
    return text[:1].upper() + text[1:]
