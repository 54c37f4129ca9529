"""Time the way from Parquet quotes to price indicators, ours beside other engines, in one run.

    python benchmarks/kpis.py [--tickers 5000] [--sessions 1260] [--repeat 5] [--only ours,duckdb] [--json
    FILE]

Makes seeded quotes in a temporary folder, sorted by symbol and session as in the lake, with 0.2 % of the rows
missing. Each contender runs in a process of its own: one warm-up, then `--repeat` timed runs from the file to
arrays in memory (the file is in the page cache; imports are not counted). What it computed is compared with
ours on a sample of rows, so that a fast wrong answer shows.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

THREADS = 2
TIMEOUT_SECONDS = 900
SAMPLE_STEP = 9973  # a prime, so that the sample meets every phase of the windows
MISSING = 0.002
RSI, SMA, HV = 14, 50, 30

Arrays = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Contender:
    """One way to compute the indicators.

    Attributes
    ----------
    computes
        What it does, for the table.
    run
        Timed: from the folder of files to a result in memory.
    arrays
        Not timed: the result as arrays in the order of symbol and session, for the comparison.
    """

    computes: str
    run: Callable[[Path], Any]
    arrays: Callable[[Any], Arrays]


# -- data ----------------------------------------------------------------------------------------------------


def make_quotes(folder: Path, n_tickers: int, n_sessions: int, daily: bool) -> int:
    """Write the files and return the number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(20240101)
    sessions = np.busday_offset(np.datetime64("2020-01-02"), np.arange(n_sessions))
    returns = rng.normal(0.0002, 0.02, (n_tickers, n_sessions))
    close = rng.lognormal(3.5, 1.0, (n_tickers, 1)) * np.exp(np.cumsum(returns, axis=1))
    keep = (rng.random((n_tickers, n_sessions)) >= MISSING).ravel()
    symbols = pa.array([f"T{i:05d}" for i in range(n_tickers)])
    code = np.repeat(np.arange(n_tickers, dtype=np.int32), n_sessions)[keep]
    close = close.ravel()[keep]
    n_rows = close.size

    def decimals(values: npt.NDArray[np.float64]) -> Any:
        words = np.zeros((values.size, 2), dtype="<i8")  # 128 bits each; prices are positive
        words[:, 0] = np.round(np.clip(values, 1e-4, 1e9) * 1e8)
        return pa.Array.from_buffers(pa.decimal128(18, 8), values.size, [None, pa.py_buffer(words.tobytes())])

    table = pa.table(
        {
            "symbol": pa.DictionaryArray.from_arrays(code, symbols),
            "session_date": pa.array(np.tile(sessions, n_tickers)[keep], type=pa.date32()),
            "open": decimals(close * rng.normal(1, 0.005, n_rows)),
            "high": decimals(close * 1.01),
            "low": decimals(close * 0.99),
            "close": decimals(close),
            "volume": pa.array(rng.lognormal(13, 1, n_rows).astype(np.int64)),
        }
    )

    def write(quotes: Any, name: str) -> None:
        pq.write_table(quotes, folder / name, row_group_size=1 << 19, compression="zstd", store_decimal_as_integer=True)

    write(table, "quotes.parquet")
    actions = _make_actions(rng, n_tickers, sessions)
    actions["symbol"] = symbols.take(pa.array(actions.pop("ticker")))
    pq.write_table(pa.table(actions), folder / "actions.parquet")
    if daily:
        (folder / "daily").mkdir()
        dates = table["session_date"].to_numpy()
        by_date = table.take(np.argsort(dates, kind="stable"))
        counts = np.unique(dates, return_counts=True)[1]
        for start, stop in pairwise([0, *np.cumsum(counts).tolist()]):
            part = by_date.slice(start, stop - start)
            write(part, f"daily/{part['session_date'][0]}.parquet")
    return n_rows


def _make_actions(rng: np.random.Generator, n_tickers: int, sessions: npt.NDArray[np.datetime64]) -> dict[str, Any]:
    """Quarterly dividends for two tickers in three, and a split for one in ten."""
    payers = np.flatnonzero(rng.random(n_tickers) < 0.67)
    quarter = np.arange(40, sessions.size, 63)
    splitters = np.flatnonzero(rng.random(n_tickers) < 0.1)
    n_dividends, n_splits = payers.size * quarter.size, splitters.size
    return {
        "ticker": np.concatenate((np.repeat(payers, quarter.size), splitters)),
        "ex_date": np.concatenate((np.tile(sessions[quarter], payers.size), rng.choice(sessions, n_splits))),
        "split_ratio": np.concatenate((np.full(n_dividends, np.nan), np.full(n_splits, 2.0))),
        "cash_amount": np.concatenate((np.full(n_dividends, 1e-5), np.full(n_splits, np.nan))),
    }


