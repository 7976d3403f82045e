"""The error that ends a training which a signal stopped."""


class Interrupted(Exception):
    """Training was stopped; its checkpoints are written."""


def interrupted_at(step: int, last: int) -> Interrupted:
    return Interrupted(f"stopped at step {step} of {last}; continue with --resume")
