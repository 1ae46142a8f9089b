"""The common base of hooks that log to an experiment tracker."""

import importlib
from abc import abstractmethod
from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar

from classy_vision.generic.distributed_util import is_primary

from classy_gc.hooks.phase_record import PhaseRecordHook, flat_meters
from classy_gc.hooks.training_curves import TrainingCurvesHook
from classy_gc.options import check_installed


class RunLogHook(PhaseRecordHook):
    """Base of hooks that send a run to an experiment tracker: config, phases, measures, a picture.

    A resumed training continues the tracked run of its checkpoint. Only the primary rank logs. The
    ``LIBRARY`` of the tracker is imported by the constructor and not before.

    Args:
        **options: of the hook.

    Raises:
        ValueError: the library is not installed.
    """

    LIBRARY: ClassVar[str]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        check_installed(self.LIBRARY, f"hook '{self.LIBRARY}_log'", extra=self.LIBRARY)
        self.library: ModuleType = importlib.import_module(self.LIBRARY)
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
    def finish(self, curves: Any) -> None:
        """Ends the run.

        Args:
            curves: a ``matplotlib`` Figure, or None.
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
        if is_primary():
            hook = next((hook for hook in task.hooks if isinstance(hook, TrainingCurvesHook)), None)
            self.finish(hook.figure() if hook else None)
