"""Sites: the places of a block that activations are read at, each proven on one batch of random tokens.

    resid_pre + attn_out + mlp_out = resid_post

A place is a sublayer's site when this holds as the model is, and again with other activations put there. The residual
stream is what a block gives, what the next one gets and what the model calls its hidden state. Putting back what was
read moves no logit. What does not hold is refused with the reason.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from unbraid import seeding
from unbraid.sources.language_model.blocks import block_at
from unbraid.sources.language_model.hooks import HookPoint
from unbraid.sources.language_model.probe import FAILURES, Probe, Seen, Unproven, in_one_line, is_sum, same

Site = Literal["resid_post", "resid_pre", "mlp_out", "attn_out"]

ROLES: Mapping[str, tuple[str, ...]] = {
    "attn_out": ("attn", "attention"),
    "mlp_out": ("mlp", "ffn", "feed_forward", "feedforward", "moe", "ff", "fc2", "output"),
}
"""Words in the name of a block's child that say which sublayer it is of. Where its output is added is then proven: in
Gemma 2 and 3, OLMo 2 and GLM 4 after a norm of its own, in BLOOM before the residual is added inside it."""
PROVEN: WeakKeyDictionary[nn.Module, dict[tuple[int, Site], HookPoint | str]] = WeakKeyDictionary()
"""Places found, or the reason that there is none."""


def hook_point(model: nn.Module, layer: int, site: Site) -> HookPoint:
    """Return the place of `site` in block `layer`. Raises ValueError, with the reason, when this model has none."""
    block_at(model, layer)
    known = PROVEN.setdefault(model, {})
    if (layer, site) not in known:
        known[layer, site] = _found(model, layer, site)
    found = known[layer, site]
    if isinstance(found, str):
        other = "" if site == "resid_post" else "; use --source.site resid_post"
        raise ValueError(f"{type(model).__name__} has no {site} at block {layer}: {found}{other}")
    return found


def _found(model: nn.Module, layer: int, site: Site) -> HookPoint | str:
    probe = Probe(model, layer)
    try:
        residual_stream(probe, site)
        if site in ROLES:
            return sublayer(probe, site)
        place = HookPoint(probe.block, probe.path, of_input=site == "resid_pre")
        check_put_back(probe, place, probe.clean.entered[0] if place.of_input else probe.clean.left[0])
        return place
    except Unproven as reason:
        return str(reason)
    except FAILURES as error:
        return f"one batch of random tokens fails in it ({in_one_line(error)})"


# ---- the residual stream -----------------------------------------------------------------------------------


def residual_stream(probe: Probe, site: Site) -> None:
    """Raise Unproven unless the block maps one vector per token to another, as its neighbours give and get them."""
    seen = probe.clean
    if len(seen.entered) != 1 or len(seen.left) != 1:
        raise Unproven(f"its block {probe.layer} runs {len(seen.left)} times in one pass")
    before, after = seen.entered[0], seen.left[0]
    for hidden in (before, after):
        if not isinstance(hidden, Tensor):
            raise Unproven(f"its blocks hand on a {type(hidden).__name__}, not a tensor of activations")
        if hidden.ndim != 3:
            raise Unproven(f"its blocks hand on {list(hidden.shape)}, several streams or none, not one vector a token")
    if before.shape != after.shape:
        raise Unproven(f"its block gets {list(before.shape)} and gives {list(after.shape)}")
    at = probe.layer
    if site != "resid_post":
        _handed_on(before, seen, seen.came, f"what enters block {at} is not what the one before gave")
    if site != "resid_pre" and at + 1 < len(probe.blocks[1]):
        _handed_on(after, seen, seen.handed, f"what block {at} gives is not what the next one gets")


def _handed_on(hidden: Tensor, seen: Seen, neighbour: list[Any], otherwise: str) -> None:
    """Raise Unproven unless the neighbour has the same, and it is among what the model calls its hidden states."""
    if not all(isinstance(other, Tensor) and same(other, hidden) for other in neighbour):
        raise Unproven(f"{otherwise}: the model changes it between them")
    # Among them, not at a given place: Mamba leaves the embeddings out.
    states = [state for state in seen.hidden_states if isinstance(state, Tensor)]
    if states and not any(same(state, hidden) for state in states):
        raise Unproven("what its blocks hand on is not among what the model calls its hidden states")


def check_put_back(probe: Probe, place: HookPoint, acts: Tensor) -> None:
    """Raise Unproven when the activations themselves, put back, move the logits."""
    again = probe.run(place, acts)
    if not same(again.logits, probe.clean.logits):
        raise Unproven(f"putting the activations of {place.name} back moves the logits")


# ---- what attention and MLP add to it ----------------------------------------------------------------------


def sublayer(probe: Probe, site: Site) -> HookPoint:
    """Return the place of a sublayer's output as the block adds it.

    Raises Unproven, with the reason, when there is none.
    """
    seen = probe.clean
    gave, inside = seen.once(), [name for name, _ in probe.block.named_modules()]
    step = ResidualStep(seen.entered[0], seen.left[0], {name: gave[name] for name in inside if name in gave})
    named = [name for name in inside if role(name) == site]
    # The sublayer itself, before what only passes it on.
    named.sort(key=lambda name: isinstance(probe.block.get_submodule(name), nn.Dropout))
    if not named:
        held = sorted(name for name, _ in probe.block.named_children())
        raise Unproven(f"its blocks hold {held}, none of which is that by its name")
    for name in named:
        if name in step.gave and (other := step.other(name)) is not None:
            place = HookPoint(
                probe.block.get_submodule(name),
                f"{probe.path}.{name}",
                flat=step.gave[name].ndim == 2,
                block=probe.block,
            )
            return proven(probe, place, name, other)
    raise Unproven(step.no_match(named))


def proven(probe: Probe, place: HookPoint, name: str, other: str) -> HookPoint:
    """Return `place`, when the block adds whatever is put there. Raises Unproven otherwise."""
    acts, stream = probe.clean.gave[name][0], probe.clean.entered[0]
    check_put_back(probe, place, acts.view(stream.shape))
    noise = torch.randn(stream.shape, generator=seeding.stream(0, "put"), dtype=torch.float32)
    put = acts.view(stream.shape) + noise.to(acts) * acts.float().square().mean().sqrt().to(acts)
    seen = probe.run(place, put)
    added = [seen.entered[0], put, *([seen.gave[other][0]] if other else [])]
    if same(seen.left[0], probe.clean.left[0]) or not is_sum(seen.left[0], added):
        raise Unproven(f"its block does not add what is put at {place.name}")
    return place


def role(name: str) -> str:
    """Return the sublayer that a module is part of, by the name of the block's child; empty when it does not say."""
    child = name.split(".")[0]
    found = [site for site, words in ROLES.items() if re.search(rf"(^|_)({'|'.join(words)})\d*($|_)", child)]
    return found[0] if len(found) == 1 else ""


