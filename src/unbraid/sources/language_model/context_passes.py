"""Whole windows with the downstream map, as `Contexts`; with or without the passes through their padding."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from unbraid.sources.base import Contexts
from unbraid.sources.language_model.downstream import capture
from unbraid.sources.language_model.next_token_map import NextTokenMap
from unbraid.sources.text.windows import Windows


def contexts_of(model: nn.Module, span: tuple[int, int], windows: Windows, max_norm: float) -> Contexts:
    """Return windows as contexts. `span`: first and last block of the map; rows of a larger norm are left out."""
    acts, base, downstream = capture(model, *span, windows.ids, windows.attention)
    mask = windows.keep & (acts.float().norm(dim=-1) <= max_norm)
    rounding = torch.finfo(acts.dtype).eps
    predict = NextTokenMap(model, span[1], windows)
    return Contexts(acts.float(), mask, base.float(), downstream, rounding=rounding, predict=predict)


def unpadded_contexts(model: nn.Module, span: tuple[int, int], windows: Windows, max_norm: float) -> Contexts:
    """Return the same, with a map that runs windows of like length together: on padding it gives 0, as `base` is."""
    groups = list(windows.by_length(0))
    found = [contexts_of(model, span, part, max_norm) for _, part in groups]
    places = torch.cat([which for which, _ in groups]).argsort()
    longest = windows.ids.shape[1]
    whole = lambda parts: together(parts, longest)[places]
    return Contexts(
        acts=whole([part.acts for part in found]),
        mask=together([part.mask.unsqueeze(-1) for part in found], longest)[places].squeeze(-1),
        base=whole([part.base for part in found]),
        downstream=(grouped := ByLength(tuple(which for which, _ in groups), tuple(found), places)),
        rounding=found[0].rounding,
        predict=grouped.predict,
    )


@dataclass(frozen=True, eq=False)
class ByLength:
    """The downstream maps of groups of windows, as one."""

    which: tuple[Int[Tensor, " _"], ...]
    """The windows of each group."""
    groups: tuple[Contexts, ...]
    places: Int[Tensor, " seq"]
    """The place of each window in the groups laid end to end."""

    def __call__(self, acts: Float[Tensor, "*fold seq pos d_in"]) -> Float[Tensor, "*fold seq pos d_out"]:
        parts = [
            group.downstream(acts[..., which, : group.acts.shape[1], :])
            for which, group in zip(self.which, self.groups, strict=True)
        ]
        return together(parts, acts.shape[-2]).index_select(-3, self.places)

    def predict(
        self, left: Float[Tensor, "*fold seq pos d_out"], at: Bool[Tensor, "seq pos"]
    ) -> Float[Tensor, "*fold token vocab"]:
        """Return the logits of the next token at the tokens that `at` names."""
        numbers = torch.full(at.shape, -1, device=at.device)
        numbers[at] = torch.arange(int(at.sum()), device=at.device)
        parts, order = [], []
        for which, group in zip(self.which, self.groups, strict=True):
            longest = group.acts.shape[1]
            assert group.predict is not None, "contexts of a language model"
            parts.append(group.predict(left[..., which, :longest, :], at[which, :longest]))
            order.append(numbers[which, :longest][at[which, :longest]])
        return torch.cat(parts, dim=-2).index_select(-2, torch.cat(order).argsort())


def together(parts: Sequence[Shaped[Tensor, "..."]], longest: int) -> Shaped[Tensor, "*fold seq pos d"]:
    """Return groups of windows [*fold, some, pos, d] end to end, with 0 in place of padding."""
    return torch.cat([nn.functional.pad(part, (0, 0, 0, longest - part.shape[-2])) for part in parts], dim=-3)
