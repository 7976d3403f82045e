"""Attacks on whoever reads a stranger's folder: what each tries, and what it got. For tests and `make reliability`.

An attack prepares a folder, runs a command on it as a user would, and is judged by what it left: a canary file (its
code ran), changes outside of where the command may write, a traceback, or terminal escapes in what was printed.
"""

import contextlib
import hashlib
import io
import json
import lzma
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.spoiled import forged, resealed
from unbraid.cli.main import main
from unbraid.sources.language_model.loading import EMBEDDED, located

ESCAPE = "\x1b]0;owned\x07"
CODE = "open({canary!r}, 'w').write('ran')\n"


class Runs:
    """What unpickling makes of it: a file where there was none."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


@dataclass
class Stage:
    """A scratch folder with a victim in it that no command may touch."""

    folder: Path
    world_run: Path
    """A finished run of a world."""
    language_run: Path
    """A finished run of the embedded language model."""
    said: str = ""
    """All that commands have printed."""
    codes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.canary = self.folder / "canary"
        self.victim = self.folder / "home" / "victim"
        shutil.copytree(self.world_run, self.victim)
        (self.folder / "home" / "fidelity.json").write_text("precious")
        self.before = contents(self.folder / "home")

    def clone(self, run: Path, name: str = "stranger") -> Path:
        return Path(shutil.copytree(run, self.folder / name / run.name))

    def command(self, *argv: object) -> int:
        """Run `unbraid …` in this process; its exit code."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                code = main([str(word) for word in argv])
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
        self.said += out.getvalue()
        self.codes.append(code)
        return code

    def evaluate(self, run: Path) -> int:
        return self.command("eval", run, "--evals", "fidelity", "--force", "--threads", "1")

    def harm(self) -> str:
        """What came of it, in words; empty when nothing did."""
        changed = sorted(
            name for name, digest in contents(self.folder / "home").items() if self.before.get(name) != digest
        )
        gone = sorted(set(self.before) - set(contents(self.folder / "home")))
        found = []
        if self.canary.exists():
            found.append("its code ran")
        if changed or gone:
            found.append(f"files changed outside: {[*changed, *gone]}")
        if "Traceback (most recent call last)" in self.said or "this is a bug" in self.said:
            found.append(f"a traceback: {self.said.strip().splitlines()[-1][:200]}")
        if "\x1b]" in self.said or "\x1b[2J" in self.said:
            found.append("terminal escapes were printed")
        if any(code not in (0, 1, 2) for code in self.codes):
            found.append(f"exit codes {self.codes}")
        return "; ".join(found)


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below, by its path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """Change JSON in place, and forge the rest of its run: who makes a folder makes its seals too."""
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    if (path.parent / "provenance.json").is_file():
        forged(path.parent)


ATTACKS: dict[str, Callable[[Stage], object]] = {}


def attack(name: str) -> Callable[[Callable[[Stage], object]], Callable[[Stage], object]]:
    def enter(function: Callable[[Stage], object]) -> Callable[[Stage], object]:
        ATTACKS[name] = function
        return function

    return enter


# ---- classes named in experiment.json ------------------------------------------------------------------------

for path in (
    "os:system", "subprocess:Popen", "builtins:eval", "unbraid.cli.main:subprocess", "unbraid.runs.run:Run",
    "unbraid.saebench.driver.drive:main", "unbraid..os:system", "unbraid/../evil:X", "unbraid.cli.main:main", ":", "",
    "__main__:X", "unbraid:__loader__",
):  # fmt: skip

    @attack(f"experiment.json names the class {path!r}")
    def named_class(stage: Stage, path: str = path) -> None:
        run = stage.clone(stage.world_run)
        edit(run / "experiment.json", lambda data: data.update(source={"type": path}))
        stage.evaluate(run)
        stage.command("report", run, "--out", stage.folder / "r.html")


@attack("experiment.json names a class of a package that lies in the working folder")
def local_package(stage: Stage) -> None:
    run = stage.clone(stage.world_run)
    (stage.folder / "evilpackage.py").write_text(CODE.format(canary=str(stage.canary)))
    edit(run / "experiment.json", lambda data: data.update(source={"type": "evilpackage:X"}))
    with contextlib.chdir(stage.folder):
        stage.evaluate(run)


# ---- pickles ---------------------------------------------------------------------------------------------------


def dictionary_learning_folder(stage: Stage) -> Path:
    folder = stage.folder / "dl"
    stage.command("export", stage.world_run, "--to", "dictionary_learning", "--out", folder)
    return folder


@attack("ae.pt is a torch archive with code in its pickle")
def torch_pickle(stage: Stage) -> None:
    folder = dictionary_learning_folder(stage)
    torch.save({"encoder.weight": Runs(stage.canary)}, folder / "ae.pt")
    stage.command("import", folder, "world", "--out", stage.folder / "o", "--threads", "1")


