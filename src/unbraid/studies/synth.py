"""On SAELens's synthetic models: the published comparison of SynthSAEBench, scaled to minutes and at its full size."""

from dataclasses import replace

from unbraid.experiment.experiment import Training
from unbraid.experiment.study import Study, of_methods
from unbraid.sources.synth import Synth
from unbraid.studies.methods import matryoshkas, standard


def synth() -> Study:
    """SynthSAEBench with a thirty-second of its factors: as many latents as a quarter of the factors, as published.

    The 128 most frequent factors are active 3.6 at a time: 4 is the integer nearest.
    """
    return Study(
        source=Synth(),
        d_sae=128,
        training=Training(tokens=1_000_000, batch_size=512, lr=3e-3, dead_after=50_000),
        members=standard(4),
    )


def synth_matryoshka() -> Study:
    """Matryoshka as published and as of 2026, part by part, and a step of ISTA, on the scaled SynthSAEBench."""
    return replace(synth(), members=of_methods(standard(4), ("batchtopk", "matryoshka")) | matryoshkas(4))


def synth_16k() -> Study:
    """SynthSAEBench-16k as published: 4,096 latents, 200 million samples. For a GPU (--training.device cuda)."""
    return Study(
        source=Synth(model="decoderesearch/synth-sae-bench-16k-v1", block_rows=8192),
        d_sae=4096,
        training=Training(tokens=200_000_000, batch_size=1024, lr=3e-4),
        members=standard(25) | standard(20),
    )
