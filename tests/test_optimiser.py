"""The optimiser's kernel next to torch.optim.AdamW's own step, bit for bit."""

import torch

from tests.exact import D_IN, dictionary
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.experiment.experiment import Training
from unbraid.training.optimiser import Optimiser
from unbraid.training.schedule import schedule, steps


def test_a_step_is_adamws():
    """One parameter has no gradient at first, so that its moments start a step later."""
    training = Training(tokens=5 * 64, batch_size=64, lr=0.01, weight_decay=0.1, clip=0.5, betas=(0.8, 0.99))
    made = dictionary(JumpReLU()).float()
    ours = Optimiser(made, training)
    copies = {name: stored.clone() for name, stored in ours.stored.items()}
    peaks = {name: training.lr * (training.threshold_lr if name == "threshold" else 1) for name in copies}
    torchs = torch.optim.AdamW(
        [{"params": [copies[name]], "peak": peaks[name]} for name in copies], lr=training.lr, betas=training.betas,
        weight_decay=training.weight_decay, fused=True,
    )  # fmt: skip
    for index in range(4):
        grads = {
            name: torch.randn(stored.shape, generator=torch.Generator().manual_seed(10 * index + number))
            for number, (name, stored) in enumerate(ours.stored.items())
            if index or name != "b_dec"
        }
        for name, parameter in made.named_parameters():
            grad = grads.get(name)
            parameter.grad = grad.t() if grad is not None and name == "W_enc" else grad
            copies[name].grad = None if grad is None else grad.clone()
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(grad) for grad in grads.values()]))
        ours.take_gradients(lambda norm: True)
        ours.step(index, None)
        torchs.grad_scale = (norm / training.clip).clamp_min(1.0)  # pyright: ignore[reportAttributeAccessIssue]
        torchs.found_inf = None  # pyright: ignore[reportAttributeAccessIssue]
        for group in torchs.param_groups:
            group["lr"] = group["peak"] * schedule(index, steps(training), training)
        torchs.step()
    for name, stored in ours.stored.items():
        assert torch.equal(stored, copies[name]), name
        state, wanted = ours.adam.state[stored], torchs.state[copies[name]]
        assert state.keys() == wanted.keys() and all(torch.equal(state[key], wanted[key]) for key in wanted)
    assert ours.adam.state[ours.stored["b_dec"]]["step"] == 3
    assert ours.stored["b_dec"].shape == (D_IN,)


def test_a_step_that_the_device_finds_bad_changes_nothing_and_is_not_counted():
    made = dictionary(JumpReLU()).float()
    ours = Optimiser(made, Training(tokens=5 * 64, batch_size=64))
    before = {name: stored.clone() for name, stored in ours.stored.items()}
    for parameter in made.parameters():
        parameter.grad = torch.ones_like(parameter)
    ours.take_gradients(lambda norm: True)
    ours.step(0, torch.tensor(1.0))
    for name, stored in ours.stored.items():
        assert torch.equal(stored, before[name])
        assert ours.adam.state[stored]["step"] == 0 and stored.grad is None
