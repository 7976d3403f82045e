"""The tree of gates: parents that pay, savings by hand, no cycles, and a leak that forbids children without parents."""

import math

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from unbraid.metrics.description_length import together
from unbraid.metrics.gate_tree import GateTree, gate_tree, price
from unbraid.metrics.information import binary_entropy

ROWS = 10_000


def h(p: float) -> float:
    return float(binary_entropy(torch.tensor(p, dtype=torch.float64)))


def tree_of(gates: np.ndarray, leak: float = 1.0) -> GateTree:
    """`gates`: [rows, latents], 0 or 1."""
    fired = torch.from_numpy(gates.sum(0).astype(np.float64))
    return gate_tree(fired, together(csr_array(gates.astype(float))), len(gates), leak=leak)


def rows(*spans: tuple[int, int]) -> np.ndarray:
    index = np.arange(ROWS)
    return np.any([(index >= a) & (index < b) for a, b in spans], axis=0).astype(float)


PARENT, CHILD, OTHER = rows((0, 1000)), rows((0, 400)), rows((5000, 5700))


def test_a_child_is_given_its_parent_and_saves_what_knowing_it_tells():
    found = tree_of(np.stack([OTHER, CHILD, PARENT], 1))
    assert found.parent.tolist() == [-1, 2, -1] and found.together.tolist() == [0, 400, 0]
    assert found.saved[1].item() == pytest.approx(ROWS * (h(0.04) - 0.1 * h(0.4)))


def test_clean_costs_the_joint_entropy_and_absorption_gains_nothing_by_the_tree():
    """Parent 0.1, child 0.04 within: 0.711 bits clean and 0.570 absorbed one by one; 0.566 either way down a tree."""
    bits = {}
    for name, parent in (("clean", PARENT), ("absorbed", PARENT - CHILD)):
        gates = np.stack([parent, CHILD], 1)
        alone = sum(h(float(p)) for p in gates.mean(0))
        bits[name] = (alone, alone - float(tree_of(gates).saved.sum()) / ROWS)
    joint = -sum(p * math.log2(p) for p in (0.04, 0.06, 0.9))
    assert bits["clean"] == pytest.approx((0.7113, joint), abs=1e-4)
    assert bits["absorbed"][0] == pytest.approx(0.5697, abs=1e-4)
    assert bits["absorbed"][1] == pytest.approx(joint, abs=0.004), "the edge is an exclusion, worth 0.004 bits"


def test_independent_gates_have_no_parents():
    gates = (np.random.default_rng(0).random((ROWS, 200)) < 0.05).astype(float)
    assert (tree_of(gates).parent == -1).all(), "of 19,900 pairs, none saves its price by chance"


def test_the_same_gates_give_a_tree_without_cycles():
    gates = np.repeat(PARENT[:, None], 5, 1)
    parent = tree_of(gates).parent.tolist()
    assert parent[0] == -1 and all(0 <= p < i for i, p in enumerate(parent) if i)


def test_the_more_telling_parent_is_taken():
    near, far = rows((0, 500)), rows((0, 4000))
    assert tree_of(np.stack([far, near, CHILD], 1)).parent.tolist() == [-1, 0, 1]


def test_a_leak_makes_a_child_without_its_parent_dear():
    half = rows((0, 200), (5000, 5200))  # a child that fires half the time without
    free, bound = (tree_of(np.stack([PARENT, half], 1), leak) for leak in (1.0, 1e-3))
    assert free.parent.tolist() == [-1, 0] and bound.parent.tolist() == [-1, -1]
    kept = tree_of(np.stack([PARENT, CHILD], 1), 1e-3)
    assert kept.parent.tolist() == [-1, 0]


def test_the_price_is_a_name_and_a_probability():
    assert price(1024, 2**20) == pytest.approx(10 + 10)


def test_nothing_that_fires_is_survived():
    assert tree_of(np.zeros((ROWS, 3))).parent.tolist() == [-1, -1, -1]
