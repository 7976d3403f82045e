"""Exports of runs that others made, and exports that are killed: nothing outside is read or written, none is left."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.formats.folders import made
from tests.small import experiment
from tests.spoiled import resealed

from unbraid.dictionary.activations.topk import TopK
from unbraid.formats import export as exporting
from unbraid.formats import hub, saelens
from unbraid.formats.export import Target, export, new_folder
from unbraid.runs.import_run import import_run
from unbraid.sources.world.world import World
from unbraid.system import files, processes
from unbraid.training.loop import train


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return train([experiment("topk", activation=TopK(3), tokens=800)], tmp_path_factory.mktemp("runs"))[0]


def copied(run: Path, to: Path, **metadata: Any) -> Path:
    shutil.copytree(run, to)
    cfg = json.loads((to / "cfg.json").read_text())
    cfg["metadata"] |= metadata
    (to / "cfg.json").write_text(json.dumps(cfg))
    return resealed(to)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    "site",
    ["../victim", "../../victim", "/tmp/victim", "a/../../victim", "..", ".", "", "README.md", "pretrained_saes.yaml",
     "a/b", "x\ny", "\x1b[2J", "C:\\victim", 3, None, ["a"], "x" * 300],
)  # fmt: skip
def test_fault_19_a_site_of_a_strangers_run_cannot_leave_the_folder(site: Any, run: Path, tmp_path: Path):
    victim = copied(run, tmp_path / "victim")
    before = contents(victim)
    bad = copied(run, tmp_path / "bad", hook_name=str(victim) if site == "/tmp/victim" else site)
    with pytest.raises(ValueError, match=r"hook_name in .*cfg\.json is"):
        export(bad, tmp_path / "out", "hub")
    assert contents(victim) == before and not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "victim"]


LINKED = [
    "provenance.json",
    "experiment.json",
    "cfg.json",
    "sae_weights.safetensors",
    "results",
    "results/fidelity.json",
]


@pytest.mark.parametrize("to", ["hub", "saelens"])
@pytest.mark.parametrize("name", LINKED)
def test_fault_19_what_a_link_leads_to_outside_is_not_published(name: str, to: Target, run: Path, tmp_path: Path):
    """A stranger's provenance.json that is a link to a file of secrets would be uploaded with the rest."""
    if to == "saelens" and name == "results/fidelity.json":
        pytest.skip("read for the card alone")
    bad, outside = copied(run, tmp_path / "bad"), tmp_path / "outside"
    (bad / "results").mkdir(exist_ok=True)
    if name == "results/fidelity.json":
        (bad / name).write_text("{}")
    shutil.move(bad / name, outside)
    (bad / name).symlink_to(outside)
    with pytest.raises(ValueError, match=f"{Path(name).name} is a link that leads out of .*bad"):
        export(bad, tmp_path / "out", to)
    assert not (tmp_path / "out").exists()


