"""Quantities that comparisons show and match: metrics with their params, and which of them are headline scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from unbraid.comparison.names import SCORES, score_name
from unbraid.comparison.stored_scores import params_text
from unbraid.dictionary.initialisation import Claim
from unbraid.runs.results import ScoreKind


class ScoreSelector(NamedTuple):
    """A description of the scores to select: by eval, metric, params and kind."""

    eval: str
    metric: str
    params: Mapping[str, float | str] | None = None
    """All params of the score; None matches any."""
    kind: ScoreKind = "measured"

    def matches(self, quantity: "Quantity") -> bool:
        """True if the quantity is selected."""
        alike = (self.eval, self.metric, self.kind) == (quantity.eval, quantity.metric, quantity.kind)
        return alike and (self.params is None or params_text(self.params) == quantity.params)


COUNTED = (
    (ScoreSelector("fidelity", "fvu"),),
    (ScoreSelector("saebench_core", "ce_loss_score"), ScoreSelector("fidelity", "loss_recovered")),
    (ScoreSelector("recovery", "mcc"),),
    (ScoreSelector("recovery", "f1"),),
    (ScoreSelector("absorption", "absorption_full"),),
    (ScoreSelector("absorption", "parent_recall_given_child"),),
    (ScoreSelector("splitting", "latents_per_factor"),),
    (ScoreSelector("controllability", "isolation"),),
    (ScoreSelector("interchange", "interchange", {"directions": "latents", "error": "kept", "n": 4}),),
    (ScoreSelector("saebench_sparse_probing", "probe_accuracy", {"k": 1, "reads": "latents"}),),
    (ScoreSelector("saebench_sae_probes", "sae_probes_accuracy", {"k": 1, "reads": "latents"}),),
    (ScoreSelector("saebench_absorption", "first_letter_absorption_full"),),
    (ScoreSelector("saebench_ravel", "ravel_disentanglement"),),
)
DIAGNOSTIC = (
    (ScoreSelector("saebench_tpp", "tpp", {"n": 20}),),
    (ScoreSelector("saebench_scr", "scr", {"n": 20}),),
    (ScoreSelector("saebench_meta_structure", "decoder_variance_explained"),),
    (ScoreSelector("controllability", "additive_r2"),),
    (ScoreSelector("controllability", "effect"),),
    (ScoreSelector("fidelity", "alive"),),
    (ScoreSelector("fidelity", "max_decoder_cosine"),),
)
"""Scores that are shown but never counted as a win: an objective can set them directly (living latents, decoder
cosines, how far atoms explain one another, effects and their additivity), or an audit advises against choosing by them
(SAEBench's TPP and SCR, arXiv 2605.18229)."""
HEADLINE = (*COUNTED, *DIAGNOSTIC)
"""The headline scores: of each line the first that was measured. DCI and the gaps in mutual information (mig, infom)
are not among them: where factors form a forest, a code that absorbs parents can score above the truth."""
PRIMARIES: dict[Claim, tuple[tuple[ScoreSelector, ...], ...]] = {
    1: (
        (
            ScoreSelector("recovery", "f1"),
            ScoreSelector("saebench_sparse_probing", "probe_accuracy", {"k": 1, "reads": "latents"}),
        ),
        (
            ScoreSelector("absorption", "absorption_full"),
            ScoreSelector("saebench_absorption", "first_letter_absorption_full"),
        ),
    ),
    2: (
        (
            ScoreSelector("interchange", "interchange", {"directions": "latents", "error": "kept", "n": 4}),
            ScoreSelector("saebench_ravel", "ravel_disentanglement"),
        ),
        (ScoreSelector("controllability", "isolation"),),
    ),
}
"""By claim, the scores that decide where no claim card names others: one latent a factor, and factors not absorbed;
factors that can be set one by one, and effects that do not mix. Of each line the first that was measured."""
AXES = (
    ("L0", ScoreSelector("fidelity", "l0")),
    ("FVU", ScoreSelector("fidelity", "fvu")),
    ("bits", ScoreSelector("description_length", "bits_per_token")),
)
"""The quantities at which methods can be matched."""

DOSE = ScoreSelector("dose", "dose")
"""The share of its own target that an added term reached."""


@dataclass(frozen=True, order=True)
class Quantity:
    """A metric with its params, direction and kind: the content of one figure or column."""

    eval: str
    metric: str
    params: str = ""
    better: str = "neither"
    kind: ScoreKind = "measured"

    @cached_property
    def label(self) -> str:
        """The metric's name, with kind and params where they matter."""
        shown = ", ".join(filter(None, (self.kind if self.reference else "", self.params)))
        return f"{self.metric} ({shown})" if shown else self.metric

    @property
    def name(self) -> str:
        """The metric's name for readers."""
        return SCORES.get(self.metric, self.label.replace("_", " "))

    @property
    def title(self) -> str:
        """The metric's name for readers, with kind and params where it has some."""
        shown = ", ".join(filter(None, (self.kind if self.reference else "", self.params)))
        return f"{score_name(self.metric)} ({shown})" if shown else score_name(self.metric)

    @property
    def chance(self) -> bool:
        """True for a chance level of the metric, which is no score of the run."""
        return self.kind == "chance"

    @property
    def reference(self) -> bool:
        """True for a level to compare with (chance, ceiling, other directions), which is no score of the run."""
        return self.kind != "measured"

    def is_level_of(self, other: "Quantity") -> bool:
        """True if this is of the same metric and eval as another, and has no param that the other has not."""
        same = (self.eval, self.metric) == (other.eval, other.metric)
        return same and {*self.params.split(", ")} - {""} <= {*other.params.split(", ")}

    @cached_property
    def diagnostic(self) -> bool:
        """True for scores that are shown and never counted as a win."""
        return any(selector.matches(self) for line in DIAGNOSTIC for selector in line)

    @property
    def sign(self) -> int:
        """The factor that turns a difference into a gain: 1 or -1; 0 when neither direction is better."""
        return {"higher": 1, "lower": -1}.get(self.better, 0)
