"""What stepping members of one shape together would save: python -m benchmarks.stacked_steps --out FILE

TopK or BatchTopK dictionaries with the reconstruction alone, as one of M times as many latents and rows: one batched
product encodes for all, and the sparse kernels see each member's rows and latents after the last one's. The largest of
a batch are looked for member by member, as each has a budget of its own. The same code steps
them one by one (M = 1), so that the ratio is of stacking alone; `step_ms` is training's own step of one of them, with
all that it allows for. Core-seconds (user and system) a member, one thread, in turn; `equal` says whether stacked
parameters are those of members stepped alone bit for bit, `apart` by how much they differ. Training does not stack.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.small_shapes import AT_ONCE, SHAPES, WARM_UP, ms, steps_of
from unbraid.dictionary.activations.selection import Selection, ascending_top_k, largest_above_bound, support_of
from unbraid.dictionary.codes import SparseCodes, SparseSupport
from unbraid.dictionary.weights import Chunks
from unbraid.sources.world.world import World
from unbraid.system.files import write_json
from unbraid.terms.statistics.squared_error import squared_error

MEMBERS = (1, 4, 8)


class Stacked:
    """Dictionaries of one shape and activation with an optimiser, stepped together."""

    def __init__(self, seeds: Sequence[int], d_in: int, d_sae: int, k: int, kind: str):
        drawn = [torch.randn(d_sae, d_in, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        atoms = torch.nn.functional.normalize(torch.stack(drawn), dim=2)
        self.W_enc, self.W_dec = (atoms.clone().requires_grad_() for _ in range(2))
        self.b_enc = torch.zeros(len(seeds), d_sae, requires_grad=True)
        self.b_dec = torch.zeros(len(seeds), d_in, requires_grad=True)
        self.parameters = [self.W_enc, self.b_enc, self.W_dec, self.b_dec]
        self.adam = torch.optim.AdamW(self.parameters, lr=3e-3, weight_decay=0.0, fused=True)
        self.k, self.select = k, {"topk": self._of_rows, "batchtopk": self._of_batch}[kind]
        self.fired = torch.zeros(len(seeds) * d_sae, dtype=torch.long)

    def step(self, x: Tensor) -> None:
        """One update of every member on the same rows."""
        members, d_sae, d_in = self.W_dec.shape
        with torch.no_grad():
            centred = x - self.b_dec.unsqueeze(1)
            pre = torch.baddbmm(self.b_enc.unsqueeze(1), centred, self.W_enc.transpose(1, 2))
            values, support = self.select(pre)
        pairs = _StackedPairs.apply(self.W_enc, self.b_enc, values, centred.view(-1, d_in), support)
        codes = SparseCodes(pairs, pairs.relu(), support)
        decoded = codes.decode(self.W_dec.view(-1, d_in)).view(members, len(x), d_in)
        predicted = decoded + self.b_dec.unsqueeze(1)
        loss = squared_error(predicted, x.expand_as(predicted)) / len(x)
        loss.backward()
        assert bool(torch.isfinite(loss))
        self._update()
        self.fired = codes.firings()

    def _of_rows(self, pre: Tensor) -> Selection:
        """Select the k largest of every row."""
        members, rows, d_sae = pre.shape
        values, latents = ascending_top_k(pre.view(-1, d_sae), self.k)
        first = (torch.arange(members) * d_sae).repeat_interleave(rows).unsqueeze(1)
        offsets = torch.arange(0, latents.numel() + 1, self.k)
        return values.view(-1), SparseSupport((latents + first).reshape(-1), offsets, members * d_sae)

    def _of_batch(self, pre: Tensor) -> Selection:
        """Select the k a row that are largest in each member's batch."""
        members, rows, d_sae = pre.shape
        chunks = [Chunks(rows, d_sae, rows, pre.device, own.__getitem__) for own in pre]
        found = [largest_above_bound(own, self.k, self.k * rows) for own in chunks]
        row = torch.cat([places.div(d_sae, rounding_mode="floor") + m * rows for m, (_, places) in enumerate(found)])
        latents = torch.cat([places % d_sae + m * d_sae for m, (_, places) in enumerate(found)])
        values = torch.cat([values for values, _ in found])
        return values, support_of(row, latents, members * rows, members * d_sae, None)

    @torch.no_grad()
    def _update(self) -> None:
        """Clip each member's gradient, update, and bring atoms back to unit norm."""
        grads = {name: getattr(self, name).grad for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
        grads["b_dec"] -= torch.bmm(grads["b_enc"].unsqueeze(1), self.W_enc).squeeze(1)
        grads["W_dec"].addcmul_(self.W_dec, (grads["W_dec"] * self.W_dec).sum(2, keepdim=True), value=-1)
        norms = torch.stack([torch.linalg.vector_norm(grad.flatten(1), dim=1) for grad in grads.values()])
        scale = torch.linalg.vector_norm(norms, dim=0).clamp_min(1.0)
        for grad in grads.values():
            grad.div_(scale.view(-1, *[1] * (grad.ndim - 1)))
        self.adam.step()
        self.adam.zero_grad()
        self.W_dec.div_(torch.linalg.vector_norm(self.W_dec, dim=2, keepdim=True).clamp_min(1e-12))


class _StackedPairs(torch.autograd.Function):
    """The pre-activations of chosen pairs, with the gradient of having encoded these alone."""

    @staticmethod
    def forward(ctx: Any, W_enc: Tensor, b_enc: Tensor, pre: Tensor, centred: Tensor, support: SparseSupport) -> Tensor:
        ctx.save_for_backward(centred)
        ctx.support, ctx.shape = support, W_enc.shape
        return pre.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (centred,), support = ctx.saved_tensors, ctx.support
        d_bias = torch.zeros(support.d_sae).index_add_(0, support.latents, grads[0])
        d_W = support.sum_by_latent(grads[0], centred, support.rows_by_latent)
        return d_W.view(ctx.shape), d_bias.view(ctx.shape[:2]), None, None, None


def core_seconds(step: Callable[[], Any]) -> float:
    """Of one step, over a few."""
    start = time.process_time()
    for _ in range(AT_ONCE):
        step()
    return (time.process_time() - start) / AT_ONCE


def row_of(shape: str, kind: str, members: int, rounds: int) -> dict[str, Any]:
    """Measure a number of members of a shape."""
    d_in, d_sae, k, rows = SHAPES[shape]
    x = World(factors=max(d_sae, 128), d_in=d_in, l0=float(k)).labelled(rows, split="train").x
    together = Stacked(range(members), d_in, d_sae, k, kind)
    alone = [Stacked([seed], d_in, d_sae, k, kind) for seed in range(members)]
    training, _ = steps_of(SHAPES[shape], kind)
    for step in (lambda: together.step(x), *(lambda one=one: one.step(x) for one in alone), training):
        for _ in range(WARM_UP):
            step()
    pairs = zip(together.parameters, zip(*(one.parameters for one in alone), strict=True), strict=True)
    apart = [float((stacked - torch.cat(parts)).detach().abs().max()) for stacked, parts in pairs]
    seconds: list[tuple[float, float, float]] = []
    for _ in range(rounds):
        stacked = core_seconds(lambda: together.step(x)) / members
        single = sum(core_seconds(lambda one=one: one.step(x)) for one in alone) / members
        seconds.append((stacked, single, core_seconds(training)))
    names = ("stacked_ms", "alone_ms", "step_ms")
    found = {
        name: [ms(f(of)) for f in (min, statistics.median, max)]
        for name, of in zip(names, zip(*seconds, strict=True), strict=True)
    }
    return {
        "shape": shape, "kind": kind, "members": members, "d_in": d_in, "d_sae": d_sae, "k": k, "batch": rows,
        "rounds": rounds, **found,
        "alone_over_stacked": round(statistics.median(single / stacked for stacked, single, _ in seconds), 2),
        "equal": not any(apart), "apart": max(apart), "apart_after": WARM_UP,
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["demo", "wider", "language"])
    parser.add_argument("--kinds", nargs="+", choices=("topk", "batchtopk"), default=["topk", "batchtopk"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the rows to this JSON file")
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = []
    for shape, kind, members in product(chosen.shapes, chosen.kinds, MEMBERS):
        rows.append(row_of(shape, kind, members, chosen.rounds))
        print(json.dumps(rows[-1]), flush=True)
        if chosen.out:
            write_json(chosen.out, rows)


if __name__ == "__main__":
    main()
