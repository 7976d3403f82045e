"""A table of bad inputs: for every subcommand and public function, what to give it and what it must say.

`CASES` is what other scripts import: each case says of itself which `surface` it is of, makes its own input out of a
`Ground`, and holds words that the error must have. `faults_of(case, ground)` runs one and returns what was wrong with
how it was refused: an empty list when the refusal is as promised (a sentence that begins with "error: ", exit code 1 or
2, no traceback, no file written, changed or lost).
"""

import contextlib
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tests import tiny_lm
from tests.small import WORLD, experiment
from tests.spoiled import resealed
from unbraid import catalog
from unbraid.cli.main import main
from unbraid.config.serialise import from_json
from unbraid.dictionary.config import DictionaryConfig
from unbraid.evals.shared.evaluation import evaluate
from unbraid.experiment.experiment import Experiment, Training
from unbraid.experiment.grid import cross
from unbraid.experiment.study import Study
from unbraid.formats import recognise, saelens
from unbraid.formats.export import export
from unbraid.report import scores_json, write_report
from unbraid.runs.import_run import import_run
from unbraid.runs.run import Run
from unbraid.sources.cached import Cached, write_cache
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.pairs_file import read_pairs
from unbraid.sources.stream import Stream, held_out
from unbraid.sources.text.documents import documents, stream
from unbraid.sources.world.world import World
from unbraid.steering.steer import steer
from unbraid.system.files import inside, read_json
from unbraid.training.loop import train

Asked = list[str] | Callable[[], object]

SMALL = ["--training.tokens", "512", "--training.batch-size", "128", "--source.factors", "48", "--source.d-in", "16",
         "--source.l0", "3", "--source.roots", "8", "--source.depth", "1", "--source.block-rows", "1024",
         "--dictionary.d-sae", "64", "--dictionary.activation.k", "3"]  # fmt: skip
OVERRIDABLE = ("plan", "train", "sweep", "cache", "import", "study")
STUDIES = ("plan", "train", "sweep", "study")


@dataclass(frozen=True)
class Ground:
    """What cases are made of: one folder, prepared once."""

    home: Path

    def __truediv__(self, name: str) -> Path:
        return self.home / name

    @property
    def run(self) -> Path:
        return next((self / "runs").glob("small-l0_3-s0-*"))

    @property
    def lm_run(self) -> Path:
        return next((self / "lm").iterdir())

    def fresh(self, name: str = "fresh") -> Path:
        """A place where nothing is."""
        return self / "out" / name

    def damaged(self, file: str, content: bytes | None, *, run: Path | None = None, sealed_anew: bool = False) -> Path:
        """A copy of the run in which a file holds something else, or is gone (None). `sealed_anew`: by
        somebody who made it look whole."""
        whole = run or self.run
        copy = self / "damaged" / whole.name
        shutil.rmtree(copy.parent, ignore_errors=True)
        shutil.copytree(whole, copy)
        path = copy / file
        path.unlink(missing_ok=True)
        if content is not None:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        if sealed_anew:
            resealed(copy)
        return copy

    def file(self, name: str, content: bytes | str) -> Path:
        path = self / "files" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def snapshot(self) -> dict[str, tuple[int, int]]:
        """Every file there is, with its size and time; what cases make for themselves is left out."""
        own = ("damaged", "files")
        paths = (path for path in sorted(self.home.rglob("*")) if path.relative_to(self.home).parts[0] not in own)
        return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths if not path.is_dir()}


def prepare(home: Path) -> Ground:
    """A finished run of a world and one of a tiny language model, a cache, texts."""
    ground = Ground(home)
    train([experiment(tokens=1600)], ground / "runs")
    model = tiny_lm.write_model(ground / "model")
    text = tiny_lm.write_corpus(ground / "text.jsonl")
    source = tiny_lm.source(model, text)
    train([replace(experiment("lm", tokens=320), source=source)], ground / "lm")
    write_cache(WORLD, ground / "cache", seed=0, blocks=2)
    (ground / "a file").write_text("a file")
    (ground / "empty folder").mkdir()
    return ground


@dataclass(frozen=True)
class Case:
    surface: str
    """Whose input it is: a subcommand, or python.<function>."""
    name: str
    asked: Callable[[Ground], Asked]
    """Arguments of the command line, or a call."""
    said: str
    """A regular expression that the error must match."""
    codes: tuple[int, ...] = (1, 2)
    typed: bool = False
    """Whether it gives a value of another type than is annotated."""

    @property
    def id(self) -> str:
        return f"{self.surface}: {self.name}"


@dataclass(frozen=True)
class Ended:
    """How a case ended."""

    code: int
    out: str
    err: str


def faults_of(case: Case, ground: Ground) -> list[str]:
    """What is wrong with how a bad input was refused; empty when nothing is."""
    asked = case.asked(ground)
    before = ground.snapshot()
    ended = run(asked)
    if "TypeCheckError" in ended.err and case.typed:
        return []  # the tests' own type checker was first: without it, the settings say the sentence
    after = ground.snapshot()
    faults = []
    if ended.code not in case.codes:
        faults.append(f"ended with {ended.code}, expected one of {case.codes}")
    if "Traceback" in ended.out + ended.err or "this is a bug" in ended.err:
        faults.append("a traceback")
    # An eval that fails has its sentence on the line of its result, and is counted at the end.
    if not any(line.startswith(("error: ", "passed over ")) or "failed" in line for line in ended.err.splitlines()):
        faults.append("no sentence that begins with 'error: '")
    if not re.search(case.said, " ".join((ended.err + ended.out if "failed" in ended.err else ended.err).split())):
        faults.append(f"does not say {case.said!r}")
    if "\x1b" in ended.err:
        faults.append("an escape sequence reaches the terminal")
    if after != before:
        changed = sorted(set(after.items()) ^ set(before.items()))
        faults.append(f"files changed: {changed[:3]}")
        shutil.rmtree(ground / "out", ignore_errors=True)
    return [f"{fault}\n  said: {ended.err[-600:]!r}" for fault in faults]


