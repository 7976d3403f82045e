"""Workers on the machines of a Ray cluster that share a file system (pip install 'unbraid[ray]').

An actor starts the same process on its machine that --workers starts here, hands tasks to it, and keeps its messages
until they are fetched. A machine that is lost is noticed as a process is that was killed.
"""

import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from unbraid.cli.ray_machines import check_data, check_nodes, first_line, own_paths, settle_in
from unbraid.cli.worker_process import LocalWorker, Worker
from unbraid.cli.workers import Crew
from unbraid.system.stopping import SIGNALS

if TYPE_CHECKING:  # torch is not for the actors
    from unbraid.experiment.experiment import Experiment

ANSWER = 10.0
"""Seconds for a cluster's head to answer."""
BEAT = 10.0
"""Seconds that a fetch of messages waits for one."""


@dataclass(frozen=True)
class Wanted:
    """The crew that flags ask for."""

    address: str
    workers: int
    threads: int
    """CPU threads of each process; 0 shares the cluster's cores out."""
    folders: Sequence[Path]
    """Those that are read and written: every machine must see the same."""
    packages: tuple[str, ...]
    permissions: tuple[str, ...]


@contextmanager
def crew(wanted: Wanted, experiments: Sequence["Experiment"]) -> Iterator[Crew]:
    """Context manager of a crew on a cluster. Raises ValueError, before any work, where a machine will not do."""
    ray = joined(wanted.address)
    try:
        devices = [device for e in experiments for device in (e.training.device, getattr(e.source, "device", "cpu"))]
        gpus = int(any(device.startswith("cuda") for device in devices))
        nodes = [node for node in ray.nodes() if node["Alive"]]
        threads = threads_each(nodes, wanted.workers, wanted.threads, gpus)
        check_nodes(ray, nodes, wanted.folders)
        check_data(ray, nodes, experiments, wanted.packages, wanted.permissions)
        hire = lambda: RayWorker(ray, threads, gpus)
        yield Crew(wanted.workers, hire, remote=True)
    finally:
        ray.shutdown()


# ---- the cluster --------------------------------------------------------------------------------------------


def check_found(address: str) -> Any:
    """Ray itself. Raises ValueError where it is not installed, or nothing answers at the address."""
    from unbraid.training.callbacks import imported  # torch is not for the actors

    try:
        ray = imported("ray", "ray")
    except ImportError as error:
        raise ValueError(f"--ray: {error}") from error
    if address != "auto":
        check_answers(address)
    return ray


def joined(address: str) -> Any:
    """Join a cluster; Ray itself. Raises ValueError where there is none, or not one that can be joined."""
    ray = check_found(address)
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # of many kinds: no cluster, another version of Ray or Python, no node of it here
        raise ValueError(
            f"the Ray cluster at {address} cannot be joined: {first_line(error)}; run this on one of its machines, "
            "with the Ray and Python of the cluster"
        ) from error
    finally:
        for number, handler in handlers.items():  # Ray takes SIGTERM for itself
            if handler is not None:
                signal.signal(number, handler)
    return ray


def check_answers(address: str) -> None:
    """Raise ValueError unless something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise ValueError(f"--ray {address!r} is no address; it must be HOST:PORT of the cluster's head, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise ValueError(
            f"no Ray cluster answers at {address} ({error}); start one with `ray start --head`, or check host and port"
        ) from error


def threads_each(nodes: Sequence[Mapping[str, Any]], workers: int, threads: int, gpus: int) -> int:
    """CPU threads of each worker; at 0, the most with which all have room. Raises ValueError when they have none."""

    def places(each: int) -> int:
        of = lambda node, name, least: int(node["Resources"].get(name, 0) // least)
        return sum(min(of(node, "CPU", each), of(node, "GPU", gpus) if gpus else workers) for node in nodes)

    cpus = int(sum(node["Resources"].get("CPU", 0) for node in nodes))
    for each in [threads] if threads else range(max(1, cpus // workers), 0, -1):
        if places(each) >= workers:
            return each
    each = threads or 1
    need = f"{each} CPU{'s' if each > 1 else ''}" + (" and a GPU" if gpus else "")
    raise ValueError(
        f"the cluster has room for {places(each)} processes of {need} each, and --workers is {workers}: use fewer "
        "--workers or --threads, or add machines"
    )


# ---- workers ------------------------------------------------------------------------------------------------


class RayWorker(Worker):
    """A process on a machine of the cluster."""

    def __init__(self, ray: Any, threads: int, gpus: int):
        self._ray, self._needs = ray, {"CPU": threads, **({"GPU": gpus} if gpus else {})}
        actor = ray.remote(num_cpus=threads, num_gpus=gpus, max_restarts=0, max_concurrency=4)(Agent)
        self._agent = actor.options(scheduling_strategy="SPREAD").remote(os.getcwd(), own_paths(), threads)
        self._begun = self._ending = False

    def give(self, packed: bytes) -> None:
        self._agent.give.remote(packed)

    def messages(self) -> Iterator[tuple[str, Any]]:
        try:
            while True:
                for kind, content in self._fetched():
                    self._begun = True
                    if kind == "gone":
                        return
                    yield kind, content
        except self._ray.exceptions.RayError as error:
            if not self._ending:
                yield "line", f"lost: {first_line(error)}"
        finally:
            self.kill()

    def _fetched(self) -> Sequence[tuple[str, Any]]:
        """Messages that have come; the end of them when the cluster cannot have this worker any more."""
        answer = self._agent.fetch.remote()
        while not self._ray.wait([answer], timeout=BEAT)[0]:
            if not self._begun and not any(map(self._has_room, self._ray.nodes())):
                return [("line", "no machine that is large enough is left in the cluster"), ("gone", None)]
        return self._ray.get(answer)

    def _has_room(self, node: Mapping[str, Any]) -> bool:
        """Tell whether a node is large enough, whatever it does now."""
        return node["Alive"] and all(node["Resources"].get(name, 0) >= least for name, least in self._needs.items())

    def stop(self) -> None:
        self._ending = True
        if self._begun:
            self._agent.stop.remote()
        else:
            self.kill()

    def kill(self) -> None:
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._agent)


class Agent:
    """An actor: starts a process on its machine, and passes on what is given to it and what it sends."""

    def __init__(self, folder: str, paths: Sequence[str], threads: int):
        settle_in(folder, paths)
        self._worker, self._box = LocalWorker(threads), SimpleQueue[tuple[str, Any]]()
        self._box.put(("line", f"on {socket.gethostname()}"))
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for message in self._worker.messages():
            self._box.put(message)
        self._box.put(("gone", None))

    def fetch(self) -> list[tuple[str, Any]]:
        """The messages that have come, or that come within a while."""
        found: list[tuple[str, Any]] = []
        with suppress(Empty):
            found.append(self._box.get(timeout=BEAT))
            while True:
                found.append(self._box.get_nowait())
        return found

    def give(self, packed: bytes) -> None:
        self._worker.give(packed)

    def stop(self) -> None:
        self._worker.stop()
