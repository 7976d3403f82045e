"""The flags of every command, as typed dataclasses that tyro reads.

The text below a field is its help. Of commands that take an experiment, the experiment's own fields are flags too.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le
from tyro.conf import Positional, UseAppendAction, arg, create_mutex_group

from unbraid.config.settings import Device, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Seed
from unbraid.system.user_cache import cache_folder

Threads = Annotated[int, Ge(0), Le(8 * (os.cpu_count() or 1))]
"""More only take turns, and with far too many torch does not start."""
Workers = Annotated[int, Ge(1), Le(10_000)]
ONE_OF = create_mutex_group(required=False)
"""Flags of which at most one is given."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of every command."""

    package: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="PACKAGE")] = ()
    """Also look for names in this Python package of yours; may be repeated."""


@dataclass(frozen=True, kw_only=True)
class Trusting(Options):
    """The flags of commands that load models."""

    trust_remote_code: bool = False
    """Run Python code that comes with a model; such models are refused else."""


@dataclass(frozen=True, kw_only=True)
class OfExperiment(Trusting):
    """The flags of commands that take an experiment or a study."""

    out: Annotated[Path, arg(metavar="FOLDER")] = Path("runs")
    """Folder in which each run gets a folder."""
    threads: Annotated[Threads, arg(metavar="N")] = 0
    """CPU threads of each process; 0 shares all cores out. 1 is fastest below about 1,000 latents."""
    only: Annotated[tuple[str, ...], arg(metavar="MEMBER")] = ("*",)
    """Use only these members of a study, by name or pattern, e.g. --only 'topk-*' 'relu-*'."""
    add: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="TERM")] = ()
    """Add a term to the objective of the experiment, or of every trained member of a study, e.g. --add orthogonality;
    may be repeated."""
    activation: Annotated[str, arg(name="dictionary.activation", metavar="NAME")] = ""
    """Replace the activation of a single experiment, e.g. JumpReLU; its fields then become flags."""


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """The flags of work that several processes share."""

    workers: Annotated[Workers, arg(metavar="N")] = 1
    """Processes that train or score, side by side. Those that train share the members out, with equal results; each
    reads the source, and needs the memory of one model."""
    ray: Annotated[str, arg(metavar="ADDRESS")] = ""
    """Have them on the machines of this Ray cluster, which share a file system: HOST:PORT, or auto on one of them."""


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The flags of checkpoints."""

    checkpoint_seconds: Annotated[NonNegativeFloat, arg(metavar="SECONDS")] = 120.0
    """Time between checkpoints; a kill loses at most that."""


@dataclass(frozen=True, kw_only=True)
class Trains(Checkpoints):
    """The flags of commands that train, and score nothing."""

    shard_latents: bool = False
    """Under torchrun: give each process some of the latents and every row, not all latents and some of the rows. For
    widths that one does not hold."""

    resume: Annotated[bool, ONE_OF] = False
    """Continue unfinished runs from their last checkpoint."""
    overwrite: Annotated[bool, ONE_OF] = False
    """Start unfinished runs anew. Finished runs are never trained again."""


@dataclass(frozen=True, kw_only=True)
class SaeBench:
    """The flags that say how SAEBench is run."""

    title = "SAEBench"

    plan: bool = False
    """Print how long it will take and which evals cannot be run, and stop."""
    cache: Annotated[Path, arg(metavar="FOLDER")] = field(default_factory=cache_folder)
    """Folder of SAEBench's environment, made on first use. The variable UNBRAID_CACHE sets it too."""
    python: Annotated[Path | None, arg(metavar="FILE")] = None
    """Python interpreter of an environment of yours that has sae-bench."""
    size: Literal["auto", "least", "small", "published"] = "auto"
    """Size of SAEBench's data sets. auto: small for a model in a folder, as published for one on the hub. least: for
    large models on a CPU."""
    text: Annotated[str, arg(metavar="TEXT")] = ""
    """Documents for its evals core and autointerp, e.g. corpus.jsonl (default: the run's held-out text)."""
    labelled: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="FILE:CLASS:ATTRIBUTE")] = ()
    """Texts with two columns of labels, for its evals sparse_probing, scr and tpp; .jsonl, .csv, .parquet …; may be
    repeated."""
    ravel: Annotated[str, arg(metavar="FOLDER")] = ""
    """Folder with RAVEL's JSON files, for its eval ravel."""
    limit_minutes: Annotated[PositiveFloat, arg(metavar="MINUTES")] = 60.0
    """Time after which one eval of one run is given up."""
    device: Annotated[Device, arg(metavar="DEVICE")] = "cpu"
    """Where SAEBench runs: cpu, cuda or mps."""


