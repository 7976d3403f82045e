"""The dictionary: a linear encoder, an activation, and unit-norm atoms.

pre = (x - b_dec) @ W_enc + b_enc,   z = activation(pre),   x_hat = z @ W_dec + b_dec,   |W_dec[i]| = 1
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.codes import Codes
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
        """What an initialisation found besides the parameters; kept with the run."""

    def encode(self, x: Any, path: Path = "auto") -> Codes:
        """Codes of x, a tensor or NumPy array [batch, d_in] of real numbers, in the weights' precision. "auto" takes
        the sparse path while few latents are active, else the dense one. Raises ValueError when x is of another kind,
        shape or device, or holds NaN or infinity."""
        return self.codes(self._rows(x), path)

    def codes(self, x: Acts, path: Path = "auto") -> Codes:
        """`encode` without its checks, for rows that are known to be finite: what training calls at every step."""
        return self.activation.encode(self, x, path)

    def _rows(self, x: Any) -> Acts:
        """x as rows that the encoder takes as they are. Raises ValueError for what it cannot take."""
        given = as_tensor(x)
        if given.ndim != 2 or given.shape[1] != self.d_in:
            shape = list(given.shape)
            way = ""
            if given.ndim != 2 and shape[-1:] == [self.d_in]:
                way = "; give x[None]" if given.ndim == 1 else "; give x.flatten(0, -2), and shape what comes back"
            raise ValueError(f"expected activations [batch, {self.d_in}], got {shape}{way}")
        if given.device != self.W_dec.device:
            raise ValueError(
                f"activations are on {given.device}, the dictionary on {self.W_dec.device}; move one .to()"
            )
        rows = given.to(self.W_dec.dtype)
        check_finite(rows, f"as {str(rows.dtype).removeprefix('torch.')}, given to encode")
        return rows

    def decode(self, z: Codes | Any) -> Acts:
        """Reconstructions [batch, d_in]. Raises ValueError for what are no codes of this dictionary's latents."""
        if not isinstance(z, Codes):
            raise ValueError(
                f"decode takes what encode returns, got {kind_of(z)}; DenseCodes(z, z) of a dense tensor z"
            )
        if z.d_sae != self.d_sae:
            raise ValueError(f"these codes are of {z.d_sae} latents, the dictionary has {self.d_sae}")
        if (z.values.dtype, z.values.device) != (self.W_dec.dtype, self.W_dec.device):
            raise ValueError(
                f"these codes are {z.values.dtype} on {z.values.device}, the dictionary is {self.W_dec.dtype} on "
                f"{self.W_dec.device}; encode with this dictionary, or move it"
            )
        return z.decode(self.W_dec) + self.b_dec

    def forward(self, x: Any) -> Float[Tensor, "*fold d_in"]:
        """Reconstructions of x [..., d_in], in its shape; for the rest as `encode`."""
        given = as_tensor(x)
        if given.ndim < 1:
            raise ValueError(f"expected activations [..., {self.d_in}], got a single number")
        rows = given if given.ndim == 2 else given.reshape(-1, given.shape[-1])
        return self.decode(self.encode(rows)).view(*given.shape[:-1], self.d_in)

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
        made.load_state_dict(parameters)
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
        """Atoms back to unit norm, thresholds back to non-negative, a tied encoder back to the atoms."""
        if self.W_dec.requires_grad:
            self.W_dec.div_(torch.linalg.vector_norm(self.W_dec, dim=1, keepdim=True).clamp_min(1e-12))
        if self.threshold.requires_grad:
            self.threshold.clamp_(min=0)
        self.tie()

    @torch.no_grad()
    def tie(self) -> None:
        """Make the encoder the atoms again, where the activation has it so."""
        if self.activation.tied:
            self.W_enc.copy_(self.W_dec.T)
            self.b_enc.zero_()


def as_tensor(x: Any) -> Tensor:
    """A tensor of real numbers as it is, a NumPy array as one. Raises ValueError for all else."""
    if isinstance(x, np.ndarray):
        if x.dtype.kind not in "fiub":
            raise ValueError(f"expected activations of real numbers, got an array of {x.dtype}")
        # As float64 unless float32, so that NumPy's own kinds, byte orders and strides need no case each.
        return torch.from_numpy(np.array(x, dtype=np.float32 if x.dtype == np.float32 else np.float64, order="C"))
    if not isinstance(x, Tensor):
        raise ValueError(f"expected activations as a tensor or NumPy array, got {kind_of(x)}; torch.tensor() makes one")
    if x.is_complex() or x.layout != torch.strided:
        raise ValueError(f"expected activations as a dense tensor of real numbers, got {x.dtype} ({x.layout})")
    return x


def kind_of(x: object) -> str:
    return f"a {type(x).__name__}"
