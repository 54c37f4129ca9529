"""dbt models as Dagster assets, defined by their contracts and built by the dbt command.

What belongs here: the bridge between Dagster and dbt. The definitions come from the contracts alone, so loading them
imports neither dbt nor dagster-dbt (two seconds) and opens no file; a test holds them against dbt's own manifest. A
run builds the selected models with the tests of the selected checks and reports what dbt did.

What a run means:

- A model that dbt cannot build fails the run with dbt's message, and so does a test that cannot be executed. Neither
  is retried: the same SQL on the same data fails again.
- A test that finds offending rows fails its blocking check, with the rules that broke, how often, and the SQL that
  returns the rows. dbt skips the models behind it and Dagster the assets behind those.
"""

# No `from __future__ import annotations` here: Dagster wants the class itself in the annotation of `context`.
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import dagster as dg

from finance_assets import dagster_output
from finance_assets.contracts.dagster_metadata import column_schema, contract_metadata
from finance_assets.contracts.dbt import PROJECT_DIR, dbt_test_descriptions
from finance_assets.contracts.model import Contract, ContractError
from finance_assets.reference import pools
from finance_assets.transform.lineage import column_lineage

if TYPE_CHECKING:
    from dagster_dbt import DbtCliInvocation
    from dbt.adapters.base.impl import BaseAdapter

#: Targets of past runs that are kept for a look at compiled SQL and logs.
KEPT_TARGETS = 10
#: Rules of one failed test that are listed.
SHOWN_RULES = 20
_PARTIAL_PARSE = "partial_parse.msgpack"
_QUIET = {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "DO_NOT_TRACK": "1", "DBT_USE_COLORS": "false"}


class DbtWarehouse(Protocol):
    """What a dbt run asks of the resource ``warehouse``."""

    @property
    def scratch_dir(self) -> Path:
        """Folder outside the source tree, for dbt's targets and logs."""

    def refresh_lake_views(self) -> object:
        """Make every lake table readable as ``layer.name``, and let go of the warehouse."""

    def dbt_environment(self) -> dict[str, str]:
        """Return the environment that dbt needs to reach the warehouse."""


def dbt_asset_specs(
    contracts: Iterable[Contract],
    *,
    storage_kind: str = "duckdb",
    automation_condition: dg.AutomationCondition[Any] | None = None,
) -> list[dg.AssetSpec]:
    """Return one asset spec per dbt model.

    Parameters
    ----------
    contracts
        Contracts of warehouse relations; key, group, owner, columns and dependencies come out of them.
    storage_kind
        Kind of the warehouse, shown beside ``dbt``.
    automation_condition
        When Dagster builds a model by itself.
    """
    specs = []
    for contract in contracts:
        if not contract.is_built_by_dbt:
            raise ContractError(f"{contract.path} is kept in the {contract.store}; dbt builds warehouse relations")
        specs.append(
            dg.AssetSpec(
                key=dg.AssetKey(contract.asset_key),
                deps=[dg.AssetKey(path.split("/")) for path in contract.inputs],
                description=f"{contract.grain} {contract.description} Source: {contract.source}",
                metadata=contract_metadata(contract) | {"dagster/table_name": f"{contract.layer}.{contract.name}"},
                group_name=contract.group,
                owners=[contract.owner],
                kinds={"dbt", "sql", storage_kind},
                automation_condition=automation_condition,
            )
        )
    return specs


def dbt_check_specs(contracts: Iterable[Contract]) -> list[dg.AssetCheckSpec]:
    """Return one blocking check per data test that is generated from the contracts."""
    return [
        dg.AssetCheckSpec(name=name, asset=dg.AssetKey(contract.asset_key), description=description, blocking=True)
        for contract in contracts
        for name, description in dbt_test_descriptions(contract).items()
    ]


