"""The dictionary: a linear encoder, an activation, and unit-norm atoms.

    pre = (x - b_dec) @ W_enc + b_enc,   z = activation(pre),   x_hat = z @ W_dec + b_dec,   |W_dec[i]| = 1

Parameter names and shapes are SAELens's, so a state dict is already an export. W_enc is stored with its d_sae rows
contiguous (a transposed view), because the sparse kernels read and write it a latent at a time.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge, Lt
from jaxtyping import Float
from torch import Tensor, nn

from unbraid import seeding
from unbraid.activation import DENSE_ABOVE, Activation, Chunks, JumpReLU, TopK, calibrate
from unbraid.codes import Codes, DenseCodes, SparseCodes, encoded
from unbraid.gated import Gated
from unbraid.matching_pursuit import MatchingPursuit
from unbraid.retraction import orthonormalise_blocks
from unbraid.settings import NonNegativeInt, PositiveInt, Settings
from unbraid.source import Source, check_finite

Acts = Float[Tensor, "batch d_in"]
Latents = Float[Tensor, "batch d_sae"]
Path = Literal["auto", "sparse", "dense"]

Parameter = Literal["W_enc", "b_enc", "W_dec", "b_dec", "threshold"]
Leash = Annotated[float, Ge(-1), Lt(1)]
"""A cosine; -1 is none. Atoms that are to stay where they start are frozen."""

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


@torch.no_grad()
def hold_near(
    atoms: Float[Tensor, "d_sae d_in"], start: Float[Tensor, "d_sae d_in"], cosine: float
) -> Float[Tensor, "d_sae d_in"]:
    """The nearest unit vectors to `atoms` (of unit norm) whose cosine to `start` is at least `cosine`."""
    along = (atoms * start).sum(1, keepdim=True)
    across = atoms - along * start
    across = across / torch.linalg.vector_norm(across, dim=1, keepdim=True).clamp_min(1e-12)
    return torch.where(along < cosine, cosine * start + math.sqrt(1 - cosine**2) * across, atoms)


@torch.no_grad()
def start_orthonormal(dictionary: Dictionary, size: int) -> None:
    """Retract the atoms, and an encoder that is their transpose with them."""
    tied = torch.equal(dictionary.W_enc, dictionary.W_dec.T)
    dictionary.W_dec.copy_(orthonormalise_blocks(dictionary.W_dec, size))
    if tied:
        dictionary.W_enc.copy_(dictionary.W_dec.T)


Watch = Callable[[int, int], None]
"""Told (done, in all) as work goes on: the command line shows a progress bar."""


def unwatched(done: int, total: int) -> None:
    pass


def not_kept(state: Mapping[str, Tensor]) -> None:
    pass


@dataclass(frozen=True)
class Kept:
    """Where an initialisation that takes minutes keeps what it has reached, so that a kill does not lose it. The
    default keeps nothing."""

    read: Callable[[], dict[str, Tensor]] = dict
    """What an earlier attempt reached; empty when there was none."""
    write: Callable[[Mapping[str, Tensor]], None] = not_kept
    """Told after each step what the rest depends on; `state` must not be changed in place afterwards."""
    finish: Callable[[Mapping[str, Tensor]], None] = not_kept
    """Told what was found."""


NOT_KEPT = Kept()


@dataclass(frozen=True)
class Origin:
    """Where a dictionary's activations come from, for initialisations that ask: (x - mean) / scale, x the source's."""

    source: Source
    mean: Float[Tensor, " d_in"]
    scale: Float[Tensor, ""]
    watch: Watch = unwatched
    """Told how far an initialisation that takes a while has come."""
    kept: Kept = NOT_KEPT


class Initialisation(Settings, ABC):
    sets_thresholds: ClassVar[bool] = False
    """Whether it fills JumpReLU's thresholds too; they are calibrated on the sample otherwise."""

    @abstractmethod
    def __call__(
        self, dictionary: Dictionary, sample: Acts, rng: torch.Generator, origin: Origin | None = None
    ) -> None:
        """Fill the parameters. `sample`: normalised activations; atoms must come out with unit norm."""


@dataclass(frozen=True)
class RandomAtoms(Initialisation):
    """Random unit atoms, the encoder their transpose, b_dec the mean of the data."""

    def __call__(
        self, dictionary: Dictionary, sample: Acts, rng: torch.Generator, origin: Origin | None = None
    ) -> None:
        atoms = torch.randn(dictionary.d_sae, dictionary.d_in, generator=rng)
        set_tied(dictionary, atoms, sample)


