"""On a real language model, live (--source.model, --source.layer, --source.text) or from activations on disk."""

from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.config import DictionaryConfig
from unbraid.experiment.experiment import Experiment, Training
from unbraid.experiment.study import Study, of_methods
from unbraid.objective.objective import Objective
from unbraid.sources.cached import Cached
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.studies.methods import compared, controls, disentangling, standard
from unbraid.terms.dead_latents.aux_k import AuxK
from unbraid.terms.reconstruction.reconstruction import Reconstruction


def lm_topk() -> Experiment:
    """One TopK SAE on a language model."""
    return Experiment(
        name="lm-topk",
        source=LanguageModel(model="EleutherAI/pythia-70m-deduped", layer=3, text="hf://monology/pile-uncopyrighted"),
        objective=Objective(reconstruction=Reconstruction(), penalties={"aux_k": AuxK()}),
        dictionary=DictionaryConfig(d_sae=4096, activation=TopK(32)),
        training=Training(tokens=20_000_000),
    )


def lm() -> Study:
    """Every method at two sparsities and controls on a language model, on one stream of activations."""
    base = lm_topk()
    return Study(source=base.source, d_sae=4096, training=base.training, members=compared((16, 64)))


DEMONSTRATED = (
    "relu", "batchtopk", "jumprelu", "matryoshka", "orthogonality", "effect", "frozen-decoder", "untrained", "pca",
)  # fmt: skip
"""Methods and controls of the demo."""


def demo_language() -> Study:
    """Half of `unbraid demo`: methods and controls on the embedded model, which reads a synthetic language.

    Activations are whitened by half: on raw ones F1 is below chance for every method, and no claim could be judged.
    """
    l0 = 8
    chosen = standard(l0) | disentangling(l0) | controls(l0)
    return Study(
        source=LanguageModel(text="language://6000", buffer_tokens=32_768),
        d_sae=512,
        training=Training(
            tokens=200_000, batch_size=1024, lr=2e-3, dead_after=50_000, normalise="whiten", whiten_power=0.5
        ),
        members=of_methods(chosen, DEMONSTRATED),
    )


def cached() -> Study:
    """Standard SAEs and controls on activations that `unbraid cache` wrote: name the folder with --source.folder."""
    return Study(
        source=Cached(folder="activations"),
        d_sae=4096,
        training=Training(tokens=20_000_000),
        members=standard(32) | controls(32),
    )
