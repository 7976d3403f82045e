"""Runs copied into a store and out of it: whole, sealed, resumable, refused in one sentence."""

import json
from pathlib import Path

import fsspec
import pytest

import unbraid
from tests.small import experiment
from unbraid.cli.main import main
from unbraid.runs import stores
from unbraid.runs.run import Run
from unbraid.runs.stores import copy_runs
from unbraid.training.loop import train

MEMORY = "memory://bucket/runs"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    (folder,) = train([experiment(tokens=640)], tmp_path_factory.mktemp("stores"))
    unbraid.evaluate(folder, "fidelity")
    return folder


@pytest.fixture(autouse=True)
def empty_store():
    fsspec.filesystem("memory").store.clear()


def names(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in stores.files_in(folder)}


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_run_comes_back_as_it_went(run, tmp_path, kind):
    to = MEMORY if kind == "memory" else f"file://{tmp_path}/store"
    (url,) = copy_runs([run], to)
    assert url == f"{to}/{run.name}"
    (home,) = copy_runs([to], tmp_path / "back")
    assert names(Path(home)) == names(run)
    assert copy_runs([url], tmp_path / "back") == [home]  # again: all is there


def test_a_copy_that_was_cut_off_is_no_run_and_goes_on(run, tmp_path, monkeypatch):
    memory = fsspec.filesystem("memory")
    own, puts = type(memory).put_file, []

    def breaks(self, here, there, **kwargs):
        if len(puts) == 3:
            raise ConnectionError("the store hung up")
        puts.append(there)
        return own(self, here, there, **kwargs)

    monkeypatch.setattr(type(memory), "put_file", breaks)
    with pytest.raises(ValueError, match=r"the store at memory://.* failed \(the store hung up\); .* run it again"):
        copy_runs([run], MEMORY)
    with pytest.raises(ValueError, match="holds no finished run"):
        copy_runs([MEMORY], tmp_path)
    monkeypatch.undo()
    copy_runs([run], MEMORY)
    (home,) = copy_runs([MEMORY], tmp_path)
    assert names(Path(home)) == names(run)


def test_a_file_that_changed_in_the_store_is_refused_and_leaves_nothing(run, tmp_path):
    (url,) = copy_runs([run], MEMORY)
    memory = fsspec.filesystem("memory")
    memory.pipe(f"{url}/metrics.jsonl", memory.cat(f"{url}/metrics.jsonl") + b"{}\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl"):
        copy_runs([url], tmp_path / "back")
    assert not (tmp_path / "back" / run.name).exists() and not list((tmp_path / "back").glob("*"))


def test_another_run_of_that_name_is_kept(run, tmp_path):
    copy_runs([run], MEMORY)
    (trained,) = train([experiment(tokens=800)], tmp_path / "elsewhere")
    other = trained.rename(tmp_path / run.name)
    with pytest.raises(ValueError, match="holds another run of that name; copy into another folder"):
        copy_runs([other], MEMORY)
    with pytest.raises(ValueError, match="holds another run of that name"):
        copy_runs([MEMORY], tmp_path)


def test_scores_that_are_there_are_kept_unless_told_otherwise(run, tmp_path):
    (url,) = copy_runs([run], MEMORY)
    (home,) = copy_runs([url], tmp_path)
    scores = Path(home) / "results/fidelity.json"
    whole = scores.read_text()
    scores.write_text(json.dumps({**json.loads(whole), "scores": []}))
    copy_runs([url], tmp_path)
    assert scores.read_text() != whole
    copy_runs([url], tmp_path, force=True)
    assert scores.read_text() == whole
    (Path(home) / "results/fidelity.json").unlink()
    copy_runs([url], tmp_path)
    assert scores.read_text() == whole


@pytest.mark.parametrize("name", ["../escaped", "a b", "results/../../escaped"])
def test_a_name_that_leads_out_of_the_folder_is_refused(run, tmp_path, monkeypatch, name):
    (url,) = copy_runs([run], MEMORY)
    own = stores.names_at
    monkeypatch.setattr(stores, "names_at", lambda *asked: [*own(*asked), name])
    with pytest.raises(ValueError, match="expected a plain name"):
        copy_runs([url], tmp_path / "back")
    assert not (tmp_path / "escaped").exists()


def test_bad_places_say_what_to_do(run, tmp_path):
    for runs, to, said in (
        ([run], tmp_path, "both on this machine; cp -r"),
        ([MEMORY], MEMORY, "one side of a copy is on this machine"),
        ([MEMORY], tmp_path, "holds no finished run"),
        ([run], "nosuch://bucket", "nosuch"),
        ([tmp_path / "nowhere"], MEMORY, "does not exist"),
    ):
        with pytest.raises(ValueError, match=said):
            copy_runs(runs, to)


def test_the_command_copies_both_ways(run, tmp_path, capsys):
    assert main(["copy", str(run), "--to", MEMORY]) == 0
    assert f"{MEMORY}/{run.name}" in capsys.readouterr().out
    assert main(["copy", MEMORY, "--to", str(tmp_path)]) == 0
    assert Run.open(tmp_path / run.name).experiment == Run.open(run).experiment
    assert main(["copy", f"{MEMORY}/nothing", "--to", str(tmp_path)]) == 2
    assert "error: " in capsys.readouterr().err
