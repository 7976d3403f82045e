"""The command that writes activations to disk: of one site, or of several layers in one pass of the model."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unbraid.cli.arguments import CacheFlags
from unbraid.cli.calls import Call
from unbraid.cli.command_line import fail
from unbraid.cli.resolve import experiments_of
from unbraid.sources.base import Source, Split
from unbraid.sources.cache_files import EVAL_ROWS
from unbraid.sources.cached import write_cache, write_caches
from unbraid.sources.language_model.harvest import Harvest, at_layers
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.system.terminal import say


def run_cache(call: Call[CacheFlags]) -> int:
    """Write activations to disk."""
    from rich.progress import Progress as Bars

    options = call.options
    if options.to is None:
        return fail("cache needs a folder to write to: give one with --to FOLDER")
    experiment = experiments_of(call)[0]
    write, folders = writer(experiment.source, options.to, options.layers)
    wanted: dict[Split, int] = {"train": experiment.training.tokens, "eval": EVAL_ROWS}
    with Bars() as bars:
        for split, tokens in wanted.items():
            task = bars.add_task(f"{split} activations", total=tokens)
            see = lambda _, rows, total, task=task: bars.update(task, completed=rows, total=min(total, tokens))  # noqa: B023
            how = {"splits": [split], "dtype": options.stored, "progress": see}
            write(seed=experiment.data_seed, tokens=tokens, **how)
    for folder in folders:
        say(f"written: {folder}   train on it with `unbraid sweep cached --source.folder {folder}`")
    return 0


def writer(source: Source, folder: Path, layers: Sequence[str]) -> tuple[Callable[..., Any], list[Path]]:
    """Return what writes the caches of a source, and their folders. Raises ValueError for layers that are none."""
    if not layers:
        return lambda **how: write_cache(source, folder, **how), [folder]
    if not isinstance(source, LanguageModel):
        raise ValueError(f"--layers is for language models, and a {type(source).__name__} has none; leave it out")
    sources = at_layers(source, layers)
    caches: Mapping[str | Path, Source] = {folder / f"layer_{one.layer}": one for one in sources}
    harvest = Harvest(sources)
    return lambda **how: write_caches(caches, harvest.blocks, **how), [Path(place) for place in caches]
