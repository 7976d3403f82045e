"""The commands that train: plan, train, sweep. What cannot work is refused before the first step."""

import sys
import time
from collections.abc import Sequence
from functools import partial

from unbraid import catalog
from unbraid.cli.arguments import PlanFlags, StudyFlags, SweepFlags, TrainFlags, Trains
from unbraid.cli.calls import Call
from unbraid.cli.crews import check_crew, crew_of
from unbraid.cli.crossing import axes
from unbraid.cli.plan import Budget, Estimate, SideBySide, alike, budget, estimate, needs_at_once
from unbraid.cli.resolve import chosen, experiments_of, packages, permissions, resolved
from unbraid.cli.torchrun import joined, processes
from unbraid.cli.train_shards import ShardSettings, train_by_crew
from unbraid.cli.workers import Crew
from unbraid.evals.shared.evaluation import Eval
from unbraid.experiment.experiment import Experiment
from unbraid.experiment.grid import cross
from unbraid.experiment.study import cohorts
from unbraid.runs.run_folder import finished
from unbraid.system.group import ALONE, Group
from unbraid.system.progress import ProgressDisplay, duration
from unbraid.system.terminal import say
from unbraid.training.callbacks import Progress
from unbraid.training.checks import check_unfinished
from unbraid.training.cohort import Failed, left_to_train
from unbraid.training.interrupt import Interrupted
from unbraid.training.loop import folders_of, train

Trainer = TrainFlags | SweepFlags | StudyFlags
"""The commands whose flags say how to train."""
Planner = PlanFlags | Trainer
"""Those whose flags say what a training would take."""
LOST = 60.0
"""Seconds within which a process that was lost with its machine lets its folders go."""


def evals_named(names: Sequence[str], allowed: tuple[str, ...]) -> list[Eval]:
    """The evals of these names, or those run by default. Raises ValueError for a name that is none."""
    if not names:
        return list(catalog.default_evals(allowed).values())
    known = catalog.evals(allowed)
    return [catalog.pick(name, known, "eval") for name in names]


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


# ---- plan ---------------------------------------------------------------------------------------------------


def run_plan(call: Call[PlanFlags]) -> int:
    return plan(experiments_of(call), call.options, None)


def plan(experiments: list[Experiment], options: Planner, evals: Sequence[Eval] | None) -> int:
    """Print what a training will take. `evals`: those that the same command will score by."""
    groups, budgets, crowd = checked(experiments, options, evals)
    same = alike(groups)
    for numbers in same:
        cohort = groups[numbers[0]]
        say("\n".join(described(budgets[numbers[0]], len(numbers))))
        if note := cohort[0].source.metadata().get("model_note"):
            say(f"model         {note}")
        if policy := cohort[0].source.token_policy():
            say(f"token policy  {policy}")
        for text in cohort[0].source.sample_text(2):
            say(f"reads         {text[:300]!r}")
    if crowd.workers > 1:
        say(beside(crowd))
    if not refuse(budgets, crowd):
        return 2
    for numbers in same:
        cohort = groups[numbers[0]]
        say(f"measuring a few steps of each kind of member, {len(cohort)} members in all …", flush=True)
        with ProgressDisplay() as see:
            measured = estimate(cohort, watch=partial(see, "measuring", "kinds"))
        say("\n".join(estimated(measured, len(numbers), crowd.workers)))
    return 0


def beside(crowd: SideBySide) -> str:
    """A line that says what several workers need at once."""
    return (
        f"workers       {crowd.workers} processes, {crowd.shards} shards: {gigabytes(crowd.memory)} at once, besides "
        "the model and terms in each and a model in the process that starts them"
    )


