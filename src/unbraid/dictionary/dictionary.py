"""The dictionary: a linear encoder, an activation, and unit-norm atoms.

pre = (x - b_dec) @ W_enc + b_enc,   z = activation(pre),   x_hat = z @ W_dec + b_dec,   |W_dec[i]| = 1
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.codes import Codes
from unbraid.dictionary.latent_shards import summed
from unbraid.dictionary.weights import Acts, Path, Weights
from unbraid.sources.stream import check_finite


class Dictionary(Weights):
    """Linear encoder, activation, unit-norm atoms. Initialised by `DictionaryConfig.build` or filled by a loader."""

    def __init__(self, d_in: int, d_sae: int, activation: Activation, *, bfloat16: bool = False):
        super().__init__(
            d_in,
            d_sae,
            learns_threshold=activation.learns_threshold,
            extra_parameters=activation.extra_parameters,
            tied=activation.tied,
            bfloat16=bfloat16,
        )
        self.activation = activation
        self.fitted: dict[str, Tensor] = {}
        """Results of an initialisation besides the parameters; kept with the run."""
        self.trained_as = ""
        """Name of the activation it was trained with, where that is another."""

    def __repr__(self) -> str:
        activation = f"{self.trained_as} -> {type(self.activation).__name__}" if self.trained_as else self.activation
        kind = str(self.W_dec.dtype).removeprefix("torch.")
        return f"Dictionary(d_in={self.d_in}, d_sae={self.d_sae}, {activation}, {kind} on {self.W_dec.device})"

    def encode(self, x: Any) -> Float[Tensor, "*fold d_sae"]:
        """Return the latents [..., d_sae] of x [..., d_in], a tensor or NumPy array of real numbers, with gradient and
        in the weights' precision. Raises ValueError when x is of another kind, width or device, or holds NaN or
        infinity. `codes` gives the same without zeros."""
        given = self._checked(x, self.d_in, "activations", "encode")
        return self.unchecked_codes(given.reshape(-1, self.d_in)).dense().reshape(*given.shape[:-1], self.d_sae)

    def codes(self, x: Any, path: Path = "auto") -> Codes:
        """Return the codes of x [batch, d_in], sparse while few latents are active ("auto"), or in the form that `path`
        names. For the rest as `encode`."""
        given = as_tensor(x, "activations")
        if given.ndim != 2:
            way = ""
            if given.shape[-1:] == (self.d_in,):
                way = "; give x[None]" if given.ndim == 1 else "; give x.flatten(0, -2), and shape what comes back"
            raise ValueError(f"expected activations [batch, {self.d_in}], got {list(given.shape)}{way}")
        return self.unchecked_codes(self._checked(given, self.d_in, "activations", "encode"), path)

    def unchecked_codes(self, x: Acts, path: Path = "auto") -> Codes:
        """Return the codes of rows that are known to be finite and to fit: what training calls at every step."""
        return self.activation.encode(self, x, path)

    def decode(self, z: Codes | Any) -> Float[Tensor, "*fold d_in"]:
        """Return reconstructions [..., d_in] of latents [..., d_sae], a tensor or NumPy array, or [batch, d_in] of
        codes. Raises ValueError for what are no latents of this dictionary."""
        if not isinstance(z, Codes):
            return self._checked(z, self.d_sae, "latents", "decode") @ self.W_dec + self.b_dec
        if z.d_sae != self.d_sae:
            raise ValueError(f"these codes are of {z.d_sae} latents, the dictionary has {self.d_sae}")
        if (z.values.dtype, z.values.device) != (self.W_dec.dtype, self.W_dec.device):
            raise ValueError(
                f"these codes are {z.values.dtype} on {z.values.device}, the dictionary is {self.W_dec.dtype} on "
                f"{self.W_dec.device}; encode with this dictionary, or move it"
            )
        # Of processes with some latents each, one alone has b_dec's gradient: it is summed over them.
        return self.written(z) + (self.b_dec if self.shards.leads else self.b_dec.detach())

    def written(self, z: Codes) -> Float[Tensor, "batch d_in"]:
        """Return the sums of active atoms, those that other processes hold (`shards`) among them, without b_dec."""
        return summed(z.decode(self.W_dec), self.shards)

    def forward(self, x: Any) -> Float[Tensor, "*fold d_in"]:
        """Return reconstructions of x [..., d_in], in its shape; for the rest as `encode`."""
        given = self._checked(x, self.d_in, "activations", "encode")
        return self.decode(self.unchecked_codes(given.reshape(-1, self.d_in))).reshape(given.shape)

    def _checked(self, x: Any, width: int, what: str, verb: str) -> Float[Tensor, "*fold width"]:
        """Return x in the weights' precision. Raises ValueError for what is no finite tensor or array
        [..., width] on the dictionary's device."""
        given = as_tensor(x, what)
        if given.shape[-1:] != (width,):
            raise ValueError(f"expected {what} [..., {width}], got {list(given.shape)}")
        if given.device != self.W_dec.device:
            raise ValueError(f"{what} are on {given.device}, the dictionary on {self.W_dec.device}; move one .to()")
        rows = given.to(self.W_dec.dtype)
        check_finite(rows.reshape(-1, width), f"as {str(rows.dtype).removeprefix('torch.')}, given to {verb}")
        return rows

    @torch.no_grad()
    def for_inference(self, sample: Acts) -> "Dictionary":
        """Return the dictionary as it is used after training, and as other libraries load it: BatchTopK becomes
        JumpReLU with one calibrated threshold, Gated JumpReLU with the same codes, most stay as they are.

        `sample`: normalised activations [batch, d_in] to calibrate on.
        """
        if not self.activation.for_training_only:
            return self
        activation, parameters = self.activation.for_inference(self, sample)
        made = Dictionary(self.d_in, self.d_sae, activation).to(self.W_dec)
        made.shards = self.shards
        made.load_state_dict(parameters)
        made.trained_as = type(self.activation).__name__
        return made

    @torch.no_grad()
    def in_order(self, order: Int[Tensor, " d_sae"]) -> "Dictionary":
        """Return the same dictionary with latents numbered anew: latent order[i] becomes latent i."""
        made = Dictionary(self.d_in, self.d_sae, self.activation).to(self.W_dec)
        for name, parameter in self.named_parameters():
            moved = parameter if name == "b_dec" else parameter.index_select(int(name == "W_enc"), order)
            made.get_parameter(name).copy_(moved)
        made.trained_as = self.trained_as
        return made

    @torch.no_grad()
    def project_gradient(self) -> None:
        """Remove the part of each atom's gradient along the atom, which unit norm would undo (Bricken et al. 2023)."""
        if self.W_dec.grad is not None:
            # A few thousand rows at a time stay in cache and need no temporary of the whole size.
            for grad, atoms in zip(self.W_dec.grad.split(2048), self.W_dec.split(2048), strict=True):
                grad.addcmul_(atoms, (grad * atoms).sum(1, keepdim=True), value=-1)

    @torch.no_grad()
    def renormalise(self) -> None:
        """Bring atoms back to unit norm, thresholds to at least 0, a tied encoder to the atoms."""
        if self.W_dec.requires_grad:
            self.W_dec.div_(torch.linalg.vector_norm(self.W_dec, dim=1, keepdim=True).clamp_min(1e-12))
        if self.threshold.requires_grad:
            self.threshold.clamp_(min=0)
        self.tie()

    @torch.no_grad()
    def tie(self) -> None:
        """Set a tied encoder to the transpose of the atoms."""
        if self.activation.tied:
            self.W_enc.copy_(self.W_dec.T)
            self.b_enc.zero_()


def as_tensor(x: Any, what: str = "activations") -> Tensor:
    """Return a tensor of real numbers as it is, a NumPy array as one. Raises ValueError, naming `what` was expected,
    for all else."""
    if isinstance(x, np.ndarray):
        if x.dtype.kind not in "fiub":
            raise ValueError(f"expected {what} of real numbers, got an array of {x.dtype}")
        # As float64 unless float32, so that NumPy's own kinds, byte orders and strides need no case each.
        return torch.from_numpy(np.array(x, dtype=np.float32 if x.dtype == np.float32 else np.float64, order="C"))
    if not isinstance(x, Tensor):
        kind = type(x).__name__
        raise ValueError(f"expected {what} as a tensor or NumPy array, got a {kind}; torch.tensor() makes one")
    if x.is_complex() or x.layout != torch.strided:
        raise ValueError(f"expected {what} as a dense tensor of real numbers, got {x.dtype} ({x.layout})")
    return x
