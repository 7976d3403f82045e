"""The error that ends a training which a signal stopped."""


class Interrupted(Exception):
    """Training was stopped; its checkpoints are written."""

    def __init__(self, where: str, *, unfinished: bool = True):
        """`where`: "stopped at …". `unfinished`: whether a run is left to resume."""
        super().__init__(f"{where}; continue with --resume" if unfinished else where)
        self.where = where


def interrupted_at(step: int, last: int) -> Interrupted:
    return Interrupted(f"stopped at step {step} of {last}")
