"""Texts read as if they followed another one, whose keys and values are kept."""

import pytest
import torch
from tests import subword

from unbraid.sources.language_model.following import Following
from unbraid.sources.language_model.language_model import LanguageModel

FRONT = list(range(30, 70))
TEXTS = [list(range(100, 100 + n)) for n in (9, 4, 12, 9)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return subword.source(subword.write_model(tmp_path_factory.mktemp("following")))


@pytest.mark.parametrize("bos", ["never", "<end>"])
def test_reading_after_a_text_is_reading_both(tmp_path_factory: pytest.TempPathFactory, bos: str):
    source = subword.source(subword.write_model(tmp_path_factory.mktemp("bos")), bos=bos)
    reader = source.following(FRONT)
    windows = reader.windows(TEXTS)
    acts, last = reader.activations(windows), reader.last(windows)
    again = reader.last(windows, acts)
    for row, text in enumerate(TEXTS):
        both = source.whole([FRONT + text])
        expected = source.activations(both)[0, -len(text) :]
        torch.testing.assert_close(acts[row, : len(text)], expected, atol=1e-4, rtol=1e-4)
        for logits in (last, again):
            torch.testing.assert_close(logits[row], source.logits(both)[0, -1], atol=1e-3, rtol=1e-3)


def test_activations_that_are_put_there_change_what_is_predicted(model: LanguageModel):
    reader = model.following(FRONT)
    windows = reader.windows(TEXTS)
    acts = reader.activations(windows)
    assert (reader.last(windows, acts + 1) - reader.last(windows)).abs().max() > 1e-2


def test_without_a_text_in_front_texts_are_read_by_themselves(model: LanguageModel):
    reader = model.following(())
    windows = reader.windows(TEXTS)
    torch.testing.assert_close(reader.last(windows)[2], model.logits(model.whole([TEXTS[2]]))[0, -1])


def test_a_front_that_does_not_fit_is_refused(model: LanguageModel):
    with pytest.raises(ValueError, match="900 tokens in front and a context of 400 exceed the model's 1024 positions"):
        model.following([5] * 900)


def test_a_model_that_transformers_does_not_know_cannot_go_on(model: LanguageModel):
    reader = model.following(())
    with pytest.raises(ValueError, match="Linear cannot go on from a text"):
        Following(torch.nn.Linear(2, 2), reader.place, 1, "resid_post", reader.reader, (1,))