def build_dbt_assets(
    name: str,
    contracts: Sequence[Contract],
    *,
    project_dir: Path = PROJECT_DIR,
    storage_kind: str = "duckdb",
    automation_condition: dg.AutomationCondition[Any] | None = None,
) -> dg.AssetsDefinition:
    """Return dbt models as one subsettable Dagster definition.

    It needs the resource ``warehouse`` (see :class:`DbtWarehouse`) and runs in the pool of the same name.

    Parameters
    ----------
    name
        Name of the step.
    contracts
        Contracts of the models, all of them warehouse relations of the project.
    project_dir
        The dbt project, with its ``profiles.yml``.
    storage_kind, automation_condition
        As for :func:`dbt_asset_specs`.
    """
    by_key = {dg.AssetKey(contract.asset_key): contract for contract in contracts}

    @dg.multi_asset(
        name=name,
        specs=dbt_asset_specs(contracts, storage_kind=storage_kind, automation_condition=automation_condition),
        check_specs=dbt_check_specs(contracts),
        can_subset=True,
        required_resource_keys={"warehouse"},
        pool=pools.WAREHOUSE,
    )
    def dbt_models(
        context: dg.AssetExecutionContext,
    ) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        warehouse: DbtWarehouse = context.resources.warehouse
        checks = set(context.selected_asset_check_keys)
        names = [contract.name for key, contract in by_key.items() if key in context.selected_asset_keys]
        warehouse.refresh_lake_views()
        with environment({**_QUIET, **warehouse.dbt_environment()}):
            invocation = _run_dbt(
                context,
                [*names, *sorted(check.name for check in checks)],
                project_dir=project_dir,
                scratch=warehouse.scratch_dir / "dbt",
                target_name=f"{name}-{context.run.run_id}",
            )
            try:
                results = _results(invocation)
                yield from _materializations(context, invocation, by_key, results)
                yield from _check_results(context, invocation, checks, results)
            finally:
                _let_go(invocation)
        _raise_on_errors(invocation, results)

    return dbt_models


