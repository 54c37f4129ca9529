"""The morning's report: one HTML page that holds everything it shows, and says what is unknown and why.

What belongs here: the page, from tables of the published layer to bytes. Pure: the same tables give the same bytes.
Nothing is computed that a mart has not computed; numbers are only chosen, scaled to percent and drawn.

Colours are those of Okabe and Ito, which people with any colour vision tell apart; nothing is told by colour alone.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from finance_assets.text import escape_controls, escape_markdown, inert_markdown

if TYPE_CHECKING:
    import pyarrow as pa

BLUE, ORANGE, GREEN, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#6B7280"
YELLOW, PURPLE = "#E69F00", "#CC79A7"
MINUS = "\N{MINUS SIGN}"
INK, LINE = "#1F2937", "#E5E7EB"
PERIODS = (("1d", "1 day"), ("1m", "1 month"), ("3m", "3 months"), ("ytd", "Year to date"), ("1y", "1 year"))
#: Sessions of drawdowns that are drawn, and points of a rotation trail, one a week.
DRAWDOWN_SESSIONS = 756
TRAIL_POINTS, TRAIL_STEP = 5, 5
BENCHMARK_PREFIX = "^"
#: State of a signal -> sign and colour; the sign says it without the colour.
STATES = {
    "bullish": ("▲", BLUE),
    "bearish": ("▼", ORANGE),
    "positive": ("▲", BLUE),
    "negative": ("▼", ORANGE),
    "leading": ("▲", BLUE),
    "improving": ("◥", SKY),
    "weakening": ("◢", YELLOW),
    "lagging": ("▼", ORANGE),
    "low": ("○", BLUE),
    "normal": ("◐", GREY),
    "high": ("●", ORANGE),
    "neutral": ("■", GREY),
}
SIGNALS = (
    ("trend", "Trend", "mean of 50 against 200 levels"),
    ("momentum", "Momentum 12-1", "return from 252 to 21 sessions ago"),
    ("rotation", "Rotation", "RRG-style ratio, momentum"),
    ("volatility_regime", "Volatility regime", "30-session volatility, its rank in a year"),
)


@dataclass(frozen=True, slots=True)
class QualityLine:
    """What one check found."""

    table: str
    check: str
    passed: bool
    is_error: bool
    description: str


@dataclass(frozen=True)
class ReportInputs:
    """Everything that the page shows.

    Attributes
    ----------
    session
        Session that the report is about.
    made_at
        The platform's clock.
    tables
        ``performance``, ``risk``, ``correlations``, ``signals``, ``macro``: rows of the published or core table, or
        None where it was not made.
    expected_session
        The newest session that has closed; None where none has.
    quality
        What the checks found last.
    unchecked
        Checks that have never run.
    """

    session: date
    made_at: datetime
    tables: Mapping[str, pa.Table | None]
    expected_session: date | None = None
    quality: Sequence[QualityLine] = ()
    unchecked: int = 0


@dataclass(frozen=True)
class Report:
    """The page and what is said about it.

    Attributes
    ----------
    page
        UTF-8 bytes of the HTML.
    summary
        The same in a few lines of Markdown.
    missing
        Section -> why it is not there.
    unknown
        Reason -> number of values on the page that are unknown for it.
    """

    page: bytes = field(repr=False)
    summary: str
    missing: dict[str, str]
    unknown: dict[str, int]


class _Page:
    """What the sections add up: figures, missing ones, unknown values."""

    def __init__(self, inputs: ReportInputs) -> None:
        self.inputs = inputs
        self.figures: list[tuple[str, Any, Any]] = []
        self.missing: dict[str, str] = {}
        self.unknown: dict[str, int] = {}

    def rows(self, name: str, session: date | None = None) -> list[dict[str, Any]]:
        """Return the rows of a table on the report's session, or all after another one."""
        import pyarrow.compute as pc

        table = self.inputs.tables.get(name)
        if table is None:
            raise _NotComputed(f"{_TABLES[name]} has not been made yet")
        wanted = session or self.inputs.session
        rows: list[dict[str, Any]] = table.filter(pc.equal(table.column("session_date"), wanted)).to_pylist()
        if not rows:
            newest = pc.max(table.column("session_date")).as_py()
            raise _NotComputed(f"{_TABLES[name]} ends on {newest}, before the session of this report")
        return rows

    def figure(self, name: str, data: list[Any], layout: dict[str, Any], height: int) -> str:
        """Add a figure; return the place where it goes."""
        base = {
            "height": height,
            "font": {"family": _FONT, "size": 12, "color": INK},
            "paper_bgcolor": "#FFFFFF",
            "plot_bgcolor": "#FFFFFF",
            "showlegend": False,
        }
        self.figures.append((name, data, base | layout))
        return f'<div id="{name}" class="figure" style="height:{height}px"></div>'

    def note_unknown(self, status: str) -> None:
        """Count a value that the page shows as unknown."""
        self.unknown[status] = self.unknown.get(status, 0) + 1

    def cell(self, row: Mapping[str, Any], name: str, show: Callable[[float], str]) -> str:
        """Return a table cell: the number, or n/a with its reason."""
        value = row[name]
        if value is not None:
            return f"<td>{show(value)}</td>"
        status = str(row.get(f"{name}_status") or "no_data")
        self.note_unknown(status)
        return f'<td class="na" title="{_text(status)}">n/a<sup>{_text(_REASONS.get(status, status)[0])}</sup></td>'


