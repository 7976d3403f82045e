"""The command that does the whole line on one study: training, scores and report."""

import sys
from pathlib import Path

from unbraid.cli.arguments import StudyFlags
from unbraid.cli.calls import Call
from unbraid.cli.crews import crew_of
from unbraid.cli.resolve import calibration_of, experiments_of, packages, registered_of
from unbraid.cli.score import (
    Scoring,
    bench_of,
    plan_saebench,
    report_on,
    run_saebench,
    saebench_environment,
    score_all,
)
from unbraid.cli.train import evals_named, plan, preflight, train_checked
from unbraid.cli.worker_process import Task
from unbraid.cli.workers import Background, Crew, crew_here, in_background
from unbraid.evals.shared.evaluation import NotApplicable
from unbraid.experiment.experiment import Experiment
from unbraid.runs.run_folder import finished
from unbraid.system.locks import held
from unbraid.system.terminal import say


def run_study(call: Call[StudyFlags]) -> int:
    """Train a study, score it and write its report; the exit code."""
    from unbraid.saebench import eval_specs

    options = call.options
    experiments = asked(call)
    evals = evals_named(options.evals, packages(options))  # a name that is none is found before the night
    eval_specs.chosen(list(options.saebench or ()))
    benched = options.saebench != () and can_be_benched(experiments, options)
    if options.plan:
        return plan(experiments, options, evals) or (plan_saebench(experiments, options) if benched else 0)
    if refused := preflight(options, experiments, evals):
        return refused
    if benched:
        saebench_environment(options)  # first, so that no night ends for want of it
    with held([options.out]), crew_of(options, [options.out], experiments) as crew:
        return train_and_score(experiments, options, crew, benched=benched)


def asked(call: Call[StudyFlags]) -> list[Experiment]:
    """The experiments that the flags ask for: a study's, a factorial study's calibration, or a claim card's test."""
    options = call.options
    if options.calibrate and options.card is not None:
        raise ValueError("--calibrate comes before a card is registered and --card after; leave one out")
    if options.calibrate:
        return calibration_of(call)
    return experiments_of(call) if options.card is None else registered_of(call, options.card)


def can_be_benched(experiments: list[Experiment], options: StudyFlags) -> bool:
    """Tell whether SAEBench reads such models; False, and said, where nobody named it. Raises ValueError
    for files that are named and cannot be used."""
    from unbraid.saebench import targets

    bench_of(options)
    source = experiments[0].source
    try:
        targets.target_in(source.metadata(), source)
    except NotApplicable as reason:
        if options.saebench:
            raise
        say(f"note: left out: {reason}", file=sys.stderr)
        return False
    return True


def train_and_score(experiments: list[Experiment], options: StudyFlags, crew: Crew, *, benched: bool) -> int:
    """Train, score by our evals and then by SAEBench's, in several processes, and write the report; the exit code."""
    trained = train_checked(options, experiments, crew)
    folders = trained_folders(options.out, experiments)
    if trained > 1 or not folders:
        return trained
    failed = score_all(folders, Scoring.of(options), crew)
    if benched:
        # SAEBench reads its data once for all the runs that it is given, so each worker has a share of them. Its
        # environment is one of this machine.
        own = crew_here(1 if crew.remote else options.workers, options.threads)
        shares = [folders[start :: own.workers] for start in range(min(own.workers, len(folders)))]
        tasks = [Task("SAEBench", run_saebench, (share, options, options.saebench or ())) for share in shares]
        with in_background(tasks, own) as work:
            pass
        failed = worst(work) or failed
    report, rows = options.out / "report.html", options.out / "scores.json"
    return report_on(folders, report, rows, options.card) or failed or trained


def worst(work: Background) -> int:
    """The exit code of what other processes did: 1 when one failed, which is named, else what they returned."""
    for failure in work.failures:
        say(f"error: {failure}", file=sys.stderr)
    return 1 if work.failures else max(work.results.values(), default=0)


def trained_folders(out: Path, experiments: list[Experiment]) -> list[Path]:
    """The finished runs among those of these experiments; why others failed has been said."""
    return [folder for experiment in experiments if finished(folder := out / experiment.folder)]