@attack("ae.pt is a bare pickle with code in it")
def bare_pickle(stage: Stage) -> None:
    folder = dictionary_learning_folder(stage)
    (folder / "ae.pt").write_bytes(pickle.dumps(Runs(stage.canary)))
    stage.command("import", folder, "world", "--out", stage.folder / "o", "--threads", "1")


@attack("sae_weights.safetensors is a pickle with code in it")
def safetensors_pickle(stage: Stage) -> None:
    run = stage.clone(stage.world_run)
    (run / "sae_weights.safetensors").write_bytes(pickle.dumps(Runs(stage.canary)))
    resealed(run)
    stage.evaluate(run)
    stage.command("import", run, "world", "--out", stage.folder / "o", "--threads", "1")


@attack("a model folder holds a pickle in place of safetensors")
def model_pickle(stage: Stage) -> None:
    model = Path(shutil.copytree(located(EMBEDDED), stage.folder / "model"))
    (model / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": Runs(stage.canary)}, model / "pytorch_model.bin")
    run = stage.clone(stage.language_run)
    edit(run / "experiment.json", lambda data: data["source"].update(model=str(model)))
    stage.evaluate(run)


# ---- paths and links that lead out of the folder ----------------------------------------------------------------

for hook in ("../home/victim", "{victim}", "a/../../home/victim", "..", "~", "x\x00y", "", 3):

    @attack(f"cfg.json's hook_name is {hook!r}, exported for a hub")
    def hook_name(stage: Stage, hook: Any = hook) -> None:
        run = stage.clone(stage.language_run)
        value = hook.format(victim=stage.victim) if isinstance(hook, str) else hook
        edit(run / "cfg.json", lambda data: data["metadata"].update(hook_name=value))
        stage.command("export", run, "--to", "hub", "--repo", "a/b", "--out", stage.folder / "up")


@attack("experiment.json keeps its text cache outside of the run")
def cache_elsewhere(stage: Stage) -> None:
    run = stage.clone(stage.language_run)
    planted = str(stage.folder / "home" / "planted")
    change = {"text": "sample://3", "cache": planted, "context": 16, "buffer_tokens": 64}
    edit(run / "experiment.json", lambda data: data["source"].update(change))
    with contextlib.chdir(stage.folder):
        stage.evaluate(run)


@attack("results/ is a link to another folder")
def results_link(stage: Stage) -> None:
    run = stage.clone(stage.world_run)
    shutil.rmtree(run / "results", ignore_errors=True)
    (run / "results").symlink_to(stage.folder / "home")
    stage.evaluate(run)


@attack("results/fidelity.json is a link to another file")
def result_link(stage: Stage) -> None:
    run = stage.clone(stage.world_run)
    (run / "results").mkdir(exist_ok=True)
    (run / "results" / "fidelity.json").unlink(missing_ok=True)
    (run / "results" / "fidelity.json").symlink_to(stage.folder / "home" / "fidelity.json")
    stage.evaluate(run)


@attack("an index of shards names a file outside of the cache")
def shard_elsewhere(stage: Stage) -> None:
    cache = stage.folder / "cache"
    stage.command("cache", "world", "--training.tokens", "4096", "--to", cache, "--threads", "1")
    for name in ("../home/fidelity.json", str(stage.folder / "home" / "fidelity.json")):
        edit(cache / "index.json", lambda data, name=name: data["shards"]["train"][0].update(file=name))
        argv = ("sweep", "cached", "--source.folder", cache, "--out", stage.folder / "o", "--threads", "1")
        stage.command(*argv)
        stage.command("cache", "world", "--training.tokens", "4096", "--to", cache, "--threads", "1")


@attack("an export's folder is a link to another run")
def export_link(stage: Stage) -> None:
    (stage.folder / "out").symlink_to(stage.victim)
    stage.command("export", stage.world_run, "--out", stage.folder / "out")


# ---- remote code -------------------------------------------------------------------------------------------------


def remote_model(stage: Stage, changes: dict[str, Any], tokenizer: dict[str, Any]) -> Path:
    model = Path(shutil.copytree(located(EMBEDDED), stage.folder / "model"))
    edit(model / "config.json", lambda data: data.update(changes))
    edit(model / "tokenizer_config.json", lambda data: data.update(tokenizer))
    code = CODE.format(canary=str(stage.canary)) + "class C: pass\nclass M: pass\nclass T: pass\n"
    (model / "conf.py").write_text(code)
    run = stage.clone(stage.language_run)
    edit(run / "experiment.json", lambda data: data["source"].update(model=str(model), trust_remote_code=True))
    return run


@attack("a model's configuration asks for code of its own")
def remote_config(stage: Stage) -> None:
    auto = {"AutoConfig": "conf.C", "AutoModelForCausalLM": "conf.M"}
    stage.evaluate(remote_model(stage, {"model_type": "evil", "auto_map": auto}, {}))


@attack("a tokenizer's configuration asks for code of its own")
def remote_tokenizer(stage: Stage) -> None:
    auto = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["conf.T", None]}}
    stage.evaluate(remote_model(stage, {}, auto))


