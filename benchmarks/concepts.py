"""Latents chosen by output score and by activation, at equal KL: python -m benchmarks.concepts RUN --out FILE

For every word two latents of a dictionary are chosen on one prompt: the one whose push makes the model say the word
most, and the one that fires most on it. Both are judged on other prompts, next to a random direction: the rise of the
word's log-odds at equal next-token KL, by the model's exact probabilities, along its own answers. Rows so far are
written after every word, and a word that has a row is not done again.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from unbraid.dictionary.initialisation import no_progress
from unbraid.runs.run import Run
from unbraid.seeding import stream
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.steering.continuation import expected_along
from unbraid.steering.output_score import output_scores, ranked, wanted_tokens
from unbraid.steering.steer import asked_of, opened
from unbraid.system.files import read_json, write_json

WORDS = (
    "Paris", "war", "music", "water", "money", "king", "doctor", "school", "football", "church", "computer", "film",
    "army", "river", "train", "disease", "law", "star", "animal", "winter",
)  # fmt: skip
CHOSEN_ON = "The most important thing to know about this is that"
JUDGED_ON = ("When I was young, I often thought about", "Yesterday my friend told me a long story about")
KL = 0.5
CANDIDATES = 16
ANSWER = 16
"""Tokens of the model's own answer along which expectations are compared."""


def row_of(run: Run, source: LanguageModel, word: str) -> dict[str, Any]:
    """Choose latents for a word on one prompt, and judge them on the others."""
    asked = asked_of(source, CHOSEN_ON, ANSWER, chat=False)
    found = ranked(run, source, word, asked.words, asked.own, kl=KL, candidates=CANDIDATES, watch=no_progress)
    by_output = found[0]
    by_activation = min(found, key=lambda candidate: candidate.by_activation)
    atoms = run.dictionary().unit_atoms().detach().cpu()
    random = torch.nn.functional.normalize(torch.randn(atoms.shape[1], generator=stream(0, word)), dim=0)
    three = torch.stack([atoms[by_output.latent], atoms[by_activation.latent], random])
    wanted = wanted_tokens(source, word)
    scores = []
    for prompt in JUDGED_ON:
        judged = asked_of(source, prompt, ANSWER, chat=False)
        expected = expected_along(source, judged.words, judged.own)
        scores.append(output_scores(expected, three, wanted.ids, KL, no_progress)[0])
    mean = torch.stack(scores).mean(0).tolist()
    return {
        "word": word, "tokens": wanted.texts, "by_output": by_output.latent, "by_activation": by_activation.latent,
        "chosen_score": by_output.output_score, "chosen_score_of_activation": by_activation.output_score,
        "score_by_output": mean[0], "score_by_activation": mean[1], "score_random": mean[2],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    run, source = opened(options.run)
    rows: list[dict[str, Any]] = read_json(options.out, list) if options.out.exists() else []
    for word in WORDS:
        if word not in {row["word"] for row in rows}:
            rows.append(row_of(run, source, word))
            print({key: round(v, 3) if isinstance(v, float) else v for key, v in rows[-1].items()}, flush=True)
            write_json(options.out, rows)


if __name__ == "__main__":
    main()
