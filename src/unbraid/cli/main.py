"""unbraid demo | plan | train | sweep | study | eval | report | steer | import | export | cache | list"""

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le

from unbraid.cli.command_line import Parser, axes, fail, overridden, report_bug, unknown, wide
from unbraid.cli.command_line import axis as axis
from unbraid.config.settings import (
    Device,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
    bounds_of,
    fault_of,
)
from unbraid.system.notices import shown
from unbraid.system.progress import duration
from unbraid.system.stopping import stopping
from unbraid.system.terminal import name as on_one_line
from unbraid.system.terminal import say

# Every line this file prints: names out of files, models and errors may hold what a terminal obeys.
from unbraid.system.terminal import say as print

if TYPE_CHECKING:  # heavy modules are imported by the commands that need them: --help answers at once
    from unbraid.cli.plan import Budget, Estimate
    from unbraid.cli.tally import Tally
    from unbraid.evals.shared.evaluation import Eval
    from unbraid.experiment.experiment import Experiment
    from unbraid.experiment.study import Study
    from unbraid.runs.run import Run
    from unbraid.system.progress import ProgressDisplay


THREADS = Annotated[int, Ge(0), Le(8 * (os.cpu_count() or 1))]
"""More only take turns, and without end of them torch does not start."""

NOTICED = 0.01
"""Change of a probability below which steering is said to do nothing."""

DEMO_EVALS = {
    "demo_world": ["fidelity", "recovery", "absorption", "splitting", "controllability"],
    "demo_language": ["fidelity", "recovery", "absorption", "splitting", "interchange"],
}
"""What the demo's minutes allow; `unbraid eval runs/demo/*` makes the rest."""

STOPPED = {
    "train": "stopped; continue with --resume", "sweep": "stopped; continue with --resume",
    "study": "stopped; run it again, it goes on where it stopped",
    "demo": "stopped; run it again, it goes on where it stopped",
    "eval": "stopped; results that were finished are kept, run it again for the others",
    "cache": "stopped; shards that were finished are kept, run it again for the others",
    "report": "stopped; nothing was written", "export": "stopped; nothing was written",
    "import": "stopped; run it again",
}  # fmt: skip
"""What is said, by command, of one that was broken off and has not said better itself."""

