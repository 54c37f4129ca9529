"""Performance of accounts from vendors' rows, columnar: current versions, returns, chains, cumulative values.

Belongs here: what turns the bitemporal history into one row of performance per vendor, account, grain and period: the
SQL of single rows, the policies it needs, and putting it together with the links. Does not belong here: what a row has
from those before it (`finance_assets.advisory.linking`), the arithmetic of a single value and its proof
(`finance_assets.advisory.twrr`), reconciliation, tables on disk, Dagster.

Money stays DECIMAL from input to output; only returns are doubles, computed from differences that were taken in
DECIMAL. Every row is a function of its account's rows alone, so accounts may be computed in any division.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from finance_assets.advisory.twrr import LARGE_FLOW_THRESHOLD, TIMINGS
from finance_assets.contracts.status import Status

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

__all__ = [
    "DEFAULT_POLICY",
    "HISTORY_COLUMNS",
    "KEY_COLUMNS",
    "LINKING_COLUMNS",
    "PERFORMANCE_COLUMNS",
    "Performance",
    "Policy",
    "account_performance",
    "certified",
    "current_versions",
    "history_schema",
    "performance_schema",
]

KEY_COLUMNS: Final = ("vendor", "account_id", "granularity", "period_end")
"""What identifies a row of the history in valid time; its versions differ in known time."""

#: Rows that one thread of DuckDB takes at a time, whole vectors of its own.
_PIECE_ROWS: Final = 122_880
_MONEY: Final = "decimal128(28, 8)"
_RETURN: Final = "decimal128(24, 14)"

HISTORY_COLUMNS: Final[dict[str, str]] = {
    "vendor": "string",
    "contract_version": "int32",
    "account_id": "string",
    "granularity": "string",
    "currency": "string",
    "period_start": "date32",
    "period_end": "date32",
    "beginning_market_value": _MONEY,
    "contributions": _MONEY,
    "distributions": _MONEY,
    "net_flow": _MONEY,
    "ending_market_value": _MONEY,
    "fees": _MONEY,
    "income": _MONEY,
    "appreciation": _MONEY,
    "other_adjustments": _MONEY,
    "return_net": _RETURN,
    "return_gross": _RETURN,
    "benchmark_return": _RETURN,
    "file_sha256": "string",
    "member": "string",
    "line": "int64",
    "received_ts_utc": "timestamp[us, UTC]",
    "flags": "string",
}
"""Columns of the history and their Arrow types. Money in the row's currency, returns as decimal fractions."""