@attack("a model's configuration asks for a kernel from a hub")
def hub_kernel(stage: Stage) -> None:
    kernel = {"_attn_implementation": "evil/kernel", "attn_implementation": "evil/kernel"}
    stage.evaluate(remote_model(stage, kernel, {}))


# ---- the working folder, the terminal, the page, the memory -------------------------------------------------------


@attack("modules lie in the working folder under the names of libraries")
def working_folder(stage: Stage) -> None:
    hostile = stage.folder / "hostile"
    hostile.mkdir()
    for name in ("pandas", "rich", "json", "torch", "plotly", "unbraid_evil"):
        (hostile / f"{name}.py").write_text(CODE.format(canary=str(stage.canary)) + "raise SystemExit(7)\n")
    program = Path(sys.executable).parent / "unbraid"
    for argv in (["list"], ["report", str(stage.world_run), "--out", str(stage.folder / "r.html")]):
        ended = subprocess.run([program, *argv], cwd=hostile, capture_output=True, text=True, timeout=120, check=False)
        stage.said += ended.stdout + ended.stderr
        stage.codes.append(ended.returncode)


@attack("a folder's name holds terminal escapes")
def escapes_in_name(stage: Stage) -> None:
    run = Path(shutil.copytree(stage.world_run, stage.folder / f"esc{ESCAPE}\x1b[2J"))
    stage.evaluate(run)
    stage.command("report", run, "--out", stage.folder / "r.html")
    stage.command("report", run / "nothing", "--out", stage.folder / "r.html")


@attack("the metadata of an SAE hold terminal escapes")
def escapes_in_metadata(stage: Stage) -> None:
    folder = stage.folder / "sl"
    stage.command("export", stage.language_run, "--out", folder)
    edit(folder / "cfg.json", lambda data: data["metadata"].update(hook_name=f"{ESCAPE}x", model_name=ESCAPE))
    stage.command("import", folder, "world", "--out", stage.folder / "o", "--threads", "1")


@attack("a failed run's reason and an eval's error hold terminal escapes")
def escapes_in_reasons(stage: Stage) -> None:
    run = stage.clone(stage.world_run)
    (run / "provenance.json").unlink()
    (run / "failed.json").write_text(json.dumps({"step": 1, "error": ESCAPE, "traceback": ""}))
    stage.evaluate(run)
    stage.command("report", run, stage.world_run, "--out", stage.folder / "r.html")


@attack("names and scores hold markup, and are put into a report")
def markup(stage: Stage) -> None:
    run, script = stage.clone(stage.world_run), "<script>document.title='owned'</script>"
    stage.evaluate(run)
    edit(run / "results" / "fidelity.json", lambda data: data["definitions"].update(fvu=script))
    edit(run / "results" / "fidelity.json", lambda data: data["scores"][0].update(params={script: script}))
    page = stage.folder / "r.html"
    stage.command("report", run, stage.world_run, "--out", page)
    if page.is_file() and script in page.read_text(encoding="utf-8"):
        stage.canary.write_text("markup reached the page")


@attack("a run's metadata put lines of their own into a model card")
def card(stage: Stage) -> None:
    run = stage.clone(stage.language_run)
    edit(run / "cfg.json", lambda data: data["metadata"].update(model_name="gpt2\n---\nlicense: evil\n---"))
    stage.command("export", run, "--to", "hub", "--repo", "a/b", "--out", stage.folder / "up")
    written = stage.folder / "up" / "README.md"
    if written.is_file() and "\nlicense: evil" in written.read_text(encoding="utf-8"):
        stage.canary.write_text("the card has the stranger's lines")


@attack("a few kB of text hold more than can be kept in memory")
def bomb(stage: Stage) -> None:
    path = stage.folder / "bomb.jsonl.xz"
    line = (json.dumps({"text": "a" * 999_000}) + "\n").encode()
    with lzma.open(path, "wb", preset=1) as file:
        for _ in range(4):
            file.write(line)
    os.environ["UNBRAID_MEMORY_LIMIT"] = str(2_000_000)
    try:
        stage.command("plan", "lm", "--source.model", EMBEDDED, "--source.text", path, "--out", stage.folder / "o")
    finally:
        del os.environ["UNBRAID_MEMORY_LIMIT"]


@attack("a file of a run is a pipe that nobody writes to")
def pipe(stage: Stage) -> None:
    for name in ("experiment.json", "provenance.json", "metrics.jsonl", "sae_weights.safetensors", "cfg.json"):
        run = stage.clone(stage.world_run, f"pipe-{name}")
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)
        stage.evaluate(run)
        stage.command("report", run, "--out", stage.folder / "r.html")