def estimated(measured: Estimate, streams: int = 1, workers: int = 1) -> list[str]:
    """Lines that say what measured steps have shown. `streams`: how many cohorts cost as much."""
    kept, on_disk = (gigabytes(n) for n in (measured.kept, measured.in_checkpoints))
    fits = f", {duration(measured.fitting)} of it in fits" if measured.fitting else ""
    some = measured.measured < measured.kinds
    share = f" of {measured.measured} of {measured.kinds} kinds of member, the rest taken to be alike" if some else ""
    whole = f", {duration(streams * measured.seconds)} on all {streams} streams" if streams > 1 else ""
    shared = f"; by {workers} workers at best {duration(streams * measured.seconds / workers)}" if workers > 1 else ""
    return [
        f"cache         {gigabytes(measured.cache)} more if you write the activations to disk (unbraid cache)",
        f"terms         keep {kept} more, and {on_disk} on disk; what a step makes and frees, as passes through "
        "downstream layers, is not counted",
        f"time          {duration(measured.seconds)}{fits}, from measured steps{share}{whole}{shared}",
    ]


def described(found: Budget, streams: int = 1) -> list[str]:
    """Lines that say what a cohort needs. `streams`: how many there are that need as much."""
    number = lambda tokens: f"{tokens:,.0f}" if tokens != float("inf") else "no end to what is"
    return [
        f"dictionaries  {found.members} on one stream, {found.parameters:,} parameters in all"
        + (f"; {streams} streams like it, one after another" if streams > 1 else ""),
        f"tokens        {found.tokens:,} needed, {number(found.available)} available, "
        f"{number(found.held_out)} held out for evals",
        f"disk          {gigabytes(found.disk)} at the peak, {gigabytes(found.disk_free)} free",
        f"memory        {gigabytes(found.memory)} besides the model and terms, {gigabytes(found.memory_free)} free",
    ]


# ---- before training ----------------------------------------------------------------------------------------


def checked(
    experiments: list[Experiment], options: Planner, evals: Sequence[Eval] | None
) -> tuple[list[list[Experiment]], list[Budget], SideBySide]:
    """Cohorts, what each needs, and what workers need that train them here: of all, before the first of them is
    trained. `evals`: those that the same command will score by; None: all there are, for later."""
    check_crew(options)  # first: reading may take minutes
    groups = cohorts(experiments)
    begun = time.monotonic()
    say("reading the text and the model …", flush=True)
    later = evals_named([], packages(options)) if evals is None else evals
    found = [budget(group, options.out, later, now=evals is not None) for group in groups]
    say(f"reading took {time.monotonic() - begun:.0f} s", flush=True)
    return groups, found, needs_at_once(groups, 1 if options.ray else options.workers)


def refuse(budgets: Sequence[Budget], crowd: SideBySide) -> bool:
    """Print what stands in the way, and what only should be known; True when nothing stands in the way."""
    problems = list(dict.fromkeys(problem for found in (*budgets, crowd) for problem in found.problems()))
    for problem in problems:
        say(f"error: {problem}", file=sys.stderr)
    for note in dict.fromkeys(note for found in budgets for note in found.notes):
        say(f"note: {note}", file=sys.stderr)
    return not problems


def preflight(options: Trainer, experiments: list[Experiment], evals: Sequence[Eval] | None = None) -> int:
    """2 when what is left to train cannot be, or could not be scored: said before any folder is made."""
    left = left_to_train(folders_of(experiments, options.out), anew=options.overwrite)
    check_unfinished(left, resume=options.resume, overwrite=options.overwrite)
    if not left:
        return 0
    _, budgets, crowd = checked(list(left.values()), options, evals)
    return 0 if refuse(budgets, crowd) else 2


# ---- train and sweep ----------------------------------------------------------------------------------------


def run_train(call: Call[TrainFlags]) -> int:
    return train_all(call.options, experiments_of(call))


def run_sweep(call: Call[SweepFlags]) -> int:
    """Train a study, or an experiment crossed with values; the exit code."""
    named = resolved(call)
    if not call.options.cross:
        return train_all(call.options, chosen(named, call.options.only))
    if not isinstance(named, Experiment):
        raise ValueError("--cross works on a single experiment; a study already names its members and seeds")
    return train_all(call.options, cross(named, axes(call.options.cross)))


