"""Assets hand over tables and take them; where they lie and how a run is cut is the IO managers' business."""

import ast
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from fixtures.rows import good_row, table_of

from finance_assets.contracts import CONTRACTS
from finance_assets.contracts.dagster_metadata import RANGE_END_TAG, RANGE_START_TAG
from finance_assets.contracts.market import CORPORATE_ACTIONS, INSTRUMENTS, QUOTES, TRADING_SESSIONS
from finance_assets.contracts.sectors import STG_STOCK_PRICES
from finance_assets.registry import DOMAINS
from finance_assets.storage.io_managers import RUN_ROW_COUNT, LakeIOManager, WarehouseIOManager
from finance_assets.storage.lake import Lake
from finance_assets.storage.warehouse import DuckDBWarehouse

DAYS = ("2013-01-02", "2013-01-03", "2013-01-04")
PARTITIONS = dg.StaticPartitionsDefinition(DAYS)
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
SINGLE_RUN = dg.BackfillPolicy.single_run()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def quotes(days: Iterable[str]) -> pa.Table:
    rows = [
        good_row(QUOTES, symbol=symbol, session_date=date.fromisoformat(day))
        for day in days
        for symbol in ("BBB", "AAA")
    ]
    return table_of(QUOTES, *rows)


def run(assets: Sequence[Any], lake: Lake, *, raise_on_error: bool = True, **options: Any) -> dg.ExecuteInProcessResult:
    warehouse = DuckDBWarehouse(Path(lake.root).parent / "w.duckdb", lake, tuple(CONTRACTS.values()), Path(lake.root))
    return dg.materialize(
        assets,
        resources={"lake_io_manager": LakeIOManager(lake), "warehouse_io_manager": WarehouseIOManager(warehouse)},
        run_config=QUIET,
        raise_on_error=raise_on_error,
        **options,
    )


def over(first: str, last: str) -> dict[str, str]:
    return {RANGE_START_TAG: first, RANGE_END_TAG: last}


def failure(result: dg.ExecuteInProcessResult) -> str:
    """What the failed step said, with all its causes."""
    assert not result.success
    said = []
    for event in result.get_step_failure_events():
        error = event.step_failure_data.error
        while error is not None:
            said.append(error.message)
            error = error.cause
    return "\n".join(said)


def materializations(result: dg.ExecuteInProcessResult) -> dict[str | None, dict[str, Any]]:
    """The metadata of each partition that a run made."""
    made = [event.step_materialization_data.materialization for event in result.get_asset_materialization_events()]
    return {one.partition: {name: value.value for name, value in one.metadata.items()} for one in made}


@dg.asset(key=QUOTES.asset_key, partitions_def=PARTITIONS, backfill_policy=SINGLE_RUN, io_manager_key="lake_io_manager")
def made_quotes(context: dg.AssetExecutionContext) -> pa.Table:
    return quotes(context.partition_keys)


# -- writing -------------------------------------------------------------------------------------------------


def test_a_run_of_one_partition_writes_one_file(lake: Lake) -> None:
    result = run([made_quotes], lake, partition_key=DAYS[1])
    assert lake.row_counts(QUOTES) == {DAYS[1]: 2}
    assert materializations(result) == {
        DAYS[1]: {
            RUN_ROW_COUNT: 2,
            "dagster/row_count": 2,
            "partitions_written": 1,
            "uri": f"{lake.root}/core/quotes/*.parquet",
        }
    }


def test_a_run_over_a_range_is_split_into_its_partitions(lake: Lake) -> None:
    result = run([made_quotes], lake, tags=over(DAYS[0], DAYS[2]))
    assert lake.row_counts(QUOTES) == dict.fromkeys(DAYS, 2)
    metadata = materializations(result)
    assert sorted(metadata, key=str) == list(DAYS)
    assert all(one[RUN_ROW_COUNT] == 6 and one["partitions_written"] == 3 for one in metadata.values())
    assert not any("dagster/row_count" in one for one in metadata.values()), "the run's rows are no partition's"


