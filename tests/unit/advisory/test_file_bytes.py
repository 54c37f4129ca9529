"""A file on a disk stands for its bytes: slices and streams of it are those of the bytes.

What belongs here: `FileBytes` by itself; what is read from one is compared in ``test_reading_large``.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from fixtures.vendor_files import on_disk

from finance_assets.advisory.reading.containers import FileBytes
from finance_assets.advisory.reading.reader import digest_of

CONTENT = random.Random(3).randbytes(100_000)


@pytest.fixture
def file() -> Iterator[FileBytes]:
    with on_disk(CONTENT) as made:
        yield made


@pytest.mark.parametrize(
    "part",
    [
        slice(None),
        slice(0, 10),
        slice(99_990, None),
        slice(-10, None),
        slice(-10, -4),
        slice(None, -99_990),
        slice(-200_000, 5),
        slice(99_000, 200_000),
        slice(100_000, None),
        slice(150_000, 160_000),
        slice(7, 7),
        slice(9, 3),
    ],
)
def test_a_slice_is_that_of_the_bytes(part: slice, file: FileBytes) -> None:
    assert file[part] == CONTENT[part]


def test_what_a_system_call_gives_in_pieces_is_one_slice(file: FileBytes, monkeypatch: pytest.MonkeyPatch) -> None:
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, size, place: pread(descriptor, min(size, 7_001), place))
    assert file[3:50_000] == CONTENT[3:50_000]


def test_an_empty_file_has_no_bytes() -> None:
    with on_disk(b"") as file:
        assert (len(file), file[:], file[-5:], file.opened().read()) == (0, b"", b"", b"")


def test_the_content_after_a_beginning_counts_from_there(file: FileBytes) -> None:
    rest = file.after(3)
    for found, expected in ((rest, CONTENT[3:]), (rest.after(40_000), CONTENT[40_003:])):
        assert len(found) == len(expected)
        assert (found[:], found[:9], found[-9:]) == (expected, expected[:9], expected[-9:])
        assert found.opened().read() == expected
        assert digest_of(found) == hashlib.sha256(expected).hexdigest()
    assert len(file.after(len(CONTENT))) == 0
    assert len(file) == len(CONTENT), "the file itself is as it was"


def test_a_stream_reads_and_seeks_as_that_of_the_bytes(file: FileBytes) -> None:
    chance = random.Random(8)
    whole = io.BytesIO(CONTENT[1_000:])
    buffer, expected = bytearray(20_000), bytearray(20_000)
    with file.after(1_000).opened() as stream:
        assert stream.readable()
        assert stream.seekable()
        assert not stream.writable()
        for _ in range(300):
            whence = chance.choice((io.SEEK_SET, io.SEEK_CUR, io.SEEK_END))
            aim = chance.randrange(len(CONTENT) + 5_000)
            offset = aim - {io.SEEK_SET: 0, io.SEEK_CUR: whole.tell(), io.SEEK_END: len(CONTENT) - 1_000}[whence]
            assert stream.seek(offset, whence) == whole.seek(offset, whence) == stream.tell()
            size = chance.randrange(20_000)
            assert stream.read(size) == whole.read(size)
            assert stream.readinto(buffer) == whole.readinto(expected)
            assert buffer == expected
        stream.seek(0)
        assert stream.read() == CONTENT[1_000:]
        assert stream.read() == b""


def test_a_stream_begins_no_earlier_than_the_content(file: FileBytes) -> None:
    with file.after(1_000).opened() as stream, pytest.raises((OSError, ValueError)):
        stream.seek(-500)


def test_streams_have_places_of_their_own(file: FileBytes) -> None:
    with file.opened() as one, file.opened() as other:
        assert one.read(10_000) == CONTENT[:10_000]
        assert other.read(10) == CONTENT[:10]
        other.seek(50_000)
        assert one.read(10_000) == CONTENT[10_000:20_000]
    # Closing them leaves the file open.
    assert file[:5] == CONTENT[:5]


def test_threads_read_side_by_side(file: FileBytes) -> None:
    def read(seed: int) -> bool:
        chance = random.Random(seed)
        with closing(file.opened()) as stream:
            for _ in range(200):
                start, size = chance.randrange(len(CONTENT)), chance.randrange(20_000)
                stream.seek(start)
                if not stream.read(size) == file[start : start + size] == CONTENT[start : start + size]:
                    return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(16)))


def test_the_sha256_is_that_of_the_bytes(file: FileBytes) -> None:
    assert digest_of(file) == digest_of(CONTENT) == hashlib.sha256(CONTENT).hexdigest()


def test_a_file_that_is_cut_while_it_is_read_gives_an_error_and_no_shorter_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with path.open("rb") as opened:
        cut = FileBytes(opened.fileno())
        os.truncate(path, 60_000)
        assert cut[:60_000] == CONTENT[:60_000]
        for read in (
            lambda: cut[:],
            lambda: cut[59_000:61_000],
            lambda: cut[-1:],
            lambda: cut.opened().read(),
            lambda: digest_of(cut),
        ):
            with pytest.raises(OSError, match="was cut while it was being read"):
                read()
