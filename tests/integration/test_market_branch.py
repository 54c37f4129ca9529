"""The market branch as real Dagster runs: rerun, heal, restate, fail."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
from fixtures.quotes import JANUARY, FakeProvider, MarketBranch, bar, fake_settings, overview, wandering

from finance_assets.contracts import market
from finance_assets.contracts.market import (
    CORPORATE_ACTIONS,
    INSTRUMENTS,
    QUOTES,
    QUOTES_RAW,
    REJECTED_QUOTES,
    TICKER_KPIS,
)
from finance_assets.contracts.model import Partitioning
from finance_assets.market.assets import raw_quotes_asset
from finance_assets.market.kpis import changed_sessions
from finance_assets.market.planning import SessionRange
from finance_assets.market.schedules import ranges_to_run
from finance_assets.market.sources import AuthenticationFailed, ProviderUnavailable, RateLimited
from finance_assets.settings import Settings

SHORT = JANUARY[:6]
SATURDAY = date(2012, 1, 7)


def provider(**changes: Any) -> FakeProvider:
    """Two tickers over January; AAA splits on the 10th and pays on the 12th, and has a row for a Saturday."""
    rows = {"AAA": wandering(JANUARY), "BBB": wandering(JANUARY, 20.0, 5)}
    rows["AAA"][SATURDAY] = bar(SATURDAY, "1.00")
    rows["AAA"][JANUARY[5]] = rows["AAA"][JANUARY[5]]._replace(split_ratio=2.0)
    rows["AAA"][JANUARY[7]] = rows["AAA"][JANUARY[7]]._replace(dividend_amount=Decimal("0.25"))
    return FakeProvider(**({"rows": rows} | changes))


def branch(home: Path, *providers: Any, **changes: Any) -> MarketBranch:
    made = MarketBranch(fake_settings(home, **changes), providers or [provider()])
    made.tables()
    return made


def ranges(of: MarketBranch) -> list[SessionRange]:
    return ranges_to_run(of.settings, of.lake, of.market_data)


def assert_same_numbers(one: MarketBranch, other: MarketBranch) -> None:
    """Everything that is cut into sessions is equal, KPIs to 1e-8."""
    for contract in market.CONTRACTS:
        if contract is not TICKER_KPIS and contract.partitioning is Partitioning.SESSION:
            assert one.read(contract).equals(other.read(contract)), contract.path
    left, right = one.read(TICKER_KPIS), other.read(TICKER_KPIS)
    assert changed_sessions(left, right) == []
    for field in left.schema:
        if pa.types.is_floating(field.type):
            values = (np.array(table.column(field.name).to_pylist(), float) for table in (left, right))
            np.testing.assert_allclose(*values, rtol=1e-8, atol=1e-8, err_msg=field.name)
        else:
            assert left.column(field.name).equals(right.column(field.name)), field.name


# -- the sample ------------------------------------------------------------------------------------------------------


def test_the_sample_from_quotes_to_kpis_and_a_rerun_changes_no_byte(tmp_path: Path) -> None:
    """The window holds the listing of FB, a dividend, and a weekend."""
    first, last = date(2012, 5, 15), date(2012, 5, 22)
    made = MarketBranch(Settings(home=tmp_path / "home", market_start=first))
    assert made.tables().success
    result = made.run(first, last, checks=True)
    assert result.success
    failed = [check for check in result.get_asset_check_evaluations() if not check.passed]
    assert [check.check_name for check in failed] == ["newest_session_present"]
    assert not failed[0].blocking
    assert made.lake.row_counts(QUOTES) == {
        "2012-05-15": 23,
        "2012-05-16": 23,
        "2012-05-17": 23,
        "2012-05-18": 24,
        "2012-05-21": 24,
        "2012-05-22": 24,
    }
    assert made.lake.row_counts(TICKER_KPIS) == made.lake.row_counts(QUOTES)
    assert made.lake.row_counts(REJECTED_QUOTES) == {}
    before = made.files()
    assert len(before) >= 3 * 6 + 2
    assert made.tables().success
    assert made.run(first, last).success
    assert made.files() == before
    # One session by itself gives the same bytes too.
    assert made.run(date(2012, 5, 17)).success
    assert made.files() == before


# -- one session at a time -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> MarketBranch:
    """Six sessions in one run."""
    made = branch(tmp_path_factory.mktemp("together"))
    made.run(SHORT[0], SHORT[-1])
    return made


def test_a_session_at_a_time_gives_the_same_bytes_as_a_range(tmp_path: Path, together: MarketBranch) -> None:
    made = branch(tmp_path)
    for day in SHORT:
        made.run(day)
    assert made.files().keys() == together.files().keys()
    assert_same_numbers(made, together)
    differing = {path for path, data in together.files().items() if made.files()[path] != data}
    # The range knew of the split of its last day from the start; then every earlier session is restated.
    assert differing == set()


def test_any_order_of_sessions_gives_the_same_numbers(tmp_path: Path, together: MarketBranch) -> None:
    """A window of a later session reaches back into one that came late."""
    order = list(SHORT)
    random.Random(4).shuffle(order)
    assert order != sorted(order)
    made = branch(tmp_path)
    for day in order:
        made.run(day)
    assert made.files().keys() == together.files().keys()
    assert_same_numbers(made, together)
    assert [path for path, data in together.files().items() if made.files()[path] != data] == []


def test_sessions_that_are_lost_come_back_with_the_same_bytes(tmp_path: Path) -> None:
    """Whichever sessions of the KPIs are deleted, and in whatever ranges they are made again."""
    made = branch(tmp_path)
    made.run(JANUARY[0], JANUARY[-1])
    before = made.files()
    rng = random.Random(7)
    for lost in ([3], [0, 1, 2], [5, 9], rng.sample(range(len(JANUARY)), 6)):
        for place in lost:
            Path(made.lake.file(TICKER_KPIS, JANUARY[place].isoformat())).unlink()
        rng.shuffle(lost)
        if len(lost) == 3:
            made.run(JANUARY[0], JANUARY[2])
        else:
            for place in lost:
                made.run(JANUARY[place])
        after = made.files()
        assert after.keys() == before.keys()
        assert [path for path, data in before.items() if after[path] != data] == []


def test_a_weekend_row_is_refused_whichever_run_brings_it(tmp_path: Path, together: MarketBranch) -> None:
    (row,) = together.read(REJECTED_QUOTES).to_pylist()
    assert (row["quote_date"], row["session_date"], row["reason"]) == (SATURDAY, date(2012, 1, 9), "not_a_session")
    assert 1.0 not in [float(close) for close in together.read(QUOTES).column("close").to_pylist()]
    made = branch(tmp_path)
    made.run(date(2012, 1, 9))
    assert made.read(REJECTED_QUOTES).to_pylist() == [row]


def test_a_range_asks_for_each_ticker_once(tmp_path: Path) -> None:
    asked = provider()
    branch(tmp_path, asked).run(SHORT[1], SHORT[-1])
    # From the day after the session before, so that a row between the two is seen.
    assert asked.calls == [(symbol, JANUARY[0].replace(day=4), SHORT[-1]) for symbol in ("AAA", "BBB")]


# -- what went wrong heals -------------------------------------------------------------------------------------------


def test_a_missed_session_heals_with_all_that_follows_from_it(tmp_path: Path, together: MarketBranch) -> None:
    made = branch(tmp_path, now=datetime(2012, 1, 10, 22, tzinfo=UTC))
    made.run(SHORT[0], SHORT[2])
    made.run(SHORT[4], SHORT[5])
    stale = made.read(TICKER_KPIS)
    assert ranges(made) == [SessionRange(SHORT[3], SHORT[3])]
    made.run(SHORT[3])
    assert ranges(made) == []
    kpis = made.read(TICKER_KPIS)
    assert kpis.num_rows == stale.num_rows + 2
    assert changed_sessions(kpis, together.read(TICKER_KPIS)) == []
    # The session after the gap had a return over two sessions, and its number was wrong.
    assert changed_sessions(stale, kpis)[:2] == [SHORT[3], SHORT[4]]


def test_a_session_that_lacks_a_ticker_heals(tmp_path: Path, together: MarketBranch) -> None:
    answering = provider()
    answering.errors["BBB"] = RateLimited("fake", "BBB", "too many requests")
    made = branch(tmp_path, answering, now=datetime(2012, 1, 10, 22, tzinfo=UTC))
    result = made.run(SHORT[0], SHORT[-1], checks=True)
    metadata = materializations(result, QUOTES_RAW)[SHORT[0].isoformat()]
    assert result.success
    assert "too many requests" in metadata["failed_symbols"].value["BBB"]
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert not checks["every_ticker_present"].passed
    assert "2012-01-03: BBB" in (checks["every_ticker_present"].description or "")
    assert ranges(made) == [SessionRange(SHORT[0], SHORT[-1])]
    answering.errors.clear()
    made.run(SHORT[0], SHORT[-1])
    assert ranges(made) == []
    assert_same_numbers(made, together)


def test_a_ticker_that_fails_later_keeps_its_rows(tmp_path: Path) -> None:
    answering = provider()
    made = branch(tmp_path, answering)
    made.run(SHORT[0], SHORT[-1])
    before = made.files()
    answering.errors["BBB"] = RateLimited("fake", "BBB", "too many requests")
    made.run(SHORT[0], SHORT[-1])
    assert made.files() == before


def test_a_run_that_died_between_the_stages_is_run_again(tmp_path: Path) -> None:
    made = branch(tmp_path, now=datetime(2012, 1, 10, 22, tzinfo=UTC))
    made.run(SHORT[0], SHORT[3])
    with dying("core/quotes"):
        assert not made.run(SHORT[4], raise_on_error=False).success
    assert f"{SHORT[4]}" in made.lake.partitions(QUOTES_RAW)
    with dying("core/ticker_kpis"):
        assert not made.run(SHORT[5], raise_on_error=False).success
    assert f"{SHORT[5]}" in made.lake.partitions(QUOTES)
    assert ranges(made) == [SessionRange(SHORT[4], SHORT[5])]
    made.run(SHORT[4], SHORT[5])
    assert ranges(made) == []


def test_a_ticker_that_did_not_come_through_is_run_again(tmp_path: Path) -> None:
    """The files of every stage are there, but the later ones are of the run before."""
    answering = provider()
    answering.errors["BBB"] = RateLimited("fake", "BBB", "too many requests")
    made = branch(tmp_path, answering, now=datetime(2012, 1, 5, 22, tzinfo=UTC))
    made.run(SHORT[0], SHORT[2])
    answering.errors.clear()
    for stage in ("core/quotes", "core/ticker_kpis"):
        with dying(stage):
            assert not made.run(SHORT[0], SHORT[2], raise_on_error=False).success
        assert ranges(made) == [SessionRange(SHORT[0], SHORT[2])]
    made.run(SHORT[0], SHORT[2])
    assert ranges(made) == []


@contextmanager
def dying(table: str, after: int = 0) -> Iterator[None]:
    """While the block lasts, putting a file of a table in place fails: the first one, or after so many."""
    replace, written = os.replace, itertools.count()

    def failing(source: str, target: str) -> None:
        if f"/{table}/" in target and next(written) >= after:
            raise OSError("the disk is full")
        replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.replace", failing)
        yield
    assert next(written) > after, f"nothing of {table} was written"


# -- corporate actions -----------------------------------------------------------------------------------------------


def with_split(of: FakeProvider, day: date) -> FakeProvider:
    of.rows["BBB"][day] = of.rows["BBB"][day]._replace(split_ratio=4.0)
    return of


@pytest.fixture(scope="module")
def split_at_once(tmp_path_factory: pytest.TempPathFactory) -> MarketBranch:
    """Ten sessions in one run that knows of the split of the ninth from the start."""
    made = branch(tmp_path_factory.mktemp("split"), with_split(provider(), JANUARY[8]))
    made.run(JANUARY[0], JANUARY[9])
    return made


def test_a_new_split_restates_every_earlier_session_of_its_ticker(tmp_path: Path, split_at_once: MarketBranch) -> None:
    made = branch(tmp_path, with_split(provider(), JANUARY[8]))
    made.run(JANUARY[0], JANUARY[7])
    before = made.read(TICKER_KPIS)
    events = materializations(made.run(JANUARY[8], JANUARY[9]), TICKER_KPIS)
    assert_same_numbers(made, split_at_once)
    assert sorted(events) == [day.isoformat() for day in JANUARY[:10]]
    assert events[JANUARY[9].isoformat()]["restated_symbols"].value == ["BBB"]
    assert events[JANUARY[9].isoformat()]["restated_partitions"].value == 8
    old = {(r["symbol"], r["session_date"]): r["close_split_adjusted"] for r in before.to_pylist()}
    for row in made.read(TICKER_KPIS).to_pylist():
        if row["session_date"] < JANUARY[8]:
            factor = 4 if row["symbol"] == "BBB" else 1
            assert row["close_split_adjusted"] * factor == pytest.approx(old[row["symbol"], row["session_date"]])
    files = made.files()
    made.run(JANUARY[8])
    assert made.files() == files


@pytest.mark.parametrize("after", [0, 5])
def test_a_restatement_that_dies_half_way_is_finished_by_the_next_run(
    tmp_path: Path, after: int, split_at_once: MarketBranch
) -> None:
    made = branch(tmp_path, with_split(provider(), JANUARY[8]))
    made.run(JANUARY[0], JANUARY[7])
    with dying("core/ticker_kpis", after):
        assert not made.run(JANUARY[8], raise_on_error=False).success
    # The next run is about another session; the one that died has no KPIs yet.
    made.run(JANUARY[9])
    left, right = made.read(TICKER_KPIS), split_at_once.read(TICKER_KPIS)
    assert changed_sessions(left, right) == [JANUARY[8]]
    assert ranges(made)[0].first == JANUARY[8]
    made.run(JANUARY[8])
    assert_same_numbers(made, split_at_once)


def test_a_split_reaches_a_ticker_that_the_newest_session_lacks(tmp_path: Path) -> None:
    """Whether there is something to restate must not be read off the newest session alone."""
    answering = with_split(provider(), JANUARY[5])
    made = branch(tmp_path, answering)
    made.run(JANUARY[0], JANUARY[3])
    answering.errors["BBB"] = RateLimited("fake", "BBB", "too many requests")
    made.run(JANUARY[4])
    answering.errors.clear()
    made.run(JANUARY[5])
    made.run(JANUARY[4])
    at_once = branch(tmp_path / "at_once", with_split(provider(), JANUARY[5]))
    at_once.run(JANUARY[0], JANUARY[5])
    assert_same_numbers(made, at_once)


def test_a_dividend_that_is_found_late_changes_what_follows(tmp_path: Path) -> None:
    answering = provider()
    made = branch(tmp_path, answering)
    made.run(JANUARY[0], JANUARY[7])
    answering.rows["BBB"][JANUARY[3]] = answering.rows["BBB"][JANUARY[3]]._replace(dividend_amount=Decimal("0.50"))
    made.run(JANUARY[3])
    at_once = branch(tmp_path / "at_once", answering)
    at_once.run(JANUARY[0], JANUARY[7])
    left, right = made.read(TICKER_KPIS), at_once.read(TICKER_KPIS)
    assert changed_sessions(left, right) == []


# -- nobody answers --------------------------------------------------------------------------------------------------


def step_failure(result: dg.ExecuteInProcessResult, step: str) -> Any:
    return next(event for event in result.all_events if event.is_step_failure and event.step_key == step)


def failure_of(made: MarketBranch) -> dg.Failure:
    """What the quotes of one session raise, without a run and its retries."""
    with pytest.raises(dg.Failure) as caught:
        raw_quotes_asset(
            dg.build_asset_context(partition_key=f"{SHORT[0]}"),
            lake=made.lake,
            market_data=made.market_data,
            settings=made.settings,
        )
    return caught.value


def test_when_no_provider_answers_the_run_fails_and_says_what_to_do(tmp_path: Path) -> None:
    made = branch(tmp_path, FakeProvider(errors={"*": AuthenticationFailed("fake", "AAA", "the key is refused")}))
    result = made.run(SHORT[0], raise_on_error=False)
    assert [event.step_key for event in result.all_events if event.is_step_failure] == ["raw__quotes"]
    assert made.files().keys() == {"raw/trading_sessions/data.parquet", "raw/instruments/data.parquet"}
    failure = failure_of(made)
    assert failure.allow_retries is False
    assert failure.description is not None
    assert failure.description.startswith("no provider answered for any of 2 tickers")
    assert "the key is refused" in failure.description
    assert "FINANCE_ASSETS_MARKET_PROVIDERS" in failure.description


def test_what_may_pass_is_tried_again(tmp_path: Path) -> None:
    refused = AuthenticationFailed("first", "AAA", "no right to this ticker")
    silent = ProviderUnavailable("second", "AAA", "no answer within 20 s")
    made = branch(tmp_path, FakeProvider("first", errors={"*": refused}), FakeProvider("second", errors={"*": silent}))
    failure = failure_of(made)
    assert failure.allow_retries is True
    assert "may pass" in str(failure.description)
    assert "no right to this ticker" in str(failure.description)
    policy = raw_quotes_asset.op.retry_policy
    assert policy is not None
    assert policy.max_retries == 2
    assert policy.calculate_delay(2) > policy.calculate_delay(1) >= 60


def materializations(result: dg.ExecuteInProcessResult, contract: Any) -> dict[str, Any]:
    """Metadata by partition."""
    key = dg.AssetKey(contract.asset_key)
    return {
        str(event.partition): event.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key == key
    }


def test_a_broken_promise_stops_what_follows(tmp_path: Path) -> None:
    answering = provider()
    made = branch(tmp_path, answering)
    answering.rows["AAA"][SHORT[0]] = bar(SHORT[0], currency="USD")._replace(price_basis="nominal")  # type: ignore[arg-type]
    result = made.run(SHORT[0], raise_on_error=False, checks=True)
    assert not result.success
    (check,) = [c for c in result.get_asset_check_evaluations() if not c.passed and c.blocking]
    assert check.asset_key == dg.AssetKey(QUOTES_RAW.asset_key)
    assert "price_basis is one of its allowed values" in (check.description or "")
    assert not materializations(result, QUOTES)
    assert not materializations(result, TICKER_KPIS)
    assert made.lake.partitions(QUOTES) == []


# -- who supplied what -----------------------------------------------------------------------------------------------


def test_the_next_provider_answers_and_the_rows_say_why(tmp_path: Path) -> None:
    first = provider(name="first")
    first.errors["BBB"] = RateLimited("first", "BBB", "slow down", attempts=4)
    made = branch(tmp_path, first, provider(name="second"))
    result = made.run(SHORT[0], SHORT[1])
    rows = {(r["symbol"], r["provider"], r["fallback_reason"]) for r in made.read(QUOTES_RAW).to_pylist()}
    assert rows == {("AAA", "first", None), ("BBB", "second", "first: rate_limited after 4 tries")}
    metadata = materializations(result, QUOTES_RAW)[SHORT[0].isoformat()]
    assert metadata["fallbacks"].value == 1
    assert metadata["providers"].value == ["first", "second"]
    assert {r["provider"] for r in made.read(QUOTES).to_pylist()} == {"first", "second"}


def test_bytes_are_landed_once_under_their_hash(tmp_path: Path) -> None:
    made = branch(tmp_path, provider(page=b'{"some": "page"}'))
    made.run(SHORT[0])
    digests = set(made.read(QUOTES_RAW).column("response_sha256").to_pylist())
    (digest,) = digests
    assert made.lake.get(made.lake.landed_path(digest, "market", "fake", suffix=".json")) == b'{"some": "page"}'


def test_instruments_are_versions_over_time_and_what_was_said_is_landed(tmp_path: Path) -> None:
    answering = provider(described={"AAA": overview(page=b"{}")})
    made = branch(tmp_path, answering)
    before = made.files()
    made.tables()
    assert made.files() == before
    (row,) = made.read(INSTRUMENTS).to_pylist()
    assert (row["symbol"], row["eps"], row["valid_to"]) == ("AAA", Decimal("2.5"), None)
    assert made.lake.list(f"{made.lake.root}/landing/market/fake", ".json")
    later = branch(
        tmp_path,
        provider(described={"AAA": overview(eps=Decimal("3"))}),
        now=datetime(2012, 2, 7, 22, tzinfo=UTC),
    )
    assert [row["valid_to"] for row in later.read(INSTRUMENTS).to_pylist()] == [date(2012, 2, 7), None]


# -- how the assets are made -----------------------------------------------------------------------------------------


def test_what_talks_to_providers_and_what_rewrites_kpis_has_a_pool(tmp_path: Path) -> None:
    made = MarketBranch(fake_settings(tmp_path))
    pools = {
        spec.key.to_user_string(): asset.node_def.pool  # type: ignore[union-attr]
        for asset in made.definitions.assets or []
        for spec in asset.specs  # type: ignore[union-attr]
    }
    assert pools["raw/quotes"] == pools["raw/instruments"] == "market_providers"
    assert pools["core/ticker_kpis"] == "ticker_kpis"
    assert pools["core/quotes"] is None


def test_a_partition_that_was_never_read_has_no_calendar_and_says_so(tmp_path: Path) -> None:
    made = MarketBranch(fake_settings(tmp_path), [provider()])
    result = made.run(SHORT[0], raise_on_error=False)
    failure = step_failure(result, "core__ticker_kpis").step_failure_data.user_failure_data
    assert "raw/trading_sessions" in failure.description
    assert "materialise it first" in failure.description


def test_sparse_tables_are_written_before_core_quotes(tmp_path: Path) -> None:
    """A session without rejected rows has no file of them: where core/quotes is there, they must have been judged."""
    made = branch(tmp_path)
    with dying("core/quotes"):
        made.run(date(2012, 1, 9), raise_on_error=False)
    assert made.lake.partitions(REJECTED_QUOTES) == ["2012-01-09"]
    assert made.lake.partitions(QUOTES) == []
    sparse = [c.path for c in market.CONTRACTS if c.partitioning is Partitioning.SESSION and c.sparse]
    assert sorted(sparse) == [CORPORATE_ACTIONS.path, REJECTED_QUOTES.path]