EPILOG = """\
first steps
  unbraid demo                                   the whole line where factors are known, in minutes, offline
  unbraid list                                   experiments, terms and evals, one line each
  unbraid plan lm --source.model EleutherAI/pythia-70m-deduped --source.layer 3 --source.text corpus.jsonl
  unbraid sweep lm --source.model ... --out runs/pythia   train a cohort on one stream of activations
  unbraid eval runs/pythia/* && unbraid report runs/pythia/*

every field of an experiment is a flag: unbraid train world --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. 0: done; 1: some runs or evals failed; 2: cannot be done as asked; 3: a bug; 130: stopped, and
    saved."""
    parser = arguments()
    options, rest = parser.parse_known_args(argv)
    if rest and not getattr(options, "overridable", False):
        unknown(getattr(options, "parser", parser), rest)
    try:
        with shown(), stopping():
            return options.run(options, rest)
    except BrokenPipeError:  # the reader of our output has ended: head, less
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError) as error:
        say(f"error: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        say(f"error: out of memory ({error}): ask for fewer members or latents, or smaller blocks", file=sys.stderr)
        return 2
    except KeyboardInterrupt as where:
        say(str(where) or STOPPED.get(options.command, "stopped"), file=sys.stderr)
        return 130
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for its name
            say(f"error: out of memory ({error}): ask for fewer members or latents", file=sys.stderr)
            return 2
        return report_bug(error, f"unbraid {' '.join(sys.argv[1:] if argv is None else argv)}")


def arguments() -> argparse.ArgumentParser:
    parser = Parser(
        prog="unbraid", description="Should we optimise sparse autoencoders for disentanglement instead of sparsity?",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.set_defaults(run=lambda options, rest: version_or_help(parser, options), command="")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    trust = ("--trust-remote-code",)
    trusting: dict[str, Any] = {"action": "store_true", "help": "run Python code that comes with the model"}

    def command(
        name: str, run: Callable[..., int], text: str, *, overridable: bool = False, first: tuple[str, str] = ("", "")
    ) -> argparse.ArgumentParser:
        # Overridable commands pass what they do not know on to the experiment's own flags, and show those in --help.
        sub = commands.add_parser(
            name, help=text, description=text, add_help=not overridable, allow_abbrev=False, formatter_class=wide
        )
        sub.set_defaults(run=run, command=name, overridable=overridable, parser=sub)
        if first[0]:
            sub.add_argument(first[0], help=first[1], type=Path, nargs="?")
        if overridable:
            sub.add_argument("-h", "--help", action="store_true", help="show the flags used most, and exit")
            sub.add_argument("--help-all", action="store_true", help="show every flag, and exit")
            sub.add_argument("name", help="a named experiment or study (`unbraid list`)", nargs="?")
            sub.add_argument("--out", type=Path, default=Path("runs"), help="folder of the runs (default: runs)")
            sub.add_argument(
                "--threads",
                type=argument(THREADS),
                default=0,
                help="CPU threads (default: all cores; 1 is fastest below about 1k latents)",
            )
            sub.add_argument(
                "--only", nargs="+", default=["*"], metavar="MEMBER", help="of a study: these members, e.g. 'topk-*'"
            )
            sub.add_argument(
                "--add", action="append", default=[], metavar="TERM", help="add a term by name, e.g. orthogonality"
            )
            sub.add_argument(
                "--dictionary.activation", dest="activation", default="", metavar="NAME",
                help="of an experiment: another activation, e.g. JumpReLU; its fields are flags then",
            )  # fmt: skip
            sub.add_argument(*trust, **trusting)
        sub.add_argument("--package", action="append", default=[], help="also look in this package of yours")
        return sub

    def trains(sub: argparse.ArgumentParser) -> None:
        either = sub.add_mutually_exclusive_group()
        either.add_argument("--resume", action="store_true", help="continue unfinished runs from their last checkpoint")
        either.add_argument("--overwrite", action="store_true", help="start unfinished runs anew")
        sub.add_argument(
            "--checkpoint-seconds",
            type=argument(NonNegativeFloat),
            default=120.0,
            help="time between checkpoints (default: 120)",
        )

    demo = command(
        "demo", run_demo, "train, score and report small studies on a world and on the embedded language model"
    )
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), help="where (default: runs/demo)")
    demo.set_defaults(resume=True, overwrite=False, checkpoint_seconds=120.0, experiment="demo_world")

    part = commands.add_parser("demo-part")  # one of the demo's two processes; without help, so not listed
    part.add_argument("experiment", choices=list(DEMO_EVALS))
    part.add_argument("--out", type=Path, required=True)
    beside_flag(part)
    part.set_defaults(
        run=run_demo_part, command="demo", package=[], resume=True, overwrite=False, checkpoint_seconds=120.0
    )
    command(
        "plan", run_plan, "print tokens, disk, memory, time and a sample of the text, before any work", overridable=True
    )
    trains(command("train", run_train, "train one named experiment, or every member of a study", overridable=True))
    sweep = command("sweep", run_sweep, "train a study, or an experiment crossed with values", overridable=True)
    sweep.add_argument(
        "--cross", action="append", default=[], metavar="FIELD=V1,V2", help="values to cross, e.g. seed=0,1,2"
    )
    trains(sweep)
    scored = command("eval", run_eval, "score finished runs")
    scored.add_argument("runs", nargs="+", type=Path, help="run folders")
    beside_flag(scored)
    scored.add_argument("--evals", nargs="+", default=[], help="which (default: all that apply)")
    scored.add_argument("--verbose", action="store_true", help="also say why evals do not apply")
    scored.add_argument("--force", action="store_true", help="score again what is already scored")
    scored.add_argument(*trust, **trusting)
    scored.add_argument("--suite", choices=["own", "saebench"], default="own", help="whose evals (default: own)")
    scored.add_argument(
        "--threads", type=argument(THREADS), default=0, help="CPU threads (default: all cores; SAEBench: 1)"
    )
    saebench_arguments(scored.add_argument_group("--suite saebench"))
    study = command(
        "study", run_study, "train a study, score it by every eval and by SAEBench, write its report; again to resume",
        overridable=True,
    )  # fmt: skip
    study.add_argument("--evals", nargs="+", default=[], help="which of our evals (default: all that apply)")
    study.add_argument("--verbose", action="store_true", help="also say why evals do not apply")
    study.add_argument("--saebench", nargs="*", default=None, metavar="EVAL", help="which of SAEBench's (default: all "
                       "that need no key; none: leave SAEBench out)")  # fmt: skip
    trains(study)
    study.set_defaults(resume=True, threads=1)  # two processes, one core each
    saebench_arguments(study.add_argument_group("SAEBench"))
    report = command("report", run_report, "write one HTML file from scored runs")
    report.add_argument("runs", nargs="+", type=Path, help="run folders")
    report.add_argument("--out", type=Path, default=Path("report.html"), help="the file (default: report.html)")
    report.add_argument("--scores", type=Path, help="also write the rows behind every number to this JSON file")
    steered = command("steer", run_steer, "show what a model writes with one latent's atom added to its activations")
    steered.add_argument("run_folder", type=Path, help="a run folder of a language model")
    steered.add_argument(
        "--latent",
        type=argument(NonNegativeInt),
        required=True,
        help="which; of MELBO's and DCT's runs 0 is the strongest",
    )
    steered.add_argument("--prompt", required=True, help="text the model goes on from")
    steered.add_argument(
        "--scale", type=argument(float), default=1.0, help="how many units, below 0 against it (default: 1)"
    )
    steered.add_argument(
        "--unit", choices=["auto", "own", "radius"], default="auto",
        help="own: the 95th percentile of the latent's codes; radius: where the layers after stop being linear; "
        "auto: radius for runs of MELBO and DCT, else own",
    )  # fmt: skip
    steered.add_argument("--tokens", type=argument(PositiveInt), default=30, help="how many to write (default: 30)")
    steered.add_argument("--top", type=argument(PositiveInt), default=8, help="changed next tokens shown (default: 8)")
    steered.add_argument(*trust, **trusting)
    export = command("export", run_export, "copy a run's dictionary into a folder for another library")
    export.add_argument("run_folder", type=Path, help="a run folder")
    export.add_argument("--out", type=Path, required=True, help="the new folder; an existing one is never overwritten")
    export.add_argument(
        "--to", default="saelens", choices=["saelens", "dictionary_learning", "sparsify", "hub"],
        help="format; hub: with model card and index entry, ready to upload (default: saelens)",
    )  # fmt: skip
    export.add_argument("--repo", default="", help="with --to hub: OWNER/NAME it will have there")
    export.add_argument("--model", default="", help="with --to hub: OWNER/NAME of the model, when it was a folder here")
    cache = command(
        "cache", run_cache, "write an experiment's activations to disk, to train on later", overridable=True
    )
    cache.add_argument("--to", type=Path, help="folder of the cache; continued when it is unfinished (required)")
    imported = command(
        "import",
        run_import,
        "make a run of an SAE from a folder of SAELens, dictionary_learning, sparsify or Gemma Scope",
        overridable=True,
        first=("sae", "the folder with the SAE"),
    )
    imported.add_argument(
        "--as", dest="called", default="", metavar="NAME", help="what reports call it (default: imported-FOLDER)"
    )
    imported.add_argument(
        "--l0", type=argument(PositiveFloat), help="the sparsity it was trained for, where its activation has no k"
    )
    imported.add_argument(
        "--seed",
        type=argument(Seed),
        default=0,
        help="which of several SAEs trained alike; give them one name (default: 0)",
    )
    imported.add_argument(
        "--compared", action="store_true", help="it was trained for more than sparsity: not among a report's baselines"
    )
    command("list", run_list, "show experiments, terms and evals")
    return parser


