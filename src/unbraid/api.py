"""The front door: train, score, load and compare dictionaries in a line each.

    sae = unbraid.fit(x, d_sae=1024, activation=unbraid.BatchTopK(32))
    unbraid.score(sae, x)
    unbraid.train(study, "runs/x"); unbraid.evaluate("runs/x/*"); unbraid.compare("runs/x/*")

Paths may be text, and one thing may stand where several may.
"""

import tempfile
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from unbraid import catalog
from unbraid.comparison import rows as judged
from unbraid.comparison.registration import rules_of
from unbraid.comparison.stored_scores import params_text, read_scores
from unbraid.config.serialise import OWN_PACKAGES, packages_of, to_json
from unbraid.config.settings import PositiveInt, checked, shown
from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.initialisation import Initialisation
from unbraid.evals.shared import evaluation
from unbraid.experiment.defaults import config_of, training_of
from unbraid.experiment.experiment import Experiment
from unbraid.experiment.factorial import Factorial
from unbraid.experiment.study import Study, cohorts
from unbraid.formats import recognise
from unbraid.formats.download import downloaded
from unbraid.objective.named import Penalties, objective_of
from unbraid.objective.objective import TargetL0, Term
from unbraid.runs.in_memory import InMemory
from unbraid.runs.results import read_result, result_path
from unbraid.runs.run import Run
from unbraid.runs.run_folder import is_run
from unbraid.runs.select import Runs, folders_of
from unbraid.sources.base import Source
from unbraid.sources.given import as_source
from unbraid.sources.tensor import Activations
from unbraid.system.sharing import sharing
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.training.callbacks import Callback
from unbraid.training.loop import train as train_cohort
from unbraid.training.loop import train_folders

Callbacks = Callback | Sequence[Callback]
Trainable = Experiment | Study | Factorial


def fit(
    data: Any,
    *,
    d_sae: int | None = None,
    activation: Activation | None = None,
    penalties: Penalties = (),
    reconstruction: Term | None = None,
    target_l0: float | TargetL0 | None = None,
    init: Initialisation | None = None,
    tokens: int = 2_000_000,
    seed: int = 0,
    save: str | Path | None = None,
    callbacks: Callbacks = (),
    **options: Any,
) -> Dictionary:
    """Train one dictionary and return it, ready for raw activations.

    Args:
        data: activations [..., d_in] as a tensor or array; a source (LanguageModel, World, …); or an iterable of
            batches of activations, such as a DataLoader, which is read into memory.
        d_sae: number of latents; eight times d_in by default.
        activation: how pre-activations become codes; BatchTopK(32) by default.
        penalties: terms added to the loss: one, several, or several by name. `gradient_ratio` sets a strength that
            compares between data sets and widths.
        reconstruction: the term that asks for reconstruction; terms.Reconstruction() by default.
        target_l0: mean number of active latents to reach by moving the weight of the penalty called "sparsity", or of
            the only one.
        init: how the atoms start; RandomAtoms() by default.
        tokens: rows to train on. An array is read again and again, each time in another order.
        seed: moves the initialisation, the terms' randomness and the order of the data.
        save: keep the run in this folder, which `load`, `evaluate` and `unbraid report` read. A folder that holds the
            same experiment unfinished is continued, and one that holds it finished is read. Nothing is kept by default.
        callbacks: called as training goes on, with metrics: `unbraid.callbacks`.
        options: other settings of Training: batch_size, lr, device, …

    Raises:
        ValueError: before the first step, for anything that cannot be trained or stored, with the remedy.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(2000, 16))
        >>> sae = ub.fit(x, d_sae=64, activation=ub.BatchTopK(4), tokens=8000)
        >>> sae(x[:8]).shape
        torch.Size([8, 16])
        >>> term = ub.terms.Orthogonality(gradient_ratio=0.1)
        >>> sae = ub.fit(x, d_sae=64, penalties=term, tokens=8000, callbacks=[], save="runs/mine")

        A transformers model that is loaded, its tokenizer, and texts:

        >>> activations = ub.LanguageModel(model=model, tokenizer=tokenizer, layer=1, text=texts)
        >>> sae = ub.fit(activations, tokens=2048)
    """
    source = as_source(data, checked("tokens", tokens, PositiveInt))
    experiment = Experiment(
        name="fit", source=source, objective=objective_of(reconstruction or Reconstruction(), penalties, target_l0),
        dictionary=config_of(source, d_sae, activation, init), training=training_of(source, tokens, options), seed=seed,
    )  # fmt: skip
    if save is not None:
        return fitted(experiment, as_path("save", save), callbacks)
    with tempfile.TemporaryDirectory(prefix="unbraid-") as folder:
        return fitted(experiment, Path(folder) / "run", callbacks)


