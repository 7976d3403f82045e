"""SAEBench over runs: asked in a process of its own, answered as results/saebench_<eval>.json, a failure as an error.

A process scores all runs of one model and layer, which share its activations and probes. When it dies or hangs, the
run it was at gets the error and a new process goes on with the rest. SAEBench's own JSON, and after a failure its log,
are kept in <run>/saebench/.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unbraid.config.settings import Device, PositiveFloat, PositiveInt, Seed, Settings, SomeText
from unbraid.evals import fidelity
from unbraid.evals.shared.evaluation import NotApplicable, Score, rows_of
from unbraid.runs.results import own_folder, read_result, result_path, write_result
from unbraid.runs.run import Run
from unbraid.saebench import materials, subjects
from unbraid.saebench.environment import SAE_BENCH, Environment
from unbraid.saebench.meanings import definitions
from unbraid.saebench.offers import ON_LANGUAGE, Offer
from unbraid.saebench.process import Stopped, facts
from unbraid.saebench.subjects import Subject
from unbraid.saebench.translation import VERSION, translate
from unbraid.sources.stream import held_out
from unbraid.sources.text.documents import is_language
from unbraid.system.each import Failure, attempt, failure_of
from unbraid.system.files import read_json, temporary_folder, write_json, write_text

DRIVER = Path(__file__).parent / "driver" / "drive.py"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
ALWAYS = {
    "WANDB_MODE": "disabled", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1",
    # A shape annotation of SAEBench's probes contradicts itself, which beartype notices since it looks into dicts.
    "JAXTYPING_DISABLE": "1",
}  # fmt: skip
CROSSED = ("scr",)
"""Evals that read two labels of a text; the others read its class alone, and need no more of the second than that the
classes are balanced over it."""
LOG_BYTES = 200_000
"""The end of a log that is kept."""

Watch = Callable[[Run, str, str], None]
"""Told of every run and eval how it went."""


@dataclass(frozen=True, kw_only=True)
class Bench(Settings):
    """How SAEBench is asked."""

    environment: Environment
    work: Path
    """Folder for activations and probes while an eval runs."""
    driver: Path = DRIVER
    device: Device = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    threads: PositiveInt = 1
    seed: Seed = 42
    limit: PositiveFloat = 3600.0
    """Seconds that a run, or the loading before the first, may take."""
    size: Literal["auto", "small", "published"] = "auto"
    """small, published, or auto: small for a model in a folder."""
    text: str = ""
    """Documents to read; empty: the run's held-out text, or SAEBench's own for a model on the hub."""
    labelled: tuple[SomeText, ...] = ()
    """FILE:CLASS:ATTRIBUTE each, or FILE:CLASS for evals that ask for classes alone."""
    ravel: str = ""
    """Folder of RAVEL's own JSON files; empty: from the hub."""
    environ: Mapping[str, str] = field(default_factory=dict)

    def small(self, subject: Subject) -> bool:
        return self.size == "small" or (self.size == "auto" and subject.local)

    def settings(self, offer: Offer, subject: Subject) -> dict[str, Any]:
        own = ON_LANGUAGE.get(offer.name, {}) if is_language(self.text or subject.text) else {}
        return {**(offer.small if self.small(subject) else offer.published), **own}

    def labelled_of(self, subject: Subject) -> tuple[str, ...]:
        """Labelled sets for a subject: the user's, those of the synthetic language, or none, which is the hub's."""
        return self.labelled or ((subject.text,) if subject.text.startswith("language://") else ())

    def labelled_for(self, offer: Offer, subject: Subject) -> tuple[str, ...]:
        """Of these, the sets that an eval can read."""
        found = self.labelled_of(subject)
        return tuple(spec for spec in found if materials.crossed(spec)) if offer.name in CROSSED else found

    def check(self) -> None:
        """Raise ValueError for files that are named and cannot be used: before anything starts."""
        for spec in self.labelled:
            materials.labelled(spec)
        if self.text:
            materials.plain(self.text, "text", 0.0)
        if self.ravel:
            materials.entities(self.ravel)

    def asked(self, offer: Offer, subject: Subject) -> dict[str, Any]:
        """What a result depends on besides the run: asked differently, it is scored again."""
        needs = {"text": self.text or (subject.text if subject.local else ""), "ravel": self.ravel}
        return {
            "settings": self.settings(offer, subject), "seed": self.seed, "dtype": self.dtype,
            **{name: value for name, value in needs.items() if name in offer.reads},
            **({"labelled": list(self.labelled_for(offer, subject))} if "labelled" in offer.reads else {}),
            **({"judge": self.environ.get("OPENAI_BASE_URL", "OpenAI")} if "key" in offer.reads else {}),
        }  # fmt: skip


