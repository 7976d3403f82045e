"""The study of one night: enough objectives, sparsities and seeds, with controls, and all of them can be trained."""

from collections import Counter

from unbraid.studies.small import SPARSITIES, TERMS, small


def test_eight_objectives_and_more_at_three_sparsities_and_three_seeds():
    study = small()
    assert len(TERMS) >= 8 and len(SPARSITIES) == 3 and len(study.seeds) == 3
    trained = Counter(member.method for member in study.members.values() if not member.control)
    assert set(trained.values()) == {3}
    assert {"batchtopk", "matryoshka", *TERMS} <= set(trained)
    assert {member.method for member in study.members.values() if member.control} >= {"untrained", "pca"}
