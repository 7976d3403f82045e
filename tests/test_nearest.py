"""A misspelt name is answered with the one that was most likely meant."""

import pytest

from unbraid.config.nearest import nearest

KNOWN = ("TopK", "BatchTopK", "orthogonality", "orthogonality_hinge", "fourth_power", "l1")
MEANT = {
    "Topk": "TopK", "batchtopk": "BatchTopK", "ortho": "orthogonality", "ortogonality": "orthogonality", "L1": "l1",
    "forth_power": "fourth_power", "something else": "", "": "",
}  # fmt: skip


@pytest.mark.parametrize("given", MEANT)
def test_the_nearest_name(given):
    assert nearest(given, KNOWN) == MEANT[given]
