"""Adam against torch's, and a state that files can keep."""

import torch

from tests.steps import units
from unbraid.terms.statistics.adam import at_rest, stepped


def test_it_is_torchs():
    start = {name: units(5, 3, seed=seed) for seed, name in enumerate(("one", "other"))}
    state, oracle = at_rest(start), [torch.nn.Parameter(value.clone()) for value in start.values()]
    optimiser = torch.optim.Adam(oracle, lr=0.1, betas=(0.5, 0.9))
    for seed in range(4):
        gradients = {name: units(5, 3, seed=10 * seed + number) for number, name in enumerate(start)}
        for parameter, gradient in zip(oracle, gradients.values(), strict=True):
            parameter.grad = gradient
        state = stepped(state, gradients, 0.1, (0.5, 0.9))
        optimiser.step()
    assert int(state["steps"]) == 4
    for name, parameter in zip(start, oracle, strict=True):
        torch.testing.assert_close(state[name], parameter.detach(), rtol=1e-10, atol=0)


def test_nothing_is_changed_in_place_and_a_transposed_gradient_leaves_a_contiguous_state():
    state = at_rest({"one": units(5, 3, seed=0)})
    before = {name: value.clone() for name, value in state.items()}
    after = stepped(state, {"one": units(3, 5, seed=1).T}, 0.1, (0.9, 0.999))
    assert all(torch.equal(state[name], value) for name, value in before.items())
    assert all(value.is_contiguous() for value in after.values()) and not torch.equal(after["one"], before["one"])
