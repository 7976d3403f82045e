"""Initialisations of controls that have learned nothing, or only to memorise. PCA is in `initialisation`."""

from dataclasses import dataclass

import torch

from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.initialisation import Initialisation, Origin, set_tied
from unbraid.dictionary.weights import Acts

BATCH = 4096
"""Rows in a step of k-means."""


@dataclass(frozen=True)
class RandomPairs(Initialisation):
    """Random unit atoms, and an encoder of random unit vectors that knows nothing of them; b_dec the mean of the data.

    With BatchTopK it has any L0, at random directions: the score that a matched L0 alone gives.
    """

    def __call__(
        self, dictionary: Dictionary, sample: Acts, rng: torch.Generator, origin: Origin | None = None
    ) -> None:
        set_tied(dictionary, torch.randn(dictionary.d_sae, dictionary.d_in, generator=rng), sample)
        readers = torch.randn(dictionary.d_sae, dictionary.d_in, generator=rng)
        dictionary.W_enc.data.copy_((readers / torch.linalg.vector_norm(readers, dim=1, keepdim=True)).T)


@dataclass(frozen=True)
class Centroids(Initialisation):
    """Directions of k-means centroids, the encoder their transpose, b_dec the mean of the data: the memoriser.

    Rows are centred and scaled to unit norm before clustering, so that TopK(1) chooses the nearest centroid by angle
    and its code is the best size for it: a gain-shape quantiser, one latent a token. After ITDA (arXiv 2505.17769),
    which takes activations themselves as atoms.
    """

    def __call__(
        self, dictionary: Dictionary, sample: Acts, rng: torch.Generator, origin: Origin | None = None
    ) -> None:
        from sklearn.cluster import MiniBatchKMeans  # half a second to import, for this initialisation alone

        if len(sample) < dictionary.d_sae:
            raise ValueError(
                f"{len(sample)} activations cannot be divided into {dictionary.d_sae} clusters; "
                f"ask for fewer latents: --dictionary.d-sae {len(sample)}"
            )
        centred = sample - sample.mean(0)
        shapes = centred / torch.linalg.vector_norm(centred, dim=1, keepdim=True).clamp_min(1e-12)
        seed = int(torch.randint(2**31 - 1, (), generator=rng))
        # Starting from random rows: k-means++ costs as much as all the rest at thousands of clusters.
        means = MiniBatchKMeans(dictionary.d_sae, init="random", n_init="auto", batch_size=BATCH, random_state=seed)
        set_tied(dictionary, torch.from_numpy(means.fit(shapes.numpy()).cluster_centers_).to(sample), sample)