def test_a_partition_that_the_run_left_empty_is_replaced_too(lake: Lake) -> None:
    lake.write_partitions(QUOTES, quotes(DAYS), DAYS)

    @dg.asset(
        key=QUOTES.asset_key, partitions_def=PARTITIONS, backfill_policy=SINGLE_RUN, io_manager_key="lake_io_manager"
    )
    def only_the_first(context: dg.AssetExecutionContext) -> pa.Table:
        return quotes(context.partition_keys[:1])

    run([only_the_first], lake, tags=over(DAYS[0], DAYS[1]))
    assert lake.row_counts(QUOTES) == {DAYS[0]: 2, DAYS[1]: 0, DAYS[2]: 2}


def test_a_table_without_partitions_is_one_file(lake: Lake) -> None:
    @dg.asset(key=TRADING_SESSIONS.asset_key, io_manager_key="lake_io_manager")
    def sessions() -> dg.MaterializeResult[Any]:
        return dg.MaterializeResult(value=table_of(TRADING_SESSIONS, good_row(TRADING_SESSIONS)))

    result = run([sessions], lake)
    size = Path(lake.file(TRADING_SESSIONS)).stat().st_size
    assert materializations(result)[None] == {
        "dagster/row_count": 1,
        "bytes": size,
        "uri": f"{lake.root}/raw/trading_sessions/*.parquet",
    }


def test_an_asset_that_writes_by_itself_hands_over_nothing(lake: Lake) -> None:
    @dg.asset(key=TRADING_SESSIONS.asset_key, io_manager_key="lake_io_manager")
    def sessions() -> Any:
        return None

    assert run([sessions], lake).success
    assert lake.partitions(TRADING_SESSIONS) == []


@pytest.mark.parametrize("kind", ["frame", "batch"])
def test_a_frame_and_a_record_batch_are_tables_too(lake: Lake, kind: str) -> None:
    @dg.asset(
        key=QUOTES.asset_key, partitions_def=PARTITIONS, backfill_policy=SINGLE_RUN, io_manager_key="lake_io_manager"
    )
    def handed_over(context: dg.AssetExecutionContext) -> Any:
        table = quotes(context.partition_keys)
        if kind == "batch":
            return table.combine_chunks().to_batches()[0]
        frame = table.to_pandas()
        frame["close"] = [10.25] * len(frame)
        frame.index = frame.pop("symbol").index + 7
        return frame.assign(symbol=["BBB", "AAA"])

    run([handed_over], lake, partition_key=DAYS[0])
    read = lake.read(QUOTES).table
    assert read.column("symbol").to_pylist() == ["AAA", "BBB"]
    assert read.column("close").to_pylist() == [Decimal("10.25" if kind == "frame" else 10)] * 2


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ([1, 2], r"core/quotes: an asset returns a pyarrow.Table or a pandas.DataFrame, not list"),
        (pd.Series([1]), r"core/quotes: an asset returns .*, not Series"),
        (pd.DataFrame({"close": [1, "x"]}), r"core/quotes: the frame has a column of mixed types: .*close"),
        (pd.DataFrame({"close": [1.0]}), r"core/quotes: missing columns: symbol"),
    ],
)
def test_what_is_no_table_of_the_contract_is_refused(lake: Lake, value: Any, complaint: str) -> None:
    import re

    @dg.asset(key=QUOTES.asset_key, partitions_def=PARTITIONS, io_manager_key="lake_io_manager")
    def wrong() -> Any:
        return value

    result = run([wrong], lake, partition_key=DAYS[0], raise_on_error=False)
    assert re.search(complaint, failure(result), re.DOTALL)
    assert lake.partitions(QUOTES) == []


