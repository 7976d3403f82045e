"""SAELens's synthetic models, SynthSAEBench-16k among them: as saved, or generated from the same settings.

    x = bias + sum_i z_i d_i

Which factors fire follows a Zipf law, a low-rank Gaussian copula and a forest, all drawn by SAELens, so that scores can
be compared with the published ones. There is no downstream map, and with `compensate_probabilities` a parent hardly
ever fires without a child: absorption cannot be seen here, but in a World. After SynthSAEBench (Chanin et al. 2026).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor

from unbraid import seeding
from unbraid.config.settings import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
    Share,
    ShareAboveZero,
    TwoOrMore,
)
from unbraid.sources.base import Contexts, Split, no_downstream
from unbraid.sources.synthetic import Synthetic
from unbraid.sources.truth import Labelled

if TYPE_CHECKING:
    from sae_lens.synthetic import SyntheticModel, SyntheticModelConfig

ENTRIES = 2**20
"""Samples times factors drawn at once: SAELens draws densely. Another number gives other samples."""


@dataclass(frozen=True, kw_only=True)
class Synth(Synthetic):
    """A synthetic model of SAELens: one that was saved, or one generated from these settings.

    Fields from `num_features` on are those of SAELens's `SyntheticModelConfig`, by its names; they generate a model and
    are not for one that is loaded. Their defaults are SynthSAEBench-16k's with a thirty-second of its factors.
    """

    kind: ClassVar[str] = "synth"

    model: str = ""
    """Folder or Hugging Face name of a saved SyntheticModel ("name:subfolder" for one in a subfolder); empty to
    generate one."""
    block_rows: PositiveInt = 16_384
    """Samples in a block."""
    num_features: PositiveInt = 512
    """Factors."""
    hidden_dim: PositiveInt = 64
    """Width of the activations."""
    exponent: PositiveFloat = 0.5
    """Probabilities fall as rank ** -exponent, from max_prob to min_prob."""
    max_prob: ShareAboveZero = 0.4
    min_prob: ShareAboveZero = 5e-4
    total_root_nodes: NonNegativeInt = 4
    """Trees of the forest; 0 for no hierarchy."""
    branching_factor: TwoOrMore = 4
    """Children of every factor above the last level."""
    max_depth: PositiveInt = 3
    """Levels below the roots."""
    mutually_exclusive_portion: Share = 1.0
    """Share of parents whose children never fire together."""
    compensate_probabilities: bool = True
    """Raise the probabilities of children, so that they fire as often as without the forest, as far as they can."""
    scale_children_by_parent: bool = True
    """A child's magnitude is multiplied by its parent's, relative to the parent's mean."""
    orthogonalization_steps: NonNegativeInt = 100
    """Steps that move directions apart; 0 leaves them random. At 16,384 factors they take long without a GPU."""
    orthogonalization_lr: PositiveFloat = 3e-4
    correlation_rank: NonNegativeInt = 25
    """Dimensions of what factors have in common; 0 makes the copula independent."""
    correlation_scale: Share = 0.1
    mean_firing_magnitudes: tuple[NonNegativeFloat, NonNegativeFloat] = (5.0, 4.0)
    """Mean magnitude of the first factor and of the last; linear between."""
    std_firing_magnitudes: tuple[NonNegativeFloat, NonNegativeFloat] = (0.5, 0.5)
    """Each factor's standard deviation is |normal| with this mean and standard deviation."""
    bias: NonNegativeFloat = 0.5
    """Norm of the constant added to all activations."""
    seed: Seed = 42
    """Directions, forest, copula and magnitudes. Samples follow the seed of the data, not this one."""

    def check_together(self) -> None:
        if self.min_prob >= self.max_prob:
            raise ValueError(
                f"min_prob {self.min_prob} must be below max_prob {self.max_prob}: the last factor is the rarest"
            )
        given = [f.name for f in fields(self)[2:] if getattr(self, f.name) != f.default]
        if self.model and given:
            raise ValueError(
                f"{self.model!r} is loaded as it was saved; {', '.join(given)} cannot be set: leave them, or model, out"
            )

    @property
    def drawn_by(self) -> int | None:
        return None if self.model else self.seed  # a saved model was drawn before

    @property
    def d_in(self) -> int:
        return self._synthetic.cfg.hidden_dim if self.model else self.hidden_dim

    @cached_property
    def names(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        # A model to generate need not be for that: it takes seconds.
        count = self._synthetic.cfg.num_features if self.model else self.num_features
        return tuple(f"factor {i}" for i in range(count))

    @cached_property
    def parents(self) -> Int[Tensor, " factors"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Index of each factor's parent; -1 for roots."""
        found = torch.full((self._synthetic.cfg.num_features,), -1)
        hierarchy = self._synthetic.hierarchy
        above = [(root, -1) for root in hierarchy.roots] if hierarchy else []
        while above:
            node, parent = above.pop()
            if node.feature_index is not None:  # else the node only groups others, which belong to the one above
                found[node.feature_index] = parent
                parent = node.feature_index
            above += [(child, parent) for child in node.children]
        return found

    @cached_property
    def directions(self) -> Float[Tensor, "factors d_in"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return torch.nn.functional.normalize(self._vectors, dim=1)

    def labelled(self, count: int, *, split: Split, seed: int = 0) -> Labelled:
        return labelled(self, count, split, seed)

    def samples(self, index: int, split: Split, seed: int) -> Float[Tensor, "row d_in"]:
        return self._draw(self.block_rows, seeding.integer(seed, f"synth/{split}/{index}")).x

    def contexts(self, count: int, *, split: Split, seed: int) -> Contexts:
        raise no_downstream("a synthetic model of SAELens")

    def identity(self) -> str:
        return self.model or super().identity()

    @cached_property
    def _synthetic(self) -> "SyntheticModel":
        library = saelens()
        # Loading draws what a model saved without a seed leaves open; moving directions apart needs gradients.
        with seeded(seeding.integer(0, "synth/load")), torch.enable_grad():
            if not self.model:
                return library.SyntheticModel(config(self, library))
            try:
                return library.SyntheticModel.load_from_source(self.model)
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                raise ValueError(
                    f"cannot load a synthetic model from {self.model!r} ({error}); give a folder that "
                    "SyntheticModel.save wrote, or a Hugging Face name, such as decoderesearch/synth-sae-bench-16k-v1"
                ) from error

    @property
    def _vectors(self) -> Float[Tensor, "factors d_in"]:
        """The vector that each factor adds at magnitude 1."""
        return self._synthetic.feature_dict.feature_vectors.detach().float()

    def _draw(self, count: int, seed: int) -> Labelled:
        model = self._synthetic
        factors, norms = model.cfg.num_features, self._vectors.norm(dim=1)
        at_once = max(1, ENTRIES // factors)
        parts: list[tuple[Tensor, ...]] = []
        with seeded(seed):
            for start in range(0, count, at_once):
                x, z = model.sample_with_features(min(at_once, count - start))
                rows, active = z.nonzero(as_tuple=True)
                parts.append((x.float(), rows + start, active, z[rows, active].float() * norms[active]))
        return Labelled(*(torch.cat(column) for column in zip(*parts, strict=True)), count=factors)


SYNTHSAEBENCH_16K = Synth(
    num_features=16_384, hidden_dim=768, total_root_nodes=128, branching_factor=4, max_depth=3, block_rows=8192
)
"""The published settings. The model as published, directions and all, is decoderesearch/synth-sae-bench-16k-v1."""


@lru_cache(maxsize=2)
def labelled(source: Synth, count: int, split: Split, seed: int) -> Labelled:
    """Return labelled samples, drawn once for all evals and runs of a source.

    SAELens takes seconds for the default settings and minutes at 16,384 factors.
    """
    return source._draw(count, seeding.integer(seed, f"synth/labelled/{split}"))


def config(source: Synth, library: Any) -> "SyntheticModelConfig":
    """Return SAELens's own configuration of a model to generate.

    Raises ValueError for settings that SAELens refuses.
    """
    forest = {
        name: getattr(source, name)
        for name in ("total_root_nodes", "branching_factor", "max_depth", "mutually_exclusive_portion",
                     "compensate_probabilities", "scale_children_by_parent")
    }  # fmt: skip
    apart = library.OrthogonalizationConfig(num_steps=source.orthogonalization_steps, lr=source.orthogonalization_lr)
    copula = library.LowRankCorrelationConfig(rank=source.correlation_rank, correlation_scale=source.correlation_scale)
    first, last = source.mean_firing_magnitudes
    mean, std = source.std_firing_magnitudes
    return library.SyntheticModelConfig(
        num_features=source.num_features,
        hidden_dim=source.hidden_dim,
        firing_probability=library.ZipfianFiringProbabilityConfig(
            exponent=source.exponent, max_prob=source.max_prob, min_prob=source.min_prob
        ),
        hierarchy=library.HierarchyConfig(**forest) if source.total_root_nodes else None,
        orthogonalization=apart if source.orthogonalization_steps else None,
        correlation=copula if source.correlation_rank else None,
        mean_firing_magnitudes=library.LinearMagnitudeConfig(start=first, end=last),
        std_firing_magnitudes=library.FoldedNormalMagnitudeConfig(mean=mean, std=std) if std else mean,
        bias=source.bias,
        seed=source.seed,
    )


def saelens() -> Any:
    try:
        import sae_lens.synthetic
    except ImportError as error:
        raise ValueError("synthetic models are drawn by SAELens; pip install 'unbraid[synth]'") from error
    return sae_lens.synthetic


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator, which SAELens draws from, while open; then restore its state."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
