"""First-letter absorption by SAEBench's code, with the fraction of version 0.3.2 recomputed on the same words.

SAEBench writes probes and raw results into its package's folder, does not create its output folder, ignores its seed
and stops without a result where fewer than 20 letters have a good probe. Arguments of its functions solve the first
three; in the last case the eval is refused.
"""

# pyright: reportMissingImports=false
import dataclasses
import functools
import random
from pathlib import Path

import loading
import published
import torch


def absorption(request: dict, model: str, name: str, sae):
    """Run first-letter absorption; return the folder of its JSON, and facts to store next to it."""
    import sae_bench.evals.absorption.main as main
    from sae_bench.evals.absorption import feature_absorption, k_sparse_probing
    from transformer_lens import HookedTransformer

    if not sae.cfg.metadata.hook_name.endswith("hook_resid_post"):
        raise loading.Refused(f"absorption reads hook_resid_post only; this SAE is on {sae.cfg.metadata.hook_name}")
    settings = dict(request["settings"])
    most, by_word = settings.pop("words_a_letter", None), settings.pop("prompts_by_word", False)
    config = main.AbsorptionEvalConfig(
        model_name=model, llm_batch_size=request["batch"], llm_dtype=request["dtype"],
        precalc_k_sparse_probe_sae_acts=True, random_seed=request["seed"], **settings,
    )  # fmt: skip
    lm = HookedTransformer.from_pretrained_no_processing(model, device=request["device"], dtype=torch.float32)
    refuse_unspellable(lm.tokenizer)
    in_order(most)
    if by_word:
        draw_by_word(request["seed"])
    here = Path("artifacts/absorption").resolve()
    probes, probed, raw = here / "probes", here / "k_sparse_probing", here / "raw"
    train_probe(lm, config, probes, request)
    probing = functools.partial(
        k_sparse_probing.run_k_sparse_probing_experiment, experiment_dir=probed, probes_dir=probes
    )
    scoring = functools.partial(
        feature_absorption.run_feature_absortion_experiment,
        experiment_dir=raw, sparse_probing_experiment_dir=probed, probes_dir=probes,
    )  # fmt: skip
    seen = {}

    def noted(key, function):
        def call(**arguments):
            seen[key] = function(**arguments)
            return seen[key]

        return call

    main.run_k_sparse_probing_experiment = noted("probes", probing)
    main.run_feature_absortion_experiment = noted("words", scoring)
    out = loading.empty(Path("absorption"))
    loading.seed(request["seed"])
    main.run_eval(config, [(name, sae)], request["device"], str(out), force_rerun=True)
    f1 = {row["letter"]: float(row["f1_probe"]) for row in seen["probes"].to_dict("records")}
    good = [letter for letter, value in f1.items() if value > config.min_GT_probe_f1]
    if len(good) < config.min_feats_for_eval:
        raise loading.Refused(
            f"the model does not represent spelling here: probes of {len(good)} of {len(f1)} letters reach F1 "
            f"{config.min_GT_probe_f1} (mean F1 {sum(f1.values()) / len(f1):.2f}), SAEBench asks for "
            f"{config.min_feats_for_eval}; use a model that spells, at a layer where it does"
        )
    probe = main_probe(lm, probes, sae.cfg.hook_layer, request["device"])
    fraction = published_fraction(lm, sae, probe, seen["words"], good, config.prompt_token_pos)
    return out, {
        "settings": {**dataclasses.asdict(config), "words_a_letter": most, "prompts_by_word": by_word},
        "probe_f1": f1, "letters": good,
        "absorption_fraction_0_3_2": fraction,
    }  # fmt: skip


def in_order(most: int | None) -> None:
    """Make SAEBench list words in alphabetical order, and of each first letter at most so many, at equal distances.

    A tokenizer lists its vocabulary in another order every time, and SAEBench splits words into training and test and
    draws examples by their positions, whatever the seed.
    """
    from sae_bench.evals.absorption import common, feature_absorption, vocab

    def words(*args, **kwargs):
        return fewer(sorted(vocab.get_alpha_tokens(*args, **kwargs)), most)

    common.get_alpha_tokens = feature_absorption.get_alpha_tokens = words


