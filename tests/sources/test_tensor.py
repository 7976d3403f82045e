"""Activations of a tensor or array: rows, splits, factors, and what a stored run makes of them."""

import numpy as np
import pandas as pd
import pytest
import torch

from unbraid.config.serialise import from_json, to_json
from unbraid.sources import tensor
from unbraid.sources.given import as_source
from unbraid.sources.stream import Stream, held_out
from unbraid.sources.tensor import Activations
from unbraid.sources.truth import NoTruth

X = np.random.default_rng(0).normal(size=(1000, 8)).astype("float32")


def every_row(source: Activations, split, seed=0, epoch=0) -> torch.Tensor:
    per_epoch = -(-len(source._rows[split]) // tensor.BLOCK_ROWS)
    blocks = [source.block(epoch * per_epoch + place, split=split, seed=seed) for place in range(per_epoch)]
    return torch.cat([block.rows.x for block in blocks if block is not None])


def test_every_row_is_in_one_split_once(monkeypatch):
    monkeypatch.setattr(tensor, "BLOCK_ROWS", 128)
    source = Activations(X)
    both = torch.cat([every_row(source, "train"), every_row(source, "eval")])
    assert len(every_row(source, "eval")) == 100
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, torch.from_numpy(X).tolist()))


def test_passes_and_seeds_differ_in_order_and_in_nothing_else(monkeypatch):
    monkeypatch.setattr(tensor, "BLOCK_ROWS", 128)
    source = Activations(X)
    first = every_row(source, "train")
    assert torch.equal(first, every_row(source, "train"))
    for other in (every_row(source, "train", epoch=1), every_row(source, "train", seed=1)):
        assert not torch.equal(first, other)
        assert sorted(map(tuple, first.tolist())) == sorted(map(tuple, other.tolist()))


def test_passes_end_only_where_epochs_are_set():
    assert Activations(X).available("train") == float("inf")
    twice = Activations(X, epochs=2)
    assert twice.available("train") == 1800 and twice.available("eval") == 100
    stream = Stream(twice, 600, seed=0)
    assert [len(next(stream)) for _ in range(3)] == [600, 600, 600]
    with pytest.raises(ValueError, match="the train data ended"):
        next(stream)


def test_a_sequence_is_never_split_between_training_and_held_out_rows():
    x = torch.arange(40.0).repeat_interleave(6).view(40, 6, 1).expand(40, 6, 3)
    source = Activations(x)
    assert source.has_documents and not Activations(X).has_documents
    parts = [set(every_row(source, split)[:, 0].tolist()) for split in ("train", "eval")]
    assert not parts[0] & parts[1] and len(parts[1]) == 4
    assert held_out(source, 24).positions.tolist() == [0, 1, 2, 3, 4, 5] * 4


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32", ">f4", "bool"])
def test_arrays_of_all_real_kinds_are_taken(dtype):
    source = Activations((X > 0).astype(dtype))
    assert set(every_row(source, "train").unique().tolist()) == {0.0, 1.0}


def test_batches_of_all_real_kinds_are_taken():
    whole = as_source(iter([X[:400].astype(">f4"), X[400:800][::-1], torch.from_numpy(X[800:])]), tokens=900)
    assert whole == Activations(np.concatenate([X[:400], X[400:800][::-1], X[800:]]))


def test_bfloat16_and_views_are_taken_and_a_tensor_is_not_copied():
    x = torch.from_numpy(X)
    assert Activations(x).known.x.data_ptr() == x.data_ptr()
    assert held_out(Activations(x.bfloat16()), 8).x.dtype == torch.float32
    assert Activations(X[::-1]).rows == 1000


def test_equal_arrays_are_equal_sources_and_others_are_not():
    assert Activations(X) == Activations(torch.from_numpy(X.copy()))
    assert Activations(X) != Activations(X + 1)
    assert Activations(X) != Activations(X, factors=X > 1)


def test_a_stored_source_finds_its_array_in_this_process_and_says_so_where_it_is_gone():
    source = Activations(X)
    stored = to_json(source)
    assert "data" not in stored and from_json(stored) == source
    assert torch.equal(every_row(from_json(stored), "eval"), every_row(source, "eval"))
    del source  # what a source holds is found as long as it is there
    for number in range(tensor.REMEMBERED):
        Activations(X + number + 1)
    with pytest.raises(ValueError, match="give the same array again"):
        from_json(stored).block(0, split="train", seed=0)
    Activations(X.copy())
    assert from_json(stored).block(0, split="train", seed=0) is not None


def test_factors_are_the_truth_about_the_rows():
    factors = pd.DataFrame((X[:, :3] > 1) * X[:, :3], columns=["red", "blue", "green"])
    truth = Activations(X, factors=factors, parents=[-1, 0, 0]).truth()
    labelled = truth.labelled(50, split="eval")
    assert list(truth.names) == ["red", "blue", "green"] and truth.parents.tolist() == [-1, 0, 0]
    assert truth.directions is None and len(labelled.x) == 50
    assert torch.equal(labelled.dense(), (labelled.x[:, :3] > 1) * labelled.x[:, :3])


def test_without_factors_there_is_no_truth():
    with pytest.raises(NoTruth, match="factors=f"):
        Activations(X).truth()


def test_all_rows_can_be_held_out():
    assert len(held_out(Activations(X, eval_share=1.0), 2000)) == 1000


BAD = {
    "nothing": (lambda: Activations(), "needs the activations"),
    "text": (lambda: Activations("runs/x"), "are a str; expected a tensor or NumPy array"),
    "a list": (lambda: Activations([[1.0, 2.0]]), "are a list"),
    "one dimension": (lambda: Activations(X[0]), "[8]; they must be [..., d_in]"),
    "no row": (lambda: Activations(X[:0]), "[0, 8]"),
    "nan": (lambda: Activations(np.where(X > 3, np.nan, X)), "are NaN or infinite"),
    "complex": (lambda: Activations(X.astype(complex)), "complex128; expected real numbers"),
    "letters": (lambda: Activations(np.array([["a"]])), "expected real numbers"),
    "sparse": (lambda: Activations(torch.from_numpy(X).to_sparse()), "dense tensor"),
    "factors of other rows": (lambda: Activations(X, factors=X[:10]), "all but the last dimension must be equal"),
    "too few names": (lambda: Activations(X, factors=X, names=["a"]), "1 different names for 8 factors"),
    "text for names": (lambda: Activations(X, factors=X, names="abcdefgh"), "expected a list of text"),
    "a circle of parents": (lambda: Activations(X, factors=X[:, :2], parents=[1, 0]), "its own ancestor"),
    "parents that are not there": (lambda: Activations(X, factors=X[:, :2], parents=[5, -1]), "numbers from -1"),
    "a share above one": (lambda: Activations(X, eval_share=1.5), "at most 1"),
    "a wrong number of rows": (lambda: Activations(X, rows=3), "leave it out"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_activations_is_refused_in_a_sentence(case):
    make, message = BAD[case]
    with pytest.raises(ValueError) as refused:
        make()
    assert message in str(refused.value)
