"""The embedded sample: its shape, its clock, and its recovered actions against what was really paid."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import itertools
import subprocess
import sys
import warnings
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finance_assets.market.sources import (
    SAMPLE_CLOCK,
    SAMPLE_SYMBOLS,
    ProviderNotInstalled,
    QuoteProvider,
    SampleProvider,
    SymbolNotFound,
    UnexpectedResponse,
    instrument_as_of,
    load_instruments,
    quote_schema,
)
from finance_assets.market.sources import sample as sample_module
from finance_assets.market.sources.sample import BOKEH_SYMBOLS, INDEX_SYMBOL, SKFOLIO_SYMBOLS, recover_actions
from finance_assets.reference.sample_period import SAMPLE_END, SAMPLE_START

for package in ("bokeh_sampledata", "skfolio"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed (extra: sample)", allow_module_level=True)


@pytest.fixture(scope="module")
def provider() -> SampleProvider:
    return SampleProvider(clock=lambda: SAMPLE_CLOCK)


@pytest.fixture(scope="module")
def sessions() -> list[date]:
    import exchange_calendars

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # exchange_calendars uses what pandas 3.1 deprecates
        calendar = exchange_calendars.get_calendar("XNYS", start="2000-01-03", end="2013-12-31")
        return [stamp.date() for stamp in calendar.sessions_in_range(str(SAMPLE_START), str(SAMPLE_END))]


def rows_of(provider: SampleProvider, symbol: str) -> list[dict[str, Any]]:
    return provider.fetch_quotes(symbol, SAMPLE_START, SAMPLE_END).table.to_pylist()


def paid(provider: SampleProvider, symbol: str) -> list[tuple[str, str]]:
    """Return (ex-date, amount) of every recovered dividend."""
    return [
        (str(row["quote_date"]), format(row["dividend_amount"].normalize(), "f"))
        for row in rows_of(provider, symbol)
        if row["dividend_amount"]
    ]


def test_it_is_a_provider_of_24_instruments(provider: SampleProvider) -> None:
    assert isinstance(provider, QuoteProvider)
    assert len(SAMPLE_SYMBOLS) == 24
    assert provider.symbols == SAMPLE_SYMBOLS
    assert set(SAMPLE_SYMBOLS) == {*BOKEH_SYMBOLS, *SKFOLIO_SYMBOLS, INDEX_SYMBOL}


@pytest.mark.parametrize("symbol", SAMPLE_SYMBOLS)
def test_every_series_has_the_schema_and_exactly_the_exchange_sessions(
    provider: SampleProvider, sessions: list[date], symbol: str
) -> None:
    batch = provider.fetch_quotes(symbol, SAMPLE_START, date(2099, 1, 1))
    listed = {"GOOG": date(2004, 8, 19), "FB": date(2012, 5, 18)}.get(symbol, SAMPLE_START)
    expected = [day for day in sessions if day >= listed]
    assert batch.table.schema.equals(quote_schema())
    assert batch.table["quote_date"].to_pylist() == expected
    assert batch.table["close"].null_count == 0
    assert batch.table["parse_error"].null_count == len(expected)
    assert batch.notes == ("the sample ends on 2013-03-01",)


def test_raw_rows_are_the_text_of_the_package(provider: SampleProvider) -> None:
    # Read from the package's file by hand: AAPL,2000-03-01,118.56,132.06,118.5,130.31,9616100,4.186662803811
    row = rows_of(provider, "AAPL")[0]
    assert row == {
        "quote_date": date(2000, 3, 1),
        "open": Decimal("118.56"),
        "high": Decimal("132.06"),
        "low": Decimal("118.5"),
        "close": Decimal("130.31"),
        "vendor_adjusted_close": Decimal("4.18666280"),
        "volume": 9616100,
        "dividend_amount": None,
        "split_ratio": None,
        "currency": "USD",
        "price_basis": "raw",
        "action_derivation": None,
        "parse_error": None,
    }


def test_close_only_rows_say_so(provider: SampleProvider) -> None:
    stock, index = rows_of(provider, "XOM")[0], rows_of(provider, INDEX_SYMBOL)[0]
    for row in (stock, index):
        for name in ("open", "high", "low", "volume", "dividend_amount", "split_ratio", "action_derivation"):
            assert row[name] is None, name
    assert stock["price_basis"] == "total_return_adjusted"
    assert stock["vendor_adjusted_close"] == stock["close"]
    assert (index["price_basis"], index["currency"], index["vendor_adjusted_close"]) == (
        "raw",
        "points",
        None,
    )
    assert index["close"] == Decimal("1379.19")  # S&P 500 on 2000-03-01


def test_names_in_both_packages_keep_one_basis(provider: SampleProvider) -> None:
    for symbol in ("AAPL", "MSFT"):
        rows = rows_of(provider, symbol)
        assert {row["price_basis"] for row in rows} == {"raw"}
        assert all(row["volume"] for row in rows)
    assert not {"AAPL", "MSFT"} & set(SKFOLIO_SYMBOLS)


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        ("2005-02-25", "2005-02-28", ["2005-02-25", "2005-02-28"]),
        ("2005-02-26", "2005-02-27", []),
        ("2013-02-28", "2022-12-28", ["2013-02-28", "2013-03-01"]),
        ("2013-03-02", "2022-12-28", []),
    ],
)
@pytest.mark.parametrize("symbol", ["AAPL", "XOM", "^GSPC"])
def test_ranges_are_clipped_and_nothing_comes_after_the_end(
    provider: SampleProvider, symbol: str, start: str, end: str, days: list[str]
) -> None:
    table = provider.fetch_quotes(symbol, date.fromisoformat(start), date.fromisoformat(end)).table
    assert [str(day) for day in table["quote_date"].to_pylist()] == days


def test_a_clip_does_not_change_what_a_row_says(provider: SampleProvider) -> None:
    one_day = provider.fetch_quotes("MSFT", date(2004, 11, 15), date(2004, 11, 15)).table.to_pylist()
    assert one_day == [row for row in rows_of(provider, "MSFT") if row["quote_date"] == date(2004, 11, 15)]
    assert one_day[0]["dividend_amount"] == Decimal("3.08")


def test_before_the_sample_start_there_is_history_where_the_package_has_it(provider: SampleProvider) -> None:
    assert provider.fetch_quotes("XOM", date(1990, 1, 2), date(1990, 1, 3)).table.num_rows == 2
    assert provider.fetch_quotes("AAPL", date(1990, 1, 2), date(2000, 2, 29)).table.num_rows == 0


# --- actions, against what the companies paid ---


def quarters(*years: tuple[str, ...]) -> list[str]:
    return [amount for year in years for amount in year]


def test_apple_dividends_resumed_in_2012(provider: SampleProvider) -> None:
    assert paid(provider, "AAPL") == [("2012-08-09", "2.65"), ("2012-11-07", "2.65"), ("2013-02-07", "2.65")]


def test_ibm_paid_52_dividends(provider: SampleProvider) -> None:
    expected = [
        *("0.13",) * 4,  # May 2000 to February 2001
        *("0.14",) * 4,
        *("0.15",) * 4,
        *("0.16",) * 4,
        *("0.18",) * 4,
        *("0.2",) * 4,
        *("0.3",) * 4,
        *("0.4",) * 4,
        *("0.5",) * 4,
        *("0.55",) * 4,
        *("0.65",) * 4,
        *("0.75",) * 4,
        *("0.85",) * 4,  # May 2012 to February 2013
    ]
    found = paid(provider, "IBM")
    assert [amount for _, amount in found] == expected
    assert (found[0][0], found[-1][0]) == ("2000-05-08", "2013-02-06")
    assert [int(day[5:7]) for day, _ in found] == [5, 8, 11, 2] * 13


def test_microsoft_paid_37_dividends_with_the_special_one_of_2004(provider: SampleProvider) -> None:
    expected = [
        *("0.08", "0.16"),  # yearly: February and October 2003, in shares after the split
        *("0.08", "3.08"),  # quarterly from 2004; the special 3.00 went ex with the regular 0.08
        *("0.08",) * 4,  # 2005
        *("0.09", "0.09", "0.09", "0.1"),
        *("0.1", "0.1", "0.1", "0.11"),
        *("0.11", "0.11", "0.11", "0.13"),
        *("0.13",) * 4,
        *("0.13", "0.13", "0.13", "0.16"),
        *("0.16", "0.16", "0.16", "0.2"),
        *("0.2", "0.2", "0.2", "0.23"),
        "0.23",
    ]
    found = paid(provider, "MSFT")
    assert [amount for _, amount in found] == expected
    assert dict(found)["2004-11-15"] == "3.08"
    assert found[0] == ("2003-02-19", "0.08")


def test_splits(provider: SampleProvider) -> None:
    found = {
        symbol: {
            str(row["quote_date"]): row["split_ratio"]
            for row in rows_of(provider, symbol)
            if row["split_ratio"] not in (None, 1.0)
        }
        for symbol in BOKEH_SYMBOLS
    }
    assert found == {
        "AAPL": {"2000-06-21": 2.0, "2005-02-28": 2.0},
        "FB": {},
        "GOOG": {},
        "IBM": {},
        "MSFT": {"2003-02-18": 2.0},
    }


def test_google_and_facebook_paid_nothing_and_zero_means_none(provider: SampleProvider) -> None:
    for symbol in ("GOOG", "FB"):
        rows = rows_of(provider, symbol)
        assert rows[0]["dividend_amount"] is rows[0]["split_ratio"] is rows[0]["action_derivation"] is None
        assert {row["dividend_amount"] for row in rows[1:]} == {Decimal(0)}
        assert {row["split_ratio"] for row in rows[1:]} == {1.0}
        assert {row["action_derivation"] for row in rows[1:]} == {"recovered_from_adjustment_factor"}


@pytest.mark.parametrize("symbol", ["AAPL", "IBM", "MSFT"])
def test_total_returns_from_the_actions_equal_those_of_the_adjusted_close(
    provider: SampleProvider, symbol: str
) -> None:
    rows = rows_of(provider, symbol)
    close = np.array([float(row["close"]) for row in rows])
    adjusted = np.array([float(row["vendor_adjusted_close"]) for row in rows])
    cash = np.array([float(row["dividend_amount"]) for row in rows[1:]])
    split = np.array([float(row["split_ratio"]) for row in rows[1:]])
    ours = split * (close[1:] + cash) / close[:-1]
    np.testing.assert_allclose(ours, adjusted[1:] / adjusted[:-1], rtol=2e-7)


# --- recovery on made-up series ---


def series(close: list[float], actions: dict[int, tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Return closes, and the adjusted closes that the source's convention makes of the actions."""
    raw = np.array(close)
    factor = np.ones(raw.size)
    for row, (cash, ratio) in actions.items():
        factor[row:] *= ratio * (1.0 + cash / raw[row])
    return raw, raw * factor / factor[-1]


