"""LanguageModel on objects of one's own: loaded models, tokenizers and texts; what is stored, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict, IterableDataset
from tests.small import experiment
from tests.tiny_lm import CONTEXT, FAMILIES, write_corpus, write_model
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel, LlamaForCausalLM

from unbraid.config.serialise import from_json, to_json
from unbraid.effects.forward_mode import forward_mode
from unbraid.evals.fidelity import fidelity
from unbraid.evals.shared.evaluation import NotApplicable
from unbraid.runs.run import Run
from unbraid.saebench.targets import target_in
from unbraid.sources.base import Contexts, Source
from unbraid.sources.in_process import Reference
from unbraid.sources.language_model.blocks import blocks
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.loaded import MODELS, TOKENIZERS, value_sha256, weights_sha256
from unbraid.sources.text.in_memory import TEXTS
from unbraid.training.loop import train

SETTINGS: dict[str, Any] = {"layer": 1, "context": CONTEXT, "buffer_tokens": 200, "batch": 7, "eval_share": 0.2}


class Low(nn.Module):
    """A linear layer with an adapter of low rank around it, as those of PEFT."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base_layer = base.requires_grad_(False)
        self.lora_A, self.lora_B = nn.Linear(base.in_features, 2, bias=False), nn.Linear(2, base.out_features)
        self.lora_dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.lora_B(self.lora_A(self.lora_dropout(x)))


class Adapted(nn.Module):
    """A model whose blocks lie under `base_model.model`, as a PeftModel's do."""

    def __init__(self, model: Any):
        super().__init__()
        self.base_model = nn.Module()
        self.base_model.model = model
        self.config = model.config
        layers: Any = model.model.layers
        for block in layers:
            block.mlp.down_proj = Low(block.mlp.down_proj)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.base_model.get_submodule("model")(*args, **kwargs)