def test_a_run_folder_that_is_a_link_itself_is_exported(run: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(run)
    export(tmp_path / "link", tmp_path / "out", "hub")
    assert (tmp_path / "out" / "README.md").is_file()


def test_fault_19_a_card_is_not_written_by_what_it_tells_of(run: Path, tmp_path: Path):
    yaml = pytest.importorskip("yaml")
    bad = copied(run, tmp_path / "bad", model_name="a/b`|<script>", training_architecture="<img src=x>[x](y)")
    export(bad, tmp_path / "out", "hub")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    front, _, body = card.removeprefix("---\n").partition("---\n")
    assert set(yaml.safe_load(front)) == {"library_name", "tags"}
    assert "`a/b''<script>`" in body and "trained as \\<img src=x\\>\\[x\\](y)" in body
    entry = yaml.safe_load((tmp_path / "out" / "pretrained_saes.yaml").read_text(encoding="utf-8"))
    assert entry["out"]["model"] == "a/b`|<script>"
    for name in ("a/b\nlicense: mine", "", None, 5):
        with pytest.raises(ValueError, match=r"model_name in .* say what it is called on the hub with --model"):
            export(copied(run, tmp_path / f"bad{name!r}".replace("/", "-"), model_name=name), tmp_path / "no", "hub")
    with pytest.raises(ValueError, match="--repo is .*; expected OWNER/NAME"):
        export(run, tmp_path / "no", "hub", repo='x/y", evil="')


BROKEN: dict[str, Callable[[Any], Any]] = {
    "a list": lambda whole: [], "no objective": lambda whole: {**whole, "objective": None},
    "no tokens": lambda whole: {**whole, "training": {}}, "words": lambda whole: {**whole, "training": "x"},
    "a list for lr": lambda whole: {**whole, "training": {**whole["training"], "lr": []}},
    "no dictionary": lambda whole: {**whole, "dictionary": 3}, "no source": lambda whole: {**whole, "source": None},
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_fault_19_an_experiment_of_another_shape_is_one_sentence(how: str, run: Path, tmp_path: Path):
    bad = copied(run, tmp_path / "bad")
    whole = json.loads((bad / "experiment.json").read_text())
    (bad / "experiment.json").write_text(json.dumps(BROKEN[how](whole)))
    with pytest.raises(ValueError, match=r"experiment\.json"):
        export(bad, tmp_path / "out", "hub")
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


@pytest.mark.parametrize("text", ['{"scores": [{}]}', '{"scores": 3}', '{"scores": [3]}', "[]", "{"])
def test_fault_19_results_of_another_shape_are_one_sentence(text: str, run: Path, tmp_path: Path):
    bad = copied(run, tmp_path / "bad")
    (bad / "results").mkdir(exist_ok=True)
    (bad / "results" / "fidelity.json").write_text(text)
    with pytest.raises(ValueError, match=r"results/fidelity\.json"):
        export(bad, tmp_path / "out", "hub")


@pytest.mark.parametrize("cfg", [{"metadata": 3}, {"metadata": None}])
def test_a_run_without_a_site_is_one_sentence(cfg: dict[str, Any], run: Path, tmp_path: Path):
    bad = copied(run, tmp_path / "bad")
    (bad / "cfg.json").write_text(json.dumps({**json.loads((bad / "cfg.json").read_text()), **cfg}))
    with pytest.raises(ValueError, match=r"cfg\.json"):
        export(bad, tmp_path / "out")


def test_fault_19_what_is_there_is_never_replaced(run: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("precious")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("empty", "file", "dangling"):
        with pytest.raises(ValueError, match="exists already and is left as it is; name another folder with --out"):
            export(run, tmp_path / name)
    assert (tmp_path / "file").read_text() == "precious" and (tmp_path / "dangling").is_symlink()


def test_two_exports_to_one_place_leave_the_first(tmp_path: Path):
    with pytest.raises(ValueError, match="exists already"), new_folder(tmp_path / "out") as late:
        (late / "who").write_text("late")
        with new_folder(tmp_path / "out") as quick:
            (quick / "who").write_text("quick")
    assert (tmp_path / "out" / "who").read_text() == "quick"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def killed(work: Callable[[], None]) -> int:
    """The signal that ended `work` in a process of its own."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def dying(call: Callable[..., Any], after: bool) -> Callable[..., Any]:
    def at_last(*args: Any, **kwargs: Any) -> Any:
        if after:
            call(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    return at_last


POINTS = [
    (saelens, "write_tensors", False), (saelens, "write_json", True), (hub, "write_text", False),
    (hub, "index_entry", True), (exporting.os, "chmod", True), (exporting.os, "rename", False),
]  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(("module", "name", "after"), POINTS, ids=[f"{name}-{after}" for _, name, after in POINTS])
def test_fault_13_a_killed_export_leaves_nothing_after_the_next(
    module: Any, name: str, after: bool, run: Path, tmp_path: Path
):
    def work() -> None:
        setattr(module, name, dying(getattr(module, name), after))
        exporting.export(run, tmp_path / "out", "hub")

    assert killed(work) == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(f".out.{processes.place()}-")
    export(run, tmp_path / "other", "saelens")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    export(run, tmp_path / "out", "hub")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fault_13_a_killed_import_is_made_by_the_next(tmp_path: Path):
    folder, runs = made(tmp_path / "sae", "topk", d_in=6), tmp_path / "runs"
    source = World(factors=48, d_in=6, l0=3.0, roots=8, branching=2, depth=1, block_rows=1024)

    def work() -> None:
        setattr(files.os, "replace", dying(os.replace, after=False))  # noqa: B010
        import_run(folder, source, runs)

    assert killed(work) == -signal.SIGKILL
    (left,) = runs.iterdir()
    assert any(path.name.startswith(".sae_weights") for path in left.iterdir())
    run, _, _ = import_run(folder, source, runs)
    assert run.path == left and not [path for path in left.iterdir() if path.name.startswith(".sae")]


def test_what_a_living_process_fills_and_what_is_not_ours_is_kept(run: Path, tmp_path: Path):
    theirs = [f".x.{processes.own()}.abc", ".out.12345"]
    for name in theirs:
        (tmp_path / name).mkdir()
    export(run, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*theirs, "out"])