# -- contenders ----------------------------------------------------------------------------------------------


def _read_panel(path: Path) -> Any:
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    from finance_assets.market.panel import Panel

    columns = ["symbol", "session_date", "close"]
    if path.is_dir():
        dataset = ds.dataset(path, format=ds.ParquetFileFormat(dictionary_columns=["symbol"]), partitioning=None)
        table = dataset.to_table(columns=columns)
    else:
        table = pq.read_table(path, columns=columns, read_dictionary=["symbol"], partitioning=None)
    return Panel.from_arrow(table, ["close"])


def _ours(path: Path) -> Any:
    return _read_panel(path).price_indicators("close", "close")


def _ours_adjusted(folder: Path) -> Any:
    import pyarrow.parquet as pq

    panel = _read_panel(folder / "quotes.parquet")
    factors = panel.adjustment_factors("close", pq.read_table(folder / "actions.parquet", partitioning=None))
    close = panel.columns["close"]
    adjusted = panel.with_columns({"split": close * factors.split, "total": close * factors.total_return})
    return adjusted.price_indicators("split", "total")


def _of_indicators(result: Any) -> Arrays:
    return {
        "rsi": result.rsi.values,
        "sma": result.sma.values,
        "hv": result.historical_volatility.values,
    }


def _talib_per_ticker(folder: Path) -> Arrays:
    import talib

    panel = _read_panel(folder / "quotes.parquet")
    close = panel.columns["close"]
    result = {name: np.full(close.size, np.nan) for name in ("rsi", "sma", "hv")}
    log_return = np.zeros(close.size)
    np.log(close[1:] / close[:-1], out=log_return[1:])
    to_sample = math.sqrt(HV / (HV - 1) * 252)  # TA-Lib's deviation is that of a population
    bounds = panel.offsets.tolist()
    for start, stop in pairwise(bounds):
        result["rsi"][start:stop] = talib.RSI(close[start:stop], RSI)
        result["sma"][start:stop] = talib.SMA(close[start:stop], SMA)
        result["hv"][start + 1 : stop] = talib.STDDEV(log_return[start + 1 : stop], HV) * to_sample
    return result


def _duckdb(folder: Path) -> Any:
    import duckdb

    from finance_assets.sql import read_parquet

    connection = duckdb.connect(config={"threads": THREADS, "memory_limit": "4GB"})
    return connection.execute(
        f"""
        WITH quotes AS (
            SELECT symbol, session_date, close::DOUBLE AS close
            FROM {read_parquet([str(folder / "quotes.parquet")])}
        ), returns AS (
            SELECT *, ln(close / lag(close) OVER (PARTITION BY symbol ORDER BY session_date)) AS log_return
            FROM quotes
        )
        SELECT symbol, session_date,
               CASE WHEN count(*) OVER average = {SMA} THEN avg(close) OVER average END AS sma,
               CASE WHEN count(log_return) OVER deviation = {HV}
                    THEN stddev_samp(log_return) OVER deviation * sqrt(252) END AS hv
        FROM returns
        WINDOW average AS (PARTITION BY symbol ORDER BY session_date ROWS {SMA - 1} PRECEDING),
               deviation AS (PARTITION BY symbol ORDER BY session_date ROWS {HV - 1} PRECEDING)
        """
    ).to_arrow_table()


def _of_duckdb(table: Any) -> Arrays:
    ordered = table.sort_by([("symbol", "ascending"), ("session_date", "ascending")])
    return {name: ordered[name].to_numpy() for name in ("sma", "hv")}


