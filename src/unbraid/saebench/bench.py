"""SAEBench over runs: run in a separate process, stored as results/saebench_<eval>.json, a failure as an error.

A process scores all runs of one model and layer, which share its activations and probes. When it dies or hangs, the
run that it was scoring gets the error, and a new process goes on with the rest. SAEBench's own JSON, and after a
failure its log, are kept in <run>/saebench/.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unbraid.config.settings import Device, PositiveFloat, PositiveInt, Seed, Settings, SomeText
from unbraid.evals import fidelity
from unbraid.evals.shared.evaluation import NotApplicable, Score, rows_of
from unbraid.evals.shared.observe import ROWS, held_out_codes
from unbraid.runs import results
from unbraid.runs.results import own_folder, read_result, result_path
from unbraid.runs.run import Run
from unbraid.saebench import datasets, targets
from unbraid.saebench.environment import SAE_BENCH, Environment
from unbraid.saebench.eval_specs import ON_LANGUAGE, EvalSpec
from unbraid.saebench.metric_names import definitions
from unbraid.saebench.process import Stopped, events
from unbraid.saebench.targets import Target
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
"""Evals that read two labels of each text. The others read the class only; for them the second label serves to balance
the classes."""
LOG_BYTES = 200_000
"""Bytes of a failed process's log that are kept, from its end."""

ResultCallback = Callable[[Run, str, str], None]
"""Called with each run, each eval's name, and its status: kept, how long it took, or why it failed."""


@dataclass(frozen=True, kw_only=True)
class Bench(Settings):
    """The settings with which SAEBench is run."""

    environment: Environment
    work: Path
    """Folder for activations and probes while an eval runs."""
    driver: Path = DRIVER
    device: Device = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    threads: PositiveInt = 1
    seed: Seed = 42
    limit: PositiveFloat = 3600.0
    """Seconds that one run, or the loading before the first, may take."""
    size: Literal["auto", "least", "small", "published"] = "auto"
    """least, small, published, or auto: small for a model in a folder."""
    share: bool = True
    """Whether runs share what does not depend on them; without, the scores are the same and take longer."""
    text: str = ""
    """Documents to read; empty: the run's held-out text, or SAEBench's own for a model on the hub."""
    labelled: tuple[SomeText, ...] = ()
    """Labelled texts, each as FILE:CLASS:ATTRIBUTE, or FILE:CLASS for evals that need classes only."""
    ravel: str = ""
    """Folder with RAVEL's JSON files; empty: from the hub."""
    environ: Mapping[str, str] = field(default_factory=dict)

    def small(self, target: Target) -> bool:
        """True if the target is scored with the small configuration, or with less."""
        return self.size in ("least", "small") or (self.size == "auto" and target.local)

    def settings(self, eval_spec: EvalSpec, target: Target) -> dict[str, Any]:
        """SAEBench's configuration of an eval for a target."""
        own = ON_LANGUAGE.get(eval_spec.name, {}) if is_language(self.text or target.text) else {}
        least = eval_spec.least if self.size == "least" else {}
        return {**(eval_spec.small if self.small(target) else eval_spec.published), **own, **least}

    def labelled_of(self, target: Target) -> tuple[str, ...]:
        """Labelled sets for a target: the user's, those of the synthetic language, or none, which is the hub's."""
        return self.labelled or ((target.text,) if target.text.startswith("language://") else ())

    def labelled_for(self, eval_spec: EvalSpec, target: Target) -> tuple[str, ...]:
        """Those labelled sets that an eval can read."""
        found = self.labelled_of(target)
        return tuple(spec for spec in found if datasets.crossed(spec)) if eval_spec.name in CROSSED else found

    def check(self) -> None:
        """Raise ValueError for files that are named and cannot be used: before anything starts."""
        for spec in self.labelled:
            datasets.labelled(spec)
        if self.text:
            datasets.plain(self.text, "text", 0.0)
        if self.ravel:
            datasets.entities(self.ravel)

    def request_key(self, eval_spec: EvalSpec, target: Target) -> dict[str, Any]:
        """Everything that a result depends on besides the run; when it changes, the run is scored again."""
        needs = {"text": self.text or (target.text if target.local else ""), "ravel": self.ravel}
        return {
            "settings": self.settings(eval_spec, target), "seed": self.seed, "dtype": self.dtype,
            **{name: value for name, value in needs.items() if name in eval_spec.reads},
            **({"labelled": list(self.labelled_for(eval_spec, target))} if "labelled" in eval_spec.reads else {}),
            **({"judge": self.environ.get("OPENAI_BASE_URL", "OpenAI")} if "key" in eval_spec.reads else {}),
        }  # fmt: skip


