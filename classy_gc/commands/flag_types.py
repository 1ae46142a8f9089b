"""Checks the values of flags before torch is imported."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from classy_gc.configuration.load import read_config
from classy_gc.configuration.settings import parse_setting
from classy_gc.files import check_folder

T = TypeVar("T")


def flag_type(read: Callable[[str], T]) -> Callable[[str], T]:
    """The ``type=`` of a flag; argparse prints its errors unchanged.

    Args:
        read: reads the text.
    """

    @functools.wraps(read)
    def checked(text: str) -> T:
        try:
            return read(text)
        except (ValueError, OSError) as error:  # such as a name that is too long
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked


def integer(least: int, most: float = math.inf) -> Callable[[str], int]:
    """The type of an integer.

    Args:
        least: the smallest allowed integer.
        most: the largest (default: any).

    Example:
        >>> integer(1)("0")
        Traceback (most recent call last):
        argparse.ArgumentTypeError: must be an integer >= 1, not 0
    """

    def read(text: str) -> int:
        value = int(text) if text.lstrip("+-").isdecimal() else text
        if isinstance(value, str) or not least <= value <= most:
            allowed = f">= {least}" if most == math.inf else f"from {least} to {most}"
            raise ValueError(f"must be an integer {allowed}, not {value!r}")
        return value

    return flag_type(read)


#: as in NumPy: https://numpy.org/doc/stable/reference/random/legacy.html, *RandomState*
seed = integer(0, 2**32 - 1)

setting = flag_type(parse_setting)


def _one_of_several() -> bool:
    """Whether this is one of several processes, which tell later what is on their disks."""
    return "RANK" in os.environ


@flag_type
def config_file(text: str) -> str:
    """The path of a config that can be read, with its bases."""
    if not _one_of_several():
        read_config(text)
    return text


@flag_type
def output_folder(text: str) -> str:
    """A local folder that can be created and written to; or nothing.

    Example:
        >>> output_folder("/dev/null/results")
        Traceback (most recent call last):
        argparse.ArgumentTypeError: folder /dev/null/results: /dev/null is no writable folder ...
    """
    if not _one_of_several():
        check_folder(Path(text), "folder")
    return text


def output_path(text: str) -> Path:
    """:func:`output_folder`, as a path."""
    return Path(output_folder(text))


@flag_type
def picture(text: str) -> str:
    """A ``.png`` file that can be written and, with matplotlib, drawn.

    Example:
        >>> picture("bars.pdf")
        Traceback (most recent call last):
        argparse.ArgumentTypeError: must be the path of a .png file, not 'bars.pdf'
    """
    file = Path(text)
    if file.suffix != ".png" or file.is_dir():
        raise ValueError(f"must be the path of a .png file, not {text!r}")
    if not file.parent.is_dir() or not os.access(file.parent, os.W_OK):
        raise ValueError(f"{text}: there is no writable folder {file.parent}")
    if not importlib.util.find_spec("matplotlib"):
        raise ValueError(f"{text} needs matplotlib: pip install 'classy-gc[examples]'")
    return text


def utf8(text: str) -> str:
    r"""The text of a name; letters that the locale lacks are read as UTF-8.

    Example:
        >>> utf8("caf\udcc3\udca9")
        'café'
    """
    return text.encode(errors="surrogateescape").decode(errors="replace")


class Target(NamedTuple):
    """The value of a test meter whose first epoch is reported."""

    meter: str
    value: float
    lower: bool = False  #: whether lower is better


@flag_type
def target(text: str) -> Target:
    """A meter and its value.

    Example:
        >>> target("accuracy/top_1=0.97")
        Target(meter='accuracy/top_1', value=0.97, lower=False)
    """
    meter, _, value = text.rpartition("=")
    name = meter.removesuffix("<").removesuffix(">")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not name or not math.isfinite(number):
        raise ValueError(
            f"{text!r} must be METER=NUMBER, such as accuracy/top_1=0.97, or METER<=NUMBER where "
            "lower is better"
        )
    return Target(name, number, meter.endswith("<"))


@flag_type
def seeds(text: str) -> range:
    """A number of seeds, or a range of them.

    Example:
        >>> seeds("3"), seeds("100-102")
        (range(0, 3), range(100, 103))
    """
    first, dash, last = text.partition("-")
    numbers = range(0)
    if first.isdecimal() and (last.isdecimal() or not dash):
        numbers = range(int(first), int(last) + 1) if dash else range(int(first))
    if not numbers or numbers[-1] >= 2**32:
        raise ValueError(f"{text!r} must be a number of seeds >= 1, or a range such as 100-102")
    return numbers