@pytest.mark.parametrize(
    ("close", "actions"),
    [
        ([100.0, 101.0, 99.0], {1: (0.25, 1.0)}),
        ([100.0, 50.5, 51.0], {1: (0.0, 2.0)}),
        ([100.0, 34.0, 33.0], {1: (0.0, 3.0)}),
        ([100.0, 66.0, 67.0], {1: (0.0, 1.5)}),
        ([1.0, 10.2, 10.0], {1: (0.0, 0.1)}),
        ([100.0, 14.1, 14.2], {1: (0.0, 7.0)}),
        ([2000.0, 101.0, 99.0], {1: (0.0, 20.0)}),
        ([100.0, 49.0, 50.0], {1: (0.47, 2.0)}),  # split and dividend on one day
        ([30.0, 27.0, 27.5], {1: (3.08, 1.0)}),  # a large special dividend is no 10:9 split
        ([30.0, 20.0, 20.5], {1: (9.0, 1.0)}),
        ([100.0, 101.0, 99.0], {1: (0.125, 1.0), 2: (0.123456, 1.0)}),
    ],
)
def test_known_actions_are_recovered(close: list[float], actions: dict[int, tuple[float, float]]) -> None:
    cash, split = recover_actions(*series(close, actions))
    assert np.isnan(cash[0])
    assert np.isnan(split[0])
    expected = [actions.get(row, (0.0, 1.0)) for row in range(1, len(close))]
    assert list(zip(cash[1:].tolist(), split[1:].tolist(), strict=True)) == expected