def _run_dbt(
    context: dg.AssetExecutionContext, names: Sequence[str], *, project_dir: Path, scratch: Path, target_name: str
) -> "DbtCliInvocation":
    """Build the named models and tests, and return dbt's command when it has ended."""
    runs = scratch / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    _keep_newest(runs, KEPT_TARGETS - 1)
    target = Path(tempfile.mkdtemp(dir=runs, prefix=f"{target_name}-"))
    # What dbt read last time spares it the models that have not changed; dbt itself judges which those are.
    remembered = scratch / _PARTIAL_PARSE
    if remembered.exists():
        shutil.copyfile(remembered, target / _PARTIAL_PARSE)

    # Tests are named one by one: "empty" keeps dbt from adding those of checks that nobody selected. Unit tests hold
    # the SQL against made-up rows; they belong to the test suite, not to a run.
    command = [
        str(dbt_executable()),
        "build",
        *("--indirect-selection", "empty"),
        *("--exclude-resource-type", "unit_test"),
        *("--select", *names),
    ]
    dagster_output.log(context).info(f"Running dbt command: `{' '.join(command)}`.")
    process = subprocess.Popen(
        # dbt must not outlive this process: it would hold the warehouse's file (see dbt_process).
        [sys.executable, "-P", "-m", "finance_assets.transform.dbt_process", *command[1:]],
        cwd=project_dir,
        env=os.environ | _dbt_settings(project_dir, target),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        invocation = _invocation(context, process, project_dir, target)
        # Wait first and read the events then: dagster-dbt's stream of events keeps a core busy while dbt works.
        invocation.is_successful()
    except BaseException:
        # dagster-dbt passes an interruption on to dbt, but only while it reads what dbt prints.
        process.terminate()
        process.wait()
        _close_input(process)
        raise
    if (target / _PARTIAL_PARSE).exists():
        part = scratch / f"{_PARTIAL_PARSE}.{target.name}"
        shutil.copyfile(target / _PARTIAL_PARSE, part)
        os.replace(part, remembered)
    return invocation


def _dbt_settings(project_dir: Path, target: Path) -> dict[str, str]:
    """Return the environment in which dbt keeps out of the source tree and prints events that dagster-dbt reads."""
    return {
        "DBT_PROJECT_DIR": str(project_dir),
        "DBT_PROFILES_DIR": str(project_dir),
        "DBT_TARGET_PATH": str(target),
        "DBT_LOG_PATH": str(target),
        "DBT_LOG_FORMAT": "json",
        "DAGSTER_DBT_CLI": "true",
        "PYTHONUNBUFFERED": "1",
        "PYTHONLEGACYWINDOWSSTDIO": "1",
    }


def _invocation(
    context: dg.AssetExecutionContext, process: "subprocess.Popen[bytes]", project_dir: Path, target: Path
) -> "DbtCliInvocation":
    """Return dagster-dbt's view of a running dbt command.

    ``DbtCliResource.cli`` would ask dbt for its version and load an adapter before it starts the command, and importing
    dagster-dbt comes before that: eight seconds. Here all that goes on while dbt starts and parses.
    """
    from dagster_dbt import DagsterDbtTranslator, DbtCliInvocation
    from packaging.version import Version

    return DbtCliInvocation(
        process=process,
        manifest={},
        dagster_dbt_translator=DagsterDbtTranslator(),
        project_dir=project_dir,
        target_path=target,
        raise_on_error=False,
        cli_version=Version(version("dbt-core")),
        adapter=_adapter(context, project_dir),
    )


def _adapter(context: dg.AssetExecutionContext, project_dir: Path) -> "BaseAdapter | None":
    """Return a handle on the warehouse that reads; it opens no file before it is asked something.

    Where there is none, rows are not counted and the log says why: dbt itself tells better what is wrong.
    """
    from dagster_dbt import DbtCliResource

    dbt = DbtCliResource(
        project_dir=str(project_dir), profiles_dir=str(project_dir), dbt_executable=str(dbt_executable())
    )
    try:
        # A path in the profile may count from the project.
        with chdir(project_dir):
            return dbt._initialize_dbt_core_adapter([])
    except Exception as error:
        dagster_output.log(context).warning(f"The models' rows will not be counted: {error}")
        return None


def _materializations(
    context: dg.AssetExecutionContext,
    invocation: "DbtCliInvocation",
    contracts: Mapping[dg.AssetKey, Contract],
    results: Mapping[str, Mapping[str, Any]],
) -> Iterator[dg.MaterializeResult[Any]]:
    """Yield one result per model that was built, with its row count and where each column comes from."""
    from dagster_dbt.core.dbt_event_iterator import DbtEventIterator
    from sqlglot.errors import SqlglotError

    # The manifest of this very command: what it built can then not differ from what is reported.
    manifest = invocation.get_artifact("manifest.json")
    invocation.manifest = manifest
    events = (
        made
        for event in invocation.stream_raw_events()
        if event.raw_event["data"].get("node_info", {}).get("resource_type") == "model"
        for made in event.to_default_asset_events(manifest, target_path=invocation.target_path)
    )
    for event in DbtEventIterator(events, invocation).fetch_row_counts():
        if isinstance(event, dg.AssetMaterialization):
            contract = contracts[event.asset_key]
            # The contract's columns are those in the warehouse (dbt enforces it) and carry units besides.
            metadata: dict[str, Any] = {**event.metadata, "dagster/column_schema": column_schema(contract)}
            unique_id = str(event.metadata["unique_id"].value)
            try:
                lineage = column_lineage(manifest, unique_id, str(results[contract.name]["compiled_code"]))
            except SqlglotError as error:
                dagster_output.log(context).warning(
                    f"Where the columns of {contract.path} come from could not be read: {error}"
                )
            else:
                metadata["dagster/column_lineage"] = lineage
            yield dagster_output.materialized(asset_key=event.asset_key, metadata=metadata)


def _results(invocation: "DbtCliInvocation") -> dict[str, dict[str, Any]]:
    """Return what dbt says of each model and test that it ran or skipped, by name."""
    if not (invocation.target_path / "run_results.json").exists():
        raise dagster_output.failure(
            f"dbt ended without a result. {invocation.get_error()}",
            metadata={"dbt_log": dagster_output.path(str(invocation.target_path / "dbt.log"))},
            allow_retries=False,
        )
    # A unique id reads type.project.name, and test.project.name.hash for a test.
    return {
        result["unique_id"].split(".")[2]: result for result in invocation.get_artifact("run_results.json")["results"]
    }


def _check_results(
    context: dg.AssetExecutionContext,
    invocation: "DbtCliInvocation",
    checks: Iterable[dg.AssetCheckKey],
    results: Mapping[str, Mapping[str, Any]],
) -> Iterator[dg.AssetCheckResult]:
    """Yield the outcome of every selected test that was executed; one behind a failure was skipped and has none."""
    for check in sorted(checks, key=lambda key: key.name):
        result = results.get(check.name)
        if result is not None and result["status"] in ("pass", "warn", "fail"):
            yield _check_result(context, invocation, check, result)


def _check_result(
    context: dg.AssetExecutionContext,
    invocation: "DbtCliInvocation",
    check: dg.AssetCheckKey,
    result: Mapping[str, Any],
) -> dg.AssetCheckResult:
    """Return a test's outcome as a check result; a failed one says which rules broke and how to see the rows."""
    passed = result["status"] == "pass"
    metadata: dict[str, Any] = {
        "failed_rows": int(result["failures"] or 0),
        "seconds": float(result["execution_time"]),
    }
    description = None
    if not passed:
        sql = str(result["compiled_code"]).strip()
        metadata["sql"] = dagster_output.markdown(f"```sql\n{sql}\n```")
        broken = _broken_rules(context, invocation, sql)
        description = "; ".join(f"{rule}: {rows} rows, the first {first}" for rule, rows, first in broken) or None
        metadata["broken_rules"] = [rule for rule, _, _ in broken]
    return dagster_output.asset_check(
        asset_key=check.asset_key,
        check_name=check.name,
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata=metadata,
        description=description,
    )


def _broken_rules(
    context: dg.AssetExecutionContext, invocation: "DbtCliInvocation", sql: str
) -> list[tuple[str, int, str]]:
    """Return (rule, offending rows, first key) of a failed test, most rows first.

    The check has failed already; where the rows cannot be read again, the log says so and the list is empty.
    """
    if invocation.adapter is None:
        return []
    query = (
        f"select rule, count(*) as offences, min(row_key) as first_key from ({sql}) as offending "
        f"group by rule order by 2 desc, 1 limit {SHOWN_RULES}"
    )
    try:
        with invocation.adapter.connection_named("broken_rules"):
            _, rows = invocation.adapter.execute(query, fetch=True)
            return [(str(row[0]), int(row[1]), str(row[2])) for row in rows.rows]
    except Exception as error:
        dagster_output.log(context).warning(f"The offending rows could not be counted by rule: {error}")
        return []


def _raise_on_errors(invocation: "DbtCliInvocation", results: Mapping[str, Mapping[str, Any]]) -> None:
    """Fail the run where dbt could not build a model or execute a test.

    dbt ends with an error also where a test merely found offending rows; that is what the checks are for.
    """
    errors = {name: str(result["message"]) for name, result in results.items() if result["status"] == "error"}
    only_offences = any(result["status"] == "fail" for result in results.values())
    if not errors and (only_offences or invocation.process.returncode == 0):
        return
    lines = [f"{name}: {message.strip()}" for name, message in errors.items()]
    raise dagster_output.failure(
        "dbt failed. " + ("\n".join(lines) or str(invocation.get_error())),
        metadata={
            "failed": list(errors),
            "command": invocation.dbt_command,
            "dbt_log": dagster_output.path(str(invocation.target_path / "dbt.log")),
        },
        allow_retries=False,
    )


def _close_input(process: "subprocess.Popen[bytes]") -> None:
    if process.stdin is not None:
        process.stdin.close()


def _let_go(invocation: "DbtCliInvocation") -> None:
    """Close what dagster-dbt opened in this process to count rows.

    dbt-duckdb keeps its file open until the process ends, and DuckDB lets nobody write meanwhile.
    """
    _close_input(invocation.process)
    if invocation.adapter is not None:
        invocation.adapter.cleanup_connections()
        close_all = getattr(invocation.adapter.connections, "close_all_connections", None)
        if close_all is not None:
            close_all()


def dbt_executable() -> Path:
    """Return the dbt command of the running environment; dagster-dbt brings none of its own.

    Raises
    ------
    dg.Failure
        There is none beside the Python interpreter.
    """
    # Not resolved: in a virtual environment the interpreter is a link out of it.
    found = Path(sys.executable).parent / ("dbt.exe" if os.name == "nt" else "dbt")
    if not found.exists():
        raise dagster_output.failure(
            f"There is no dbt command at {found}; install dbt-core, or run make setup.", allow_retries=False
        )
    return found


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Hold environment variables for the length of a block.

    dbt's profile takes the warehouse's address from the environment, and dagster-dbt reads the profile in this process
    as well as in the one it starts. Steps that need it run one at a time, in the pool ``warehouse``.
    """
    before = {name: os.environ.get(name) for name in values}
    # dagster-dbt counts rows in threads that each change the working directory and change it back, so it may end in
    # the wrong one; what follows in this process must not notice.
    folder = os.getcwd()
    os.environ.update(values)
    try:
        yield
    finally:
        os.chdir(folder)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _keep_newest(folder: Path, kept: int) -> None:
    held = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for old in held[: max(0, len(held) - kept)]:
        shutil.rmtree(old, ignore_errors=True)
