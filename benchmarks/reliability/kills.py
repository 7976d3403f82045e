"""Training killed at random moments, once or twice in a row, and resumed: the weights must be those of a run nobody
killed, bit for bit, and no finished file may change."""

import os
import random
import shutil
import signal
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tests import test_kills as rounds
from tests.attacks import contents
from tests.finished_runs import SPOKEN
from tests.kills import Place, killed, places
from tests.small import experiment, seeded

from benchmarks.reliability.trial import HELD, Trial, ended, finish, fork
from unbraid.cli.main import main
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.config import DictionaryConfig
from unbraid.experiment.experiment import Experiment
from unbraid.objective.objective import TargetL0
from unbraid.sources.cached import write_cache
from unbraid.terms.causal.effect import Effect
from unbraid.terms.independence.factor_vae import FactorVae
from unbraid.terms.sparsity.l0 import L0
from unbraid.terms.sparsity.l1 import L1
from unbraid.training.checkpoint import common_step
from unbraid.training.interrupt import Interrupted
from unbraid.training.loop import train

EVERY = 5
"""Steps between checkpoints: a round every few hundredths of a second, so that many kills hit one."""
COMPARED = ("sae_weights.safetensors", "cfg.json", "normaliser.safetensors", "experiment.json", "metrics.jsonl")
SECONDS = 120.0
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Scene:
    """A cohort to kill, and what it comes to when nobody does."""

    name: str
    cohort: Sequence[Experiment]
    reference: Mapping[str, str]
    seconds: float


def cohorts(scratch: Path) -> dict[str, list[Experiment]]:
    """Small cohorts with every kind of state: thresholds, a controller, memories, restarted latents, text, a cache."""
    tokens = 25_600
    members = [
        experiment(tokens=tokens),
        target_l0(experiment("relu", activation=ReLU(), tokens=tokens, sparsity=L1(weight=0.01))),
        target_l0(experiment("jump", activation=JumpReLU(), tokens=tokens, sparsity=L0(weight=0.01))),
        experiment("terms", tokens=tokens, factors=FactorVae(weight=0.01), effect=Effect(weight=0.01)),
    ]
    resampled = [replace(e, training=replace(e.training, resample_every=3200, dead_after=800)) for e in members[:2]]
    narrow = DictionaryConfig(d_sae=96, activation=members[0].dictionary.activation)
    language = replace(experiment("spoken", tokens=9600), source=SPOKEN, dictionary=narrow)
    cached = write_cache(SPOKEN, scratch / "cache", seed=0, tokens=12_800)
    return {
        "world": members,
        "world, latents restarted": resampled,
        "language model": [language, seeded(language, 1)],
        "cache": [replace(language, source=cached), seeded(replace(language, source=cached), 1)],
    }


def target_l0(base: Experiment) -> Experiment:
    return replace(base, objective=replace(base.objective, target_l0=TargetL0(l0=3.0)))


def work(cohort: Sequence[Experiment], out: Path) -> int:
    """What `unbraid sweep --resume` does, with checkpoints every few steps."""
    try:
        train(cohort, out, resume=True, checkpoint_steps=EVERY)
    except (Interrupted, KeyboardInterrupt) as where:  # as the command line does
        print(where or "stopped")
        return 130
    return 0


def scene(name: str, cohort: Sequence[Experiment], scratch: Path) -> Scene:
    out, log = scratch / "reference" / name, scratch / "log"
    started = time.monotonic()
    code = finish(fork(partial(work, cohort, out), log), 10 * SECONDS)
    if code:
        raise RuntimeError(f"{name} does not train at all: {log.read_text(encoding='utf-8')}")
    return Scene(name, cohort, weights(out), time.monotonic() - started)


def weights(out: Path) -> dict[str, str]:
    return {path: digest for path, digest in contents(out).items() if Path(path).name in COMPARED}


def kills(scratch: Path, count: int, *, only: Collection[str] = (), seed: int = 0) -> Iterator[Trial]:
    """`count` rounds of one kill or more, each resumed to its end; every fifth round has two or three. `only`: names
    of cohorts, all when empty."""
    rng = random.Random(seed)
    chosen = {name: cohort for name, cohort in cohorts(scratch).items() if not only or name in only}
    scenes = [scene(name, cohort, scratch) for name, cohort in chosen.items()]
    for number in range(count):
        times = rng.choice((2, 3)) if number % 5 == 4 else 1
        yield one_round(scenes[number % len(scenes)], scratch / f"kill-{number}", rng, times)


def one_round(chosen: Scene, out: Path, rng: random.Random, times: int) -> Trial:
    log, faults, moments = out.with_suffix(".log"), [], []
    kept: dict[str, str] = {}
    for _ in range(times):
        moment, sent = rng.uniform(0.0, 0.8 * chosen.seconds), rng.choice(SIGNALS)
        child = fork(partial(work, chosen.cohort, out), log)
        code = ended(child, moment)
        if code is None:
            os.kill(child, sent)
            code = finish(child, SECONDS)
            moments.append(f"{sent.name} at {moment:.2f} s")
        faults += said_wrong(code, sent, log)
        faults += changed(out, kept)
        kept |= finished_files(out)
    code = finish(fork(partial(work, chosen.cohort, out), log), SECONDS)
    faults += [f"resuming ended with {code}: {last_line(log)}"] if code else []
    faults += changed(out, kept)
    found = weights(out) if out.exists() else {}
    faults += [f"not bit-equal: {name}" for name, digest in chosen.reference.items() if found.get(name) != digest]
    faults += [f"left behind: {path.relative_to(out)}" for path in out.rglob("*") if left_over(path)]
    shutil.rmtree(out, ignore_errors=True)
    group = f"{chosen.name}, {'killed twice or more' if len(moments) > 1 else 'killed once'}"
    if not moments:
        group = f"{chosen.name}, done before the kill"
    return Trial(kind="kills", group=group, case="; ".join(moments), outcome="; ".join(faults) or HELD, good=not faults)


