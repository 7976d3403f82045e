"""The interface of activations: how pre-activations become codes. Values, not subclasses of the dictionary.

A new activation is one class in one file, of this package or any other: a subclass of `Activation` that encodes as it
likes; of `Selecting`, when it chooses among pre-activations of a linear encoder; of `Thresholded`, when a latent is
active by its own pre-activation alone. docs/adding-an-activation.md writes one.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.config.settings import Settings
from unbraid.dictionary.activations.selection import Selection, above, calibrate
from unbraid.dictionary.codes import Codes, DenseCodes, SparseCodes
from unbraid.dictionary.encoder import encoded, encoded_pairs
from unbraid.dictionary.weights import Acts, Chunks, Latents, Path, Weights


class Activation(Settings, ABC):
    """The map from rows to codes, given a dictionary's weights: a frozen dataclass of settings."""

    learns_threshold: ClassVar[bool] = False
    """Whether it trains `threshold`, one a latent, which is then saved."""
    extra_parameters: ClassVar[tuple[str, ...]] = ()
    """Parameters it adds to the dictionary, one number a latent, 0 before `initialise`."""
    tied: ClassVar[bool] = False
    """Whether the encoder is the atoms, transposed, and not trained separately."""
    compares_latents: ClassVar[bool] = False
    """Whether a latent's being active depends on how large others are, so that rescaling one changes which are."""
    homogeneous: ClassVar[bool] = False
    """Whether each latent is active by itself, and a pre-activation and threshold c times as large give a code c times
    as large: its atom can then have any norm."""
    same_l0: ClassVar[bool] = False
    """Whether every row has as many active latents."""
    splits: ClassVar[bool] = False
    """Whether processes that train together may each encode their own rows: no row's code depends on other rows, or on
    those of the whole group (`Chunks.group`)."""
    shards: ClassVar[bool] = False
    """Whether processes that train together may hold some of the latents each: it chooses by what all of them offer
    (`Chunks.among`), or each latent by itself."""
    for_training_only: ClassVar[bool] = False
    """Whether `for_inference` gives another activation, which is what is saved."""

    @abstractmethod
    def encode(self, dictionary: Weights, x: Acts, path: Path) -> Codes:
        """Return the codes of x [batch, d_in], differentiable. `path`: the form of the codes, "auto" the faster one."""

    def initialise(self, dictionary: Weights, sample: Acts) -> None:
        """Set thresholds and extra parameters, given encoder and atoms and normalised activations. The default leaves
        them 0."""
        return

    def start_at_l0(self, dictionary: Weights, sample: Acts, l0: int) -> None:
        """Shift what is trained so that at most `l0` latents a row are active on the sample. The default does nothing,
        for activations that count their latents themselves."""
        return

    def for_inference(self, dictionary: Weights, sample: Acts) -> tuple["Activation", Mapping[str, Tensor]]:
        """Return the activation used after training, and the state dict of a dictionary with it. `sample`: normalised
        activations to calibrate on. The default keeps both."""
        return self, dictionary.state_dict()

    def thresholds(
        self, dictionary: Weights, z: Codes, rows: Int[Tensor, " pair"], latents: Int[Tensor, " pair"]
    ) -> Float[Tensor, " pair"]:
        """Return the pre-activation above which each (row, latent) is active, in a batch with codes z. The default
        is 0."""
        return z.values.new_zeros(len(rows))

    def architecture(self) -> Mapping[str, Any] | None:
        """Return SAELens's name of it, `architecture`, with the settings that its cfg.json has; None where SAELens has
        none that computes the same."""
        return None

    def scaled(self, by: float) -> "Activation":
        """Return the same for inputs `by` times as large. Most have no setting in the units of their inputs."""
        return self

    def at(self, progress: float) -> "Activation":
        """Return the activation after this share of training, in [0, 1]. Most stay the same."""
        return self

    def check_width(self, d_sae: int) -> None:
        """Raise ValueError when a dictionary of so many latents cannot have it."""
        return