def test_rounding_noise_makes_no_action() -> None:
    rng = np.random.default_rng(7)
    close = np.round(50 * np.exp(np.cumsum(rng.normal(0, 0.03, 5000))), 2)
    cash, split = recover_actions(close, close * 0.5015482313425003 * (1 + rng.uniform(-1e-12, 1e-12, close.size)))
    assert not cash[1:].any()
    assert (split[1:] == 1).all()


def test_a_step_that_is_neither_is_refused() -> None:
    with pytest.raises(ValueError, match="neither split nor dividend"):
        recover_actions(np.array([10.0, 10.0]), np.array([10.0, 9.9]))  # a factor that falls without a price that rises
    with pytest.raises(ValueError, match="neither split nor dividend"):
        recover_actions(np.array([10.0, 10.0]), np.array([10.0, 20.0]))  # a 2:1 split that the price did not follow
    with pytest.raises(ValueError, match="neither split nor dividend"):
        recover_actions(np.array([10.0, 10.0]), np.array([10.0, 8.5]))  # no reverse 5:6 split with a dividend
    with pytest.raises(ValueError, match="neither split nor dividend"):
        recover_actions(np.array([10.0, 6.2]), np.array([10.0, 6.2 * 1.83]))  # no 3:2 split with 22 % on top


