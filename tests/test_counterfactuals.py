"""Minimal pairs of texts: the language's own and a user's, as activations; terms that need what is not there stop."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from unbraid.objective.objective import Reads, Step, Term, TermOutput
from unbraid.sources.language_model import pairs_file
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.pairs_file import read_pairs
from unbraid.studies.world import world
from unbraid.training.checks import check_needs

SOURCE = LanguageModel(text="language://300", layer=1)


@dataclass(frozen=True, kw_only=True)
class Reader(Term):
    reads: ClassVar[tuple[Reads, ...]] = ("documents",)

    def __call__(self, step: Step) -> TermOutput:
        return TermOutput(step.x_hat.sum())


@dataclass(frozen=True, kw_only=True)
class PairReader(Reader):
    reads: ClassVar[tuple[Reads, ...]] = ("counterfactuals",)


def asking(term: Term, source):
    experiment = world()
    objective = replace(experiment.objective, penalties={"asked": term})
    return [replace(experiment, source=source, objective=objective)]


def test_the_languages_pairs_differ_and_do_not_depend_on_what_else_is_drawn(monkeypatch):
    monkeypatch.setattr(pairs_file, "PAIRS_EACH", 8)
    source = replace(SOURCE, text="language://308")  # of its own: pairs are kept by source
    few, many = (source.counterfactuals(n, split="train", seed=3) for n in (8, 64))
    assert few.x.shape == (8, source.d_in)
    assert torch.equal(few.x, many.x[:8]) and (few.x - few.changed).norm(dim=1).min() > 1e-3
    assert not torch.equal(few.x, source.counterfactuals(8, split="eval", seed=3).x)


def test_a_users_pairs_are_read_at_their_last_tokens(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"base": "the crow", "changed": "the robin"}\n\n{"base": "a big dog", "changed": "the dog"}\n')
    source = replace(SOURCE, pairs=str(path))
    found = source.counterfactuals(10, split="train", seed=0)
    assert found.x.shape == (2, SOURCE.d_in)
    whole = source.activations(source.whole([["the", "robin"]]))[0, -1]
    assert min((found.changed - whole).norm(dim=1)) < 1e-4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no pairs"),
        ("not json\n", "line 1 is not JSON"),
        ('{"base": "a"}\n', 'expected texts under "base" and "changed"'),
        ('{"base": "a", "changed": "a"}\n', "both texts are the same"),
    ],
)
def test_bad_pair_files_say_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "pairs.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_pairs(str(path))


def test_a_missing_pair_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read pairs from .*none.jsonl"):
        read_pairs(str(tmp_path / "none.jsonl"))


def test_text_without_pairs_says_how_to_get_some(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the crow saw the dog\n" * 50)
    with pytest.raises(ValueError, match=r"term 'asked' reads counterfactuals, but this text has no minimal pairs"):
        check_needs(asking(PairReader(), replace(SOURCE, text=str(text))))


def test_documents_are_refused_where_rows_stand_alone():
    with pytest.raises(ValueError, match="term 'asked' reads documents, but a World has none.*LanguageModel"):
        check_needs(asking(Reader(), world().source))
    check_needs(asking(Reader(), SOURCE))
    check_needs(asking(replace(Reader(), weight=0.0), world().source))
