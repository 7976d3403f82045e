"""The number of steps of a training, the learning rate of each, and at which something is due."""

import math

from unbraid.experiment.experiment import Training


def steps(training: Training) -> int:
    """Steps that see at least `tokens` activations."""
    return math.ceil(training.tokens / training.batch_size)


def passes_multiple(training: Training, every: int, index: int) -> bool:
    """True when step `index` reaches or passes a multiple of `every` tokens; never when that is 0."""
    return bool(every) and (index + 1) * training.batch_size % every < training.batch_size


def schedule(index: int, total: int, training: Training) -> float:
    """The learning rate of step `index` as a share of its peak: linear warm-up, plateau, linear decay to 0."""
    rise = (index + 1) / max(1.0, training.warmup * total)
    fall = (total - index) / max(1.0, training.decay * total)
    return min(1.0, rise, fall)
