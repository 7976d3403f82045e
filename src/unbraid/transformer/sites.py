"""Sites: the places of a block that activations are read at."""

from typing import Literal

from torch import nn

from unbraid.transformer.blocks import block_at
from unbraid.transformer.hooks import Tap

Site = Literal["resid_post", "resid_pre", "mlp_out", "attn_out"]

# What a block adds to the residual stream. Where a norm follows the sublayer (Gemma 2 and 3, OLMo 2, GLM 4), it is the
# norm's output, which is also what TransformerLens calls hook_mlp_out and hook_attn_out.
SUBLAYERS = {
    "mlp_out": ("post_feedforward_layernorm", "post_mlp_layernorm", "mlp"),
    "attn_out": ("post_self_attn_layernorm", "post_attention_layernorm", "self_attn", "attn", "attention"),
}


def tap(model: nn.Module, layer: int, site: Site) -> Tap:
    """Where `site` of block `layer` is. Raises ValueError when this model has no such place."""
    path, block = block_at(model, layer)
    if site in ("resid_pre", "resid_post"):
        return Tap(block, path, of_input=site == "resid_pre")
    children = dict(block.named_children())
    candidates = [name for name in SUBLAYERS[site] if name in children]
    if "post_feedforward_layernorm" not in children:
        # Elsewhere (Llama, GPT-NeoX, …) this is the norm before the MLP.
        candidates = [name for name in candidates if name != "post_attention_layernorm"]
    if not candidates:
        raise ValueError(
            f"{type(model).__name__} has no {site}: its blocks hold {sorted(children)}; use --source.site resid_post"
        )
    return Tap(children[candidates[0]], f"{path}.{candidates[0]}")
