"""The crew that a command's flags ask for: processes of this machine, or of a cluster's."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from unbraid.cli.arguments import EvalFlags, Parallel, StudyFlags, SweepFlags, TrainFlags
from unbraid.cli.resolve import packages, permissions
from unbraid.cli.workers import Crew, cores, crew_here
from unbraid.experiment.experiment import Experiment

MOST = 8
"""Processes a core, at most: more only take memory."""


def check_crew(options: Parallel) -> None:
    """Raise ValueError for a crew that cannot be had, as far as that shows at once."""
    if options.ray:
        from unbraid.cli import ray_cluster  # Ray is an extra

        ray_cluster.check_found(options.ray)
    elif options.workers > MOST * cores():
        raise ValueError(f"--workers {options.workers} is too many for {cores()} cores; {MOST * cores()} is the most")


@contextmanager
def crew_of(
    options: TrainFlags | SweepFlags | StudyFlags | EvalFlags,
    folders: Sequence[Path],
    experiments: Sequence[Experiment] = (),
) -> Iterator[Crew]:
    """Context manager of the crew. Raises ValueError where it cannot be had. `folders`: those that it reads and writes;
    `experiments`: those that it trains."""
    if options.ray:
        from unbraid.cli import ray_cluster

        wanted = ray_cluster.Wanted(
            options.ray, options.workers, options.threads, folders, packages(options), permissions(options)
        )
        with ray_cluster.crew(wanted, experiments) as found:
            yield found
        return
    check_crew(options)
    yield crew_here(options.workers, options.threads)