def reason_not_applicable(eval_spec: EvalSpec, target: Target, bench: Bench) -> str:
    """The reason why an eval cannot score a target; empty when it can. Known before anything starts."""
    if "key" in eval_spec.reads and not bench.environ.get("OPENAI_API_KEY"):
        return "it needs a judge: set OPENAI_API_KEY (and OPENAI_BASE_URL for a service of your own)"
    if "labelled" in eval_spec.reads and target.local and not bench.labelled_of(target):
        return "it reads labelled texts; name some with --labelled FILE:CLASS:ATTRIBUTE"
    if eval_spec.name in CROSSED and bench.labelled_of(target) and not bench.labelled_for(eval_spec, target):
        return "it crosses two labels of a text; name a file with two columns of them: --labelled FILE:CLASS:ATTRIBUTE"
    if "ravel" in eval_spec.reads and target.local and not bench.ravel:
        return "it reads RAVEL's entities; name the folder of its JSON files with --ravel"
    if eval_spec.name in ("absorption", "ravel") and not target.hook.endswith("hook_resid_post"):
        return f"it reads hook_resid_post only; these runs are on {target.hook}"
    return ""


def evaluate(
    runs: Sequence[Run],
    eval_specs: Sequence[EvalSpec],
    bench: Bench,
    *,
    force: bool = False,
    on_result: ResultCallback | None = None,
) -> int:
    """Score every run by every eval; return how many failed. Finished results of the same request are kept."""
    groups, without = targets.group_by_target(runs)
    on_result, failures = on_result or (lambda run, name, status: None), 0
    for run in runs:
        for eval_spec in eval_specs:
            if (reason := without.get(run.path)) is not None:
                failures += write_result(run, eval_spec, {}, reason, on_result)
    for target, members in groups.items():
        for eval_spec in eval_specs:
            failures += score_group(eval_spec, target, members, bench, force=force, on_result=on_result)
    return failures


def score_group(
    eval_spec: EvalSpec, target: Target, runs: Sequence[Run], bench: Bench, *, force: bool, on_result: ResultCallback
) -> int:
    """Score all runs of a target by one eval; return how many failed."""
    request, failures, todo = bench.request_key(eval_spec, target), 0, []
    reason = reason_not_applicable(eval_spec, target, bench)
    for run in runs:
        if not force and up_to_date(run, eval_spec, request):
            on_result(run, eval_spec.name, "kept")
        elif reason:
            # Stored without the request, so that the run is scored as soon as that is possible.
            failures += write_result(run, eval_spec, {}, NotApplicable(reason), on_result)
        else:
            try:
                targets.check(run)
            except Exception as error:
                failures += write_result(run, eval_spec, request, error, on_result)
            else:
                todo.append(run)
    while todo:
        done, failed = run_process(eval_spec, target, todo, bench, request, on_result)
        failures += failed
        todo = [run for run in todo if run.path not in done]
    return failures