def run(asked: Asked) -> Ended:
    """One command, or one call, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        if callable(asked):
            return Ended(called(asked, err), out.getvalue(), err.getvalue())
        try:
            code = main(asked)
        except SystemExit as stopped:
            code = stopped.code if isinstance(stopped.code, int) else 2
    return Ended(int(code), out.getvalue(), err.getvalue())


def called(call: Callable[[], object], err: io.StringIO) -> int:
    """A call must raise ValueError or OSError: that is what functions promise, and what the command line shows."""
    try:
        call()
    except (ValueError, OSError) as error:
        err.write(f"error: {error}\n")
        return 2
    except Exception as error:
        err.write(f"Traceback: {type(error).__name__}: {error}\n")
        return 3
    return 0


# ---- contents that are not what is wanted -------------------------------------------------------------------

SHAPES: dict[str, bytes] = {
    "nothing": b"", "a list": b"[]", "null": b"null", "a number": b"3", "text": b'"x"', "half": b'{"a": ', "bytes": b"\xff\x00\x80",
    "deep": b"[" * 20_000, "NaN": b"NaN",
}  # fmt: skip
"""JSON of other shapes, and no JSON."""


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> bytes:
    """A JSON file with something changed in it."""
    data = json.loads(path.read_text())
    change(data)
    return json.dumps(data).encode()


# ---- the command line itself --------------------------------------------------------------------------------


def words(surface: str, name: str, argv: list[str], said: str) -> Case:
    """A case that needs no ground."""
    return Case(surface, name, lambda ground: argv, said)


def command_line() -> Iterator[Case]:
    yield words("unbraid", "a command that is none", ["trian"], "did you mean train")
    yield words("unbraid", "an empty command", [""], "there are: browse, cache")
    yield words("unbraid", "a flag that is none", ["--verison"], "verison")
    yield words("unbraid", "an escape sequence for a command", ["\x1b[2Jx"], r"x1b")
    yield words("unbraid", "bytes that are no text", ["\udcff\udcfe"], "there are")
    for command in ("demo", "list"):
        yield words(command, "a flag that is none", [command, "--nope"], "unknown arguments '--nope'")
        yield words(command, "an argument too many", [command, "more"], "unknown arguments 'more'")
        yield words(
            command, "a package there is not", [command, "--package", "no_such"], "cannot import package|--package"
        )
    for command in OVERRIDABLE:
        if command == "import":  # its folder is looked at first: `importing`
            continue
        first, to = [command], ["--to", "x"] if command == "cache" else []
        yield words(command, "an experiment that is none", [*first, "wrld", *to], "did you mean 'world'")
        yield words(command, "an empty name", [*first, "", *to], "no experiment called ''")
        yield words(command, "a name with an escape", [*first, "\x1b]0;x\x07", *to], "no experiment called")
        yield words(command, "a name that is a path", [*first, "../world", *to], "no experiment called")
        yield words(command, "a name that is no text", [*first, "\udcff", *to], "no experiment called")
        yield words(command, "a misspelt flag", [*first, "world", *to, "--training.tokns", "3"], "training.tokens")
        yield words(command, "a flag without value", [*first, "world", *to, "--training.tokens"], "training.tokens")
        yield words(
            command, "a word for a number", [*first, "world", *to, "--training.tokens", "many"], "training.tokens"
        )
        yield words(
            command, "a fraction for a whole number", [*first, "world", *to, "--training.tokens", "1.5"], "tokens"
        )
        yield words(command, "a choice that is none", [*first, "world", *to, "--training.normalise", "x"], "normalise")
        yield words(command, "a term that is none", [*first, "world", *to, "--add", "ortogonality"], "'orthogonality'")
        yield words(
            command, "an activation that is none", [*first, "world", *to, "--dictionary.activation", "TopKK"], "TopK"
        )
        yield words(command, "a package there is not", [*first, "world", *to, "--package", "no_such"], "no_such")
        yield words(command, "members of an experiment", [*first, "world", *to, "--only", "topk"], "--only")
        yield words(command, "members there are not", [*first, "facts", *to, "--only", "zzz"], "matches no member")
        yield words(
            command, "the flags before the name", [*first, "--training.tokens", "3", "world", *to], "name|world"
        )
        yield words(command, "threads below 0", [*first, "world", *to, "--threads", "-1"], "threads")
        yield words(command, "a word for threads", [*first, "world", *to, "--threads", "all"], "threads")
        yield words(
            command, "more threads than a machine has", [*first, "world", *to, "--threads", "1000000"], "threads"
        )


NUMBERS = {
    "training.tokens": ("-1", "-5000"), "training.batch-size": ("0", "-5", "nan"), "training.lr": ("-1", "nan", "inf"),
    "training.warmup": ("2", "-0.5"), "training.decay": ("5", "-1"), "training.clip": ("0", "-1"),
    "training.dead-after": ("-1",), "training.threshold-lr": ("-1",), "training.weight-decay": ("-1",),
    "training.betas": ("2 0.9", "0.9 1"), "training.resample-every": ("-1",), "dictionary.d-sae": ("0", "-64"),
    "dictionary.activation.k": ("0", "-1", "100000"), "dictionary.activation.first-k": ("0.5", "nan", "1000"),
    "dictionary.activation.anneal": ("0", "1.5", "0.5"), "dictionary.min-cosine-to-init": ("1", "-3"),
    "dictionary.orthonormal-blocks": ("-1", "7"), "source.factors": ("0", "-3"), "source.d-in": ("0", "-16"),
    "source.l0": ("0", "-1", "nan"), "source.block-rows": ("0", "-1"), "source.roots": ("-1",), "source.noise": ("-1",),
    "objective.penalties.aux-k.weight": ("nan", "inf"), "objective.penalties.aux-k.every": ("0", "-1"),
}  # fmt: skip


def numbers() -> Iterator[Case]:
    """Of plan, train and sweep: values that no run can have."""
    for flag, values in NUMBERS.items():
        for value in values:
            word = flag.rpartition(".")[2].replace("-", "[-_ ]")
            yield Case(
                "train", f"--{flag} {value}",
                lambda g, f=flag, v=value: ["train", "world", "--out", str(g.fresh()), *without(f), f"--{f}", *v.split()],
                word,
            )  # fmt: skip
    for what, flags, said in (
        ("the next token of a world", ("--add", "next_token_kl"), "predict no tokens; use .*LanguageModel"),
        (
            "an aligned encoder that is frozen",
            ("--dictionary.aligned", "--dictionary.frozen", "W_enc"),
            "aligned",
        ),
    ):
        yield Case("train", what, lambda g, f=flags: ["train", "world", "--out", str(g.fresh()), *SMALL, *f], said)
    huge = (("dictionary.d-sae", "1000000000000"), ("training.tokens", "1e400"), ("source.d-in", "10000000000"))
    for flag, value in huge:
        yield Case(
            "plan", f"--{flag} {value}",
            lambda g, f=flag, v=value: ["plan", "world", "--out", str(g.fresh()), *without(f), f"--{f}", v],
            "memory|disk|must|Error parsing|bytes|at most",
        )  # fmt: skip


def without(*flags: str) -> list[str]:
    """SMALL without flags that the case gives itself."""
    pairs = list(zip(SMALL[::2], SMALL[1::2], strict=True))
    return [word for name, value in pairs if name[2:] not in flags for word in (name, value)]


IMPOSSIBLE: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("a spectrum without room for the active factors", {"spectrum": 1.0, "noise": 0.8},
     r"leaves \d of 16 dimensions above the noise .* lower spectrum, noise or l0, or raise d_in"),
    ("a spectrum beyond a language model's", {"spectrum": 1.5}, "spectrum is 1.5; it must be at least 0 and at most 1"),
    ("co-occurrence beyond its marginals", {"co_occurrence": 1.5}, "co_occurrence is 1.5; .* at least 0 and at most 1"),
    ("children that exclude one another more often than always", {"child_given_parent": (0.5, 0.8), "exclusive": 1.0},
     "probability 1.30 together; lower child_given_parent"),
    ("a circle in one dimension", {"d_in": 1, "circles": 1}, "circles lie in 2 .* d_in is 1; raise d_in"),
    ("a sphere in two dimensions", {"d_in": 2, "spheres": 1}, "spheres in 3 dimensions, and d_in is 2; raise d_in"),
    ("manifolds that no dimension is left for", {"factors": 30, "d_in": 32, "coherence": 0.0, "spheres": 2},
     "34 directions in 32 dimensions .* raise d_in or lower factors"),
    ("more manifolds than single factors", {"circles": 20, "spheres": 20}, "there are 24; raise factors"),
)  # fmt: skip
"""Worlds that cannot be, on top of SMALL."""


def worlds() -> Iterator[Case]:
    """Of World and of the command line: worlds that cannot be, for what several settings make of one another."""
    small = {"factors": 48, "d_in": 16, "l0": 3.0, "roots": 8, "depth": 1, "interactions": 4}
    for what, fields, said in IMPOSSIBLE:
        flags = {f"source.{name.replace('_', '-')}": value for name, value in fields.items()}
        given = [word for name, value in flags.items() for word in (f"--{name}", *words_of(value))]
        yield Case("python.World", what, lambda g, f=fields: lambda: World(**{**small, **f}), said)
        yield Case("train", what,
                   lambda g, f=flags, w=given: ["train", "world", "--out", str(g.fresh()), *without(*f), *w], said)  # fmt: skip


def words_of(value: object) -> list[str]:
    """A value as words of the command line."""
    return [str(part) for part in value] if isinstance(value, tuple) else [str(value)]


# ---- training -----------------------------------------------------------------------------------------------


def training() -> Iterator[Case]:
    for command in ("train", "sweep"):
        yield Case(command, "out is a file", lambda g, c=command: [c, "world", "--out", str(g / "a file"), *SMALL],
                   "a file")  # fmt: skip
        yield Case(command, "out is below a file",
                   lambda g, c=command: [c, "world", "--out", str(g / "a file" / "runs"), *SMALL], "a file")  # fmt: skip
        yield Case(command, "an empty --name", lambda g, c=command: [c, "world", "--out", str(g.fresh()), "--name", "",
                   *SMALL], "name")  # fmt: skip
        for what, name in (("a path", "../up"), ("too long", "x" * 300), ("markup", "[bold]x"), ("a line break", "a\nb"),
                           ("an escape", "a\x1b[2J"), ("capitals", "Run"), ("no text", "a\udcff")):  # fmt: skip
            yield Case(command, f"a --name that is {what}", lambda g, c=command, n=name: [c, "world", "--out",
                       str(g.fresh()), "--name", n, *SMALL], "name")  # fmt: skip
        yield Case(command, "a device there is not", lambda g, c=command: [c, "world", "--out", str(g.fresh()),
                   "--training.device", "cuda", *SMALL], "cuda")  # fmt: skip
        yield Case(command, "a device that is none", lambda g, c=command: [c, "world", "--out", str(g.fresh()),
                   "--training.device", "gpu", *SMALL], "gpu")  # fmt: skip
        yield Case(command, "checkpoints at no time", lambda g, c=command: [c, "world", "--out", str(g.fresh()),
                   "--checkpoint-seconds", "nan", *SMALL], "checkpoint")  # fmt: skip
        yield Case(command, "checkpoints before they are due", lambda g, c=command: [c, "world", "--out",
                   str(g.fresh()), "--checkpoint-seconds", "-1", *SMALL], "checkpoint")  # fmt: skip
        yield Case(command, "resume and overwrite", lambda g, c=command: [c, "world", "--out", str(g.fresh()),
                   "--resume", "--overwrite", *SMALL], "resume.*overwrite|overwrite.*resume")  # fmt: skip
    crossed = {
        "no values": ("seed", "FIELD=VALUE"), "an empty value": ("seed=1,,2", "empty value"), "no field": ("=1", "FIELD"),
        "a field there is not": ("training.lrr=1", "did you mean 'lr'"), "text for a number": ("seed=one", "seed"),
        "a value twice": ("seed=1,1", "twice"), "a quote left open": ("name='x", "not closed"),
        "a part that is no field": ("training.lr.x=1", "x"), "a folder of its own": ("dictionary.d_sae=0", "d_sae"),
        "a negative batch": ("training.batch_size=-4,8", "batch_size"), "nothing at all": ("", "FIELD"),
    }  # fmt: skip
    for what, (text, said) in crossed.items():
        yield Case("sweep", f"--cross with {what}", lambda g, t=text: ["sweep", "world", "--out", str(g.fresh()), *SMALL,
                   "--cross", t], said, typed=what == "text for a number")  # fmt: skip
    budget = ["--only", "linear-dct*", "--members.linear-dct-l0-3.init.budget-kl", "0.5"]
    yield Case("sweep", "a KL budget where nothing is predicted", lambda g: ["sweep", "directions", *budget, "--out",
               str(g.fresh())], "predict no tokens")  # fmt: skip
    yield Case("sweep", "--cross of a study", lambda g: ["sweep", "facts", "--cross", "seed=1,2", "--out", str(g.fresh())],
               "single experiment")  # fmt: skip
    yield Case("sweep", "--cross of a field twice", lambda g: ["sweep", "world", *SMALL, "--cross", "seed=1", "--cross",
               "seed=2", "--out", str(g.fresh())], "given twice")  # fmt: skip
    for what, flags, said in (
        ("an eval that is none", ["--evals", "fidelty"], "did you mean 'fidelity'"),
        ("a benchmark that is none", ["--saebench", "corr"], "no eval 'corr'"),
        ("labelled texts there are not", ["--labelled", "no.jsonl:a:b", "--plan"], r"no\.jsonl"),
        ("a folder of entities there is not", ["--ravel", "nowhere", "--plan"], "nowhere"),
    ):
        yield Case("study", what, lambda g, f=flags: ["study", "facts", "--out", str(g.fresh()), *f], said)


# ---- text and models ----------------------------------------------------------------------------------------


def language(g: Ground, command: str, **changes: str) -> list[str]:
    """train lm_topk on the tiny model, with flags of the source changed."""
    flags = {"model": str(g / "model"), "text": str(g / "text.jsonl"), "layer": "1", "context": "12",
             "buffer-tokens": "200", "eval-share": "0.2"} | changes  # fmt: skip
    source = [word for name, value in flags.items() for word in (f"--source.{name}", value)]
    rest = ["--dictionary.d-sae", "32", "--dictionary.activation.k", "3", "--training.tokens", "64",
            "--training.batch-size", "32"]  # fmt: skip
    return [command, "lm_topk", "--out", str(g.fresh()), *source, *rest]


TEXTS: dict[str, tuple[str, bytes, str]] = {
    "an empty text": ("empty.txt", b"", "text|empty"),
    "a text of blanks": ("blank.txt", b" \n\n \n", "text|blank"),
    "an empty jsonl": ("empty.jsonl", b"", "text|empty"),
    "bytes for text": ("bytes.txt", b"\xff\xfe\x00\x80" * 50, "bytes.txt"),
    "bytes for jsonl": ("bytes.jsonl", b"\xff\xfe\x00\x80" * 50, "bytes.jsonl"),
    "a jsonl of bare numbers": ("bare.jsonl", b"3\n4\n", "bare.jsonl"),
    "a jsonl of numbers": ("numbers.jsonl", b'{"text": 3}\n', "numbers.jsonl|text"),
    "a jsonl without the column": ("column.jsonl", b'{"body": "x"}\n', "no column 'text'|text-column"),
    "half a jsonl": ("half.jsonl", b'{"text": "a b c"}\n{"text": "a', "half.jsonl|line 2"),
    "no parquet": ("no.parquet", b"PAR1 no", "no.parquet"),
    "an xz that is none": ("no.jsonl.xz", b"no xz", "no.jsonl.xz"),
    "a suffix that is unknown": ("text.docx", b"x", "docx"),
}


def texts() -> Iterator[Case]:
    for command in ("plan", "train"):
        for what, (name, content, said) in TEXTS.items():
            yield Case(
                command, what, lambda g, c=command, n=name, b=content: language(g, c, text=str(g.file(n, b))), said
            )
        for what, text, said in (
            ("a text there is not", "nowhere.txt", "nowhere.txt"), ("no text named", "", "text"),
            ("a hub name that is none", "hf://x", "hf://"), ("no number of documents", "language://", "language://1000"),
            ("no documents", "language://0", "how many"), ("documents below 0", "sample://-5", "how many"),
            ("a text that is no text", "\udcff.txt", "txt"),
        ):  # fmt: skip
            yield Case(command, what, lambda g, c=command, t=text: language(g, c, text=t), said)
        yield Case(command, "a folder that is no data set",
                   lambda g, c=command: language(g, c, text=str(g / "empty folder")), "empty folder")  # fmt: skip
        for flag, value, said in (
            ("layer", "99", "layer 99 does not exist"), ("layer", "-1", "layer"), ("site", "resid_mid", "resid_mid|site"),
            ("context", "1", "context"), ("context", "41", "positions"), ("epochs", "0", "epochs"),
            ("batch", "0", "batch"), ("buffer-tokens", "3", "buffer_tokens"), ("eval-share", "1.5", "eval_share"),
            ("eval-share", "-0.1", "eval_share"), ("device", "cuda", "cuda"), ("device", "gpu", "gpu"),
            ("dtype", "int8", "dtype"), ("max-norm-ratio", "-1", "max_norm_ratio"), ("bos", "maybe", "bos"),
            ("model", "./nowhere", "nowhere"), ("model", "", "model"), ("model", "\udcff", "model"),
            ("text-column", "body", "body"), ("downstream-layer", "99", "99"),
        ):  # fmt: skip
            yield Case(command, f"--source.{flag} {value!r}", lambda g, c=command, f=flag, v=value: language(g, c, **{f: v}),
                       said)  # fmt: skip
        yield Case(command, "a model that is an empty folder",
                   lambda g, c=command: language(g, c, model=str(g / "empty folder")), "empty folder")  # fmt: skip
        yield Case(command, "more tokens than there are",
                   lambda g, c=command: [*language(g, c), "--training.tokens", "99999"], "99,999|tokens")  # fmt: skip
    yield Case("cache", "an existing file to write to", lambda g: ["cache", "world", *SMALL, "--to", str(g / "a file")],
               "a file")  # fmt: skip
    yield Case("cache", "no folder to write to", lambda g: ["cache", "world", *SMALL], "--to")
    yield Case("cache", "layers of a world", lambda g: ["cache", "world", *SMALL, "--layers", "1", "--to", str(g.fresh())],
               "--layers is for language models, and a World has none")  # fmt: skip
    for layer in ("4", "1/0", "a third"):
        yield Case("cache", f"{layer} for a layer", lambda g, at=layer: [
            "cache", "lm_topk", "--source.model", str(g / "model"), "--source.text", str(g / "text.jsonl"), "--layers",
            at, "--to", str(g.fresh())], "is no layer of this model, which has 4: name a number from 0 to 3")  # fmt: skip
    yield Case("cache", "a cache of something else", lambda g: ["cache", "world", *SMALL, "--source.l0", "2", "--to",
               str(g / "cache")], "other settings")  # fmt: skip


# ---- runs that are none, and damaged ones -------------------------------------------------------------------

ON_RUNS: dict[str, Callable[[Ground, str], list[str]]] = {
    "eval": lambda g, run: ["eval", run, "--evals", "fidelity", "--force"],
    "report": lambda g, run: ["report", run, "--out", str(g.fresh("report.html"))],
    "steer": lambda g, run: ["steer", run, "--latent", "0", "--prompt", "the cat"],
    "export": lambda g, run: ["export", run, "--out", str(g.fresh("exported"))],
}
READ = {"eval": ("experiment.json", "cfg.json"), "export": ("cfg.json",), "steer": ("experiment.json",),
        "report": ("experiment.json",)}  # fmt: skip
"""Whose JSON each of them cannot do without."""


def runs() -> Iterator[Case]:
    for command, asked in ON_RUNS.items():
        for what, make in (
            ("a run there is not", lambda g: "nowhere"), ("an empty path", lambda g: ""),
            ("a file for a run", lambda g: str(g / "a file")), ("an empty folder", lambda g: str(g / "empty folder")),
            ("a cache for a run", lambda g: str(g / "cache")), ("a folder of runs", lambda g: str(g / "runs")),
            ("a path that is no text", lambda g: "\udcff\udcfe"), ("a path with an escape", lambda g: "\x1b[2Jx"),
            ("a path that is too long", lambda g: "x" * 5000), ("a path with markup", lambda g: "[bold]x[/nope]"),
        ):  # fmt: skip
            yield Case(command, what, lambda g, a=asked, m=make: a(g, m(g)),
                       "no run folder|not a run folder|no finished run|too long")  # fmt: skip
        for file in READ[command]:
            for shape, content in SHAPES.items():
                for anew in (False, True):
                    yield Case(command, f"{shape} in {file}{', sealed anew' if anew else ''}",
                               lambda g, a=asked, f=file, c=content, n=anew: a(g, str(g.damaged(f, c, sealed_anew=n))),
                               re.escape(file))  # fmt: skip
        if command != "report":
            for shape, content in (("nothing", b""), ("bytes", b"\xff" * 64), ("half", b"\x10" * 9)):
                for anew in (False, True):
                    yield Case(command, f"{shape} in the weights{', sealed anew' if anew else ''}",
                               lambda g, a=asked, c=content, n=anew: a(g, str(g.damaged(
                                   "sae_weights.safetensors", c, run=g.lm_run, sealed_anew=n))), "sae_weights")  # fmt: skip
            yield Case(command, "weights that are gone",
                       lambda g, a=asked: a(g, str(g.damaged("sae_weights.safetensors", None, run=g.lm_run))),
                       "sae_weights")  # fmt: skip
        yield Case(command, "an unfinished run", lambda g, a=asked: a(g, str(g.damaged("provenance.json", None))),
                   "not finished|finished")  # fmt: skip
    changes: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
        "a class of another package": (lambda d: d["source"].update(type="os:system"), "os|type|class"),
        "a class that is none": (lambda d: d["source"].update(type="unbraid.nowhere:X"), "nowhere|X"),
        "a class there is not": (lambda d: d["source"].update(type="Wrld"), "Wrld"),
        "a class that is a number": (lambda d: d["source"].update(type=3), "type|3"),
        "no class": (lambda d: d["source"].pop("type"), "type|Source"),
        "a setting there is not": (lambda d: d["training"].update(colour="red"), "colour"),
        "no name": (lambda d: d.pop("name"), "name"),
        "a name that leaves the folder": (lambda d: d.update(name="../x"), "name|experiment"),
        "text for a number": (lambda d: d["training"].update(tokens="many"), "tokens"),
        "another width": (lambda d: d["dictionary"].update(d_sae=63), "63"),
        "another activation": (lambda d: d["dictionary"]["activation"].update(k=5), "5|k|activation"),
        "a number that cannot be": (lambda d: d["training"].update(batch_size=-5), "batch_size"),
    }
    for what, (change, said) in changes.items():
        # The run's own seal is first, and then that it is another experiment than the weights were saved for.
        yield Case("eval", f"{what} in experiment.json", lambda g, c=change: ON_RUNS["eval"](g, str(g.damaged(
                   "experiment.json", edited(g.run / "experiment.json", c), sealed_anew=True))), "experiment.json")  # fmt: skip
        if "another" not in what or "package" in what:
            yield Case("python.from_json", what, lambda g, c=change: lambda: from_json(
                       json.loads(edited(g.run / "experiment.json", c))), said)  # fmt: skip


def scoring() -> Iterator[Case]:
    def on(*flags: str) -> Callable[[Ground], list[str]]:
        return lambda g: ["eval", str(g.run), *flags]

    yield Case("eval", "an eval that is none", on("--evals", "fidelty"), "did you mean 'fidelity'")
    yield Case("eval", "an empty eval", on("--evals", ""), "no eval called ''")
    yield Case("eval", "no runs", lambda g: ["eval"], "required: runs")
    yield Case("eval", "a suite that is none", on("--suite", "saebnch"), "saebench")
    yield Case("eval", "a misspelt flag", on("--forse"), "--force")
    yield Case("eval", "--plan of our own", on("--plan"), "--suite saebench")
    for flags in (("--workers", "2"), ("--ray", "auto")):
        yield Case("eval", f"{flags[0]} for SAEBench", on("--suite", "saebench", "--plan", *flags), "our own evals")
    yield Case("eval", "threads below 0", on("--threads", "-1"), "threads")
    yield Case("eval", "more threads than there can be", on("--threads", "1000000"), "threads")
    yield Case("eval", "a benchmark that is none", on("--suite", "saebench", "--evals", "corr"), "no eval 'corr'")
    yield Case("eval", "no time at all", on("--suite", "saebench", "--plan", "--limit-minutes", "-1"), "limit")
    yield Case("eval", "time that is no number", on("--suite", "saebench", "--plan", "--limit-minutes", "nan"), "limit")
    yield Case("eval", "an interpreter there is not", on("--suite", "saebench", "--python", "nowhere/python", "--plan"),
               "nowhere")  # fmt: skip
    for what, spec, said in (
        ("labelled texts there are not", "no.jsonl:a:b", "no.jsonl"), ("no columns", "no.jsonl", "FILE:CLASS"),
        ("an empty spec", "", "labelled"), ("no column names", "no.jsonl::", "FILE:CLASS"),
    ):  # fmt: skip
        yield Case("eval", f"--labelled with {what}",
                   lambda g, s=spec: ["eval", str(g.lm_run), "--suite", "saebench", "--plan", "--labelled", s], said)  # fmt: skip
    for what, name, content in (("bytes", "bytes.jsonl", b"\xff\xfe"), ("lists", "lists.jsonl", b"[1]\n"),
                                ("too few rows", "few.jsonl", b'{"text": "a", "label": 0}\n')):  # fmt: skip
        yield Case("eval", f"--labelled with {what}",
                   lambda g, n=name, c=content: ["eval", str(g.lm_run), "--suite", "saebench", "--plan", "--labelled",
                                                 f"{g.file(n, c)}:label"], name.partition(".")[0])  # fmt: skip
    yield Case("eval", "--text there is not", lambda g: ["eval", str(g.lm_run), "--suite", "saebench", "--plan",
               "--text", "nowhere.txt"], "nowhere.txt")  # fmt: skip
    yield Case("eval", "--ravel there is not", lambda g: ["eval", str(g.lm_run), "--suite", "saebench", "--plan",
               "--ravel", "nowhere"], "nowhere")  # fmt: skip
    yield Case("report", "no runs", lambda g: ["report"], "required: runs")
    for what, out in (("a folder for the file", "empty folder"), ("a place below a file", "a file/report.html")):
        yield Case("report", what, lambda g, o=out: ["report", str(g.run), "--out", str(g / o)], out.partition("/")[0])
        yield Case("report", f"{what} of scores", lambda g, o=out: ["report", str(g.run), "--out",
                   str(g / "files" / "r.html"), "--scores", str(g / o)], out.partition("/")[0])  # fmt: skip


def steering() -> Iterator[Case]:
    def on(*flags: str, prompt: str = "the cat", latent: str = "0") -> Callable[[Ground], list[str]]:
        return lambda g: ["steer", str(g.lm_run), "--latent", latent, "--prompt", prompt, *flags]

    yield Case(
        "steer",
        "a run without text",
        lambda g: ["steer", str(g.run), "--latent", "0", "--prompt", "x"],
        "LanguageModel",
    )
    yield Case("steer", "no prompt", lambda g: ["steer", str(g.lm_run), "--latent", "0"], "--prompt")
    yield Case("steer", "an empty prompt", on(prompt=""), "no token")
    yield Case("steer", "a prompt of blanks", on(prompt="   "), "no token")
    yield Case("steer", "a prompt of unknown words", on(prompt="zzz qqq"), "unknown")
    yield Case("steer", "a prompt that is too long", on(prompt="the cat " * 50), "shorten")
    yield Case("steer", "a prompt that is no text", on(prompt="\udcff"), "unknown|text|prompt")
    for latent in ("-1", "64", "99999999999999999999", "one", "0.5", ""):
        yield Case("steer", f"--latent {latent!r}", on(latent=latent), "latent")
    for flag, value, said in (
        ("--scale", "nan", "finite"), ("--scale", "inf", "finite"), ("--scale", "much", "scale"), ("--tokens", "-1", "tokens"),
        ("--tokens", "many", "tokens"), ("--top", "-1", "top"), ("--top", "0", "top"), ("--unit", "metre", "unit"),
        ("--scale", "1e38", "finite|scale"), ("--tokns", "3", "--tokens"), ("--kl", "0", "kl"), ("--kl", "-1", "kl"), ("--kl", "nan", "kl"),
        ("--kl", "1e9", "beyond reach"), ("--kl", "much", "kl"), ("--find", "cat", "one of both"), ("--best", "0", "best"), ("--candidates", "0", "candidates"),
        ("--latents", "one", "latents"),
    ):  # fmt: skip
        yield Case("steer", f"{flag} {value}", on(flag, value), said)
    yield Case(
        "steer", "a latent twice", lambda g: [*on()(g)[:2], "--latents", "1", "1", "--prompt", "the cat"], "each once"
    )
    yield Case("steer", "more scales than latents", on("--scale", "1", "2"), "2 scales for 1 latents")
    yield Case("steer", "a prompt alone", lambda g: ["steer", str(g.lm_run), "--prompt", "the cat"], "--find")
    yield Case(
        "steer",
        "words to find of which none is known",
        lambda g: ["steer", str(g.lm_run), "--prompt", "the cat", "--find", "zzz"],
        "no word",
    )
    yield Case("steer", "a chat with a model that has no template", on("--chat"), "chat template")


def copying() -> Iterator[Case]:
    for what, asked, words in (
        ("a folder that is no run", lambda g: [str(g / "empty folder"), "--to", "memory://bucket"], "holds no run"),
        ("a store of a kind there is not", lambda g: [str(g.run), "--to", "nosuch://bucket"], "nosuch"),
        ("a store without runs", lambda g: ["memory://empty", "--to", str(g.fresh())], "no finished run"),
        ("two places on this machine", lambda g: [str(g.run), "--to", str(g.fresh())], "cp -r"),
        ("two stores", lambda g: ["memory://one", "--to", "memory://two"], "one side"),
    ):
        yield Case("copy", what, lambda g, asked=asked: ["copy", *asked(g)], words)


def exporting() -> Iterator[Case]:
    for what, out in (
        ("an existing folder", "empty folder"),
        ("an existing file", "a file"),
        ("a place below a file", "a file/x"),
    ):
        yield Case("export", what, lambda g, o=out: ["export", str(g.run), "--out", str(g / o)], out.partition("/")[0])
    yield Case(
        "export",
        "a push along no latent",
        lambda g: ["export", str(g.lm_run), "--to", "steered", "--out", str(g.fresh())],
        "--latents",
    )
    yield Case(
        "export",
        "a push along a latent there is not",
        lambda g: ["export", str(g.lm_run), "--to", "steered", "--latents", "99", "--out", str(g.fresh())],
        "latent 99",
    )
    yield Case(
        "export",
        "a push of a run without text",
        lambda g: ["export", str(g.run), "--to", "steered", "--latents", "0", "--out", str(g.fresh())],
        "LanguageModel",
    )
    yield Case(
        "export",
        "latents for a library that takes none",
        lambda g: ["export", str(g.run), "--latents", "0", "--out", str(g.fresh())],
        "--to steered",
    )
    yield Case("export", "into the run itself", lambda g: ["export", str(g.run), "--out", str(g.run)], "exists")
    yield Case(
        "export", "a place inside the run", lambda g: ["export", str(g.run), "--out", str(g.run / "x")], "inside|run"
    )
    yield Case(
        "export", "a format that is none", lambda g: ["export", str(g.run), "--to", "saelen", "--out", "x"], "saelens"
    )
    yield Case("export", "no place", lambda g: ["export", str(g.run)], "--out")
    yield Case("export", "a name too long", lambda g: ["export", str(g.run), "--out", str(g / ("x" * 300))], "long")
    for what, repo in (
        ("no slash", "repo"),
        ("a path", "../../x"),
        ("an escape", "a/\x1b[2J"),
        ("three parts", "a/b/c"),
    ):
        yield Case("export", f"a repository with {what}", lambda g, r=repo: ["export", str(g.lm_run), "--to", "hub", "--out",
                   str(g.fresh("hub")), "--repo", r], "repo|OWNER")  # fmt: skip
    hooks: dict[str, Any] = {"a path": "../../x", "no path": "", "a number": 3, "nothing": None}
    for what, hook in hooks.items():
        yield Case("export", f"{what} for a hook", lambda g, h=hook: ["export", str(g.damaged("cfg.json", edited(
                   g.lm_run / "cfg.json", lambda d: d["metadata"].update(hook_name=h)), run=g.lm_run, sealed_anew=True)), "--to", "hub",
                   "--repo", "a/b", "--model", "a/m", "--out", str(g.fresh("hub"))], "hook|cfg.json")  # fmt: skip

    to = lambda run, *more: ["export", str(run), "--to", "neuronpedia", "--out", "x", *more]
    yield Case("export", "no examples for Neuronpedia", lambda g: to(g.lm_run), "unbraid eval .* --evals examples")
    yield Case("export", "a world for Neuronpedia", lambda g: to(g.run), "examples")


def browsing() -> Iterator[Case]:
    of = lambda *runs, out="x": ["browse", *map(str, runs), "--out", str(out)]
    yield Case("browse", "no run", lambda g: of(g / "empty folder"), "no run")
    yield Case("browse", "a run without examples", lambda g: of(g.run), "unbraid eval .* --evals examples")
    yield Case("browse", "a run twice", lambda g: of(g.run, g.run), "twice")
    yield Case(
        "browse", "runs of two models", lambda g: of(g.run, g.lm_run), "side by side.*World.*LanguageModel|one by one"
    )
    yield Case("browse", "three runs", lambda g: of(g.run, g.lm_run, g.damaged("x", b"")), "3 are named")
    yield Case(
        "browse", "an unfinished run", lambda g: of(g.damaged("provenance.json", None)), "not finished|no finished"
    )
    yield Case("browse", "no place", lambda g: ["browse", str(g.run)], "--out")


def checking() -> Iterator[Case]:
    of = lambda *words: ["check", "published", *map(str, words)]
    yield Case("check published", "no run", lambda g: of(g / "empty folder"), "no run")
    yield Case("check published", "no word", lambda g: of(), "required: runs")
    yield Case(
        "check published", "an unfinished run", lambda g: of(g.damaged("provenance.json", None)), "none .* is finished"
    )
    yield Case("check published", "a damaged run", lambda g: of(g.damaged("cfg.json", b"{")), "cfg.json")
    yield Case(
        "check published", "an architecture that is none", lambda g: of(g.run, "--architecture", "BatchTop"),
        "did you mean 'batchtopk'",
    )  # fmt: skip


def importing() -> Iterator[Case]:
    def of(folder: str, *more: str) -> Callable[[Ground], list[str]]:
        return lambda g: ["import", str(g / folder), "world", "--out", str(g.fresh()), *SMALL[4:-4], *more]

    yield Case("import", "no folder", lambda g: ["import"], "import")
    for what, more, said in (
        ("an experiment that is none", ["wrld"], "did you mean 'world'"), ("an empty name", [""], "no experiment called ''"),
        ("a misspelt flag", ["world", "--source.fctors", "3"], "source.factors"),
        ("a word for a number", ["world", "--source.factors", "many"], "factors"),
        ("a package there is not", ["world", "--package", "no_such"], "no_such"),
        ("members of an experiment", ["world", "--only", "topk"], "--only"),
        ("threads below 0", ["world", "--threads", "-1"], "threads"),
        ("the flags before the name", ["--source.factors", "48", "world"], "needs an experiment"),
    ):  # fmt: skip
        yield Case("import", what, lambda g, m=more: ["import", str(g.run), *m, "--out", str(g.fresh())], said)
    yield Case("import", "no experiment", lambda g: ["import", str(g.run)], "needs an experiment")
    yield Case("import", "a folder there is not", of("nowhere"), "nowhere")
    yield Case("import", "an empty folder", of("empty folder"), "empty folder")
    yield Case("import", "a file for a folder", of("a file"), "a file")
    yield Case("import", "a model for an SAE", of("model"), "model")
    yield Case("import", "an SAE of another width",
               lambda g: ["import", str(g.run), "world", "--out", str(g.fresh()), "--source.d-in", "24"], "16|24")  # fmt: skip
    yield Case("import", "a name that is a path",
               lambda g: ["import", str(g.run), "world", "--as", "../x", "--out", str(g.fresh()), *SMALL[4:-4]], "name")  # fmt: skip
    yield Case("import", "a seed below 0",
               lambda g: ["import", str(g.run), "world", "--seed", "x", "--out", str(g.fresh())], "seed")  # fmt: skip
    for shape, content in SHAPES.items():
        yield Case("import", f"{shape} in cfg.json",
                   lambda g, c=content: ["import", str(g.damaged("cfg.json", c)), "world", "--out", str(g.fresh()),
                                         *SMALL[4:-4]], "cfg.json|config|JSON|damaged")  # fmt: skip
    for shape, content in (("nothing", b""), ("bytes", b"\xff" * 64), ("nowhere", None)):
        yield Case("import", f"{shape} in the weights",
                   lambda g, c=content: ["import", str(g.damaged("sae_weights.safetensors", c)), "world", "--out",
                                         str(g.fresh()), *SMALL[4:-4]], "weights|safetensors")  # fmt: skip


# ---- caches -------------------------------------------------------------------------------------------------


def caches() -> Iterator[Case]:
    def of(folder: Path) -> list[str]:
        return [
            "plan",
            "cached",
            "--source.folder",
            str(folder),
            "--d-sae",
            "32",
            "--only",
            "topk-*",
            "--training.tokens",
            "256",
            "--training.batch-size",
            "128",
            "--out",
            str(folder / "r"),
        ]

    def spoilt(g: Ground, name: str, content: bytes) -> Path:
        copy = g / "damaged" / "cache"
        shutil.rmtree(copy.parent, ignore_errors=True)
        shutil.copytree(g / "cache", copy)
        (copy / name).write_bytes(content)
        return copy

    yield Case("plan", "a cache there is not", lambda g: of(g / "nowhere"), "no cache of activations")
    yield Case("plan", "a file for a cache", lambda g: of(g / "a file"), "no cache of activations")
    yield Case("plan", "a run for a cache", lambda g: of(g.run), "no cache of activations")
    for shape, content in SHAPES.items():
        yield Case(
            "plan", f"{shape} in a cache's index", lambda g, c=content: of(spoilt(g, "index.json", c)), "index.json"
        )
    for what, change in {
        "no shards": lambda d: d.pop("shards"), "shards that are a list": lambda d: d.update(shards=[]),
        "no width": lambda d: d.pop("d_in"), "text for a width": lambda d: d.update(d_in="wide"),
        "another format": lambda d: d.update(format=99), "metadata that are a list": lambda d: d.update(metadata=[]),
        "a shard elsewhere": lambda d: d["shards"]["train"][0].update(file="../a file"),
        "rows below 0": lambda d: d["shards"]["train"][0].update(rows=-5),
        "a shard without a hash": lambda d: d["shards"]["train"][0].pop("sha256"),
        "shards that are numbers": lambda d: d["shards"].update(train=[1, 2]),
    }.items():  # fmt: skip
        yield Case("plan", f"{what} in a cache's index", lambda g, c=change: of(spoilt(
                   g, "index.json", edited(g / "cache" / "index.json", c))), "index.json|shard|cache")  # fmt: skip
    for shape, content in (("nothing", b""), ("bytes", b"\xff" * 64)):
        yield Case(
            "plan", f"{shape} in a shard", lambda g, c=content: of(spoilt(g, "train-00000.safetensors", c)), "shard"
        )


# ---- from Python --------------------------------------------------------------------------------------------


def python() -> Iterator[Case]:
    """Public functions: what they raise is a ValueError or an OSError, with a sentence."""

    def api(function: str, name: str, call: Callable[[Ground], object], said: str) -> Case:
        return Case(f"python.{function}", name, lambda g: lambda: call(g), said)

    base = experiment()
    yield api("train", "out is a file", lambda g: train([base], g / "a file"), "a file")
    yield api("train", "members that share no stream", lambda g: train(
        [base, replace(base, name="other", training=replace(base.training, batch_size=80))], g.fresh()), "share")  # fmt: skip
    yield api("train", "two of the same", lambda g: train([base, base], g.fresh()), "twice|same|alike")
    yield api("train", "nobody", lambda g: train([], g.fresh()), "no experiment|none|empty|one")
    for field, value in (
        ("tokens", -1),
        ("batch_size", 0),
        ("lr", float("nan")),
        ("warmup", 2.0),
        ("decay", -1.0),
        ("clip", 0.0),
    ):
        yield api("Training", f"{field} {value}", lambda g, f=field, v=value: replace(Training(), **{f: v}), field)
    yield api(
        "DictionaryConfig",
        "no latents",
        lambda g: train([replace(base, dictionary=DictionaryConfig(d_sae=0))], g.fresh()),
        "d_sae",
    )
    yield api("World", "no factors", lambda g: World(factors=0), "factors")
    yield api("LanguageModel", "a context of one", lambda g: LanguageModel(context=1), "context")
    for what, model, said in (
        (
            "a GGUF file that is none",
            lambda g: g.file("none.gguf", b"\x89PNG"),
            "is no GGUF file: its 4 bytes begin with",
        ),
        ("an empty GGUF file", lambda g: g.file("empty.gguf", b""), "is no GGUF file: its 0 bytes"),
        ("a GGUF file there is not", lambda g: g / "nowhere.gguf", "there is no GGUF file at"),
        ("a misspelt smollm2", lambda g: "smolm2", "did you mean 'smollm2'"),
    ):
        yield api("LanguageModel", what, lambda g, m=model: LanguageModel(
            model=str(m(g)), text=str(g / "text.jsonl"), layer=1, context=12).available("train"), said)  # fmt: skip
    yield api("Experiment", "a name that is a path", lambda g: replace(base, name="../x").folder, "name")
    yield api("cross", "a field there is not", lambda g: cross(base, {"training.lrr": [1.0]}), "did you mean 'lr'")
    yield api("cross", "no values", lambda g: cross(base, {"seed": []}), "one value or more")
    yield api("cross", "text for values", lambda g: cross(base, {"seed": "012"}), "list")
    yield replace(api("cross", "a value of another type", lambda g: cross(base, {"seed": ["one"]}), "seed"), typed=True)
    yield api(
        "Study",
        "no members",
        lambda g: train(Study(source=WORLD, members={}).experiments(), g.fresh()),
        "no|one|empty|member",
    )
    yield api("evaluate", "a run there is not", lambda g: evaluate([Run.open(g / "nowhere")], []), "not a run folder")
    yield api("Run.open", "a file", lambda g: Run.open(g / "a file"), "not a run folder")
    yield api("Run.open", "an unfinished run", lambda g: Run.open(g.damaged("provenance.json", None)), "finished")
    for shape, content in SHAPES.items():
        yield api(
            "Run.open",
            f"{shape} in experiment.json",
            lambda g, c=content: Run.open(g.damaged("experiment.json", c, sealed_anew=True)),
            "experiment",
        )
        yield api(
            "saelens.read",
            f"{shape} in cfg.json",
            lambda g, c=content: saelens.read(g.damaged("cfg.json", c, sealed_anew=True)),
            "cfg.json",
        )
        yield api(
            "recognise.read",
            f"{shape} in cfg.json",
            lambda g, c=content: recognise.read(g.damaged("cfg.json", c, sealed_anew=True)),
            "cfg.json|config|JSON",
        )
        yield api("Cached", f"{shape} in index.json", lambda g, c=content: Cached(
            folder=str(g.file("index.json", c).parent)).available("train"), "index.json")  # fmt: skip
        yield api("read_json", shape, lambda g, c=content: read_json(g.file("x.json", c)), "x.json")
    yield api("from_json", "a stranger's class", lambda g: from_json({"type": "os:system"}), "os|package|class")
    yield api(
        "import_run", "an empty folder", lambda g: import_run(g / "empty folder", WORLD, g.fresh()), "empty folder"
    )
    yield api("import_run", "a folder there is not", lambda g: import_run(g / "nowhere", WORLD, g.fresh()), "nowhere")
    yield api("import_run", "a name that is a path", lambda g: import_run(g.run, WORLD, g.fresh(), name="../x"), "name")
    yield api("export", "an existing folder", lambda g: export(g.run, g / "empty folder"), "exists already")
    yield api("export", "no run", lambda g: export(g / "empty folder", g.fresh()), "no finished run")
    yield api("write_report", "no runs", lambda g: write_report([], g.fresh("r.html")), "no run|none|empty|runs")
    yield api(
        "write_report",
        "a folder that is no run",
        lambda g: write_report([g / "empty folder"], g.fresh("r.html")),
        "experiment|run|scor",
    )
    yield api(
        "write_report", "a folder for the file", lambda g: write_report([g.run], g / "empty folder"), "empty folder"
    )
    yield api(
        "scores_json",
        "a place below a file",
        lambda g: scores_json(write_report([g.run], g / "files" / "r.html"), g / "a file" / "s"),
        "a file",
    )
    yield api(
        "write_cache", "a file for a folder", lambda g: write_cache(WORLD, g / "a file", seed=0, blocks=1), "a file"
    )
    yield api("write_cache", "no end", lambda g: write_cache(WORLD, g.fresh(), seed=0), "no end")
    yield api(
        "write_cache",
        "another source",
        lambda g: write_cache(replace(WORLD, l0=2.0), g / "cache", seed=0, blocks=1),
        "other settings",
    )
    yield api("write_cache", "blocks below 0", lambda g: write_cache(WORLD, g.fresh(), seed=0, blocks=-1), "blocks")
    yield api("steer", "a run without text", lambda g: steer(Run.open(g.run), 0, "x"), "LanguageModel")
    yield api("steer", "a latent there is not", lambda g: steer(Run.open(g.lm_run), 64, "the cat"), "latent 64")
    yield api("steer", "tokens below 0", lambda g: steer(Run.open(g.lm_run), 0, "the cat", tokens=-1), "tokens")
    yield api(
        "steer", "an endless push", lambda g: steer(Run.open(g.lm_run), 0, "the cat", scale=float("inf")), "finite"
    )
    yield api("held_out", "no rows", lambda g: held_out(WORLD, 0), "rows|eval data")
    yield api("held_out", "rows below 0", lambda g: held_out(WORLD, -5), "rows|eval data")
    yield api("Stream", "an empty batch", lambda g: next(Stream(WORLD, 0, seed=0)), "batch")
    yield api("Stream", "a batch below 0", lambda g: next(Stream(WORLD, -4, seed=0)), "batch")
    yield api(
        "Stream", "more than there is", lambda g: [*Stream(Cached(folder=str(g / "cache")), 160, seed=0)], "data ended"
    )
    yield api("Source.windows", "more than there are", lambda g: LanguageModel(
        model=str(g / "model"), text=str(g / "text.jsonl"), layer=1, context=12).windows(10**6, split="train", seed=0), "holds")  # fmt: skip
    yield api("documents", "a text there is not", lambda g: documents("nowhere.txt", "text"), "nowhere.txt")
    yield api(
        "documents",
        "a folder that is no data set",
        lambda g: documents(str(g / "empty folder"), "text"),
        "empty folder",
    )
    for what, (name, content, said) in TEXTS.items():
        yield api("documents", what, lambda g, n=name, c=content: [*documents(str(g.file(n, c)), "text")], said)
    yield api("stream", "a name that is none", lambda g: next(iter(stream("hf://x", "text"))), "hf://")
    for name, context, said in (
        ("a tokenizer that knows none of the words", 128, "does not know the word"),
        ("a context that cuts documents", 12, "raise --source.context to 127 or more"),
    ):
        yield api("LanguageModel.truth", name, lambda g, c=context: LanguageModel(
            model=str(g / "model"), text="language://20", context=c).truth(), said)  # fmt: skip
    for shape, content in SHAPES.items():
        yield api("read_pairs", shape, lambda g, c=content: read_pairs(str(g.file("pairs.jsonl", c))), "pairs.jsonl")
    yield api(
        "Dictionary.encode", "rows of another width", lambda g: saelens.read(g.run).encode(torch.zeros(2, 3)), "16"
    )
    yield api(
        "Dictionary.encode",
        "rows that are no numbers",
        lambda g: saelens.read(g.run).encode(torch.full((2, 16), torch.nan)),
        "NaN|finite",
    )
    yield api(
        "catalog.pick",
        "a name that is none",
        lambda g: catalog.pick("fidelty", catalog.evals(), "eval"),
        "did you mean 'fidelity'",
    )
    yield api("inside", "a path that leaves", lambda g: inside(g.home, "../x", "the name"), "the name")
    yield api("inside", "no text", lambda g: inside(g.home, 3, "the name"), "the name")
    assert isinstance(base, Experiment)


CASES: list[Case] = [
    case
    for group in (
        command_line,
        numbers,
        worlds,
        training,
        texts,
        runs,
        scoring,
        steering,
        copying,
        exporting,
        browsing,
        checking,
        importing,
        caches,
        python,
    )
    for case in group()
]
