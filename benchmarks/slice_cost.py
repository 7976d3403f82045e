"""What the whole MELBO / DCT objective costs through real layers: python -m benchmarks.slice_cost (part of make bench)

A step with the reward for effects (kernel DCT), the interaction penalty and the hinge on cosines, all on every eighth
step, beside the plain step of the same SAE, without and with the passes that harvest its activations; contexts are
drawn, and counted. On one thread of one process, in turn, medians of CPU time. `embedded`: the model that comes with
Unbraid. `100m`: a GPT-NeoX of Pythia-160M's shape (85 M parameters in twelve blocks) with random weights, whose cost is
that of a trained one; `100m-bfloat16`: the same, which computes in bfloat16.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.config import DictionaryConfig
from unbraid.experiment.experiment import Experiment, Training
from unbraid.objective.objective import Objective, Term
from unbraid.objective.step_data import CONTEXTS, ExtraInputs
from unbraid.sources.base import Batch
from unbraid.sources.fitting_sample import fitting_sample
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.loading import EMBEDDED, located
from unbraid.sources.stream import Stream
from unbraid.system.files import write_json
from unbraid.terms.causal.effect import Effect
from unbraid.terms.causal.interaction import Interaction
from unbraid.terms.geometry.orthogonality_hinge import OrthogonalityHinge
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.training.learner import Learner

EVERY = 8
TEXT = "language://4000"
MODELS = ["embedded", "100m", "100m-bfloat16"]
TERMS: dict[str, Term] = {
    "effect": Effect(every=EVERY),
    "interaction": Interaction(every=EVERY, start=0.0),
    "hinge": OrthogonalityHinge(every=EVERY),
}


def source(which: str, folder: Path) -> LanguageModel:
    if which == "embedded":
        return LanguageModel(text=TEXT, buffer_tokens=32_768, context=64)
    from transformers import AutoModelForCausalLM, AutoTokenizer, GPTNeoXConfig

    tokenizer = AutoTokenizer.from_pretrained(located(EMBEDDED))
    torch.manual_seed(0)
    shape = GPTNeoXConfig(
        vocab_size=len(tokenizer), hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
        intermediate_size=3072, max_position_embeddings=512,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return LanguageModel(
        model=str(folder),
        text=TEXT,
        layer=5,
        downstream_layer=9,
        buffer_tokens=8192,
        context=64,
        dtype="bfloat16" if which.endswith("bfloat16") else "float32",
    )


def learner(given: LanguageModel, sample: torch.Tensor, penalties: dict[str, Term], d_sae: int, batch: int) -> Learner:
    experiment = Experiment(
        name="bench", source=given,
        objective=Objective(reconstruction=Reconstruction(), penalties=penalties, ramp=0.0),
        dictionary=DictionaryConfig(d_sae=d_sae, activation=BatchTopK(32)),
        training=Training(tokens=100_000 * batch, batch_size=batch),
    )  # fmt: skip
    return Learner(experiment, sample)


def harvested(given: LanguageModel, batch: int) -> tuple[Batch, float]:
    """Rows of a step, and the seconds that the model takes for them."""
    stream, count = Stream(given, batch, seed=0), given.buffer_tokens // batch
    before = time.process_time()
    rows = [next(stream) for _ in range(count)][-1]  # one shuffle buffer, or a little more
    return rows, (time.process_time() - before) / count


def measure(given: LanguageModel, d_sae: int, batch: int, repetitions: int) -> dict[str, Any]:
    """Seconds of a plain step, of one in which all is due, and of each term alone."""
    sample = fitting_sample(given, 0)
    rows, harvest = harvested(given, batch)
    asked = {"plain": {}, **{name: {name: term} for name, term in TERMS.items()}, "all": dict(TERMS)}
    learners = {name: learner(given, sample, terms, d_sae, batch) for name, terms in asked.items()}
    seconds: dict[str, list[float]] = {name: [] for name in learners}
    for number in range(repetitions + 1):
        for name, own in learners.items():
            extra = ExtraInputs(given, 0, number * EVERY)  # contexts anew: what a cohort of one pays
            before = time.process_time()
            own.step(rows, number * EVERY, extra)
            if number:  # the first calibrates
                seconds[name].append(time.process_time() - before)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    plain, due = medians["plain"], medians["all"]
    added = {f"{name}_ms": 1000 * (medians[name] - plain) for name in TERMS}
    return {
        "plain_ms": 1000 * plain, **added, "all_ms": 1000 * (due - plain), "every": EVERY,
        "ratio": 1 + (due - plain) / EVERY / plain, "context_tokens": CONTEXTS * given.context,
        "harvest_ms": 1000 * harvest, "ratio_with_harvest": 1 + (due - plain) / EVERY / (plain + harvest),
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--d-sae", type=int, default=16_384)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write the rows to this JSON file")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = []
    for which in options.only:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(source(which, Path(folder)), options.d_sae, options.batch, options.repetitions)
        rows.append({"model": which, "d_sae": options.d_sae, "batch": options.batch, **found})
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in rows[-1].items()})
    if options.out:
        write_json(options.out, rows)


if __name__ == "__main__":
    main()