def beside_flag(sub: argparse.ArgumentParser) -> None:
    """Given by `Beside` to its commands, which then end with it, however it ends."""
    sub.add_argument("--beside", action="store_true", help=argparse.SUPPRESS)


def saebench_arguments(sub: Any) -> None:
    """How SAEBench is asked."""
    cache = Path(os.environ.get("UNBRAID_CACHE") or Path.home() / ".cache" / "unbraid")
    sub.add_argument("--plan", action="store_true", help="say what it will take and what cannot be asked, and stop")
    sub.add_argument("--cache", type=Path, default=cache, help=f"folder of its environment (UNBRAID_CACHE, or {cache})")
    sub.add_argument("--python", type=Path, help="interpreter of an environment of yours that has sae-bench")
    sub.add_argument("--size", choices=["auto", "small", "published"], default="auto", help="of its data sets "
                     "(default: small for a model in a folder, as published for one on the hub)")  # fmt: skip
    sub.add_argument("--text", default="", help="documents to read, for core and autointerp (default: held-out ones)")
    sub.add_argument("--labelled", action="append", default=[], metavar="FILE:CLASS:ATTRIBUTE", help="texts with two "
                     "columns of labels, for sparse_probing, scr and tpp; .jsonl, .csv, .parquet …")  # fmt: skip
    sub.add_argument("--ravel", default="", metavar="FOLDER", help="RAVEL's JSON files, for ravel")
    sub.add_argument(
        "--limit-minutes", type=argument(PositiveFloat), default=60.0, help="of one run and eval (default: 60)"
    )
    sub.add_argument("--device", type=argument(Device), default="cpu", help="cpu, cuda, mps (default: cpu)")


