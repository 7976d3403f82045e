"""The model that ships with the package, and the script that made it."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks.language_model import train as script
from benchmarks.language_model.corpus import Language, Row, Rows, collate
from benchmarks.language_model.entropy import entropy
from benchmarks.language_model.train import Schedule, Shape
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.loading import EMBEDDED, located
from unbraid.sources.synthetic_language.documents import LONGEST, documents, next_word, text
from unbraid.sources.synthetic_language.grammar import relevant
from unbraid.sources.synthetic_language.lexicon import WORDS
from unbraid.sources.text.windows import Windows
from unbraid.sources.truth import NoTruth


class Few(Language):
    """Few documents at a time, and an entropy rate as given: seconds, not a minute."""

    rate = 10.0

    def rows(self, skip: int) -> Iterator[Row]:
        return iter(list(self.encoded(200, 1)))

    def held_out(self) -> Iterator[Rows]:
        yield collate(list(self.encoded(20, 2)))

    def reference(self) -> tuple[float, float]:
        return self.rate, 0.0


TINY = Shape(hidden=16, layers=1, heads=2, inner=32)
SHORT = Schedule(tokens=6000, batch=512, save_seconds=0.0)


@torch.no_grad()
def test_the_loss_is_within_five_percent_of_the_exact_entropy_of_texts_it_never_saw():
    model = LlamaForCausalLM.from_pretrained(located(EMBEDDED))
    told, rows = list(documents(200, seed=77)), list(Language(seed=0).encoded(200, 77))
    exact = sum(entropy(relevant(word.before)) for document in told for word in document)
    loss = sum(float(script.loss_of(model, torch.tensor([row.ids]), "sum")) for row in rows)
    assert sum(len(row.ids) - 1 for row in rows) == sum(map(len, told))
    assert 1 < loss / exact < 1.05


def test_the_tokenizer_has_a_token_for_every_word_and_gives_texts_back():
    tokenizer = AutoTokenizer.from_pretrained(located(EMBEDDED))
    for told in documents(20, seed=5):
        ids = tokenizer(text(told))["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text(told)


def test_the_weights_ship_within_eight_megabytes():
    folder = Path(located(EMBEDDED))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8 * 2**20
    assert {"seed", "shape", "schedule", "held_out_loss"} <= set(json.loads((folder / "training.json").read_text()))


@torch.no_grad()
def test_transformer_lens_reads_the_same_model_at_the_same_site():
    bridge = pytest.importorskip("transformer_lens.model_bridge").TransformerBridge
    ours = LanguageModel(text="language://50", layer=2)
    theirs = bridge.boot_transformers(str(located(EMBEDDED)), device="cpu", dtype=torch.float32)
    ids = torch.tensor([row.ids[:16] for row in Language(seed=0).encoded(8, 3)])
    logits, cache = theirs.run_with_cache(ids)
    every = torch.ones_like(ids, dtype=torch.bool)
    windows = Windows(ids, every, every, torch.arange(len(ids)))
    torch.testing.assert_close(cache["blocks.2.hook_resid_post"], ours.activations(windows), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(logits, ours.logits(windows), atol=1e-3, rtol=1e-4)


def test_a_context_that_cuts_documents_has_no_truth_and_says_how_long_it_must_be():
    source = LanguageModel(text="language://50", context=LONGEST)
    with pytest.raises(NoTruth, match=f"raise --source.context to {LONGEST + 1} or more"):
        source.truth()
    longer = replace(source, context=LONGEST + 1)
    assert len(longer.truth().labelled(500, split="train").x) == 500


def test_training_learns_from_the_exact_distributions_and_where_they_follow() -> None:
    corpus = Language(seed=0)
    rows = collate(list(corpus.encoded(3, 5)))
    told = list(documents(3, seed=5))
    assert rows.ids.shape == rows.states.shape
    for row, document in enumerate(told):
        assert (rows.states[row] >= 0).sum() == len(document)
        for place in (0, 1, len(document) - 1):
            found = corpus.next_words.after(rows.states[row, place : place + 1])[0]
            torch.testing.assert_close(found, next_word(document[place].before).float())
            assert found[rows.ids[row, place + 1]] > 0


def test_training_that_was_stopped_continues_and_ends_in_a_model_with_its_card(tmp_path, monkeypatch):
    learn, seen = script.learn, []

    def stops(*args):
        seen.append(len(seen))
        if len(seen) == 5:
            raise KeyboardInterrupt
        return learn(*args)

    monkeypatch.setattr(script, "learn", stops)
    with pytest.raises(KeyboardInterrupt):
        script.train(Few(seed=0), TINY, SHORT, tmp_path)
    assert not (tmp_path / "config.json").exists()
    script.train(Few(seed=0), TINY, SHORT, tmp_path)
    card = json.loads((tmp_path / "training.json").read_text())
    assert 6000 <= card["tokens"] < 7000 and len(seen) < 20
    assert 1.7 < card["held_out_loss"] < math.log(len(WORDS)) - 0.2
    assert not (tmp_path / "training.safetensors").exists()
    AutoModelForCausalLM.from_pretrained(tmp_path)


def test_a_model_that_does_not_reach_its_loss_is_said_to(tmp_path, monkeypatch):
    monkeypatch.setattr(Few, "rate", 1.0)
    with pytest.raises(SystemExit, match="above the entropy rate, and 5% was allowed: train on more tokens"):
        script.train(Few(seed=0), TINY, SHORT, tmp_path)
    assert (tmp_path / "config.json").exists()


def test_the_model_of_the_smaller_language_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'embedded' read a smaller language.*new ones take 'embedded-2'"):
        located("embedded")
