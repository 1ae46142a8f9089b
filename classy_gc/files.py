"""Folders to write into, and files that are always complete, even after a kill."""

import errno
import fcntl
import functools
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# The disk is full, the user's quota is used up, or the file is too large.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def has_scheme(path: str | Path) -> bool:
    """Whether a path goes through Classy Vision's path manager, such as ``s3://bucket/run``.

    Example:
        >>> has_scheme("s3://bucket/run"), has_scheme(Path("s3://bucket/run")), has_scheme("a:/b")
        (True, True, False)
    """
    slashes = "/" if isinstance(path, Path) else "//"  # a Path drops one slash
    return re.match(rf"[A-Za-z][\w+.-]*:{slashes}", os.fspath(path)) is not None


def check_scheme(path: str, label: str) -> None:
    """Refuses a path that Classy Vision's path manager would take for a local one.

    Args:
        path: with or without a scheme.
        label: names its source in messages.

    Raises:
        ValueError: no handler of the scheme is registered.

    Source: https://github.com/facebookresearch/iopath; Classy Vision's ``generic/util.py``.

    Example:
        >>> check_scheme("s3://bucket/run", "--checkpoint_folder")
        Traceback (most recent call last):
        ValueError: --checkpoint_folder s3://bucket/run: no path handler is registered for s3://; \
import a module that registers one with fvcore's PathManager (custom_imports)
    """
    from fvcore.common.file_io import PathManager  # the core does not need it

    handler = PathManager._PathManager__get_path_handler(path)
    if has_scheme(path) and handler is PathManager._native_path_handler:
        scheme = f"{path.partition('://')[0]}://"
        remedy = "import a module that registers one with fvcore's PathManager (custom_imports)"
        raise ValueError(f"{label} {path}: no path handler is registered for {scheme}; {remedy}")


def no_room(error: BaseException | None) -> str:
    """The message of a full disk in an error or its causes; empty if there is none.

    Args:
        error: caught while files were written.

    Returns:
        The reason, and the file if it is known.

    Example:
        >>> no_room(ValueError())
        ''
        >>> no_room(OSError(errno.ENOSPC, "No space left on device", "log.jsonl"))
        'No space left on device: log.jsonl'
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return ": ".join(text for text in (error.strerror, error.filename) if text)
        error = error.__cause__ or error.__context__
    return ""


def check_folder(folder: Path, label: str) -> None:
    """Refuses a folder that cannot be created or written to, or that is not local.

    Args:
        folder: it need not exist, and is not created.
        label: names its source in messages.

    Raises:
        ValueError: with the folder, and its nearest existing parent.

    Example:
        >>> check_folder(Path("/dev/null/results"), "--output_folder")
        Traceback (most recent call last):
        ValueError: --output_folder /dev/null/results: /dev/null is no writable folder (Not a
        directory)
    """
    if has_scheme(folder):
        text = re.sub(r":/+", "://", os.fspath(folder), count=1)
        raise ValueError(f"{label} must be a local folder, not {text!r}")
    there = folder
    try:
        there = next(p for p in (folder, *folder.parents) if p.exists())
        tempfile.TemporaryFile(dir=there).close()  # permissions alone do not tell for root
    except OSError as error:
        reason = f"{there} is no writable folder ({error.strerror})"
        raise ValueError(f"{label} {folder}: {reason}") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other processes that lock the same folder out of it; a kill releases the lock.

    If the file system has no locks, a warning says so.

    Args:
        path: of an existing folder or file.

    Raises:
        ValueError: another process holds the lock.

    Source: https://man7.org/linux/man-pages/man2/flock.2.html

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> with locked(folder), locked(folder):
        ...     pass
        Traceback (most recent call last):
        ValueError: /tmp/...: another run writes there now
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ValueError(f"{path}: another run writes there now") from None
    except OSError as error:
        warn_once(f"{path} cannot be locked ({error.strerror}): let one run at a time write there")
    try:
        yield
    finally:
        os.close(descriptor)


@functools.cache
def warn_once(text: str) -> None:
    """Logs a warning, the first time that a process has it."""
    logging.warning(text)


def temporary(path: Path) -> Path:
    """The temporary file that :func:`atomic_write` writes before it becomes ``path``."""
    return path.with_name(f".{path.name}.tmp")


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Opens a file to write that replaces ``path`` once it is complete and on the disk.

    A kill at any moment leaves the old file or the new one, and perhaps a temporary file,
    which the next write overwrites. An error in the ``with`` block leaves the old file.

    Args:
        path: of the file; its folder exists.

    Source: https://man7.org/linux/man-pages/man2/fsync.2.html, for the folder too.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "numbers")
        >>> with atomic_write(path) as file:
        ...     _ = file.write(b"1 2 3")
        ...     path.exists()
        False
        >>> path.read_text(), temporary(path).exists()
        ('1 2 3', False)
    """
    new = temporary(path)
    try:
        with new.open("wb") as file:
            yield file
        _sync(new, path.parent)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    _sync(path.parent, path.parent)


def _sync(path: Path, folder: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk, as the command ``sync`` does.

    If the file system cannot do so, a warning says it of the folder.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno == errno.EIO or no_room(error):
            raise
        warn_once(f"{folder}: a crash of the machine may lose what is written ({error.strerror})")
    finally:
        os.close(descriptor)
