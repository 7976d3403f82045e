"""The tensors that terms keep from step to step: averages, queues of past codes, small networks."""

from collections.abc import Iterator, Mapping

from jaxtyping import Int
from torch import Tensor

from unbraid.objective.objective import Objective
from unbraid.training.resampling import forget

PREFIX = "memory/"


class TermMemory(Mapping[str, dict[str, Tensor]]):
    """The tensors of every term of an objective, by the term's name; terms write to them."""

    def __init__(self, objective: Objective, device: str):
        self._terms, self._device = objective.terms(), device
        self._by_term: dict[str, dict[str, Tensor]] = {name: {} for name in self._terms}

    def __getitem__(self, name: str) -> dict[str, Tensor]:
        return self._by_term[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_term)

    def __len__(self) -> int:
        return len(self._by_term)

    def forget(self, latents: Int[Tensor, " restarted"]) -> None:
        """Zero what terms remember of these latents."""
        for name, term in self._terms.items():
            kept = self._by_term[name]
            forget({key: kept[key] for key in term.per_latent if key in kept}, latents)

    def state(self) -> dict[str, Tensor]:
        return {f"{PREFIX}{name}/{key}": value for name, kept in self._by_term.items() for key, value in kept.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        for name, kept in self._by_term.items():
            prefix = f"{PREFIX}{name}/"
            saved = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            # Cloned: products round differently by where in memory tensors start, and mapped ones start anywhere.
            kept |= {key: value.to(self._device).clone() for key, value in saved.items()}
