"""``predictions``: which test samples a run gets right in the end."""

from typing import Any

import torch
from classy_vision.generic.distributed_util import gather_from_all
from classy_vision.hooks import register_hook
from torch.utils.data import DistributedSampler

from classy_gc.hooks.checked_hook import CheckedHook
from classy_gc.hooks.json_log import write_line


@register_hook("predictions")
class PredictionsHook(CheckedHook):
    """``predictions``: a line of ``log.jsonl`` says which samples the last test got right.

    .. code-block:: json

        {"kind": "predictions", "correct": "1101"}

    One digit per test sample, in the order of the dataset and each sample once, however many
    processes share them: 1 where the class with the highest score is the target. Two runs tested on
    the same samples can then be compared sample by sample, as ``classy-gc compare`` does. Nothing
    is written if the outputs are not scores per sample and class, if samples are not drawn by
    torch's ``DistributedSampler``, as in Classy Vision's datasets, or if the task has no
    ``json_log`` hook; ``classy-gc train`` always has one.

    Raises:
        ValueError: an unknown key.

    Source: paired outcomes, McNemar, *Note on the sampling error of the difference between
    correlated proportions or percentages*, Psychometrika 12 (1947).

    Example:
        >>> from classy_vision.hooks import build_hook
        >>> type(build_hook({"name": "predictions"})).__name__
        'PredictionsHook'
    """

    def on_start(self, task: Any) -> None:
        """Forgets an earlier run."""
        self._by_index: dict[int, int] = {}

    def on_phase_start(self, task: Any) -> None:
        """Forgets the previous phase."""
        self._correct: list[torch.Tensor] = []

    def on_step(self, task: Any) -> None:
        """Compares a test batch with its targets."""
        output, target = task.last_batch.output, task.last_batch.target
        if not task.train and output.ndim == 2 and target.shape == output.shape[:1]:
            self._correct.append(output.argmax(1) == target)

    def on_phase_end(self, task: Any) -> None:
        """Merges the test of all processes in the order of the samples; the last test counts."""
        sampler = getattr(task.dataloader, "sampler", None)
        if self._correct and isinstance(sampler, DistributedSampler):
            correct = torch.cat(self._correct)
            indices = torch.tensor(list(sampler)[: len(correct)], device=correct.device)
            # Samples that the sampler adds to give all processes equally many occur twice.
            pairs = zip(*(gather_from_all(x).tolist() for x in (indices, correct)), strict=True)
            self._by_index = {index: int(right) for index, right in pairs}

    def on_end(self, task: Any) -> None:
        """Writes the line."""
        if self._by_index:
            correct = "".join(str(right) for _, right in sorted(self._by_index.items()))
            write_line(task, "predictions", correct=correct)
