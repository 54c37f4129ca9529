"""The lake on S3, against a real endpoint: what a folder gives, and what only an object store can do wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from fixtures.aws import REGION, Request, S3Proxy, Verdict, client, lake_at
from fixtures.processes import free_port

from finance_assets.contracts.arrow import conform
from finance_assets.contracts.market import CORPORATE_ACTIONS, QUOTES, TRADING_SESSIONS
from finance_assets.contracts.model import Contract, Partitioning
from finance_assets.storage.lake import COPY_PART_BYTES, AlreadyThereError, Lake, LakeError, S3Options

pytestmark = [pytest.mark.cloud]

NOON = datetime(2013, 1, 2, 12, tzinfo=UTC)
#: Above Arrow's part size of 10 MB: the upload has several parts.
LARGE = 12 << 20
KEYS = ("2013-01-02", "2013-01-03", "2013-01-04")


def sessions(count: int, *, shift: int = 0) -> pa.Table:
    """Return sessions whose every column depends on ``shift``, so that a mixture of two shows."""
    days = [date(2000, 1, 3) + timedelta(days=day + shift) for day in range(count)]
    opened = [datetime(2013, 1, 2, 14, shift % 60, tzinfo=UTC) + timedelta(seconds=row) for row in range(count)]
    return pa.table(
        {
            "session_date": days,
            "session_ordinal": pa.array([row + shift for row in range(count)], pa.int32()),
            "open_ts_utc": opened,
            "close_ts_utc": [when + timedelta(hours=6, minutes=shift % 60) for when in opened],
            "is_early_close": [bool(shift % 2)] * count,
        }
    )


def quotes(keys: Sequence[str], symbols: int = 3, *, cents: int = 0) -> pa.Table:
    """Return quotes of a few symbols on each day."""
    rows = [
        {
            "symbol": f"T{number:03}",
            "session_date": date.fromisoformat(key),
            "open": None,
            "high": None,
            "low": None,
            "close": Decimal(100 + number) + Decimal(cents) / 100,
            "volume": 1000 * number,
            "currency": "USD",
            "price_basis": "raw",
            "provider": "sample",
            "fetched_ts_utc": NOON,
        }
        for key in reversed(keys)
        for number in range(symbols)
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(list(QUOTES.schema)))


def dividends(*days: str) -> pa.Table:
    rows = [
        {
            "symbol": "AAPL",
            "ex_date": date.fromisoformat(day),
            "action_type": "dividend",
            "split_ratio": None,
            "cash_amount": Decimal("2.65"),
            "currency": "USD",
            "derivation": "reported",
            "provider": "sample",
            "fetched_ts_utc": NOON,
        }
        for day in days
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(list(CORPORATE_ACTIONS.schema)))


def held(lake: Lake, contract: Contract) -> pa.Table:
    return lake.read(contract).table


def objects(endpoint: str, bucket: str) -> dict[str, bytes]:
    """Return every object of a bucket, asked for without our code."""
    with client("s3", endpoint) as s3:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


# -- as on a folder ------------------------------------------------------------------------------------------


def test_what_is_written_is_read(s3_lake: Lake) -> None:
    assert s3_lake.write(TRADING_SESSIONS, sessions(20)) > 0
    assert held(s3_lake, TRADING_SESSIONS).equals(conform(TRADING_SESSIONS, sessions(20)))

    s3_lake.write(TRADING_SESSIONS, sessions(7, shift=3))
    assert held(s3_lake, TRADING_SESSIONS).equals(conform(TRADING_SESSIONS, sessions(7, shift=3)))
    assert s3_lake.row_counts(TRADING_SESSIONS) == {"data": 7}


def test_s3_copies_a_file_that_two_tables_share(s3_lake: Lake) -> None:
    s3_lake.write(TRADING_SESSIONS, sessions(20))
    copies = replace(TRADING_SESSIONS, name="copies_of_sessions")
    s3_lake.share(TRADING_SESSIONS, "data", copies, "first")
    assert held(s3_lake, copies).equals(held(s3_lake, TRADING_SESSIONS))
    with pytest.raises(LakeError, match="key does not exist"):
        s3_lake.share(TRADING_SESSIONS, "absent", copies, "second")


def test_partitions_are_written_listed_counted_and_read_in_part(s3_lake: Lake) -> None:
    assert s3_lake.write_partitions(QUOTES, quotes(KEYS[:2]), KEYS) == dict(zip(KEYS, (3, 3, 0), strict=True))

    assert s3_lake.partitions(QUOTES) == list(KEYS)
    assert s3_lake.row_counts(QUOTES) == dict(zip(KEYS, (3, 3, 0), strict=True))
    everything = s3_lake.read(QUOTES).table
    assert everything.column("session_date").to_pylist() == [date(2013, 1, 2)] * 3 + [date(2013, 1, 3)] * 3
    asked = s3_lake.read(QUOTES, keys=[KEYS[1], "2013-01-09"], columns=["close", "symbol"])
    assert asked.missing == ("2013-01-09",)
    assert asked.table.to_pydict() == {
        "close": [Decimal(price) for price in (100, 101, 102)],
        "symbol": ["T000", "T001", "T002"],
    }
    assert s3_lake.read(QUOTES, first=KEYS[1], last=KEYS[1]).table.num_rows == 3


def test_a_filter_is_applied_and_rows_come_in_the_order_of_partitions(s3_lake: Lake) -> None:
    s3_lake.write_partitions(QUOTES, quotes(KEYS), KEYS)
    read = s3_lake.read(QUOTES, columns=["session_date", "symbol"], where=pc.field("symbol") == "T002").table
    assert read.to_pydict() == {
        "session_date": [date.fromisoformat(key) for key in KEYS],
        "symbol": ["T002"] * 3,
    }


def test_a_sparse_table_has_no_file_for_no_rows_until_it_had_some(s3_lake: Lake) -> None:
    s3_lake.write_partitions(CORPORATE_ACTIONS, dividends(KEYS[1]), KEYS)
    assert s3_lake.row_counts(CORPORATE_ACTIONS) == {KEYS[1]: 1}
    assert s3_lake.read(CORPORATE_ACTIONS, keys=KEYS).missing == ()

    s3_lake.write_partitions(CORPORATE_ACTIONS, dividends(), KEYS)
    assert s3_lake.row_counts(CORPORATE_ACTIONS) == {KEYS[1]: 0}, "the withdrawn dividend is gone"


def test_rows_of_a_partition_that_is_not_written_are_refused_and_nothing_is_written(s3_lake: Lake) -> None:
    with pytest.raises(LakeError, match=r"core/quotes: rows for 1 partitions .* '2013-01-04'"):
        s3_lake.write_partitions(QUOTES, quotes(KEYS), KEYS[:2])
    assert s3_lake.partitions(QUOTES) == []


def test_a_file_is_not_copied_as_it_is_into_a_lake_on_s3(tmp_path: Path) -> None:
    lake = Lake("s3://bucket/lake")
    with pytest.raises(LakeError, match="land its bytes"), lake.stage_file(tmp_path / "file"):
        pass


def test_landed_bytes_are_kept_once_under_their_hash(aws: str, bucket: str) -> None:
    page = b"as it came"
    with S3Proxy(aws) as proxy:
        lake = lake_at(bucket, proxy.url)
        digest = lake.land(page, "market", "sample", suffix=".json")
        assert lake.land(page, "market", "sample", suffix=".json") == digest
        assert proxy.operations().count("PutObject") == 1
    path = lake.landed_path(digest, "market", "sample", suffix=".json")
    assert lake_at(bucket, aws).get(path) == page
    assert path == f"{bucket}/some/prefix/landing/market/sample/{digest}.json"


def test_tables_without_files_and_paths_without_objects(s3_lake: Lake) -> None:
    assert s3_lake.partitions(QUOTES) == []
    assert s3_lake.row_counts(QUOTES) == {}
    read = s3_lake.read(QUOTES, keys=KEYS[:1])
    assert (read.table.num_rows, read.missing) == (0, KEYS[:1])
    assert read.table.schema.names == QUOTES.column_names
    path = s3_lake.file(QUOTES, KEYS[0])
    assert not s3_lake.exists(path)
    with pytest.raises(FileNotFoundError):
        s3_lake.get(path)


def test_the_same_rows_give_the_same_bytes_as_on_a_folder(aws: str, bucket: str, s3_lake: Lake, tmp_path: Path) -> None:
    folder = Lake(str(tmp_path / "lake"))
    for lake in (s3_lake, folder):
        lake.write(TRADING_SESSIONS, sessions(300))
        lake.write_partitions(QUOTES, quotes(KEYS), KEYS)
        lake.write_partitions(CORPORATE_ACTIONS, dividends(KEYS[0]), KEYS)
        lake.land(b"a page", "market", "sample", suffix=".csv.gz")
    local = {
        f"some/prefix/{path.relative_to(folder.root)}": path.read_bytes()
        for path in Path(folder.root).rglob("*")
        if path.is_file()
    }
    assert len(local) == 6
    assert objects(aws, bucket) == local


def test_a_listing_of_several_pages_is_whole_and_a_page_that_fails_is_an_error(aws: str, bucket: str) -> None:
    lake_at(bucket, aws).write_partitions(QUOTES, quotes(KEYS), KEYS)
    with S3Proxy(aws, page=2) as proxy:
        assert lake_at(bucket, proxy.url).partitions(QUOTES) == list(KEYS)
        assert proxy.operations() == ["ListObjectsV2", "ListObjectsV2"]

    def second_page_fails(request: Request) -> Verdict:
        return "refuse" if "continuation-token" in request.query else "pass"

    with S3Proxy(aws, second_page_fails, page=2) as proxy, pytest.raises(LakeError, match="listing"):
        lake_at(bucket, proxy.url).partitions(QUOTES)


# -- requests ------------------------------------------------------------------------------------------------


def test_a_small_file_is_one_put(aws: str, bucket: str) -> None:
    with S3Proxy(aws) as proxy:
        lake_at(bucket, proxy.url).write(TRADING_SESSIONS, sessions(250))
        assert proxy.operations() == ["PutObject"]


def test_a_large_file_is_an_upload_in_parts(aws: str, bucket: str) -> None:
    data = os.urandom(LARGE)
    with S3Proxy(aws) as proxy:
        lake = lake_at(bucket, proxy.url)
        path = f"{lake.root}/landing/large"
        lake.put(path, data)
        assert proxy.operations() == [
            "CreateMultipartUpload",
            "UploadPart",
            "UploadPart",
            "CompleteMultipartUpload",
        ]
        assert lake.get(path) == data


PART = 5 << 20  # the least that S3 takes
COPIES = replace(TRADING_SESSIONS, name="copies_of_sessions")


def test_a_large_file_is_copied_in_parts(aws: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finance_assets.storage.lake.files.COPY_PART_BYTES", PART)
    with S3Proxy(aws) as proxy:
        lake = lake_at(bucket, proxy.url)
        source, path = lake.file(TRADING_SESSIONS), lake.file(COPIES, "a+b=c")
        for size, parts in ((PART, 0), (PART + 1, 2), (LARGE, 3)):
            data = os.urandom(size)
            lake_at(bucket, aws).put(source, data)
            proxy.requests.clear()
            lake.share(TRADING_SESSIONS, "data", COPIES, "a+b=c")
            operations = proxy.operations()
            assert operations.count("UploadPart") == parts
            assert operations.count("PutObject") == (0 if parts else 1)
            assert operations.count("CompleteMultipartUpload") == bool(parts)
            assert sum(request.body_bytes for request in proxy.requests if request.method == "PUT") == 0
            assert lake_at(bucket, aws).get(path) == data


@pytest.mark.parametrize("before", [None, b"the version before"])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (LakeError, r"copying s3://.*copies_of_sessions/data\.parquet at .*ServiceUnavailable"),
        (KeyboardInterrupt, None),
    ],
)
def test_a_copy_that_fails_leaves_no_half_object(
    aws: str,
    bucket: str,
    before: bytes | None,
    error: type[BaseException],
    said: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("finance_assets.storage.lake.files.COPY_PART_BYTES", PART)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    lake = lake_at(bucket, aws)
    lake.put(lake.file(TRADING_SESSIONS), os.urandom(LARGE))
    path = lake.file(COPIES)
    if before is not None:
        lake.put(path, before)

    def third_part_fails(request: Request) -> Verdict:
        if "partNumber=3" not in request.query:
            return "pass"
        if error is LakeError:
            return "refuse"
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(1)  # time to notice
        return "pass"

    with S3Proxy(aws, third_part_fails) as proxy, pytest.raises(error, match=said):
        lake_at(bucket, proxy.url).share(TRADING_SESSIONS, "data", COPIES, "data")
    assert "AbortMultipartUpload" in proxy.operations()
    assert "CompleteMultipartUpload" not in proxy.operations()
    assert lake.exists(path) == (before is not None)
    if before is not None:
        assert lake.get(path) == before
    with client("s3", aws) as s3:
        assert not s3.list_multipart_uploads(Bucket=bucket).get("Uploads"), "no part is left"


def test_a_put_that_is_dropped_or_refused_is_sent_again(aws: str, bucket: str) -> None:
    trouble: list[Verdict] = ["drop", "refuse"]

    def first_two_fail(request: Request) -> Verdict:
        return trouble.pop(0) if request.operation == "PutObject" and trouble else "pass"

    with S3Proxy(aws, first_two_fail) as proxy:
        lake_at(bucket, proxy.url).write(TRADING_SESSIONS, sessions(5))
        assert proxy.operations().count("PutObject") == 3
    assert held(lake_at(bucket, aws), TRADING_SESSIONS).num_rows == 5


# -- crashes -------------------------------------------------------------------------------------------------

WRITER = """
import os, sys
from finance_assets.storage.lake import Lake, S3Options
uri, endpoint, path, size = sys.argv[1:]
print("writing", flush=True)
Lake(uri, S3Options("us-east-1", endpoint)).put(path, b"new" * (int(size) // 3))
print("written", flush=True)
"""


@pytest.mark.parametrize(
    ("size", "held_at"),
    [(LARGE, "UploadPart"), (LARGE, "CompleteMultipartUpload"), (1 << 20, "PutObject")],
)
@pytest.mark.parametrize("before", [None, b"the version before"])
def test_a_writer_killed_in_an_upload_leaves_what_was_there(
    aws: str, bucket: str, size: int, held_at: str, before: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The endpoint takes five seconds to read a large body that carries checksums.
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    lake = lake_at(bucket, aws)
    path = f"{lake.root}/raw/quotes/2013-01-02.parquet"
    if before is not None:
        lake.put(path, before)
    killed = threading.Event()

    def hold(request: Request) -> Verdict:
        if request.operation != held_at:
            return "pass"
        killed.wait(30)
        return "drop"  # it never reached the store

    with S3Proxy(aws, hold) as proxy:
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, lake.uri, proxy.url, path, str(size)], stdout=subprocess.PIPE
        )
        try:
            proxy.wait_for(held_at)
        finally:
            writer.kill()
            printed, _ = writer.communicate(timeout=20)
            killed.set()
        assert printed == b"writing\n", "it was killed in the middle"

    folder = path.rsplit("/", 1)[0]
    assert lake.list(folder) == ([path] if before is not None else [])
    assert lake.exists(path) == (before is not None)
    if before is not None:
        assert lake.get(path) == before

    lake.put(path, b"the next run")
    assert (lake.list(folder), lake.get(path)) == ([path], b"the next run")


COPIER = """
import sys
from dataclasses import replace
from finance_assets.contracts.market import TRADING_SESSIONS
from finance_assets.storage import lake
uri, endpoint, name = sys.argv[1:]
lake.files.COPY_PART_BYTES = 5 << 20
print("copying", flush=True)
there = lake.Lake(uri, lake.S3Options("us-east-1", endpoint))
there.share(TRADING_SESSIONS, "data", replace(TRADING_SESSIONS, name=name), "data")
print("copied", flush=True)
"""


@pytest.mark.parametrize("held_at", ["UploadPart", "CompleteMultipartUpload"])
def test_a_process_killed_in_a_copy_leaves_nothing_to_see(aws: str, bucket: str, held_at: str) -> None:
    lake = lake_at(bucket, aws)
    data = os.urandom(LARGE)
    lake.put(lake.file(TRADING_SESSIONS), data)
    killed = threading.Event()

    def hold(request: Request) -> Verdict:
        if request.operation != held_at or "partNumber=1" in request.query:
            return "pass"
        killed.wait(30)
        return "drop"

    with S3Proxy(aws, hold) as proxy:
        copier = subprocess.Popen(
            [sys.executable, "-c", COPIER, lake.uri, proxy.url, COPIES.name], stdout=subprocess.PIPE
        )
        try:
            proxy.wait_for(held_at)
        finally:
            copier.kill()
            printed, _ = copier.communicate(timeout=20)
            killed.set()
        assert printed == b"copying\n", "it was killed in the middle"
    assert lake.partitions(COPIES) == []
    lake.share(TRADING_SESSIONS, "data", COPIES, "data")
    assert lake.get(lake.file(COPIES)) == data


# -- side by side --------------------------------------------------------------------------------------------

RACER = """
import sys
sys.path.insert(0, sys.argv[4])
from test_lake_s3 import KEYS, QUOTES, lake_at, quotes
bucket, endpoint, cents = sys.argv[1:4]
lake = lake_at(bucket, endpoint)
for turn in range(15):
    # Of changing length, so that offsets of one version mean nothing in another.
    lake.write_partitions(QUOTES, quotes(KEYS, 3 + turn % 5 * 40, cents=int(cents)), KEYS)
"""


def test_two_writers_and_a_reader_at_once(aws: str, bucket: str) -> None:
    lake = lake_at(bucket, aws)
    lake.write_partitions(QUOTES, quotes(KEYS, cents=1), KEYS)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", RACER, bucket, aws, cents, str(Path(__file__).parent)],
            stderr=subprocess.PIPE,
            env=environment,
        )
        for cents in ("1", "2")
    ]
    seen: set[Decimal] = set()
    reads = 0
    try:
        while any(writer.poll() is None for writer in writers):
            table = lake.read(QUOTES, keys=KEYS).table
            for key in KEYS:
                day = table.filter(pc.equal(table.column("session_date"), date.fromisoformat(key)))
                prices = day.column("close").to_pylist()
                cents = prices[0] % 1
                assert prices == [Decimal(100 + number) + cents for number in range(len(prices))]
                assert len(prices) in {3 + turn * 40 for turn in range(5)}
                seen.add(cents)
            assert sum(lake.row_counts(QUOTES).values()) >= 9
            reads += 1
    finally:
        errors = [writer.communicate(timeout=60)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], errors
    assert reads > 5
    assert seen == {Decimal("0.01"), Decimal("0.02")}, "the reader saw both writers"
    assert lake.row_counts(QUOTES) == dict.fromkeys(KEYS, 163), "the last turn of either, whole"


@pytest.mark.parametrize("whole_file_bytes", [1 << 20, 0], ids=["read whole", "read in parts"])
@pytest.mark.parametrize("after", ["HeadObject", "GetObject"])
@pytest.mark.parametrize(("old", "new"), [(300, 300), (300, 3_000), (3_000, 300), (300, 30)])
def test_a_file_replaced_between_two_requests_of_a_reader(
    aws: str, bucket: str, old: int, new: int, after: str, whole_file_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finance_assets.storage.lake.table_reader.WHOLE_FILE_BYTES", whole_file_bytes)
    writer = lake_at(bucket, aws)
    writer.write(TRADING_SESSIONS, sessions(old))
    replaced: list[str] = []
    seen: list[str] = []

    def replace(request: Request) -> Verdict:
        if seen and seen[-1] == after and not replaced:
            writer.write(TRADING_SESSIONS, sessions(new, shift=1))
            replaced.append(request.operation)
        seen.append(request.operation)
        return "pass"

    with S3Proxy(aws, replace) as proxy:
        reader = lake_at(bucket, proxy.url)
        first = reader.read(TRADING_SESSIONS).table
        versions = [conform(TRADING_SESSIONS, sessions(old)), conform(TRADING_SESSIONS, sessions(new, shift=1))]
        assert any(first.equals(version) for version in versions), "one version, whole"
        assert reader.read(TRADING_SESSIONS).table.equals(versions[1])
    assert replaced


def test_a_file_replaced_while_its_rows_are_counted(aws: str, bucket: str) -> None:
    writer = lake_at(bucket, aws)
    writer.write(TRADING_SESSIONS, sessions(300))
    replaced: list[bool] = []

    def replace(request: Request) -> Verdict:
        if request.operation == "GetObject" and not replaced:
            replaced.append(True)
            writer.write(TRADING_SESSIONS, sessions(5_000, shift=1))
        return "pass"

    with S3Proxy(aws, replace) as proxy:
        assert lake_at(bucket, proxy.url).row_counts(TRADING_SESSIONS) in ({"data": 300}, {"data": 5_000})


def test_a_file_that_is_no_parquet_is_an_error_that_names_it(s3_lake: Lake) -> None:
    path = s3_lake.file(TRADING_SESSIONS)
    s3_lake.put(path, b"half a fi")
    with pytest.raises(LakeError, match=r"raw/trading_sessions/data\.parquet is not a whole Parquet file"):
        s3_lake.read(TRADING_SESSIONS)


# -- what fails, says so -------------------------------------------------------------------------------------


@pytest.fixture
def nowhere(aws: str) -> str:
    """An endpoint where nobody answers."""
    return f"http://127.0.0.1:{free_port()}"


def every_way_to_read(lake: Lake) -> Iterator[tuple[str, Any]]:
    yield "partitions", lambda: lake.partitions(QUOTES)
    yield "read", lambda: lake.read(QUOTES)
    yield "row_counts", lambda: lake.row_counts(QUOTES)
    yield "list", lambda: lake.list(lake.folder(QUOTES))


def test_a_bucket_that_is_missing_is_an_error_and_never_no_files(aws: str) -> None:
    lake = lake_at("no-such-bucket", aws)
    for name, read in every_way_to_read(lake):
        with pytest.raises(LakeError, match="no-such-bucket") as caught:
            read()
        assert "no such bucket" in str(caught.value), name
        assert "FINANCE_ASSETS_LAKE_URI" in str(caught.value), name
    with pytest.raises(LakeError, match=r"writing s3://no-such-bucket/.*quotes/2013-01-02\.parquet"):
        lake.write_partitions(QUOTES, quotes(KEYS), KEYS)


def test_an_endpoint_that_is_down_is_an_error_that_names_it(nowhere: str) -> None:
    lake = lake_at("any", nowhere)
    started = time.monotonic()
    with pytest.raises(LakeError, match="listing s3://any/some/prefix/core/quotes") as caught:
        lake.partitions(QUOTES)
    assert nowhere in str(caught.value)
    assert "FINANCE_ASSETS_S3_ENDPOINT_URL" in str(caught.value)
    with pytest.raises(LakeError, match="looking for"):
        lake.exists(lake.file(QUOTES, KEYS[0]))
    with pytest.raises(LakeError, match="writing"):
        lake.write(TRADING_SESSIONS, sessions(1))
    assert time.monotonic() - started < 30


def test_a_store_that_refuses_a_listing_is_an_error(aws: str, bucket: str) -> None:
    lake_at(bucket, aws).write(TRADING_SESSIONS, sessions(1))

    def no_listing(request: Request) -> Verdict:
        return "refuse" if request.operation == "ListObjectsV2" else "pass"

    with S3Proxy(aws, no_listing) as proxy, pytest.raises(LakeError, match="listing"):
        lake_at(bucket, proxy.url).read(TRADING_SESSIONS)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "ftp://127.0.0.1:9000"])
def test_an_endpoint_without_http_is_refused_by_the_name_of_its_setting(endpoint: str) -> None:
    lake = Lake("s3://bucket", S3Options(REGION, endpoint))
    with pytest.raises(LakeError, match=r"FINANCE_ASSETS_S3_ENDPOINT_URL.*http://"):
        lake.partitions(QUOTES)


def test_a_slash_at_the_end_of_the_address_changes_nothing(aws: str, bucket: str) -> None:
    Lake(f"s3://{bucket}/some/prefix/", S3Options(REGION, aws + "/")).write(TRADING_SESSIONS, sessions(2))
    assert lake_at(bucket, aws).row_counts(TRADING_SESSIONS) == {"data": 2}


def test_a_lake_at_the_root_of_a_bucket(aws: str, bucket: str) -> None:
    lake = Lake(f"s3://{bucket}", S3Options(REGION, aws))
    lake.write(TRADING_SESSIONS, sessions(2))
    assert list(objects(aws, bucket)) == ["raw/trading_sessions/data.parquet"]
    assert lake.scan_address(TRADING_SESSIONS) == f"s3://{bucket}/raw/trading_sessions/*.parquet"


# -- files that are never replaced ---------------------------------------------------------------------------


@pytest.mark.parametrize("part_bytes", [COPY_PART_BYTES, PART])
def test_an_append_only_object_is_never_replaced(
    aws: str, bucket: str, part_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finance_assets.storage.lake.files.COPY_PART_BYTES", part_bytes)
    lake = lake_at(bucket, aws)
    only = replace(TRADING_SESSIONS, name="arrived", partitioning=Partitioning.ARRIVAL, append_only=True)
    rows = sessions(3)
    with S3Proxy(aws) as proxy:
        lake_at(bucket, proxy.url).write(only, rows, key="one")
        assert proxy.operations() == ["PutObject"]
    before = lake.get(lake.file(only, "one"))
    lake.write(only, rows, key="one")
    lake.write(TRADING_SESSIONS, rows)
    lake.share(TRADING_SESSIONS, "data", only, "one")
    lake.share(TRADING_SESSIONS, "data", only, "two")
    assert lake.get(lake.file(only, "two")) == before
    lake.write(TRADING_SESSIONS, sessions(2))
    for writing in (
        lambda: lake.write(only, sessions(2), key="one"),
        lambda: lake.write_parts(only, [lambda: sessions(2)], key="one"),
        lambda: lake.share(TRADING_SESSIONS, "data", only, "one"),
    ):
        with pytest.raises(AlreadyThereError, match="never replaced"):
            writing()
    assert lake.get(lake.file(only, "one")) == before
    with client("s3", aws) as s3:
        assert not s3.list_multipart_uploads(Bucket=bucket).get("Uploads"), "no part is left"


def test_a_large_append_only_object_is_never_replaced(aws: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finance_assets.storage.lake.files.COPY_PART_BYTES", PART)
    lake = lake_at(bucket, aws)
    path = f"{lake.root}/one"
    first, second = os.urandom(LARGE), os.urandom(LARGE)
    lake._put_files([path], lambda _: first, is_new=True)
    lake._put_files([path], lambda _: first, is_new=True)
    with pytest.raises(AlreadyThereError):
        lake._put_files([path], lambda _: second, is_new=True)
    assert lake.get(path) == first