@pytest.mark.parametrize("bad", [[1.0, 0.0], [1.0, -1.0], [1.0, np.nan], [1.0, np.inf]])
def test_impossible_closes_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        recover_actions(np.array([1.0, 1.0]), np.array(bad))
    with pytest.raises(ValueError, match="shape"):
        recover_actions(np.array([1.0, 1.0]), np.array([1.0]))


def test_short_series() -> None:
    assert recover_actions(np.array([]), np.array([]))[0].size == 0
    cash, split = recover_actions(np.array([5.0]), np.array([2.0]))
    assert np.isnan(cash).all()
    assert np.isnan(split).all()


# --- provenance ---


def test_the_page_is_the_package_file_byte_for_byte(provider: SampleProvider) -> None:
    batches = {
        symbol: provider.fetch_quotes(symbol, SAMPLE_START, SAMPLE_END)
        for symbol in ("AAPL", "IBM", "XOM", "GE", "^GSPC")
    }
    addresses = {symbol: hashlib.sha256(batch.page or b"").hexdigest() for symbol, batch in batches.items()}
    assert len(set(addresses.values())) == 3
    assert addresses["AAPL"] == addresses["IBM"]
    spec = importlib.util.find_spec("bokeh_sampledata")
    assert spec is not None
    file = Path((spec.submodule_search_locations or [""])[0], "_data", "stocks.csv.gz")
    assert batches["AAPL"].page == file.read_bytes()
    assert {batch.page_suffix for batch in batches.values()} == {".csv.gz"}


def test_a_rerun_is_equal_and_stamped_by_the_clock(provider: SampleProvider) -> None:
    again = SampleProvider(clock=lambda: SAMPLE_CLOCK)
    for symbol in ("MSFT", "XOM"):
        first, second = (one.fetch_quotes(symbol, SAMPLE_START, SAMPLE_END) for one in (provider, again))
        assert first.table.equals(second.table)
        assert (first.request, first.page, first.fetched_ts_utc) == (
            second.request,
            second.page,
            SAMPLE_CLOCK,
        )
    moved = SampleProvider(clock=lambda: datetime(2024, 1, 1, tzinfo=UTC)).fetch_overview("MSFT")
    assert moved.fetched_ts_utc == datetime(2024, 1, 1, tzinfo=UTC)


def test_an_unknown_ticker_is_named_with_what_there_is(provider: SampleProvider) -> None:
    for ask in (
        lambda: provider.fetch_quotes("TSLA", SAMPLE_START, SAMPLE_END),
        lambda: provider.fetch_overview("TSLA"),
    ):
        with pytest.raises(SymbolNotFound, match="AAPL, AMD"):
            ask()


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_module, "_BOKEH_FILE", ("no_such_package", "_data/stocks.csv.gz"))
    with pytest.raises(ProviderNotInstalled, match=r"pip install 'finance-assets\[sample\]'"):
        SampleProvider(clock=lambda: SAMPLE_CLOCK).fetch_quotes("AAPL", SAMPLE_START, SAMPLE_END)


@pytest.mark.parametrize(
    "text",
    [
        "Ticker,Date,Open,High,Low,Close,Volume\nAAPL,2000-03-01,1,1,1,1,1\n",
        "Ticker,Date,Open,High,Low,Close,Volume,Adj Close\nAAPL,2000-03-01,1,1,1,abc,1,1\n",
        "Ticker,Date,Open,High,Low,Close,Volume,Adj Close\nAAPL,2000-03-01,1,1,1,1,1,1\nAAPL,2000-03-02,1,1,1,1,1,3\n",
    ],
)
def test_another_edition_of_the_package_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "stocks.csv.gz"
    file.write_bytes(gzip.compress(text.encode()))
    monkeypatch.setattr(sample_module, "package_file", lambda package, name: file)
    with pytest.raises(UnexpectedResponse, match="pinned version"):
        SampleProvider(clock=lambda: SAMPLE_CLOCK).fetch_quotes("AAPL", SAMPLE_START, SAMPLE_END)


