"""Dictionaries whose latents are shared out to processes: which can be, and files of the whole of them.

A process has its latents' readers, atoms, biases and thresholds, with gradients, moments and counters, and all of
b_dec; it sees every row. What is written is what one process writes: the first collects it on the CPU, one tensor after
another, one process's latents after another's. So what is read can be shared out to any number of processes.
"""

import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from unbraid.dictionary.dictionary import Dictionary
from unbraid.experiment.experiment import Experiment
from unbraid.system.group import Group

COMMON = ("b_dec",)
"""Parameters of no latent."""
BY_LATENT = ("dictionary/", "adam/", "since_fired", "listed_dead")
"""How names of a state begin that may be of tensors with a row a latent."""
BY_COLUMN = "dictionary/W_enc"
"""The one with a column a latent."""


def check_shards(members: Sequence[Experiment], shards: Group) -> None:
    """Raise ValueError unless the latents of all members can be shared out to a group, which may be one process."""
    for member in () if shards.alone else members:
        if reason := unshardable(member, shards.size):
            raise ValueError(
                f"{member.label}: latents cannot be shared out to {shards.size} processes, as {reason}; or share "
                "batches out, without --shard-latents"
            )


def unshardable(member: Experiment, processes: int) -> str:
    """Return why a member's latents cannot be shared out, and what to set; empty where they can."""
    config, training = member.dictionary, member.training
    activation, init = type(config.activation).__name__, type(config.init).__name__
    terms = {name: term for name, term in member.objective.terms().items() if term.enabled}
    near = processes * max(1, round(config.d_sae / processes))
    found = [
        (
            config.d_sae % processes,
            f"{config.d_sae} latents are not {processes} equal shares: set --dictionary.d-sae {near}",
        ),
        (not config.activation.shards, f"{activation} may look at all latents together: take another activation"),
        (not config.init.shards, f"{init} starts all latents together: take RandomAtoms"),
        *(
            (not term.shards, f"term {name!r} ({type(term).__name__}) may look at latents together: leave it out")
            for name, term in terms.items()
        ),
        *(
            (term.gradient_ratio, f"the weight of {name!r} is set by the gradients of all latents: give it a weight")
            for name, term in terms.items()
        ),
        (config.orthonormal_blocks, "a block of atoms may be in two shares: set --dictionary.orthonormal-blocks 0"),
        (training.matmul != "float32", "each share would propose its own latents: set --training.matmul float32"),
        (training.resample_every, "dead latents start anew together: set --training.resample-every 0"),
    ]
    return next((reason for unfit, reason in found if unfit), "")


def by_latent(name: str, dimensions: int) -> bool:
    """Return whether a tensor of a state, by its name, has a row or a column a latent."""
    return dimensions > 0 and name.startswith(BY_LATENT) and not any(part in COMMON for part in name.split("/"))


def whole_state(state: Mapping[str, Tensor], shards: Group) -> dict[str, Tensor]:
    """Return a state with the latents of all processes in the first, on the CPU; in the others, what has none."""
    if shards.alone:
        return dict(state)
    whole: dict[str, Tensor] = {}
    for name, tensor in state.items():
        collected: Tensor | None = tensor
        if by_latent(name, tensor.ndim):
            collected = shards.collected(tensor.t() if name == BY_COLUMN else tensor)
        if collected is not None:
            whole[name] = collected.t() if name == BY_COLUMN else collected
    return whole


def own_state(whole: Mapping[str, Tensor], shards: Group) -> dict[str, Tensor]:
    """Return this process's part of the state that the first one has; the reverse of `whole_state`."""
    stored = {name: tensor.t() if name == BY_COLUMN else tensor for name, tensor in whole.items()}
    kinds = {name: (str(t.dtype).removeprefix("torch."), list(t.shape)) for name, t in stored.items()}
    kinds = json.loads(shards.first_text(json.dumps(kinds)))
    shared = {name: shape for name, (_, shape) in kinds.items() if by_latent(name, len(shape))}
    own = shards.named_tensors({name: tensor for name, tensor in stored.items() if name not in shared})
    for name, (latents, *rest) in shared.items():
        part = torch.empty(latents // shards.size, *rest, dtype=getattr(torch, kinds[name][0]))
        dealt = shards.dealt(stored.get(name), part)
        own[name] = dealt.t() if name == BY_COLUMN else dealt
    return own


def whole_dictionary(own: Dictionary) -> Dictionary:
    """Return the dictionary that processes hold together, in the first of them, on the CPU; in the others, an empty
    one."""
    shards = own.shards
    state = whole_state({f"dictionary/{name}": tensor for name, tensor in own.state_dict().items()}, shards)
    width = own.width if shards.leads else 0
    whole = Dictionary(own.d_in, width, own.activation, bfloat16=own.low_precision).to(own.W_dec.dtype)
    if shards.leads:
        whole.load_state_dict({name.removeprefix("dictionary/"): tensor for name, tensor in state.items()})
    return whole
