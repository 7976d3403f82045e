"""Worlds to start from, by how long a study on them takes on a laptop.

Samples a second on one thread, and those of the training step that consumes them (TopK(32), as many latents as factors
and at least 64), of `python -m benchmarks.world` on a shared core of an AMD EPYC:

    seconds       310,000 drawn,  219,000 trained
    minutes       206,000          43,000
    hour           99,000          16,000
    hours          36,000           2,000
    memorisation 1,930,000        437,000
    realistic     249,000          96,000   in a quieter hour, in which `seconds` gave 507,000 and 302,000
"""

from unbraid.sources.world.world import World


def seconds() -> World:
    """96 factors in 32 dimensions: a forest of 84, and 12 factors outside it."""
    return World(factors=96, d_in=32, l0=5.0, roots=12)


def minutes() -> World:
    """1,024 factors in 128 dimensions, most of them in a forest three levels deep."""
    return World(factors=1024, d_in=128, l0=12.0, roots=64, depth=3)


def hour() -> World:
    """4,096 factors in 256 dimensions: half of the siblings exclude one another."""
    return World(
        factors=4096,
        d_in=256,
        l0=24.0,
        roots=256,
        depth=3,
        child_given_parent=(0.2, 0.6),
        exclusive=0.5,
        interactions=64,
    )


def hours() -> World:
    """16,384 factors in 768 dimensions, the scale of SynthSAEBench-16k: some are dense, circles or spheres."""
    return World(
        factors=16_384,
        d_in=768,
        l0=34.0,
        roots=512,
        depth=3,
        child_given_parent=(0.2, 0.6),
        exclusive=0.5,
        correlation_groups=64,
        correlation_rank=25,
        dense=8,
        circles=32,
        spheres=32,
        interactions=256,
    )


def memorisation() -> World:
    """Eight fair bits, orthonormal and without noise: 255 products of factors for a wide dictionary to memorise."""
    return World(
        factors=8,
        d_in=16,
        coherence=0.0,
        l0=4.0,
        roots=8,
        depth=0,
        zipf=0.0,
        correlation=0.0,
        magnitudes="constant",
        noise=0.0,
        bias=0.0,
        interactions=0,
    )


def realistic() -> World:
    """256 factors in 128 dimensions, eight active, with every dial on: anisotropic, dense, heavy-tailed, curved.

    A forest of 168 on three levels, loose; 76 factors outside it, 6 circles, 4 spheres, 2 dense factors.
    """
    return World(
        factors=256,
        d_in=128,
        spectrum=1.0,
        l0=6.5,
        roots=24,
        co_occurrence=0.9,
        magnitudes="pareto",
        spread=0.5,
        dense=2,
        dense_probability=(0.6, 0.9),
        circles=6,
        spheres=4,
    )


PRESETS = {preset.__name__: preset for preset in (seconds, minutes, hour, hours, memorisation, realistic)}