def _polars(folder: Path) -> Any:
    import polars as pl

    close = pl.col("close").cast(pl.Float64)
    change = close.diff().over("symbol")
    position = pl.int_range(pl.len()).over("symbol")

    def wilder(moves: pl.Expr) -> pl.Expr:
        seed = moves.rolling_mean(RSI).over("symbol")
        seeded = pl.when(position > RSI).then(moves).when(position == RSI).then(seed)
        return seeded.ewm_mean(alpha=1 / RSI, adjust=False, ignore_nulls=True).over("symbol")

    gain, loss = wilder(change.clip(lower_bound=0)), wilder((-change).clip(lower_bound=0))
    log_return = (close / close.shift(1).over("symbol")).log()
    return (
        pl.scan_parquet(folder / "quotes.parquet", hive_partitioning=False, glob=False)
        .select(
            "symbol",
            "session_date",
            (100 * gain / (gain + loss)).alias("rsi"),
            close.rolling_mean(SMA).over("symbol").alias("sma"),
            (log_return.rolling_std(HV).over("symbol") * math.sqrt(252)).alias("hv"),
        )
        .collect()
    )


def _pandas(folder: Path) -> Any:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["symbol", "session_date", "close"]
    table = pq.read_table(folder / "quotes.parquet", columns=columns, read_dictionary=["symbol"], partitioning=None)
    # As decimals the prices would become Python objects, which takes minutes.
    frame = table.set_column(2, "close", table["close"].cast(pa.float64())).to_pandas()
    by_symbol = frame.groupby("symbol", sort=False, observed=True)
    close = by_symbol["close"]
    change = close.diff()
    position = by_symbol.cumcount()

    def wilder(moves: pd.Series[float]) -> pd.Series[float]:
        groups = moves.groupby(frame["symbol"], sort=False, observed=True)
        seed = groups.rolling(RSI).mean().reset_index(level=0, drop=True)
        seeded = moves.where(position > RSI, seed.where(position == RSI))
        smooth = seeded.groupby(frame["symbol"], sort=False, observed=True).ewm(
            alpha=1 / RSI, adjust=False, ignore_na=True
        )
        return smooth.mean().reset_index(level=0, drop=True)

    gain, loss = wilder(change.clip(lower=0)), wilder((-change).clip(lower=0))
    frame["rsi"] = 100 * gain / (gain + loss)
    frame["sma"] = close.rolling(SMA).mean().reset_index(level=0, drop=True)
    log_return: pd.Series[float] = (frame["close"] / close.shift(1)).transform(np.log)
    deviation = log_return.groupby(frame["symbol"], sort=False, observed=True).rolling(HV).std()
    frame["hv"] = deviation.reset_index(level=0, drop=True) * math.sqrt(252)
    return frame


def _of_columns(result: Any) -> Arrays:
    return {name: result[name].to_numpy() for name in ("rsi", "sma", "hv")}


CONTENDERS: dict[str, Contender] = {
    "floor": Contender("only Parquet -> sorted arrays", lambda f: _read_panel(f / "quotes.parquet"), lambda _: {}),
    "ours": Contender("RSI14, SMA50, HV30, statuses", lambda f: _ours(f / "quotes.parquet"), _of_indicators),
    "ours, adjusted": Contender("the same after splits and dividends", _ours_adjusted, lambda _: {}),
    "ours, daily files": Contender(
        "the same from one file per session, sorted", lambda f: _ours(f / "daily"), _of_indicators
    ),
    "talib per ticker": Contender("RSI14, SMA50, HV30; no statuses, no gaps", _talib_per_ticker, lambda arrays: arrays),
    "polars": Contender("RSI14, SMA50, HV30; no statuses, no gaps", _polars, _of_columns),
    "duckdb": Contender("SMA50, HV30 by windows; without RSI (recursive)", _duckdb, _of_duckdb),
    "pandas": Contender("RSI14, SMA50, HV30; no statuses, no gaps", _pandas, _of_columns),
}


# -- one contender, in its own process -----------------------------------------------------------------------


def run_contender(name: str, folder: Path, repeat: int) -> dict[str, Any]:
    """Time one contender in this process."""
    contender = CONTENDERS[name]
    contender.run(folder)
    seconds, cpu_seconds = [], []
    for _ in range(repeat):
        begin, cpu_begin = time.perf_counter(), time.process_time()
        result = contender.run(folder)
        seconds.append(time.perf_counter() - begin)
        cpu_seconds.append(time.process_time() - cpu_begin)
    peak_gb = peak_memory_gb()
    sample = {
        key: [None if math.isnan(v) else v for v in np.asarray(a, dtype=float)[::SAMPLE_STEP].tolist()]
        for key, a in contender.arrays(result).items()
    }
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_gb": peak_gb, "sample": sample}


