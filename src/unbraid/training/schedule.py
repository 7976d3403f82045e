"""The number of steps of a training, and the learning rate of each."""

import math

from unbraid.experiment.experiment import Training


def steps(training: Training) -> int:
    """Steps that see at least `tokens` activations."""
    return math.ceil(training.tokens / training.batch_size)


def schedule(index: int, total: int, training: Training) -> float:
    """The learning rate of step `index` as a share of its peak: linear warm-up, plateau, linear decay to 0."""
    rise = (index + 1) / max(1.0, training.warmup * total)
    fall = (total - index) / max(1.0, training.decay * total)
    return min(1.0, rise, fall)