class _NotComputed(Exception):  # noqa: N818
    """A section cannot be shown; the message says why."""


_FONT = "system-ui, 'DejaVu Sans', 'Liberation Sans', Arial, sans-serif"
_TABLES = {
    "performance": "published/sector_performance",
    "risk": "published/risk_metrics",
    "correlations": "published/correlations",
    "signals": "published/trading_signals",
    "macro": "core/macro_indicators",
}
#: Status -> letter in tables, and what it means.
_REASONS = {
    "insufficient_history": ("h", "not enough history for the window"),
    "no_data": ("d", "no data on that date"),
    "zero_variance": ("z", "the window does not vary"),
    "undefined_denominator": ("u", "the denominator is zero or has the wrong sign"),
    "missing_input": ("m", "one of the inputs is missing"),
    "gap": ("g", "the series has a gap"),
    "outside_domain": ("o", "the formula is not valid for these numbers"),
    "not_converged": ("c", "the estimate did not converge"),
    "no_movement": ("n", "no movement"),
}


def _text(value: object) -> str:
    return html.escape(escape_controls(value), quote=True)


def _percent(value: float, places: int = 1, *, signed: bool = False) -> str:
    """Show a fraction in percent, with a true minus sign."""
    text = f"{value * 100:{'+' if signed else ''}.{places}f}"
    return ("0." + "0" * places if float(text) == 0 else text).replace("-", MINUS) + " %"


def _number(value: float, places: int = 2) -> str:
    text = f"{value:.{places}f}"
    return (f"{0:.{places}f}" if float(text) == 0 else text).replace("-", MINUS)


# -- sections -------------------------------------------------------------------------------------------------------


def _performance(page: _Page) -> str:
    rows = sorted(page.rows("performance"), key=lambda row: (row["return_1m"] is None, -(row["return_1m"] or 0)))
    order = [_text(row["sector"]) for row in rows]
    data: list[Any] = []
    layout: dict[str, Any] = {"margin": {"l": 170, "r": 20, "t": 34, "b": 40}, "bargap": 0.32}
    shapes, notes = [], []
    width = 1 / len(PERIODS)
    for place, (period, title) in enumerate(PERIODS):
        axis = "" if place == 0 else str(place + 1)
        values = [row[f"return_{period}"] for row in rows]
        for row in rows:
            if row[f"return_{period}"] is None:
                page.note_unknown(row[f"return_{period}_status"])
        percents = [None if value is None else round(value * 100, 6) for value in values]
        market = next((row[f"market_return_{period}"] for row in rows), None)
        reach = max([abs(p) for p in percents if p is not None] + [abs(market or 0) * 100, 0.1])
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "x": percents,
                "y": order,
                "xaxis": f"x{axis}",
                "yaxis": "y",
                "marker": {"color": [BLUE if (p or 0) >= 0 else ORANGE for p in percents]},
                "text": ["n/a" if v is None else _percent(v, 1, signed=True) for v in values],
                "textposition": "outside",
                "textfont": {"size": 11},
                "cliponaxis": False,
                "hovertemplate": "%{y}: %{text}<extra>" + title + "</extra>",
            }
        )
        low = -reach * 1.75 if min((p or 0) for p in percents) < 0 or (market or 0) < 0 else -reach * 0.06
        high = reach * 1.75 if max((p or 0) for p in percents) > 0 or (market or 0) > 0 else reach * 0.06
        layout[f"xaxis{axis}"] = {
            "domain": [place * width + 0.008, (place + 1) * width - 0.012],
            "range": [low, high],
            "zeroline": True,
            "zerolinecolor": INK,
            "gridcolor": LINE,
            "ticksuffix": " %",
            "nticks": 4,
            "tickfont": {"size": 10, "color": GREY},
            "anchor": "y",
            "fixedrange": True,
        }
        notes.append(
            {
                "xref": "paper",
                "yref": "paper",
                "x": place * width + 0.008,
                "y": 1.0,
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
                "text": f"<b>{title}</b>"
                + (
                    ""
                    if market is None
                    else f"  <span style='color:{GREY}'>market {_percent(market, 1, signed=True)}</span>"
                ),
            }
        )
        if market is not None:
            shapes.append(
                {
                    "type": "line",
                    "xref": f"x{axis}",
                    "yref": "paper",
                    "x0": market * 100,
                    "x1": market * 100,
                    "y0": 0,
                    "y1": 1,
                    "line": {"color": GREY, "width": 1.5, "dash": "dot"},
                    "layer": "below",
                }
            )
    layout["yaxis"] = {"autorange": "reversed", "ticksuffix": "  ", "fixedrange": True}
    layout["shapes"], layout["annotations"] = shapes, notes
    return page.figure("performance", data, layout, 96 + 34 * len(order)) + (
        '<p class="note">Total returns of equal-weight composites, in percent, ordered by the month. Dotted line: the '
        "benchmark, a price index. Returns below a year are not annualised.</p>"
    )


