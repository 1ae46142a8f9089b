"""``classy-gc COMMAND …``: one module or package a command, and one tree of flags."""

from __future__ import annotations

import importlib
import io
import os
import select
import sys
from collections.abc import Sequence

from classy_gc.commands.parser import COMMANDS, command_parser, command_tree
from classy_gc.files import no_room


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the command and its flags (default: None, those of the process).

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # where a locale lacks ± or −
    argv = list(sys.argv[1:] if argv is None else argv)
    command = argv[0] if argv else ""
    parser, parsers = command_tree()
    if command not in parsers:
        parser.parse_args(argv)  # which ends here
    try:
        command_parser(command).parse_args(argv[1:])
        # Imported only now, so that --help and errors do not wait for torch.
        name = COMMANDS[command].module or command.replace("-", "_")
        module = importlib.import_module(f"classy_gc.commands.{name}")
        code = module.main(argv[1:])
        sys.stdout.flush()
        return code
    except ModuleNotFoundError as error:
        if error.name != "classy_vision":
            raise
        parser.error(f"{command} needs Classy Vision: pip install classy-vision")
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog} {command}: interrupted\n")
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
            parser.exit(1, f"{parser.prog} {command}: error: {full}\n")
        return 0
