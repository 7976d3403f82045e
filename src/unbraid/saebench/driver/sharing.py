"""Shares between the runs of one model the model in memory and its activations at the hook.

Nothing of SAEBench is edited. Its model is loaded once a process instead of once a run, its passes that read
one hook stop after that layer, and what they find is kept for the next run that reads the same tokens.
"""

# pyright: reportMissingImports=false
import hashlib
import re

import torch

MOST_BYTES = 2e9
"""Size of the activations that are kept in memory; what does not fit any more is computed for every run."""
HOOK = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|post)")


class KeptTensors:
    """Tensors by the tokens that they were computed on, up to a size."""

    def __init__(self) -> None:
        self.found: dict[bytes, dict[str, torch.Tensor]] = {}
        self.bytes = 0

    def get(self, key: bytes) -> dict[str, torch.Tensor] | None:
        """The tensors of a key; None where there are none."""
        return self.found.get(key)

    def put(self, key: bytes, tensors: dict[str, torch.Tensor]) -> None:
        """Keep tensors if they fit. Nothing is thrown out for them: runs read the same tokens in the same order, so
        that the oldest are the next to be read."""
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        if self.bytes + size <= MOST_BYTES:
            self.found[key] = tensors
            self.bytes += size

    def clear(self) -> None:
        """Forget everything."""
        self.found.clear()
        self.bytes = 0


def key_of(what: str, tokens) -> bytes:
    """A key for tokens, which are a tensor or texts."""
    if isinstance(tokens, torch.Tensor):
        content = repr((tuple(tokens.shape), tokens.dtype)).encode() + tokens.detach().cpu().numpy().tobytes()
    else:
        content = repr(tokens).encode(errors="surrogatepass")
    return hashlib.sha256(what.encode() + b"\0" + content).digest()


def start_of(hook: str) -> int | None:
    """The first block that reads the residual stream at a hook; None for other sites."""
    found = HOOK.fullmatch(hook)
    return int(found[1]) + (found[2] == "post") if found else None


class Shared:
    """The models of a process, by how they are loaded, and what was found with them."""

    def __init__(self) -> None:
        self.models: dict[str, object] = {}
        self.kept = KeptTensors()

    def install(self) -> None:
        """Make SAEBench's way to load a model return the one that is loaded already."""
        from transformer_lens import HookedTransformer

        load = HookedTransformer.from_pretrained_no_processing

        def loaded(*args, **kwargs):
            key = repr((args, sorted(kwargs.items())))
            if key not in self.models:
                self.models[key] = self.remembering(load(*args, **kwargs))
            return self.models[key]

        setattr(HookedTransformer, "from_pretrained_no_processing", staticmethod(loaded))  # noqa: B010

    def of_texts(self, what: str, tokens, compute) -> torch.Tensor:
        """Return what `compute` finds for tokens, or for a list of texts, of which those that are kept are not read
        again."""
        texts = tokens if isinstance(tokens, list) else None
        keys = [key_of(what, text) for text in (texts or [tokens])]
        missing = [i for i, key in enumerate(keys) if self.kept.get(key) is None]
        if missing:
            found = compute([texts[i] for i in missing] if texts else tokens)
            for row, i in enumerate(missing):
                self.kept.put(keys[i], {"found": found[row : row + 1].clone() if texts else found})
            if len(missing) == len(keys):
                return found.clone()
        kept = [self.kept.get(key) for key in keys]
        rows = [one["found"] for one in kept if one is not None]
        if len(rows) < len(keys) or len({row.shape[1:] for row in rows}) > 1:  # too much to keep; or padded otherwise
            return compute(tokens)
        return torch.cat(rows)

    def remembering(self, model):
        """Make a model stop after the one hook that a pass reads, and remember what it found there."""
        run = model.run_with_cache

        def run_with_cache(tokens, *args, names_filter=None, stop_at_layer=None, **kwargs):
            hook = names_filter[0] if isinstance(names_filter, list) and len(names_filter) == 1 else ""
            after = start_of(hook)
            if args or after is None or stop_at_layer not in (None, after):
                return run(tokens, *args, names_filter=names_filter, stop_at_layer=stop_at_layer, **kwargs)
            what = f"{hook} {sorted(kwargs.items())} {id(model)}"
            # SAEBench reads the activations only, so that the blocks after them need not run.
            stopped = lambda some: run(some, names_filter=[hook], stop_at_layer=max(after, 1), **kwargs)[1][hook]
            return None, {hook: self.of_texts(what, tokens, stopped)}

        model.run_with_cache = run_with_cache
        return model
