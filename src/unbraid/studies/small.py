"""The comparison one night allows: standard and MDL SAEs and eleven disentangling terms at three sparsities.

`unbraid study small` trains it on the embedded model, scores it by every eval here and by SAEBench, and writes the
report. Name another model with --source.model, --source.layer and --source.text; terms that need the language's minimal
pairs are left out by --only then.
"""

from unbraid.experiment.experiment import Training
from unbraid.experiment.study import Member, Study, of_methods
from unbraid.objective.objective import Term
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.studies.description_length import shortest
from unbraid.studies.methods import standard
from unbraid.studies.objectives import GEOMETRY, INDEPENDENCE, MECHANISM, PAIRS, TIME, some_controls, with_each

SPARSITIES = (4, 8, 16)
"""Half, once and twice what the demo asks of this model."""
STANDARD = ("topk", "batchtopk", "jumprelu", "matryoshka")
TERMS: dict[str, Term] = {
    **{name: GEOMETRY[name] for name in ("orthogonality", "c2r-sum", "local-ima")},
    **{name: INDEPENDENCE[name] for name in ("correlation", "hsic", "total-correlation", "support")},
    **{name: MECHANISM[name] for name in ("functional", "effect")},
    **{name: PAIRS[name] for name in ("invariance-ada",)},
    **{name: TIME[name] for name in ("temporal",)},
}
"""Geometry of atoms, independence of codes, effects downstream, pairs that differ in one cause, time: at least one of
each family."""


def small() -> Study:
    """Eleven disentangling terms, MDL-SAEs, standard SAEs and controls at three sparsities on the embedded model."""
    members: dict[str, Member] = {}
    for l0 in SPARSITIES:
        baselines = of_methods(standard(l0), STANDARD)
        members |= baselines | shortest(l0) | with_each(TERMS, l0) | some_controls(l0)
    return Study(
        source=LanguageModel(text="language://8000", buffer_tokens=32_768),
        d_sae=1024,
        training=Training(tokens=400_000, batch_size=1024, lr=2e-3, dead_after=50_000),
        members=members,
    )
