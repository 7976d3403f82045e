"""Can a model spell? First-letter probes by layer, on words they were not fitted on: what SAEBench's absorption needs.

    python -m models.letters models/english

Words are those of one token. Each is read at its last token in SAEBench's prompt, after three examples. A letter counts
as usable when the logistic probe's F1 is above 0.6, SAEBench's own bound.
"""

import random
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
import torch
import tyro
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoModelForCausalLM, AutoTokenizer

USABLE = 0.6
EXAMPLES = 3


@torch.no_grad()
def main(model: tyro.conf.Positional[Path], test_share: float = 0.2, batch: int = 64, seed: int = 0) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    words = sorted(word for token in tokenizer.get_vocab() if (word := plain(token)))
    random.Random(seed).shuffle(words)
    read = [states(network, tokenizer, words[i : i + batch], words) for i in range(0, len(words), batch)]
    layers = torch.cat([r[0] for r in read], 1)
    said = sum(r[1] for r in read) / len(words)
    initials = np.array([word[0].lower() for word in words])
    cut = round(test_share * len(words))
    print(f"{len(words)} words of one token; asked for the first letter, the model says it for {said:.0%}")
    for layer, x in enumerate(layers.numpy()):
        found = {c: probe(x, initials == c, cut) for c in ascii_lowercase if (initials[:cut] == c).sum() >= 2}
        usable = "".join(c for c, f1 in found.items() if f1 > USABLE)
        print(f"layer {layer}: mean F1 {np.mean(list(found.values())):.2f}; {len(usable)} of {len(found)}: {usable}")


def plain(token: str) -> str:
    """The word of a token that is one, else nothing."""
    word = token[1:] if token.startswith("Ġ") else ""
    return word if word.isascii() and word.isalpha() and len(word) > 1 else ""


def states(network: Any, tokenizer: Any, some: list[str], words: list[str]) -> tuple[torch.Tensor, int]:
    """States at the word [layers, words, d_in], the embedding first; and how often the letter is said."""
    told = [f" {w} has the first letter: {w[0].upper()}\n" for w in words[:EXAMPLES]]
    head = [tokenizer.bos_token_id, *tokenizer.encode("".join(told), add_special_tokens=False)]
    tail = tokenizer.encode(" has the first letter:", add_special_tokens=False)
    rows = torch.tensor([[*head, tokenizer.convert_tokens_to_ids(f"Ġ{w}"), *tail] for w in some])
    made = network(input_ids=rows, output_hidden_states=True)
    next_tokens = tokenizer.batch_decode(made.logits[:, -1].argmax(-1, keepdim=True))
    right = sum(t.strip() == w[0].upper() for t, w in zip(next_tokens, some, strict=True))
    return torch.stack([h[:, len(head)] for h in made.hidden_states]), right


def probe(x: np.ndarray, active: np.ndarray, cut: int) -> float:
    """F1 on the first `cut` rows of a probe fitted on the others."""
    regression = LogisticRegression(max_iter=1000, C=0.1, class_weight="balanced")
    fitted = make_pipeline(StandardScaler(), regression).fit(x[cut:], active[cut:])
    return float(f1_score(active[:cut], fitted.predict(x[:cut])))


if __name__ == "__main__":
    tyro.cli(main)