def test_rows_of_a_partition_that_the_run_is_not_about_are_refused(lake: Lake) -> None:
    @dg.asset(key=QUOTES.asset_key, partitions_def=PARTITIONS, io_manager_key="lake_io_manager")
    def too_much() -> pa.Table:
        return quotes(DAYS)

    said = failure(run([too_much], lake, partition_key=DAYS[0], raise_on_error=False))
    assert "rows for 2 partitions that this run does not write" in said
    assert lake.partitions(QUOTES) == []


def test_a_table_that_has_no_contract_is_refused(lake: Lake) -> None:
    @dg.asset(key=["core", "unheard_of"], io_manager_key="lake_io_manager")
    def unheard_of() -> pa.Table:
        return pa.table({})

    assert "no table 'core/unheard_of'; known: core/" in failure(run([unheard_of], lake, raise_on_error=False))


# -- reading -------------------------------------------------------------------------------------------------


def reader(
    taken: list[pa.Table], of: Any = QUOTES, *, partitioned: bool = True, columns: Sequence[str] | None = None
) -> dg.AssetsDefinition:
    """An asset that remembers what it was given."""
    metadata = {} if columns is None else {"columns": list(columns)}
    shape = {"partitions_def": PARTITIONS, "backfill_policy": SINGLE_RUN} if partitioned else {}

    @dg.asset(
        ins={"given": dg.AssetIn(key=of.asset_key, input_manager_key="lake_io_manager", metadata=metadata)}, **shape
    )
    def reads(given) -> None:  # type: ignore[no-untyped-def]
        taken.append(given)

    return reads


def source(of: Any, *, partitioned: bool = True) -> dg.AssetSpec:
    return dg.AssetSpec(of.asset_key, partitions_def=PARTITIONS if partitioned else None)


