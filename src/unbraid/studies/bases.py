"""Dictionaries that nothing was trained for: linear bases, random atoms, the truth and its probes, with SAEs."""

from unbraid.experiment.experiment import Training
from unbraid.experiment.study import Study, of_methods
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.world import presets
from unbraid.studies.methods import (
    bases,
    ceilings,
    contenders,
    controls,
    fine_tuned,
    interchanged,
    matryoshkas,
    standard,
    temporal,
)


def bases_world() -> Study:
    """Linear bases, random atoms, the truth, its probes and DAS, with trained SAEs, on the demo's world."""
    source, l0 = presets.seconds(), 5
    trained = of_methods(standard(l0), ("batchtopk", "matryoshka")) | of_methods(matryoshkas(l0), ("matryoshka-2026",))
    untaught = of_methods(controls(l0), ("untrained", "random", "frozen-decoder"))
    return Study(
        source=source,
        d_sae=source.factors,
        training=Training(tokens=300_000, batch_size=512, lr=3e-3, dead_after=50_000),
        members=trained | contenders(l0) | bases(l0) | untaught | interchanged() | ceilings(),
    )


def bases_language() -> Study:
    """Linear bases and the like on the embedded model, with T-SAE on two nested widths, as published and detached."""
    l0 = 8
    trained = of_methods(standard(l0), ("batchtopk", "matryoshka")) | of_methods(matryoshkas(l0), ("matryoshka-2026",))
    untaught = of_methods(controls(l0), ("untrained", "random", "frozen-decoder"))
    return Study(
        source=LanguageModel(text="language://6000", buffer_tokens=32_768),
        d_sae=512,
        training=Training(tokens=200_000, batch_size=1024, lr=2e-3, dead_after=50_000),
        members=trained
        | contenders(l0)
        | fine_tuned(l0)
        | temporal(l0)
        | bases(l0)
        | untaught
        | interchanged()
        | ceilings(),
    )
