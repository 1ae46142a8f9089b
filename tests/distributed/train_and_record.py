"""``classy-gc train`` with a hook that keeps the weights of every rank and phase."""

import sys

import torch
from classy_vision.generic.distributed_util import get_rank
from classy_vision.hooks import ClassyHook, register_hook

from classy_gc.commands import main


@register_hook("recorded_weights")
class RecordedWeights(ClassyHook):
    """Writes ``weights_RANK.pt``: those at the start, and after each training phase."""

    on_phase_start = ClassyHook._noop
    on_step = ClassyHook._noop

    @classmethod
    def from_config(cls, config):
        return cls()

    def on_start(self, task):
        self.weights = []
        self._record(task)

    def on_phase_end(self, task):
        if task.train:
            self._record(task)

    def on_end(self, task):
        torch.save(self.weights, f"weights_{get_rank()}.pt")

    def _record(self, task):
        self.weights.append([p.detach().clone() for p in task.base_model.parameters()])


if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