def train_all(options: Trainer, experiments: list[Experiment]) -> int:
    """Check and train, by the processes that torchrun has started where it has. The exit code."""
    shards = isinstance(options, Trains) and options.shard_latents
    if processes() > 1:
        with joined(experiments[0].training.device, "latents" if shards else "rows") as group:
            return train_by_group(options, experiments, group)
    if shards:
        raise ValueError(
            "--shard-latents shares latents out to processes that torchrun starts, and this is one alone: start "
            "torchrun --nproc-per-node 2 -m unbraid …, or leave it out"
        )
    if refused := preflight(options, experiments):
        return refused
    with crew_of(options, [options.out], experiments) as crew:
        failed = train_checked(options, experiments, crew)
    if any(finished(folder) for folder in folders_of(experiments, options.out)):
        say(f"runs are in {options.out}; next: unbraid eval {options.out}/* && unbraid report {options.out}/*")
    return failed


def train_by_group(options: Trainer, experiments: list[Experiment], group: Group) -> int:
    """Train cohort by cohort in one of the processes of a group, the first of which checks, and says what is done. The
    exit code."""
    if options.workers > 1 or options.ray:
        raise ValueError("torchrun starts the processes that train; leave out --workers and --ray")
    if refused := int(group.first(preflight(options, experiments) if group.leads else 0)):
        return refused
    failed = sum(train_cohort(options, cohort, group=group) for cohort in cohorts(experiments))
    if group.leads and any(finished(folder) for folder in folders_of(experiments, options.out)):
        say(f"runs are in {options.out}; next: unbraid eval {options.out}/* && unbraid report {options.out}/*")
    return 1 if failed else 0


def train_checked(options: Trainer, experiments: list[Experiment], crew: Crew) -> int:
    """Train what `preflight` has let through, cohort by cohort or by a crew. The exit code."""
    todo = left_to_train(folders_of(experiments, options.out), anew=options.overwrite)
    if crew.helps(len(todo)):
        patience = LOST if crew.remote else 0.0
        how = ShardSettings(options.out, options.checkpoint_seconds, packages(options), permissions(options), patience)
        return 1 if train_by_crew(experiments, how, crew, overwrite=options.overwrite) else 0
    groups, spent, failed = cohorts(experiments), list[float](), 0
    for number, cohort in enumerate(groups, 1):
        begun, new = time.monotonic(), not all(finished(options.out / one.folder) for one in cohort)
        left = (len(groups) - number + 1) * sum(spent) / len(spent) if spent else 0.0
        to_go = f", {duration(left)} to go by those before" if spent else ""
        failed += train_cohort(options, cohort, f"stream {number} of {len(groups)}{to_go}: " if groups[1:] else "")
        spent += [time.monotonic() - begun] if new else []
    return 1 if failed else 0


def say_what_is_trained(options: Trainer, cohort: Sequence[Experiment], place: str) -> None:
    """Print how many dictionaries are trained on a stream. `place`: which stream of how many."""
    todo = left_to_train(folders_of(cohort, options.out), anew=options.overwrite)
    done = sum(finished(options.out / experiment.folder) for experiment in cohort)
    many = "1 dictionary" if len(cohort) == 1 else f"{len(cohort)} dictionaries"
    say(f"{place}{many} on one stream" + (f", {done} finished already" if done else ""))
    if todo:
        say("reading the first activations, and starting dictionaries from them …", flush=True)


def train_cohort(options: Trainer, cohort: Sequence[Experiment], place: str = "", group: Group = ALONE) -> int:
    """Train the members that are left, on one stream; the number that failed, which are named. `place`: which stream
    of how many; `group`: the processes that train them."""
    if group.leads:
        say_what_is_trained(options, cohort, place)
    try:
        train(
            cohort, options.out, resume=options.resume, overwrite=options.overwrite,
            checkpoint_seconds=options.checkpoint_seconds, callbacks=[Progress()], group=group,
        )  # fmt: skip
    except Interrupted as stop:
        again = options.resume or isinstance(options, StudyFlags)  # as study and demo do without being told
        said = f"{stop.where}; run it again to continue" if again else str(stop)
        raise KeyboardInterrupt(said) from None  # whatever was to follow, or runs in the background, ends too
    except Failed as error:
        if group.leads:
            say(f"error: {len(error.reasons)} of {len(cohort)} failed\n{error}", file=sys.stderr)
        return len(error.reasons)
    return 0