def test_reading_the_sample_imports_neither_package() -> None:
    code = (
        "import sys\n"
        "from finance_assets.market.sources import SAMPLE_CLOCK, SAMPLE_SYMBOLS, SampleProvider\n"
        "from finance_assets.reference.sample_period import SAMPLE_END, SAMPLE_START\n"
        "provider = SampleProvider(clock=lambda: SAMPLE_CLOCK)\n"
        "for symbol in ('AAPL', 'XOM', '^GSPC'):\n"
        "    provider.fetch_quotes(symbol, SAMPLE_START, SAMPLE_END)\n"
        "heavy = {'skfolio', 'sklearn', 'bokeh_sampledata', 'scipy', 'httpx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


# --- instruments ---


def test_the_universe_covers_the_sample_without_gaps_or_overlaps() -> None:
    table = load_instruments()
    versions: dict[str, list[dict[str, object]]] = {}
    for row in table.to_pylist():
        versions.setdefault(row["symbol"], []).append(row)
    assert sorted(versions) == sorted(SAMPLE_SYMBOLS)
    for symbol, rows in versions.items():
        for earlier, later in itertools.pairwise(rows):
            assert earlier["valid_to"] == later["valid_from"], symbol
        assert (rows[-1]["valid_to"] is None) == (symbol != "FB")
        assert all(row["valid_to"] is None or row["valid_to"] > row["valid_from"] for row in rows), symbol  # type: ignore[operator]
        assert all(row["source"] for row in rows)


def test_every_quote_of_the_sample_has_a_version_of_its_instrument(provider: SampleProvider) -> None:
    for symbol in SAMPLE_SYMBOLS:
        first = provider.fetch_quotes(symbol, SAMPLE_START, SAMPLE_END).table["quote_date"][0].as_py()
        assert instrument_as_of(symbol, first) is not None, symbol


def test_seven_gics_sectors_in_the_sample() -> None:
    members: dict[str | None, set[str]] = {}
    for symbol in SAMPLE_SYMBOLS:
        known = instrument_as_of(symbol, SAMPLE_END)
        assert known is not None
        members.setdefault(known["gics_sector"], set()).add(symbol)
    assert members == {
        "Information Technology": {"AAPL", "AMD", "FB", "GOOG", "IBM", "MSFT"},
        "Financials": {"BAC", "JPM"},
        "Consumer Discretionary": {"BBY", "HD"},
        "Consumer Staples": {"KO", "PEP", "PG", "WMT"},
        "Energy": {"CVX", "RRC", "XOM"},
        "Health Care": {"JNJ", "LLY", "MRK", "PFE", "UNH"},
        "Industrials": {"GE"},
        None: {"^GSPC"},
    }


def test_membership_is_point_in_time() -> None:
    def sector(symbol: str, day: date) -> str | None:
        known = instrument_as_of(symbol, day)
        return None if known is None else known["gics_sector"]

    for symbol in ("GOOG", "FB"):
        assert sector(symbol, date(2018, 9, 27)) == "Information Technology"
        assert sector(symbol, date(2018, 9, 28)) == "Communication Services"
    assert instrument_as_of("FB", date(2012, 5, 17)) is None
    assert instrument_as_of("FB", date(2022, 6, 8)) is not None
    assert instrument_as_of("FB", date(2022, 6, 9)) is None
    exchanges = [(instrument_as_of("AMD", day) or {}).get("exchange") for day in (date(2014, 12, 31), date(2015, 1, 2))]
    assert exchanges == ["XNYS", "XNAS"]


def test_the_overview_is_that_of_the_last_session_without_earnings(provider: SampleProvider) -> None:
    overview = provider.fetch_overview("GOOG")
    assert (overview.name, overview.sector, overview.sector_scheme) == (
        "Google Inc. Class A",
        "Information Technology",
        "GICS",
    )
    assert (overview.instrument_type, overview.currency, overview.exchange) == ("equity", "USD", "XNAS")
    assert (overview.eps, overview.pe_ratio, overview.page) == (None, None, None)
    assert provider.fetch_overview("^GSPC").instrument_type == "index"
