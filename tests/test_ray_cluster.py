"""Workers on a Ray cluster: what is refused before any work, and a machine that is lost in the middle."""

import os
import socket
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.ending_terms import Waits
from tests.small import experiment
from tests.test_train import assert_equal_runs
from tests.test_train_shards import SWEEP, settings
from unbraid.cli import ray_cluster, ray_machines
from unbraid.cli.main import main
from unbraid.cli.train_shards import train_by_crew
from unbraid.config.serialise import OWN_PACKAGES, to_json
from unbraid.sources.cached import Cached
from unbraid.training.loop import train


def node(cpus: float = 4, gpus: float = 0, *, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus}}


@pytest.mark.parametrize(
    ("cpus", "workers", "threads", "gpus", "expected"),
    [((4, 4), 2, 0, 0, 4), ((4, 2), 3, 0, 0, 2), ((4, 4), 8, 0, 0, 1), ((4, 4), 3, 2, 0, 2), ((8,), 2, 0, 1, 4)],
)
def test_cores_are_shared_out_so_that_all_have_room(cpus, workers, threads, gpus, expected):
    nodes = [node(count, 2 * gpus) for count in cpus]
    assert ray_cluster.threads_each(nodes, workers, threads, gpus) == expected


@pytest.mark.parametrize(
    ("workers", "threads", "gpus", "said"),
    [
        (9, 0, 0, "room for 8 processes of 1 CPU each, and --workers is 9"),
        (2, 5, 0, "room for 0 processes of 5 CPUs"),
        (2, 1, 1, "room for 0 processes of 1 CPU and a GPU"),
    ],
)
def test_more_workers_than_a_cluster_has_room_for_are_refused(workers, threads, gpus, said):
    with pytest.raises(ValueError, match=said):
        ray_cluster.threads_each([node(), node()], workers, threads, gpus)


def test_without_ray_its_extra_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*SWEEP, "--out", str(tmp_path / "runs"), "--ray", "auto"]) == 2
    shown = capsys.readouterr()
    assert "pip install 'unbraid[ray]'" in shown.err and "reading" not in shown.out and not (tmp_path / "runs").exists()


def test_machines_without_our_code_or_our_folders_are_named(tmp_path, monkeypatch):
    ours = ray_machines.installed()
    same = {"installed": ours, "missing": "", "unseen": []}
    has = lambda **more: [("one (10.0.0.1)", same), ("two (10.0.0.2)", {**same, **more})]

    def check(**more: Any) -> None:
        monkeypatch.setattr(ray_machines, "on_each", lambda *_: has(**more))
        ray_machines.check_nodes(None, [], [tmp_path])

    check()
    with pytest.raises(ValueError, match=r"two \(10.0.0.2\) has unbraid 0.0.9 \(abc\), not .*install the same"):
        check(installed={**ours, "unbraid": "0.0.9 (abc)"})
    with pytest.raises(ValueError, match=r"two .* has Python 3.9, not 3"):
        check(installed={**ours, "Python": "3.9"})
    with pytest.raises(ValueError, match="two .* cannot import unbraid as it is here .*install it there"):
        check(installed={}, missing="ModuleNotFoundError: No module named 'unbraid'")
    with pytest.raises(ValueError, match="two .* does not see /runs: run this in a folder, with --out in one"):
        check(unseen=["/runs"])


def test_a_folder_of_the_same_name_that_is_another_is_not_taken_for_shared(tmp_path):
    found = ray_machines.look()
    with ray_machines.tokens([tmp_path / "new"]) as written:
        assert found(os.getcwd(), written) == {"installed": ray_machines.installed(), "missing": "", "unseen": []}
        path = next(iter(written))
        Path(path).write_text("of another machine")
        assert found(os.getcwd(), written)["unseen"] == [str(tmp_path / "new")]
        assert found(str(tmp_path / "none"), {})["unseen"] == [str(tmp_path / "none")]
    assert not (tmp_path / "new").exists(), "it was made for this alone"


def test_a_source_that_cannot_be_read_is_said_once(tmp_path):
    stored = to_json(Cached(folder=str(tmp_path / "none")))
    faults = ray_machines.unreadable(os.getcwd(), (), [stored, stored], OWN_PACKAGES, ())
    assert len(faults) == 1 and "none" in faults[0]


def machine() -> dict[str, Any]:
    """The arguments of a node of one core. Its ports are given, as Ray gives up on one that takes long to find some."""
    names = ("metrics_agent_port", "runtime_env_agent_port", "dashboard_agent_listen_port", "metrics_export_port")
    with ExitStack() as bound:
        free = [bound.enter_context(socket.socket()) for _ in names]
        for one in free:
            one.bind(("127.0.0.1", 0))
        ports = {name: one.getsockname()[1] for name, one in zip(names, free, strict=True)}
    return {"num_cpus": 1, "object_store_memory": 80 * 2**20, **ports}


# ---- with Ray -----------------------------------------------------------------------------------------------


def test_an_address_that_is_none_or_does_not_answer_is_refused(tmp_path, capsys):
    pytest.importorskip("ray", reason="Ray is an extra")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for address, said in [
        (f"127.0.0.1:{port}", "no Ray cluster answers at"), ("ray://127.0.0.1:10001", "is no address"),
        ("there", "is no address"), ("a..b:1", "no Ray cluster answers at"),
    ]:  # fmt: skip
        assert main([*SWEEP, "--out", str(tmp_path / "runs"), "--ray", address]) == 2
        assert said in capsys.readouterr().err and not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_machine_that_is_lost_in_the_middle_costs_no_run(tmp_path, capsys):
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray is an extra")
    mark, out = tmp_path / "slowly", tmp_path / "runs"
    wanted = [experiment(f"m{number}", waits=Waits(mark=str(mark))) for number in range(4)]
    here = train(wanted, tmp_path / "here")
    mark.touch()
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={**machine(), "include_dashboard": False})
    second = cluster.add_node(**machine())

    def lose_it_once_all_have_begun() -> None:
        until = time.monotonic() + 300
        while len({path.parent for path in out.glob("*/checkpoints/*")}) < 4 and time.monotonic() < until:
            time.sleep(0.1)
        cluster.remove_node(second, allow_graceful=False)
        mark.unlink()

    losing = threading.Thread(target=lose_it_once_all_have_begun)
    losing.start()
    how = replace(settings(out), patience=60.0)
    try:
        with ray_cluster.crew(ray_cluster.Wanted(cluster.address, 2, 1, [out], how.packages, ()), wanted) as crew:
            assert train_by_crew(wanted, how, crew) == 0
    finally:
        losing.join()
        cluster.shutdown()
    shown = capsys.readouterr()
    assert "2 at a time" in shown.out and "| lost: " in shown.out and "it is gone on with" in shown.err
    for folder, one in zip(here, wanted, strict=True):
        assert_equal_runs(folder, out / one.folder)
        assert (folder / "metrics.jsonl").read_bytes() == (out / one.folder / "metrics.jsonl").read_bytes()
