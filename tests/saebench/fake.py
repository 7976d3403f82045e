"""A benchmark that scores nothing: python fake.py request.json does to each run what the variable FAKE says of it.

Run inside no environment; it speaks as src/unbraid/saebench/driver/drive.py does.
"""

import json
import os
import sys
import time
from pathlib import Path

TYPE_IDS = {"core": "core", "tpp": "tpp"}


def say(**event):
    print("unbraid> " + json.dumps(event), flush=True)


def result(request, name, cfg, **changes):
    return {
        "eval_type_id": TYPE_IDS[request["eval"]],
        "sae_lens_release_id": name,
        "sae_cfg_dict": {"d_in": cfg["d_in"], "d_sae": cfg["d_sae"]},
        "eval_result_metrics": {
            "sparsity": {"l0": 7.5, "l1": -1},
            "reconstruction_quality": {"explained_variance": 1.07, "cossim": -1.0},
            "tpp_metrics": {"tpp_threshold_2_total_metric": -1.0, "tpp_threshold_5_total_metric": None},
        },
        **changes,
    }


def main(path):
    request, fates = json.loads(Path(path).read_text()), json.loads(os.environ["FAKE"])
    print("loading", flush=True)
    if fates.get("loading") == "die":
        print("no such model", flush=True)
        sys.exit(3)
    for run in request["runs"]:
        fate = next((fate for name, fate in fates.items() if run["name"].startswith(name)), "score")
        say(**{"is": "begin", "run": run["name"]})
        print(f"scoring {run['name']}", flush=True)
        if fate == "die":
            print("Segmentation fault, or so", flush=True)
            os._exit(7)
        elif fate == "hang":
            print("waiting for a lock", flush=True)
            time.sleep(600)
        elif fate == "leave":
            return
        elif fate == "refuse":
            say(**{"is": "refused", "run": run["name"], "why": "the model does not spell"})
        elif fate == "fail":
            say(**{"is": "failed", "run": run["name"], "why": "KeyError: 'acts'"})
        else:
            cfg = json.loads((Path(run["folder"]) / "cfg.json").read_text())
            changes = {"sae_lens_release_id": "another"} if fate == "mix up" else {}
            version = "0.5.0" if fate == "age" else "0.6.0"
            out = Path(request["out"])
            (out / f"{run['name']}.json").write_text(json.dumps(result(request, run["name"], cfg, **changes)))
            about = {"versions": {"sae-bench": version}, "request": request}
            (out / f"{run['name']}.about.json").write_text(json.dumps(about))
            say(**{"is": "done", "run": run["name"], "seconds": 1.5})


if __name__ == "__main__":
    main(sys.argv[1])
