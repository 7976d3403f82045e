"""The transformer blocks of a model, wherever its library keeps them."""

from contextlib import suppress

from torch import nn

BLOCK_LISTS = (
    "model.layers",  # Llama, Qwen, Gemma, Mistral, OLMo, Phi, BitNet, …
    "transformer.h",  # GPT-2, GPT-J, GPT-Neo, Bloom
    "gpt_neox.layers",  # Pythia
    "model.decoder.layers",  # OPT
    "model.language_model.layers",  # text half of multimodal models
)


def blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The model's transformer blocks and their path. Raises ValueError naming what there is when they are not found."""
    for path in BLOCK_LISTS:
        with suppress(AttributeError):
            found = model.get_submodule(path)
            if isinstance(found, nn.ModuleList):
                return path, found
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    # Elsewhere: the one outermost list that is as long as the configuration says the model is deep.
    deep = depth(model)
    fitting = [name for name, found in lists.items() if len(found) == deep]
    outermost = [name for name in fitting if not any(name.startswith(f"{other}.") for other in lists)]
    if len(outermost) == 1:
        return outermost[0], lists[outermost[0]]
    raise ValueError(
        f"cannot tell where {type(model).__name__} keeps its blocks: looked for {list(BLOCK_LISTS)}, found "
        f"{list(lists)[:8]}; add its path to BLOCK_LISTS in unbraid/transformer/blocks.py"
    )


def depth(model: nn.Module) -> int | None:
    """Blocks the model has by its configuration; None where it does not say."""
    config = getattr(model, "config", None)
    return getattr(config.get_text_config(decoder=True), "num_hidden_layers", None) if config is not None else None


def block_at(model: nn.Module, layer: int) -> tuple[str, nn.Module]:
    path, found = blocks(model)
    if not 0 <= layer < len(found):
        raise ValueError(f"layer {layer} does not exist: the model has {len(found)} blocks, 0 to {len(found) - 1}")
    return f"{path}.{layer}", found[layer]
