"""One member of a cohort as it is trained: a dictionary, and what changes it and is changed step by step."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from unbraid import seeding
from unbraid.dictionary.codes import Codes
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.initialisation import NOT_KEPT, Kept, Origin, ProgressCallback, no_progress
from unbraid.dictionary.kernels import kernels_named
from unbraid.dictionary.normaliser import Normaliser
from unbraid.experiment.experiment import Experiment
from unbraid.objective import l0_control
from unbraid.objective.objective import Step
from unbraid.objective.step_data import ExtraInputs
from unbraid.objective.weighted_sum import NotFinite, all_finite, culprits, evaluate
from unbraid.sources.base import Batch, Counterfactuals
from unbraid.system.devices import rounded_products, sent
from unbraid.system.group import ALONE, Group
from unbraid.training import optimiser, term_memory
from unbraid.training.constraints import Constraints
from unbraid.training.dead_latents import DeadLatents
from unbraid.training.finite_checks import EVERY, FiniteChecks, FoundLate
from unbraid.training.l0_controller import L0Controller
from unbraid.training.latent_shards import COMMON, whole_dictionary
from unbraid.training.optimiser import BadGradient, Optimiser
from unbraid.training.schedule import steps
from unbraid.training.term_memory import TermMemory


class Learner:
    """A dictionary in training, or this process's latents of one. Its state is what a checkpoint holds of these."""

    def __init__(
        self, experiment: Experiment, sample: Tensor, watch: ProgressCallback = no_progress, kept: Kept = NOT_KEPT,
        group: Group = ALONE,
    ):  # fmt: skip
        """`sample`: raw activations [batch, d_in] for the normaliser and the initialisation. `watch`: called with
        (done, total) by an initialisation that takes a while. `kept`: where what it has reached is kept. `group`: the
        processes that each batch, or the dictionary, is shared out to."""
        training = experiment.training
        self.experiment, self.group = experiment, group
        normaliser = Normaliser.fit(
            sample, training.normalise, ridge=training.whiten_ridge, power=training.whiten_power
        )
        self.normaliser = normaliser.to(training.device)
        self.dictionary = experiment.dictionary.build(
            normaliser(sample), seed=experiment.seed, bfloat16=training.matmul == "bfloat16",
            origin=Origin(experiment.source, normaliser, watch, kept), shards=group.latents,
        )  # fmt: skip
        self.dictionary.kernels = kernels_named(training.kernels, training.device)
        target = experiment.objective.target_l0
        self.dictionary.to(training.device).dense_above = training.dense_above
        if target is not None and not experiment.dictionary.init.sets_thresholds:
            rows = sent(sample[: l0_control.ROWS], training.device)
            l0_control.start_at(self.dictionary, self.normaliser(rows), target.l0)
        # Processors of several kinds may round differently: all go on from the same numbers.
        group.copy_first([*self.normaliser.tensors().values(), *self.common_parameters().values()])
        self.steps = steps(training)
        self.begins = 0
        """The step it goes on from: it waits for the others of its cohort when they are behind."""
        self.optimiser = Optimiser(self.dictionary, training)
        self.constraints = Constraints(experiment.dictionary, self.dictionary)
        self.dead_latents = DeadLatents(self.dictionary.d_sae, training, experiment.seed)
        self.l0_controller = L0Controller(experiment.objective, self.steps, training.device)
        self.finite_checks = FiniteChecks(training.device)
        self.memory = TermMemory(experiment.objective, training.device)
        self._parts = (self.optimiser, self.dead_latents, self.l0_controller, self.memory)

    def step(self, batch: Batch, index: int, extra: ExtraInputs, *, logged: bool = True) -> dict[str, Tensor]:
        """Make one update on a batch of raw activations, or on this process's share of it; what to log, by name, which
        is nothing unless `logged`. Raises NotFinite, naming the term, for a loss or a gradient that is not finite; the
        parameters are then as before the step. On devices that work off a queue that is found out a few steps later, or
        when `check` is called."""
        checks, scale = self.finite_checks, self.l0_controller.scale()
        if index % EVERY == 0:
            self.check()
        checks.begin(batch, index, extra)
        step, metrics = self._backward(batch, index, extra, scale, checks.finite, logged=logged)
        self.optimiser.step(index, checks.bad(index))
        self.constraints.apply()
        firings, rows = self.group.rows.sum(step.z.firings()), len(step.x) * self.group.rows.size
        self.dead_latents.count(firings > 0, rows)
        self._restart_dead_latents(step.x, index)
        latents = self.group.latents
        l0 = latents.sum(firings.sum()).to(step.x.dtype) / rows
        self.l0_controller.update(l0)
        if not logged:
            return {}
        return {
            **metrics, "metrics/l0": l0, "sparsity/dead": latents.sum(step.dead.sum()),
            **self.l0_controller.metrics(scale),
        }  # fmt: skip

    def finished(self) -> Dictionary:
        """Return the dictionary as training leaves it, latents in the order that the reconstruction saves them in. What
        an initialisation fitted goes by the number of a latent, which then stays. Of one that a group holds together,
        the first process gets the whole, on the CPU; the others' is empty."""
        self.dictionary.activation = self.experiment.dictionary.activation
        if not self.group.latents.alone:
            return whole_dictionary(self.dictionary)
        order = self.experiment.objective.reconstruction.saved_order(self.memory["reconstruction"])
        return self.dictionary if order is None or self.dictionary.fitted else self.dictionary.in_order(order)

    def check(self) -> None:
        """Raise FoundLate, with the reason, when a step that was not checked yet was bad."""
        found = self.finite_checks.look()
        if found is None:
            return
        index, batch, extra = found
        try:
            self._backward(batch, index, extra, self.l0_controller.scale(), all_finite)
        except NotFinite as error:
            raise FoundLate(index, str(error)) from error
        again = "is when computed again; lower the learning rate"
        raise FoundLate(index, f"a loss or a gradient was not finite at step {index}, and {again}")

    def _backward(
        self,
        batch: Batch,
        index: int,
        extra: ExtraInputs,
        scale: Mapping[str, float | Tensor],
        finite: Callable[[Tensor], bool],
        logged: bool = False,
    ) -> tuple[Step, dict[str, Tensor]]:
        """Compute the gradients of a step for the optimiser; return the step and what to log."""
        x = self.normaliser(batch.x)
        self.dictionary.activation = self.experiment.dictionary.activation.at(index / self.steps)
        with self._products():
            z = self._codes(x)
        step = self._step(batch, x, z, index, extra, logged)
        streams = partial(self._term_stream, index)
        loss, metrics = evaluate(
            self.experiment.objective, step, index, scale=scale, streams=streams, memory=self.memory, finite=finite
        )
        with self._products():
            loss.backward()
        self._reduce_gradients()
        self.constraints.project_gradient()
        try:
            self.optimiser.take_gradients(finite)
        except BadGradient as error:
            raise self._explained(error, step, index, streams) from error
        return step, metrics

    def _codes(self, x: Tensor) -> Codes:
        """The codes of rows that are this process's share of a batch."""
        self.dictionary.group = self.group.rows
        try:
            return self.dictionary.unchecked_codes(x)
        finally:
            self.dictionary.group = ALONE  # whatever else is encoded is the same in all processes

    def common_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that all processes of the group have, by name: all there are, or those of no latent."""
        every = self.group.latents.alone
        return {name: p for name, p in self.dictionary.named_parameters() if every or name in COMMON}

    def _reduce_gradients(self) -> None:
        """Give every process the mean gradient, or of parameters of no latent the sum over the latents that each has,
        wherever the loss reaches a parameter in any of them."""
        if self.group.alone:
            return
        parameters = list(self.common_parameters().values())
        reduced = self.group.mean if self.group.latents.alone else self.group.sum
        reached = self.group.sum(torch.tensor([int(p.grad is not None) for p in parameters])).tolist()
        for parameter, ranks in zip(parameters, reached, strict=True):
            if ranks:
                mine = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                whole = reduced(optimiser.as_stored(mine))
                parameter.grad = whole if mine.is_contiguous() else whole.t()

    def _products(self) -> AbstractContextManager[None]:
        """The precision of the encoder and of gradients. What terms compute of other layers is never rounded: they look
        at differences that would be of the size of that."""
        return rounded_products(self.experiment.training.device) if self.experiment.training.tf32 else nullcontext()

    def _step(self, batch: Batch, x: Tensor, z: Codes, index: int, extra: ExtraInputs, logged: bool) -> Step:
        """The record that terms read."""
        dead, numbers = self.dead_latents.seen_at(index)
        return Step(
            x=x, z=z, dictionary=self.dictionary, batch=batch, contexts=extra.contexts, progress=index / self.steps,
            dead=dead, rng=torch.Generator(), shared=numbers,
            counterfactuals=lambda: self._normalised(extra.counterfactuals()),
            corrupted=lambda share: self.normaliser(sent(extra.corrupted(share), x.device)),
            normalise=self.normaliser, restore=self.normaliser.undo, directions=self.normaliser.directions,
            group=self.group.rows, logged=logged,
        )  # fmt: skip

    def _normalised(self, pairs: Counterfactuals) -> Counterfactuals:
        device = self.experiment.training.device
        return Counterfactuals(*(self.normaliser(sent(x, device)) for x in (pairs.x, pairs.changed)))

    def _term_stream(self, index: int, name: str) -> torch.Generator:
        """The random stream of a term at a step."""
        return seeding.stream(self.experiment.seed, f"term/{name}/{index}")

    def _explained(
        self, error: BadGradient, step: Step, index: int, streams: Callable[[str], torch.Generator]
    ) -> NotFinite:
        """The error with the terms whose own gradient is not finite."""
        fresh = replace(step, z=self._codes(step.x), shared={})
        names = culprits(self.experiment.objective, fresh, index, streams=streams, memory=self.memory)
        of = f", from {names}" if names else ", though each term's alone is"
        return NotFinite(f"{error} at step {index}{of}; lower the learning rate or a weight")

    def _restart_dead_latents(self, x: Tensor, index: int) -> None:
        if self.dead_latents.restart_due(index):
            self.check()  # the parameters must be as before a bad step
            x = self.group.joined(x)
        restarted = self.dead_latents.restart(self.dictionary, x, index)
        if restarted is not None:
            self.optimiser.forget(restarted)
            self.memory.forget(restarted)

    def state(self) -> dict[str, Tensor]:
        """Every tensor a checkpoint needs, by name."""
        tensors: dict[str, Tensor] = {f"dictionary/{n}": t for n, t in self.dictionary.state_dict().items()}
        for part in self._parts:
            tensors |= part.state()
        return tensors | {f"normaliser/{name}": tensor for name, tensor in self.normaliser.tensors().items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state()`. Raises ValueError when a tensor is missing."""
        if lacking := sorted(name for name in self.state().keys() - tensors.keys() if not optional(name)):
            raise ValueError(
                f"the checkpoint of {self.experiment.folder} lacks {lacking[0]}: another version wrote it; resume with "
                "that one, or start anew with --overwrite"
            )
        device = self.experiment.training.device
        self.dictionary.load_state_dict({n: tensors[f"dictionary/{n}"] for n in self.dictionary.state_dict()})
        for part in self._parts:
            part.restore(tensors)
        self.normaliser = Normaliser.of({n: tensors[f"normaliser/{n}"] for n in self.normaliser.tensors()}).to(device)


def optional(name: str) -> bool:
    """True for tensors that are only there once a step has been made."""
    return name.startswith((optimiser.PREFIX, term_memory.PREFIX))
