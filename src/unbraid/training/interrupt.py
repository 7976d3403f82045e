"""The error that ends a training which a signal asked to stop."""


class Interrupted(Exception):
    """Training was asked to stop; its checkpoints are written."""


def interrupted_at(step: int, last: int) -> Interrupted:
    return Interrupted(f"stopped at step {step} of {last}; continue with --resume")
