"""RAVEL by SAEBench's code, which knows two architectures and layers that return tuples.

Under transformers 5 decoder layers return a tensor; its hooks take the first of a tuple. So a layer is handed to them
behind a wrapper that makes it one, here and for any architecture. A model that answers no prompt leaves nothing to
intervene on, and is refused.
"""

# pyright: reportMissingImports=false
import dataclasses
import functools
import json
import types
from pathlib import Path

import subject

BLOCKS = ("model.layers", "gpt_neox.layers", "transformer.h", "model.decoder.layers")
PROMPTS = ["city: Rome, country: Italy. city: Paris, country:", "People in Madrid usually speak", "Tokyo is a city on"]
"""Of the kind that RAVEL asks."""
FEWEST = 20
"""Correctly answered prompts an attribute needs."""


def ravel(request: dict, model: str, name: str, sae):
    import sae_bench.evals.ravel.main as main
    from sae_bench.sae_bench_utils import activation_collection

    if not sae.cfg.metadata.hook_name.endswith("hook_resid_post"):
        raise subject.Refused(f"RAVEL reads the output of a block only; this SAE is on {sae.cfg.metadata.hook_name}")
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
    subject.refuse_unknown_words(request, "RAVEL's prompts", PROMPTS)
    out = subject.empty(Path("ravel"))
    try:
        main.run_eval(config, [(name, sae)], request["device"], str(out), force_rerun=True)
    except Exception as error:
        correct = answered(Path(config.artifact_dir))
        if correct is not None and correct < FEWEST:
            raise subject.Refused(
                f"the model answers {correct} of RAVEL's prompts correctly, {FEWEST} are needed: it does not know the "
                "facts that RAVEL would swap; use a larger model, or one trained on them"
            ) from error
        raise
    return out, {"settings": dataclasses.asdict(config), "prompts_answered": answered(Path(config.artifact_dir))}


def layer_in_tuples(model, layer: int):
    """A block that its hooks see as one that returns a tuple."""
    for path in BLOCKS:
        try:
            block = model.get_submodule(path)[layer]
        except AttributeError:
            continue
        return types.SimpleNamespace(register_forward_hook=functools.partial(tupled, block))
    raise ValueError(f"cannot tell where {type(model).__name__} keeps its blocks: looked for {BLOCKS}")


def tupled(block, hook, *args, **kwargs):
    def see(module, inputs, output):
        if isinstance(output, tuple):
            return hook(module, inputs, output)
        changed = hook(module, inputs, (output,))
        return changed[0] if isinstance(changed, tuple) else changed

    return block.register_forward_hook(see, *args, **kwargs)


def lay_out(source: str | None, base: Path) -> None:
    """Put RAVEL's own JSON files where its loader looks before it asks the hub."""
    if source is None:
        return
    base.mkdir(parents=True, exist_ok=True)
    for path in Path(source).glob("ravel_*.json"):
        (base / path.name).write_bytes(path.read_bytes())


def answered(folder: Path) -> int | None:
    """Prompts that the model answered correctly, of all entities; None before any were tried."""
    found = list(folder.glob("*_unfiltered_full_instance.json"))
    if not found:
        return None
    return sum(count(json.loads(path.read_text(encoding="utf-8"))) for path in found)


def count(instance: dict) -> int:
    prompts = instance.get("prompts") or []
    return sum(bool(prompt.get("is_correct")) for prompt in prompts)
