"""Opening what a path names: a pipe, a device, a folder or a sparse file ends in one sentence, at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from finance_assets.regular_files import UnreadableFileError, check_regular, open_regular, read_regular

pytestmark = pytest.mark.timeout(5)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 50 << 30)


def _loop(path: Path) -> None:
    path.symlink_to(path)


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe": (_pipe, "is no regular file: it is a named pipe; name a file"),
    "folder": (Path.mkdir, "is no regular file: it is a folder"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is no regular file: it is a device"),
    "dangling": (lambda path: path.symlink_to("gone"), "is a symbolic link to a file that is not there"),
    "loop": (_loop, "cannot be read: "),
    "missing": (lambda path: None, "cannot be read: No such file"),
    "sparse": (_sparse, "is a sparse file: 0 of its 53,687,091,200 bytes"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("entrance", [check_regular, open_regular, lambda path: read_regular(path, max_bytes=1 << 40)])
def test_what_is_no_file_is_refused_at_once(entrance: Callable[[Path], object], fault: str, tmp_path: Path) -> None:
    make, said = FAULTS[fault]
    path = tmp_path / "n\nb"
    make(path)
    with pytest.raises(UnreadableFileError) as raised:
        entrance(path)
    assert str(raised.value).startswith(f"{tmp_path}/n\\nb ")
    assert said in str(raised.value)


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _socket(Path("s"))
    with pytest.raises(UnreadableFileError, match="it is a socket"):
        read_regular("s", max_bytes=10)


def test_a_link_is_followed_where_that_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", max_bytes=3) == b"abc"
    with pytest.raises(UnreadableFileError, match="it is a symbolic link"):
        read_regular(tmp_path / "link", max_bytes=3, follow_links=False)


def test_the_size_is_capped_even_where_the_file_system_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abcd")
    with pytest.raises(UnreadableFileError, match="is too large: 4 bytes, of which at most 3"):
        read_regular(tmp_path / "file", max_bytes=3)
    # A file of /proc says that it has no bytes.
    assert read_regular("/proc/self/status", max_bytes=1 << 20)
    with pytest.raises(UnreadableFileError, match="is too large"):
        read_regular("/proc/self/status", max_bytes=10)


def test_a_file_that_was_swapped_for_a_pipe_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pipe(tmp_path / "p")
    monkeypatch.setattr("finance_assets.regular_files.check_regular", lambda *_, **__: None)
    with pytest.raises(UnreadableFileError, match="it is a named pipe"):
        open_regular(tmp_path / "p")
