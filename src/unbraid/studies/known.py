"""The language of known factors read by SmolLM2, a model that was not trained on it: factors in real activations.

Activations are cached once (`unbraid cache known_model --out known-smollm2`), and every member trains from them.
"""

from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.config import DictionaryConfig
from unbraid.experiment.experiment import Experiment, Training
from unbraid.experiment.study import Study, of_methods
from unbraid.objective.objective import Objective
from unbraid.sources.cached import Cached
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.studies.methods import ceilings, controls, standard
from unbraid.terms.dead_latents.aux_k import AuxK
from unbraid.terms.reconstruction.reconstruction import Reconstruction

L0 = 16
TRAINING = Training(tokens=500_000, batch_size=1024, lr=2e-3, dead_after=50_000)


def known_model() -> Experiment:
    """One BatchTopK SAE on the language of known factors, read by SmolLM2: its activations are what is cached."""
    return Experiment(
        name="known-batchtopk",
        # 3,300 documents of 61 words: 164,000 words to train on, and as many held out as evals read. The longest takes
        # 150 tokens.
        source=LanguageModel(
            model="smollm2", layer=10, text="language://3300", context=160, eval_share=0.17, buffer_tokens=32_768,
            dtype="bfloat16",
        ),
        objective=Objective(reconstruction=Reconstruction(), penalties={"aux_k": AuxK()}),
        dictionary=DictionaryConfig(d_sae=1024, activation=BatchTopK(L0)),
        training=TRAINING,
    )  # fmt: skip


METHODS = ("topk", "batchtopk", "matryoshka", "untrained")


def known_smollm2() -> Study:
    """Three standard SAEs, the untrained and supervised probes on cached activations of SmolLM2 on the language."""
    return Study(
        source=Cached(folder="known-smollm2", epochs=4),
        d_sae=1024,
        training=TRAINING,
        members=of_methods(standard(L0) | controls(L0), METHODS) | {"probes": ceilings()["probes"]},
    )