class Int8(nn.Module):
    """A linear layer with weights of 8 bits, as quantised models have."""

    scale: torch.Tensor
    weight: torch.Tensor

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.register_buffer("scale", base.weight.detach().abs().amax() / 127)
        self.register_buffer("weight", (base.weight.detach() / self.scale).round().to(torch.int8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ (self.weight.to(x.dtype) * self.scale).T


def quantised() -> nn.Module:
    model = LlamaForCausalLM(FAMILIES["llama"]())
    layers: Any = model.model.layers
    for block in layers:
        block.mlp.down_proj = Int8(block.mlp.down_proj)
    return model


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix, self.mlp = nn.Linear(16, 16), nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        past = x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]
        return x + self.dropout(self.mlp(x + self.mix(past)))


class Custom(nn.Module):
    """A causal model of no library: no configuration, its own names, ids as its only argument."""

    def __init__(self, positions: int = 40):
        super().__init__()
        self.table, self.places = nn.Embedding(48, 16), nn.Embedding(positions, 16)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.out = nn.Linear(16, 48)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.table(tokens) + self.places(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.out(x)


def of(make: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return make()


MAKE: dict[str, Callable[[], nn.Module]] = {
    "llama": lambda: LlamaForCausalLM(FAMILIES["llama"]()),
    "gpt2": lambda: GPT2LMHeadModel(FAMILIES["gpt2"]()),
    "adapted": lambda: Adapted(LlamaForCausalLM(FAMILIES["llama"]())),
    "custom": Custom,
    "quantised": quantised,
    "bfloat16": lambda: LlamaForCausalLM(FAMILIES["llama"]()).bfloat16(),
}
every_kind = pytest.mark.parametrize("kind", MAKE)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loaded")
    write_corpus(folder / "text.jsonl", 60)
    write_model(folder / "model")
    return folder


@pytest.fixture(scope="module")
def tokenizer(home: Path) -> Any:
    return AutoTokenizer.from_pretrained(home / "model")


@pytest.fixture(scope="module")
def texts(home: Path) -> list[str]:
    return [json.loads(line)["text"] for line in (home / "text.jsonl").read_text().splitlines()]


@pytest.fixture
def give(tokenizer: Any, texts: list[str]) -> Callable[..., LanguageModel]:
    return lambda model, **changes: LanguageModel(
        **{"model": model, "tokenizer": tokenizer, "text": texts, **SETTINGS, **changes}
    )


@pytest.fixture
def another_process() -> None:
    """Nothing was given yet."""
    for registry in (MODELS, TOKENIZERS, TEXTS):
        registry.clear()


def as_objects(texts: list[str]) -> list[dict[str, str]]:
    return [{"text": text} for text in texts]


def rows(source: Source) -> torch.Tensor:
    block = source.block(0, split="train", seed=0)
    assert block is not None
    return block.rows.x


# ---- what objects give -------------------------------------------------------------------------------------


def test_a_loaded_model_gives_what_its_folder_gives(home, tokenizer, texts, give):
    model = AutoModelForCausalLM.from_pretrained(home / "model")
    named = LanguageModel(model=home / "model", text=home / "text.jsonl", **SETTINGS)
    given = give(model)
    assert torch.equal(rows(named), rows(given)) and named.d_in == given.d_in
    assert named.sample_text(3) == given.sample_text(3) and named.token_policy() == given.token_policy()
    assert named.metadata()["hf_hook_name"] == given.metadata()["hf_hook_name"]
    mixed = LanguageModel(model=str(home / "model"), tokenizer=tokenizer, text=texts, **SETTINGS)
    assert torch.equal(rows(named), rows(mixed)) and named.revision == mixed.revision


@pytest.mark.parametrize(
    "form", [tuple, lambda t: dict(enumerate(t)).values(), lambda t: Dataset.from_dict({"text": t}), as_objects]
)
def test_texts_of_every_form_are_read_alike(form, texts, give):
    model = of(MAKE["custom"])
    assert torch.equal(rows(give(model, text=form(texts))), rows(give(model)))


def test_a_dataset_is_read_by_its_column_and_as_token_ids(tokenizer, texts, give):
    model = of(MAKE["custom"])
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    data = Dataset.from_dict({"story": texts, "ids": ids, "number": list(range(len(texts)))})
    assert torch.equal(rows(give(model, text=data, text_column="story")), rows(give(model)))
    assert give(model, text=data.with_format("torch"), text_column="ids", eval_share=0.0).available("train") > 500
    with pytest.raises(ValueError, match=r"has no column 'text', only \['ids', 'number', 'story'\].*such as story"):
        give(model, text=data)


@every_kind
def test_a_loaded_model_is_read_replayed_and_spliced(kind: str, give):
    source = give(of(MAKE[kind]))
    contexts = source.contexts(3, split="train", seed=0)
    relative, absolute = (2e-2, 2e-2) if kind == "bfloat16" else (1e-4, 1e-5)
    torch.testing.assert_close(contexts.downstream(contexts.acts), contexts.base, rtol=relative, atol=absolute)
    windows = source.windows(2, split="eval", seed=0)
    clean = source.logits(windows)
    assert torch.equal(source.spliced_logits(windows, lambda x: x), clean) and clean.shape[-1] == 48
    assert not torch.equal(source.spliced_logits(windows, torch.zeros_like), clean)
    assert source.d_in == rows(source).shape[1] == 16 and rows(source).dtype == torch.float32


def hooks_of(model: nn.Module) -> list[int]:
    return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]


@every_kind
def test_the_model_given_is_left_as_it_was(kind: str, give):
    model = of(MAKE[kind]).train()
    if kind != "custom":
        model(torch.tensor([[3]]), output_hidden_states=True)  # transformers installs hooks of its own, once
    hooks = hooks_of(model)
    next(iter(blocks(model)[1])).eval()  # as some keep a part of it
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    kinds = {(parameter.dtype, parameter.device) for parameter in model.parameters()}
    before = weights_sha256(model)
    source = give(model)
    contexts = source.contexts(2, split="train", seed=0)
    pushed = contexts.acts.clone().requires_grad_()
    contexts.downstream(pushed).square().sum().backward()
    assert pushed.grad is not None and float(pushed.grad.abs().sum()) > 0
    windows = source.windows(1, split="eval", seed=0)
    source.spliced_logits(windows, lambda x: x * 2).sum()
    assert torch.equal(rows(source), rows(replace(source))), "dropout is off"
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags and any(flags)
    assert {(parameter.dtype, parameter.device) for parameter in model.parameters()} == kinds
    assert all(parameter.grad is None for parameter in model.parameters())
    assert hooks_of(model) == hooks
    assert weights_sha256(model) == before


def test_the_downstream_map_has_the_derivatives_of_a_frozen_model(home, give):
    frozen = give(AutoModelForCausalLM.from_pretrained(home / "model").eval().requires_grad_(False))
    learning = give(AutoModelForCausalLM.from_pretrained(home / "model").train())

    def slopes(contexts: Contexts) -> tuple[torch.Tensor, torch.Tensor]:
        with forward_mode():
            pushed = torch.func.jvp(contexts.downstream, (contexts.acts,), (torch.ones_like(contexts.acts),))[1]
        return torch.func.grad(lambda x: contexts.downstream(x).square().sum())(contexts.acts), pushed

    found = [slopes(source.contexts(2, split="train", seed=0)) for source in (frozen, learning)]
    torch.testing.assert_close(*found)


# ---- what is stored ----------------------------------------------------------------------------------------


def test_what_is_stored_says_what_the_objects_were(home, tokenizer, texts, give):
    stored = json.loads(json.dumps(to_json(give(of(MAKE["llama"])))))
    model, words, text = (Reference.parse(stored[name]) for name in ("model", "tokenizer", "text"))
    assert model.kind == "LlamaForCausalLM" and int(model.facts["parameters"]) > 5000 and len(model.sha256) == 64
    assert words.facts["name"] == str(home / "model") and words.facts["tokens"] == "41"
    assert text.kind == "list" and text.facts["documents"] == "60"
    assert from_json(stored) == give(of(MAKE["llama"])) and torch.equal(
        rows(from_json(stored)), rows(from_json(stored))
    )


def test_a_source_without_objects_is_stored_as_before_there_were_any(home):
    assert "tokenizer" not in to_json(LanguageModel(model=str(home / "model")))
    other = LanguageModel(model=str(home / "model"), tokenizer=str(home / "model"))
    assert to_json(other)["tokenizer"] == str(home / "model") and from_json(to_json(other)) == other


def test_one_weight_in_another_place_or_type_is_another_model():
    model = of(MAKE["custom"])
    seen = {weights_sha256(model)}
    for change in (
        lambda: model.table.weight.data[3, 4].add_(1e-3),
        lambda: model.out.bias.data.copy_(model.out.bias.data.flip(0)),
        lambda: model.blocks[0].half(),
        lambda: model.register_buffer("more", torch.zeros(1)),
    ):
        change()
        seen.add(weights_sha256(model))
    assert len(seen) == 5


def test_a_state_of_other_things_than_tensors_is_hashed_by_its_content():
    long = torch.arange(5000)
    assert value_sha256((long, None)) == value_sha256((long.clone(), None)) != value_sha256((long.flip(0), None))
    assert len({value_sha256(value) for value in ("1", 1, 1.0, True, None, torch.int8, b"1")}) == 7
    with pytest.raises(ValueError, match="holds a object, whose content does not show.*give it by name"):
        value_sha256(object())


def test_tied_weights_and_views_are_hashed_as_what_they_hold():
    tied, apart = GPT2LMHeadModel(FAMILIES["gpt2"]()), GPT2LMHeadModel(FAMILIES["gpt2"]())
    apart.load_state_dict(tied.state_dict())
    apart.lm_head.weight = nn.Parameter(tied.lm_head.weight.detach().T.contiguous().T)
    assert weights_sha256(tied) == weights_sha256(apart)


def trained(source: LanguageModel, folder: Path) -> Path:
    base = experiment(tokens=2 * 96)
    small = replace(base, source=source, training=replace(base.training, tokens=2 * 96, batch_size=96))
    return train([small], folder)[0]


@every_kind
def test_a_run_trains_is_scored_and_is_read_back_in_this_process(kind: str, give, tmp_path: Path):
    source = give(of(MAKE[kind]), epochs=3)
    run = Run.open(trained(source, tmp_path))
    assert run.source == source and torch.equal(rows(run.source), rows(source))
    scores = {score.metric: score.value for score in fidelity(run)}
    assert scores["fvu"] >= 0 and any("loss" in name for name in scores), scores


def test_another_process_is_told_to_give_the_model_and_does_so(give, another_process, tmp_path: Path):
    path = trained(give(of(MAKE["adapted"]), epochs=3), tmp_path)
    for registry in (MODELS, TOKENIZERS, TEXTS):
        registry.clear()
    found = Run.open(path).source
    with pytest.raises(ValueError, match=r"given to another process: Adapted \(parameters .*, SHA-256 .*load it and"):
        found.block(0, split="train", seed=0)
    again = give(of(MAKE["adapted"]), epochs=3)
    assert again == found and torch.equal(rows(Run.open(path).source), rows(again))


def test_a_model_whose_name_gives_the_same_weights_is_loaded_by_its_name(home, give, another_process):
    stored = to_json(give(AutoModelForCausalLM.from_pretrained(home / "model")))
    changed = AutoModelForCausalLM.from_pretrained(home / "model")
    changed.model.norm.weight.data.mul_(2)
    other = to_json(give(changed))
    for registry in (MODELS, TOKENIZERS):
        registry.clear()
    assert rows(from_json(stored)).shape[1] == 16
    with pytest.raises(ValueError, match=r"\(.*model has other weights\); load it and give it again"):
        rows(from_json(other))


def test_saebench_is_told_that_it_cannot_load_the_model(give):
    source = give(of(MAKE["llama"]))
    with pytest.raises(NotApplicable, match="given as an object .LlamaForCausalLM .*train on the model's name"):
        target_in(source.metadata(), source)


def test_texts_of_another_process_are_asked_for(give, texts, another_process):
    stored = to_json(give(of(MAKE["custom"])))
    TEXTS.clear()
    with pytest.raises(ValueError, match=r"texts that were given to another process: list \(documents 60, SHA-256"):
        rows(from_json(stored))


def test_a_model_or_texts_that_change_after_they_were_given_are_refused(give, texts):
    model, mine = of(MAKE["custom"]), list(texts)
    source = give(model, text=mine)
    mine.append("the cat")
    with pytest.raises(ValueError, match="the texts given are not what they were"):
        rows(source)
    source = give(model)
    with torch.no_grad():
        model.out.weight.mul_(1.0)  # written to, but the same
    rows(source)
    with torch.no_grad():
        model.out.weight.mul_(2.0)
    with pytest.raises(ValueError, match="the weights of the Custom have changed since this source was made"):
        rows(source)
    assert give(model) != source and rows(give(model)).shape[1] == 16


def test_a_source_keeps_its_objects_while_others_come(give):
    sources = [
        give(of(partial(Custom, 40 + number)), text=[f"the cat saw {'a ' * number}dog"] * 9, eval_share=0.0)
        for number in range(6)
    ]
    assert all(rows(replace(source, batch=3)).shape[1] == 16 for source in sources)


# ---- what is refused ---------------------------------------------------------------------------------------


def generator() -> Any:
    return (word for word in ("the", "cat"))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a layer": ({"layer": 3}, "layer 3 does not exist: the model has 3 blocks, 0 to 2"),
    "a downstream layer": ({"downstream_layer": 8}, "layer 8 does not exist: the model has 3 blocks"),
    "no tokenizer": ({"tokenizer": None}, "a loaded model needs its tokenizer"),
    "a model for a tokenizer": (
        {"tokenizer": nn.Linear(2, 2)},
        "tokenizer is a Linear .*AutoTokenizer.from_pretrained",
    ),
    "a Dataset for a model": ({"model": Dataset.from_dict({"text": ["a"]})}, "model is a Dataset .*a loaded model"),
    "no blocks": ({"model": nn.Linear(2, 2)}, "cannot tell where Linear keeps its blocks"),
    "no parameters": ({"model": nn.Identity()}, "has no parameters"),
    "weights elsewhere": ({"model": nn.Linear(2, 2, device="meta")}, "2 weights .* are not in memory"),
    "another device": ({"device": "cuda"}, "the model given is on cpu; move it there first"),
    "another precision": ({"dtype": "bfloat16"}, "computes in float32; convert it first, or leave dtype out"),
    "no text": ({"text": []}, "hold no text; give one string or more"),
    "empty texts": ({"text": ["", " \n"]}, "hold no text"),
    "an empty Dataset": ({"text": Dataset.from_dict({"text": []})}, "hold no text"),
    "numbers": ({"text": ["the cat", 3]}, r"text 2 of those given is 3 \(int\); expected strings"),
    "none": ({"text": [None]}, r"text 1 of those given is None \(NoneType\)"),
    "rows of another column": ({"text": [{"story": "a cat"}]}, "has no column 'text', only .*such as story"),
    "bytes": ({"text": b"the cat"}, "text is a bytes .*a datasets.Dataset, or a list of strings"),
    "a number": ({"text": 3}, r"text is a int \(3\); expected a path"),
    "splits": (
        {"text": DatasetDict({"train": Dataset.from_dict({"text": ["a"]})})},
        r"give one of them, as in text=data\['tr",
    ),
    "a stream": ({"text": IterableDataset.from_generator(generator)}, "give its name, which is streamed"),
    "a generator": ({"text": generator()}, "can be read only once.*text=list"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_refused_at_once_in_a_sentence(case: str, give):
    changes, message = BAD[case]
    with pytest.raises(ValueError, match=message) as refused:
        give(**{"model": of(MAKE["custom"]), **changes})
    assert "\n" not in str(refused.value)


def test_text_itself_where_a_path_is_meant_is_told_to_be_a_list(give):
    with pytest.raises(ValueError, match="there is no text at 'the cat saw a dog'; .*give a list: text="):
        rows(give(of(MAKE["custom"]), text="the cat saw a dog"))


def test_a_context_longer_than_a_custom_model_reads_is_named(give):
    with pytest.raises(ValueError, match="Custom cannot read 12 tokens .*lower context"):
        give(of(lambda: Custom(10))).check()
