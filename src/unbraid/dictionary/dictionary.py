"""The dictionary: a linear encoder, an activation, and unit-norm atoms.

    pre = (x - b_dec) @ W_enc + b_enc,   z = activation(pre),   x_hat = z @ W_dec + b_dec,   |W_dec[i]| = 1

Parameter names and shapes are SAELens's, so a state dict is already an export. W_enc is stored with its d_sae rows
contiguous (a transposed view), because the sparse kernels read and write it a latent at a time.
"""

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from unbraid.dictionary.activation import DENSE_ABOVE, Activation, Chunks
from unbraid.dictionary.codes import Codes, DenseCodes, SparseCodes, encoded
from unbraid.dictionary.matching_pursuit import MatchingPursuit
from unbraid.sources.stream import check_finite

Acts = Float[Tensor, "batch d_in"]
Latents = Float[Tensor, "batch d_sae"]
Path = Literal["auto", "sparse", "dense"]


# Entries of one chunk of pre-activations: 16 MB in float32, about a core's share of cache.
CHUNK_ENTRIES = {"cpu": 2**22, "cuda": 2**28}


class Dictionary(nn.Module):
    """Linear encoder, activation, unit-norm atoms. Initialised by `DictionaryConfig.build` or filled by a loader."""

    def __init__(self, d_in: int, d_sae: int, activation: Activation, *, bfloat16: bool = False):
        super().__init__()
        self.activation = activation
        self.low_precision = bfloat16
        """Encoder products in bfloat16. On the sparse path they only propose the support; values are rescored
        exactly."""
        self.fitted: dict[str, Tensor] = {}
        """What an initialisation found besides the parameters; kept beside the run."""
        self.W_enc = nn.Parameter(torch.zeros(d_sae, d_in).t())
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.W_dec = nn.Parameter(torch.zeros(d_sae, d_in))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.threshold = nn.Parameter(torch.zeros(d_sae), requires_grad=activation.learns_threshold)
        for name in activation.own:
            self.register_parameter(name, nn.Parameter(torch.zeros(d_sae)))
        if activation.tied:
            self.W_enc.requires_grad_(False)
            self.b_enc.requires_grad_(False)

    @property
    def d_in(self) -> int:
        return self.W_dec.shape[1]

    @property
    def d_sae(self) -> int:
        return self.W_dec.shape[0]

    def pre_activations(self, x: Acts) -> Latents:
        return torch.addmm(self.b_enc, x - self.b_dec, self.W_enc)

    def chunks(self, x: Acts) -> Chunks:
        """Pre-activations of x a few rows at a time, without gradient."""
        rows = max(1, CHUNK_ENTRIES.get(x.device.type, 2**22) // self.d_sae)
        dtype = torch.bfloat16 if self.low_precision else x.dtype
        centred = (x - self.b_dec).detach().to(dtype)
        weight, bias = self.W_enc.detach().to(dtype), self.b_enc.detach().to(dtype)
        buffer = torch.empty(min(rows, len(x)), self.d_sae, dtype=dtype, device=x.device)

        def compute(part: slice) -> Tensor:
            out = buffer[: part.stop - part.start]
            return torch.addmm(bias, centred[part], weight, out=out)

        return Chunks(len(x), self.d_sae, rows, compute)

    def encode(self, x: Any, path: Path = "auto") -> Codes:
        """Codes of x, a tensor or NumPy array [batch, d_in] of real numbers, in the weights' precision. "auto" takes
        the sparse path while few latents are active, else the dense one. Raises ValueError when x is of another kind,
        shape or device, or holds NaN or infinity."""
        return self.codes(self._rows(x), path)

    def codes(self, x: Acts, path: Path = "auto") -> Codes:
        """`encode` without its checks, for rows that are known to be finite: what training calls at every step."""
        if isinstance(self.activation, MatchingPursuit):
            return self.activation.pursue(x - self.b_dec, self.W_dec, sparse={"auto": None}.get(path, path == "sparse"))
        return self.activation.finish(self._gated(x, path), dict(self.named_parameters()))

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

    def _gated(self, x: Acts, path: Path) -> Codes:
        """Codes as the activation selects and gates them."""
        selected = None
        if path != "dense" and len(x):  # of no rows both forms are empty
            with torch.no_grad():
                limit = DENSE_ABOVE if path == "auto" else float("inf")
                selected = self.activation.select(self.chunks(x), self.threshold, limit)
        if selected is None:
            pre = self._dense_pre(x)
            return DenseCodes(pre, self.activation.dense(pre, self.threshold))
        pre, support = selected
        if self.low_precision:
            exact = support.products((x - self.b_dec).detach(), self.W_enc.detach().t(), support.rows)
            pre = exact + self.b_enc.detach()[support.latents]
        pre = encoded(x, self.b_dec, self.W_enc, self.b_enc, pre, support)
        threshold = self.threshold.index_select(0, support.latents)
        return SparseCodes(pre, self.activation.gate(pre, threshold), support)

    def _dense_pre(self, x: Acts) -> Latents:
        if not self.low_precision:
            return self.pre_activations(x)
        product = (x - self.b_dec).bfloat16() @ self.W_enc.bfloat16()
        return product.to(x.dtype) + self.b_enc

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
