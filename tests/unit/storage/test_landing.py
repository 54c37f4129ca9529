"""The landing zone: what lies there and is whole, on disk and on S3."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fixtures.landing_zone import put_bad_entries, put_deep_folder, put_odd_names

from finance_assets.storage.lake import LakeError
from finance_assets.storage.landing import QUIET, ChangedError, LandedFile, Landing, printable_key, time_of

NOW = datetime(2013, 3, 1, 12, tzinfo=UTC)


def put(folder: Path, key: str, data: bytes = b"x", written: datetime = NOW - timedelta(hours=1)) -> Path:
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (written.timestamp(), written.timestamp()))
    return path


def keys(files: list[LandedFile]) -> list[str]:
    return [file.identity.key for file in files]


def test_a_folder_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    assert Landing(str(tmp_path / "none")).listing() == []


def test_files_of_any_depth_are_listed_with_what_identifies_them(tmp_path: Path) -> None:
    put(tmp_path, "vendor/2013/b.csv", b"abc")
    put(tmp_path, "a.csv")
    first, second = Landing(str(tmp_path)).listing()
    assert (first.identity.key, second.identity.key) == ("a.csv", "vendor/2013/b.csv")
    assert (second.identity.size, second.modified) == (3, NOW - timedelta(hours=1))
    assert second.identity.fingerprint == f"mtime:{int((NOW - timedelta(hours=1)).timestamp())}000000000"


def test_a_file_that_changes_is_another_file(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv")
    (before,) = Landing(str(tmp_path)).listing()
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000))
    (after,) = Landing(str(tmp_path)).listing()
    assert before.identity != after.identity


@pytest.mark.parametrize(
    "key", [".hidden", "_marker", "a.csv.part", "a.csv.tmp", "~$book.xlsx", "a.csv~", ".git/config", "a.crdownload"]
)
def test_hidden_and_temporary_files_are_nobodys_data(tmp_path: Path, key: str) -> None:
    put(tmp_path, key)
    assert Landing(str(tmp_path)).listing() == []


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    outside = put(tmp_path, "outside/secret.csv")
    folder = tmp_path / "landing"
    folder.mkdir()
    (folder / "link.csv").symlink_to(outside)
    assert Landing(str(folder)).listing() == []


def test_a_file_that_is_still_written_is_left_until_it_is_quiet(tmp_path: Path) -> None:
    put(tmp_path, "new.csv", written=NOW - QUIET / 2)
    put(tmp_path, "old.csv", written=NOW - QUIET)
    landing = Landing(str(tmp_path))
    assert keys(landing.whole(NOW)) == ["old.csv"]
    assert keys(landing.whole(NOW + QUIET)) == ["new.csv", "old.csv"]


def test_what_is_read_is_what_was_put_there(tmp_path: Path) -> None:
    put(tmp_path, "vendor/a.csv", b"\x00\xffabc")
    landing = Landing(str(tmp_path))
    assert landing.read("vendor/a.csv") == b"\x00\xffabc"
    with pytest.raises(LakeError, match=r"none\.csv in .* cannot be read: No such file"):
        landing.read("none.csv")


def test_the_path_of_a_file_is_where_it_was_put(tmp_path: Path) -> None:
    path = put(tmp_path, "vendor/a.csv")
    landing = Landing(str(tmp_path))
    assert landing.path("vendor/a.csv") == path
    assert landing.path("none.csv") == tmp_path / "none.csv", "whether it is there, whoever opens it learns"


@pytest.mark.parametrize(
    "key", ["../secret.csv", "a/../../secret.csv", "{outside}/secret.csv", "link.csv", "folder/secret.csv"]
)
def test_no_key_leads_out_of_the_landing_zone(tmp_path: Path, key: str) -> None:
    put(tmp_path, "secret.csv")
    folder = tmp_path / "landing"
    put(folder, "a/b.csv")
    (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    (folder / "folder").symlink_to(tmp_path)
    landing = Landing(str(folder))
    for reach in (landing.path, landing.read):
        with pytest.raises(LakeError, match=f"leads out of {folder}"):
            reach(key.format(outside=tmp_path))


def test_a_landing_zone_may_itself_be_a_link(tmp_path: Path) -> None:
    put(tmp_path, "real/a.csv", b"abc")
    (tmp_path / "landing").symlink_to(tmp_path / "real")
    landing = Landing(str(tmp_path / "landing"))
    assert landing.path("a.csv").read_bytes() == landing.read("a.csv") == b"abc"


def test_a_listing_that_fails_is_an_error_and_not_an_empty_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(LakeError, match="cannot be listed"):
        Landing(str(tmp_path)).listing()


def test_every_bad_entry_is_refused_and_the_good_ones_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "landing"
    folder.mkdir()
    put(folder, "good.csv")
    put(folder, "deep/good.csv")
    bad = put_bad_entries(folder, tmp_path / "outside")
    odd = put_odd_names(folder, b"A")
    files, refused = Landing(str(folder)).survey()
    assert sorted(keys(files)) == sorted(["good.csv", "deep/good.csv", *odd])
    assert {entry.key: entry.reason.partition(":")[0] for entry in refused} == bad
    assert len({entry.digest for entry in refused}) == len(refused)
    assert all(entry.key.encode().decode().isprintable() and entry.what_to_do for entry in refused)
    assert Landing(str(folder)).survey() == (files, refused), "the same each time"


def test_a_folder_with_the_end_of_a_temporary_name_is_looked_into(tmp_path: Path) -> None:
    put(tmp_path, "incoming.tmp/a.csv")
    put(tmp_path, "incoming.tmp/.hidden/a.csv")
    assert keys(Landing(str(tmp_path)).listing()) == ["incoming.tmp/a.csv"]


@pytest.mark.parametrize("call", ["stat", "open", "scandir"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE, errno.ESTALE])
def test_an_entry_that_cannot_be_looked_at_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    put(tmp_path, "a.csv")
    put(tmp_path, "closed/b.csv")
    put(tmp_path, "z.csv")
    real = getattr(os, call)
    closed = (tmp_path / "closed").stat().st_ino

    def refuse(path: object, *arguments: object, **named: object) -> object:
        if path == "closed" or (call == "scandir" and isinstance(path, int) and os.fstat(path).st_ino == closed):
            raise OSError(number, os.strerror(number))
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, call, refuse)
    files, refused = Landing(str(tmp_path)).survey()
    assert keys(files) == ["a.csv", "z.csv"]
    (entry,) = refused
    assert entry.key.rstrip("/") == "closed"
    assert os.strerror(number) in entry.reason


def test_listing_leaves_no_folder_open(tmp_path: Path) -> None:
    put_deep_folder(tmp_path / "deep", 90)
    open_before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        Landing(str(tmp_path)).survey()
    assert len(os.listdir("/proc/self/fd")) == open_before


@pytest.mark.parametrize("seconds", [10**13, -(10**13), 2**62 // 10**9, -(2**62) // 10**9, 253_402_300_800])
def test_a_time_that_no_timestamp_holds_is_the_nearest_that_one_does(seconds: int) -> None:
    found = time_of(seconds * 10**9)
    assert found.tzinfo is UTC
    assert (found > NOW) == (seconds > 0)
    assert found + timedelta(days=1) > found - timedelta(days=1), "there is room to reckon with it"
    assert time_of(1_362_139_200_000_001_999) == datetime(2013, 3, 1, 12, 0, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_what_is_no_file_any_more_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.csv"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        put(tmp_path, "b.csv")
        path.symlink_to("b.csv")
    with pytest.raises(LakeError):
        Landing(str(tmp_path)).read("a.csv")


@pytest.mark.parametrize("change", ["grows", "shrinks", "is replaced"])
def test_a_file_that_is_another_than_was_listed_is_told(tmp_path: Path, change: str) -> None:
    path = put(tmp_path, "a.csv", b"0123456789")
    landing = Landing(str(tmp_path))
    (file,) = landing.listing()
    assert landing.read_version(file.identity) == b"0123456789"
    assert landing.has_settled(file)
    if change == "grows":
        path.write_bytes(b"0123456789ab")
    elif change == "shrinks":
        os.truncate(path, 3)
    else:
        put(tmp_path, "b.csv", b"9876543210", NOW).replace(path)
    with pytest.raises(ChangedError):
        landing.read_version(file.identity)
    assert not landing.has_settled(file)
    path.unlink()
    assert not landing.has_settled(file)


def test_no_two_keys_look_alike(tmp_path: Path) -> None:
    names = [os.fsdecode(name) for name in (b"\xe9", b"\xe9\\xe9", b"\\\xe9", b"\xe9\xe9", b"\n", b"\\n\n", b"\n\\n")]
    shown = [printable_key(name) for name in names]
    assert len(set(shown)) == len(names)
    assert all(one.isprintable() for one in shown)
    assert printable_key("plain\\é name.csv") == "plain\\é name.csv"
