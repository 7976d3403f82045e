"""Run one SAEBench eval over run folders, inside SAEBench's environment: python drive.py request.json.

Nothing of Unbraid is imported here. Events are printed on stdout, one per line, after MARK:
    {"is": "versions", …}   {"is": "begin", "run": name}   {"is": "done" | "refused" | "failed", "run": name, "why": …}
A run that is done has left <out>/<name>.json, SAEBench's own file untouched, and <name>.about.json next to it.
"""

# pyright: reportMissingImports=false
import json
import os
import shutil
import sys
import threading
import time
import traceback
from importlib import metadata
from pathlib import Path

MARK = "unbraid> "
PACKAGES = ("sae-bench", "sae-lens", "transformer-lens", "transformers", "torch", "sae-probes")
READ_AGAIN = ("core", "absorption")
"""Evals whose runs read the same texts again; the others keep what they need on disk."""


def say(**event) -> None:
    """Report an event."""
    print(MARK + json.dumps(event), flush=True)


def leave_with_parent() -> None:
    """Exit when stdin closes: the parent holds it open, and a killed parent must not leave this process running."""

    def watch() -> None:
        while os.read(0, 1024):  # not through sys.stdin, whose lock a thread must not hold when Python ends
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(path: Path) -> None:
    """Score every run of a request, and report each."""
    leave_with_parent()
    request = json.loads(path.read_text(encoding="utf-8"))
    versions = {name: metadata.version(name) for name in PACKAGES}
    say(**{"is": "versions"}, **versions)

    import loading
    import sharing
    import tail

    import evals

    score = getattr(evals, request["eval"])
    model = loading.register(request)
    shared = sharing.Shared()
    if request["share"]:
        shared.install()
        if request["eval"] == "core":
            tail.install(shared)
    for run in request["runs"]:
        say(**{"is": "begin", "run": run["name"]})
        started, worked = time.monotonic(), time.process_time()
        if request["eval"] not in READ_AGAIN:
            shared.kept.clear()
        try:
            sae = loading.load_sae(run["folder"], model, request["device"])
            found, about = score(request, model, run["name"], sae)
            keep(Path(request["out"]), run["name"], found, {"versions": versions, **about})
        except loading.Refused as reason:
            say(**{"is": "refused", "run": run["name"], "why": str(reason)})
        except Exception as error:
            traceback.print_exc()
            say(**{"is": "failed", "run": run["name"], "why": f"{type(error).__name__}: {str(error)[:2000]}"})
        else:
            took = {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - worked}
            say(**{"is": "done", "run": run["name"]}, **{key: round(value, 1) for key, value in took.items()})


def keep(out: Path, name: str, folder: Path, about: dict) -> None:
    """Copy the one JSON that SAEBench wrote. SAEBench swallows failures of some evals, so that there may be none."""
    written = [path for path in folder.rglob("*_eval_results.json") if path.name.startswith(name)]
    if len(written) != 1:
        raise RuntimeError(f"SAEBench ended without an error and wrote {len(written)} results, not one; see its log")
    (out / f"{name}.about.json").write_text(json.dumps(about, indent=1, default=str), encoding="utf-8")
    shutil.copyfile(written[0], out / f"{name}.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
