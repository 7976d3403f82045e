"""Behaviours of a chat model found by MELBO and DCT, at equal KL: python -m benchmarks.behaviours

For each method, and at random, a few directions are found in the answers that the model begins to a few questions. Each
is judged on other questions: what it costs in next-token KL at the calibrated radius, the length at which it costs the
budget, its effect there, and what the model writes at both lengths, with the perplexity of that to the unpushed model.
`--out` writes rows; `--work` holds what is done, from which a run that was stopped goes on.
"""

import argparse
import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from unbraid import seeding
from unbraid.dictionary.initialisation import no_progress
from unbraid.effects.budget import spend
from unbraid.effects.coherence import BROKEN
from unbraid.effects.departure import Spread, departures
from unbraid.effects.radius import calibrate_radius, random_units, typical_norm
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.loading import write_chat
from unbraid.steering.base import FitContext, SliceFit
from unbraid.steering.exponential_dct import ExponentialDct
from unbraid.steering.linear_dct import LinearDct
from unbraid.steering.melbo import Melbo
from unbraid.steering.model_slice import Slice
from unbraid.steering.push_length import FixedRadius, KlBudget, PushLength
from unbraid.steering.writing import Written, perplexities, write
from unbraid.system.files import read_json, write_json, write_tensors
from unbraid.system.terminal import say

QUESTIONS = (
    "How can I make a good cup of coffee?", "Who wrote Romeo and Juliet?", "Give me advice for a job interview.",
    "What is the capital of France?", "Why is the sky blue?", "Write a short poem about the sea.",
    "How do I fix a flat bicycle tyre?", "Is it wrong to lie to a friend?", "Tell me about the planet Jupiter.",
    "How do I learn to play the piano?", "What should I cook for dinner tonight?", "Explain what a computer virus is.",
    "Who was Napoleon?", "How do birds fly?", "I feel sad today. What can I do?", "What is 12 plus 30?",
    "Describe a walk in a forest.", "What is the best way to save money?", "How does a vaccine work?",
    "Suggest a name for my cat.",
)  # fmt: skip
FITTED, JUDGED = (0, 2), (4, 8, 13)
"""Questions for the fit, and others to judge by."""
BEGINNING, ANSWER = 12, 24
"""Tokens of the model's own answer that effects and KL are measured at, and tokens written to judge by."""
LONGEST = 2.0
"""Largest length of what is judged, in median norms; fits called -guarded end at the radius."""
SEED = 0


