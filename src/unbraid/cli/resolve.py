"""From the words of a command to experiments: the one that is named, with terms, activation and fields as the flags
say."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from unbraid import catalog
from unbraid.cli.arguments import OfExperiment, Options, Trusting
from unbraid.cli.calls import Call
from unbraid.cli.command_line import fail, overridden
from unbraid.config.hints import first_few
from unbraid.config.serialise import OWN_PACKAGES

if TYPE_CHECKING:  # torch is imported by what needs it: --help answers at once
    from unbraid.experiment.experiment import Experiment
    from unbraid.experiment.factorial import Factorial
    from unbraid.experiment.study import Study

    Named = Experiment | Study | Factorial


def packages(options: Options) -> tuple[str, ...]:
    """The packages whose classes may be named; those of the user's are looked for in the working folder too."""
    if options.package and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return (*OWN_PACKAGES, *options.package)


def permissions(options: Trusting) -> tuple[str, ...]:
    """The things that this call allows and no file may allow itself."""
    return ("trust_remote_code",) if options.trust_remote_code else ()


def use_threads(count: int) -> None:
    """Let torch use so many threads; 0 leaves it all cores."""
    import torch

    if count:
        torch.set_num_threads(count)


def entry_of(call: Call[OfExperiment]) -> catalog.Entry:
    """The entry of the experiment or study that the call names. Raises ValueError when there is none."""
    known = catalog.experiments(packages(call.options))
    later = [word for word in call.rest if word.replace("-", "_") in known]
    if call.name not in known and later:
        raise ValueError(f"the name comes first: unbraid {call.command} {later[0]} FLAGS")
    if call.name is None:
        fail(
            f"unbraid {call.command} needs the NAME of an experiment or study: `unbraid list` shows them; with a name, "
            "--help also shows the experiment's own flags"
        )
    return catalog.pick(call.name, known, "experiment")


def changed(call: Call[OfExperiment], entry: catalog.Entry) -> "Named":
    """The named experiment or study with added terms and another activation, before any field is set."""
    named = catalog.make(entry)
    for term in call.options.add:
        named = with_term(named, term, packages(call.options))
    if call.options.activation:
        return with_activation(named, call.options.activation, packages(call.options))
    return named


def resolved(call: Call[OfExperiment]) -> "Named":
    """The named experiment or study, as the flags say. Raises ValueError for what cannot be."""
    from unbraid.config.settings import check_all, unchecked

    named = changed(call, entry_of(call))
    use_threads(call.options.threads)
    rest = [*call.rest, *(f"--source.{name.replace('_', '-')}" for name in permissions(call.options))]
    with unchecked():  # tyro would stop at the first thing that settings say
        made = overridden(named, rest, call.prog)
    check_all(made)
    return made


def experiments_of(call: Call[OfExperiment]) -> "list[Experiment]":
    """The one experiment that is named, or those of the study's members that --only chooses."""
    return chosen(resolved(call), call.options.only)


def factorial_of(call: Call[OfExperiment], flag: str) -> "Factorial":
    """The named factorial study, as the flags say. Raises ValueError for what is none: `flag` is for them alone."""
    from unbraid.experiment.factorial import Factorial

    named = resolved(call)
    if not isinstance(named, Factorial):
        raise ValueError(f"{flag} is for factorial studies, and {call.name} is none; leave it out")
    return named


def calibration_of(call: Call[OfExperiment]) -> "list[Experiment]":
    """Those of the named study's calibration experiments that --only chooses. Raises ValueError for what has none."""
    return matching(factorial_of(call, "--calibrate").calibration(), call.options.only)


def registered_of(call: Call[OfExperiment], card: Path) -> "list[Experiment]":
    """Those of a registered card's experiments that --only chooses. Raises ValueError for a card of another study, one
    that is not registered or has changed since, and a study that is no more what was registered."""
    from unbraid.comparison.card import read_card
    from unbraid.comparison.registration import registered_experiments

    named, about = factorial_of(call, "--card"), read_card(card)
    if about.study != (call.name or "").replace("-", "_"):
        raise ValueError(f"{card} is about the study {about.study}, and {call.name} is named; name the card's")
    return matching(registered_experiments(card, named), call.options.only)


