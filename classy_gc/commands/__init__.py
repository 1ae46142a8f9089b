"""What a person types: ``classy-gc COMMAND …``, one module a command."""

from __future__ import annotations

import argparse
import importlib.util
import os
import select
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from classy_gc.files import check_local, nearest, no_room, no_room_text

#: command: what it does. The module of that name, with _ for -, has ``main(argv)``, which returns
#: the exit code.
COMMANDS = {
    "configs": "list the configs that the package ships, and copy them",
    "train": "train what a Classy Vision config describes",
    "param-groups": "print which parameter of a config gets which options",
    "inspect": "print what GC does, or would do, to each gradient of a config",
    "compare": "train a config several ways and tell differences from noise",
    "compare-summary": "draw the differences of several comparisons as one picture",
    "schedules": "draw the schedules of configs as one picture",
    "bench": "time the optimizers beside torch's own",
    "polygonize": "turn a map of buildings into polygons, refined with the GC optimizers",
}


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose errors are one line, without the usage before it.

    Example:
        >>> Parser(prog="classy-gc").parse_args(["--no-such-flag"])
        Traceback (most recent call last):
        SystemExit: 2
    """

    def error(self, message: str) -> NoReturn:
        """Prints the message to stderr, on one line, and exits with code 2."""
        message = " ".join(map(str.strip, message.splitlines()))
        self.exit(2, f"{self.prog}: error: {message}\n")


def show_progress(text: str) -> None:
    """Replaces the line on a terminal's stderr; prints nothing elsewhere.

    Args:
        text: the line, or nothing to clear it.
    """
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def check_least(args: argparse.Namespace, **least: int) -> None:
    """Refuses integers that are too small; one that nobody gave, None, is not.

    Args:
        args: with the flags.
        **least: flag: the smallest that is allowed.

    Raises:
        ValueError: naming the flag, what is allowed, and the value.

    Example:
        >>> check_least(argparse.Namespace(seeds=0), seeds=1)
        Traceback (most recent call last):
        ValueError: --seeds must be an integer >= 1, not 0
    """
    for flag, minimum in least.items():
        value = getattr(args, flag)
        if value is not None and value < minimum:
            raise ValueError(f"--{flag} must be an integer >= {minimum}, not {value}")


def check_output_folder(folder: Path) -> None:
    """Refuses a folder that cannot be made or written into, or is on no local disk.

    Args:
        folder: what ``--output_folder`` gives.

    Raises:
        ValueError: naming the folder, or the one above it that is there.

    Example:
        >>> check_output_folder(Path("/dev/null/results"))
        Traceback (most recent call last):
        ValueError: --output_folder /dev/null/results: /dev/null is no writable folder
    """
    check_local(folder, "--output_folder")
    there = nearest(folder)
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise ValueError(f"--output_folder {folder}: {there} is no writable folder")


def check_picture(path: str, flag: str = "--output") -> None:
    """Refuses what cannot become a picture, before anything is computed for it.

    Args:
        path: what the flag gives.
        flag: which it is (default: ``--output``)

    Raises:
        ValueError: no ``.png`` file, no folder to write it into, or no matplotlib to draw it.

    Example:
        >>> check_picture("bars.pdf")
        Traceback (most recent call last):
        ValueError: --output must be the path of a .png file, not 'bars.pdf'
    """
    file = Path(path)
    if file.suffix != ".png" or file.is_dir():
        raise ValueError(f"{flag} must be the path of a .png file, not {path!r}")
    if not file.parent.is_dir() or not os.access(file.parent, os.W_OK):
        raise ValueError(f"{flag} {path}: there is no writable folder {file.parent}")
    if not importlib.util.find_spec("matplotlib"):
        raise ValueError("the picture needs matplotlib: pip install 'classy-gc[examples]'")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the command and its arguments (default: None, those of the process).

    Returns:
        The exit code.
    """
    parser = Parser(
        prog="classy-gc",
        description="Gradient centralization for Classy Vision.",
        epilog="commands: "
        + "; ".join(f"{name}: {text}" for name, text in COMMANDS.items())
        + ". `classy-gc COMMAND --help` lists the flags of one.",
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="flags of the command")
    args = parser.parse_args(argv)
    # Imported only now, so that `classy-gc --help` does not wait for torch.
    module = args.command.replace("-", "_")
    try:
        code = importlib.import_module(f"classy_gc.commands.{module}").main(args.arguments)
        sys.stdout.flush()
        return code
    except ModuleNotFoundError as error:
        if error.name != "classy_vision":
            raise
        parser.error(f"{args.command} needs Classy Vision: pip install classy-vision")
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog} {args.command}: interrupted\n")
    except OSError as error:
        # That nobody reads stdout on, as under `| head`, is no error; another broken pipe is one.
        stdout = select.poll()
        stdout.register(sys.stdout.fileno(), 0)
        unread = isinstance(error, BrokenPipeError) and stdout.poll(0)
        full = no_room(error)
        if not (unread or full):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # it may be what is full
        if full:
            parser.exit(1, f"{parser.prog} {args.command}: error: {no_room_text(full)}\n")
        return 0
