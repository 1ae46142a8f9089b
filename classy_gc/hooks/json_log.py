"""``json_log``: one line of JSON per phase."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from classy_vision.generic.distributed_util import is_primary
from classy_vision.hooks import register_hook

from classy_gc.files import atomic_write
from classy_gc.hooks.phase_record import FOLDER, PhaseRecordHook, trained_epochs


@register_hook("json_log")
class JSONLogHook(PhaseRecordHook):
    """``json_log``: appends a line to ``log.jsonl`` at the end of every phase.

    .. code-block:: json

        {"kind": "phase", "phase": "train", "epoch": 2.0, "loss": 0.31,
         "meters": {"accuracy": {"top_1": 0.97}}, "options": {"lr": 0.1, "momentum": 0.9},
         "seconds": 1.25}

    ``epoch`` is how much has been trained. ``options`` are those of the last step, see
    :func:`classy_gc.hooks.phase_record.scheduled_options`; they are empty for a test phase. Other
    hooks add lines of other kinds with :func:`write_line`.

    The log is of one run and has each phase once. A run from the beginning empties an existing log,
    a resumed run removes what it will write again, and a test-only run appends.

    Args:
        folder (str or Path): where ``log.jsonl`` goes; created if necessary (default: ``.``)

    Raises:
        ValueError: an unknown key, or a folder that is not a local path.

    Source: https://jsonlines.org. JSON has no NaN and no infinity: they become null.

    Example:
        >>> from classy_vision.hooks import build_hook
        >>> build_hook({"name": "json_log", "folder": "digits"}).path.as_posix()
        'digits/log.jsonl'
    """

    OPTIONS: ClassVar = {"folder": (".", FOLDER)}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.path = Path(self.folder) / "log.jsonl"

    def on_start(self, task: Any) -> None:
        """Creates the folder, and removes the lines from the first phase on that is not over."""
        if not is_primary():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not getattr(task, "test_only", False) and self.path.exists():
            lines = self.path.read_bytes().splitlines(keepends=True)
            # An epoch is trained first, then tested.
            done = trained_epochs(task), not task.train
            kept = 0
            for i, line in enumerate(lines, 1):
                place = _place(line)
                if place and place > done:
                    break
                if place:
                    kept = i
            with atomic_write(self.path) as file:
                file.writelines(lines[:kept])

    def on_phase_start(self, task: Any) -> None:
        """Starts the clock."""
        self._start = time.perf_counter()

    def on_phase_end(self, task: Any) -> None:
        """Writes the line of the phase."""
        record = self.record(task)
        if record:
            write_line(task, "phase", **record, seconds=time.perf_counter() - self._start)


def write_line(task: Any, kind: str, **fields: Any) -> None:
    """Adds a line to the log of a task's ``json_log``, if the task has one, on the primary rank.

    Args:
        task: with its hooks, from the start of the first phase on.
        kind: of the line.
        **fields: the other fields: numbers, strings, None, lists and dicts; tensors of one element
            become numbers.
    """
    for hook in task.hooks:
        if isinstance(hook, JSONLogHook) and is_primary():
            line = json.dumps(as_json({"kind": kind, **fields}), allow_nan=False)
            with hook.path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")


def _place(line: bytes) -> tuple[float, bool] | None:
    """The epoch of a phase, and whether it is a test; None for a line of another kind."""
    try:
        record = json.loads(line)
        return (float(record["epoch"]), record["phase"] == "test")
    except (ValueError, TypeError, KeyError, RecursionError):
        return None  # maybe cut short by a full disk


def as_json(value: Any) -> Any:
    """Converts a value to one that JSON can hold; NaN and infinity become None.

    Args:
        value: numbers, strings, None, tensors or arrays of one element, and lists and dicts of
            these.

    Example:
        >>> as_json({"loss": float("nan"), "top": (1, 0.5)})
        {'loss': None, 'top': [1, 0.5]}
    """
    if isinstance(value, Mapping):
        return {str(k): as_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(v) for v in value]
    if hasattr(value, "item"):  # tensors and NumPy's numbers
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
