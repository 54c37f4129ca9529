"""The lake on a folder: whole files, the same bytes for the same rows, and nothing read that is not there."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from fixtures.rows import good_row, table_of

import finance_assets.storage.lake.files as lake_files
from finance_assets.contracts import CONTRACTS
from finance_assets.contracts.arrow import conform, storage_schema
from finance_assets.contracts.market import CORPORATE_ACTIONS, INSTRUMENTS, QUOTES, TRADING_SESSIONS
from finance_assets.contracts.model import Column, Contract, ContractError
from finance_assets.storage.lake import (
    LANDING_FOLDER,
    TEMPORARY_FOLDER,
    AlreadyThereError,
    Lake,
    LakeError,
    NotSortedError,
    WriterOptions,
    encoding,
    landed_files,
    local_files,
    parquet_bytes,
    table_reader,
)
from finance_assets.storage.writers import WriterBusyError, single_writer

DAYS = ("2013-01-02", "2013-01-03", "2013-01-04")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture(params=["whole", "scanned"])
def either(request: pytest.FixtureRequest, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A lake that reads its files whole, and one that takes them all for large ones."""
    if request.param == "scanned":
        monkeypatch.setattr(table_reader, "WHOLE_FILE_BYTES", 0)
    return lake


def quotes(days: Sequence[str] = DAYS, symbols: int = 3, **changes: Any) -> pa.Table:
    """Quotes of some symbols on each day, in no useful order."""
    rows = [
        good_row(
            QUOTES,
            symbol=f"S{number}",
            session_date=date.fromisoformat(day),
            close=Decimal(f"{10 + number}.12345678"),
            open=None,
            high=None,
            low=None,
            **changes,
        )
        for number in reversed(range(symbols))
        for day in days
    ]
    return table_of(QUOTES, *rows)


def sessions(count: int, shift: int = 0) -> pa.Table:
    rows = [
        good_row(TRADING_SESSIONS, session_date=date(2000, 1, 1) + timedelta(days=place + shift), session_ordinal=place)
        for place in range(count)
    ]
    return table_of(TRADING_SESSIONS, *rows)


def dividends(*days: str) -> pa.Table:
    return table_of(CORPORATE_ACTIONS, *(good_row(CORPORATE_ACTIONS, ex_date=date.fromisoformat(day)) for day in days))


def shuffled(table: pa.Table, seed: int) -> pa.Table:
    taken = table.take(pa.array(np.random.default_rng(seed).permutation(table.num_rows)))
    return pa.Table.from_batches(taken.to_batches(max_chunksize=7), schema=taken.schema).select(
        sorted(taken.column_names)
    )


def files(lake: Lake) -> dict[str, bytes]:
    root = Path(lake.root)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# -- writing -------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_exactly(either: Lake) -> None:
    table = table_of(
        INSTRUMENTS,
        good_row(INSTRUMENTS, eps=Decimal("-0.00000001"), pe_ratio=0.1),
        good_row(INSTRUMENTS, symbol="^GSPC", eps=Decimal("9999999999.99999999"), gics_sector=None, pe_ratio=None),
    )
    size = either.write(INSTRUMENTS, table)
    path = Path(either.file(INSTRUMENTS))
    assert path == Path(either.root) / "raw" / "instruments" / "data.parquet"
    assert size == path.stat().st_size
    read = either.read(INSTRUMENTS)
    assert read.table.equals(conform(INSTRUMENTS, table))
    assert (read.missing, read.keys, read.outdated) == ((), ("data",), {})

    instant = datetime(2013, 1, 2, 21, 30, 0, 123456, tzinfo=UTC)
    either.write(TRADING_SESSIONS, table_of(TRADING_SESSIONS, good_row(TRADING_SESSIONS, close_ts_utc=instant)))
    assert either.read(TRADING_SESSIONS).table.column("close_ts_utc").to_pylist() == [instant]


@pytest.mark.parametrize("count", [0, 1, 200, 3000])
def test_the_same_rows_in_any_order_give_the_same_bytes(lake: Lake, count: int) -> None:
    lake.write(TRADING_SESSIONS, sessions(count))
    first = files(lake)
    assert len(first) == 1
    for seed in range(2):
        lake.write(TRADING_SESSIONS, shuffled(sessions(count), seed))
        assert files(lake) == first


def test_the_same_partitions_in_any_order_give_the_same_bytes(lake: Lake) -> None:
    table = quotes(symbols=5)
    lake.write_partitions(QUOTES, table, DAYS)
    first = files(lake)
    for seed in range(2):
        lake.write_partitions(QUOTES, shuffled(table, seed), DAYS[::-1])
        assert files(lake) == first
    one = quotes(DAYS[1:2], symbols=5)
    lake.write_partitions(QUOTES, shuffled(one, 5), DAYS[1:2])
    assert files(lake) == first, "a partition by itself is the same file as in a range"


def test_rows_that_break_their_key_give_the_same_bytes_too(lake: Lake) -> None:
    rows = [good_row(QUOTES, volume=volume) for volume in (5, 1, 3)]
    for ordered in (rows, rows[::-1]):
        lake.write_partitions(QUOTES, table_of(QUOTES, *ordered), ["2013-02-28"])
        kept = files(lake)
    assert lake.read(QUOTES).table.column("volume").to_pylist() == [1, 3, 5]
    lake.write_partitions(QUOTES, table_of(QUOTES, *rows), ["2013-02-28"])
    assert files(lake) == kept


def test_another_wording_of_the_contract_changes_no_byte(lake: Lake) -> None:
    lake.write(TRADING_SESSIONS, sessions(3))
    first = files(lake)
    first_column, *others = TRADING_SESSIONS.columns
    reworded = replace(TRADING_SESSIONS, columns=(replace(first_column, description="Otherwise.", unit="x"), *others))
    lake.write(reworded, sessions(3))
    assert files(lake) == first