def why_not(offer: Offer, subject: Subject, bench: Bench) -> str:
    """Why an eval cannot be asked of a subject; empty when it can. Known before anything starts."""
    if "key" in offer.reads and not bench.environ.get("OPENAI_API_KEY"):
        return "it needs a judge: set OPENAI_API_KEY (and OPENAI_BASE_URL for a service of your own)"
    if "labelled" in offer.reads and subject.local and not bench.labelled_of(subject):
        return "it reads labelled texts; name some with --labelled FILE:CLASS:ATTRIBUTE"
    if offer.name in CROSSED and bench.labelled_of(subject) and not bench.labelled_for(offer, subject):
        return "it crosses two labels of a text; name a file with two columns of them: --labelled FILE:CLASS:ATTRIBUTE"
    if "ravel" in offer.reads and subject.local and not bench.ravel:
        return "it reads RAVEL's entities; name the folder of its JSON files with --ravel"
    if offer.name in ("absorption", "ravel") and not subject.hook.endswith("hook_resid_post"):
        return f"it reads hook_resid_post only; these runs are on {subject.hook}"
    return ""


def evaluate(
    runs: Sequence[Run], offers: Sequence[Offer], bench: Bench, *, force: bool = False, watch: Watch | None = None
) -> int:
    """Score every run by every eval; the number that failed. Finished results of the same question are kept."""
    groups, without = subjects.grouped(runs)
    told, failures = watch or (lambda run, name, status: None), 0
    for run in runs:
        for offer in offers:
            if (reason := without.get(run.path)) is not None:
                failures += put(run, offer, {}, reason, told)
    for subject, members in groups.items():
        for offer in offers:
            failures += ask(offer, subject, members, bench, force=force, told=told)
    return failures


def ask(offer: Offer, subject: Subject, runs: Sequence[Run], bench: Bench, *, force: bool, told: Watch) -> int:
    """One eval of all runs of a subject."""
    asked, failures, todo = bench.asked(offer, subject), 0, []
    reason = why_not(offer, subject, bench)
    for run in runs:
        if not force and up_to_date(run, offer, asked):
            told(run, offer.name, "kept")
        elif reason:
            # Put without the question, so that it is asked as soon as it can be.
            failures += put(run, offer, {}, NotApplicable(reason), told)
        else:
            try:
                subjects.check(run)
            except Exception as error:
                failures += put(run, offer, asked, error, told)
            else:
                todo.append(run)
    while todo:
        done, failed = once(offer, subject, todo, bench, asked, told)
        failures += failed
        todo = [run for run in todo if run.path not in done]
    return failures


def once(
    offer: Offer, subject: Subject, runs: Sequence[Run], bench: Bench, asked: Mapping[str, Any], told: Watch
) -> tuple[set[Path], int]:
    """One process: the runs it has settled, and how many of them failed. It settles one at least."""
    by_name, settled, failures, at = {run.path.name: run for run in runs}, set[Path](), 0, ""
    with temporary_folder(bench.work.absolute(), offer.name) as folder:
        log = folder / "log.txt"
        try:
            request = lay_out(folder, offer, subject, runs, bench)
        except Exception as error:
            return {run.path for run in runs}, sum(put(run, offer, asked, error, told) for run in runs)
        command = [str(bench.environment.python), str(bench.driver), str(request)]
        variables = {
            **bench.environ,
            **ALWAYS,
            **(OFFLINE if subject.local else {}),
            "OMP_NUM_THREADS": str(bench.threads),
        }
        try:
            for fact in facts(command, folder=folder, environment=variables, log=log, limit=bench.limit):
                if fact["is"] == "begin":
                    at = fact["run"]
                elif fact["is"] in ("done", "refused", "failed"):
                    run = by_name[fact["run"]]
                    found = outcome(fact, run, offer, folder)
                    failures += put(run, offer, asked, found, told, log=log, took=fact)
                    settled.add(run.path)
                    at = ""
            unsaid = "SAEBench ended without a word on this run"
        except Stopped as error:
            unsaid = f"SAEBench {error}"
        except OSError as error:
            unsaid = f"SAEBench could not be run ({error}); name its environment's python with --python, or free space"
        missed = [run for run in runs if run.path not in settled]
        # What died at a run is that run's failure; what died before any, or after none, is everybody's.
        blamed = [by_name[at]] if at else missed if not settled else missed[:1]
        for run in blamed:
            failures += put(run, offer, asked, RuntimeError(unsaid), told, log=log)
            settled.add(run.path)
    return settled, failures


def lay_out(folder: Path, offer: Offer, subject: Subject, runs: Sequence[Run], bench: Bench) -> Path:
    """Write what the process reads into its folder; the path of the request."""
    text, labelled = "", []
    if "text" in offer.reads and (bench.text or subject.local):
        found = materials.plain(bench.text or subject.text, subject.column, 0.0 if bench.text else subject.eval_share)
        materials.write_rows(folder / "text" / "train.jsonl", ({"text": document} for document in found))
        text = "text"
    if "labelled" in offer.reads:
        for spec in bench.labelled_for(offer, subject):
            found = materials.labelled(spec)
            found.write(folder)
            labelled.append(found.asked())
    entities = materials.entities(bench.ravel) if "ravel" in offer.reads and bench.ravel else None
    if subject.folder is not None:
        (folder / "model").symlink_to(subject.folder, target_is_directory=True)
    if offer.name == "core" and not text:
        text = "Skylion007/openwebtext"  # SAEBench's default
    (folder / "out").mkdir()
    write_json(
        folder / "request.json",
        {
            "eval": offer.name, "runs": [{"name": run.path.name, "folder": str(run.path.resolve())} for run in runs],
            "model": subject.name, "model_folder": str(folder / "model") if subject.local else None,
            "layer": subject.layer, "device": bench.device, "dtype": bench.dtype, "batch": offer.batch,
            "seed": bench.seed, "threads": bench.threads, "text": text or None, "labelled": labelled,
            "ravel": entities, "settings": bench.settings(offer, subject), "out": str(folder / "out"),
        },
    )  # fmt: skip
    return folder / "request.json"


