"""``provenance``: what a run was computed with."""

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from classy_vision.hooks import register_hook

from classy_gc.hooks.checked_hook import CheckedHook
from classy_gc.hooks.json_log import write_line

_CHECKOUT = Path(__file__).parents[2]


def provenance() -> dict[str, Any]:
    """What the numbers of a run depend on, besides its config and seed.

    Returns:
        ``torch`` and ``classy_gc`` (versions), ``commit`` of the package (with ``-dirty`` if files
        differ from it; None outside a checkout), ``processor``, ``vector_units`` (those that
        torch's kernels use, since others round differently), ``gpu`` (None without one) and
        ``threads`` of torch.

    Example:
        >>> sorted(provenance())
        ['classy_gc', 'commit', 'gpu', 'processor', 'threads', 'torch', 'vector_units']
    """
    return {
        "torch": torch.__version__,
        "classy_gc": sys.modules["classy_gc"].__version__,
        "commit": _commit(),
        "processor": _processor(),
        "vector_units": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }


def _commit() -> str | None:
    # Without a .git of its own, git would find a repository around it.
    if not (_CHECKOUT / ".git").exists() or shutil.which("git") is None:
        return None
    command = ["git", "-C", str(_CHECKOUT), "describe", "--always", "--dirty", "--abbrev=40"]
    done = subprocess.run([*command, "--exclude", "*"], capture_output=True, text=True)
    return done.stdout.strip() or None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    model = re.search(r"model name\s*: (.*)", text)
    return model[1] if model else platform.processor()


@register_hook("provenance")
class ProvenanceHook(CheckedHook):
    """``provenance``: a line of ``log.jsonl`` says what the run was computed with.

    .. code-block:: json

        {"kind": "provenance", "torch": "2.9.0", "vector_units": "AVX2", "threads": 1}

    A resumed run adds another line. Nothing is written if the task has no ``json_log`` hook;
    ``classy-gc train`` always has one.

    Raises:
        ValueError: an unknown key.

    Source: :func:`provenance` describes all fields.

    Example:
        >>> from classy_vision.hooks import build_hook
        >>> type(build_hook({"name": "provenance"})).__name__
        'ProvenanceHook'
    """

    _written = False

    def on_phase_start(self, task: Any) -> None:
        """Writes the line at the start of the first phase, when the log is open."""
        if not self._written:
            self._written = True
            write_line(task, "provenance", **provenance())
