"""The other libraries, each in a virtual environment of its own, with the same torch as ours."""

import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venv-peers"


@dataclass(frozen=True)
class Peer:
    requirement: str
    module: str
    """What must import once installed."""
    remove: tuple[str, ...] = ()
    """Dependencies to uninstall again."""
    only: tuple[str, ...] = ()
    """The dependencies to install, where they are not all of those it names."""


PEERS = {
    "sae-lens": Peer("sae-lens==6.54.12", "sae_lens"),
    # The torchvision it pulls in cannot load beside a CPU build of torch, and then nothing of it imports.
    "dictionary-learning": Peer("dictionary-learning==0.1.0", "dictionary_learning", ("torchvision",)),
    "sparsify": Peer("eai-sparsify==1.3.3", "sparsify"),
    # What it names besides is for vision models: hundreds of megabytes that its SAEs do not import.
    "overcomplete": Peer(
        "overcomplete==0.3.0",
        "benchmarks.contenders.overcomplete",
        only=("einops", "numpy", "scipy", "scikit-learn", "tqdm", "pillow"),
    ),
}


def python_of(name: str, folder: Path = FOLDER) -> Path:
    """The interpreter that has this peer, made on first use. Exits with the end of pip's log when that fails."""
    peer, home = PEERS[name], folder / name
    python = home / ("Scripts/python.exe" if platform.system() == "Windows" else "bin/python")
    done = home / "installed.txt"
    torch = torch_requirement()
    wanted = f"{torch}\n{peer.requirement}\n"
    if done.is_file() and done.read_text() == wanted:
        return python
    print(f"installing {peer.requirement} into {home} (a few minutes)", flush=True)
    if not python.is_file():
        run([sys.executable, "-m", "venv", str(home)], name)
    constraints = home / "constraints.txt"
    constraints.write_text(f"{torch}\n")
    install = [str(python), "-m", "pip", "install", "-c", str(constraints)]
    if peer.only:
        run([*install, torch, *peer.only], name)
        run([*install, "--no-deps", peer.requirement], name)
    else:
        run([*install, torch, peer.requirement], name)
    if peer.remove:
        run([str(python), "-m", "pip", "uninstall", "-y", *peer.remove], name)
    run([str(python), "-c", f"import {peer.module}"], name)
    done.write_text(wanted)
    return python


def environment(who: str) -> str | None:
    """The peer in whose environment a contender runs; None for our own."""
    name = who.removesuffix("-autocast")
    return name if name in PEERS else None


def torch_requirement(constraints: Path = ROOT / "constraints.txt") -> str:
    """Our own torch, as constraints.txt pins it."""
    return next(line for line in constraints.read_text().splitlines() if line.startswith("torch=="))


def run(command: list[str], name: str) -> None:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    if result.returncode:
        tail = "\n".join(result.stdout.splitlines()[-20:])
        raise SystemExit(
            f"no environment for {name}: `{' '.join(command)}` failed:\n{tail}\n"
            f"Repair it, or leave {name} out with --who"
        )
