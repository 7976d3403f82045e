"""RAVEL by SAEBench's code, which knows two architectures and expects layers to return tuples.

Under transformers 5 decoder layers return a tensor, while SAEBench's hooks take the first item of a tuple. So each
layer is wrapped so that its hooks see a tuple, for any architecture. A model that answers no prompt correctly leaves
nothing to intervene on, and is refused.
"""

# pyright: reportMissingImports=false
import dataclasses
import functools
import inspect
import json
import math
import types
from pathlib import Path

import loading
import torch

BLOCKS = ("model.layers", "gpt_neox.layers", "transformer.h", "model.decoder.layers")
PROMPTS = ["city: Rome, country: Italy. city: Paris, country:", "People in Madrid usually speak", "Tokyo is a city on"]
"""Prompts like RAVEL's, to test the tokenizer with."""


def ravel(request: dict, model: str, name: str, sae):
    """Run RAVEL; return the folder of its JSON, and facts to store next to it."""
    import sae_bench.evals.ravel.main as main
    from sae_bench.sae_bench_utils import activation_collection

    if not sae.cfg.metadata.hook_name.endswith("hook_resid_post"):
        raise loading.Refused(f"RAVEL reads the output of a block only; this SAE is on {sae.cfg.metadata.hook_name}")
    if request["model_folder"]:
        main.LLM_NAME_MAP[model] = request["model_folder"]
    elif "/" in model:
        main.LLM_NAME_MAP.setdefault(model, model)
    activation_collection.get_module = layer_in_tuples
    if request["share"]:
        lighter(main, activation_collection)
    config = main.RAVELEvalConfig(
        model_name=model, llm_dtype=request["dtype"], llm_batch_size=request["batch"], random_seed=request["seed"],
        artifact_dir="artifacts/ravel", **request["settings"],
    )  # fmt: skip
    lay_out(request["ravel"], Path(config.artifact_dir) / "base")
    loading.refuse_unknown_words(request, "RAVEL's prompts", PROMPTS)
    known = known_facts(main, config, request["device"])
    refuse_too_few(known, config)
    out = loading.empty(Path("ravel"))
    main.run_eval(config, [(name, sae)], request["device"], str(out), force_rerun=True)
    return out, {"settings": dataclasses.asdict(config), "prompts_answered": sum(known.values()), "answered": known}


def known_facts(main, config, device: str) -> dict[str, int]:
    """The number of prompts that the model answers and that can be swapped, by entity and attribute, after RAVEL's own
    filter.

    The filter runs before any SAE is scored: within the first run it would draw from the random stream that pairs of
    prompts are drawn from, so that the first run would see other pairs than those after it.
    """
    config = dataclasses.replace(config, model_name=main.LLM_NAME_MAP[config.model_name])
    counts: dict[str, int] = {}
    for entity, attributes in config.entity_attribute_selection.items():
        name = main.get_instance_name(entity, config.model_name, config.full_dataset_downsample, config.top_n_entities)
        path = Path(config.artifact_dir) / name
        if not path.is_file():
            filtered(main, config, entity, device)
        prompts = json.loads(path.read_text(encoding="utf-8"))["prompts"]
        labels = {name: [p["attribute_label"] for p in prompts if p["attribute_type"] == name] for name in attributes}
        # An attribute with one answer for all has nothing to be swapped with.
        counts |= {f"{entity} {name}": len(found) if len(set(found)) > 1 else 0 for name, found in labels.items()}
    return counts


def filtered(main, config, entity: str, device: str) -> None:
    """Ask the model for every fact of an entity, and store the prompts that it answers, as RAVEL's first run does."""
    loading.seed(config.random_seed)
    lm = main.AutoModelForCausalLM.from_pretrained(
        config.model_name, device_map=device, torch_dtype=main.general_utils.str_to_dtype(config.llm_dtype),
        **({"attn_implementation": "eager"} if "gemma" in config.model_name else {}),
    )  # fmt: skip
    asked = dataclasses.replace(config, llm_batch_size=config.llm_batch_size * 8)  # as RAVEL has it
    instance = main.RAVELInstance.create_from_files(
        config=asked, entity_type=entity, tokenizer=main.AutoTokenizer.from_pretrained(config.model_name),
        data_dir=config.artifact_dir, model=lm, model_name=config.model_name,
        attribute_types=config.entity_attribute_selection[entity], downsample=config.full_dataset_downsample,
    )  # fmt: skip
    instance.create_and_save_filtered_dataset(artifact_dir=config.artifact_dir, top_n_entities=config.top_n_entities)