def run_process(
    eval_spec: EvalSpec,
    target: Target,
    runs: Sequence[Run],
    bench: Bench,
    request: Mapping[str, Any],
    on_result: ResultCallback,
) -> tuple[set[Path], int]:
    """Run one process; return the runs that now have a result (at least one), and how many of them failed."""
    by_name, settled, failures, at = {run.path.name: run for run in runs}, set[Path](), 0, ""
    with temporary_folder(bench.work.absolute(), eval_spec.name) as folder:
        log = folder / "log.txt"
        try:
            request_file = write_request(folder, eval_spec, target, runs, bench)
        except Exception as error:
            return {run.path for run in runs}, sum(
                write_result(run, eval_spec, request, error, on_result) for run in runs
            )
        command = [str(bench.environment.python), str(bench.driver), str(request_file)]
        variables = {
            **bench.environ,
            **ALWAYS,
            **(OFFLINE if target.local else {}),
            "OMP_NUM_THREADS": str(bench.threads),
        }
        try:
            for event in events(command, folder=folder, environment=variables, log=log, limit=bench.limit):
                if event["is"] == "begin":
                    at = event["run"]
                elif event["is"] in ("done", "refused", "failed"):
                    run = by_name[event["run"]]
                    found = outcome(event, run, eval_spec, folder)
                    failures += write_result(run, eval_spec, request, found, on_result, log=log, took=event)
                    settled.add(run.path)
                    at = ""
            reason = "SAEBench ended without a result for this run"
        except Stopped as error:
            reason = f"SAEBench {error}"
        except OSError as error:
            reason = f"SAEBench could not be run ({error}); name its environment's python with --python, or free space"
        missed = [run for run in runs if run.path not in settled]
        # If the process died while scoring a run, blame that run; if it died before the first run, all runs fail.
        blamed = [by_name[at]] if at else missed if not settled else missed[:1]
        for run in blamed:
            failures += write_result(run, eval_spec, request, RuntimeError(reason), on_result, log=log)
            settled.add(run.path)
    return settled, failures


def write_request(folder: Path, eval_spec: EvalSpec, target: Target, runs: Sequence[Run], bench: Bench) -> Path:
    """Write everything that the process reads into its folder; return the path of the request."""
    text, labelled = "", []
    if "text" in eval_spec.reads and (bench.text or target.local):
        found = datasets.plain(bench.text or target.text, target.column, 0.0 if bench.text else target.eval_share)
        datasets.write_rows(folder / "text" / "train.jsonl", ({"text": document} for document in found))
        text = "text"
    if "labelled" in eval_spec.reads:
        for spec in bench.labelled_for(eval_spec, target):
            found = datasets.labelled(spec)
            found.write(folder)
            labelled.append(found.request())
    entities = datasets.entities(bench.ravel) if "ravel" in eval_spec.reads and bench.ravel else None
    if target.folder is not None:
        (folder / "model").symlink_to(target.folder, target_is_directory=True)
    if eval_spec.name == "core" and not text:
        text = "Skylion007/openwebtext"  # SAEBench's default
    (folder / "out").mkdir()
    write_json(
        folder / "request.json",
        {
            "eval": eval_spec.name,
            "runs": [{"name": run.path.name, "folder": str(run.path.resolve())} for run in runs],
            "model": target.name, "model_folder": str(folder / "model") if target.local else None,
            "layer": target.layer, "device": bench.device, "dtype": bench.dtype, "batch": eval_spec.batch,
            "seed": bench.seed, "threads": bench.threads, "text": text or None, "labelled": labelled,
            "ravel": entities, "settings": bench.settings(eval_spec, target), "out": str(folder / "out"),
            "share": bench.share,
        },
    )  # fmt: skip
    return folder / "request.json"


