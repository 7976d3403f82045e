"""The transformer blocks of a model, wherever its library keeps them."""

from contextlib import suppress
from typing import Any

from torch import nn

BLOCK_LISTS = (
    "model.layers",  # Llama, Qwen, Gemma, Mistral, OLMo, Phi, BitNet, …
    "transformer.h",  # GPT-2, GPT-J, GPT-Neo, Bloom
    "gpt_neox.layers",  # Pythia
    "model.decoder.layers",  # OPT
    "model.language_model.layers",  # text half of multimodal models
)
WRAPPERS = ("", "base_model.model.", "_orig_mod.", "module.")
"""Path of the model inside what was put around it: nothing, adapters of PEFT, torch.compile, data parallelism."""
NAMES = ("blocks", "layers", "h")
"""Names of the list of blocks in models without a configuration."""


def blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Return the path of the model's transformer blocks, and the blocks.

    Raises ValueError naming what there is when they are not found.
    """
    for path in (wrapper + known for wrapper in WRAPPERS for known in BLOCK_LISTS):
        with suppress(AttributeError):
            found = model.get_submodule(path)
            if isinstance(found, nn.ModuleList) and len(found):
                return path, found
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    # Elsewhere: the one outermost list that is as long as the configuration says, or without one, has such a name.
    deep = depth(model)
    fitting = [
        name
        for name, found in lists.items()
        if len(found) and (len(found) == deep or (deep is None and name.rpartition(".")[2] in NAMES))
    ]
    outermost = [name for name in fitting if not any(name.startswith(f"{other}.") for other in lists)]
    if len(outermost) == 1:
        return outermost[0], lists[outermost[0]]
    raise ValueError(
        f"cannot tell where {type(model).__name__} keeps its blocks: looked for {[*BLOCK_LISTS, *NAMES]}, found the "
        f"module lists {list(lists)[:8]}; keep them in one nn.ModuleList called blocks"
    )


def text_config(model: nn.Module) -> Any:
    """Return the configuration of the model's text part, as transformers keeps it; None where there is none."""
    get = getattr(getattr(model, "config", None), "get_text_config", None)
    return None if get is None else get(decoder=True)


def vocabulary_of(model: nn.Module) -> int:
    """Return the number of tokens a model embeds. Raises ValueError where it does not show."""
    size = getattr(text_config(model), "vocab_size", None)
    tables = (module.num_embeddings for module in model.modules() if isinstance(module, nn.Embedding))
    if (found := size or next(tables, None)) is None:
        raise ValueError(f"{type(model).__name__} has no nn.Embedding and no config.vocab_size: it reads no tokens")
    return int(found)


def depth(model: nn.Module) -> int | None:
    """Return how many blocks the model has by its configuration; None where it does not say."""
    return getattr(text_config(model), "num_hidden_layers", None)


def block_at(model: nn.Module, layer: int) -> tuple[str, nn.Module]:
    """Return the path of a block, and the block. Raises ValueError, with the number of blocks, when there is none."""
    path, found = blocks(model)
    if not 0 <= layer < len(found):
        raise ValueError(f"layer {layer} does not exist: the model has {len(found)} blocks, 0 to {len(found) - 1}")
    return f"{path}.{layer}", found[layer]