PERFORMANCE_COLUMNS: Final[dict[str, tuple[str, str]]] = {
    "vendor": ("string", "Vendor that stated the row."),
    "account_id": ("string", "Account, as the vendor writes it."),
    "granularity": ("string", "Grain of the row: daily, monthly or quarterly. Grains are never chained together."),
    "currency": ("string", "Currency of all money in the row."),
    "period_start": ("date32", "First day: stated, or the first day of the month or quarter, or the day itself."),
    "period_end": ("date32", "Last day."),
    "period_month": ("date32", "First day of the month of period_end; the partition."),
    "beginning_market_value": (_MONEY, "Stated value at the beginning."),
    "contributions": (_MONEY, "Stated money in."),
    "distributions": (_MONEY, "Stated money out, positive."),
    "ending_market_value": (_MONEY, "Stated value at the end."),
    "fees": (_MONEY, "Stated fees taken from the account."),
    "net_flow": (_MONEY, "Contributions less distributions where both are known, else the stated net flow."),
    "cumulative_net_flow": (
        "decimal128(38, 8)",
        "Running sum of net_flow over all rows of the account; null from the first unknown flow or currency change.",
    ),
    "gain": (_MONEY, "Ending value less beginning value less net flow, exact."),
    "rollforward_difference": (
        _MONEY,
        "Beginning value + net flow + stated components - ending value; null where the vendor states no appreciation.",
    ),
    "continuity_difference": (
        _MONEY,
        "Beginning value less the ending value of the adjacent period before; null without one.",
    ),
    "gap_days": ("int32", "Days between the end of the period before and this start: 0 adjacent, negative overlap."),
    "timing": ("string", "Flow timing that was applied."),
    "timing_rule": ("string", "Why: declared, inception, full_withdrawal or no_capital."),
    "policy_version": ("string", "Version of the vendor's timing policy."),
    "return_net_computed": ("double", "Return after fees under the applied timing; decimal fraction, unrounded."),
    "return_status": ("string", "Status of return_net_computed; large_flow_unvalued keeps the value, uncertified."),
    "return_sod": ("double", "The same period with flows at the start of the period."),
    "return_mid": ("double", "... with flows in the middle."),
    "return_eod": ("double", "... with flows at the end."),
    "timing_spread": ("double", "Largest less smallest of the three that are defined."),
    "return_net": (_RETURN, "Net return that the vendor states."),
    "return_gross": (_RETURN, "Gross return that the vendor states."),
    "benchmark_return": (_RETURN, "Benchmark return that the vendor states."),
    "return_gross_computed": ("double", "Return before the stated fees, under the applied timing."),
    "return_gross_status": ("string", "missing_input where fees are not stated; else as return_status."),
    "chain_id": ("int32", "Number of the unbroken chain within the account, from 1."),
    "chain_start": ("date32", "First day of the chain."),
    "cumulative_return_chain": ("double", "Linked return since chain_start: the track record."),
    "cumulative_return_all": ("double", "Linked over all rows that have a return, across breaks."),
    "cumulative_status": ("string", "ok, or gap where cumulative_return_all crosses a break; no_data without any."),
    "annualised_return_chain": ("double", "cumulative_return_chain per year; null for less than 365 days."),
    "is_large_flow": ("bool", "The net flow reaches the policy's share of the beginning value."),
    "is_terminated": ("bool", "All was withdrawn: the last row of the account unless it is funded again."),
    "is_partial": ("bool", "The period starts inside its month or quarter."),
    "is_negative_value": ("bool", "The beginning or ending value is negative (margin)."),
    "contract_version": ("int32", "Version of the vendor's contract that read the row."),
    "file_sha256": ("string", "File the row came from."),
    "member": ("string", "Member of the archive, if any."),
    "line": ("int64", "Physical line in that file."),
    "received_ts_utc": ("timestamp[us, UTC]", "When the row became known."),
}
"""Columns of the performance table in order: Arrow type and meaning."""

LINKING_COLUMNS: Final = (
    *KEY_COLUMNS, "currency", "period_start", "beginning_market_value", "contributions", "distributions", "net_flow",
    "ending_market_value", "fees", "file_sha256", "line", "received_ts_utc",
)  # fmt: skip
"""Columns of the history that say which version counts, and how the rows of an account are linked."""


@dataclass(frozen=True)
class Policy:
    """How the flows of one vendor are timed; configuration with a version, never inferred from data."""

    timing: str = "mid"
    """One of `finance_assets.advisory.twrr.TIMINGS`."""
    version: str = "default-1"
    large_flow_threshold: Decimal = LARGE_FLOW_THRESHOLD
    """Share of the beginning value from which a net flow is large."""

    def __post_init__(self) -> None:
        if self.timing not in TIMINGS:
            raise ValueError(f"unknown timing {self.timing!r}; known are {', '.join(TIMINGS)}")
        if not (self.large_flow_threshold.is_finite() and self.large_flow_threshold > 0):
            raise ValueError(f"a large flow cannot begin at {self.large_flow_threshold} of the beginning value")


DEFAULT_POLICY: Final = Policy()
"""For vendors without a policy: middle of the period, since only a period total of flows is known."""

Policies = Mapping[str, "Policy | tuple[str, str | int, Decimal]"]


def history_schema() -> pa.Schema:
    """Give the Arrow schema of the history (`HISTORY_COLUMNS`)."""
    return _schema(HISTORY_COLUMNS)


def performance_schema() -> pa.Schema:
    """Give the Arrow schema of the performance table (`PERFORMANCE_COLUMNS`)."""
    return _schema({name: kind for name, (kind, _) in PERFORMANCE_COLUMNS.items()})


def certified(value: float | Decimal | None) -> Decimal | None:
    """Round a return once, to 6 decimal places (half even), for presentation; None stays None."""
    if value is None:
        return None
    return (value if isinstance(value, Decimal) else Decimal(repr(float(value)))).quantize(Decimal("0.000001"))