def outcome(event: Mapping[str, Any], run: Run, eval_spec: EvalSpec, folder: Path) -> list[Score] | Exception:
    """The scores of a finished run, or the error that explains why there are none."""
    if event["is"] == "refused":
        return NotApplicable(event["why"])
    if event["is"] == "failed":
        return RuntimeError(event["why"])
    try:
        for end in (".json", ".about.json"):
            raw = (folder / "out" / f"{run.path.name}{end}").read_text(encoding="utf-8")
            write_text(own_folder(run.path, "saebench") / f"{eval_spec.name}{end}", raw)
        result, about = (
            read_json(run.path / "saebench" / f"{eval_spec.name}{end}") for end in (".json", ".about.json")
        )
        shape = (lambda d: (d.d_in, d.d_sae))(run.dictionary())
        scores = translate(eval_spec.name, result, about, run=run.path.name, shape=shape)
        return [*scores, *(own_explained_variance(run) if eval_spec.name == "core" else [])]
    except Exception as error:  # its JSON may be of any shape; whatever that does is this run's failure
        return error


def own_explained_variance(run: Run) -> list[Score]:
    """Unbraid's explained variance, to show next to SAEBench's: as fidelity stored it, or measured now."""
    stored = attempt(run.path.name, lambda: read_result(result_path(run.path, "fidelity")))
    stored = {} if isinstance(stored, Failure) or stored.get("weights", "") != run.facts.weights else stored
    values = {score["metric"]: score["value"] for score in stored.get("scores", [])}
    if stored.get("version") == fidelity.VERSION and values.get("explained_variance") is not None:
        return [Score(metric="explained_variance", value=values["explained_variance"], better="higher")]
    x = held_out(run.source, ROWS).x
    found = fidelity.reconstruction(run.dictionary(), x, held_out_codes(run.dictionary(), run.source))
    return [score for score in found if score.metric == "explained_variance"]


def write_result(
    run: Run,
    eval_spec: EvalSpec,
    request: Mapping[str, Any],
    found: list[Score] | Exception,
    on_result: ResultCallback,
    *,
    log: Path | None = None,
    took: Mapping[str, Any] | None = None,
) -> int:
    """Write a result, or why there is none; return 1 when it failed, else 0."""
    stored = attempt(run.path.name, lambda: store_result(run, eval_spec, request, found, log, took or {}))
    status, failed = (stored.typed, True) if isinstance(stored, Failure) else stored
    on_result(run, eval_spec.name, status)
    return int(failed)


def store_result(
    run: Run,
    eval_spec: EvalSpec,
    request: Mapping[str, Any],
    found: list[Score] | Exception,
    log: Path | None,
    took: Mapping[str, Any],
) -> tuple[str, bool]:
    """Write one result file; return its status, and True when the run failed."""
    result: dict[str, Any] = {
        "eval": f"saebench_{eval_spec.name}", "version": version(), "definitions": definitions(eval_spec.name),
        "asked": dict(request),
    }  # fmt: skip
    if run.facts.weights:
        result["weights"] = run.facts.weights
    kept = own_folder(run.path, "saebench") / f"{eval_spec.name}.log"
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
            status += f"\nlog: saebench/{eval_spec.name}.log in the run folder"
        result |= {"error": status, "traceback": list(failure.trace)}
    results.write_result(run.path, f"saebench_{eval_spec.name}", result)
    return status, "error" in result


def version() -> str:
    """The version that results are stored with: of the translation and of SAEBench."""
    return f"{VERSION}, sae-bench {SAE_BENCH}"


def up_to_date(run: Run, eval_spec: EvalSpec, request: Mapping[str, Any]) -> bool:
    """True if the stored result is of the same request and the same weights; a damaged result never is."""
    result = attempt(run.path.name, lambda: read_result(result_path(run.path, f"saebench_{eval_spec.name}")))
    if isinstance(result, Failure) or "error" in result or result.get("weights", "") != run.facts.weights:
        return False
    return result.get("version") == version() and result.get("asked") == json.loads(json.dumps(request))


def own_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment variables, without those that lead the benchmark to this interpreter's packages."""
    return {k: v for k, v in environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