def warnings_of(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> list[str]:
    return [entry.user_message for entry in instance.all_logs(result.run_id) if entry.level == 30]


def test_a_run_reads_its_own_partitions_and_no_others(lake: Lake) -> None:
    lake.write_partitions(QUOTES, quotes(DAYS), DAYS)
    taken: list[pa.Table] = []
    run([reader(taken), source(QUOTES)], lake, partition_key=DAYS[1])
    assert taken[0].equals(lake.read(QUOTES, keys=[DAYS[1]]).table)
    run([reader(taken), source(QUOTES)], lake, tags=over(DAYS[1], DAYS[2]))
    assert taken[1].column("session_date").unique().to_pylist() == [date(2013, 1, 3), date(2013, 1, 4)]


def test_a_table_over_all_partitions_reads_them_all(lake: Lake) -> None:
    lake.write_partitions(QUOTES, quotes(DAYS), DAYS)
    taken: list[pa.Table] = []
    run([reader(taken, partitioned=False), source(QUOTES)], lake)
    assert taken[0].num_rows == 6


def test_only_the_columns_that_an_input_names_are_read(lake: Lake) -> None:
    lake.write_partitions(QUOTES, quotes(DAYS), DAYS)
    taken: list[pa.Table] = []
    run([reader(taken, columns=["close", "symbol"]), source(QUOTES)], lake, partition_key=DAYS[0])
    assert taken[0].column_names == ["close", "symbol"]


def test_partitions_that_were_never_made_are_told_and_do_not_stop_a_range(lake: Lake) -> None:
    lake.write_partitions(QUOTES, quotes(DAYS[:1]), DAYS[:1])
    taken: list[pa.Table] = []
    with dg.DagsterInstance.ephemeral() as instance:
        result = run([reader(taken), source(QUOTES)], lake, tags=over(DAYS[0], DAYS[2]), instance=instance)
        (warning,) = warnings_of(instance, result)
    assert warning.endswith("core/quotes: 2 of the partitions asked for were never made: 2013-01-03, 2013-01-04")
    assert taken[0].num_rows == 2


@pytest.mark.parametrize("span", [DAYS[:1], DAYS])
def test_what_was_never_made_at_all_is_an_error_that_says_what_to_do(lake: Lake, span: Sequence[str]) -> None:
    taken: list[pa.Table] = []
    result = run([reader(taken), source(QUOTES)], lake, tags=over(span[0], span[-1]), raise_on_error=False)
    said = failure(result)
    assert f"core/quotes has no file for {span[0]} to {span[-1]} at {lake.root}/core/quotes" in said
    assert "materialise it first" in said
    assert taken == []


def test_a_table_that_was_never_made_is_an_error_that_says_what_to_do(lake: Lake) -> None:
    assets = [reader([], INSTRUMENTS, partitioned=False), source(INSTRUMENTS, partitioned=False)]
    said = failure(run(assets, lake, raise_on_error=False))
    assert f"raw/instruments has no file at {lake.root}/raw/instruments/*.parquet; materialise it first" in said


def test_a_sparse_table_without_a_file_is_empty_and_no_error(lake: Lake) -> None:
    taken: list[pa.Table] = []
    with dg.DagsterInstance.ephemeral() as instance:
        assets = [reader(taken, CORPORATE_ACTIONS), source(CORPORATE_ACTIONS)]
        result = run(assets, lake, tags=over(DAYS[0], DAYS[2]), instance=instance)
        assert warnings_of(instance, result) == []
    assert (taken[0].num_rows, taken[0].column_names) == (0, CORPORATE_ACTIONS.column_names)


# -- the warehouse -------------------------------------------------------------------------------------------


def test_a_relation_of_the_warehouse_is_handed_over_like_a_table_of_the_lake(lake: Lake) -> None:
    taken: list[pa.Table] = []
    table = table_of(STG_STOCK_PRICES, *(good_row(STG_STOCK_PRICES, symbol=symbol) for symbol in "BA"))

    @dg.asset(key=STG_STOCK_PRICES.asset_key, io_manager_key="warehouse_io_manager")
    def prices() -> pa.Table:
        return table

    columns = ["symbol", "close_price"]

    @dg.asset(
        ins={
            "given": dg.AssetIn(
                key=STG_STOCK_PRICES.asset_key, input_manager_key="warehouse_io_manager", metadata={"columns": columns}
            )
        }
    )
    def reads(given) -> None:  # type: ignore[no-untyped-def]
        taken.append(given)

    result = run([prices, reads], lake)
    assert taken[0].to_pydict() == {"symbol": ["A", "B"], "close_price": [Decimal(10)] * 2}
    (made,) = result.asset_materializations_for_node("staging__stg_stock_prices")
    assert made.metadata["dagster/row_count"].value == 2


def test_what_dbt_has_built_is_not_written_again(lake: Lake) -> None:
    @dg.asset(key=STG_STOCK_PRICES.asset_key, io_manager_key="warehouse_io_manager")
    def prices() -> Any:
        return None

    assert run([prices], lake).success
    assert not (Path(lake.root).parent / "w.duckdb").exists()


# -- no asset knows where it writes --------------------------------------------------------------------------


def test_the_same_asset_writes_to_a_folder_and_to_an_object_store(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    remote = Lake("s3://bucket/prefix")
    # An object store without folders, in memory but for its name.
    store = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    store.create_dir("bucket/prefix/core/quotes")
    remote.__dict__["filesystem"] = store
    for place in (lake, remote):
        assert run([made_quotes], place, tags=over(DAYS[0], DAYS[2])).success
    for key in DAYS:
        assert remote.get(remote.file(QUOTES, key)) == lake.get(lake.file(QUOTES, key))
    assert remote.read(QUOTES).table.equals(lake.read(QUOTES).table)


def test_no_asset_asks_for_the_profile() -> None:
    known_only_to_settings = {
        "profile",
        "is_s3",
        "lake_uri",
        "s3_endpoint_url",
        "aws_region",
        "warehouse_backend",
        "uri",
    }
    for name in (domain.__name__.replace(".definitions", ".assets") for domain in DOMAINS if hasattr(domain, "assets")):
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_text())
        asked = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not asked & known_only_to_settings, f"{name} looks at {asked & known_only_to_settings}"