def current_versions(history: pa.Table, as_of: datetime | None = None) -> pa.Table:
    """Select the newest version of every row that was known at a time.

    Parameters
    ----------
    history
        Rows with `HISTORY_COLUMNS`, any number of versions per key (`KEY_COLUMNS`).
    as_of
        Known time, with a time zone; by default everything.

    Returns
    -------
    pyarrow.Table
        One row per key, same columns, ordered by key. The newest ``received_ts_utc`` wins; ties go to the highest
        ``file_sha256``, then to the highest line.

    Raises
    ------
    ValueError
        If `as_of` has no time zone, or a part of a key is null.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from finance_assets.advisory.linking import in_order

    if as_of is not None:
        if as_of.tzinfo is None:
            raise ValueError("as_of must have a time zone")
        history = history.filter(pc.field("received_ts_utc") <= pa.scalar(as_of.astimezone(UTC)))
    return history.take(pa.array(in_order(history).places))


def account_performance(history: pa.Table, policies: Policies) -> pa.Table:
    """Compute the performance table from the current versions of the history.

    Parameters
    ----------
    history
        Rows with `HISTORY_COLUMNS`, one per key (`current_versions`).
    policies
        `Policy`, or ``(timing, version, large_flow_threshold)``, by vendor; `DEFAULT_POLICY` for the others.

    Returns
    -------
    pyarrow.Table
        One row per input row with `PERFORMANCE_COLUMNS`, ordered by key. Undefined values are null with a status,
        never NaN.

    Raises
    ------
    ValueError
        If a policy is not valid, a key is not unique, or a part of it is null.

    Notes
    -----
    Per row ``R = gain / capital`` as in `finance_assets.advisory.twrr.row_return`. A chain restarts after a gap or
    an overlap, after a row without a return, and where the currency changes; a period without any capital links
    with factor 1. A total loss keeps the chain at -100 %.
    """
    import numpy as np

    with Performance(history, policies) as performance:
        if len(performance) != history.num_rows:
            raise ValueError("a key occurs more than once; select the current versions first")
        return performance.part(np.arange(len(performance))).cast(performance_schema())


class Performance:
    """The performance table of a history, of which parts are computed as they are asked for.

    What links the rows is computed at once, and takes about 60 bytes of a row; the wide rows are not kept. A context
    manager; parts may be computed in several threads.

    Parameters
    ----------
    history
        Rows with `LINKING_COLUMNS`, and with all `HISTORY_COLUMNS` unless `part` is given them; of a key the newest
        version counts, as in `current_versions`. Text may be dictionaries, which take a fraction of the memory.
    policies
        As for `account_performance`.

    Raises
    ------
    ValueError
        If a policy is not valid, or a part of a key is null.
    """

    def __init__(self, history: pa.Table, policies: Policies) -> None:
        from finance_assets.advisory.linking import in_order

        self._history = history
        self._single_rows = _valued(policies)
        self._vendors = sorted(policies)
        self._database = _connect()
        try:
            for name, values in _enumerations(policies).items():
                self._database.execute(f"CREATE TYPE {name} AS ENUM ({', '.join(map(_text, values))})")
            with ThreadPoolExecutor(1) as pool:
                ordered = pool.submit(in_order, history)
                single = self._query(
                    "SELECT period_start, starts_as_stated, factor, net_flow FROM valued",
                    history.select(LINKING_COLUMNS),
                )
                self._rows = ordered.result()
            self._links = self._linked(single)
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> Performance:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def __len__(self) -> int:
        return len(self._rows.places)

    @property
    def months(self) -> npt.NDArray[np.int64]:
        """Month in which each row's period ends, counted from 1970, in the order of the keys."""
        import numpy as np

        return self._rows.days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)

    @property
    def places(self) -> npt.NDArray[np.int64]:
        """Place of each row in the history, in the order of the keys."""
        return self._rows.places

    def part(self, chosen: npt.NDArray[np.int64], rows: pa.Table | None = None) -> pa.Table:
        """Compute some rows of the table.

        Parameters
        ----------
        chosen
            Places of rows in the order of the keys, in any order.
        rows
            Their `HISTORY_COLUMNS`, in the order of `chosen`, where the history that was given has not all of them.

        Returns
        -------
        pyarrow.Table
            `PERFORMANCE_COLUMNS`, in the order of `chosen`; text as dictionaries.
        """
        import pyarrow as pa

        places = self._rows.places
        given = self._history.take(pa.array(places[chosen])) if rows is None else rows
        links = self._links.take(pa.array(chosen))
        previous = links["previous"].combine_chunks()
        is_first = previous.is_null().to_numpy(zero_copy_only=False)
        before = pa.array(places[previous.fill_null(0).to_numpy()] if len(places) else places, mask=is_first)
        source = given.append_column("previous_emv", self._history["ending_market_value"].take(before))
        for name in links.column_names:
            source = source.append_column(name, links[name])
        direct = {*(set(HISTORY_COLUMNS) - {"period_start", "net_flow"}), *links.column_names}
        columns = ", ".join(
            _output(name, kind) for name, (kind, _) in PERFORMANCE_COLUMNS.items() if name not in direct
        )
        computed = self._query(f"{_results()} SELECT {columns} FROM results", source)
        return pa.table({name: source[name] if name in direct else computed[name] for name in PERFORMANCE_COLUMNS})

    def _linked(self, single: pa.Table) -> pa.Table:
        """Link the rows by what was computed of each by itself, in the order of the history."""
        import numpy as np
        import pyarrow as pa

        from finance_assets.advisory.columns import encoded, one_array
        from finance_assets.advisory.linking import Alone, linked

        history, places = self._history, self._rows.places
        is_moved = len(places) != history.num_rows or bool((places[1:] < places[:-1]).any())

        def ordered(column: pa.ChunkedArray) -> pa.Array:
            array = one_array(column)
            return array.take(pa.array(places)) if is_moved else array

        def numbers(column: pa.ChunkedArray) -> Any:
            return ordered(column).to_numpy(zero_copy_only=False)

        currency = encoded(history["currency"])
        alone = Alone(
            period_start=numbers(single["period_start"].cast(pa.int32())),
            starts_as_stated=numbers(single["starts_as_stated"]),
            is_daily=numbers(_codes(history["granularity"], list(_GRAINS))) == _GRAINS["daily"],
            currency=numbers(currency.indices.fill_null(-1)),
            factor=numbers(single["factor"].fill_null(np.nan)),
            net_flow=ordered(single["net_flow"]),
        )
        return linked(self._rows, alone)

    def _query(self, select: str, source: pa.Table) -> pa.Table:
        """Ask about the single rows of a table; the answer is in their order."""
        import pyarrow as pa

        for name, column, texts in (("policy", "vendor", self._vendors), ("grain", "granularity", list(_GRAINS))):
            source = source.append_column(name, _codes(source[column], texts))
        with self._database.cursor() as connection:
            # A piece is worked on by one thread.
            connection.register("source", pa.Table.from_batches(source.to_batches(_PIECE_ROWS), source.schema))
            # A relation is collected as Arrow by all threads; the answer to `execute` passes through one.
            answer: pa.Table = connection.sql(f"{self._single_rows} {select}").to_arrow_table()
        return answer


