"""Classy Vision's ``progress_bar``, mended."""

from classy_vision.generic.distributed_util import is_primary
from classy_vision.hooks import ProgressBarHook
from classy_vision.tasks import ClassyTask


class FillingProgressBarHook(ProgressBarHook):
    """A ``progress_bar`` that fills; Classy Vision's starts at its end and never does.

    ``classy-gc train`` uses it instead. It needs ``progressbar2``.

    Example:
        >>> FillingProgressBarHook.name()
        'ProgressBarHook'
    """

    @classmethod
    def name(cls) -> str:
        return ProgressBarHook.name()

    def on_phase_start(self, task: ClassyTask) -> None:
        """Shows an empty bar on the primary rank, as long as the phase."""
        import progressbar

        if is_primary():
            self.bar_size, self.batches = task.num_batches_per_phase, 0
            prefix = f"{task.phase_type:<5} {task.train_phase_idx + 1} "
            self.progress_bar = progressbar.ProgressBar(max_value=self.bar_size, prefix=prefix)
            self.progress_bar.start()

    def on_step(self, task: ClassyTask) -> None:
        """Fills the bar by a batch."""
        if self.progress_bar is not None:
            self.batches += 1
            self.progress_bar.update(min(self.batches, self.bar_size))