def peak_memory_gb() -> float:
    """Give the largest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would count the parent, whose memory this process shared until it was replaced.
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def start_contender(name: str, folder: Path, repeat: int) -> dict[str, Any]:
    """Run this script for one contender and return what it reports."""
    limits = {v: str(THREADS) for v in ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "ARROW_IO_THREADS")}
    command = [sys.executable, __file__, "--contender", name, "--data", str(folder), "--repeat", str(repeat)]
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            env={**os.environ, **limits, "PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no result after {TIMEOUT_SECONDS} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    report: dict[str, Any] = json.loads(done.stdout)
    return report


# -- the table -----------------------------------------------------------------------------------------------


def largest_deviation(sample: dict[str, list[float | None]], ours: dict[str, list[float | None]]) -> str:
    """Tell the largest relative difference from ours; where a value exists must agree too."""
    worst = 0.0
    for name, values in sample.items():
        for value, other in zip(values, ours[name], strict=True):
            if value is None or other is None:
                if value is not other:
                    return f"{name} defined elsewhere"
                continue
            worst = max(worst, abs(value - other) / max(abs(other), 1e-12))
    return f"{worst:.0e}"


def main() -> None:
    """Make the data, run the contenders one after the other, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--tickers", type=int, default=5000)
    parser.add_argument("--sessions", type=int, default=1260)
    parser.add_argument("--repeat", type=int, default=5, help="timed runs of each contender")
    parser.add_argument("--only", help="names of contenders, separated by commas or semicolons")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        print(json.dumps(run_contender(arguments.contender, arguments.data, arguments.repeat)))
        return

    names = list(CONTENDERS)
    if arguments.only:
        names = [n.strip() for n in arguments.only.split(";" if ";" in arguments.only else ",")]
        unknown = set(names) - set(CONTENDERS)
        if unknown:
            parser.error(f"unknown contenders {sorted(unknown)}; known: {'; '.join(CONTENDERS)}")
    with tempfile.TemporaryDirectory(prefix="kpis-") as temporary:
        folder = Path(temporary)
        begin = time.perf_counter()
        n_rows = make_quotes(folder, arguments.tickers, arguments.sessions, "ours, daily files" in names)
        size = (folder / "quotes.parquet").stat().st_size / 1e6
        print(
            f"{arguments.tickers} tickers x {arguments.sessions} sessions = {n_rows:,} rows, "
            f"{size:.0f} MB of Parquet (made in {time.perf_counter() - begin:.0f} s)"
        )
        results = {}
        for name in names:
            results[name] = start_contender(name, folder, arguments.repeat)
            print_row(name, results[name], n_rows, results.get("ours", {}), header=name == names[0])
    if arguments.json:
        report = {
            "rows": n_rows,
            "machine": machine(),
            "repeat": arguments.repeat,
            "results": {
                name: {k: v for k, v in r.items() if k != "sample"} | {"computes": CONTENDERS[name].computes}
                for name, r in results.items()
            },
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def print_row(name: str, result: dict[str, Any], n_rows: int, ours: dict[str, Any], *, header: bool) -> None:
    """Print one line of the table, with its head before the first."""
    if header:
        heads = (
            ("M rows/s", 8),
            ("median s", 8),
            ("best s", 7),
            ("CPU s", 7),
            ("peak GB", 7),
            ("vs ours", 8),
        )
        print(f"{machine()}\n")
        print(f"{'':18} " + " ".join(f"{text:>{width}}" for text, width in heads) + "  computes")
    if "error" in result:
        print(f"{name:18} failed: {result['error']}")
        return
    median, best = statistics.median(result["seconds"]), min(result["seconds"])
    cpu = statistics.median(result["cpu_seconds"])  # of all threads; steadier where others use the machine
    agrees = largest_deviation(result["sample"], ours["sample"]) if ours.get("sample") else ""
    agrees = agrees if result["sample"] and result is not ours else "-"
    print(
        f"{name:18} {n_rows / median / 1e6:8.1f} {median:8.3f} {best:7.3f} {cpu:7.3f} "
        f"{result['peak_gb']:7.2f} {agrees:>8}  {CONTENDERS[name].computes}",
        flush=True,
    )


def machine() -> str:
    """Describe what the figures were measured on, including how busy it was."""
    packages = []
    for package in ("numpy", "pyarrow", "TA-Lib", "duckdb", "polars", "pandas"):
        try:
            packages.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            packages.append(f"{package} -")
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, " + ", ".join(
        packages
    )


if __name__ == "__main__":
    main()
