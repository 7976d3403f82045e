"""Sites and downstream maps of every causal language model that transformers has, on small random ones.

    python -m benchmarks.architectures                  prints the table of docs/architectures.md
    python -m benchmarks.architectures --write          writes it
    python -m benchmarks.architectures llama bloom      of these alone

Each is a model of three blocks and some ten thousand random weights. What Unbraid accepts at its middle block is tried
again on other tokens, with padding: sublayers must add up to the step of the residual stream, the stream must be the
model's own hidden state, and the layers after must give, for four copies at once, what they give alone.
"""

import argparse
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from unbraid.sources.language_model.blocks import blocks
from unbraid.sources.language_model.downstream import capture, check_downstream
from unbraid.sources.language_model.hooks import forward, read
from unbraid.sources.language_model.probe import FAILURES, in_one_line
from unbraid.sources.language_model.sites import Site, hook_point

PAGE = Path(__file__).parents[1] / "docs" / "architectures.md"
LARGEST = 10_000_000
"""Parameters of a model that is still built: where a configuration cannot be made small, the kind is left out."""
VOCABULARY = 300
# Settings of the same meaning have the same name in most configurations; each takes those it knows.
SMALL: Mapping[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "sliding_window": 4, "n_group": 1, "topk_group": 1,
    "num_local_experts": 4, "num_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_topk": 2,
    "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "shared_intermediate_size": 16,
    "first_k_dense_replace": 1, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
    "v_head_dim": 8, "vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 4, "laurel_rank": 4,
    "mamba_d_ssm": 32, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "lru_width": 32,
    "state_size": 8, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "decoder_layers": 3, "encoder_layers": 1, "d_model": 32, "decoder_ffn_dim": 48,
    "encoder_ffn_dim": 48, "decoder_attention_heads": 4, "encoder_attention_heads": 4, "ffn_dim": 48,
}  # fmt: skip
SLIDING = ["sliding_attention", "sliding_attention", "full_attention"]
OWN: Mapping[str, Mapping[str, Any]] = {
    "bert": {"is_decoder": True},
    "codegen": {"rotary_dim": 4},
    "dots1": {"moe_intermediate_size": 16, "n_shared_experts": 1},
    "falcon_h1": {"mamba_n_heads": 4},
    "gemma3n_text": {"layer_types": SLIDING, "num_kv_shared_layers": 0, "activation_sparsity_pattern": [0.0] * 3},
    "gemma4_text": {"num_kv_shared_layers": 1, "layer_types": ["full_attention"] * 3},
    "gpt_neo": {"attention_types": [[["global"], 3]], "num_layers": 3, "num_heads": 4},
    "gptj": {"rotary_dim": 4},
    "granite": {"residual_multiplier": 0.22, "embedding_multiplier": 12.0},
    "granitemoe": {"residual_multiplier": 0.22},
    "granitemoeshared": {"residual_multiplier": 0.22},
    "jamba": {"use_mamba_kernels": False, "attn_layer_offset": 1, "attn_layer_period": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"]},
    "mamba2": {"num_heads": 8, "n_groups": 1},
    "opt": {"word_embed_proj_dim": 32},
    "rwkv": {"attention_hidden_size": 32},
    "zamba2": {"layer_types": ["mamba", "hybrid", "mamba"], "mamba_headdim": 8, "n_mamba_heads": 8},
    "zaya": {"num_experts_per_tok": 1},
    "xlnet": {"d_head": 8, "n_head": 4, "n_layer": 3},
}  # fmt: skip
SHORT = (
    "llama", "gpt2", "gemma2", "bloom", "granite", "opt", "mixtral", "olmo2", "gemma3n_text", "gemma4_text", "mamba",
    "jamba", "openai-gpt", "gpt_neox", "mpt", "falcon",
)  # fmt: skip
"""Kinds that a test tries: common ones, and the hard ones."""


# ---- small models ------------------------------------------------------------------------------------------


def small_config(kind: str) -> Any:
    """A configuration of three narrow blocks."""
    config = CONFIG_MAPPING[kind]
    renamed = getattr(config, "attribute_map", {})
    known = {*inspect.signature(config.__init__).parameters, *renamed} - {renamed.get(name) for name in SMALL}
    if "kv_lora_rank" in known:  # multi-head latent attention has its own widths
        known -= {"head_dim", "num_key_value_heads"}
    return config(**{**{name: value for name, value in SMALL.items() if name in known}, **OWN.get(kind, {})})


def small_model(kind: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A random model. Weights are large, and no scale is 1, so that nothing a block does is invisible."""
    config = small_config(kind)
    with torch.device("meta"):
        size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    if size > LARGEST:
        raise ValueError(f"{size:,} parameters at the smallest")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False).float()
    rng = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=rng))
        elif "norm" in name or "ln" in name or "scal" in name:
            parameter.add_(0.5 * torch.rand(parameter.shape, generator=rng))
    for name, buffer in model.named_buffers():
        if name.endswith("layer_scalar"):
            buffer.mul_(0.7)
    return model.to(dtype)


# ---- tried -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tried:
    """What a kind of model gave."""

    kind: str
    cells: Mapping[str, str]
    """Of each site, and of "downstream": empty when exact, else the reason it is refused."""

    @property
    def wrong(self) -> list[str]:
        """What was accepted and is not so, or ended in another error than the promised sentence."""
        return [f"{what}: {cell}" for what, cell in self.cells.items() if cell.startswith("WRONG")]


def tried(kind: str) -> Tried:
    model = small_model(kind)
    cells = {site: said(lambda site=site: recheck(model, site)) for site in get_args(Site)}
    return Tried(kind, cells | {"downstream": said(lambda: recheck_downstream(model))})


def said(attempt: Any) -> str:
    try:
        return attempt()
    except ValueError as refusal:
        return str(refusal)
    except FAILURES as error:
        return f"WRONG: {in_one_line(error)}"


def other_tokens() -> tuple[Tensor, Tensor]:
    ids = torch.randint(3, VOCABULARY, (3, 14), generator=torch.Generator().manual_seed(7))
    attention = torch.arange(14) < torch.tensor([14, 11, 14])[:, None]
    return ids.masked_fill(~attention, 0), attention


def recheck(model: nn.Module, site: Site, layer: int = 1) -> str:
    """Empty when what is read there is what it should be, by hooks and hidden states of this file's own."""
    place = hook_point(model, layer, site)
    ids, attention = other_tokens()
    acts = read(model, place, ids, attention)
    states, stream = watched(model, blocks(model)[1][layer], ids, attention)
    if site.startswith("resid"):
        known = not states or any(close(acts, state) for state in states)
        return "" if known and close(acts, stream[site.removeprefix("resid_")]) else "WRONG: not the hidden state"
    other = read_or_nothing(model, "attn_out" if site == "mlp_out" else "mlp_out", layer)
    rest = stream["post"] - stream["pre"] - acts - (0 if other is None else other)
    if other is not None and not close(rest + stream["post"], stream["post"]):
        return "WRONG: attention and MLP do not add up to the step"
    return ""


def watched(model: nn.Module, block: nn.Module, ids: Tensor, attention: Tensor) -> tuple[Any, Mapping[str, Tensor]]:
    """The model's hidden states, and what enters and leaves a block."""
    seen: dict[str, Tensor] = {}

    def before(_: nn.Module, args: Any, kwargs: Any) -> None:
        seen["pre"] = first_tensor((*args, *kwargs.values())).clone()

    def after(_: nn.Module, __: Any, output: Any) -> None:
        seen["post"] = first_tensor(output).clone()

    with block.register_forward_pre_hook(before, with_kwargs=True), block.register_forward_hook(after), torch.no_grad():
        return forward(model, ids, attention, output_hidden_states=True).hidden_states, seen


def read_or_nothing(model: nn.Module, site: Site, layer: int) -> Tensor | None:
    try:
        return read(model, hook_point(model, layer, site), *other_tokens())
    except ValueError:
        return None


def recheck_downstream(model: nn.Module) -> str:
    """Empty when the layers after give for folded copies what they give alone."""
    ids, attention = other_tokens()
    hook_point(model, 1, "resid_pre")
    check_downstream(model, 1, 2, ids, attention)
    acts, base, tail = capture(model, 1, 2, ids, attention)
    pushed = acts + 0.3 * torch.randn(2, 2, *acts.shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        together, alone = tail(pushed), torch.stack([torch.stack([tail(p) for p in row]) for row in pushed])
    return "" if close(together, alone) and torch.equal(tail(acts), base) else "WRONG: folded copies differ"


def first_tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else next(v for v in value if isinstance(v, Tensor))


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and float((a - b).abs().max()) <= 1e-4 * float(b.abs().max())


# ---- the page -----------------------------------------------------------------------------------------------


def page(results: list[Tried], left_out: Mapping[str, str]) -> str:
    """docs/architectures.md"""
    exact = {what: sum(not r.cells[what] for r in results) for what in results[0].cells}
    counts = ", ".join(f"{what} {number}" for what, number in exact.items())
    head = "| kind | " + " | ".join(results[0].cells) + " | what is refused, and why |"
    lines = [
        "# Architectures",
        "",
        f"Made by `python -m benchmarks.architectures --write` with transformers {transformers.__version__}: small",
        "random models of every kind of causal language model it has, at their middle block of three. **+** is exact,",
        "proven when the model is loaded; **-** is refused with the reason. Any other model is tried in the same way.",
        "",
        f"{len(results)} kinds tried. Exact: {counts}. {len(left_out)} could not be built: see below.",
        "",
        head,
        "|" + "---|" * (len(results[0].cells) + 2),
        *map(row, results),
        "",
        "## Not tried",
        "",
        *(f"- `{kind}`: {reason}" for kind, reason in left_out.items()),
    ]
    return "\n".join(lines) + "\n"


def row(result: Tried) -> str:
    marks = " | ".join("-" if cell else "+" for cell in result.cells.values())
    reasons = {}
    for what, cell in result.cells.items():
        if cell:
            reasons.setdefault(short(cell), []).append(what)
    refusals = "; ".join(f"{', '.join(whats)}: {reason}" for reason, whats in reasons.items())
    return f"| {result.kind} | {marks} | {refusals.replace('|', '/')} |"


def short(cell: str) -> str:
    """A refusal without the model's name in front and the remedy behind."""
    reason = cell.split(": ", 1)[1] if " has no " in cell.split(": ", 1)[0] else cell
    return reason.split("; use ")[0].split(", so its downstream map")[0]


def attempts(kinds: list[str], left_out: dict[str, str]) -> Iterator[Tried]:
    for kind in kinds:
        try:
            yield tried(kind)
        except Exception as error:  # anything a library's configuration class may raise
            left_out[kind] = in_one_line(error)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kinds", nargs="*", default=list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    left_out: dict[str, str] = {}
    results = list(attempts(options.kinds, left_out))
    if options.write:
        PAGE.write_text(page(results, left_out), encoding="utf-8")
    else:
        print(page(results, left_out))
    wrong = [f"{r.kind} {fault}" for r in results for fault in r.wrong]
    print("\n".join(wrong) or "nothing accepted was wrong")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