def _rotation(page: _Page) -> str:
    import pyarrow.compute as pc

    page.rows("signals")
    table = page.inputs.tables["signals"]
    assert table is not None
    wanted = pc.and_(
        pc.equal(table.column("signal"), "rotation"),
        pc.less_equal(table.column("session_date"), page.inputs.session),
    )
    trails: dict[str, list[dict[str, Any]]] = {}
    for row in table.filter(wanted).sort_by("session_date").to_pylist()[-30_000:]:
        trails.setdefault(row["sector"], []).append(row)
    data, ends, reach = [], [], 1.0
    for sector in sorted(trails):
        if trails[sector][-1]["session_date"] != page.inputs.session or trails[sector][-1]["value"] is None:
            page.note_unknown(trails[sector][-1]["state_status"])
            continue
        rows = trails[sector][::-1][::TRAIL_STEP][:TRAIL_POINTS][::-1]
        rows = [row for row in rows if row["value"] is not None]
        x, y = [row["value"] for row in rows], [row["reference_value"] for row in rows]
        colour = STATES[rows[-1]["state"]][1]
        reach = max([reach, *(abs(v - 100) for v in [*x, *y])])
        ends.append((x[-1], y[-1], sector, colour))
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": x,
                "y": y,
                "line": {"color": _faint(colour), "width": 1.6},
                "marker": {
                    "color": [_faint(colour)] * (len(x) - 1) + [colour],
                    "size": [5] * (len(x) - 1) + [13],
                    "line": {"color": "#FFFFFF", "width": 1},
                },
                "name": _text(sector),
                "text": [row["session_date"].isoformat() for row in rows],
                "hovertemplate": "%{text}: ratio %{x:.2f}, momentum %{y:.2f}<extra>" + _text(sector) + "</extra>",
            }
        )
    if not ends:
        raise _NotComputed("no sector has enough history for a rotation")
    reach *= 1.18
    low, high = 100 - reach, 100 + reach
    corners = (
        ("Leading", high, high, "right", "top"),
        ("Weakening", high, low, "right", "bottom"),
        ("Lagging", low, low, "left", "bottom"),
        ("Improving", low, high, "left", "top"),
    )
    notes = [
        {
            "x": x,
            "y": y,
            "text": f"<b>{name}</b>",
            "showarrow": False,
            "xanchor": across,
            "yanchor": along,
            "font": {"size": 13, "color": "#9CA3AF"},
        }
        for name, x, y, across, along in corners
    ] + _labels(ends, low, high)
    axis = {"range": [low, high], "gridcolor": LINE, "zeroline": False, "fixedrange": True}
    line = {"color": GREY, "width": 1}
    layout = {
        "margin": {"l": 60, "r": 16, "t": 10, "b": 48},
        "xaxis": axis | {"title": {"text": "RRG-style ratio (100 = with the market)"}},
        "yaxis": axis | {"title": {"text": "RRG-style momentum"}},
        "annotations": notes,
        "shapes": [
            {"type": "line", "x0": 100, "x1": 100, "y0": low, "y1": high, "line": line},
            {"type": "line", "x0": low, "x1": high, "y0": 100, "y1": 100, "line": line},
        ],
    }
    return page.figure("rotation", data, layout, 520) + (
        f'<p class="note">Large dot: this session. Trail: the {TRAIL_POINTS - 1} weeks before.</p>'
    )


