"""Experiments: what to train, on what and how long, as one frozen dataclass whose fingerprint names the run."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from unbraid.config.serialise import added, fingerprint, packages_of, to_json
from unbraid.config.settings import (
    Device,
    FolderName,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
    Settings,
    Share,
    ShareBelowOne,
)
from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.kernels import KernelsName
from unbraid.experiment.summary import Summary, label, requested_l0, summarise
from unbraid.objective.objective import Objective
from unbraid.sources.base import Source


@dataclass(frozen=True, kw_only=True)
class Training(Settings):
    """The settings of the optimiser and of the stream of data."""

    tokens: NonNegativeInt = 2_000_000
    """Activations to train on. 0 leaves the dictionary as initialised (the untrained controls)."""
    batch_size: PositiveInt = 2048
    """Activations a step."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate of Adam."""
    threshold_lr: NonNegativeFloat = 10.0
    """Learning rate of JumpReLU's thresholds, as a multiple of lr: at lr itself Adam moves them too slowly to reach
    an L0."""
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)
    """Adam's decay rates: of the averages of the gradient and of its square."""
    warmup: Share = 0.02
    """Share of training over which the learning rate rises linearly from 0."""
    decay: Share = 0.2
    """Share of training, at the end, over which it falls linearly to 0."""
    clip: PositiveFloat = 1.0
    """Largest gradient norm; larger gradients are scaled down to it."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled (AdamW)."""
    dead_after: PositiveInt = 500_000
    """Tokens without firing after which a latent counts as dead."""
    resample_every: NonNegativeInt = 0
    """Tokens after which dead latents start anew at badly explained rows (`resampling`), again and again; 0: never."""
    normalise: Literal["centre-scale", "none", "whiten"] = "centre-scale"
    """Subtract the mean and scale to unit mean square, leave activations alone, or do the first and whiten them, too:
    the error then counts directions of little variance as much as others (docs/concepts.md)."""
    whiten_ridge: NonNegativeFloat = added(1e-3)
    """Added to each variance before whitening, as a share of their mean: it bounds how far the smallest are blown
    up."""
    whiten_power: Share = added(1.0)
    """How far to whiten: variances to the power of 1 less this are left, 1 whitens fully, 0 is centre-scale."""
    matmul: Literal["float32", "bfloat16"] = "float32"
    """Precision of products. In bfloat16, where few latents are active the encoder's proposes them and exact values
    choose; where many are, factors of whole matrices are rounded: faster where the processor has such products
    (docs/performance.md)."""
    tf32: bool = added(True)
    """On CUDA, let float32 products of the encoder and of gradients round their factors to 10 bits (TF32), which is
    several times faster; other devices have no such products."""
    dense_above: Share | None = added(None)
    """Share of active latents above which a step computes with whole matrices, which is then faster; None: .15 on the
    CPU (.06 in bfloat16, from 256 inputs on), .05 elsewhere. Results differ by rounding alone (docs/performance.md)."""
    kernels: KernelsName = added("torch")
    """What sparse steps compute with: torch's operations, or on CUDA kernels of ours in Triton, which no GPU has run
    yet (docs/performance.md)."""
    data_seed: Seed | None = None
    """Order of the data; None: the experiment's seed. Experiments with the same one share a stream of activations."""
    score_every: NonNegativeInt = 250_000
    """Tokens after which FVU, L0 and dead latents are measured on held-out rows, again and again; 0: never."""
    device: Device = "cpu"
    """Where to train: cpu, cuda, mps."""

    def check_together(self) -> None:
        if self.warmup + self.decay > 1 + 1e-9:
            raise ValueError(
                f"warmup {self.warmup} and decay {self.decay} are shares of training and take more than all of it "
                "together; lower one"
            )
        fields = type(self).__dataclass_fields__
        unused = [name for name in ("whiten_ridge", "whiten_power") if getattr(self, name) != fields[name].default]
        if unused and self.normalise != "whiten":
            raise ValueError(f"{unused[0]} is a setting of whitening: set normalise to whiten, or leave it out")


@dataclass(frozen=True, kw_only=True)
class Experiment(Settings):
    """One dictionary to train. Equal experiments are one run: its folder is named by their fingerprint."""

    name: FolderName
    """What the report calls its method: lower-case words joined by - _ or . The requested sparsity joins it where
    runs are distinguished (`label`)."""
    source: Source
    objective: Objective
    dictionary: DictionaryConfig = field(default_factory=DictionaryConfig)
    training: Training = field(default_factory=Training)
    seed: Seed = 0
    """Initialisation, the terms' random streams and, unless training.data_seed is set, the order of the data."""
    control: bool = False
    """True for a baseline no method should lose to (untrained, frozen, PCA): shown apart in the report."""
    l0: PositiveFloat | None = None
    """The requested sparsity, where neither the activation's k nor objective.target_l0 says it."""

    base: FolderName | None = added(None)
    """The method that this is, or that `term` is added to: what the runs of one comparison have in common."""
    term: FolderName | None = added(None)
    """What is added to the base's objective; None for the base itself."""
    strength: PositiveFloat | None = added(None)
    """Size of the added term's gradient, as a share of the reconstruction's (gradient_ratio)."""
    draws_source: bool = added(False)
    """True where the experiment's seed drew the source too (World, Synth): such runs are draws from one testbed, and
    compared over seeds as runs on one source are."""

    @cached_property
    def requested_l0(self) -> float | None:
        """The requested sparsity: the activation's k, objective.target_l0's, or l0; None when none is."""
        return requested_l0(to_json(self))

    @property
    def data_seed(self) -> int:
        """The seed of the order of the data: training.data_seed, or the experiment's own."""
        return self.seed if self.training.data_seed is None else self.training.data_seed

    @property
    def label(self) -> str:
        """The name and the requested sparsity: topk-l0_32."""
        return label(self.name, self.requested_l0)

    @property
    def summary(self) -> Summary:
        """The facts that a report needs of it."""
        data = to_json(self)
        return summarise(data, packages_of(data))

    @cached_property
    def folder(self) -> str:
        """Name of the run's folder: the experiment's label, its seed and its fingerprint."""
        return f"{self.label}-s{self.seed}-{fingerprint(self)}"

    def check_together(self) -> None:
        check_design(self.base, self.term, self.strength)
        if self.training.normalise == "whiten" and self.dictionary.activation.tied:
            raise ValueError(
                f"{type(self.dictionary.activation).__name__} reads along the atoms it writes, and of raw activations "
                "no such dictionary does what one of whitened ones does: set --training.normalise centre-scale, or "
                "take another activation"
            )
        stated = getattr(self.dictionary.activation, "k", None) or getattr(self.objective.target_l0, "l0", None)
        if None not in (self.l0, stated) and self.l0 != stated:
            raise ValueError(
                f"l0 is {self.l0:g}, but the activation's k or objective.target_l0 asks for {stated:g}; leave l0 out"
            )
        if self.draws_source and self.source.drawn_by != self.seed:
            by = "none" if self.source.drawn_by is None else f"seed {self.source.drawn_by}"
            raise ValueError(
                f"draws_source says that seed {self.seed} drew the source, and {by} did; give the source that seed, or "
                "set draws_source to False"
            )


def check_design(base: str | None, term: str | None, strength: float | None) -> None:
    """Raise ValueError for an added term without the base it is added to, or a strength without a term."""
    if term is not None and base is None:
        raise ValueError(f"term is {term!r}, but base does not say what it is added to; name it, or leave both out")
    if strength is not None and term is None:
        raise ValueError(f"strength is {strength:g}, but term does not say whose it is; name it, or leave both out")