@dataclass(frozen=True)
class PrincipalComponents(Initialisation):
    """Principal directions and their negatives, most variance first: the linear control. At most 2 * d_in atoms."""

    def __call__(
        self, dictionary: Dictionary, sample: Acts, rng: torch.Generator, origin: Origin | None = None
    ) -> None:
        if dictionary.d_sae > 2 * dictionary.d_in:
            raise ValueError(
                f"PCA has only {2 * dictionary.d_in} signed directions in {dictionary.d_in} dimensions; "
                f"asked for {dictionary.d_sae} latents: set --dictionary.d-sae {2 * dictionary.d_in}"
            )
        centred = sample - sample.mean(0)
        _, vectors = torch.linalg.eigh(centred.T @ centred)
        components = vectors.flip(1).T
        set_tied(dictionary, torch.stack([components, -components], 1).flatten(0, 1)[: dictionary.d_sae], sample)


@torch.no_grad()
def set_tied(dictionary: Dictionary, atoms: Float[Tensor, "d_sae d_in"], sample: Acts) -> None:
    """Unit atoms, the encoder their transpose, b_dec the mean of the sample."""
    dictionary.W_dec.copy_(atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True))
    dictionary.W_enc.copy_(dictionary.W_dec.T)
    dictionary.b_dec.copy_(sample.mean(0))


@dataclass(frozen=True, kw_only=True)
class DictionaryConfig(Settings):
    d_sae: PositiveInt = 4096
    """Number of latents."""
    activation: Activation = TopK(32)
    """Which latents stay active, and how many."""
    init: Initialisation = RandomAtoms()
    """How atoms start."""
    frozen: tuple[Parameter, ...] = ()
    """Parameters that are not trained, among W_enc b_enc W_dec b_dec: ("W_dec",) is the frozen-decoder control."""
    leash: Leash = -1.0
    """Smallest cosine of a trained atom to where it started; -1 leaves atoms free. 0.8 is the soft-frozen decoder of
    Korznikov et al. 2026 (arXiv 2602.14111)."""
    orthonormal_blocks: NonNegativeInt = 0
    """Keep every so many atoms in a row exactly orthonormal: retracted to the nearest such block at the start and after
    each update. It divides d_sae and is at most d_in; 0 leaves atoms free. The strict form of the decoder penalties."""

    def check_together(self) -> None:
        k, size = getattr(self.activation, "k", 1), self.orthonormal_blocks
        if isinstance(k, int | float) and k > self.d_sae:
            raise ValueError(f"k = {k} latents cannot be active out of d_sae = {self.d_sae}")
        if size and self.d_sae % size:
            raise ValueError(
                f"orthonormal_blocks {size} does not divide d_sae = {self.d_sae}: "
                "set --dictionary.orthonormal-blocks to a divisor, or 0 for none"
            )
        if size and self.leash > -1:
            raise ValueError("orthonormal_blocks and leash both say where atoms may be; leave one out")

    def build(self, sample: Acts, *, seed: int, bfloat16: bool = False, origin: Origin | None = None) -> Dictionary:
        """An initialised dictionary on the CPU. `sample`: normalised activations. Raises ValueError
        for what these activations do not allow."""
        dictionary = Dictionary(sample.shape[1], self.d_sae, self.activation, bfloat16=bfloat16)
        if self.orthonormal_blocks > dictionary.d_in:
            raise ValueError(
                f"{self.orthonormal_blocks} atoms cannot be orthonormal in {dictionary.d_in} dimensions: "
                f"set --dictionary.orthonormal-blocks to {dictionary.d_in} or less"
            )
        self.init(dictionary, sample, seeding.stream(seed, "init"), origin)
        if self.orthonormal_blocks:
            start_orthonormal(dictionary, self.orthonormal_blocks)
        dictionary.tie()
        if isinstance(self.activation, Gated):
            # Whatever an initialisation gave the gate, magnitudes begin as the gate's own values.
            dictionary.get_parameter("b_mag").data.copy_(dictionary.b_enc)
        if isinstance(self.activation, JumpReLU) and not self.init.sets_thresholds:
            start = calibrate(min(self.activation.initial_l0, max(1, self.d_sae // 4)), dictionary.chunks(sample))
            dictionary.threshold.data.fill_(start)
        for name in self.frozen:
            getattr(dictionary, name).requires_grad_(False)
        return dictionary