#: Numbers of the grains in SQL: text is compared letter by letter.
_GRAINS: Final = {"daily": 0, "monthly": 1, "quarterly": 2}
_TIMING_RULES: Final = ("declared", "inception", "full_withdrawal", "no_capital")


def _timing(value: str) -> str:
    """Write a timing in SQL."""
    return f"{_text(value)}::timing"


def _rule(value: str) -> str:
    """Write why a timing was applied in SQL."""
    return f"{_text(value)}::timing_rule"


def _status(value: Status) -> str:
    """Write a status in SQL."""
    return f"{_text(value)}::status"


def _results() -> str:
    """Write the common table expression ``results``: what is said of a row by itself and by its links."""
    return f"""
        , results AS (
            SELECT *,
            date_trunc('month', period_end)::DATE AS period_month,
            CAST(capital_sod + appreciation + coalesce(income, 0) - coalesce(fees, 0) + coalesce(other_adjustments, 0)
                - emv AS DECIMAL(28, 8)) AS rollforward_difference,
            CASE WHEN NOT currencies_mixed THEN flow_so_far END AS cumulative_net_flow,
            CASE WHEN gap_days = 0 AND NOT currency_changed THEN beginning_market_value - previous_emv
                 END AS continuity_difference,
            greatest(return_sod, return_mid, return_eod) - least(return_sod, return_mid, return_eod) AS timing_spread,
            CASE WHEN fees IS NULL THEN {_status(Status.MISSING_INPUT)} ELSE return_status END AS return_gross_status,
            CASE WHEN factor IS NOT NULL THEN wealth_chain - 1 END AS cumulative_return_chain,
            wealth_all - 1 AS cumulative_return_all,
            CASE WHEN wealth_all IS NULL THEN {_status(Status.NO_DATA)}
                 WHEN chain_id > 1 OR factor IS NULL THEN {_status(Status.GAP)}
                 ELSE {_status(Status.OK)} END AS cumulative_status,
            CASE WHEN factor IS NOT NULL AND period_end - chain_start + 1 >= 365
                 THEN pow(wealth_chain, 365.25::DOUBLE / (period_end - chain_start + 1)) - 1
                 END AS annualised_return_chain,
            timing_rule = {_rule("full_withdrawal")} AS is_terminated,
            CASE grain WHEN 1 THEN period_start > date_trunc('month', period_end)
                 WHEN 2 THEN period_start > date_trunc('quarter', period_end) ELSE false END AS is_partial,
            coalesce(beginning_market_value < 0, false) OR coalesce(ending_market_value < 0, false) AS is_negative_value
            FROM valued
        )
    """