def test_a_large_table_has_row_groups_with_statistics(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "ROW_GROUP_ROWS", 1000)
    lake.write(TRADING_SESSIONS, shuffled(sessions(2500), 1))
    metadata = pq.read_metadata(lake.file(TRADING_SESSIONS))
    assert metadata.num_row_groups == 3
    spans = [metadata.row_group(place).column(0).statistics for place in range(3)]
    assert all(before.max < after.min for before, after in zip(spans, spans[1:], strict=False))


def test_each_partition_is_a_file_and_one_without_rows_an_empty_one(lake: Lake) -> None:
    written = lake.write_partitions(QUOTES, quotes(DAYS[:2]), [*DAYS, DAYS[0]])
    assert written == {DAYS[0]: 3, DAYS[1]: 3, DAYS[2]: 0}
    assert lake.partitions(QUOTES) == list(DAYS)
    assert lake.row_counts(QUOTES) == written
    empty = pq.read_table(lake.file(QUOTES, DAYS[2]))
    assert empty.schema.equals(storage_schema(QUOTES))
    assert set(files(lake)) == {f"core/quotes/{day}.parquet" for day in DAYS}


def test_a_rerun_replaces_a_partition_whole_and_no_other(lake: Lake) -> None:
    lake.write_partitions(QUOTES, quotes(), DAYS)
    before = files(lake)
    lake.write_partitions(QUOTES, quotes(DAYS[1:2], symbols=1), DAYS[1:2])
    assert lake.row_counts(QUOTES) == {DAYS[0]: 3, DAYS[1]: 1, DAYS[2]: 3}
    after = files(lake)
    assert [name for name in after if after[name] != before[name]] == [f"core/quotes/{DAYS[1]}.parquet"]


def test_a_sparse_table_has_no_file_for_no_rows_unless_it_had_some(lake: Lake) -> None:
    lake.write_partitions(CORPORATE_ACTIONS, dividends(DAYS[1]), DAYS)
    assert lake.partitions(CORPORATE_ACTIONS) == [DAYS[1]]
    lake.write_partitions(CORPORATE_ACTIONS, dividends(), DAYS)
    assert lake.row_counts(CORPORATE_ACTIONS) == {DAYS[1]: 0}
    read = lake.read(CORPORATE_ACTIONS, keys=DAYS)
    assert (read.table.num_rows, read.missing) == (0, ())

    rare = replace(INSTRUMENTS, name="rare", sparse=True)
    assert lake.write(rare, table_of(rare)) == 0
    assert lake.partitions(rare) == []
    lake.write(rare, table_of(rare, good_row(rare)))
    lake.write(rare, table_of(rare))
    assert lake.row_counts(rare) == {"data": 0}


def test_a_row_of_another_partition_is_refused_and_nothing_is_written(lake: Lake) -> None:
    lake.write_partitions(QUOTES, quotes(DAYS[:1]), DAYS[:1])
    before = files(lake)
    with pytest.raises(LakeError, match=r"core/quotes: rows for 2 partitions .* the first '2013-01-03'; nothing was"):
        lake.write_partitions(QUOTES, quotes(symbols=9), DAYS[:1])
    assert files(lake) == before


def test_a_row_of_no_partition_is_refused(lake: Lake) -> None:
    table = pa.concat_tables([quotes(), table_of(QUOTES, good_row(QUOTES, session_date=None))])
    with pytest.raises(LakeError, match=r"core/quotes: 1 rows have no session_date, so they belong to no partition"):
        lake.write_partitions(QUOTES, table, DAYS)
    assert files(lake) == {}


def test_a_table_that_breaks_the_contracts_types_is_refused_and_nothing_is_written(lake: Lake) -> None:
    table = quotes()
    third = table.set_column(table.column_names.index("close"), "close", pa.array([1 / 3] * 9))
    with pytest.raises(ContractError, match=r"core/quotes\.close: 0\.333"):
        lake.write_partitions(QUOTES, third, DAYS)
    assert files(lake) == {}


UNSAFE = ["../secrets", "a/b", "", ".", "..", ".hidden", "a\n", "/etc/passwd", "x\0y", "C:\\x", "tür", "^GSPC", "a b"]


@pytest.mark.parametrize("key", UNSAFE)
def test_a_key_that_is_no_plain_name_is_refused_before_anything_is_written(lake: Lake, key: str) -> None:
    with pytest.raises(LakeError, match="cannot name a file"):
        lake.file(QUOTES, key)
    with pytest.raises(LakeError, match="cannot name a file"):
        lake.write(TRADING_SESSIONS, sessions(1), key)
    with pytest.raises(LakeError, match="cannot name a file"):
        lake.write_partitions(QUOTES, quotes(), [*DAYS, key])
    assert files(lake) == {}


@pytest.mark.parametrize("key", ["2013-01-02", "a", "vendor=x_1.2+3", "0"])
def test_a_plain_name_is_a_key(lake: Lake, key: str) -> None:
    lake.write(TRADING_SESSIONS, sessions(1), key)
    assert lake.partitions(TRADING_SESSIONS) == [key]
    assert lake.row_counts(TRADING_SESSIONS) == {key: 1}


def test_each_kind_of_table_has_its_own_way_to_be_written(lake: Lake) -> None:
    with pytest.raises(LakeError, match="core/quotes is partitioned by session_date; use write_partitions"):
        lake.write(QUOTES, quotes(), DAYS[0])
    with pytest.raises(LakeError, match="raw/trading_sessions is not partitioned; use write"):
        lake.write_partitions(TRADING_SESSIONS, sessions(1), ["data"])
    assert files(lake) == {}


# -- durability ----------------------------------------------------------------------------------------------