@dataclass(frozen=True, kw_only=True)
class DemoFlags(Options):
    """The flags of `unbraid demo`."""

    out: Annotated[Path, arg(metavar="FOLDER")] = Path("runs/demo")
    """Folder of the runs and of report.html."""
    seeds: Annotated[tuple[int, ...], arg(metavar="SEED")] = ()
    """Use only these of the three seeds, e.g. --seeds 0 for a first look; a report needs several to judge by."""


@dataclass(frozen=True, kw_only=True)
class PlanFlags(Parallel, OfExperiment):
    """The flags of `unbraid plan`."""


@dataclass(frozen=True, kw_only=True)
class TrainFlags(Parallel, Trains, OfExperiment):
    """The flags of `unbraid train`."""


@dataclass(frozen=True, kw_only=True)
class SweepFlags(Parallel, Trains, OfExperiment):
    """The flags of `unbraid sweep`."""

    cross: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="FIELD=V1,V2")] = ()
    """Train an experiment once for every value of a field, e.g. --cross seed=0,1,2; repeated, for every combination."""


@dataclass(frozen=True, kw_only=True)
class StudyFlags(Parallel, Checkpoints, OfExperiment, SaeBench):
    """The flags of `unbraid study`."""

    plan: bool = False
    """Print what training and SAEBench will take, and stop."""
    calibrate: bool = False
    """Train and score a factorial study's calibration instead of its test."""
    card: Annotated[Path | None, arg(metavar="CARD")] = None
    """Train and judge what this claim card registered of a factorial study (`unbraid study register`)."""
    overwrite: bool = False
    """Start unfinished runs anew; they are continued otherwise. Finished runs are never trained again."""
    threads: Annotated[Threads, arg(metavar="N")] = 1
    """CPU threads of each process; 0 shares all cores out."""
    workers: Annotated[Workers, arg(metavar="N")] = 2
    """Processes that train, then score, side by side. Those that train share the members out, with equal results; each
    reads the source, and needs the memory of one model."""
    evals: Annotated[tuple[str, ...], arg(metavar="EVAL")] = ()
    """Score by these evals of ours (default: all that apply and store no tables)."""
    verbose: bool = False
    """Also print why an eval does not apply to a run."""
    saebench: Annotated[tuple[str, ...] | None, arg(metavar="[EVAL ...]")] = None
    """Score by these evals of SAEBench (default: all that need no key); without a name: leave SAEBench out."""

    @property
    def resume(self) -> bool:
        """A study goes on where it stopped, unless it is to start anew."""
        return not self.overwrite


