"""Files that are complete at any moment, and folders to write into."""

import errno
import fcntl
import logging
import os
import signal
from pathlib import Path

import pytest

from classy_gc.files import (
    atomic_write,
    check_folder,
    check_scheme,
    has_scheme,
    locked,
    no_room,
    temporary,
)
from tests import forked


def test_an_atomic_write_is_there_once_it_is_done(tmp_path):
    path = tmp_path / "numbers"
    path.write_text("old")
    with atomic_write(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [*tmp_path.iterdir()] == [path]


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "numbers"
    path.write_text("old")

    def interrupted():
        with atomic_write(path) as file:
            file.write(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


KILLED = """
import os, signal, sys
from pathlib import Path
from classy_gc.files import atomic_write
with atomic_write(Path(sys.argv[1])) as file:
    file.write(b"ne")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_leaves_the_old_file_and_the_next_write_clears_up(tmp_path):
    path = tmp_path / "numbers"
    path.write_text("old")
    (tmp_path / "there").mkdir()
    done = forked.run(forked.code, KILLED, str(path), cwd=tmp_path / "there")
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert temporary(path).read_text() == "ne"
    with atomic_write(path) as file:
        file.write(b"new")
    assert path.read_text() == "new"
    assert not temporary(path).exists()


def test_no_room_is_found_below_other_errors():
    full = OSError(errno.EDQUOT, "Disk quota exceeded")
    broken = RuntimeError("the archive is broken")
    broken.__cause__ = full
    assert no_room(broken) == "Disk quota exceeded"
    full.filename = "log.jsonl"
    assert no_room(broken) == "Disk quota exceeded: log.jsonl"
    assert not no_room(OSError(errno.ENOENT, "No such file"))
    assert not no_room(None)


@pytest.mark.parametrize(
    ("path", "scheme"),
    [("s3://bucket/run", True), ("file:run", False), ("/tmp/a:b", False), ("run", False)],
)
def test_schemes(path, scheme):
    assert has_scheme(path) == scheme
    assert has_scheme(Path(path)) == scheme
    if scheme:
        with pytest.raises(ValueError, match=r"--to must be a local folder, not 's3://bucket/run'"):
            check_folder(Path(path), "--to")
        with pytest.raises(ValueError, match=r"--to s3://bucket/run: no path handler .* for s3://"):
            check_scheme(path, "--to")
    else:
        check_scheme(path, "--to")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("file/below", "file is no writable folder (Not a directory)"),
        ("file", "file is no writable folder (Not a directory)"),
        ("x" * 300, "x is no writable folder (File name too long)"),
        ("/proc/run", "/proc is no writable folder ("),
    ],
    ids=["below a file", "file", "long", "proc"],
)
def test_folders_that_cannot_be_written(tmp_path, path, reason):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^--to ") as caught:
        check_folder(tmp_path / path, "--to")
    assert reason in str(caught.value)
    check_folder(tmp_path / "a" / "b", "--to")
    assert [*tmp_path.iterdir()] == [tmp_path / "file"]


def refusing(code):
    def refuse(*args):
        raise OSError(code, os.strerror(code))

    return refuse


# What Lustre, NFS and FUSE answer where they cannot.
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF])
def test_a_file_system_without_locks_is_told_once(tmp_path, monkeypatch, caplog, code):
    monkeypatch.setattr(fcntl, "flock", refusing(code))
    for _ in range(2):
        with locked(tmp_path):
            pass
    (record,) = caplog.records
    assert f"{tmp_path} cannot be locked ({os.strerror(code)})" in record.getMessage()


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_fsync_is_told_once(tmp_path, monkeypatch, caplog, code):
    monkeypatch.setattr(os, "fsync", refusing(code))
    for text in (b"first", b"second"):
        with atomic_write(tmp_path / "file") as file:
            file.write(text)
        assert (tmp_path / "file").read_bytes() == text
    (record,) = caplog.records
    assert (record.levelno, str(tmp_path) in record.getMessage()) == (logging.WARNING, True)


def test_a_disk_that_fails_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", refusing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"), atomic_write(tmp_path / "file") as f:
        f.write(b"lost")
    assert not [*tmp_path.iterdir()]


def test_a_lock_is_free_again_after_its_context(tmp_path):
    with locked(tmp_path), pytest.raises(ValueError, match="another run"), locked(tmp_path):
        pass
    with locked(tmp_path):
        assert not [*tmp_path.iterdir()]
