"""What to train, on what, how long: one frozen dataclass. Its fingerprint names the run."""

import re
from dataclasses import dataclass, field
from typing import Literal

from unbraid.config import fingerprint
from unbraid.dictionary import DictionaryConfig
from unbraid.objective import Objective
from unbraid.source import Source


@dataclass(frozen=True, kw_only=True)
class Training:
    tokens: int = 2_000_000
    """Activations to train on. 0 leaves the dictionary as initialised (the untrained controls)."""
    batch_size: int = 2048
    """Activations a step."""
    lr: float = 1e-3
    """Peak learning rate of Adam."""
    threshold_lr: float = 10.0
    """Learning rate of JumpReLU's thresholds, as a multiple of lr: at lr itself Adam moves them too slowly to reach
    an L0."""
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: float = 0.02
    """Share of training over which the learning rate rises linearly from 0."""
    decay: float = 0.2
    """Share of training, at the end, over which it falls linearly to 0."""
    clip: float = 1.0
    """Largest gradient norm; larger gradients are scaled down to it."""
    weight_decay: float = 0.0
    """Decoupled (AdamW)."""
    dead_after: int = 500_000
    """Tokens without firing after which a latent counts as dead."""
    resample_every: int = 0
    """Tokens after which dead latents start anew at badly explained rows (`resampling`), again and again; 0: never."""
    normalise: Literal["centre-scale", "none"] = "centre-scale"
    """Subtract the mean and scale to unit mean square, or leave activations alone."""
    matmul: Literal["float32", "bfloat16"] = "float32"
    """Precision of the encoder product; parameters and optimiser stay float32."""
    data_seed: int = 0
    """Order of the data. Shared by a cohort, so that all its members see the same stream."""
    device: str = "cpu"
    """Where to train: cpu, cuda, mps."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    name: str
    """What the report calls it: lower-case words joined by - _ or ."""
    source: Source
    objective: Objective
    dictionary: DictionaryConfig = field(default_factory=DictionaryConfig)
    training: Training = field(default_factory=Training)
    seed: int = 0
    """Initialisation and the terms' random streams."""
    control: bool = False
    """True for a baseline no method should lose to (untrained, frozen, PCA): shown apart in the report."""

    @property
    def folder(self) -> str:
        """Name of the run's folder: the experiment's name, its seed and its fingerprint."""
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", self.name):
            raise ValueError(f"name {self.name!r}: use lower-case letters, digits and - _ . (it names a folder)")
        return f"{self.name}-s{self.seed}-{fingerprint(self)}"
