"""``classy-gc COMMAND …``: reads flags once, and turns errors into one line and an exit code.

``--help`` prints the tree of commands and flags without importing torch.
"""

import argparse
import contextlib
import functools
import importlib
import io
import logging
import os
import select
import sys
from collections.abc import Sequence
from typing import NoReturn

from classy_gc.commands import compare_flags, flags
from classy_gc.configuration.errors import user_error
from classy_gc.custom_imports import import_from_current_folder
from classy_gc.files import no_room


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose errors are one line, without the usage before it.

    Example:
        >>> Parser(prog="classy-gc").parse_args(["--no-such-flag"])
        Traceback (most recent call last):
        SystemExit: 2
    """

    def error(self, message: str) -> NoReturn:
        """Prints the message to stderr, on one line, and exits with code 2."""
        message = " ".join(message.split()).removeprefix("argument ")
        self.exit(2, f"{self.prog}: error: {message}\n")


#: of each command, what adds its flags; the docstrings say what the commands do
COMMANDS = {
    "configs": flags.add_configs_flags,
    "train": flags.add_train_flags,
    "param-groups": flags.add_param_groups_flags,
    "inspect": flags.add_inspect_flags,
    "compare": compare_flags.add_compare_flags,
    "compare-summary": compare_flags.add_compare_summary_flags,
    "schedules": flags.add_schedules_flags,
    "bench": flags.add_bench_flags,
    "polygonize": flags.add_polygonize_flags,
}


def build_parser() -> Parser:
    """The parser of ``classy-gc``, with all commands.

    The arguments that it returns have ``run``, the function of the command, and ``parser``, the
    command's own.

    Example:
        >>> build_parser().parse_args(["compare-summary", "a", "b"]).output
        'summary.png'
    """
    parser = Parser(prog="classy-gc", description="Gradient centralization for Classy Vision.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, add_flags in COMMANDS.items():
        help = " ".join((add_flags.__doc__ or "").split())
        command = commands.add_parser(name, help=help, description=help)
        add_flags(command.add_argument)
        command.set_defaults(run=functools.partial(_run, name), parser=command)
    return parser


def _run(command: str, args: argparse.Namespace) -> int:
    # Imported only now, so that --help and errors do not wait for torch.
    name = "compare.summary" if command == "compare-summary" else command.replace("-", "_")
    return importlib.import_module(f"classy_gc.commands.{name}").run(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the command and its flags (default: None, those of the process).

    Returns:
        The exit code.

    Raises:
        SystemExit: with code 2 and one line on stderr for bad flags, a bad config or a bad file;
            with 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError):  # a terminal that is also open for reading
                stream.reconfigure(errors="replace")  # a locale may lack ± or −
    args = build_parser().parse_args(argv)
    parser, run = args.parser, args.run
    del args.parser, args.run
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    import_from_current_folder()
    try:
        code = run(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as error:
        parser.exit(130, f"{parser.prog}: {error or 'interrupted'}\n")
    except Exception as error:
        _end(error, args, parser)
        raise


def _end(error: Exception, args: argparse.Namespace, parser: Parser) -> None:
    """Exits with one line, unless the error is a bug, or --debug asks for its traceback."""
    full = no_room(error)
    if full or _is_unread(error):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # it may be full
        parser.exit(1 if full else 0, f"{parser.prog}: error: {full}\n" if full else None)
    # What is missing may be Classy Vision.
    own = isinstance(error, (ValueError, ModuleNotFoundError)) or hasattr(error, "section")
    if own and not getattr(args, "debug", False):
        parser.error(user_error(error, getattr(args, "config", None)))


def _is_unread(error: Exception) -> bool:
    """Whether stdout is no longer read, as under ``| head``; any other broken pipe is an error."""
    if not isinstance(error, BrokenPipeError):
        return False
    stdout = select.poll()
    stdout.register(sys.stdout.fileno(), 0)
    return bool(stdout.poll(0))
