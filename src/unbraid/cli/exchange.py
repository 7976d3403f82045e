"""The commands for dictionaries of other libraries: export and import."""

from pathlib import Path

from unbraid.cli.arguments import CopyFlags, ExportFlags, ImportFlags
from unbraid.cli.calls import Call
from unbraid.cli.resolve import experiments_of, packages
from unbraid.formats.export import export
from unbraid.runs.import_run import import_run
from unbraid.runs.run import Run
from unbraid.runs.stores import copy_runs
from unbraid.system.terminal import say


def run_export(call: Call[ExportFlags]) -> int:
    """Export, and print how the other library loads it."""
    options = call.options
    if options.to == "neuronpedia":
        return export_to_neuronpedia(options)
    if options.to == "steered":
        return export_steered(options)
    if options.latents or options.kl or options.scale != (1.0,):
        raise ValueError(f"--latents, --scale and --kl are of --to steered, and this is --to {options.to}")
    export(options.run_folder, options.out, options.to, repo=options.repo, model=options.model)
    loads = {
        "saelens": f'load it with sae_lens.SAE.load_from_disk("{options.out}")',
        "dictionary_learning": f'load it with dictionary_learning.utils.load_dictionary("{options.out}", "cpu")',
        "sparsify": f'load it with sparsify.SparseCoder.load_from_disk("{options.out}")',
        "hub": f"read {options.out / 'README.md'}, then `hf upload {options.repo or 'OWNER/NAME'} {options.out}`",
    }
    say(f"written: {options.out}   {loads[options.to]}")
    return 0


def export_to_neuronpedia(options: ExportFlags) -> int:
    """Export a run's examples, and print what to do with them."""
    from unbraid.browser.neuronpedia import write_neuronpedia

    place = write_neuronpedia(Run.open(options.run_folder), options.out, repo=options.repo, model=options.model)
    say(
        f"written: {options.out}   put what is in it below v1/ of your Neuronpedia's data sets, then import "
        f"{place.model}, {place.source} in its admin panel"
    )
    return 0


def export_steered(options: ExportFlags) -> int:
    """Export a push, and print how the harness loads it."""
    from unbraid.steering.steered_folder import write_steered

    if not options.latents:
        raise ValueError("--to steered writes a push along latents: name them with --latents, as `unbraid steer` does")
    run = Run.open(options.run_folder, packages(options))
    found = write_steered(run, options.out, options.latents, scale=options.scale, kl=options.kl)
    say(
        f"written: {options.out}   a push of {found.length:.3g} at {found.hookpoint}, {found.kl:.2g} nats a token; "
        f"cd {options.out} && lm_eval --model steered --model_args pretrained=MODEL,steer_path=steer.pt --tasks …"
    )
    return 0


def run_copy(call: Call[CopyFlags]) -> int:
    """Copy, and print where each run is."""
    for place in copy_runs(call.options.runs, call.options.to, force=call.options.force):
        say(f"copied: {place}")
    return 0


def run_import(call: Call[ImportFlags]) -> int:
    """Import, and print what a few rows say of the dictionary."""
    options = call.options
    if call.name is None or "SAE" not in call.words:
        raise ValueError(
            "import needs an experiment whose source the SAE is judged on: unbraid import FOLDER lm --source.model … "
            "(`unbraid list` shows experiments)"
        )
    source = experiments_of(call)[0].source
    run, fit, notes = import_run(
        Path(call.words["SAE"]), source, options.out, name=options.called, seed=options.seed, l0=options.l0,
        standard=options.role == "baseline",
    )  # fmt: skip
    for note in notes:
        say(f"note: {note}")
    say(f"at first sight: FVU {fit.fvu:.3f}, L0 {fit.l0:.1f}")
    say(f"written: {run.path}   next: unbraid eval {run.path} && unbraid report {options.out}/*")
    return 0
