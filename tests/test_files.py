"""Files that are complete whenever somebody looks, and folders to write into."""

import errno
import signal
from pathlib import Path

import pytest

from classy_gc.files import (
    atomic_write,
    check_local,
    check_scheme,
    first_existing,
    has_scheme,
    no_room,
    temporary,
    writing,
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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is needed")
def test_a_full_disk_names_the_file():
    path = Path("/dev/full")
    with (
        pytest.raises(OSError, match="No space left") as caught,
        writing(path),
        path.open("w") as f,
    ):
        f.write("x")
    assert caught.value.filename == "/dev/full"
    assert no_room(caught.value) is caught.value


def test_no_room_is_found_below_other_errors():
    full = OSError(errno.EDQUOT, "Disk quota exceeded")
    broken = RuntimeError("the archive is broken")
    broken.__cause__ = full
    assert no_room(broken) is full
    assert no_room(OSError(errno.ENOENT, "No such file")) is None
    assert no_room(None) is None


@pytest.mark.parametrize(
    ("path", "scheme"),
    [("s3://bucket/run", True), ("file:run", False), ("/tmp/a:b", False), ("run", False)],
)
def test_schemes(path, scheme):
    assert has_scheme(path) == scheme
    assert has_scheme(Path(path)) == scheme
    if scheme:
        with pytest.raises(ValueError, match=r"--to must be a local folder, not 's3://bucket/run'"):
            check_local(Path(path), "--to")
        with pytest.raises(ValueError, match=r"--to s3://bucket/run: no path handler .* for s3://"):
            check_scheme(path, "--to")
    else:
        check_local(path, "--to")
        check_scheme(path, "--to")


def test_the_first_folder_that_exists(tmp_path):
    assert first_existing(tmp_path / "a" / "b") == tmp_path
    (tmp_path / "a").touch()
    assert first_existing(tmp_path / "a") == tmp_path / "a"
