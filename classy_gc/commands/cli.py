"""``classy-gc COMMAND …``: reads flags once, and turns errors into one line and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import select
import sys
from collections.abc import Sequence

from classy_gc.commands.parser import Parser, build_parser
from classy_gc.configuration.errors import user_error
from classy_gc.custom_imports import import_from_current_folder
from classy_gc.files import no_room


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
