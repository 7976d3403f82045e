"""RAVEL by SAEBench's code, which knows two architectures and expects layers to return tuples.

Under transformers 5 decoder layers return a tensor, while SAEBench's hooks take the first item of a tuple. So each
layer is wrapped so that its hooks see a tuple, for any architecture. A model that answers no prompt correctly leaves
nothing to intervene on, and is refused.
"""

# pyright: reportMissingImports=false
import dataclasses
import functools
import json
import types
from pathlib import Path

import loading

BLOCKS = ("model.layers", "gpt_neox.layers", "transformer.h", "model.decoder.layers")
PROMPTS = ["city: Rome, country: Italy. city: Paris, country:", "People in Madrid usually speak", "Tokyo is a city on"]
"""Prompts like RAVEL's, to test the tokenizer with."""
FEWEST = 20
"""Least number of correctly answered prompts."""


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
    config = main.RAVELEvalConfig(
        model_name=model, llm_dtype=request["dtype"], llm_batch_size=request["batch"], random_seed=request["seed"],
        artifact_dir="artifacts/ravel", **request["settings"],
    )  # fmt: skip
    lay_out(request["ravel"], Path(config.artifact_dir) / "base")
    loading.refuse_unknown_words(request, "RAVEL's prompts", PROMPTS)
    out = loading.empty(Path("ravel"))
    try:
        main.run_eval(config, [(name, sae)], request["device"], str(out), force_rerun=True)
    except Exception as error:
        correct = answered(Path(config.artifact_dir))
        if correct is not None and correct < FEWEST:
            raise loading.Refused(
                f"the model answers {correct} of RAVEL's prompts correctly, {FEWEST} are needed: it does not know the "
                "facts that RAVEL would swap; use a larger model, or one trained on them"
            ) from error
        raise
    return out, {"settings": dataclasses.asdict(config), "prompts_answered": answered(Path(config.artifact_dir))}


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


def answered(folder: Path) -> int | None:
    """The number of prompts that the model answered correctly, over all entities; None before any was tried."""
    found = list(folder.glob("*_unfiltered_full_instance.json"))
    if not found:
        return None
    return sum(count(json.loads(path.read_text(encoding="utf-8"))) for path in found)


def count(instance: dict) -> int:
    """The number of correct prompts in one of RAVEL's files."""
    prompts = instance.get("prompts") or []
    return sum(bool(prompt.get("is_correct")) for prompt in prompts)