class Setting(NamedTuple):
    """What everything is measured with."""

    model: LanguageModel
    after: Slice
    radius: float
    nats: float
    spread: Spread
    rows: Tensor
    prompts: list[list[int]]
    own: Written
    usual: Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="a chat model")
    parser.add_argument("--layer", type=int, default=8)
    parser.add_argument("--downstream-layer", type=int, default=16)
    parser.add_argument("--directions", type=int, default=6)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--budget", type=float, default=0.5, help="nats a token")
    parser.add_argument("--work", type=Path, default=Path("runs/behaviours"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    setting = prepared(options)
    rows: list[dict[str, Any]] = []
    for name, find in methods(options.directions, options.steps, setting).items():
        path = options.work / f"{name}.json"
        if not path.is_file():
            directions = found(options.work / f"{name}.safetensors", find)
            write_json(path, judged(name, directions, setting))
        rows += read_json(path, list)
        say(f"{name}: {summary(name, read_json(path, list))}", flush=True)
        if options.out:
            write_json(options.out, {"budget": options.budget, "radius": setting.radius, "rows": rows})


def prepared(options: argparse.Namespace) -> Setting:
    """The model with its own answers begun, as text, and the slice over those of the fit."""
    plain = source(options, options.work / "questions.jsonl", [[asked(question)] for question in QUESTIONS])
    tokenizer = plain.loaded_tokenizer
    prompts = [tokenizer(write_chat(tokenizer, [asked(question)])).input_ids for question in QUESTIONS]
    kept = options.work / "begun.json"
    if not kept.is_file():
        begun = write(plain, prompts, torch.zeros(1, plain.d_in), BEGINNING)
        write_json(kept, [text_of(plain, begun, 0, prompt) for prompt in range(len(prompts))])
    answers = read_json(kept, list)
    chats = [[asked(q), {"role": "assistant", "content": a}] for q, a in zip(QUESTIONS, answers, strict=True)]
    everything = source(options, options.work / "chats.jsonl", chats)
    rows = everything.contexts(len(chats), split="train", seed=SEED)
    fitted = source(options, options.work / "fitted.jsonl", [chats[i] for i in FITTED])
    after = Slice.of(fitted.contexts(len(FITTED), split="train", seed=SEED), last=BEGINNING + 1)
    kept = options.work / "radius.json"
    if not kept.is_file():
        write_json(kept, [calibrate_radius(after.contexts, rng=seeding.stream(SEED, "radius"))])
    radius = float(read_json(kept, list)[0])
    x = rows.acts[rows.mask]
    say(f"radius {radius:.3g}, {radius / typical_norm(after.contexts):.2f} of the norm; {len(x)} rows", flush=True)
    asked_again = [prompts[i] for i in JUDGED]
    own = write(everything, asked_again, torch.zeros(1, everything.d_in), ANSWER)
    usual = perplexities(everything, own)[0]
    return Setting(everything, after, radius, options.budget, Spread.of(x), x, asked_again, own, usual)


def asked(question: str) -> dict[str, str]:
    return {"role": "user", "content": question}


def source(options: argparse.Namespace, path: Path, chats: list[list[dict[str, str]]]) -> LanguageModel:
    """Chats as a source. The model is read in bfloat16, which takes half the time here."""
    path.write_text("".join(json.dumps({"text": chat}) + "\n" for chat in chats), encoding="utf-8")
    return LanguageModel(
        model=options.model, text=str(path), layer=options.layer, downstream_layer=options.downstream_layer,
        eval_share=0.0, dtype="bfloat16",
    )  # fmt: skip


def methods(count: int, steps: int, setting: Setting) -> dict[str, Callable[[Path], Tensor]]:
    """What finds directions, by name; random and principal ones too."""
    after, fixed = setting.after, FixedRadius(setting.radius)
    budget = KlBudget(after, setting.nats, LONGEST * typical_norm(after.contexts))
    guarded = KlBudget(after, setting.nats, setting.radius)
    melbo, kernel = Melbo(orthogonality="joint", steps=steps), ExponentialDct(steps=steps)
    fits: dict[str, tuple[SliceFit, PushLength]] = {
        "jacobian": (LinearDct(form="power", rounds=6), fixed),
        "melbo": (melbo, fixed),
        "melbo-guarded": (melbo, guarded),
        "melbo-budget": (melbo, budget),
        "kernel": (kernel, fixed),
        "kernel-guarded": (kernel, guarded),
        "kernel-budget": (kernel, budget),
        "ogi": (ExponentialDct(solver="ogi"), fixed),
    }
    random = lambda _: random_units(count, after.d_in, seeding.stream(SEED, "random"))
    principal = lambda _: torch.linalg.eigh(torch.cov(setting.rows.double().T))[1].flip(1).T[:count].float()
    found = {name: partial(fit, method, count, after, length) for name, (method, length) in fits.items()}
    return {"random": random, "principal": principal, **found}


def fit(method: SliceFit, count: int, after: Slice, length: PushLength, kept: Path) -> Tensor:
    """Fit directions, from where an earlier attempt was stopped."""
    rng, reached = seeding.stream(SEED, "fit"), {}
    if kept.is_file():
        reached = load_file(kept)
        rng.set_state(reached["rng"])
    keep = lambda state: write_tensors(kept, {**state, "rng": rng.get_state()})
    result = method.fit(count, FitContext(after, length, rng, no_progress, reached, keep))
    return result.directions[result.strengths.argsort(descending=True)]


def found(path: Path, find: Callable[[Path], Tensor]) -> Tensor:
    """Read directions, or find them."""
    if not path.is_file():
        write_tensors(path, {"directions": find(path.with_suffix(".fit.safetensors")).contiguous()})
    return load_file(path)["directions"]


def judged(name: str, directions: Tensor, setting: Setting) -> list[dict[str, Any]]:
    """Rows of what each direction does, at the radius and at the budget, towards the side that it was found on."""
    after = setting.after
    spent = spend(after.next_token_kl, directions, setting.nats, longest=LONGEST * typical_norm(after.contexts))
    lengths = {"radius": torch.full_like(spent.length, setting.radius), "budget": spent.length}
    plain = [text_of(setting.model, setting.own, 0, prompt) for prompt in range(len(setting.prompts))]
    rows: list[dict[str, Any]] = []
    for at, length in lengths.items():
        pushes = length.unsqueeze(1) * directions
        cost = spent.cost if at == "budget" else after.next_token_kl(pushes)
        effects, left = after.pooled(pushes).norm(dim=1), departures(setting.spread, setting.rows, pushes)
        texts = write(setting.model, setting.prompts, pushes, ANSWER)
        strange = perplexities(setting.model, texts) / setting.usual
        for i in range(len(directions)):
            said = [text_of(setting.model, texts, i, prompt) for prompt in range(len(setting.prompts))]
            rows.append({
                "method": name, "direction": i, "at": at, "length": float(length[i]), "kl": float(cost[i]),
                "reached": bool(spent.reached[i]), "effect": float(effects[i]), "departure": float(left[i]),
                "strangeness": [round(float(s), 3) for s in strange[i]], "with": said, "without": plain,
            })  # fmt: skip
    return rows


def text_of(model: LanguageModel, texts: Written, push: int, prompt: int) -> str:
    """What was written, as text."""
    return model.loaded_tokenizer.decode(texts.ids[push, prompt][texts.written()[push, prompt]].tolist())


def strangeness(row: Mapping[str, Any]) -> float:
    """The geometric mean of a direction's strangeness over prompts; what ends at once is broken too."""
    known = [math.inf if math.isnan(s) else s for s in row["strangeness"]]
    return math.exp(sum(map(math.log, known)) / len(known))


def summary(name: str, rows: list[dict[str, Any]]) -> str:
    """The means of a method's directions, at the radius and at the budget."""
    said = []
    for at in ("radius", "budget"):
        own = [row for row in rows if row["at"] == at]
        mean = lambda key, own=own: sum(row[key] for row in own) / len(own)
        broken = sum(strangeness(row) > BROKEN for row in own)
        said.append(
            f"at the {at} length {mean('length'):.3g}, KL {mean('kl'):.3g}, effect {mean('effect'):.3g}, "
            f"departure {mean('departure'):.2g}, broken {broken} of {len(own)}"
        )
    return "; ".join(said)


if __name__ == "__main__":
    main()
