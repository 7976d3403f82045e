"""From one prompt up: a fit on a single chat, without a held-out split, is a run to steer with."""

import json
from dataclasses import replace

from safetensors.torch import load_file
from tests.tiny_lm import source, write_model

from unbraid.cli.main import main
from unbraid.experiment.study import Study
from unbraid.runs.run import Run
from unbraid.steering.push import units_of
from unbraid.studies.directions import budgeted
from unbraid.training.loop import train


def test_directions_fitted_to_one_prompt_are_steered_with(tmp_path, capsys):
    text = tmp_path / "one.jsonl"
    text.write_text(json.dumps({"text": "the cat saw a red house"}) + "\n")
    model = source(write_model(tmp_path / "model"), text, downstream_layer=2, eval_share=0.0)
    members = {name: member for name, member in budgeted(0.1, 3).items() if name.startswith(("melbo", "random"))}
    study = Study(source=model, d_sae=3, members=members, seeds=(0,))
    experiments = [replace(e, training=replace(e.training, normalise="none")) for e in study.experiments()]
    runs = train(experiments, tmp_path / "runs")
    assert len(runs) == 3
    for run in runs:
        unit = ["--unit", "radius"] if "random" in run.name else []
        if "budget" in run.name:
            opened = Run.open(run)
            lengths = load_file(run / "fit.safetensors")["lengths"]
            assert units_of(opened, model, [2, 0], "auto")[0] == [float(lengths[2]), float(lengths[0])]
        assert main(["steer", str(run), "--latent", "0", "--prompt", "the cat", "--tokens", "2", *unit]) == 0
        assert "with" in capsys.readouterr().out