@dataclass(frozen=True, eq=False)
class ResidualStep:
    """The change that a block makes to the residual stream, and the outputs of its modules that could be part of it."""

    before: Tensor
    after: Tensor
    gave: Mapping[str, Tensor]

    def other(self, name: str) -> str | None:
        """Return the module that makes up the step together with sublayer `name`.

        It is "" when the sublayer is the whole step, and None when no module completes it.
        """
        if self._made_of(name):
            return ""
        return next((o for o in self.gave if self._apart(name, o) and self._made_of(name, o)), None)

    def _apart(self, name: str, other: str) -> bool:
        """Return whether two modules are apart, and not of one sublayer."""
        return not nested(name, other) and role(name) != role(other)

    def _made_of(self, *names: str) -> bool:
        return is_sum(self.after, [self.before, *(self.gave[name] for name in names)])

    def no_match(self, named: list[str]) -> str:
        """Return why none of these modules gives what the block adds, as the end of a sentence."""
        here = [name for name in named if name in self.gave]
        if not here:
            return f"{named[0]} gives no tensor of the size of the residual stream, once a pass"
        for name in here:
            if same(self.gave[name].view(self.after.shape), self.after):
                return f"{name} gives the whole residual stream, with nothing in it that is what the block adds"
        reason = next((found for name in here for found in (self._third(name), self._scale(name)) if found), "")
        return reason or (
            f"the block adds no {here[0]} as it stands: it scales, normalises or gates what attention and MLP give"
        )

    def _third(self, name: str) -> str:
        """Return a sentence on what the block adds besides attention and MLP; empty when it adds nothing else."""
        apart = [other for other in self.gave if not nested(name, other)]
        for pair in combinations(apart, 2):
            if not nested(*pair) and self._made_of(name, *pair):
                return (
                    f"the block adds {pair[0]} and {pair[1]} besides {name}: attention and MLP alone are not its step"
                )
        return ""

    def _scale(self, name: str) -> str:
        """Return a sentence on the factor that the block scales this sublayer by; empty when there is none."""
        step = self.after.double() - self.before.double()
        for other in (other for other in self.gave if self._apart(name, other) and role(other)):
            columns = torch.stack([self.gave[name].double().flatten(), self.gave[other].double().flatten()], 1)
            factors = torch.linalg.lstsq(columns.cpu(), step.flatten()[:, None].cpu()).solution.flatten().tolist()
            added = [f * self.gave[n].double() for f, n in zip(factors, (name, other), strict=True)]
            if is_sum(self.after, [self.before, *added]):
                return f"the block adds {factors[0]:.4g} times what {name} gives, and no module gives that"
        return ""


def nested(name: str, other: str) -> bool:
    """Return whether one module lies in the other."""
    return f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}.")