def fitted(experiment: Experiment, folder: Path, callbacks: Callbacks) -> Dictionary:
    """Train in a folder, or go on with what is in it, and return the dictionary."""
    train_folders({folder: experiment}, resume=True, callbacks=as_list(callbacks))
    return Run(folder, packages_named(experiment)).dictionary()


def score(
    sae: Dictionary | Run | str | Path,
    data: Any,
    *,
    factors: Any = None,
    names: Sequence[str] | None = None,
    parents: Sequence[int] | None = None,
    evals: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Score a dictionary on activations; a row a number.

    Args:
        sae: a dictionary for raw activations, a run, or the folder of either.
        data: activations [..., d_in], all of which count as held out; or a source.
        factors: magnitudes [..., factors] of known factors in each row, 0 where one is inactive. Scores of recovery,
            absorption, splitting, memorisation and disentanglement then are there too.
        names: what the factors are called; a DataFrame's columns by default.
        parents: index of each factor's parent in a forest, -1 for roots; all are roots by default.
        evals: names of evals; by default all that apply, but those that store more than numbers.

    Returns:
        Columns eval, metric, params, kind (measured, chance, ceiling, reference), value, better (higher, lower,
        neither), definition. `attrs["not_applicable"]` says by eval why the others do not apply.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(500, 16))
        >>> table = ub.score(ub.load("runs/mine"), x)
        >>> bool(table.set_index("metric").value["fvu"] > 0)
        True
        >>> table = ub.score("runs/mine", x, factors=x[:, :4] > 1, evals="recovery")
        >>> sorted(set(table.kind))
        ['chance', 'measured']
    """
    dictionary = sae if isinstance(sae, Dictionary) else sae.dictionary() if isinstance(sae, Run) else load(sae)
    source = as_held_out(data, factors, names, parents)
    if source.d_in != dictionary.d_in:
        raise ValueError(f"the activations have {source.d_in} dimensions, the dictionary explains {dictionary.d_in}")
    with sharing():
        results = [evaluation.score(InMemory.of(dictionary, source), item) for item in chosen_evals(evals)]
    rows = [
        {"eval": result["eval"], **row}
        | {"params": params_text(row["params"]), "definition": result["definitions"][row["metric"]]}
        for result in results
        for row in result.get("scores", ())
    ]
    table = pd.DataFrame(rows, columns=["eval", "metric", "params", "kind", "value", "better", "definition"])
    reasons = {result["eval"]: result["not_applicable"] for result in results if "not_applicable" in result}
    table.attrs["not_applicable"] = reasons
    warn_of({result["eval"]: result["error"] for result in results if "error" in result})
    return table.astype({"value": "float64"})


def as_held_out(data: Any, factors: Any, names: Any, parents: Any) -> Source:
    """Return a source whose rows are all held out, with what is known of the factors behind them."""
    if not isinstance(data, Source):
        return Activations(data, factors=factors, names=names, parents=parents, eval_share=1.0)
    if factors is not None:
        raise ValueError("factors go with an array of activations; a source says itself what is known of its factors")
    return data


def load(where: str | Path, *, packages: str | Sequence[str] = ()) -> Dictionary:
    """Read a dictionary for raw activations from a run folder; from a folder that SAELens, dictionary_learning,
    sparsify or Gemma Scope wrote; or from the Hugging Face hub ("owner/name", or "owner/name:folder").

    Args:
        where: the folder, or the name on the hub.
        packages: packages of yours whose classes a run's experiment.json may name.

    Raises:
        ValueError: for what holds no dictionary, is damaged, or was not trained to its end.

    Examples:
        >>> ub.load("runs/mine").d_sae
        64
    """
    folder = as_path("where", where)
    if not folder.exists():
        folder = downloaded(str(where))
    if is_run(folder):
        return Run.open(folder, (*OWN_PACKAGES, *as_list(packages))).dictionary()
    return recognise.read(folder).dictionary


def train(experiments: Trainable | Sequence[Trainable], folder: str | Path, *, callbacks: Callbacks = ()) -> list[Run]:
    """Train every experiment that has no finished run in `folder`, those begun before from their checkpoints.

    Args:
        experiments: an experiment, a study, or several. Those that can share a stream of activations do.
        folder: where the run folders are written, one an experiment.
        callbacks: called as training goes on, with metrics.

    Returns:
        The runs, in order.

    Raises:
        ValueError: before the first step, for what cannot be trained.
        Failed: once the others are finished, when some could not be trained to their end; it says which and why.

    Examples:
        >>> world = ub.World(d_in=16)
        >>> plain = ub.Objective(reconstruction=ub.terms.Reconstruction())
        >>> members = {"topk": ub.Member(objective=plain, activation=ub.TopK(4))}
        >>> study = ub.Study(source=world, d_sae=32, training=ub.Training(tokens=4096), members=members)
        >>> [run.experiment.seed for run in ub.train(study, "runs/x")]
        [0, 1, 2]
    """
    root = as_path("folder", folder)
    wanted = [one for item in as_list(experiments) for one in expanded(item)]
    if not wanted:
        raise ValueError("there is no experiment to train; give an Experiment or a Study")
    for cohort in cohorts(wanted):
        train_cohort(cohort, root, resume=True, callbacks=as_list(callbacks))
    return [Run.open(root / one.folder, packages_named(one)) for one in wanted]


def evaluate(
    runs: Runs,
    evals: str | Sequence[str] | None = None,
    *,
    force: bool = False,
    packages: str | Sequence[str] = (),
) -> pd.DataFrame:
    """Score runs and keep the scores in their folders; results that are there are kept.

    Args:
        runs: run folders: a path, a pattern such as "runs/x/*", a folder of runs, or several.
        evals: names of evals; by default all but those that store more than numbers (examples, causal_cards).
        force: score again what is scored.
        packages: packages of yours whose classes the runs name and whose evals are meant.

    Returns:
        The rows of `scores`. A warning names every eval that failed; the others are there.

    Examples:
        >>> table = ub.evaluate("runs/x/*", ["fidelity", "recovery"])
        >>> sorted(set(table["eval"]))
        ['fidelity', 'recovery']
    """
    allowed = (*OWN_PACKAGES, *as_list(packages))
    opened = [Run.open(folder, allowed) for folder in folders_of(runs)]
    items = chosen_evals(evals, allowed)
    if evaluation.evaluate(opened, items, force=force):
        pairs = [(run, item.name) for run in opened for item in items if result_path(run.path, item.name).exists()]
        warn_of({f"{name} of {run.path.name}": error_of(run, name) for run, name in pairs})
    return scores([run.path for run in opened])


def scores(runs: Runs) -> pd.DataFrame:
    """Read the stored scores of runs, a row a number: columns run, name, method, l0_requested, seed, control, eval,
    version, metric, kind, value, better, params, d_sae, architecture, source, base, term, strength, geometry.

    Examples:
        >>> table = ub.scores("runs/x/*")
        >>> figure = ub.plot.score(table, "f1", against="l0")
    """
    return read_scores(folders_of(runs)).rows


def compare(runs: Runs, *, method: str | None = None, against: str = "batchtopk") -> pd.DataFrame:
    """Judge each method against its own base, paired by seed, at equal L0, FVU and bits; or any two methods.

    Args:
        runs: run folders, as in `evaluate`.
        method: a method to compare with `against`; None: every method with the base that its term was added to.
        against: the other method.

    Returns:
        A row a comparison: source, d_sae, axis and levels (what is held equal, and where), eval, metric, params,
        method, base, word (better, equivalent, undecided, …; "not counted" for scores that failed the gate), value,
        base_value, difference, half (of its 95 % interval), p, q, smallest (effect of interest), could_find, seeds,
        note.

    Raises:
        ValueError: for a method that there is not, with the nearest; for `against` without `method`.

    Examples:
        >>> len(ub.compare("runs/x/*"))
        0
    """
    if method is None and against != "batchtopk":
        raise ValueError(f"against is {against!r}, and no method is named to compare with it; name one by method=")
    study = read_scores(folders_of(runs))
    rows = judged.judgement_rows(study) if method is None else judged.pair_rows(study, method, against)
    return pd.DataFrame(rows, columns=list(judged.JUDGED_COLUMNS))


def gate(runs: Runs) -> pd.DataFrame:
    """Tell which scores can be believed on a testbed: truth above the best method above untrained ones and chance.

    Returns:
        A row a score: source, d_sae, eval, metric, params, passed, truth, best, best_method, untrained,
        untrained_method, chance, seeds, reasons, not_tested, facts (known ones, and whether they came out), smallest
        (effect of interest), smallest_from.

    Examples:
        >>> int(ub.gate("runs/x/*").set_index("metric").seeds["fvu"])
        3
    """
    return pd.DataFrame(judged.gate_rows(read_scores(folders_of(runs))), columns=list(judged.GATED_COLUMNS))


def verdicts(runs: Runs, *, card: str | Path | None = None) -> pd.DataFrame:
    """Answer each claim that the methods are evidence for, as the report does, by a registered claim card if given.

    Args:
        runs: run folders, as in `evaluate`.
        card: the claim card, registered before the runs, to judge by; None: the verdicts are exploratory.

    Returns:
        A row a claim, width and source: claim, d_sae, source, tone (yes, mixed, no, undecided, unknown), headline,
        status (registered or exploratory).

    Examples:
        >>> list(ub.verdicts("runs/x/*").tone)
        ['unknown']
    """
    stored = read_scores(folders_of(runs))
    rules = None if card is None else rules_of(as_path("card", card), stored)
    return pd.DataFrame(judged.verdict_rows(stored, rules), columns=list(judged.VERDICT_COLUMNS))


def write_report(runs: Runs, out: str | Path = "report.html", *, card: str | Path | None = None) -> Path:
    """Write the HTML report on runs, judged by a registered claim card if one is named, and return where it is."""
    from unbraid.report import page

    path = as_path("out", out)
    judged_by = None if card is None else as_path("card", card)
    page.write_report(folders_of(runs), path, card=judged_by, notice=lambda text: warnings.warn(text, stacklevel=2))
    return path


def chosen_evals(names: str | Sequence[str] | None, packages: tuple[str, ...] = OWN_PACKAGES) -> list[evaluation.Eval]:
    """Return evals by name; for None, those run by default. Raises ValueError for one that there is not, with the
    nearest."""
    if names is None:
        return list(catalog.default_evals(packages).values())
    known = catalog.evals(packages)
    return [catalog.pick(name, known, "eval") for name in as_list(names)]


def expanded(item: Any) -> list[Experiment]:
    """Return the experiments that an experiment or a study represents."""
    if isinstance(item, Experiment):
        return [item]
    if isinstance(item, Study | Factorial):
        return item.experiments()
    raise ValueError(f"an experiment is {shown(item)}; expected an unbraid.Experiment, Study or Factorial")


def packages_named(experiment: Experiment) -> tuple[str, ...]:
    """Return the packages whose classes an experiment is made of: they are imported already."""
    return (*OWN_PACKAGES, *packages_of(to_json(experiment)))


def as_list(items: Any) -> list[Any]:
    """Return several things as a list, and one thing alone in one."""
    return list(items) if isinstance(items, Iterable) and not isinstance(items, str) else [items]


def as_path(name: str, value: Any) -> Path:
    """Return a path. Raises ValueError for what is none."""
    if isinstance(value, str | Path) and str(value):
        return Path(value).expanduser()
    raise ValueError(f"{name} is {shown(value)}; expected a path, as text or pathlib.Path")


def error_of(run: Run, name: str) -> str:
    """Return why an eval of a run failed; empty when it did not."""
    return read_result(result_path(run.path, name)).get("error", "")


def warn_of(errors: dict[str, str]) -> None:
    """Warn of evals that failed."""
    if failed := [f"{what}: {error}" for what, error in errors.items() if error]:
        warnings.warn(f"{len(failed)} evals failed, and the others are there: {'; '.join(failed)}", stacklevel=3)
