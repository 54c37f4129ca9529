"""The report: what it says where something is missing, that it repeats byte for byte, and how it looks in a browser."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from fixtures.browser import browser as browser
from fixtures.browser import watched_page
from fixtures.rows import good_row, table_of

from finance_assets.contracts.macro import MACRO_INDICATORS
from finance_assets.contracts.publishing import RISK_EXPORTS, SECTOR_PERFORMANCE
from finance_assets.publishing.report import (
    PERIODS,
    SECTIONS,
    SIGNALS,
    QualityLine,
    ReportInputs,
    daily_report,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SESSION = date(2013, 3, 1)
MADE = datetime(2013, 3, 1, 21, 30, tzinfo=UTC)
EXPORTS = {export.name: export for export in RISK_EXPORTS}
SECTORS = ("Energy", "Financials", "Health <Care>")
STATES = {"trend": "bullish", "momentum": "negative", "rotation": "leading", "volatility_regime": "high"}


@cache
def tables() -> dict[str, pa.Table | None]:
    days = [SESSION - timedelta(days=n) for n in range(40)][::-1]
    performance, risk, correlations, signals = [], [], [], []
    for number, sector in enumerate(SECTORS):
        returns: dict[str, Any] = {}
        for place, (period, _) in enumerate(PERIODS):
            returns |= {f"return_{period}": (number - 1) * 0.01 * (place + 1), f"return_{period}_status": "ok"}
        if number == 2:
            returns |= {"return_1y": None, "return_1y_status": "insufficient_history"}
        performance.append(good_row(SECTOR_PERFORMANCE, sector=sector, session_date=SESSION, **returns))
        for day in days:
            risk.append(
                good_row(
                    EXPORTS["risk_metrics"],
                    sector=sector,
                    session_date=day,
                    risk_window="trailing_252",
                    current_drawdown=-0.01 * (number + day.day % 5),
                )
            )
            for signal, _, _ in SIGNALS:
                value = 100.0 + number + day.day / 40 if signal == "rotation" else 0.1
                signals.append(
                    good_row(
                        EXPORTS["trading_signals"],
                        sector=sector,
                        session_date=day,
                        signal=signal,
                        state=STATES[signal],
                        state_status="ok",
                        value=value,
                        reference_value=value,
                        since_date=SESSION,
                        is_new=sector == "Energy" and signal == "trend",
                    )
                )
    for one in ("^GSPC", *SECTORS):
        for other in ("^GSPC", *SECTORS):
            correlations.append(
                good_row(
                    EXPORTS["correlations"],
                    series=one,
                    other_series=other,
                    session_date=SESSION,
                    correlation_252=1.0 if one == other else 0.5,
                    correlation_252_status="ok",
                )
            )
    macro = good_row(
        MACRO_INDICATORS, session_date=SESSION, published_value=Decimal("92.84"), frequency="daily", is_new=True
    )
    return {
        "performance": table_of(SECTOR_PERFORMANCE, *performance),
        "risk": table_of(EXPORTS["risk_metrics"], *risk),
        "correlations": table_of(EXPORTS["correlations"], *correlations),
        "signals": table_of(EXPORTS["trading_signals"], *signals),
        "macro": table_of(MACRO_INDICATORS, macro),
    }


def inputs(**changes: Any) -> ReportInputs:
    given: dict[str, Any] = {
        "session": SESSION,
        "made_at": MADE,
        "tables": tables(),
        "expected_session": SESSION,
        "quality": [QualityLine("core/quotes", "honours_contract", True, True, "fine")],
    }
    return ReportInputs(**(given | changes))


def page_of(**changes: Any) -> str:
    return daily_report(inputs(**changes), script="").page.decode()


def test_the_same_tables_give_the_same_bytes() -> None:
    shuffled = {
        name: None if table is None else table.take(pa.array(range(table.num_rows - 1, -1, -1)))
        for name, table in tables().items()
    }
    assert daily_report(inputs()).page == daily_report(inputs(tables=shuffled)).page


def test_nothing_is_fetched_and_names_cannot_break_out() -> None:
    page = page_of()
    assert "http://" not in page
    assert "https://" not in page
    assert "<Care>" not in page
    assert "Health &lt;Care&gt;" in page


def test_what_is_unknown_is_said_and_why() -> None:
    report = daily_report(inputs(), script="")
    assert report.unknown == {"insufficient_history": 1}
    assert report.missing == {}
    assert "1 times not enough history for the window" in report.page.decode()


@pytest.mark.parametrize("name", ["performance", "risk", "correlations", "signals", "macro"])
def test_a_table_that_is_not_there_leaves_its_section_out_with_the_reason(name: str) -> None:
    report = daily_report(inputs(tables=tables() | {name: None}), script="")
    assert report.missing
    assert all("has not been made yet" in why for why in report.missing.values())
    assert report.page.decode().count("Not yet computed") == len(report.missing)


def test_a_table_that_ends_early_is_not_shown_as_todays() -> None:
    later = SESSION + timedelta(days=3)
    report = daily_report(inputs(session=later, expected_session=later), script="")
    assert set(report.missing) == set(SECTIONS)
    assert "ends on 2013-03-01" in report.missing["performance"]
    assert "not known" in report.summary


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "Good: all 1 checks passed."),
        ({"quality": []}, "Unknown: no check has run."),
        (
            {"quality": [QualityLine("core/quotes", "jump", False, False, "AAA")]},
            "Usable: every blocking check passed; 1 check asks for a look.",
        ),
        (
            {"quality": [QualityLine("core/quotes", "jump", False, True, "AAA")]},
            "Not to be trusted as it is: 1 blocking checks failed.",
        ),
        ({"expected_session": date(2013, 3, 4)}, "Old: the newest closed session is 2013-03-04"),
    ],
)
def test_the_verdict(changes: dict[str, Any], verdict: str) -> None:
    assert verdict in page_of(**changes)


@pytest.mark.browser
def test_the_page_draws_every_figure_without_network(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_bytes(daily_report(inputs()).page)
    with watched_page(browser, width=1280, height=900) as watched:
        watched.page.goto(path.as_uri())
        watched.page.wait_for_selector("body[data-ready=yes]")
        watched.page.wait_for_function("document.querySelectorAll('.figure .main-svg').length >= 8")
        assert (watched.errors, watched.refused) == ([], [])
        # Labels of the rotation do not lie on each other.
        boxes = watched.page.eval_on_selector_all(
            "#rotation .annotation .annotation-text-g",
            "nodes => nodes.map(n => n.getBoundingClientRect()).map(b => [b.left, b.top, b.right, b.bottom])",
        )
        assert len(boxes) == 4 + len(SECTORS)
        for place, (left, top, right, bottom) in enumerate(boxes):
            for other in boxes[place + 1 :]:
                assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
        assert watched.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