def _valued(policies: Policies) -> str:
    """Write the common table expressions of each row of ``source`` by itself, the last of which is ``valued``."""
    timing = _by_vendor(policies, lambda policy: _timing(policy.timing))
    version = _by_vendor(policies, lambda policy: f"{_text(policy.version)}::policy_version")
    threshold = _by_vendor(policies, lambda policy: f"{policy.large_flow_threshold:f}::DECIMAL(9, 8)")
    money = f"DECIMAL{_MONEY.removeprefix('decimal128')}"
    return f"""
        WITH stated AS NOT MATERIALIZED (
            SELECT * REPLACE (
                coalesce(period_start, CASE grain
                    WHEN 1 THEN date_trunc('month', period_end)
                    WHEN 2 THEN date_trunc('quarter', period_end)
                    ELSE period_end END)::DATE AS period_start,
                CAST(coalesce(contributions - distributions, net_flow) AS {money}) AS net_flow
            ),
            period_start IS NOT NULL AS starts_as_stated,
            {timing} AS declared, {version} AS policy_version, {threshold} AS threshold,
            beginning_market_value AS bmv, ending_market_value AS emv
            FROM source
        ),
        timed AS NOT MATERIALIZED (
            SELECT *,
            CASE WHEN bmv = 0 AND net_flow > 0 AND emv IS NOT NULL THEN {_rule("inception")}
                 WHEN emv = 0 AND bmv > 0 AND net_flow < 0 THEN {_rule("full_withdrawal")}
                 WHEN bmv = 0 AND net_flow = 0 AND emv = 0 THEN {_rule("no_capital")}
                 ELSE {_rule("declared")} END AS timing_rule,
            CASE timing_rule WHEN {_rule("inception")} THEN {_timing("sod")}
                 WHEN {_rule("no_capital")} THEN {_timing("sod")}
                 WHEN {_rule("full_withdrawal")} THEN {_timing("eod")} ELSE declared END AS timing,
            bmv + net_flow AS capital_sod,
            emv - capital_sod AS gain,
            gain::DOUBLE AS gain_double,
            -- capital of each timing; the sums are exact, and so are their signs: doubles of x and -x cancel
            CASE WHEN bmv >= 0 AND capital_sod > 0 THEN capital_sod::DOUBLE END AS sod,
            CASE WHEN bmv > 0 AND capital_sod IS NOT NULL THEN bmv::DOUBLE END AS eod,
            CASE WHEN bmv >= 0 THEN nullif(greatest(bmv::DOUBLE + capital_sod::DOUBLE, 0), 0) / 2 END AS mid,
            coalesce(bmv > 0 AND net_flow <> 0 AND abs(net_flow) >= threshold * bmv, false) AS is_large_flow
            FROM stated
        ),
        valued AS NOT MATERIALIZED (
            SELECT *,
            CASE timing WHEN {_timing("sod")} THEN sod WHEN {_timing("mid")} THEN mid
                 WHEN {_timing("mixed")} THEN CASE WHEN bmv >= 0 AND net_flow IS NOT NULL AND bmv + contributions > 0
                      THEN (bmv + contributions)::DOUBLE END
                 ELSE eod END AS capital,
            CASE WHEN timing = {_timing("flow_after_valuation")} THEN (emv - bmv)::DOUBLE
                 ELSE gain_double END AS earned,
            earned / capital AS raw_return,
            CASE WHEN raw_return >= -1 THEN raw_return END AS return_net_computed,
            CASE WHEN raw_return >= -1 THEN (earned + fees::DOUBLE) / capital END AS return_gross_computed,
            CASE WHEN bmv IS NULL OR emv IS NULL OR net_flow IS NULL THEN {_status(Status.MISSING_INPUT)}
                 WHEN timing_rule = {_rule("no_capital")} OR bmv < 0 THEN {_status(Status.UNDEFINED_DENOMINATOR)}
                 WHEN timing = {_timing("mixed")} AND contributions IS NULL THEN {_status(Status.MISSING_INPUT)}
                 WHEN capital IS NULL THEN CASE timing
                      WHEN {_timing("mid")} THEN {_status(Status.NON_POSITIVE_AVERAGE_CAPITAL)}
                      ELSE {_status(Status.UNDEFINED_DENOMINATOR)} END
                 WHEN raw_return < -1 THEN {_status(Status.OUTSIDE_DOMAIN)}
                 WHEN is_large_flow AND grain <> 0 AND timing_rule <> {_rule("full_withdrawal")}
                 THEN {_status(Status.LARGE_FLOW_UNVALUED)}
                 ELSE {_status(Status.OK)} END AS return_status,
            CASE WHEN return_net_computed IS NOT NULL THEN 1 + return_net_computed
                 WHEN timing_rule = {_rule("no_capital")} THEN 1 END AS factor,
            gain_double / sod AS return_sod, gain_double / mid AS return_mid, gain_double / eod AS return_eod
            FROM timed
        )
    """


