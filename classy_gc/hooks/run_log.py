"""The common base of hooks that log to an experiment tracker."""

from __future__ import annotations

import importlib
import io
import logging
from abc import abstractmethod
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from classy_vision.generic.distributed_util import is_primary
from PIL import Image

from classy_gc.hooks.phase_record import PhaseRecordHook, flat_meters
from classy_gc.hooks.training_curves import TrainingCurvesHook


class RunLogHook(PhaseRecordHook):
    """Base of hooks that send a run to an experiment tracker: config, phases, measures, a picture.

    A resumed training continues the tracked run of its checkpoint. Only the primary rank logs.

    Args:
        library: of the tracker; imported here and not before.
        **options: of the hook.

    Raises:
        ValueError: the library is not installed.
    """

    def __init__(self, library: str, **options: Any) -> None:
        super().__init__(**options)
        try:
            self.library: ModuleType = importlib.import_module(library)
        except ImportError as error:
            raise ValueError(
                f"hook '{library}_log' needs {library}: pip install 'classy-gc[{library}]'"
            ) from error
        self.state.run_id = None

    @abstractmethod
    def start(self, config: Mapping[str, Any], run_id: str | None) -> str:
        """Starts or continues a run, and returns its id.

        Args:
            config: of the task.
            run_id: of the run to continue; None starts a new one.
        """

    @abstractmethod
    def log(self, values: Mapping[str, float], epoch: float, step: int) -> None:
        """Logs numbers.

        Args:
            values: by name.
            epoch: how much has been trained, in epochs.
            step: how many batches have been trained.
        """

    @abstractmethod
    def finish(self, curves: Image.Image | None) -> None:
        """Ends the run.

        Args:
            curves: the picture of the curves, or None.
        """

    def on_start(self, task: Any) -> None:
        """Starts a run, or continues that of the checkpoint."""
        if is_primary():
            self.state.run_id = self.start(getattr(task, "_config", {}), self.state.run_id)

    def on_phase_end(self, task: Any) -> None:
        """Logs loss, meters and scheduled options of the phase."""
        record = self.record(task)
        if record and is_primary():
            values = {"loss": record["loss"], **flat_meters(record["meters"]), **record["options"]}
            named = {f"{record['phase']}/{name}": value for name, value in values.items()}
            self.log(named, record["epoch"], task.num_updates // task.get_global_batchsize())

    def on_end(self, task: Any) -> None:
        """Logs the picture of the run's ``training_curves``, if it has them, and ends the run."""
        if not is_primary():
            return
        curves = next((hook for hook in task.hooks if isinstance(hook, TrainingCurvesHook)), None)
        picture = None
        try:
            if curves and curves.state.history:
                file = io.BytesIO()
                curves.figure().savefig(file, format="png", dpi=150)
                picture = Image.open(file)
        except ImportError:
            logging.info("no picture without matplotlib: pip install 'classy-gc[examples]'")
        self.finish(picture)