class Selecting(Activation):
    """An activation that chooses among the pre-activations of a linear encoder.

    It says which (row, latent) pairs may be active (`support`, from chunks of pre-activations, never the whole
    batch x d_sae), the value of such a pair (`value`), and the same in one dense expression (`dense`, the oracle).
    """

    @abstractmethod
    def support(self, chunks: Chunks, threshold: Float[Tensor, " d_sae"], dense_above: float) -> Selection | None:
        """Return pre-activations and support of the pairs that may be active or get gradient; None when more than a
        share of `dense_above` are."""

    @abstractmethod
    def value(self, pre: Float[Tensor, " *entry"], threshold: Float[Tensor, " *entry"]) -> Float[Tensor, " *entry"]:
        """Return the value of each selected pair."""

    @abstractmethod
    def dense(self, pre: Latents, threshold: Float[Tensor, " d_sae"]) -> Latents:
        """Return all values at once."""

    def postprocess(self, z: Codes, dictionary: Weights) -> Codes:
        """Return the codes, given those of `value`, by extra parameters. The default changes nothing."""
        return z

    def encode(self, dictionary: Weights, x: Acts, path: Path) -> Codes:
        return self.encode_above(dictionary, x, path, dictionary.threshold)

    def encode_above(self, dictionary: Weights, x: Acts, path: Path, thresholds: Float[Tensor, " d_sae"]) -> Codes:
        """Return the codes of x with these thresholds in place of the dictionary's."""
        selected = None
        if path != "dense" and len(x):  # of no rows both forms are empty
            with torch.no_grad():
                limit = dictionary.dense_limit() if path == "auto" else float("inf")
                selected = self._selected(dictionary.chunks(x), thresholds, limit)
        if selected is None:
            low = dictionary.low_precision
            pre = encoded(x, dictionary.b_dec, dictionary.W_enc, dictionary.b_enc, bfloat16=low)
            return self.postprocess(DenseCodes(pre, self.dense(pre, thresholds), low), dictionary)
        pre, support = selected
        pre = encoded_pairs(x, dictionary.b_dec, dictionary.W_enc, dictionary.b_enc, pre, support)
        threshold = thresholds.index_select(0, support.latents)
        return self.postprocess(SparseCodes(pre, self.value(pre, threshold), support), dictionary)

    def _selected(self, chunks: Chunks, thresholds: Float[Tensor, " d_sae"], limit: float) -> Selection | None:
        """Return the support; None where codes are to be dense, which the first process of a group decides for all."""
        selected = self.support(chunks, thresholds, limit)
        if chunks.group.first(selected is None):
            return None
        return self.support(chunks, thresholds, float("inf")) if selected is None else selected


class Thresholded(Selecting):
    """An activation under which a latent is active where its pre-activation exceeds its threshold, which is 0
    unless `learns_threshold`."""

    splits: ClassVar[bool] = True

    def support(self, chunks: Chunks, threshold: Float[Tensor, " d_sae"], dense_above: float) -> Selection | None:
        learned = threshold.detach() if self.learns_threshold else torch.zeros_like(threshold)
        return above(chunks, learned - self.margin(), dense_above)

    def margin(self) -> float:
        """Return how far below its threshold a pre-activation still gets gradient."""
        return 0.0

    def kernel(self, pre: Float[Tensor, " *entry"], threshold: Float[Tensor, " per_entry"]) -> Float[Tensor, " *entry"]:
        """Return the density by which gradient reaches thresholds past the jump; 0 where they do not learn.
        `threshold`: one an entry or, of a matrix, one a column."""
        return torch.zeros_like(pre)

    @torch.no_grad()
    def start_at_l0(self, dictionary: Weights, sample: Acts, l0: int) -> None:
        if dictionary.b_enc.requires_grad:
            dictionary.b_enc.sub_(calibrate(l0, dictionary.chunks(sample)))

    def thresholds(
        self, dictionary: Weights, z: Codes, rows: Int[Tensor, " pair"], latents: Int[Tensor, " pair"]
    ) -> Float[Tensor, " pair"]:
        return dictionary.threshold[latents] if self.learns_threshold else z.values.new_zeros(len(rows))