def _output(name: str, kind: str) -> str:
    """One output column in its declared type; text has its own."""
    sql = {"date32": "DATE", "double": "DOUBLE", "bool": "BOOLEAN"}.get(kind) or (
        "DECIMAL" + kind.removeprefix("decimal128")
    )
    return name if kind == "string" else f"CAST({name} AS {sql}) AS {name}"


def _enumerations(policies: Policies) -> dict[str, tuple[str, ...]]:
    """Give the values of the text that is computed, by type."""
    versions = {policy.version if isinstance(policy, Policy) else str(policy[1]) for policy in policies.values()}
    return {
        "timing": TIMINGS,
        "timing_rule": _TIMING_RULES,
        "status": tuple(Status),
        "policy_version": tuple(sorted(versions | {DEFAULT_POLICY.version})),
    }


def _codes(column: pa.ChunkedArray, texts: Sequence[str]) -> pa.Array:
    """Give the place of each text of a column among some; -1 for another one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from finance_assets.advisory.columns import encoded

    text = encoded(column)
    found = pc.index_in(text.dictionary, pa.array(texts, pa.string())).cast(pa.int16()).fill_null(-1)
    return found.take(text.indices).fill_null(-1)


def _by_vendor(policies: Policies, value: Callable[[Policy], str]) -> str:
    """Write a CASE over the vendor, by its place among those that have a policy, for one field of it."""
    given = (policy if isinstance(policy, Policy) else _policy(policy) for _, policy in sorted(policies.items()))
    cases = [f"WHEN {place} THEN {value(policy)}" for place, policy in enumerate(given)]
    return f"CASE policy {' '.join(cases)} ELSE {value(DEFAULT_POLICY)} END" if cases else value(DEFAULT_POLICY)


def _policy(fields: tuple[str, str | int, Decimal]) -> Policy:
    timing, version, threshold = fields
    return Policy(timing, str(version), threshold)


def _text(value: str) -> str:
    """Quote a SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


def _schema(columns: Mapping[str, str]) -> pa.Schema:
    import pyarrow as pa

    types = {
        "string": pa.string(), "int32": pa.int32(), "int64": pa.int64(), "date32": pa.date32(), "bool": pa.bool_(),
        "double": pa.float64(), "timestamp[us, UTC]": pa.timestamp("us", tz="UTC"), _MONEY: pa.decimal128(28, 8),
        _RETURN: pa.decimal128(24, 14), "decimal128(38, 8)": pa.decimal128(38, 8),
    }  # fmt: skip
    return pa.schema([pa.field(name, types[kind]) for name, kind in columns.items()])


def _connect() -> duckdb.DuckDBPyConnection:
    """Open an in-memory database that neither reads the machine's settings nor its time zone."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    return connection
