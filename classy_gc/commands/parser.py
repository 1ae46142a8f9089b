"""The tree of commands and flags, which ``--help`` prints without importing torch."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from classy_gc.commands import compare_flags, flags


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


class Command(NamedTuple):
    """A command: the module of its name, with ``_`` for ``-``, has ``run(args)``."""

    help: str
    add_flags: Callable[[Parser], None]
    more: str = ""  #: further help of ``classy-gc COMMAND --help``
    module: str = ""  #: the module, if it has another name


COMMANDS = {
    "configs": Command("list, copy or print the shipped configs", flags.add_configs_flags),
    "train": Command("train a Classy Vision config", flags.add_train_flags),
    "param-groups": Command("print the options of each parameter", flags.add_param_groups_flags),
    "inspect": Command(
        "print what GC does, or would do, to each gradient of a config",
        flags.add_inspect_flags,
        "It runs a few training batches, and prints which gradients GC centralizes, and which "
        "share of their energy it removes. It trains and saves nothing.",
    ),
    "compare": Command(
        "train a config several ways and tell differences from noise",
        compare_flags.add_compare_flags,
        "It trains every config with every combination of --arm and --vary, and with every seed. "
        "Seeds are paired: the same one gives the same initial weights and order of the data in "
        "all arms. Arms are compared with the first arm of their config file; the first values "
        "are the baseline. After an interruption, the same command continues.",
    ),
    "compare-summary": Command(
        "draw the differences of several comparisons as one picture",
        compare_flags.add_compare_summary_flags,
        module="compare.summary",
    ),
    "schedules": Command("draw schedules, and print their values", flags.add_schedules_flags),
    "bench": Command(
        "time the optimizers beside torch's own",
        flags.add_bench_flags,
        "It times one step of each GC optimizer, and measures the memory it takes; or, with "
        "--config_file, it times whole training steps.",
    ),
    "polygonize": Command(
        "turn a map of buildings into polygons with straight walls", flags.add_polygonize_flags
    ),
}


def command_parser(command: str, parser: Parser | None = None) -> Parser:
    """The parser of one command, with its flags.

    Args:
        command: its name.
        parser: to add them to (default: a new one).

    Example:
        >>> command_parser("inspect").get_default("batches")
        8
    """
    parser = parser or Parser(prog=f"classy-gc {command}")
    COMMANDS[command].add_flags(parser)

    def run(args: argparse.Namespace) -> int:
        # Imported only now, so that --help and errors do not wait for torch.
        name = COMMANDS[command].module or command.replace("-", "_")
        return importlib.import_module(f"classy_gc.commands.{name}").run(args)

    parser.set_defaults(run=run, parser=parser)
    return parser


def build_parser() -> Parser:
    """The parser of ``classy-gc``, with all commands.

    Example:
        >>> build_parser().parse_args(["compare-summary", "a", "b"]).output
        'summary.png'
    """
    parser = Parser(prog="classy-gc", description="Gradient centralization for Classy Vision.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, x in COMMANDS.items():
        about = f"{x.help[0].upper()}{x.help[1:]}. {x.more}"
        command_parser(name, commands.add_parser(name, help=x.help, description=about))
    return parser