def steps_on_disk(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what fills up with what is made durable from now on."""
    steps: list[str] = []
    sync, move = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        steps.append(f"sync {'folder' if os.path.isdir(path) else 'file'}")
        sync(descriptor)

    def rename(source: str, target: str) -> None:
        steps.append("rename")
        assert os.path.dirname(source) == os.path.join(lake.root, TEMPORARY_FOLDER)
        move(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    return steps


def test_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_return(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.write_partitions(QUOTES, quotes(), DAYS)
    steps = steps_on_disk(lake, monkeypatch)
    lake.put(lake.file(QUOTES, DAYS[0]), b"PAR1")
    assert steps == ["sync file", "rename", "sync folder"]

    steps.clear()
    monkeypatch.setattr(lake_files, "WRITERS", 1)
    lake.write_partitions(QUOTES, quotes(), DAYS)
    assert steps == ["sync file", "rename"] * 3 + ["sync folder"], "the folder once for all its files"


def test_new_folders_are_durable_too(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = local_files.sync_folder
    monkeypatch.setattr(local_files, "sync_folder", lambda folder: (synced.append(folder), real(folder)))
    lake.put(f"{lake.root}/a/b/file", b"x")
    above = os.path.dirname(lake.root)
    assert {above, lake.root, f"{lake.root}/a", f"{lake.root}/a/b"} <= set(synced)


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    lake.write(TRADING_SESSIONS, sessions(2))
    before = files(lake)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, fails, full)
        with pytest.raises(OSError, match="No space left"):
            lake.write(TRADING_SESSIONS, sessions(3))
    assert files(lake) == before
    lake.write(TRADING_SESSIONS, sessions(3))
    assert lake.row_counts(TRADING_SESSIONS) == {"data": 3}


def test_after_an_error_no_other_partition_is_begun(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    days = [f"2013-01-{day:02}" for day in range(1, 32)]
    begun: list[str] = []

    def broken(self: Lake, path: str, data: bytes) -> None:
        begun.append(path)
        raise OSError("the disk is gone")

    monkeypatch.setattr(Lake, "_replace_file", broken)
    monkeypatch.setattr(lake_files, "WRITERS", 2)
    with pytest.raises(OSError, match="the disk is gone"):
        lake.write_partitions(QUOTES, quotes(days, symbols=1), days)
    assert len(begun) < len(days)


def test_what_a_dead_writer_left_is_swept_and_what_a_live_one_writes_is_not(lake: Lake) -> None:
    folder = Path(lake.root) / TEMPORARY_FOLDER
    folder.mkdir(parents=True)
    (folder / "of-the-dead").write_bytes(b"half a fi")
    living = folder / "of-the-living"
    with living.open("wb") as file:
        # A lock belongs to whoever opened the file: no process id that could be another's by now, nor of another machine.
        fcntl.flock(file, fcntl.LOCK_EX)
        lake.write(TRADING_SESSIONS, sessions(1))
        assert [path.name for path in folder.iterdir()] == ["of-the-living"]
    Lake(lake.root).write(TRADING_SESSIONS, sessions(1))
    assert list(folder.iterdir()) == []


def test_a_file_that_is_swept_before_it_is_locked_is_made_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, swept = local_files.lock_file, []

    def after_the_sweeper(descriptor: int) -> bool | None:
        if not swept:
            swept.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            os.unlink(swept[0])
        return lock(descriptor)

    monkeypatch.setattr(local_files, "lock_file", after_the_sweeper)
    lake.write(TRADING_SESSIONS, sessions(2))
    assert swept
    assert lake.row_counts(TRADING_SESSIONS) == {"data": 2}


def test_a_file_system_without_locks_can_be_written_and_is_not_swept(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    folder = Path(lake.root) / TEMPORARY_FOLDER
    folder.mkdir(parents=True)
    (folder / "somebodys").write_bytes(b"half a fi")
    lake.write(TRADING_SESSIONS, sessions(2))
    assert [path.name for path in folder.iterdir()] == ["somebodys"]


def test_a_temporary_folder_that_somebody_tidied_away_is_made_again(lake: Lake) -> None:
    lake.write(TRADING_SESSIONS, sessions(1))
    (Path(lake.root) / TEMPORARY_FOLDER).rmdir()
    lake.write(TRADING_SESSIONS, sessions(2))
    assert lake.row_counts(TRADING_SESSIONS) == {"data": 2}


# -- landed bytes --------------------------------------------------------------------------------------------


def test_landed_bytes_are_kept_once_under_their_sha256(lake: Lake) -> None:
    page = b'{"Note": "as it came"}\x00\xff'
    digest = lake.land(page, "market", "alpha_vantage", suffix=".json.gz")
    assert digest == hashlib.sha256(page).hexdigest()
    path = Path(lake.root) / LANDING_FOLDER / "market" / "alpha_vantage" / f"{digest}.json.gz"
    assert str(path) == lake.landed_path(digest, "market", "alpha_vantage", suffix=".json.gz")
    assert path.read_bytes() == page == lake.get(str(path))
    before = path.stat().st_ino
    assert lake.land(page, "market", "alpha_vantage", suffix=".json.gz") == digest
    assert path.stat().st_ino == before, "what is there is not written again"


@pytest.mark.parametrize(
    ("digest", "parts", "suffix"),
    [
        ("../../x", ("market",), ""),
        ("0" * 64, ("..",), ""),
        ("0" * 64, ("market", "a/b"), ""),
        ("0" * 64, ("market",), "/../x"),
        ("0" * 64, ("market",), ".json/"),
    ],
)
def test_landed_bytes_stay_in_their_folder(lake: Lake, digest: str, parts: tuple[str, ...], suffix: str) -> None:
    with pytest.raises(LakeError, match="cannot name"):
        lake.landed_path(digest, *parts, suffix=suffix)


# -- files on their way into the lake ------------------------------------------------------------------------

ARRIVING = b"account_id,period_end\n" + b"A1,2013-01-31\n" * 5_000
ARRIVING_DIGEST = hashlib.sha256(ARRIVING).hexdigest()
KEPT_AS = f"{LANDING_FOLDER}/vendor_files/{ARRIVING_DIGEST}"


@pytest.fixture
def arriving(tmp_path: Path) -> Path:
    """A file of others, outside of the lake."""
    path = tmp_path / "theirs.csv"
    path.write_bytes(ARRIVING)
    return path


def whole(descriptor: int) -> bytes:
    return os.pread(descriptor, 2 * len(ARRIVING), 0)


def test_a_file_is_kept_under_its_sha256_and_can_still_be_read(lake: Lake, arriving: Path) -> None:
    with lake.stage_file(arriving) as copy:
        # What others do to theirs changes nothing.
        arriving.write_bytes(b"another file")
        assert whole(copy.descriptor) == ARRIVING
        assert list(files(lake).values()) == [ARRIVING]
        copy.keep(ARRIVING_DIGEST, "vendor_files")
        assert files(lake) == {KEPT_AS: ARRIVING}
        assert whole(copy.descriptor) == ARRIVING
    assert files(lake) == {KEPT_AS: ARRIVING}
    assert lake.landed_path(ARRIVING_DIGEST, "vendor_files") == f"{lake.root}/{KEPT_AS}"
    assert arriving.read_bytes() == b"another file"


def test_a_file_that_is_not_kept_leaves_nothing(lake: Lake, arriving: Path) -> None:
    with lake.stage_file(arriving):
        pass
    assert files(lake) == {}
    with pytest.raises(ValueError, match="no verdict"), lake.stage_file(arriving):
        raise ValueError("no verdict")
    assert files(lake) == {}
    assert arriving.read_bytes() == ARRIVING


@pytest.mark.parametrize("before", ["landed", "arrived", "kept twice"])
def test_what_is_kept_already_is_kept_once(lake: Lake, arriving: Path, before: str) -> None:
    if before == "landed":
        lake.land(ARRIVING, "vendor_files")
    elif before == "arrived":
        with lake.stage_file(arriving) as copy:
            copy.keep(ARRIVING_DIGEST, "vendor_files")
    with lake.stage_file(arriving) as copy:
        if before == "kept twice":
            copy.keep(ARRIVING_DIGEST, "vendor_files")
        node = os.stat(f"{lake.root}/{KEPT_AS}").st_ino
        copy.keep(ARRIVING_DIGEST, "vendor_files")
        assert whole(copy.descriptor) == ARRIVING
    assert files(lake) == {KEPT_AS: ARRIVING}
    assert os.stat(f"{lake.root}/{KEPT_AS}").st_ino == node, "what is there is not written again"


def test_two_that_bring_the_same_bytes_at_once_keep_one_file(lake: Lake, arriving: Path) -> None:
    with lake.stage_file(arriving) as one, Lake(lake.root).stage_file(arriving) as other:
        # The sweeper of the other leaves alone what the first is reading.
        assert len(files(lake)) == 2
        one.keep(ARRIVING_DIGEST, "vendor_files")
        other.keep(ARRIVING_DIGEST, "vendor_files")
        assert whole(one.descriptor) == whole(other.descriptor) == ARRIVING
    assert files(lake) == {KEPT_AS: ARRIVING}


@pytest.mark.parametrize(
    ("kind", "why"),
    [("absent", "No such file or directory"), ("folder", "Is a directory"), ("pipe", "is a named pipe")],
)
def test_what_is_no_file_is_named(lake: Lake, tmp_path: Path, kind: str, why: str) -> None:
    path = tmp_path / "theirs"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(LakeError, match=f"{path} cannot be copied into {lake.root}: .*{why}"), lake.stage_file(path):
        pytest.fail("nothing has arrived")
    assert files(lake) == {}


def test_a_file_for_which_there_is_no_room_is_named_and_leaves_nothing(
    lake: Lake, arriving: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object, target: str) -> None:
        Path(target).write_bytes(ARRIVING[:9])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(landed_files.shutil, "copyfile", full)
    with pytest.raises(LakeError, match=rf"{arriving} cannot be .*: No space left"), lake.stage_file(arriving):
        pytest.fail("not all of it has arrived")
    assert files(lake) == {}


@pytest.mark.parametrize(
    ("digest", "parts"),
    [
        ("../../x", ("market",)),
        ("data.parquet", ("market",)),
        ("", ()),
        ("0" * 63, ("market",)),
        ("0" * 64, ("..",)),
        ("0" * 64, ("market", "a/b")),
    ],
)
def test_a_file_that_arrives_is_called_by_its_sha256_alone(
    lake: Lake, arriving: Path, digest: str, parts: tuple[str, ...]
) -> None:
    with lake.stage_file(arriving) as copy, pytest.raises(LakeError, match="cannot name"):
        copy.keep(digest, *parts)
    assert files(lake) == {}


def test_a_file_that_arrives_is_on_the_disk_before_its_name_and_the_name_before_the_return(
    lake: Lake, arriving: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lake.stage_file(arriving) as copy:
        steps = steps_on_disk(lake, monkeypatch)
        os.makedirs(f"{lake.root}/{LANDING_FOLDER}/vendor_files")
        copy.keep(ARRIVING_DIGEST, "vendor_files")
        assert steps == ["sync file", "rename", "sync folder"]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_file_that_cannot_be_kept_leaves_nothing(
    lake: Lake, arriving: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with lake.stage_file(arriving) as copy:
        os.makedirs(f"{lake.root}/{LANDING_FOLDER}/vendor_files")
        monkeypatch.setattr(os, fails, full)
        with pytest.raises(OSError, match="No space left"):
            copy.keep(ARRIVING_DIGEST, "vendor_files")
    assert files(lake) == {}


def test_bytes_that_are_not_there_are_not_found(lake: Lake) -> None:
    assert not lake.exists(lake.file(TRADING_SESSIONS))
    with pytest.raises(FileNotFoundError):
        lake.get(lake.file(TRADING_SESSIONS))


# -- reading -------------------------------------------------------------------------------------------------


def test_a_table_that_was_never_made_is_empty_and_typed(lake: Lake) -> None:
    read = lake.read(QUOTES)
    assert read.table.schema.equals(storage_schema(QUOTES))
    assert (read.table.num_rows, read.missing, read.keys) == (0, (), ())
    assert lake.partitions(QUOTES) == []
    assert lake.row_counts(QUOTES) == {}
    assert lake.read(QUOTES, keys=DAYS[:1], columns=["close"]).missing == DAYS[:1]
    assert lake.read(QUOTES, columns=["close"]).table.column_names == ["close"]


def test_partitions_are_chosen_by_name_and_by_range(either: Lake) -> None:
    either.write_partitions(QUOTES, quotes(), DAYS)
    named = either.read(QUOTES, keys=(key for key in ("2013-01-09", DAYS[2], DAYS[0], "2012-12-31")))
    assert named.missing == ("2012-12-31", "2013-01-09")
    assert named.keys == (DAYS[0], DAYS[2])
    assert named.table.column("session_date").to_pylist() == [date(2013, 1, 2)] * 3 + [date(2013, 1, 4)] * 3
    for first, last, keys in [
        (DAYS[1], None, DAYS[1:]),
        (None, DAYS[1], DAYS[:2]),
        (DAYS[1], DAYS[1], DAYS[1:2]),
        ("2013-01-05", None, ()),
    ]:
        read = either.read(QUOTES, first=first, last=last)
        assert (read.keys, read.missing) == (tuple(keys), ())
        assert read.table.num_rows == 3 * len(keys)
    assert either.read(QUOTES, keys=[]).table.num_rows == 0


def test_rows_come_in_the_order_of_their_partitions(either: Lake) -> None:
    days = [(date(2012, 1, 1) + timedelta(days=place)).isoformat() for place in range(300)]
    table = quotes(days, symbols=2)
    either.write_partitions(QUOTES, table, days)
    read = either.read(QUOTES).table
    assert read.equals(conform(QUOTES, table, order=("session_date", "symbol")))
    if table_reader.WHOLE_FILE_BYTES:
        assert read.column("close").num_chunks <= 2, "many small files do not make many small chunks"


def test_columns_come_as_asked_for_and_a_filter_may_use_others(either: Lake) -> None:
    either.write_partitions(QUOTES, quotes(), DAYS)
    read = either.read(QUOTES, columns=["close", "symbol"], where=pc.field("session_date") > date(2013, 1, 2)).table
    assert read.column_names == ["close", "symbol"]
    assert read.column("symbol").to_pylist() == ["S0", "S1", "S2"] * 2
    assert read.schema.field("close").type == pa.decimal128(18, 8)
    some = either.read(QUOTES, where=pc.is_in(pc.field("symbol"), pa.array(["S1"]))).table
    assert some.column("close").to_pylist() == [Decimal("11.12345678")] * 3
    assert some.schema.equals(storage_schema(QUOTES))
    assert either.read(QUOTES, where=pc.field("symbol") == "none").table.num_rows == 0


def test_a_column_that_is_not_there_is_named(lake: Lake) -> None:
    with pytest.raises(LakeError, match="core/quotes has no column colour"):
        lake.read(QUOTES, columns=["close", "colour"])


def test_a_file_that_goes_between_listing_and_reading_is_listed_again(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.write_partitions(QUOTES, quotes(), DAYS)
    read_files, tries = Lake._read_files, []

    def removed_meanwhile(self: Lake, *arguments: Any) -> Any:
        if not tries:
            os.unlink(self.file(QUOTES, DAYS[1]))
        tries.append(arguments)
        return read_files(self, *arguments)

    monkeypatch.setattr(Lake, "_read_files", removed_meanwhile)
    read = lake.read(QUOTES, keys=iter(DAYS))
    assert len(tries) == 2
    assert (read.keys, read.missing) == ((DAYS[0], DAYS[2]), (DAYS[1],))
    assert read.table.num_rows == 6


def test_files_that_go_for_ever_are_given_up(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.write_partitions(QUOTES, quotes(), DAYS)
    tries = []

    def always_gone(self: Lake, *_: Any) -> Any:
        tries.append(1)
        lake.write_partitions(QUOTES, quotes(symbols=len(tries)), DAYS)
        raise FileNotFoundError("gone")

    monkeypatch.setattr(Lake, "_read_files", always_gone)
    with pytest.raises(FileNotFoundError):
        lake.read(QUOTES)
    assert len(tries) == table_reader.READ_ATTEMPTS


@pytest.mark.parametrize("content", [b"", b"half a file", b"PAR1 in name only PAR1"])
def test_a_broken_file_is_named_and_not_read_again(
    either: Lake, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    either.write_partitions(QUOTES, quotes(), DAYS)
    path = either.file(QUOTES, DAYS[1])
    Path(path).write_bytes(content)
    read_files, tries = Lake._read_files, []

    def counted(self: Lake, *arguments: Any) -> Any:
        tries.append(1)
        return read_files(self, *arguments)

    monkeypatch.setattr(Lake, "_read_files", counted)
    with pytest.raises(LakeError, match="is not a whole Parquet file") as caught:
        either.read(QUOTES)
    assert path in str(caught.value)
    assert "materialise its partition again" in str(caught.value)
    assert len(tries) == 1
    with pytest.raises(LakeError, match=f"{DAYS[1]}.parquet is not a whole"):
        either.row_counts(QUOTES)


def test_what_is_no_table_is_no_partition(lake: Lake) -> None:
    lake.write_partitions(QUOTES, quotes(), DAYS)
    folder = Path(lake.folder(QUOTES))
    (folder / "notes.txt").write_text("x")
    (folder / "folder.parquet").mkdir()
    assert lake.partitions(QUOTES) == list(DAYS)
    assert lake.list(lake.folder(QUOTES)) == [
        *(f"{folder}/{day}.parquet" for day in DAYS),
        f"{folder}/notes.txt",
    ]


def test_rows_are_counted_without_files_that_are_gone(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.write_partitions(QUOTES, quotes(), DAYS)
    listing = Lake._list_files

    def then_one_goes(self: Lake, *arguments: Any) -> Any:
        found = listing(self, *arguments)
        os.unlink(self.file(QUOTES, DAYS[0]))
        return found

    monkeypatch.setattr(Lake, "_list_files", then_one_goes)
    assert lake.row_counts(QUOTES) == {DAYS[1]: 3, DAYS[2]: 3}


# -- files of an earlier contract ----------------------------------------------------------------------------


def earlier(*without: str, **types: str) -> Contract:
    """The contract of quotes as it may once have been."""
    columns = [
        replace(column, type=types.get(column.name, column.type), minimum=None, exclusive_minimum=False)
        for column in QUOTES.columns
        if column.name not in without
    ]
    return replace(QUOTES, columns=tuple(columns), rules=())


def write_earlier(lake: Lake, contract: Contract, day: str, **values: Any) -> None:
    row = {name: value for name, value in good_row(QUOTES).items() if name in contract.column_names}
    row |= {"session_date": date.fromisoformat(day)} | values
    lake.write_partitions(contract, table_of(contract, row), [day])


def test_a_column_that_a_file_does_not_have_yet_is_null_and_the_file_is_named(either: Lake) -> None:
    write_earlier(either, earlier("volume"), DAYS[0])
    either.write_partitions(QUOTES, quotes(DAYS[1:2], symbols=1), DAYS[1:2])
    read = either.read(QUOTES)
    assert read.outdated == {DAYS[0]: "without volume: int64"}
    assert read.table.schema.equals(storage_schema(QUOTES))
    assert read.table.column("volume").to_pylist() == [None, 1]
    some = either.read(QUOTES, columns=["volume"], where=pc.field("volume").is_null()).table
    assert some.to_pydict() == {"volume": [None]}


def test_a_column_that_the_contract_has_given_up_is_left_out(either: Lake) -> None:
    more = replace(QUOTES, columns=(*QUOTES.columns, Column("colour", "string", "text", "A colour.")))
    write_earlier(either, more, DAYS[0], colour="red")
    read = either.read(QUOTES)
    assert read.table.column_names == QUOTES.column_names
    assert read.outdated == {DAYS[0]: "with colour: string"}


def test_a_type_that_has_widened_is_read_in_todays(either: Lake) -> None:
    write_earlier(either, earlier(volume="int32", close="float64"), DAYS[0], volume=7, close=10.25)
    read = either.read(QUOTES, columns=["close", "volume"])
    assert read.table.to_pydict() == {"close": [Decimal("10.25")], "volume": [7]}
    assert set(read.outdated) == {DAYS[0]}


def test_a_value_that_todays_contract_has_no_room_for_is_refused_and_not_rounded(either: Lake) -> None:
    write_earlier(either, earlier(close="float64"), DAYS[0], close=1 / 3)
    with pytest.raises(LakeError, match=r"core/quotes\.close: 0\.3333333333333333 in row 0") as caught:
        either.read(QUOTES)
    assert either.file(QUOTES, DAYS[0]) in str(caught.value)
    assert "materialise its partition again" in str(caught.value)
    assert either.read(QUOTES, columns=["volume"]).table.num_rows == 1, "other columns can be read"


# -- bytes ---------------------------------------------------------------------------------------------------


def test_small_and_large_files_hold_the_same_values() -> None:
    for count in (encoding.SMALL_FILE_ROWS - 1, encoding.SMALL_FILE_ROWS):
        table = sessions(count)
        read = pq.read_table(pa.BufferReader(parquet_bytes(table)))
        assert read.equals(table)


def test_a_slice_gives_the_bytes_of_its_rows_alone() -> None:
    table = sessions(50)
    alone = pa.Table.from_pylist(table.slice(10, 5).to_pylist(), schema=table.schema)
    assert parquet_bytes(table.slice(10, 5)) == parquet_bytes(alone)


@pytest.mark.parametrize("texts", [1, 3, 900, 1_500])
def test_text_that_comes_as_a_dictionary_gives_the_file_of_plain_text(texts: int, lake: Lake) -> None:
    """Whatever the dictionary has that no row uses, and in whatever order."""
    words = pa.array([f"word {n:05}" for n in range(2_000)])
    codes = np.arange(1_500)[::-1] % texts
    plain = pa.table({"text": words.take(pa.array(codes)), "n": pa.array(np.arange(1_500))})
    odd = pa.array([*reversed(words.to_pylist()), "never used"])
    encoded = pa.DictionaryArray.from_arrays(pa.array((1_999 - codes).astype(np.int32)), odd)
    made = parquet_bytes(plain.set_column(0, "text", encoded))
    assert pq.read_table(pa.BufferReader(made)).equals(plain)
    if texts <= 750:
        assert made == parquet_bytes(plain)
    else:
        # Text that hardly repeats is written without a dictionary.
        encodings = pq.ParquetFile(pa.BufferReader(made)).metadata.row_group(0).column(0).encodings
        assert "RLE_DICTIONARY" not in encodings
    nulls = pa.DictionaryArray.from_arrays(pa.array([None, 1, None, 0], pa.int32()), pa.array(["b", "a"]))
    read = pq.read_table(pa.BufferReader(parquet_bytes(pa.table({"text": nulls}), is_small=False)))
    assert read["text"].to_pylist() == [None, "a", None, "b"]


def test_row_groups_are_read_by_themselves_in_todays_types(either: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "ROW_GROUP_ROWS", 2)
    either.write_partitions(QUOTES, quotes(symbols=5), DAYS)
    groups = either.row_groups(QUOTES)
    assert [(group.key, group.index, group.rows) for group in groups[:4]] == [
        (DAYS[0], 0, 2), (DAYS[0], 1, 2), (DAYS[0], 2, 1), (DAYS[1], 0, 2)
    ]  # fmt: skip
    names = ["symbol", "session_date", "close"]
    whole = either.read(QUOTES, columns=names).table
    start = 0
    for group in either.row_groups(QUOTES, "session_date"):
        table = either.read_row_group(QUOTES, group, names, ["symbol"])
        assert pa.types.is_dictionary(table.schema.field("symbol").type)
        assert table.cast(whole.schema).equals(whole.slice(start, group.rows))
        days = pc.min_max(table["session_date"]).as_py()
        assert group.bounds == (days["min"], days["max"])
        start += group.rows
    assert start == whole.num_rows
    assert {group.bounds for group in [*groups, *either.row_groups(QUOTES, "no column")]} == {None}
    added = next(column for column in reversed(QUOTES.columns) if column.nullable and column.name not in QUOTES.order)
    older = replace(QUOTES, columns=tuple(column for column in QUOTES.columns if column != added))
    either.write_partitions(older, quotes(DAYS[:1], 5).drop_columns([added.name]), DAYS[:1])
    assert either.read_row_group(QUOTES, groups[0], [added.name]).column(0).to_pylist() == [None, None]
    either.write_partitions(QUOTES, quotes(DAYS[:1], 1), DAYS[:1])
    with pytest.raises(LakeError, match=r"replaced while it was read|not a whole Parquet file"):
        either.read_row_group(QUOTES, groups[0], names)
    Path(either.file(QUOTES, DAYS[1])).unlink()
    with pytest.raises(LakeError, match="materialise its partition again"):
        either.read_row_group(QUOTES, groups[3], names)


# -- tables that may be larger than memory ---------------------------------------------------------------------------


def test_a_table_is_scanned_in_todays_types_and_older_files_are_named(either: Lake) -> None:
    nothing = either.scan(QUOTES)
    assert (nothing.dataset.count_rows(), nothing.keys, nothing.outdated) == (0, (), {})
    either.write_partitions(QUOTES, quotes(), DAYS)
    added = next(column for column in reversed(QUOTES.columns) if column.nullable and column.name not in QUOTES.order)
    older = replace(QUOTES, columns=tuple(column for column in QUOTES.columns if column != added))
    either.write_partitions(older, quotes(DAYS[:1]).drop_columns([added.name]), DAYS[:1])
    scan = either.scan(QUOTES)
    assert scan.keys == DAYS
    assert scan.dataset.to_table().equals(either.read(QUOTES).table)
    assert list(scan.outdated) == [DAYS[0]]
    assert scan.outdated[DAYS[0]].startswith(f"without {added.name}: ")


def test_a_partition_that_came_out_as_it_was_is_not_touched(either: Lake) -> None:
    table = quotes(DAYS[:1])
    assert either.write_partition_if_changed(QUOTES, table, DAYS[0])
    before = Path(either.file(QUOTES, DAYS[0])).stat().st_mtime_ns
    assert not either.write_partition_if_changed(QUOTES, table, DAYS[0])
    assert Path(either.file(QUOTES, DAYS[0])).stat().st_mtime_ns == before
    assert either.write_partition_if_changed(QUOTES, table.slice(1), DAYS[0])
    assert either.row_counts(QUOTES) == {DAYS[0]: table.num_rows - 1}


# -- tables that come in parts ---------------------------------------------------------------------------------


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Rows of a row group, few enough for a test."""
    monkeypatch.setattr(encoding, "ROW_GROUP_ROWS", 400)
    return 400


def test_a_large_table_is_the_same_file_whether_it_comes_sorted_or_not(lake: Lake, in_parts: int) -> None:
    table = sessions(1_500)
    expected = parquet_bytes(conform(TRADING_SESSIONS, table))
    for written in (table, shuffled(table, 3)):
        assert lake.write(TRADING_SESSIONS, written) == len(expected)
        assert lake.get(lake.file(TRADING_SESSIONS)) == expected
    assert pq.ParquetFile(lake.file(TRADING_SESSIONS)).num_row_groups == 4


@pytest.mark.parametrize("wrong", ["within a part", "between parts", "twice"])
def test_parts_that_are_not_in_order_leave_the_file_as_it_was(lake: Lake, in_parts: int, wrong: str) -> None:
    lake.write(TRADING_SESSIONS, sessions(3))
    before = lake.get(lake.file(TRADING_SESSIONS))
    first, second = sessions(400), sessions(400, shift=400)
    if wrong == "within a part":
        second = shuffled(second, 1).select(first.column_names)
    parts = [second, first] if wrong == "between parts" else [first, first] if wrong == "twice" else [first, second]
    with pytest.raises(NotSortedError, match=r"raw/trading_sessions: .*not sorted by"):
        lake.write_parts(TRADING_SESSIONS, [part.combine_chunks for part in parts])
    assert lake.get(lake.file(TRADING_SESSIONS)) == before
    assert os.listdir(os.path.join(lake.root, TEMPORARY_FOLDER)) == []


def test_a_value_that_does_not_fit_leaves_the_file_as_it_was(lake: Lake) -> None:
    place = TRADING_SESSIONS.column_names.index("session_ordinal")
    table = sessions(5).set_column(place, "session_ordinal", pa.array(["a"] * 5))
    with pytest.raises(ContractError, match="session_ordinal"):
        lake.write_parts(TRADING_SESSIONS, [table.combine_chunks])
    assert not lake.exists(lake.file(TRADING_SESSIONS))


def test_a_partitioned_table_does_not_come_in_parts(lake: Lake) -> None:
    with pytest.raises(LakeError, match="use write_partitions"):
        lake.write_parts(QUOTES, [quotes])


def test_footers_tell_the_bounds_of_each_file(lake: Lake) -> None:
    lake.write_partitions(QUOTES, quotes(), DAYS)
    found = lake.bounds(QUOTES, ["symbol", "session_date", "open"], DAYS[1:])
    day = [date.fromisoformat(text) for text in DAYS]
    # A column without a value has no bounds.
    assert found == {
        DAYS[1]: {"symbol": ("S0", "S2"), "session_date": (day[1], day[1])},
        DAYS[2]: {"symbol": ("S0", "S2"), "session_date": (day[2], day[2])},
    }
    assert lake.bounds(TRADING_SESSIONS, ["session_date"]) == {}


def test_a_query_sees_a_table_as_the_lake_holds_it(lake: Lake) -> None:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        assert lake.attach(connection, QUOTES, "nothing").keys == ()
        assert connection.execute("select count(*) from nothing").fetchone() == (0,)
        lake.write_partitions(QUOTES, quotes(), DAYS)
        assert lake.attach(connection, QUOTES, "rows").keys == DAYS
        found = connection.execute("select * from rows order by session_date, symbol").to_arrow_table()
    assert conform(QUOTES, found).equals(conform(QUOTES, lake.read(QUOTES).table))


def test_text_comes_as_dictionaries_where_that_is_asked_for(either: Lake) -> None:
    write_earlier(either, earlier("volume"), DAYS[0])
    either.write_partitions(QUOTES, quotes(DAYS[1:]), DAYS[1:])
    plain = either.read(QUOTES)
    for where in (None, pc.field("symbol") == "S1"):
        read = either.read(QUOTES, dictionaries=["symbol"], where=where)
        assert read.table.schema.field("symbol").type == pa.dictionary(pa.int32(), pa.string())
        assert read.table.cast(plain.table.schema).equals(either.read(QUOTES, where=where).table)
        assert read.outdated == plain.outdated
    empty = either.read(QUOTES, keys=["2020-01-01"], dictionaries=["symbol"]).table
    assert (empty.num_rows, empty["symbol"].type) == (0, pa.dictionary(pa.int32(), pa.string()))


# -- files of two tables ---------------------------------------------------------------------------------------------

COPIES = replace(INSTRUMENTS, name="copies_of_instruments")


def test_a_file_is_shared_without_its_rows_being_written_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table_of(INSTRUMENTS, good_row(INSTRUMENTS))
    lake.write(INSTRUMENTS, rows)
    for _ in range(2):
        lake.share(INSTRUMENTS, "data", COPIES, "data")
        assert os.path.samefile(lake.file(INSTRUMENTS), lake.file(COPIES))
        assert lake.read(COPIES).table.equals(lake.read(INSTRUMENTS).table)
        assert os.listdir(f"{lake.root}/{TEMPORARY_FOLDER}") == []
    # Files are replaced, never changed: the other table keeps what it was given.
    lake.write(INSTRUMENTS, rows.slice(0, 0))
    assert (lake.read(INSTRUMENTS).table.num_rows, lake.read(COPIES).table.num_rows) == (0, 1)
    with pytest.raises(FileNotFoundError):
        lake.share(INSTRUMENTS, "absent", COPIES, "data")
    with pytest.raises(LakeError, match="their columns differ"):
        lake.share(INSTRUMENTS, "data", QUOTES, DAYS[0])


def test_a_file_system_without_second_names_holds_a_copy(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    lake.write(INSTRUMENTS, table_of(INSTRUMENTS, good_row(INSTRUMENTS)))
    lake.share(INSTRUMENTS, "data", COPIES, "data")
    assert not os.path.samefile(lake.file(INSTRUMENTS), lake.file(COPIES))
    assert lake.read(COPIES).table.equals(lake.read(INSTRUMENTS).table)


# -- files that are never replaced -----------------------------------------------------------------------------------

APPEND_ONLY = [contract for contract in CONTRACTS.values() if contract.append_only]


def test_the_tables_that_are_never_replaced() -> None:
    assert {contract.path for contract in APPEND_ONLY} == {
        "core/performance_history",
        "core/transaction_arrivals",
        "raw/transactions",
    }


@pytest.mark.parametrize("contract", APPEND_ONLY, ids=lambda contract: contract.path)
@pytest.mark.parametrize("has_links", [True, False])
def test_an_append_only_file_is_never_replaced(
    lake: Lake, contract: Contract, has_links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", link)
    rows = table_of(contract, good_row(contract))
    lake.write(contract, rows, key="one")
    before = files(lake)
    lake.write(contract, rows, key="one")
    lake.write_parts(contract, [lambda: rows], key="one")
    for writing in (
        lambda: lake.write(contract, rows.slice(0, 0), key="one"),
        lambda: lake.write_parts(contract, [lambda: rows.slice(0, 0)], key="one"),
        lambda: lake.share(replace(contract, name="other", append_only=False), "two", contract, "one"),
    ):
        other = replace(contract, name="other", append_only=False)
        lake.write(other, rows.slice(0, 0), key="two")
        with pytest.raises(AlreadyThereError, match=r"one\.parquet exists with different content.*never replaced"):
            writing()
    assert {path: data for path, data in files(lake).items() if "other" not in path} == before
    assert os.listdir(f"{lake.root}/{TEMPORARY_FOLDER}") == []


def test_the_same_rows_in_other_bytes_are_the_same(lake: Lake) -> None:
    contract = APPEND_ONLY[0]
    rows = table_of(contract, good_row(contract))
    lake.write(contract, rows, key="one")
    path = Path(lake.file(contract, "one"))
    pq.write_table(pq.read_table(path), path, compression="zstd")
    before = path.read_bytes()
    lake.write(contract, rows, key="one")
    assert path.read_bytes() == before


def test_of_many_writers_of_one_file_one_makes_it(lake: Lake) -> None:
    contract = next(each for each in APPEND_ONLY if each.name == "transaction_arrivals")
    row = good_row(contract)

    def write(number: int) -> bool:
        rows = table_of(contract, row | {"message_count": number + 1})
        try:
            Lake(lake.root).write(contract, rows, key="one")
        except AlreadyThereError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(write, range(32)))
    assert sum(made) == 1
    assert lake.read(contract).table["message_count"].to_pylist() == [made.index(True) + 1]


def test_only_what_arrives_can_be_append_only() -> None:
    with pytest.raises(ContractError, match="append-only"):
        replace(QUOTES, append_only=True)


def test_a_right_that_a_step_left_behind_is_taken_again_by_the_same_thread(lake: Lake) -> None:
    impatient = Lake(lake.root, writers=WriterOptions(wait_seconds=0))

    def step() -> Iterator[None]:
        with single_writer(impatient, "sessions", [TRADING_SESSIONS]):
            yield

    left = step()
    next(left)
    again = step()
    next(again)
    impatient.write(TRADING_SESSIONS, sessions(1))
    with ThreadPoolExecutor(1) as pool, pytest.raises(WriterBusyError, match="sessions is being written by process"):
        pool.submit(next, step()).result()
    left.close()
    impatient.write(TRADING_SESSIONS, sessions(2))
    again.close()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(list, step()).result()
