"""Truth: the forest read upwards."""

import torch

from unbraid.sources.truth import ancestors, levels


def test_levels_and_ancestors_are_read_off_the_parents():
    parents = torch.tensor([-1, 0, 1, -1, 2, 0])
    assert levels(parents).tolist() == [0, 1, 2, 0, 3, 1]
    assert ancestors(parents).tolist() == [[-1, 0, 1, -1, 2, 0], [-1, -1, 0, -1, 1, -1], [-1, -1, -1, -1, 0, -1]]


def test_a_forest_of_roots_has_no_ancestors():
    assert levels(torch.tensor([-1, -1])).tolist() == [0, 0]
    assert ancestors(torch.tensor([-1, -1])).shape == (0, 2)
