"""A Llama model of a few thousand parameters in a GGUF file, its weights in Q8_0, with a tokenizer of bytes."""

from pathlib import Path

import gguf
import numpy as np

D_IN, HIDDEN, BLOCKS, HEADS, WORDS = 32, 32, 3, 4, ("ab", "cd", "abcd")


def write_gguf(path: Path, *, architecture: str = "llama", adds_bos: bool = False) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(BLOCKS)
    writer.add_context_length(64)
    writer.add_embedding_length(D_IN)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(D_IN // HEADS)
    tokens = vocabulary()
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, *([1] * (len(tokens) - 2))])  # 3: a control token
    writer.add_token_merges(["a b", "c d", "ab cd"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(adds_bos)
    rng = np.random.default_rng(0)
    for name, shape in shapes(len(tokens)).items():
        weights = rng.normal(0, 0.3, shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, np.ones(shape, np.float32))
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def vocabulary() -> list[str]:
    """Control tokens, the 256 bytes as GPT-2 writes them, and a few words."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return ["<|endoftext|>", "<|im_end|>", *bytes_to_unicode().values(), *WORDS]


def shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor, by its name in GGUF."""
    square, norm = (D_IN, D_IN), (D_IN,)
    block = {
        "attn_norm": norm, "attn_q": square, "attn_k": square, "attn_v": square, "attn_output": square,
        "ffn_norm": norm, "ffn_gate": (HIDDEN, D_IN), "ffn_up": (HIDDEN, D_IN), "ffn_down": (D_IN, HIDDEN),
    }  # fmt: skip
    blocks = {f"blk.{i}.{name}.weight": shape for i in range(BLOCKS) for name, shape in block.items()}
    return {"token_embd.weight": (vocabulary, D_IN), **blocks, "output_norm.weight": norm}
