"""Callbacks of training: what is called as it goes on, and adapters to progress bars and experiment trackers.

    train(study.experiments(), "runs", callbacks=[Progress(), WandB("my-project")])

A callback that raises an Exception is switched off for the rest of training, and said once in the log: a tracker that
breaks, as when the network is down, must not lose a run of hours. KeyboardInterrupt stops training as it always does.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unbraid.config.serialise import to_json
from unbraid.config.settings import shown
from unbraid.experiment.experiment import Experiment
from unbraid.system import notices
from unbraid.system.progress import ProgressDisplay


class Callback:
    """Base of callbacks: every method does nothing until a subclass overrides it."""

    def on_start(self, experiments: Sequence[Experiment], steps: int) -> None:
        """Training begins. `experiments`: those that are left to train; `steps`: of the longest."""

    def on_fit(self, experiment: Experiment, done: int, total: int) -> None:
        """An initialisation that takes a while, such as a fit of MELBO, has done so many of its steps."""

    def on_step(self, experiment: Experiment, step: int, tokens: int, metrics: Mapping[str, float]) -> None:
        """A row is logged. `step`: from 0; `tokens`: seen so far; `metrics`: by name, with `heldout/…` when held-out
        scores were measured (`Training.score_every`). A resumed run logs the steps after its checkpoint again."""

    def on_progress(self, done_tokens: int, total_tokens: int) -> None:
        """All experiments have made one more step."""

    def on_end(self, experiment: Experiment, folder: Path) -> None:
        """The finished run of an experiment is saved in `folder`."""

    def on_failure(self, experiment: Experiment, reason: str) -> None:
        """An experiment could not go on; the others do."""

    def on_close(self) -> None:
        """Training is over, whether it ended, failed or was interrupted. Called once, last."""


class Callbacks(Callback):
    """Several callbacks as one, which switches off those that raise."""

    def __init__(self, callbacks: object):
        """`callbacks`: a list of them, or one. Raises ValueError for what is no `Callback`."""
        given = [callbacks] if isinstance(callbacks, Callback) or not isinstance(callbacks, Sequence) else callbacks
        if wrong := next((each for each in given if not isinstance(each, Callback)), None):
            raise ValueError(f"{shown(wrong)} is no callback; give objects of subclasses of Callback: [Progress()]")
        self._active: list[Callback] = list(given)

    def on_start(self, experiments: Sequence[Experiment], steps: int) -> None:
        self._call("on_start", experiments, steps)

    def on_fit(self, experiment: Experiment, done: int, total: int) -> None:
        self._call("on_fit", experiment, done, total)

    def on_step(self, experiment: Experiment, step: int, tokens: int, metrics: Mapping[str, float]) -> None:
        self._call("on_step", experiment, step, tokens, metrics)

    def on_progress(self, done_tokens: int, total_tokens: int) -> None:
        self._call("on_progress", done_tokens, total_tokens)

    def on_end(self, experiment: Experiment, folder: Path) -> None:
        self._call("on_end", experiment, folder)

    def on_failure(self, experiment: Experiment, reason: str) -> None:
        self._call("on_failure", experiment, reason)

    def on_close(self) -> None:
        self._call("on_close")

    def _call(self, method: str, *arguments: Any) -> None:
        for callback in tuple(self._active):
            try:
                getattr(callback, method)(*arguments)
            except Exception as error:  # whatever a tracker raises
                self._active = [other for other in self._active if other is not callback]
                notices.log.warning(
                    "%s raised %s in %s and is switched off; training goes on without it: %s",
                    type(callback).__name__, type(error).__name__, method, error,
                )  # fmt: skip


class Progress(Callback):
    """Progress bars with the time left, or a line every half minute where there is no terminal."""

    def __init__(self) -> None:
        self._display = ProgressDisplay()
        self._what = "training"

    def on_start(self, experiments: Sequence[Experiment], steps: int) -> None:
        self._what = f"training {len(experiments)}"
        self._display.__enter__()

    def on_fit(self, experiment: Experiment, done: int, total: int) -> None:
        self._display(f"fitting {experiment.label}", "steps", done, total)

    def on_progress(self, done_tokens: int, total_tokens: int) -> None:
        self._display(self._what, "tokens", done_tokens, total_tokens)

    def on_close(self) -> None:
        self._display.__exit__(None, None, None)


class _Tracker(Callback):
    """Base of trackers that keep a run of their own for every experiment, by the name of its folder."""

    def __init__(self) -> None:
        self._runs: dict[str, Any] = {}

    def _open(self, experiment: Experiment) -> Any:
        raise NotImplementedError

    def _finish(self, run: Any) -> None:
        run.finish()

    def on_start(self, experiments: Sequence[Experiment], steps: int) -> None:
        for experiment in experiments:
            self._runs[experiment.folder] = self._open(experiment)

    def on_step(self, experiment: Experiment, step: int, tokens: int, metrics: Mapping[str, float]) -> None:
        self._runs[experiment.folder].log({**metrics, "tokens": tokens}, step=step)

    def on_close(self) -> None:
        while self._runs:
            self._finish(self._runs.popitem()[1])


class Trackio(_Tracker):
    """Logs every experiment as a run of a Trackio project (pip install 'unbraid[trackio]').

    `options`: further arguments of trackio.init, such as space_id. Raises ImportError when trackio is not installed.
    Trackio has one run open at a time: rows of all but the last experiment of a cohort are there once training ends.
    """

    def __init__(self, project: str, **options: Any):
        super().__init__()
        self._trackio, self._project, self._options = imported("trackio", "trackio"), project, options

    def _open(self, experiment: Experiment) -> Any:
        config = to_json(experiment)
        return self._trackio.init(project=self._project, name=experiment.folder, config=config, **self._options)


class WandB(_Tracker):
    """Logs every experiment as a run of a Weights & Biases project (pip install 'unbraid[wandb]').

    `options`: further arguments of wandb.init, such as entity or mode. Raises ImportError when wandb is not installed.
    """

    def __init__(self, project: str, **options: Any):
        super().__init__()
        # Runs of a cohort are open at the same time.
        self._wandb, self._options = imported("wandb", "wandb"), {"reinit": "create_new", **options}
        self._project = project

    def _open(self, experiment: Experiment) -> Any:
        config = to_json(experiment)
        return self._wandb.init(project=self._project, name=experiment.folder, config=config, **self._options)


class TensorBoard(_Tracker):
    """Writes event files for TensorBoard, a folder per experiment inside `folder` (pip install 'unbraid[tensorboard]').

    Raises ImportError when tensorboard is not installed.
    """

    def __init__(self, folder: str | Path):
        super().__init__()
        imported("tensorboard", "tensorboard")  # what torch's writer needs, without saying so
        self._writer, self._folder = imported("torch.utils.tensorboard", "tensorboard"), Path(folder)

    def _open(self, experiment: Experiment) -> Any:
        return self._writer.SummaryWriter(str(self._folder / experiment.folder))

    def _finish(self, run: Any) -> None:
        run.close()

    def on_step(self, experiment: Experiment, step: int, tokens: int, metrics: Mapping[str, float]) -> None:
        for name, value in {**metrics, "tokens": tokens}.items():
            self._runs[experiment.folder].add_scalar(name, value, step)


def imported(module: str, extra: str) -> Any:
    """The module. Raises ImportError, naming the extra that installs it, when it is not there."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} is not installed; install it with: pip install 'unbraid[{extra}]'") from error
