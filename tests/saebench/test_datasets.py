"""What the benchmark reads without a hub: held-out text, and balanced labelled sets."""

import json
import lzma
from collections import Counter

import pytest

from unbraid.saebench import datasets
from unbraid.sources.synthetic_language.lexicon import REGISTERS, SETTINGS
from unbraid.sources.text.corpus import split_of


def reviews(path, count=1500):
    """Four categories, one of them rare; three ratings."""
    categories = ["books", "music", "games"]
    ratings = (1.0, 5.0, 1.0, 5.0, 3.0)
    rows = [
        {"text": f"review {i}", "category": categories[i % 3] if i % 50 else "rare", "rating": ratings[i % 5]}
        for i in range(count)
    ]
    path.write_bytes(lzma.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return f"{path}:category:rating"


def test_a_labelled_set_is_balanced_and_split_by_text(tmp_path):
    found = datasets.labelled(reviews(tmp_path / "reviews.jsonl.xz"))
    assert set(found.classes) == {"books", "music", "games"} and set(found.values) == {"1.0", "5.0"}
    for rows in found.rows.values():
        assert len(set(Counter((c, a) for _, c, a in rows).values())) == 1
    texts = {split: {text for text, _, _ in rows} for split, rows in found.rows.items()}
    assert not texts["train"] & texts["test"]
    sizes = found.request()
    assert sizes["train"] * 6 == len(found.rows["train"])
    assert [len(pair) for pair in sizes["pairs"]] == [2]
    assert "bias_in_bios" in found.name


def test_it_is_written_where_load_dataset_looks(tmp_path):
    found = datasets.labelled(reviews(tmp_path / "reviews.jsonl.xz"))
    found.write(tmp_path)
    lines = (tmp_path / found.name / "test.jsonl").read_text().splitlines()
    assert len(lines) == len(found.rows["test"])
    assert set(json.loads(lines[0])) == {"text", "class", "attribute"}


@pytest.mark.parametrize(
    ("spec", "said"),
    [("reviews.jsonl.xz", "FILE:CLASS:ATTRIBUTE"), ("{}:genre:rating", "no 'genre'; it has"),
     ("{}:category:text", "two are needed"), ("nowhere.jsonl:a:b", "cannot read labelled texts")],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(tmp_path, spec, said):
    path = reviews(tmp_path / "reviews.jsonl.xz").partition(":")[0]
    with pytest.raises(ValueError, match=said):
        datasets.labelled(spec.format(path))


def test_the_language_labels_its_own_documents():
    found = datasets.labelled("language://10")
    assert set(found.values) <= set(REGISTERS) and set(found.classes) == set(SETTINGS)
    places = SETTINGS[found.classes[0]]
    assert all(any(f"the {place}" in text for place in places) for text, c, _ in found.rows["test"] if c == 0)


def test_plain_text_is_what_the_run_was_not_trained_on(tmp_path):
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": f"document {i}"}) + "\n" for i in range(200)))
    held = datasets.plain(str(path), "text", 0.2)
    assert 10 < len(held) < 80
    assert all(split_of(document, 0.2) == "eval" for document in held)
    with pytest.raises(ValueError, match="--text"):
        datasets.plain("hf://some/corpus", "text", 0.2)


@pytest.mark.parametrize("name", ["sst2.jsonl", "sst2.csv", "a:b.jsonl"])
def test_fault_26_a_set_with_one_column_of_labels_can_be_used(tmp_path, name):
    """As SST-2 is: a text and whether it is positive."""
    rows = [{"text": f"film number {i}", "label": i % 2} for i in range(900)]
    path = tmp_path / name
    if name.endswith(".csv"):
        path.write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert not datasets.crossed(f"{path}:label")
    found = datasets.labelled(f"{path}:label")
    assert set(found.classes) == {"0", "1"}
    for part in found.rows.values():
        assert len(set(Counter((c, a) for _, c, a in part).values())) == 1
        assert all(int(text.rpartition(" ")[2]) % 2 == int(found.classes[c]) for text, c, _ in part)


def test_two_columns_are_crossed_and_the_language_is():
    assert datasets.crossed("reviews.jsonl:category:rating") and datasets.crossed("language://10")
