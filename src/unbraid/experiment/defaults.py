"""Defaults of `unbraid.fit`: eight latents a dimension, BatchTopK, and batches that fit the data."""

from typing import Any

from unbraid.config.hints import nearest
from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.initialisation import Initialisation
from unbraid.experiment.experiment import Training
from unbraid.sources.base import Source


def config_of(
    source: Source, d_sae: int | None, activation: Activation | None, init: Initialisation | None
) -> DictionaryConfig:
    """Return the settings of the dictionary; by default it has eight latents per dimension of the activations."""
    d_sae = 8 * source.d_in if d_sae is None else d_sae
    return DictionaryConfig(
        d_sae=d_sae, activation=activation or small_enough(d_sae), init=init or DictionaryConfig.init
    )


def small_enough(d_sae: int) -> BatchTopK:
    """Return BatchTopK at 32 latents a row, or at as many as there are."""
    return BatchTopK(max(1, min(32, d_sae))) if isinstance(d_sae, int) else BatchTopK(32)


def training_of(source: Source, tokens: int, options: dict[str, Any]) -> Training:
    """Return how to train. Raises ValueError for a setting that there is not, with the nearest."""
    known = [name for name in Training.__dataclass_fields__ if name != "tokens"]
    for name in options:
        if name not in known:
            raise ValueError(f"fit takes no {name!r}; {nearest(name, known)}")
    few = source.available("train") < 4 * Training.batch_size
    small = {"batch_size": max(1, int(source.available("train")) // 4)} if few else {}
    return Training(tokens=tokens, **{**small, **options})
