"""A watch on the next process of a group, which notices when that process ends.

gloo may wait for ever for a process that was killed while a message was on its way to it (`waitSend`, about one kill in
a hundred). A receive that was posted long before always fails when the sender ends: this waits for one, which comes
when the training is over. Each process watches one other, in a ring; when one ends, so do all, one after another.
"""

import threading
from contextlib import suppress
from datetime import timedelta

import torch
from torch.distributed import ProcessGroup

NO_LIMIT = timedelta(days=3650)
"""Time that the connection lets a message take, which comes when the training is over."""
TAG = 0


class Neighbour:
    """Watches the next process of a group, over a connection that serves nothing else (and waits `NO_LIMIT`)."""

    def __init__(self, channel: ProcessGroup, rank: int, size: int) -> None:
        self._channel, self._before, self._next = channel, (rank - 1) % size, (rank + 1) % size
        self._lost = threading.Event()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def lost(self) -> bool:
        """True when the next process has ended without a word."""
        return self._lost.is_set()

    def part(self) -> None:
        """Tell the one before that this one is done, and wait until the next is done, or lost."""
        word = torch.zeros(1)
        with suppress(RuntimeError):  # one that has ended needs no word
            # Not waited for: it is on its way at once, or has nobody to go to.
            self._sent = (word, self._channel.send([word], self._before, TAG))
        self._listener.join()

    def _listen(self) -> None:
        try:
            self._channel.recv([torch.zeros(1)], self._next, TAG).wait()
        except RuntimeError:
            self._lost.set()