def chosen(named: "Named", only: Sequence[str]) -> "list[Experiment]":
    """All experiments of a study's members that match a pattern of `only`, or the one experiment."""
    from unbraid.experiment.experiment import Experiment
    from unbraid.experiment.study import Study

    if isinstance(named, Experiment):
        if list(only) != ["*"]:
            raise ValueError(f"--only chooses members of a study, and {named.name} is one experiment; leave it out")
        return [named]
    if not isinstance(named, Study):
        return matching(named.experiments(), only)
    members = {name: m for name, m in named.members.items() if any(fnmatch(name, pattern) for pattern in only)}
    if not members:
        raise ValueError(f"--only {' '.join(only)} matches no member; there are: {', '.join(named.members)}")
    return replace(named, members=members).experiments()


def matching(experiments: "list[Experiment]", only: Sequence[str]) -> "list[Experiment]":
    """Those of a factorial study's experiments whose label (batchtopk-hsic-0.3-l0_4) matches a pattern of `only`."""
    found = [experiment for experiment in experiments if any(fnmatch(experiment.label, pattern) for pattern in only)]
    if not found:
        labels = dict.fromkeys(experiment.label for experiment in experiments)
        raise ValueError(f"--only {' '.join(only)} matches no member; there are: {first_few(labels, 30)}")
    return found


def experiment_help(call: Call[OfExperiment], length: Literal["short", "all"]) -> str:
    """Help of the named experiment: its first line, and its fields as flags, those used most or all."""
    import textwrap

    from unbraid.cli.help_cache import kept
    from unbraid.cli.help_text import COLUMNS, short_help

    entry = entry_of(call)
    head = "\n" + textwrap.fill(f"{call.name}: {entry.headline}", COLUMNS) + "\n\n"
    make = lambda: short_help(changed(call, entry), call.prog)
    if length == "all":
        return f"{head}{every_field(changed(call, entry), call.prog)}\n{make()}"
    plain = not (call.options.package or call.options.add or call.options.activation)
    return head + (kept(f"{call.command}-{entry.attribute}", make) if plain else make())


def every_field(named: "Named", prog: str) -> str:
    """tyro's help of every field there is."""
    import io
    from contextlib import redirect_stdout, suppress

    import tyro

    printed = io.StringIO()
    with redirect_stdout(printed), suppress(SystemExit):
        tyro.cli(type(named), default=named, args=["--help"], prog=prog, config=(tyro.conf.AvoidSubcommands,))
    return printed.getvalue()


def with_activation(named: "Named", name: str, allowed: tuple[str, ...]) -> "Experiment":
    """`named` with another activation at its defaults, and as many latents active where both can say."""
    import inspect

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


def with_term(named: "Named", term: str, allowed: tuple[str, ...]) -> "Named":
    """`named` with a term's default added to its objective, or to that of every trained member or base."""
    from unbraid.experiment.experiment import Experiment
    from unbraid.experiment.study import Study

    cls = catalog.pick(term, catalog.term_entries(allowed), "term").load()
    name = term.replace("-", "_")
    add = lambda o: replace(o, penalties={**o.penalties, name: cls()})
    if isinstance(named, Experiment):
        return replace(named, objective=add(named.objective), name=f"{named.name}-{term}")
    if not isinstance(named, Study):
        return replace(named, bases={k: replace(m, objective=add(m.objective)) for k, m in named.bases.items()})
    members = {k: replace(m, objective=add(m.objective)) if m.trained else m for k, m in named.members.items()}
    return replace(named, members=members)


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """The run folders among `paths`; a shell's runs/* may name reports and the like, which are passed over.

    Raises ValueError when there is none.
    """
    from unbraid.runs.run_folder import is_run

    if not paths:
        raise ValueError("required: runs, one run folder or more, such as runs/*")
    folders = [path for path in paths if is_run(path)]
    if not folders:
        inside = next((path for path in paths if path.is_dir() and any(map(is_run, path.iterdir()))), None)
        hint = f"; did you mean {inside}/*?" if inside else ""
        raise ValueError(f"no run folder among {[str(p) for p in paths][:5]}: a run folder holds experiment.json{hint}")
    return folders