def outcome(fact: Mapping[str, Any], run: Run, offer: Offer, folder: Path) -> list[Score] | Exception:
    """The scores of a run that is done, or why there are none."""
    if fact["is"] == "refused":
        return NotApplicable(fact["why"])
    if fact["is"] == "failed":
        return RuntimeError(fact["why"])
    try:
        for end in (".json", ".about.json"):
            raw = (folder / "out" / f"{run.path.name}{end}").read_text(encoding="utf-8")
            write_text(own_folder(run.path, "saebench") / f"{offer.name}{end}", raw)
        result, about = (read_json(run.path / "saebench" / f"{offer.name}{end}") for end in (".json", ".about.json"))
        shape = (lambda d: (d.d_in, d.d_sae))(run.dictionary())
        scores = translate(offer.name, result, about, run=run.path.name, shape=shape)
        return [*scores, *(ours(run) if offer.name == "core" else [])]
    except Exception as error:  # its JSON may be of any shape; whatever that does is this run's failure
        return error


def ours(run: Run) -> list[Score]:
    """Explained variance as it should be, beside SAEBench's: as fidelity stored it, or measured now."""
    stored = attempt(run.path.name, lambda: read_result(result_path(run.path, "fidelity")))
    stored = {} if isinstance(stored, Failure) or stored.get("weights", "") != run.facts.weights else stored
    values = {score["metric"]: score["value"] for score in stored.get("scores", [])}
    if stored.get("version") == fidelity.VERSION and values.get("explained_variance") is not None:
        return [Score(metric="explained_variance", value=values["explained_variance"], better="higher")]
    found = fidelity.reconstruction(run.dictionary(), held_out(run.source, fidelity.ROWS).x.cpu())
    return [score for score in found if score.metric == "explained_variance"]


def put(
    run: Run,
    offer: Offer,
    asked: Mapping[str, Any],
    found: list[Score] | Exception,
    told: Watch,
    *,
    log: Path | None = None,
    took: Mapping[str, Any] | None = None,
) -> int:
    """Write a result, or why there is none; 1 when it failed."""
    stored = attempt(run.path.name, lambda: _put(run, offer, asked, found, log, took or {}))
    status, failed = (stored.typed, True) if isinstance(stored, Failure) else stored
    told(run, offer.name, status)
    return int(failed)


def _put(
    run: Run,
    offer: Offer,
    asked: Mapping[str, Any],
    found: list[Score] | Exception,
    log: Path | None,
    took: Mapping[str, Any],
) -> tuple[str, bool]:
    result: dict[str, Any] = {
        "eval": f"saebench_{offer.name}", "version": version(), "definitions": definitions(offer.name),
        "asked": dict(asked),
    }  # fmt: skip
    if run.facts.weights:
        result["weights"] = run.facts.weights
    kept = own_folder(run.path, "saebench") / f"{offer.name}.log"
    kept.unlink(missing_ok=True)
    if isinstance(found, list):
        times = {key: took.get(key) for key in ("seconds", "cpu_seconds")}
        result |= {**times, "scores": rows_of(found)}
        status = f"{times['seconds']:.0f} s" if times["seconds"] is not None else "done"
    elif isinstance(found, NotApplicable):
        result["not_applicable"] = status = str(found)
    else:
        failure = failure_of(run.path.name, found)
        status = failure.typed
        if log is not None and log.is_file():
            kept.parent.mkdir(exist_ok=True)
            kept.write_bytes(log.read_bytes()[-LOG_BYTES:])
            status += f"\nlog: saebench/{offer.name}.log in the run folder"
        result |= {"error": status, "traceback": list(failure.trace)}
    write_result(run.path, f"saebench_{offer.name}", result)
    return status, "error" in result


def version() -> str:
    return f"{VERSION}, sae-bench {SAE_BENCH}"


def up_to_date(run: Run, offer: Offer, asked: Mapping[str, Any]) -> bool:
    """Whether the stored result answers the same question about the same weights. A damaged one does not."""
    result = attempt(run.path.name, lambda: read_result(result_path(run.path, f"saebench_{offer.name}")))
    if isinstance(result, Failure) or "error" in result or result.get("weights", "") != run.facts.weights:
        return False
    return result.get("version") == version() and result.get("asked") == json.loads(json.dumps(asked))


def own_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The caller's variables without those that would lead the benchmark to this interpreter's packages."""
    return {k: v for k, v in environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
