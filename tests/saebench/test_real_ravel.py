"""SAEBench's RAVEL, offline, on facts that a small model knows: what it says itself."""

import dataclasses
import json
from functools import lru_cache
from pathlib import Path

import pytest
from tests.data import data_folder
from tests.saebench.test_real import bench, results, trained  # noqa: F401 (a fixture)

from unbraid.saebench.bench import evaluate
from unbraid.saebench.eval_specs import EVAL_SPECS
from unbraid.sources.language_model.language_model import LanguageModel

pytestmark = pytest.mark.saebench

TEMPLATES = {"Country": "One day, %s", "Continent": "%s and", "Language": "I saw %s"}
SMALL = dataclasses.replace(
    EVAL_SPECS["ravel"], batch=8,
    small={
        "entity_attribute_selection": {"city": list(TEMPLATES)}, "top_n_entities": 100, "full_dataset_downsample": 120,
        "num_pairs_per_attribute": 40,
    },
)  # fmt: skip


@lru_cache
def speaker(model: Path):
    """A model and its tokenizer."""
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(model), transformers.AutoModelForCausalLM.from_pretrained(model)


def says(model: Path, text: str) -> str:
    """The first word of what a model says after a text."""
    tokenizer, lm = speaker(model)
    ids = tokenizer(text, return_tensors="pt")
    out = lm.generate(**ids, max_new_tokens=6, do_sample=False)[0, ids["input_ids"].shape[1] :]
    return (tokenizer.decode(out).split() or ["x"])[0]


def facts(folder: Path, label) -> Path:
    """RAVEL's files, with the label of each entity and attribute that `label(text)` gives."""
    folder.mkdir()
    starts, ends = ("An", "Be", "Do", "Ka", "Lu", "Mi", "Ro", "Sa"), ("na", "lla", "ri", "to", "m")
    entities = [start + end for start in starts for end in ends]
    files = {
        "attribute_to_prompts": {name: [template] for name, template in TEMPLATES.items()},
        "prompt_to_split": dict.fromkeys(TEMPLATES.values(), "train"),
        "entity_to_split": dict.fromkeys(entities, "train"),
        "entity_attributes": {
            entity: {name: label(template % entity) for name, template in TEMPLATES.items()} for entity in entities
        },
    }
    for name, content in files.items():
        (folder / f"ravel_city_{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def run(tmp_path):
    data = data_folder()
    return trained(
        LanguageModel(
            model=str(data / "models" / "stories260K"), layer=1, buffer_tokens=8192,
            text=str(data / "corpora" / "tinystories_1000.jsonl.xz"),
        ),
        tmp_path,
    )  # fmt: skip


def test_facts_that_the_model_knows_are_swapped_and_work_left_out_changes_no_score(tmp_path, bench, run):  # noqa: F811
    model = data_folder() / "models" / "stories260K"
    asked = dataclasses.replace(bench, ravel=str(facts(tmp_path / "ravel", lambda text: says(model, text))))

    def scored(share: bool) -> dict[str, float]:
        evaluate([run], [SMALL], dataclasses.replace(asked, share=share), force=True)
        assert "error" not in results(run, "ravel")[0], results(run, "ravel")[0]["error"]
        return {score["metric"]: score["value"] for score in results(run, "ravel")[0]["scores"]}

    whole, lighter = scored(False), scored(True)
    assert lighter == pytest.approx(whole, abs=1e-6)
    assert lighter["ravel_prompts"] > 60


def test_a_model_that_knows_too_few_is_refused_with_the_numbers(tmp_path, bench, run):  # noqa: F811
    asked = dataclasses.replace(bench, ravel=str(facts(tmp_path / "ravel", lambda text: "Atlantis")))
    assert evaluate([run], [SMALL], asked) == 0
    assert (
        "(city Country 0, city Continent 0, city Language 0; 14 of each" in results(run, "ravel")[0]["not_applicable"]
    )
