"""The study of one night: enough objectives, sparsities and seeds, with controls, and all of them can be trained."""

from collections import Counter

from unbraid.experiments.small import SPARSITIES, TERMS, small
from unbraid.report.rows import split_name


def test_eight_objectives_and_more_at_three_sparsities_and_three_seeds():
    study = small()
    assert len(TERMS) >= 8 and len(SPARSITIES) == 3 and len(study.seeds) == 3
    trained = Counter(split_name(name)[0] for name, member in study.members.items() if not member.control)
    assert set(trained.values()) == {3}
    assert {"batchtopk", "matryoshka", *TERMS} <= set(trained)
    assert {split_name(name)[0] for name, member in study.members.items() if member.control} >= {"untrained", "pca"}
