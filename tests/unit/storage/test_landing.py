"""The landing zone: what lies there and is whole, on disk and on S3."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from finance_assets.storage.lake import LakeError
from finance_assets.storage.landing import QUIET, LandedFile, Landing

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
