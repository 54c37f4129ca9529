"""Time the sector branch, from quotes in the lake to every mart, and what one more session costs.

    python benchmarks/sectors.py [--tickers 500] [--sessions 2520]

Makes seeded returns of tickers in eleven sectors and of a benchmark, one file per session as in the lake, then runs the
assets of the branch as Dagster runs them: dbt's composites, risk computed from them, dbt's marts over that. The floor
reads the same files in DuckDB and averages returns by sector and session, and no more. Then a session is added, and all
of it runs again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import resource
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import numpy as np
import pyarrow as pa

from finance_assets.contracts import market, sectors
from finance_assets.contracts.arrow import storage_schema
from finance_assets.contracts.model import Contract
from finance_assets.registry import build_resources
from finance_assets.sectors import assets
from finance_assets.settings import Settings
from finance_assets.sql import read_parquet
from finance_assets.storage.lake import Lake

SECTORS = (
    *("Communication Services", "Consumer Discretionary", "Consumer Staples", "Energy", "Financials", "Health Care"),
    *("Industrials", "Information Technology", "Materials", "Real Estate", "Utilities"),
)
BENCHMARK = "^GSPC"
FIRST = date(2014, 1, 2)
#: Sessions written at a time, which bounds memory.
BLOCK = 250


def table_of(contract: Contract, rows: int, **columns: Any) -> pa.Table:
    """Return columns as a table of a contract; what is not given is null."""
    schema = storage_schema(contract)
    return pa.table([columns.get(field.name, pa.nulls(rows, field.type)) for field in schema], schema=schema)


def make_lake(lake: Lake, tickers: int, sessions: int) -> list[str]:
    """Write quotes, returns, instruments and the calendar; return the keys of the sessions."""
    rng = np.random.default_rng(20260101)
    days = np.busday_offset(np.datetime64(FIRST), np.arange(sessions))
    symbols = [*(f"T{number:05d}" for number in range(tickers)), BENCHMARK]
    sector = np.arange(tickers) % len(SECTORS)
    count = len(symbols)
    lake.write(
        market.INSTRUMENTS,
        table_of(
            market.INSTRUMENTS,
            count,
            symbol=pa.array(symbols),
            valid_from=pa.repeat(date(1990, 1, 2), count).cast(pa.date32()),
            name=pa.array(symbols),
            instrument_type=pa.array(["equity"] * tickers + ["index"]),
            gics_sector=pa.array([*(SECTORS[place] for place in sector), None]),
            currency=pa.repeat("USD", count),
            source=pa.repeat("made up", count),
        ),
    )
    opens = pa.array(days).cast(pa.timestamp("us", tz="UTC"))
    lake.write(
        market.TRADING_SESSIONS,
        table_of(
            market.TRADING_SESSIONS,
            sessions,
            session_date=pa.array(days),
            session_ordinal=pa.array(np.arange(sessions, dtype=np.int32)),
            open_ts_utc=opens,
            close_ts_utc=opens,
            is_early_close=pa.repeat(False, sessions),
        ),
    )
    keys = [str(day) for day in days]
    # Volatility comes in waves, so that the models find what they look for.
    wave = 0.008 * np.exp(0.5 * np.sin(np.arange(sessions) / 60))
    for start in range(0, sessions, BLOCK):
        block = slice(start, min(start + BLOCK, sessions))
        size = block.stop - block.start
        common = rng.normal(0.0003, 1, (size, 1)) * wave[block, None]
        own = rng.normal(0, 1, (size, len(SECTORS))) * 0.5 * wave[block, None]
        returns = common + own[:, sector] + rng.normal(0, 0.015, (size, tickers))
        returns = np.concatenate((returns, common), axis=1)
        span = np.ones((size, count), dtype=np.int32)
        first = np.zeros(size * count, dtype=np.bool_)
        if start == 0:
            first[:count] = True
        shared = {
            "symbol": pa.array(symbols * size),
            "session_date": pa.array(np.repeat(days[block], count)),
            "price_basis": pa.repeat("raw", size * count),
        }
        lake.write_partitions(
            market.TICKER_KPIS,
            table_of(
                market.TICKER_KPIS,
                size * count,
                **shared,
                total_return=pa.array(returns.ravel(), mask=first),
                return_span_sessions=pa.array(span.ravel(), mask=first),
            ),
            keys[block],
        )
        price = pa.array(np.full(size * count, 100)).cast(pa.decimal128(38, 8)).cast(pa.decimal128(18, 8))
        quotes = table_of(
            market.QUOTES,
            size * count,
            **shared,
            close=price,
            volume=pa.array(np.full(size * count, 1000)),
            currency=pa.repeat("USD", size * count),
            provider=pa.repeat("made up", size * count),
            fetched_ts_utc=pa.repeat(datetime(2024, 1, 1, tzinfo=UTC), size * count).cast(pa.timestamp("us", tz="UTC")),
        )
        lake.write_partitions(market.QUOTES, quotes, keys[block])
    return keys


def floor(lake: Lake) -> float:
    """Return the seconds that DuckDB takes to read the returns and average them by sector and session."""
    begin = time.perf_counter()
    with duckdb.connect() as connection:
        connection.execute("set threads = 2")
        connection.execute(
            f"""
            select gics_sector, session_date, avg(total_return)
            from {read_parquet(lake.scan_files(market.TICKER_KPIS))} as kpis
            join {read_parquet(lake.scan_files(market.INSTRUMENTS))} as instruments using (symbol)
            group by all
            """
        ).fetchall()
    return time.perf_counter() - begin


def run(resources: dict[str, Any], instance: dg.DagsterInstance) -> dict[str, float]:
    """Make every asset of the branch; return seconds by step."""
    definitions = [
        assets.sector_models,
        assets.sector_risk,
        assets.sector_correlations,
        assets.sector_volatility,
        assets.sector_portfolios,
        assets.sector_signals,
        assets.sector_exposures,
        assets.sector_risk_models,
    ]
    # dagster-dbt repeats all that dbt prints.
    with contextlib.redirect_stdout(io.StringIO()):
        result = dg.materialize(
            definitions,
            resources=resources,
            instance=instance,
            run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}},
        )
    assert result.success
    return {
        event.step_key: event.step_success_data.duration_ms / 1000
        for event in result.all_events
        if event.is_step_success and event.step_key is not None
    }


def main() -> None:
    """Make the data, time the floor, the whole history and one more session."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--tickers", type=int, default=500)
    parser.add_argument("--sessions", type=int, default=2520)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder))
        resources = {
            name: resource
            for name, resource in build_resources(settings).items()
            if name in ("settings", "lake", "warehouse", "lake_io_manager", "warehouse_io_manager")
        }
        lake: Lake = resources["lake"]
        keys = make_lake(lake, options.tickers, options.sessions)
        newest = {contract: Path(lake.file(contract, keys[-1])) for contract in (market.TICKER_KPIS, market.QUOTES)}
        held = {contract: file.read_bytes() for contract, file in newest.items()}
        for file in newest.values():
            file.unlink()
        print(
            f"{options.tickers:,} tickers x {options.sessions:,} sessions = "
            f"{options.tickers * options.sessions:,} rows; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        )
        least = floor(lake)
        with dg.DagsterInstance.ephemeral(tempdir=folder) as instance:
            used = cpu()
            first = run(resources, instance)
            used, peak = cpu() - used, memory()
            for contract, data in held.items():
                newest[contract].write_bytes(data)
            used_again = cpu()
            again = run(resources, instance)
            used_again = cpu() - used_again
        rows = sum(lake.row_counts(contract)["data"] for contract in sectors.ANALYTICS)
        print(f"{rows:,} rows of risk, most memory {peak:.2f} GB (dbt's process or ours)\n")
        print(f"{'step':24} {'all, s':>8} {'one more session, s':>20}")
        for step, seconds in first.items():
            print(f"{step:24} {seconds:8.1f} {again[step]:20.1f}")
        whole, more = sum(first.values()), sum(again.values())
        print(f"{'together':24} {whole:8.1f} {more:20.1f}")
        print(f"{'processor time':24} {used:8.1f} {used_again:20.1f}")
        print(f"{'floor':24} {least:8.1f}   all of it is {whole / least:.0f} times the floor")


def cpu() -> float:
    """Return the processor time, in seconds, of this process and those it started: steady on a busy machine."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def memory() -> float:
    """Return the most memory that this process or one that it started has held, in GB."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1e6


if __name__ == "__main__":
    main()