def refuse_too_few(known: dict[str, int], config) -> None:
    """Raise Refused when an attribute has fewer known prompts than fill one batch of pairs held out from training."""
    least = math.ceil(config.llm_batch_size / (2 * (1 - config.train_test_split)))
    if few := {name: count for name, count in known.items() if count < least}:
        said = ", ".join(f"{name} {count}" for name, count in few.items())
        tried = "" if config.full_dataset_downsample is None else f", of {config.full_dataset_downsample} tried in all"
        raise loading.Refused(
            f"the model answers too few of RAVEL's prompts correctly ({said}; {least} of each attribute "
            f"are needed{tried}): it does not know the facts that RAVEL would swap; use a larger model, one trained on "
            "them, or a larger --size, which asks more"
        )


def lighter(main, activation_collection) -> None:
    """Leave out work of RAVEL's that changes nothing: loading the model again, gradients of its weights, logits before
    the last position, and the blocks after the one that is read."""
    if getattr(main, "lightened", False):
        return
    main.lightened = True
    load, models = main.AutoModelForCausalLM.from_pretrained, {}

    def loaded(*args, **kwargs):
        key = repr((args, sorted(kwargs.items(), key=repr)))
        if key not in models:
            lm = load(*args, **kwargs).requires_grad_(False)
            forward = lm.forward
            if "logits_to_keep" in inspect.signature(forward).parameters:
                # RAVEL reads logits at the last position only.
                lm.forward = functools.partial(forward, logits_to_keep=1)
            models[key] = lm
        return models[key]

    main.AutoModelForCausalLM = types.SimpleNamespace(from_pretrained=loaded)
    activation_collection.get_layer_activations = layer_activations


class PromptsRead(Exception):
    """The block that was to be read has run."""


@torch.no_grad()
def layer_activations(model, target_layer: int, inputs, source_pos_B) -> torch.Tensor:
    """The outputs of a block at a position of each text, without the blocks after it."""
    seen = []

    def read(module, args, outputs):
        seen.append(outputs[0])
        raise PromptsRead

    handle = layer_in_tuples(model, target_layer).register_forward_hook(read)
    try:
        model(input_ids=inputs["input_ids"].to(model.device), attention_mask=inputs.get("attention_mask", None))
    except PromptsRead:
        pass
    finally:
        handle.remove()
    return seen[0][list(range(len(seen[0]))), source_pos_B, :].clone()


def layer_in_tuples(model, layer: int):
    """Return an object whose hooks see the block's output as a tuple."""
    for path in BLOCKS:
        try:
            block = model.get_submodule(path)[layer]
        except AttributeError:
            continue
        return types.SimpleNamespace(register_forward_hook=functools.partial(tupled, block))
    raise ValueError(f"cannot tell where {type(model).__name__} keeps its blocks: looked for {BLOCKS}")


def tupled(block, hook, *args, **kwargs):
    """Register a hook on a block so that the hook sees a tuple."""

    def see(module, inputs, output):
        if isinstance(output, tuple):
            return hook(module, inputs, output)
        changed = hook(module, inputs, (output,))
        return changed[0] if isinstance(changed, tuple) else changed

    return block.register_forward_hook(see, *args, **kwargs)


def lay_out(source: str | None, base: Path) -> None:
    """Copy RAVEL's JSON files to where its loader looks before it downloads them."""
    if source is None:
        return
    base.mkdir(parents=True, exist_ok=True)
    for path in Path(source).glob("ravel_*.json"):
        (base / path.name).write_bytes(path.read_bytes())