def _faint(colour: str) -> str:
    """Return a colour that lets what lies below it through."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.4)"


#: Size of the rotation's plot in pixels, about; a letter of a label; places of a label around its dot.
_PLOT, _LETTER, _HIGH = (520.0, 450.0), 6.6, 17.0
_AROUND = [
    (dx * distance, dy * distance)
    for distance in (1.0, 1.7, 2.5, 3.4, 4.4)
    for dx, dy in ((16, 0), (-16, 0), (0, -17), (0, 17), (15, -15), (15, 15), (-15, -15), (-15, 15))
]


def _labels(ends: Sequence[tuple[float, float, str, str]], low: float, high: float) -> list[dict[str, Any]]:
    """Return a label for each dot, where it covers neither a dot nor another label."""
    scale = high - low

    def pixels(x: float, y: float) -> tuple[float, float]:
        return (x - low) / scale * _PLOT[0], (high - y) / scale * _PLOT[1]

    dots = [pixels(x, y) for x, y, *_ in ends]
    taken = [(px - 8, py - 8, px + 8, py + 8) for px, py in dots]
    labels = []
    for (px, py), (x, y, sector, colour) in zip(dots, ends, strict=True):
        wide = _LETTER * len(sector)
        best: tuple[float, float, float, tuple[float, float, float, float]] | None = None
        for dx, dy in _AROUND:
            middle = px + dx + (wide / 2 if dx > 0 else -wide / 2 if dx < 0 else 0)
            box = (middle - wide / 2, py + dy - _HIGH / 2, middle + wide / 2, py + dy + _HIGH / 2)
            outside = max(0.0, -box[0]) + max(0.0, box[2] - _PLOT[0]) + max(0.0, -box[1]) + max(0.0, box[3] - _PLOT[1])
            covered = sum(
                max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
                * max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
                for other in taken
            )
            cost = covered + 50 * outside
            if best is None or cost < best[0]:
                best = (cost, middle - px, dy, box)
            if cost == 0:
                break
        assert best is not None
        taken.append(best[3])
        labels.append(
            {
                "x": x,
                "y": y,
                "ax": round(best[1], 1),
                "ay": round(best[2], 1),
                "text": _text(sector),
                "font": {"size": 12, "color": INK},
                "showarrow": True,
                "bgcolor": "rgba(255,255,255,0.82)",
                "arrowhead": 0,
                "arrowwidth": 0.8,
                "arrowcolor": colour,
                "standoff": 6,
                "borderpad": 1,
            }
        )
    return labels


def _correlations(page: _Page) -> str:
    rows = page.rows("correlations")
    by_pair = {(row["series"], row["other_series"]): row for row in rows}
    names = sorted({row["series"] for row in rows}, key=lambda name: (not name.startswith(BENCHMARK_PREFIX), name))
    values, texts = [], []
    for name in names:
        line, said = [], []
        for other in names:
            row = by_pair.get((name, other))
            value = None if row is None else row["correlation_252"]
            if value is None:
                page.note_unknown("no_data" if row is None else row["correlation_252_status"])
            line.append(value)
            said.append("n/a" if value is None else _number(value))
        values.append(line)
        texts.append(said)
    shown = ["S&P 500" if name == "^GSPC" else name for name in names]
    data = [
        {
            "type": "heatmap",
            "z": values,
            "x": [_text(name) for name in shown],
            "y": [_text(name) for name in shown],
            "text": texts,
            "texttemplate": "%{text}",
            "textfont": {"size": 11},
            "zmin": 0 if min((v for line in values for v in line if v is not None), default=0) >= 0 else -1,
            "zmax": 1,
            "colorscale": [[0, "#F7FBFF"], [0.5, "#9ECAE1"], [1, "#2171B5"]]
            if min((v for line in values for v in line if v is not None), default=0) >= 0
            else [[0, "#B35806"], [0.5, "#F7F7F7"], [1, "#2166AC"]],
            "xgap": 1,
            "ygap": 1,
            "colorbar": {"thickness": 10, "outlinewidth": 0, "tickfont": {"size": 10}},
            "hovertemplate": "%{y} and %{x}: %{text}<extra></extra>",
        }
    ]
    layout = {
        "margin": {"l": 160, "r": 10, "t": 10, "b": 128},
        "xaxis": {"tickangle": -40, "fixedrange": True, "showgrid": False},
        "yaxis": {"autorange": "reversed", "fixedrange": True, "showgrid": False},
    }
    return page.figure("correlations", data, layout, 520) + (
        '<p class="note">Pearson&rsquo;s correlation of daily returns over the last 252 common sessions.</p>'
    )


def _drawdowns(page: _Page) -> str:
    import pyarrow.compute as pc

    page.rows("risk")
    table = page.inputs.tables["risk"]
    assert table is not None
    trailing = table.filter(
        pc.and_(
            pc.equal(table.column("risk_window"), "trailing_252"),
            pc.less_equal(table.column("session_date"), page.inputs.session),
        )
    ).select(["sector", "session_date", "current_drawdown"])
    days = sorted(set(trailing.column("session_date").to_pylist()))[-DRAWDOWN_SESSIONS:]
    recent = trailing.filter(pc.greater_equal(trailing.column("session_date"), days[0])).sort_by("session_date")
    series: dict[str, tuple[list[str], list[float | None]]] = {}
    for row in recent.to_pylist():
        x, y = series.setdefault(row["sector"], ([], []))
        x.append(row["session_date"].isoformat())
        y.append(None if row["current_drawdown"] is None else round(row["current_drawdown"] * 100, 4))
    columns = 4
    lines = -(-len(series) // columns)
    floor = min((v for _, y in series.values() for v in y if v is not None), default=-1.0) * 1.08
    data: list[Any] = []
    layout: dict[str, Any] = {"margin": {"l": 52, "r": 14, "t": 26, "b": 30}, "annotations": []}
    gap = 0.11 if lines > 1 else 0.0
    high = (1 - gap * (lines - 1)) / lines
    for place, sector in enumerate(sorted(series)):
        line, column = divmod(place, columns)
        axis = "" if place == 0 else str(place + 1)
        x, y = series[sector]
        top = 1 - line * (high + gap)
        left = column / columns
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": x,
                "y": y,
                "xaxis": f"x{axis}",
                "yaxis": f"y{axis}",
                "fill": "tozeroy",
                "fillcolor": "rgba(213,94,0,0.22)",
                "line": {"color": ORANGE, "width": 1.2},
                "hovertemplate": "%{x}: %{y:.1f} %<extra>" + _text(sector) + "</extra>",
            }
        )
        layout[f"xaxis{axis}"] = {
            "domain": [left + 0.006, left + 1 / columns - 0.014],
            "anchor": f"y{axis}",
            "type": "date",
            "dtick": "M12",
            "tickformat": "%Y",
            "gridcolor": LINE,
            "tickfont": {"size": 10, "color": GREY},
            "range": [days[0].isoformat(), days[-1].isoformat()],
            "fixedrange": True,
        }
        layout[f"yaxis{axis}"] = {
            "domain": [max(top - high, 0), top],
            "anchor": f"x{axis}",
            "range": [floor, 0],
            "ticksuffix": " %",
            "nticks": 5,
            "gridcolor": LINE,
            "zeroline": True,
            "zerolinecolor": GREY,
            "tickfont": {"size": 10, "color": GREY},
            "showticklabels": column == 0,
            "fixedrange": True,
        }
        last = y[-1] if x[-1] == page.inputs.session.isoformat() else None
        layout["annotations"].append(
            {
                "xref": "paper",
                "yref": "paper",
                "x": left + 0.006,
                "y": top,
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
                "text": f"<b>{_text(sector)}</b>  <span style='color:{GREY}'>now "
                + ("n/a" if last is None else _percent(last / 100))
                + "</span>",
            }
        )
    return page.figure("drawdowns", data, layout, 70 + 150 * lines) + (
        '<p class="note">Fall from the highest level of the 252 returns before, in percent; the same scale for all.</p>'
    )


#: Column of the risk table: field, heading, how to show it.
_RISK: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("volatility_30", "Volatility<br>30 sessions", _percent),
    ("volatility", "Volatility<br>252 sessions", _percent),
    ("sharpe_ratio", "Sharpe", _number),
    ("sortino_ratio", "Sortino", _number),
    ("beta", "Beta", _number),
    ("alpha_annual", "Alpha<br>a year", lambda value: _percent(value, 1, signed=True)),
    ("alpha_t", "t of<br>alpha", _number),
    ("information_ratio", "Information<br>ratio", _number),
    ("var_historical_95", "VaR 95 %<br>1 session", lambda value: _percent(value, 2)),
    ("es_historical_95", "ES 95 %<br>1 session", lambda value: _percent(value, 2)),
    ("var_historical_99", "VaR 99 %<br>1 session", lambda value: _percent(value, 2)),
    ("max_drawdown", "Maximum<br>drawdown", _percent),
    ("ulcer_index", "Ulcer<br>index", _percent),
)


def _risk(page: _Page) -> str:
    rows = [row for row in page.rows("risk") if row["risk_window"] == "trailing_252"]
    if not rows:
        raise _NotComputed("published/risk_metrics has no window of 252 returns on the session")
    head = "".join(f"<th>{title}</th>" for _, title, _ in _RISK)
    body = "".join(
        f"<tr><th>{_text(row['sector'])}</th>"
        + "".join(page.cell(row, name, show) for name, _, show in _RISK)
        + "</tr>"
        for row in sorted(rows, key=lambda row: row["sector"])
    )
    rate = rows[0]["risk_free_rate"]
    return f"<table><thead><tr><th>Sector</th>{head}</tr></thead><tbody>{body}</tbody></table>" + (
        '<p class="note">Last 252 returns unless said otherwise. VaR and ES (expected shortfall): historical, a '
        f"positive number is a loss. Risk-free rate {_percent(rate, 2)} a year.</p>"
    )


def _signals(page: _Page) -> str:
    rows = {(row["sector"], row["signal"]): row for row in page.rows("signals")}
    sectors = sorted({sector for sector, _ in rows})
    head = "".join(
        f'<th class="left">{title}<br><span class="light">{about}</span></th>' for _, title, about in SIGNALS
    )
    body = []
    for sector in sectors:
        cells = []
        for signal, _, _ in SIGNALS:
            row = rows.get((sector, signal))
            if row is None or row["state"] is None:
                status = "no_data" if row is None else row["state_status"]
                page.note_unknown(status)
                letter = _REASONS.get(status, status)[0]
                cells.append(f'<td class="na" title="{_text(status)}">n/a<sup>{_text(letter)}</sup></td>')
                continue
            sign, colour = STATES[row["state"]]
            value, reference = row["value"], row["reference_value"]
            numbers = {
                "trend": f"{_number(value, 3)} / {_number(reference, 3)}",
                "momentum": _percent(value, 1, signed=True),
                "rotation": f"{_number(value, 1)}, {_number(reference, 1)}",
                "volatility_regime": f"{_percent(value)}, rank {_percent(reference, 0)}",
            }[signal]
            new = '<span class="new">new</span>' if row["is_new"] else ""
            cells.append(
                f'<td class="signal"><span style="color:{colour}">{sign}</span> <b>{_text(row["state"])}</b>{new}<br>'
                f'<span class="light">{numbers} · since {row["since_date"]}</span></td>'
            )
        body.append(f"<tr><th>{_text(sector)}</th>{''.join(cells)}</tr>")
    return f"<table><thead><tr><th>Sector</th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _macro(page: _Page) -> str:
    rows = page.rows("macro")
    body = []
    for row in sorted(rows, key=lambda row: row["series_id"]):
        value = row["published_value"]
        if value is None:
            page.note_unknown(row["published_value_status"])
            shown = "<td class='na'>n/a<sup>d</sup></td><td></td><td></td>"
        else:
            about = f"{row['reference_date']:%Y-%m}" if row["frequency"] == "monthly" else str(row["reference_date"])
            new = '<span class="new">new</span>' if row["is_new"] else ""
            basis = "" if row["release_basis"] == "vintage" else f" ({row['release_basis'].replace('_', ' ')})"
            number = format(value.normalize(), "f").replace("-", MINUS)
            shown = f"<td>{number}{new}</td><td>{about}</td><td>{row['release_date']}{basis}</td>"
        body.append(
            f"<tr><th>{_text(row['series_name'])} <span class='light'>{_text(row['series_id'])}</span></th>"
            f"<td class='unit'>{_text(row['unit'])}</td>{shown}</tr>"
        )
    return (
        "<table><thead><tr><th>Series</th><th class='left'>Unit</th><th>Known value</th>"
        "<th>Is about</th><th>Known since</th></tr>"
        f"</thead><tbody>{''.join(body)}</tbody></table>"
    )


#: Section -> title, what makes it, whether it stands beside the next one.
_SECTIONS: tuple[tuple[str, str, Callable[[_Page], str], bool], ...] = (
    ("performance", "How the sectors did", _performance, False),
    ("rotation", "Rotation", _rotation, True),
    ("correlations", "Correlation", _correlations, True),
    ("signals", "Signals", _signals, False),
    ("risk", "Risk", _risk, False),
    ("drawdowns", "Drawdowns", _drawdowns, False),
    ("macro", "Macro: what was known", _macro, False),
)
SECTIONS = tuple(name for name, *_ in _SECTIONS)
_TITLES = {name: title for name, title, *_ in _SECTIONS}


def _headline(page: _Page) -> list[str]:
    """Return the day in a few sentences."""
    said = []
    try:
        rows = [row for row in page.rows("performance") if row["return_1d"] is not None]
    except _NotComputed:
        return ["Sector performance is not known for this session."]
    if rows:
        best, worst = max(rows, key=lambda r: r["return_1d"]), min(rows, key=lambda r: r["return_1d"])
        market = rows[0]["market_return_1d"]
        told = "n/a" if market is None else _percent(market, 2, signed=True)
        said.append(
            f"Best {best['sector']} {_percent(best['return_1d'], 2, signed=True)}, worst {worst['sector']} "
            f"{_percent(worst['return_1d'], 2, signed=True)}; the market {told}."
        )
    try:
        new = [row for row in page.rows("signals") if row["is_new"]]
    except _NotComputed:
        return said
    listed = ", ".join(f"{row['sector']} {row['signal'].replace('_', ' ')} {row['state']}" for row in new[:4])
    more = f" and {len(new) - 4} more" if len(new) > 4 else ""
    said.append(f"{len(new)} new signal{'' if len(new) == 1 else 's'}{': ' + listed + more if new else ''}.")
    return said


def _verdict(inputs: ReportInputs) -> tuple[str, str]:
    """Return whether the data can be trusted, as a sentence and a class of style."""
    errors = [line for line in inputs.quality if not line.passed and line.is_error]
    if inputs.expected_session is not None and inputs.session < inputs.expected_session:
        return (
            f"Old: the newest closed session is {inputs.expected_session}, this report is about {inputs.session}.",
            "bad",
        )
    if errors:
        return f"Not to be trusted as it is: {len(errors)} blocking checks failed.", "bad"
    if not inputs.quality:
        return "Unknown: no check has run.", "warn"
    warnings = [line for line in inputs.quality if not line.passed]
    if warnings:
        said = "1 check asks" if len(warnings) == 1 else f"{len(warnings)} checks ask"
        return f"Usable: every blocking check passed; {said} for a look.", "warn"
    return f"Good: all {len(inputs.quality)} checks passed.", "good"


def _quality(page: _Page) -> str:
    inputs = page.inputs
    verdict, kind = _verdict(inputs)
    failed = sorted(
        (line for line in inputs.quality if not line.passed), key=lambda one: (not one.is_error, one.table, one.check)
    )
    lines = [
        f"<li><b>{'blocking' if line.is_error else 'look'}</b> {_text(line.table)}, "
        f"{_text(line.check.replace('_', ' '))}: "
        f"{_text(line.description[:220])}</li>"
        for line in failed[:8]
    ]
    if len(failed) > 8:
        lines.append(f"<li>and {len(failed) - 8} more in Dagster</li>")
    lines += [
        f"<li><b>not shown</b> {_text(_TITLES[name])}: not yet computed, {_text(why)}</li>"
        for name, why in page.missing.items()
    ]
    if page.unknown:
        told = "; ".join(
            f"{count} times {_REASONS.get(status, (status, status))[1]}"
            f"<sup>{_text(_REASONS.get(status, status)[0])}</sup>"
            for status, count in sorted(page.unknown.items())
        )
        lines.append(f"<li><b>unknown values</b> shown as n/a: {told}</li>")
    if inputs.unchecked:
        lines.append(f"<li><b>unchecked</b> {inputs.unchecked} checks have never run</li>")
    return (
        f'<section class="quality {kind}"><h2>Can the data be trusted?</h2><p class="verdict">{_text(verdict)}</p>'
        f"<ul>{''.join(lines)}</ul></section>"
    )


_STYLE = f"""
*{{box-sizing:border-box}}body{{margin:0;background:#F3F4F6;color:{INK};font:14px/1.45 {_FONT}}}
main{{max-width:1240px;margin:0 auto;padding:24px}}header{{margin-bottom:16px}}h1{{font-size:26px;margin:0 0 4px}}
h2{{font-size:17px;margin:0 0 8px}}section{{background:#fff;border:1px solid {LINE};border-radius:8px;padding:16px;
margin-bottom:16px}}.pair{{display:grid;grid-template-columns:1fr 1fr;gap:16px}}.pair section{{min-width:0}}
.light,.note{{color:{GREY};font-weight:400}}.note{{font-size:12px;margin:6px 0 0}}.light{{font-size:12px}}
.lead{{font-size:15px;margin:4px 0 0}}table{{border-collapse:collapse;width:100%;font-size:13px;
font-variant-numeric:tabular-nums}}th,td{{padding:5px 7px;border-bottom:1px solid {LINE};text-align:right;
white-space:nowrap}}thead th{{vertical-align:bottom;font-size:12px}}th:first-child,th.left{{text-align:left}}
td.signal,td.unit{{text-align:left}}.na{{color:{GREY}}}.new{{background:{YELLOW};color:#111;border-radius:3px;
font-size:11px;padding:0 4px;margin-left:6px}}.quality{{border-left:6px solid {GREY}}}.quality.good{{border-left-color:
{BLUE}}}.quality.warn{{border-left-color:{YELLOW}}}.quality.bad{{border-left-color:{ORANGE}}}.verdict{{font-size:15px;
font-weight:600;margin:0 0 6px}}ul{{margin:0;padding-left:18px}}.figure{{width:100%}}
.empty{{color:{GREY};border:1px dashed #9CA3AF;border-radius:6px;padding:16px}}
section{{overflow-x:auto}}main>section .figure{{min-width:1140px}}.pair .figure{{min-width:520px}}
@media (max-width:1160px){{.pair{{grid-template-columns:1fr}}}}
"""


def daily_report(inputs: ReportInputs, *, script: str | None = None) -> Report:
    """Make the page of one session.

    Parameters
    ----------
    inputs
        What it shows.
    script
        Source of plotly.js; that of the installed package by default.

    Returns
    -------
    Report
        The page needs no network. A section whose table is not there is left out with the reason, and a value that is
        unknown reads n/a with a letter that the box on top explains.
    """
    page = _Page(inputs)
    parts: list[str] = []
    beside: list[str] = []
    for name, title, make, is_half in _SECTIONS:
        try:
            body = make(page)
        except _NotComputed as error:
            page.missing[name] = str(error)
            body = f'<p class="empty">Not yet computed: {_text(error)}.</p>'
        section = f'<section id="section-{name}"><h2>{title}</h2>{body}</section>'
        if is_half:
            beside.append(section)
            if len(beside) == 2:
                parts.append(f'<div class="pair">{"".join(beside)}</div>')
            continue
        parts.append(section)
    said = _headline(page)
    made = inputs.made_at.strftime("%Y-%m-%d %H:%M UTC")
    figures = _json([[name, data, layout] for name, data, layout in page.figures])
    document = "".join(
        [
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline'; "
            "style-src 'unsafe-inline'; img-src data: blob:\">",
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Sectors on {inputs.session}</title><style>{_STYLE}</style></head><body><main>",
            f"<header><h1>Sectors on {inputs.session:%A}, {inputs.session.day} {inputs.session:%B %Y}</h1>",
            f'<span class="light">Session of the New York Stock Exchange. Made {made}.</span>',
            *(f'<p class="lead">{_text(line)}</p>' for line in said),
            "</header>",
            _quality(page),
            *parts,
            "</main><script>",
            _plotly() if script is None else script,
            "</script><script>",
            f"for (const [id, data, layout] of {figures}) "
            "Plotly.newPlot(id, data, layout, {responsive: true, displayModeBar: false});",
            'document.body.dataset.ready = "yes";</script></body></html>\n',
        ]
    )
    return Report(document.encode(), _summary(page, said), page.missing, page.unknown)


def _summary(page: _Page, said: Sequence[str]) -> str:
    """Return the report in a few lines of Markdown, for a look in Dagster."""
    lines = [f"### Sectors on {page.inputs.session}", _verdict(page.inputs)[0], *map(inert_markdown, said), ""]
    try:
        rows = sorted(page.rows("performance"), key=lambda row: (row["rank_1d"] is None, row["rank_1d"] or 0))
    except _NotComputed as error:
        return "\n\n".join([*lines, f"Performance: {error}"])
    table = ["| sector | 1 day | 1 month | year to date | 1 year |", "|---|--:|--:|--:|--:|"]
    for row in rows:
        cells = [
            "n/a" if row[f"return_{period}"] is None else _percent(row[f"return_{period}"], 1, signed=True)
            for period in ("1d", "1m", "ytd", "1y")
        ]
        table.append(f"| {escape_markdown(row['sector'])} | {' | '.join(cells)} |")
    return "\n\n".join(lines) + "\n".join(table)


def _json(value: Any) -> str:
    """Return JSON that may stand inside a script: no tag can end it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs()).replace("</script", "<\\/script")