@dataclass(frozen=True, kw_only=True)
class EvalFlags(Parallel, Trusting, SaeBench):
    """The flags of `unbraid eval`."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN")]
    """Run folders, e.g. runs/*; what is none is passed over."""
    evals: Annotated[tuple[str, ...], arg(metavar="EVAL")] = ()
    """Score by these evals (default: all that apply and store no tables)."""
    suite: Literal["own", "saebench"] = "own"
    """Whose evals: our own, or SAEBench's."""
    force: bool = False
    """Score again what is already scored."""
    verbose: bool = False
    """Also print why an eval does not apply to a run."""
    threads: Annotated[Threads, arg(metavar="N")] = 0
    """CPU threads of each process; 0 shares all cores out (of SAEBench: 1)."""


@dataclass(frozen=True, kw_only=True)
class RegisterFlags(Options):
    """The flags of `unbraid study register`."""

    card: Annotated[Positional[Path], arg(metavar="CARD")]
    """The claim card, a TOML file (docs/judging.md)."""
    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN")]
    """The runs of `unbraid study NAME --calibrate`, e.g. runs/calibration/*."""


@dataclass(frozen=True, kw_only=True)
class PowerFlags(Options):
    """The flags of `unbraid power`."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN")]
    """Scored runs of calibration seeds, e.g. runs/calibration/*."""
    scores: Annotated[tuple[str, ...], arg(metavar="SCORE")] = ()
    """Scores, as eval.metric (default: all headline scores), e.g. --scores recovery.f1."""
    effect: Annotated[PositiveFloat | None, arg(metavar="SIZE")] = None
    """The difference to find (default: the smallest effect of interest of each score)."""
    comparisons: Annotated[PositiveInt, arg(metavar="N")] = 1
    """Comparisons to correct for by Holm's method: terms x primaries."""


@dataclass(frozen=True, kw_only=True)
class PublishedFlags(Options):
    """The flags of `unbraid check published`."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN")]
    """Scored runs, e.g. runs/*; what is none is passed over."""
    architecture: Annotated[str, arg(metavar="NAME")] = ""
    """Published architecture to compare with, e.g. batchtopk (default: the run's own, where it says it; an imported SAE
    may know only what is left at inference)."""


@dataclass(frozen=True, kw_only=True)
class ReportFlags(Options):
    """The flags of `unbraid report`."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN")]
    """Run folders, e.g. runs/* (what is none is passed over), or one file of committed rows."""
    out: Annotated[Path, arg(metavar="FILE")] = Path("report.html")
    """The HTML file to write."""
    scores: Annotated[Path | None, arg(metavar="FILE")] = None
    """Also write the rows behind every number to this JSON file."""
    card: Annotated[Path | None, arg(metavar="CARD")] = None
    """Judge by this claim card, which was registered before the runs."""


@dataclass(frozen=True, kw_only=True)
class BrowseFlags(Trusting):
    """The flags of `unbraid browse`."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN")]
    """One run folder, or two of one source; each scored before by `unbraid eval RUN --evals examples`."""
    out: Annotated[Path, arg(metavar="FOLDER")]
    """The new folder; an existing one is never overwritten."""


@dataclass(frozen=True, kw_only=True)
class SteerFlags(Trusting):
    """The flags of `unbraid steer`."""

    run_folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """Run folder of a dictionary on a language model."""
    prompt: Annotated[str, arg(metavar="TEXT")]
    """Text that the model continues."""
    latents: Annotated[tuple[NonNegativeInt, ...], arg(metavar="N", aliases=("--latent",))] = ()
    """Latents to push along, one, or several together; in runs of MELBO and DCT they are sorted by strength, 0 =
    strongest."""
    find: Annotated[str, arg(metavar="WORDS")] = ""
    """Find the latents that make the model say these words, show how they rank by that and by how far they fire on
    them, and push along the best."""
    best: Annotated[PositiveInt, arg(metavar="N")] = 1
    """With --find: how many of the best to push along together."""
    candidates: Annotated[PositiveInt, arg(metavar="N")] = 32
    """With --find: how many latents are tried, half of them those that fire most."""
    kl: Annotated[PositiveFloat | None, arg(metavar="NATS")] = None
    """Push as far as changes what the model expects by this much: mean next-token KL along its own continuation, e.g.
    0.5. With --find it is 0.5 if nothing is said; without, --scale alone sets the length."""
    scale: Annotated[tuple[float, ...], arg(metavar="X")] = (1.0,)
    """How far to push, in units of --unit, one number for all latents or one each; below 0 pushes the opposite way.
    With --kl: how much of the push is along which latent."""
    unit: Literal["auto", "own", "radius"] = "auto"
    """own: the latent's 95th percentile; radius: the push at which downstream layers stop being linear; auto: radius
    for runs of MELBO and DCT, else own."""
    tokens: Annotated[PositiveInt, arg(metavar="N")] = 30
    """Tokens to write."""
    top: Annotated[PositiveInt, arg(metavar="N")] = 8
    """Next tokens to show, those whose probability changes most."""
    chat: bool = False
    """Put the prompt into the chat template of the model, as the user's turn."""
    side: bool = True
    """Measure what the push does to held-out text in which the latents do not fire."""


@dataclass(frozen=True, kw_only=True)
class ExportFlags(Options):
    """The flags of `unbraid export`."""

    run_folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """The run folder to copy from."""
    out: Annotated[Path, arg(metavar="FOLDER")]
    """The new folder; an existing one is never overwritten."""
    to: Literal["saelens", "dictionary_learning", "sparsify", "hub", "neuronpedia", "steered"] = "saelens"
    """Library that will read it; hub: SAELens's format with a model card and an index entry, ready to upload;
    neuronpedia: the examples (`unbraid eval RUN --evals examples`) as Neuronpedia imports them; steered: a push along
    --latents for `lm_eval --model steered`."""
    latents: Annotated[tuple[NonNegativeInt, ...], arg(metavar="N")] = ()
    """With --to steered: the latents to push along, together."""
    scale: Annotated[tuple[float, ...], arg(metavar="X")] = (1.0,)
    """With --to steered: how far, as `unbraid steer --scale`."""
    kl: Annotated[PositiveFloat | None, arg(metavar="NATS")] = None
    """With --to steered: how far by next-token KL, on the run's text."""
    repo: Annotated[str, arg(metavar="OWNER/NAME")] = ""
    """With --to hub or neuronpedia: the repository of the weights."""
    model: Annotated[str, arg(metavar="OWNER/NAME")] = ""
    """With --to hub or neuronpedia: what the model is called there, when the run read it from a folder of this
    machine."""


@dataclass(frozen=True, kw_only=True)
class CopyFlags(Options):
    """The flags of `unbraid copy`."""

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN")]
    """Run folders, or the URL of a run or of a folder of runs, e.g. s3://bucket/runs."""
    to: Annotated[str, arg(metavar="PLACE")]
    """Where to: a URL of a folder in a store (s3://…, gs://…, anything that fsspec knows), or a folder here."""
    force: bool = False
    """Replace scores that are there already."""


@dataclass(frozen=True, kw_only=True)
class CacheFlags(OfExperiment):
    """The flags of `unbraid cache`."""

    to: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Folder of the cache (required); an unfinished one is continued."""
    layers: Annotated[tuple[str, ...], arg(metavar="LAYER")] = ()
    """Several layers of a language model in one pass, each into a folder of its own, layer_N: by number, or as shares
    of the depth such as 1/3 and 1/2. Without it, the one that --source.layer names."""
    stored: Literal["float32", "bfloat16"] = "float32"
    """Precision of the activations on disk: bfloat16 takes half the space. --source.dtype is that of the model."""


@dataclass(frozen=True, kw_only=True)
class ImportFlags(OfExperiment):
    """The flags of `unbraid import`."""

    called: Annotated[str, arg(name="as", metavar="NAME")] = ""
    """Name of its method in reports (default: imported-FOLDER)."""
    l0: Annotated[PositiveFloat | None, arg(metavar="L0")] = None
    """The number of active latents it was trained for, where its activation has no k."""
    seed: Annotated[Seed, arg(metavar="N")] = 0
    """Number that tells SAEs of one method apart which were trained alike; give them one name."""
    role: Literal["baseline", "method"] = "baseline"
    """Role in reports. baseline: it was trained for sparsity alone; method: it is compared with the baselines."""


@dataclass(frozen=True, kw_only=True)
class ListFlags(Options):
    """The flags of `unbraid list`."""