def draw_by_word(seed: int) -> None:
    """Make SAEBench draw the examples in front of a word from the word, so that all runs read a word in one prompt.

    It draws them one after another, so that a word stands after other examples in each run, by which scores of runs
    differ and nothing can be shared.
    """
    from sae_bench.evals.absorption import feature_absorption_calculator as calculator
    from sae_bench.evals.absorption.prompting import create_icl_prompt

    def create(word, **arguments):
        state = random.getstate()
        random.seed(f"{seed} {word}")
        try:
            return create_icl_prompt(word, **arguments)
        finally:
            random.setstate(state)

    calculator.create_icl_prompt = create


def fewer(words: list[str], most: int | None) -> list[str]:
    """At most so many of sorted words for each first letter, at equal distances; all for None."""
    letters: dict[str, list[str]] = {}
    for word in words:
        letters.setdefault(word.strip()[0].lower(), []).append(word)
    kept = {
        found[i * len(found) // min(most or len(found), len(found))]
        for found in letters.values()
        for i in range(min(most or len(found), len(found)))
    }
    return [word for word in words if word in kept]


def refuse_unspellable(tokenizer) -> None:
    """Raise Refused when the tokenizer does not know enough words, or the words of SAEBench's prompt."""
    from sae_bench.evals.absorption.vocab import get_alpha_tokens

    share = loading.unknown_share(tokenizer, ["house has the first letter: H"])
    words = get_alpha_tokens(tokenizer)
    letters = {word.strip()[0].lower() for word in words if word.strip()}
    if share > loading.WORDS_UNKNOWN or len(letters) < 20:
        raise loading.Refused(
            f"the tokenizer knows words of {len(letters)} first letters, and {share:.0%} of SAEBench's prompt "
            '"house has the first letter: H" is unknown to it: absorption cannot be scored on this model'
        )


def train_probe(lm, config, probes: Path, request: dict) -> None:
    """Train the probes with a fixed seed, so that results do not depend on which run came first."""
    from sae_bench.evals.absorption.common import load_or_train_probe

    loading.seed(request["seed"])
    layer = request["layer"]
    load_or_train_probe(
        lm, base_template=config.prompt_template, pos_idx=config.prompt_token_pos, layer=layer, probes_dir=probes,
        device=request["device"],
    )  # fmt: skip


def main_probe(lm, probes: Path, layer: int, device: str):
    """Load the trained probe of all letters."""
    from sae_bench.evals.absorption.common import load_probe

    return load_probe(lm.cfg.model_name, layer=layer, probes_dir=probes, device=device)


@torch.inference_mode()
def published_fraction(lm, sae, probe, words, letters: list[str], position: int) -> float:
    """The absorption fraction of version 0.3.2, on the words that SAEBench just scored.

    Summed over words, divided by the probe's true positives, then the mean over letters, as 0.3.2 did.
    """
    from sae_bench.evals.absorption.vocab import LETTERS

    hook, means = f"blocks.{sae.cfg.hook_layer}.hook_resid_post", []
    for letter, rows in words.groupby("letter"):
        if letter not in letters:
            continue
        direction = probe.weights[LETTERS.index(letter)]
        direction = (direction / direction.norm()).to(sae.device, sae.dtype)
        cosines = torch.nn.functional.cosine_similarity(direction, sae.W_dec, dim=-1)
        total = 0.0
        for start in range(0, len(rows), 64):
            part = rows.iloc[start : start + 64]
            acts = lm.run_with_cache(part["prompt"].tolist(), names_filter=[hook])[1][hook][:, position, :]
            supplied = sae.encode(acts) * cosines
            every = supplied.sum(1)
            main = torch.stack([row[list(ids)].sum() for row, ids in zip(supplied, part["split_feats"], strict=True)])
            total += float(published.fractions(every, main, acts @ direction).sum())
        means.append(total / float(rows["num_probe_true_positives"].iloc[0]))
    return sum(means) / len(means)
