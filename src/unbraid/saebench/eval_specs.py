"""The evals of SAEBench that can be run: what each reads, how much of it, and what it costs.

Minutes are process time on one core of a shared machine, for SAEs of 1,024 latents on a model of 3 M parameters (small,
measured here: docs/log.md), and on an RTX 3090 for 16k latents on gemma-2-2b (published, by SAEBench's authors).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Reads = Literal["text", "labelled", "ravel", "key"]
"""text: documents. labelled: texts of two attributes. ravel: entities and their attributes. key: for a judge."""


@dataclass(frozen=True, kw_only=True)
class Minutes:
    """The cost of an eval, in minutes."""

    once: float
    """For each model and layer."""
    each: float
    """For each run."""


@dataclass(frozen=True, kw_only=True)
class EvalSpec:
    """One of SAEBench's evals: its inputs, configurations and cost."""

    name: str
    """Results are results/saebench_<name>.json."""
    question: str
    reads: tuple[Reads, ...] = ()
    small: Mapping[str, Any] = field(default_factory=dict)
    """Its configuration for a model in a folder, where minutes count."""
    least: Mapping[str, Any] = field(default_factory=dict)
    """What of it is less for a model of a hundred million parameters on a CPU."""
    published: Mapping[str, Any] = field(default_factory=dict)
    """Its configuration as SAEBench's authors ran it; settings left out have SAEBench's defaults."""
    batch: int = 64
    """Sequences in a forward pass."""
    small_cost: Minutes
    published_cost: Minutes
    caveat: str = ""


TEXTS = ("87_glue_cola", "92_glue_sst2", "105_click_bait", "154_athlete_sport_football")
"""Some of the 113 data sets that come with sae-probes."""
AUDITED = "an audit (arXiv 2605.18229) advises against choosing SAEs by it"

EVAL_SPECS = {
    eval_spec.name: eval_spec
    for eval_spec in (
        EvalSpec(
            name="core", question="reconstruction, sparsity, cross-entropy with the reconstruction spliced in",
            reads=("text",), batch=16,
            small={"reconstruction_batches": 10, "variance_batches": 40, "context_size": 128, "documents_apart": False},
            least={"reconstruction_batches": 3, "variance_batches": 10},
            published={
                "reconstruction_batches": 200, "variance_batches": 2000, "context_size": 128, "documents_apart": False,
            },
            small_cost=Minutes(once=0.1, each=0.3), published_cost=Minutes(once=0.0, each=9.0),
            caveat="its explained_variance is wrong; our value is stored as well",
        ),
        EvalSpec(
            name="absorption",
            question="do latents of first letters stop firing where a latent of the word itself fires",
            small={"prompts_by_word": True}, least={"words_a_letter": 120},
            small_cost=Minutes(once=1.2, each=0.8), published_cost=Minutes(once=33.0, each=26.0),
            caveat="refused where fewer than 20 first letters can be read from the model (probe F1 above 0.6)",
        ),
        EvalSpec(
            name="sparse_probing", question="do few latents separate classes of texts", reads=("labelled",),
            small={"context_length": 128},
            least={"context_length": 64, "probe_train_set_size": 400, "probe_test_set_size": 400},
            small_cost=Minutes(once=0.9, each=0.1), published_cost=Minutes(once=15.0, each=3.0),
        ),
        EvalSpec(
            name="sae_probes",
            question="do few latents separate classes, on the labelled texts that come with sae-probes",
            small={"dataset_names": list(TEXTS)}, published={},
            small_cost=Minutes(once=0.4, each=0.1), published_cost=Minutes(once=25.0, each=5.0),
            caveat="the most reliable of these by that audit",
        ),
        EvalSpec(
            name="scr", question="does removing few latents remove a spurious correlation", reads=("labelled",),
            small={"context_length": 128, "n_values": [2, 5, 10, 20, 50]}, published={},
            small_cost=Minutes(once=1.5, each=1.0), published_cost=Minutes(once=22.0, each=6.0),
            caveat=f"refused where the correlation costs less than .1; {AUDITED}",
        ),
        EvalSpec(
            name="tpp", question="does removing few latents of a class spare the other classes", reads=("labelled",),
            small={"context_length": 128, "n_values": [2, 5, 10, 20, 50]}, published={},
            small_cost=Minutes(once=0.6, each=0.4), published_cost=Minutes(once=5.0, each=2.0), caveat=AUDITED,
        ),
        EvalSpec(
            name="ravel", question="can one attribute of an entity be swapped and the others kept", reads=("ravel",),
            batch=32,
            small={
                "entity_attribute_selection": {"city": ["Country", "Continent", "Language"]}, "top_n_entities": 100,
                "full_dataset_downsample": 4000, "num_pairs_per_attribute": 200,
            },
            least={"full_dataset_downsample": 1000, "num_pairs_per_attribute": 60},
            published={}, small_cost=Minutes(once=1.5, each=1.0), published_cost=Minutes(once=45.0, each=45.0),
            caveat="refused where the model does not know the facts",
        ),
        EvalSpec(
            name="autointerp", question="do explanations by a language model predict where latents fire",
            reads=("text", "key"), small={"n_latents": 50, "total_tokens": 200_000}, published={},
            small_cost=Minutes(once=1.0, each=9.0), published_cost=Minutes(once=0.0, each=9.0),
            caveat="sends texts to the service of OPENAI_API_KEY (or of OPENAI_BASE_URL), which costs money",
        ),
        EvalSpec(
            name="meta_structure", question="can atoms be made of others",
            small_cost=Minutes(once=0.0, each=0.3), published_cost=Minutes(once=0.0, each=1.0),
        ),
    )
}  # fmt: skip
UNSUPPORTED = {
    "unlearning": "it needs gemma-2-2b-it and a corpus that its owners give out on request, so it was never tried "
    "here; run sae_bench.evals.unlearning on the run folder by hand",
    "mdl": "as shipped it does not run (a module it does not declare, a name it does not define) and takes a latent's "
    "largest value to be 100",
}
"""Evals of SAEBench that cannot be run here, and why."""

ON_LANGUAGE: dict[str, dict[str, Any]] = {"core": {"documents_apart": True, "context_size": 48}}
"""Settings that differ on the synthetic language: its model never saw two documents in one window, and half of the
documents are longer than this."""


def chosen(names: list[str]) -> list[EvalSpec]:
    """Return the named evals, or all that need no key. Raises ValueError for a name that cannot be run."""
    if not names:
        return [eval_spec for eval_spec in EVAL_SPECS.values() if "key" not in eval_spec.reads]
    for name in (name.replace("-", "_") for name in names):
        if name in UNSUPPORTED:
            raise ValueError(f"SAEBench's {name} cannot be run here: {UNSUPPORTED[name]}")
        if name not in EVAL_SPECS:
            raise ValueError(f"SAEBench has no eval {name!r}; there are: {', '.join(EVAL_SPECS)}")
    return [EVAL_SPECS[name.replace("-", "_")] for name in names]