def version_or_help(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if options.version:
        from unbraid import __version__

        print(f"unbraid {__version__}")
    else:
        parser.print_help()
    return 0


def packages(options: argparse.Namespace) -> tuple[str, ...]:
    from unbraid.config.serialise import OWN_PACKAGES

    if options.package and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a user's own package, beside which the command is run
    return (*OWN_PACKAGES, *options.package)


def permissions(options: argparse.Namespace) -> tuple[str, ...]:
    """What this call allows that no file may allow itself."""
    return ("trust_remote_code",) if getattr(options, "trust_remote_code", False) else ()


def resolved(options: argparse.Namespace, rest: list[str]) -> "Experiment | Study":
    """The named experiment with added terms and overridden fields."""
    from unbraid import catalog
    from unbraid.config.settings import check_all, unchecked

    asked = options.help or options.help_all
    if options.name is None:
        options.parser.print_help(sys.stdout if asked else sys.stderr)
        more = "`unbraid list` shows them; with a name, --help also shows the experiment's own flags"
        if not asked:
            fail(f"unbraid {options.command} needs the NAME of an experiment or study: {more}")
        print(f"\nWhich NAME? {more}.")
        raise SystemExit(0)
    known = catalog.experiments(packages(options))
    if options.name not in known and (later := [word for word in rest if word.replace("-", "_") in known]):
        raise ValueError(f"the name comes first: unbraid {options.command} {later[0]} FLAGS")
    named = catalog.make(catalog.pick(options.name, known, "experiment"))
    for term in options.add:
        named = with_term(named, term, packages(options))
    if options.activation:
        named = with_activation(named, options.activation, packages(options))
    prog = f"unbraid {options.command} {options.name}"
    if asked:
        show_help(options, named, prog, known[options.name.replace("-", "_")].headline)
        raise SystemExit(0)
    use_threads(options.threads)
    rest = [*rest, *(f"--source.{name.replace('_', '-')}" for name in permissions(options))]
    with unchecked():  # tyro would stop at the first thing that settings say
        made = overridden(named, rest, prog)
    check_all(made)
    return made


def show_help(options: argparse.Namespace, named: "Experiment | Study", prog: str, headline: str) -> None:
    """The command's own flags, then those of the experiment: the most used ones, or all."""
    import textwrap

    import tyro

    from unbraid.cli.help_text import COLUMNS, short_help

    options.parser.print_help()
    print("\n" + textwrap.fill(f"{options.name}: {headline}", COLUMNS))
    if options.help_all:
        config = (tyro.conf.AvoidSubcommands,)
        tyro.cli(type(named), default=named, args=["--help"], prog=prog, config=config)
    print(short_help(named, prog))


def argument(hint: Any) -> Callable[[str], Any]:
    """A type for argparse: what `hint` says, with its bounds."""
    kind, _ = bounds_of(hint)

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = text
        if fault := fault_of(value, hint):
            raise argparse.ArgumentTypeError(f"{text!r} is not possible; it must be {fault}")
        return value

    return read


def use_threads(count: int) -> None:
    import torch

    if count:
        torch.set_num_threads(count)


def with_activation(named: "Experiment | Study", name: str, allowed: tuple[str, ...]) -> "Experiment":
    """`named` with another activation at its defaults, and as many latents active where both can say."""
    import inspect
    from dataclasses import replace

    from unbraid import catalog
    from unbraid.experiment.experiment import Experiment

    if not isinstance(named, Experiment):
        raise ValueError("--dictionary.activation works on a single experiment; a study's members have their own")
    known = catalog.activations(allowed)
    if name not in known:
        raise ValueError(f"no activation called {name!r}; there are: {', '.join(sorted(known))}")
    k = getattr(named.dictionary.activation, "k", None)
    kept = {"k": k} if k is not None and "k" in inspect.signature(known[name]).parameters else {}
    dictionary = replace(named.dictionary, activation=known[name](**kept))
    return replace(named, dictionary=dictionary, name=f"{named.name}-{name.lower()}")


def with_term(named: "Experiment | Study", term: str, allowed: tuple[str, ...]) -> "Experiment | Study":
    """`named` with a term's default added to its objective, or to that of every trained member."""
    from dataclasses import replace

    from unbraid import catalog
    from unbraid.experiment.experiment import Experiment

    cls = catalog.pick(term, catalog.term_entries(allowed), "term").load()
    name = term.replace("-", "_")
    add = lambda o: replace(o, penalties={**o.penalties, name: cls()})
    if isinstance(named, Experiment):
        return replace(named, objective=add(named.objective), name=f"{named.name}-{term}")
    members = {k: replace(m, objective=add(m.objective)) if m.trained else m for k, m in named.members.items()}
    return replace(named, members=members)


def experiments_of(named: "Experiment | Study", only: Sequence[str]) -> "list[Experiment]":
    """All experiments of a study's members that match a pattern of `only`, or the one experiment."""
    from dataclasses import replace

    from unbraid.experiment.experiment import Experiment

    if isinstance(named, Experiment):
        if list(only) != ["*"]:
            raise ValueError(f"--only chooses members of a study, and {named.name} is one experiment; leave it out")
        return [named]
    chosen = {name: m for name, m in named.members.items() if any(fnmatch(name, pattern) for pattern in only)}
    if not chosen:
        raise ValueError(f"--only {' '.join(only)} matches no member; there are: {', '.join(named.members)}")
    return replace(named, members=chosen).experiments()


def run_plan(options: argparse.Namespace, rest: list[str]) -> int:
    from unbraid.cli.plan import estimate

    experiments = experiments_of(resolved(options, rest), options.only)
    asked = own_evals(options, options.evals) if options.command == "study" else None
    groups, budgets = checked(experiments, options, evals=asked)
    for cohort, found in zip(groups, budgets, strict=True):
        for line in described(found):
            print(line)
        if policy := cohort[0].source.token_policy():
            print(f"token policy  {policy}")
        for text in cohort[0].source.sample_text(2):
            print(f"reads         {text[:300]!r}")
    if not refuse(budgets):
        return 2
    for cohort in groups:
        print(f"measuring a few steps of each kind of member, {len(cohort)} members in all …", flush=True)
        with progress() as see:
            measured = estimate(cohort, watch=partial(see, "measuring", "kinds"))
        for line in estimated(measured):
            print(line)
    return 0


def estimated(measured: "Estimate") -> list[str]:
    kept, on_disk = (gigabytes(n) for n in (measured.kept, measured.in_checkpoints))
    fits = f", {duration(measured.fitting)} of it in fits" if measured.fitting else ""
    some = measured.measured < measured.kinds
    share = f" of {measured.measured} of {measured.kinds} kinds of member, the rest taken to be alike" if some else ""
    return [
        f"cache         {gigabytes(measured.cache)} more if you write the activations to disk (unbraid cache)",
        f"terms         keep {kept} more, and {on_disk} on disk; what a step makes and frees, as passes through the "
        "layers after, is not counted",
        f"time          {duration(measured.seconds)}{fits}, from measured steps{share}",
    ]


def checked(
    experiments: "list[Experiment]", options: argparse.Namespace, *, evals: "Sequence[Eval] | None" = None
) -> "tuple[list[list[Experiment]], list[Budget]]":
    """Cohorts, and what each needs: of all, before the first of them is trained. `evals`: those asked for in the same
    command; else all there are, for later."""
    from unbraid.cli.plan import budget
    from unbraid.experiment.study import cohorts

    groups = cohorts(experiments)
    begun = time.monotonic()
    print("reading the text and the model …", flush=True)
    later = own_evals(options, []) if evals is None else evals
    found = [budget(group, options.out, later, asked=evals is not None) for group in groups]
    print(f"reading took {time.monotonic() - begun:.0f} s", flush=True)
    return groups, found


def refuse(budgets: "Sequence[Budget]") -> bool:
    """Print what stands in the way, and what only should be known; True when nothing stands in the way."""
    problems = list(dict.fromkeys(problem for found in budgets for problem in found.problems()))
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    for note in dict.fromkeys(note for found in budgets for note in found.notes):
        print(f"note: {note}", file=sys.stderr)
    return not problems


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


def described(found: "Budget") -> list[str]:
    number = lambda tokens: f"{tokens:,.0f}" if tokens != float("inf") else "no end to what is"
    return [
        f"dictionaries  {found.members} on one stream, {found.parameters:,} parameters in all",
        f"tokens        {found.tokens:,} needed, {number(found.available)} available, "
        f"{number(found.held_out)} held out for evals",
        f"disk          {gigabytes(found.disk)} at the peak, {gigabytes(found.disk_free)} free",
        f"memory        {gigabytes(found.memory)} besides the model and terms, {gigabytes(found.memory_free)} free",
    ]


def tally(total: int, *, verbose: bool = True) -> "Tally":
    from unbraid.cli.tally import Tally

    return Tally(total, duration, verbose=verbose)


def run_train(options: argparse.Namespace, rest: list[str]) -> int:
    return train_all(options, experiments_of(resolved(options, rest), options.only))


def run_sweep(options: argparse.Namespace, rest: list[str]) -> int:
    from unbraid.experiment.experiment import Experiment
    from unbraid.experiment.study import cross

    named = resolved(options, rest)
    if options.cross:
        if not isinstance(named, Experiment):
            raise ValueError("--cross works on a single experiment; a study already names its members and seeds")
        return train_all(options, cross(named, axes(options.cross)))
    return train_all(options, experiments_of(named, options.only))


def preflight(
    options: argparse.Namespace, experiments: "list[Experiment]", *, evals: "Sequence[Eval] | None" = None
) -> int:
    """2 when what is left to train cannot be, or could not be scored: said before any folder is made."""
    from unbraid.train.checks import check_unfinished
    from unbraid.train.cohort import left_to_train

    left = left_to_train({options.out / e.folder: e for e in experiments}, anew=options.overwrite)
    check_unfinished(left, resume=options.resume, overwrite=options.overwrite)
    return 2 if left and not refuse(checked(list(left.values()), options, evals=evals)[1]) else 0


def train_all(
    options: argparse.Namespace, experiments: "list[Experiment]", *, evals: "Sequence[Eval] | None" = None,
    ready: bool = False,
) -> int:  # fmt: skip
    """`evals`: those that the same command asks for next. `ready`: after `preflight`."""
    from unbraid.experiment.study import cohorts
    from unbraid.runs.run import finished
    from unbraid.train.callbacks import Progress
    from unbraid.train.cohort import Failed, left_to_train
    from unbraid.train.interrupt import Interrupted
    from unbraid.train.loop import train

    if not ready and (refused := preflight(options, experiments, evals=evals)):
        return refused
    failed = 0
    for cohort in cohorts(experiments):
        todo = left_to_train({options.out / e.folder: e for e in cohort}, anew=options.overwrite)
        done = sum(finished(options.out / e.folder) for e in cohort)
        print(f"{len(cohort)} dictionaries on one stream" + (f", {done} finished already" if done else ""))
        if todo:
            print("reading the first activations, and starting dictionaries from them …", flush=True)
        try:
            train(
                cohort, options.out, resume=options.resume, overwrite=options.overwrite,
                checkpoint_seconds=options.checkpoint_seconds, callbacks=[Progress()],
            )  # fmt: skip
        except Interrupted as where:
            raise KeyboardInterrupt(str(where)) from None  # whatever was to follow, or runs beside, ends too
        except Failed as error:
            print(f"error: {len(error.reasons)} of {len(cohort)} failed\n{error}", file=sys.stderr)
            failed += len(error.reasons)
    if failed == len(experiments):
        return 1
    print(f"runs are in {options.out}; next: unbraid eval {options.out}/* && unbraid report {options.out}/*")
    return 1 if failed else 0


def progress() -> "ProgressDisplay":
    from unbraid.system.progress import ProgressDisplay

    return ProgressDisplay()


def run_eval(options: argparse.Namespace, rest: list[str]) -> int:
    from unbraid.runs.failure import failure
    from unbraid.runs.run import finished

    use_threads(options.threads)
    folders = run_folders(options.runs)
    done = [path for path in folders if finished(path)]
    for path in sorted(set(folders) - set(done)):
        reason = failure(path) or "not finished; continue it with --resume"
        print(f"passed over {on_one_line(path)}: {reason}", file=sys.stderr)
    if not done:
        raise ValueError("none of these runs is finished; train them to the end with --resume")
    if options.plan and options.suite != "saebench":
        raise ValueError("--plan is of --suite saebench; our own evals say what they take as they go")
    run = run_saebench if options.suite == "saebench" else score_all
    return run(done, options, options.evals)


def open_run(path: Path, options: argparse.Namespace) -> "Run":
    from unbraid.runs.run import Run

    run = Run.open(path, packages(options), permissions(options))
    for note in run.notes:
        print(f"note: {note}", file=sys.stderr)
    return run


def open_runs(folders: Sequence[Path], options: argparse.Namespace) -> "tuple[list[Run], int]":
    """The runs that can be read, and how many cannot: those are named."""
    from unbraid.system.each import each

    runs, failed = each(folders, lambda folder: open_run(folder, options))
    for failure in failed:
        print(f"error: {on_one_line(failure.what)}: {failure.reason}", file=sys.stderr)
    return runs, len(failed)


def tell_failures(failed: int, total: int) -> int:
    """The end of a command that worked on many things: its exit code."""
    from unbraid.system.each import counted

    if failed:
        print(f"{counted(failed, total)}; the reasons are above, and in the results of those scored", file=sys.stderr)
    return 1 if failed else 0


def saebench_environment(options: argparse.Namespace, *, make: bool = True) -> Any:
    """The environment that has SAEBench, made on first use; None when there is none and none is to be made."""
    from unbraid.saebench import environment

    if options.python:
        return environment.from_interpreter(options.python)
    if not make:
        return environment.find(options.cache)
    return environment.make(options.cache, lambda text: print(text, flush=True))


def bench_of(options: argparse.Namespace) -> Any:
    from unbraid.saebench import bench, environment
    from unbraid.system.devices import check_device

    check_device(options.device, "--device")
    how = bench.Bench(
        environment=saebench_environment(options, make=False) or environment.NOT_MADE, work=options.cache / "work",
        device=options.device, threads=max(1, options.threads), limit=60 * options.limit_minutes, size=options.size,
        text=options.text, labelled=tuple(options.labelled), ravel=options.ravel, environ=bench.own_environ(os.environ),
    )  # fmt: skip
    how.check()
    return how


def unmade(options: argparse.Namespace) -> Path | None:
    """Where the environment is to be made; None when there is one."""
    from unbraid.saebench import environment

    return None if saebench_environment(options, make=False) else environment.folder_of(options.cache)


def plan_saebench(experiments: "list[Experiment]", options: argparse.Namespace) -> int:
    """What SAEBench will take for runs that are still to be trained."""
    from unbraid.saebench import cost, eval_specs, targets

    source, how = experiments[0].source, bench_of(options)
    target = targets.target_in(source.metadata(), source)
    asked = eval_specs.chosen(options.saebench or [])
    lines = [cost.estimate_one(o, target, how, runs=len(experiments), kept=0, d_in=source.d_in) for o in asked]
    print("\n".join(["SAEBench", *cost.describe(lines, [], unmade(options))]))
    return 0


def run_saebench(folders: Sequence[Path], options: argparse.Namespace, names: Sequence[str]) -> int:
    from dataclasses import replace

    from unbraid.saebench import bench, cost, eval_specs

    asked, how = eval_specs.chosen(list(names)), bench_of(options)
    runs, unread = open_runs(folders, options)
    if not runs:
        return 2
    lines, without = cost.estimate(runs, asked, how)
    print("\n".join(cost.describe(lines, without, unmade(options))))
    if options.plan:
        return 0
    if options.force or any(line.minutes for line in lines):
        how = replace(how, environment=saebench_environment(options))
    failures = bench.evaluate(runs, asked, how, force=options.force, on_result=tally(len(runs) * len(asked)))
    return tell_failures(failures + unread * len(asked), len(folders) * len(asked))


def own_evals(options: argparse.Namespace, names: Sequence[str]) -> "list[Eval]":
    """Those named, or all there are. Raises ValueError for a name that is none."""
    from unbraid import catalog

    known = catalog.evals(packages(options))
    return [catalog.pick(name, known, "eval") for name in names] or list(known.values())


def score_all(folders: Sequence[Path], options: argparse.Namespace, names: Sequence[str]) -> int:
    from unbraid.evals.shared.evaluation import evaluate
    from unbraid.objective.l0_control import shortfall
    from unbraid.system.each import attempt

    chosen = own_evals(options, names)
    runs, unread = open_runs(folders, options)
    if not runs:
        return 2
    for run in runs:
        if short := attempt(run.path.name, lambda run=run: shortfall(run.facts.provenance)):
            print(f"note: {on_one_line(run.path.name)} {short}", file=sys.stderr)
    # Evals asked for by name say why they do not apply, others only that they do not.
    shown = tally(len(runs) * len(chosen), verbose=bool(names) or getattr(options, "verbose", False))
    failures = evaluate(
        runs, chosen, force=getattr(options, "force", False),
        on_result=lambda run, item, status: shown(run, item.name, status),
        notice=lambda text: print(f"note: {text}", file=sys.stderr),
    )  # fmt: skip
    if summary := shown.summary():
        print(summary)
    return tell_failures(failures + unread * len(chosen), len(folders) * len(chosen))


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """The run folders among `paths`; a shell's runs/* may name reports and the like, which are passed over.

    Raises ValueError when there is none.
    """
    from unbraid.runs.run_folder import is_run

    folders = [path for path in paths if is_run(path)]
    if not folders:
        raise ValueError(f"no run folder among {[str(p) for p in paths][:5]}: a run folder holds experiment.json")
    return folders


def run_report(options: argparse.Namespace, rest: list[str]) -> int:
    return report_on(run_folders(options.runs), options.out, options.scores)


def report_on(folders: Sequence[Path], out: Path, scores: Path | None) -> int:
    """Write the report, and the rows behind it where asked: 1 when runs could not be read, which are named."""
    from unbraid.report import scores_json, write_report

    unread: list[str] = []
    rows = write_report(folders, out, notice=unread.append)
    for text in unread:
        print(f"error: {text}", file=sys.stderr)
    if scores is not None:
        scores_json(rows, scores)
        print(f"scores: {scores}")
    print(f"report: {out}")
    return 1 if unread else 0


def run_demo(options: argparse.Namespace, rest: list[str]) -> int:
    from unbraid.system.locks import held

    use_threads(1)
    folders = [options.out / experiment.folder for name in DEMO_EVALS for experiment in demo_experiments(name)]
    print("two worlds at once, one core each; the whole takes a few minutes")
    language = own_command("demo-part", "demo_language", "--out", str(options.out), "--beside")
    with held([options.out]):
        with beside([language]) as other:
            failed = run_demo_part(options, rest)
        failed = other.failed or failed
        return report_on(folders, options.out / "report.html", options.out / "scores.json") or failed


def run_demo_part(options: argparse.Namespace, rest: list[str]) -> int:
    from unbraid.runs.run import finished

    end_with_parent(options)
    use_threads(1)
    experiments = demo_experiments(options.experiment)
    trained = train_all(options, experiments, evals=own_evals(options, DEMO_EVALS[options.experiment]))
    if trained > 1:
        return trained
    folders = [options.out / e.folder for e in experiments]
    folders = [folder for folder in folders if finished(folder)]  # those that failed have been named
    return score_all(folders, options, DEMO_EVALS[options.experiment]) or trained


def demo_experiments(name: str) -> "list[Experiment]":
    from unbraid import catalog
    from unbraid.experiment.study import Study

    study = catalog.make(catalog.experiments()[name])
    assert isinstance(study, Study)
    return study.experiments()


START = (
    "import sys; sys.path.append({home!r}); sys.argv[0] = 'unbraid'; "
    "from unbraid.cli.main import main; sys.exit(main())"
)
"""-P leaves the working folder out of the path; this package is found wherever it is, after everything else."""


def own_command(*words: str) -> list[str]:
    """`unbraid` with these arguments, in a process of its own."""
    return [sys.executable, "-P", "-c", START.format(home=str(Path(__file__).resolve().parents[2])), *words]


def end_with_parent(options: argparse.Namespace) -> None:
    """What was started beside another command ends when that is killed: else it would hold its folders for nobody."""
    if not getattr(options, "beside", False):
        return

    def watch() -> None:
        while os.read(0, 1024):  # not through sys.stdin, whose lock a thread must not hold when Python ends
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Beside(threading.Thread):
    """Commands one after another in processes of their own, their lines shown among ours."""

    def __init__(self, commands: Sequence[list[str]]) -> None:
        super().__init__(daemon=True)
        self.commands, self.stopped, self.lock = commands, False, threading.Lock()
        self.failed = 1
        """0 once all have been run and none has failed."""
        self.process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        worst = 0
        for command in self.commands:
            try:
                with self.lock:
                    if self.stopped:
                        return
                    # A session of its own: Ctrl-C comes once, from us. Its input stays open as long as we live.
                    self.process = subprocess.Popen(
                        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                        errors="replace", start_new_session=True,
                    )  # fmt: skip
            except OSError as error:
                print(f"  | error: {command[0]} could not be run ({error})", flush=True)
                worst = 1
                continue
            with self.process as process:
                assert process.stdout is not None
                for line in process.stdout:
                    print(f"  | {line}", end="", flush=True)
            worst = process.returncode or worst
        self.failed = worst

    def stop(self) -> None:
        with self.lock:
            self.stopped = True
            if self.process is not None:
                self.process.terminate()


@contextmanager
def beside(commands: Sequence[list[str]]) -> "Iterator[Beside]":
    """Commands beside what is done meanwhile; waited for at the end, and stopped when that fails or is interrupted."""
    other = Beside(commands)
    other.start()
    try:
        yield other
        other.join()
    except BaseException:
        other.stop()
        other.join()
        raise


def run_steer(options: argparse.Namespace, rest: list[str]) -> int:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from unbraid.steering.steer import steer
    from unbraid.system.terminal import clean

    visible = lambda text: escape(clean(text))
    run = open_run(options.run_folder, options)
    found = steer(
        run, options.latent, options.prompt, scale=options.scale, unit=options.unit, tokens=options.tokens,
        top=options.top,
    )  # fmt: skip
    console = Console()
    console.print(
        f"latent {options.latent}, {options.scale:g} times {found.unit}: a push of {found.size:.3g}, "
        f"{abs(found.relative):.2g} of the activations' median norm\n",
        highlight=False,
    )
    for title, text in (("without", found.before), ("with", found.after)):
        console.print(f"[bold]{title:<8}[/bold]{visible(options.prompt)} [cyan]{visible(text)}[/cyan]", highlight=False)
    table = Table(
        "next token", "without", "with", "change", title="\nprobabilities that changed most", title_justify="left"
    )
    for token in found.expected:
        table.add_row(
            visible(token.token), f"{token.before:.3f}", f"{token.after:.3f}", f"{token.after - token.before:+.3f}"
        )
    console.print(table)
    if max(abs(token.after - token.before) for token in found.expected) < NOTICED:
        console.print(f"nothing changes by {NOTICED:g}: try a larger --scale, or another latent")
    if found.note:
        console.print(f"note: {found.note}", highlight=False)
    return 0


def run_study(options: argparse.Namespace, rest: list[str]) -> int:
    from unbraid.saebench import eval_specs
    from unbraid.system.locks import held

    experiments = experiments_of(resolved(options, rest), options.only)
    benched = options.saebench is None or options.saebench != []
    asked = own_evals(options, options.evals)  # a name that is none is told before the night, not after it
    eval_specs.chosen(options.saebench or [])
    benched = benched and can_be_benched(experiments, options)
    if options.plan:
        return run_plan(options, rest) or (plan_saebench(experiments, options) if benched else 0)
    if refused := preflight(options, experiments, evals=asked):
        return refused
    if benched:
        saebench_environment(options)  # first, so that no night ends for want of it
    with held([options.out]):
        return train_and_score(experiments, options, benched=benched)


def can_be_benched(experiments: "list[Experiment]", options: argparse.Namespace) -> bool:
    """Whether SAEBench reads such models; False, and said, where nobody asked for it by name. Raises ValueError for
    files that are named and cannot be used."""
    from unbraid.evals.shared.evaluation import NotApplicable
    from unbraid.saebench import targets

    bench_of(options)
    source = experiments[0].source
    try:
        targets.target_in(source.metadata(), source)
    except NotApplicable as reason:
        if options.saebench:
            raise
        print(f"note: left out: {reason}", file=sys.stderr)
        return False
    return True


def train_and_score(experiments: "list[Experiment]", options: argparse.Namespace, *, benched: bool) -> int:
    from unbraid.runs.run import finished

    trained = train_all(options, experiments, ready=True)
    folders = [options.out / experiment.folder for experiment in experiments]
    folders = [folder for folder in folders if finished(folder)]  # those that failed have been named
    if trained > 1 or not folders:
        return trained
    options.force = False
    # One core each: half of the runs here, half in another process; our evals, then SAEBench's.
    with beside(scoring_commands(folders[1::2], options, benched=benched)) as other:
        failed = score_all(folders[::2], options, options.evals)
        if benched:
            failed = run_saebench(folders[::2], options, options.saebench or []) or failed
    failed = other.failed or failed
    return report_on(folders, options.out / "report.html", options.out / "scores.json") or failed or trained


def scoring_commands(folders: Sequence[Path], options: argparse.Namespace, *, benched: bool) -> list[list[str]]:
    """`unbraid eval` of some runs, and with SAEBench, as asked here."""
    if not folders:
        return []
    common = own_command("eval", *map(str, folders), "--threads", str(options.threads), "--beside")
    common += [word for package in options.package for word in ("--package", package)]
    common += [f"--{name.replace('_', '-')}" for name in permissions(options)]
    own = [*common, *(["--evals", *options.evals] if options.evals else [])]
    if not benched:
        return [own]
    named = ("cache", "python", "size", "text", "ravel", "limit_minutes", "device")
    flags = [(name, getattr(options, name)) for name in named] + [("labelled", one) for one in options.labelled]
    given = [
        word for name, value in flags if value not in (None, "") for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    evals = ["--evals", *options.saebench] if options.saebench else []
    return [own, [*common, "--suite", "saebench", *given, *evals]]


def run_export(options: argparse.Namespace, rest: list[str]) -> int:
    from unbraid.formats.export import export

    export(options.run_folder, options.out, options.to, repo=options.repo, model=options.model)
    loads = {
        "saelens": f'load it with sae_lens.SAE.load_from_disk("{options.out}")',
        "dictionary_learning": f'load it with dictionary_learning.utils.load_dictionary("{options.out}", "cpu")',
        "sparsify": f'load it with sparsify.SparseCoder.load_from_disk("{options.out}")',
        "hub": f"read {options.out / 'README.md'}, then `hf upload {options.repo or 'OWNER/NAME'} {options.out}`",
    }
    print(f"written: {options.out}   {loads[options.to]}")
    return 0


def run_import(options: argparse.Namespace, rest: list[str]) -> int:
    from unbraid.runs.import_run import import_run

    if bool(options.sae) and options.name is None and not (options.help or options.help_all):
        raise ValueError(
            "import needs an experiment whose source the SAE is judged on: unbraid import FOLDER lm --source.model … "
            "(`unbraid list` shows experiments)"
        )
    source, sae = experiments_of(resolved(options, rest), options.only)[0].source, Path(options.sae)
    told = {"name": options.called, "seed": options.seed, "standard": not options.compared}
    told |= {"l0": options.l0}
    run, fit, notes = import_run(sae, source, options.out, **told)
    for note in notes:
        print(f"note: {note}")
    print(f"at first sight: FVU {fit.fvu:.3f}, L0 {fit.l0:.1f}")
    print(f"written: {run.path}   next: unbraid eval {run.path} && unbraid report {options.out}/*")
    return 0


def run_cache(options: argparse.Namespace, rest: list[str]) -> int:
    from rich.progress import Progress

    from unbraid.sources.base import Split
    from unbraid.sources.cached import EVAL_ROWS, write_cache

    folder: Path | None = options.to
    if folder is None and not (options.help or options.help_all):
        fail("cache needs a folder to write to: give one with --to FOLDER")
    experiment = experiments_of(resolved(options, rest), options.only)[0]
    assert folder is not None, "help ends in resolving"
    training = experiment.training
    wanted: dict[Split, int] = {"train": training.tokens, "eval": EVAL_ROWS}
    with Progress() as progress:
        for split, tokens in wanted.items():
            task = progress.add_task(f"{split} activations", total=tokens)
            see = lambda _, rows, total, task=task: progress.update(task, completed=rows, total=min(total, tokens))  # noqa: B023
            write_cache(
                experiment.source, folder, seed=experiment.data_seed, tokens=tokens, splits=[split], progress=see
            )
    print(f"written: {folder}   train on it with `unbraid sweep cached --source.folder {folder}`")
    return 0


def run_list(options: argparse.Namespace, rest: list[str]) -> int:
    from unbraid import catalog

    allowed = packages(options)
    groups = {"studies": catalog.experiments, "terms": catalog.term_entries, "evals": catalog.eval_entries}
    for title, find in groups.items():
        print(title)
        for name, entry in sorted(find(allowed).items()):
            print(f"  {name:<24} {entry.headline}")
    return 0
