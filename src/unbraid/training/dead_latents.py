"""Dead latents: those that have not fired for `Training.dead_after` tokens, and when they start anew."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unbraid import seeding
from unbraid.dictionary.dictionary import Dictionary
from unbraid.experiment.experiment import Training
from unbraid.system.devices import queued
from unbraid.training.finite_checks import EVERY
from unbraid.training.resampling import resample
from unbraid.training.schedule import passes_multiple, steps

NAME, LISTED = "since_fired", "listed_dead"


class DeadLatents:
    """Counts, for every latent, the tokens since it last fired."""

    def __init__(self, d_sae: int, training: Training, seed: int):
        self._training, self._seed = training, seed
        self.since_fired = torch.zeros(d_sae, dtype=torch.long, device=training.device)
        self._queued = queued(training.device)
        self._list(self.now())

    def _list(self, dead: Bool[Tensor, " d_sae"]) -> None:
        """Find out the numbers of dead and living latents, where they are to be used for several steps."""
        if self._queued:
            order, dying = dead.byte().argsort(stable=True), int(dead.sum())
            living = len(dead) - dying
            self._listed, self._numbers = dead, {"dead": order[living:], "living": order[:living]}

    def seen_at(self, index: int) -> tuple[Bool[Tensor, " d_sae"], dict[str, Tensor]]:
        """Return what terms of a step see: True for dead latents, and numbers of dead and living ones where they are
        known. A queued device's are listed every `EVERY` steps, as the host must wait for how many they are."""
        if not self._queued:
            return self.now(), {}
        if index % EVERY == 0:
            self._list(self.now())
        return self._listed, dict(self._numbers)

    def now(self) -> Bool[Tensor, " d_sae"]:
        """True for latents that are dead."""
        return self.since_fired >= self._training.dead_after

    def count(self, fired: Bool[Tensor, " d_sae"], tokens: int) -> None:
        """Take note of a step: which latents fired on its tokens."""
        self.since_fired.add_(tokens).masked_fill_(fired, 0)

    def restart(
        self, dictionary: Dictionary, x: Float[Tensor, "batch d_in"], index: int
    ) -> Int[Tensor, " restarted"] | None:
        """Start dead latents anew at badly explained rows of x, after a step at which that is due; which, or None."""
        if not self.restart_due(index):
            return None
        rng = seeding.stream(self._seed, f"resample/{index}")
        restarted = resample(dictionary, x, self.now(), rng)
        self.since_fired[restarted] = 0
        self._list(self.now())
        return restarted

    def restart_due(self, index: int) -> bool:
        """Every `resample_every` tokens; not in the last decay, which would leave them half trained."""
        training = self._training
        late = index + 1 >= steps(training) * (1 - training.decay)
        return not late and passes_multiple(training, training.resample_every, index)

    def state(self) -> dict[str, Tensor]:
        return {NAME: self.since_fired, **({LISTED: self._listed} if self._queued else {})}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.since_fired.copy_(tensors[NAME])
        if self._queued:
            self._list(tensors[LISTED].to(self.since_fired.device))
