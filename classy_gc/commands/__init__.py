"""The command line: ``classy-gc COMMAND …``."""

from classy_gc.commands.cli import main

__all__ = ["main"]
