"""Dead latents: those that have not fired for `Training.dead_after` tokens, and when they start anew."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unbraid import seeding
from unbraid.dictionary.dictionary import Dictionary
from unbraid.experiment.experiment import Training
from unbraid.training.resampling import resample
from unbraid.training.schedule import passes_multiple, steps

NAME = "since_fired"


class DeadLatents:
    """Counts, for every latent, the tokens since it last fired."""

    def __init__(self, d_sae: int, training: Training, seed: int):
        self._training, self._seed = training, seed
        self.since_fired = torch.zeros(d_sae, dtype=torch.long, device=training.device)

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
        if not self._restart_due(index):
            return None
        rng = seeding.stream(self._seed, f"resample/{index}")
        restarted = resample(dictionary, x, self.now(), rng)
        self.since_fired[restarted] = 0
        return restarted

    def _restart_due(self, index: int) -> bool:
        """Every `resample_every` tokens; not in the last decay, which would leave them half trained."""
        training = self._training
        late = index + 1 >= steps(training) * (1 - training.decay)
        return not late and passes_multiple(training, training.resample_every, index)

    def state(self) -> dict[str, Tensor]:
        return {NAME: self.since_fired}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.since_fired.copy_(tensors[NAME])