def said_wrong(code: int, sent: signal.Signals, log: Path) -> list[str]:
    """Signals that can be caught end in a saved state and code 130, or find the work done."""
    text = log.read_text(encoding="utf-8", errors="replace")
    found = ["a traceback"] if "Traceback" in text else []
    if sent is not signal.SIGKILL and code not in (0, 130, -sent):
        found.append(f"{sent.name} ended with {code}: {last_line(log)}")
    return found


def last_line(log: Path) -> str:
    return (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing said"])[-1][:200]


def finished_files(out: Path) -> dict[str, str]:
    """The files of finished runs, which nothing may change any more."""
    done = [path.parent for path in out.glob("*/provenance.json")]
    return {str(folder / name): digest for folder in done for name, digest in contents(folder).items()}


def changed(out: Path, kept: Mapping[str, str]) -> list[str]:
    now = finished_files(out) if out.exists() else {}
    return [f"a finished file changed: {Path(path).name}" for path, digest in kept.items() if now.get(path) != digest]


def left_over(path: Path) -> bool:
    return path.is_file() and (path.parent.name == "checkpoints" or path.name.startswith("."))


def kills_at_file_operations(scratch: Path) -> Iterator[Trial]:
    """A cohort killed at each file operation of a checkpoint round, and at another of the next attempt."""
    whole, begun = scratch / "whole", scratch / "begun"
    train(rounds.cohort(), whole)
    rounds.up_to(begun, 4)
    counted = Path(shutil.copytree(begun, scratch / "counted"))
    where = places(lambda: rounds.up_to(counted, 6), counted)
    for number, place in enumerate(where):
        second = where[(7 * number + 3) % len(where)]
        yield two_kills(place, second, begun, whole, scratch / f"operation-{number}")


def two_kills(place: Place, second: Place, begun: Path, whole: Path, root: Path) -> Trial:
    shutil.copytree(begun, root)
    faults: list[str] = []
    for number, kill in enumerate((place, second)):
        try:
            killed(partial(rounds.up_to, root, 6), kill, root)
        except AssertionError as error:
            faults.append(f"attempt {number + 1}: {error}")
        if common_step(rounds.folders(root)) < 4:
            faults.append(f"kill {number + 1} lost more than a round")
    code = finish(fork(partial(work, rounds.cohort(), root), root.with_suffix(".log")), SECONDS)
    faults += [f"resuming ended with {code}: {last_line(root.with_suffix('.log'))}"] if code else []
    expected, found = weights(whole), weights(root)
    faults += [f"not bit-equal: {name}" for name, digest in expected.items() if found.get(name) != digest]
    faults += [f"left behind: {path.name}" for path in root.rglob("*") if left_over(path)]
    shutil.rmtree(root, ignore_errors=True)
    case = f"at operation {place.number}{' (half written)' * place.half}, then {second.number}"
    group = "checkpoint rounds, killed at each file operation and again"
    return Trial(kind="kills", group=group, case=case, outcome="; ".join(faults) or HELD, good=not faults)


def other_commands(scratch: Path, run: Path, count: int, seed: int = 1) -> Iterator[Trial]:
    """eval, export, cache and report killed at random moments and run again: whole results, no half ones, nothing
    left behind."""
    rng = random.Random(seed)
    commands: dict[str, list[str]] = {
        "eval": ["eval", "{run}", "--evals", "fidelity", "recovery", "--force", "--threads", "1"],
        "export": ["export", "{run}", "--to", "dictionary_learning", "--out", "{out}/exported"],
        "cache": ["cache", "world", "--training.tokens", "40000", "--to", "{out}/cache", "--threads", "1"],
        "report": ["report", "{run}", "--out", "{out}/report.html", "--scores", "{out}/scores.json"],
    }
    times: dict[str, float] = {}
    for number in range(count):
        name = list(commands)[number % len(commands)]
        yield killed_command(name, commands[name], scratch / f"command-{number}", run, rng, times)


def killed_command(
    name: str, words: Sequence[str], out: Path, run: Path, rng: random.Random, times: dict[str, float]
) -> Trial:
    out.mkdir(parents=True)
    clone = Path(shutil.copytree(run, out / "runs" / run.name))
    log, argv = out / "log", [word.format(run=clone, out=out) for word in words]
    again = [word.replace("exported", "again") for word in argv]
    if name not in times:
        started = time.monotonic()
        finish(
            fork(partial(main, [w.replace("exported", "first").replace("cache/", "c/") for w in argv]), log), SECONDS
        )
        times[name] = time.monotonic() - started
    moment, faults = rng.uniform(0.0, times[name]), []
    child = fork(partial(main, argv), log)
    if ended(child, moment) is None:
        os.kill(child, signal.SIGKILL)
        finish(child, SECONDS)
    done = (out / "exported").exists()
    code = finish(fork(partial(main, argv if not done else again), log), SECONDS)
    text = log.read_text(encoding="utf-8", errors="replace")
    faults += [f"running it again ended with {code}: {last_line(log)}"] if code or "Traceback" in text else []
    hidden = [str(path.relative_to(out)) for path in out.rglob(".*") if ".lock" not in path.name]
    faults += [f"left behind: {hidden[:3]}"] if hidden else []
    shutil.rmtree(out, ignore_errors=True)
    outcome = "; ".join(faults) or HELD
    return Trial(
        kind="kills", group=f"`unbraid {name}`", case=f"SIGKILL at {moment:.2f} s", outcome=outcome, good=not faults
    )
