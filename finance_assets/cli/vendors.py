"""The commands ``vendors …``, ``explain`` and ``restatements``."""

import json
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finance_assets.cli.errors import cli_errors, fail, parse_day, read_settings
from finance_assets.terminal_output import console, print_text, say, shown, shown_message
from finance_assets.text import escape_name, unescape_name

if TYPE_CHECKING:
    from rich.table import Table

    from finance_assets.advisory.intake import Intake
    from finance_assets.advisory.reading.vendor_contract import VendorContract
    from finance_assets.storage.landing import RefusedEntry
    from finance_assets.storage.ledger import FileRecord

vendors_app = typer.Typer(
    help="Vendor files: inspect a file, propose a contract, list the quarantine, read files again.",
    no_args_is_help=True,
)
#: Maximum number of rows of one file in a table on the screen.
SHOWN = 20


def register_commands(app: typer.Typer) -> None:
    """Add the commands of this branch to ``finance-assets``."""
    app.add_typer(vendors_app, name="vendors")
    app.command()(explain)
    app.command()(restatements)


def _table(*names: str) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for name in names:
        # Long values continue on the next line; nothing is truncated.
        table.add_column(name, overflow="fold")
    return table


def _open_intake() -> "Intake":
    from finance_assets.advisory.resources import build_intake

    return build_intake(read_settings())


def _load_contracts(sheet: Path | None) -> "list[VendorContract]":
    """Return the vendor contracts of the deployment; those of a given file replace contracts of the same vendor."""
    from finance_assets.advisory.reading.vendor_contract import read_onboarding_sheet

    deployed = _open_intake().contracts
    if sheet is None:
        return deployed
    given = read_onboarding_sheet(sheet)
    names = {contract.vendor for contract in given}
    return [*given, *(contract for contract in deployed if contract.vendor not in names)]


def _list_files(paths: list[Path], max_bytes: int) -> "tuple[list[Path], list[RefusedEntry]]":
    """Return the given files and those in given folders, and the entries that the landing zone would refuse.

    A link given on the command line is followed; one in a folder is not.
    """
    from finance_assets.regular_files import check_regular
    from finance_assets.storage.landing import Landing, RefusedEntry, printable_key

    found: list[Path] = []
    refused: list[RefusedEntry] = []
    for path in paths:
        if path.is_dir():
            landing = Landing(str(path.absolute()))
            files, unread = landing.survey()
            refused += unread
            for file in files:
                key, size = file.identity.key, file.identity.size
                if size <= max_bytes:
                    found.append(path / key)
                    continue
                reason = f"too_large: {size:,} bytes, but at most {max_bytes:,} can be inspected"
                advice = "split it, or copy it to the landing zone, where a run reads it in parts"
                refused.append(RefusedEntry(printable_key(key), reason, advice, size, file.modified))
        elif os.path.lexists(path):
            check_regular(path, max_bytes=max_bytes)
            found.append(path)
        else:
            raise fail(f"{escape_name(path)} is neither a file nor a folder")
    return found, refused


@vendors_app.command()
def inspect(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Files, or folders of files.")],
    contracts: Annotated[
        Path | None,
        typer.Option("--contracts", metavar="FILE", help="An onboarding sheet or a contract, JSON or YAML."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--json", metavar="OUT", help="Write everything as JSON; - for standard output.")
    ] = None,
    received: Annotated[
        str | None,
        typer.Option(
            "--received",
            metavar="YYYY-MM-DD",
            help="Day of receipt. Default: now. Later dates are rejected.",
        ),
    ] = None,
) -> None:
    """Show how files would be read, row by row, without loading them.

    Exit status 1 means that a file would be quarantined, or that an entry of a folder would not be read.
    """
    day = parse_day(received, "--received")
    from finance_assets.advisory.reading.inspection import MAX_INSPECTED_BYTES, inspect_files

    at = datetime.now(UTC) if day is None else datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    with cli_errors():
        known = _load_contracts(contracts)
        files, refused = _list_files(paths, MAX_INSPECTED_BYTES)
        entries = inspect_files(files, known, at)
    if output is not None:
        # In ASCII, so that control characters in names have no effect on the screen.
        text = json.dumps(entries, indent=1) + "\n"
        if str(output) == "-":
            print_text(text, end="")
        else:
            output.write_text(text, encoding="utf-8")
    if output is None or str(output) != "-":
        table = _table("file", "action", "schema", "rows", "quarantined")
        for name, entry in entries.items():
            table.add_row(
                shown(name),
                entry["action"],
                shown(str(entry.get("vendor_schema") or "")),
                f"{len(entry['rows']):,}",
                f"{len(entry['quarantined']):,}",
            )
        console().print(table)
        for name, entry in entries.items():
            messages = [str(one) for one in (entry.get("file_reason"), *entry.get("warnings", ())) if one]
            if messages:
                say(f"{escape_name(name)}: {', '.join(messages)}")
        for name, entry in entries.items():
            for row in entry["quarantined"][:SHOWN]:
                account = f", account {escape_name(row['account_id'])}" if row.get("account_id") else ""
                detail = f": {row['detail']}" if row.get("detail") else ""
                say(f"{escape_name(name)}, line {row['line']}{account}: {row['reason']}{detail}")
    for unread in refused:
        say(f"{unread.key} is not read: {unread.reason}; {unread.what_to_do}", stderr=str(output) == "-")
    in_quarantine = any(entry["action"] == "quarantine_file" for entry in entries.values())
    raise typer.Exit(1 if in_quarantine or refused else 0)


@vendors_app.command()
def propose(
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A file of the vendor.")],
) -> None:
    """Print a draft contract for a file without a contract, with the evidence as comments."""
    from finance_assets.advisory.reading.inspection import MAX_INSPECTED_BYTES
    from finance_assets.advisory.reading.proposing import propose_contract
    from finance_assets.regular_files import read_regular

    with cli_errors():
        data = read_regular(file, max_bytes=MAX_INSPECTED_BYTES)
    print_text(propose_contract(data, file.name))


@vendors_app.command("list")
def list_vendors() -> None:
    """Show all known vendors: their contract and the files received from them."""
    from finance_assets.advisory.explaining import policies_in_words
    from finance_assets.advisory.results import policies

    with cli_errors():
        intake = _open_intake()
        register = intake.register().to_pylist()
        names = {contract.vendor: contract for contract in intake.contracts}
        declared = policies(intake.contracts)
    table = _table("vendor", "contract", "timing", "files", "quarantined", "rows", "newest file")
    for name in sorted({*names, *(row["vendor"] for row in register)}):
        files = [row for row in register if row["vendor"] == name]
        contract = names.get(name)
        table.add_row(
            shown(name),
            f"version {contract.version}" if contract else "none: read by content",
            "\n".join(map(shown_message, policies_in_words(declared.get(name)))),
            str(len(files)),
            str(sum(row["action"] == "quarantine_file" for row in files)),
            f"{sum(row['row_count'] for row in files):,}",
            f"{max(row['received_ts_utc'] for row in files):%Y-%m-%d %H:%M}" if files else "-",
        )
    console().print(table)


@vendors_app.command()
def quarantine() -> None:
    """Show quarantined files and rows, and unread entries of the landing zone, with what to do about each.

    Exit status 1 means that there are some.
    """
    from finance_assets.advisory.unread import LANDING_ZONE_KEY
    from finance_assets.contracts.advisory import QUARANTINED_FILES, QUARANTINED_ROWS
    from finance_assets.storage.lake import LakeError

    with cli_errors():
        intake = _open_intake()
        lake = intake.lake
        keys = [key for key in lake.partitions(QUARANTINED_FILES) if key != LANDING_ZONE_KEY]
        files = lake.read(QUARANTINED_FILES, keys=keys).table.to_pylist()
        rows = lake.read(QUARANTINED_ROWS).table.to_pylist()
        waiting: tuple[FileRecord, ...] = ()
        try:
            # The current state, whether or not a run has recorded it.
            now = intake.look().unread
            files += intake.unread_rows(now)
            waiting = now.waiting
        except LakeError as error:
            files += lake.read(QUARANTINED_FILES, keys=[LANDING_ZONE_KEY]).table.to_pylist()
            say(f"showing the state of the last run, because {error}", stderr=True)
    if not files and not rows:
        console().print("Nothing is in quarantine.")
        return
    if files:
        table = _table("file", "sha256", "received", "reason", "what to do")
        for row in files:
            table.add_row(
                shown_message(row["landing_key"]),
                row["file_sha256"][:12],
                f"{row['received_ts_utc']:%Y-%m-%d %H:%M}",
                shown_message(row["reason"]),
                shown_message(row["what_to_do"]),
            )
        console().print(table)
    for record in waiting:
        if record.retry_ts_utc is not None:
            say(
                f"{escape_name(record.identity.key)} will be retried after {record.retry_ts_utc:%Y-%m-%d %H:%M:%S} UTC "
                f"({record.faults} faults so far)"
            )
    suspects = {row["file_sha256"] for row in files}
    single = [row for row in rows if row["file_sha256"] not in suspects]
    if single:
        table = _table("file", "sha256", "line", "account", "reason")
        for row in single[: SHOWN * 5]:
            detail = f": {row['detail']}" if row["detail"] else ""
            table.add_row(
                shown_message(row["landing_key"]),
                row["file_sha256"][:12],
                str(row["line"]),
                shown(row["account_id"] or ""),
                shown_message(f"{row['reason']}{detail}"),
            )
        console().print(table)
        if len(single) > SHOWN * 5:
            console().print(f"and {len(single) - SHOWN * 5:,} more rows in raw/quarantined_rows")
    console().print("After a fix: finance-assets vendors replay SHA256…, then finance-assets materialize.")
    raise typer.Exit(1)


def _match_digests(digests: list[str], known: list[str]) -> list[str]:
    """Return the SHA-256 of the files that the given prefixes identify; each prefix must match exactly one."""
    chosen = []
    for digest in digests:
        found = [each for each in known if each.startswith(digest.lower())]
        if len(found) != 1:
            raise fail(f"{digest}: {'no file' if not found else f'{len(found)} files'} with that sha256")
        chosen += found
    return chosen


@vendors_app.command()
def replay(
    digests: Annotated[
        list[str], typer.Argument(metavar="SHA256…", help="The files, by the first digits of their sha256.")
    ],
) -> None:
    """Read stored files again, for example after a contract was added; new rows count as known from now on.

    A file whose reading was abandoned is read by the next run, as after `vendors retry`.
    """
    from finance_assets.advisory.results import WRITTEN_BY_ONE
    from finance_assets.storage.writers import single_writer

    with cli_errors():
        intake = _open_intake()
        waiting = intake.digests_to_retry()
        chosen = _match_digests(digests, [*(row["file_sha256"] for row in intake.register().to_pylist()), *waiting])
        _schedule_retry(intake, [digest for digest in chosen if digest in waiting])
        name, *tables = WRITTEN_BY_ONE
        with single_writer(intake.lake, name, tables, tell=say):
            replayed = intake.replay([digest for digest in chosen if digest not in waiting])
        for taken in replayed:
            reason = f" ({taken.reason})" if taken.reason else ""
            key = escape_name(taken.key)
            say(f"{key}: {taken.action}{reason}, {taken.rows} rows, {taken.quarantined} quarantined")
    console().print("finance-assets materialize updates the downstream tables.")


@vendors_app.command()
def retry(
    digests: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SHA256…]", help="The files, by the first digits of their sha256. Default: all."),
    ] = None,
) -> None:
    """Let the next run read files again that were abandoned, or that wait for a retry after a fault."""
    with cli_errors():
        intake = _open_intake()
        waiting = intake.digests_to_retry()
        _schedule_retry(intake, _match_digests(digests, waiting) if digests else waiting)
    console().print(
        "finance-assets materialize reads them." if waiting else "No file was abandoned, and none waits for a retry."
    )


def _schedule_retry(intake: "Intake", digests: list[str]) -> None:
    for key in intake.retry(digests):
        say(f"{escape_name(key)}: will be read again")


def _parse_period(text: str) -> tuple[date, date]:
    """Return the first and last day of a period such as 2013-02, 2013-Q1 or 2013-02-28."""
    try:
        if "Q" in text.upper():
            year, quarter = text.upper().replace("-", "").split("Q")
            first = date(int(year), 3 * int(quarter) - 2, 1)
            return first, (first + timedelta(days=100)).replace(day=1) - timedelta(days=1)
        if text.count("-") == 1:
            first = date.fromisoformat(f"{text}-01")
            return first, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)
        day = date.fromisoformat(text)
    except ValueError:
        raise fail(
            f"PERIOD is a month, a quarter or a day, such as 2013-02, 2013-Q1 or 2013-02-28, not {text!r}"
        ) from None
    return day, day


def _end_of_day(day: date | None) -> datetime | None:
    """Return the last instant of a day in UTC."""
    from finance_assets.advisory.intake import TICK

    return None if day is None else datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1) - TICK


def explain(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Account as in the file, or as a table shows it.")],
    period: Annotated[str, typer.Argument(metavar="PERIOD", help="2013-02, 2013-Q1 or 2013-02-28.")],
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="YYYY-MM-DD", help="Explain what was known at the end of that day.")
    ] = None,
) -> None:
    """Print how a return of an account was computed: the arithmetic, and the file and line of each input.

    Also shows whether computing it now gives the same number, and what is missing if a vendor sent no row. Exit
    status 1 means that the number differs, or that there is no row for the period.
    """
    first, last = _parse_period(period)
    known = _end_of_day(parse_day(as_of, "--as-of"))
    from finance_assets.advisory.results import explanation

    with cli_errors():
        result = explanation(_open_intake(), account, first, last, as_of=known)
        if result is None and "\\" in account:
            # The account was copied from a table, where it is escaped.
            result = explanation(_open_intake(), unescape_name(account), first, last, as_of=known)
    if result is None and known is not None:
        raise fail(
            f"nothing was known of account {account!r} from {first} to {last} at {known:%Y-%m-%d %H:%M} UTC", status=1
        )
    if result is None:
        raise fail(f"nothing is known of account {account!r} from {first} to {last}", status=1)
    for line in result.lines:
        say(line)
    raise typer.Exit(0 if result.holds else 1)


def restatements(
    between: Annotated[
        tuple[str, str],
        typer.Option("--between", metavar="D1 D2", help="First and last day of receipt."),
    ],
) -> None:
    """Show corrections received between two days: old value, new value, and the correcting file."""
    first, last = (parse_day(text, "--between") or date.max for text in between)
    from finance_assets.advisory.results import restated

    start = datetime(first.year, first.month, first.day, tzinfo=UTC)
    with cli_errors():
        rows: list[dict[str, Any]] = restated(
            _open_intake(), start, datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)
        )
    if not rows:
        console().print(f"Nothing was restated from {first} to {last}.")
        return
    names = list(rows[0])
    table = _table(*names)
    for row in rows:
        table.add_row(*(shown(str(row[name]) if row[name] is not None else "-") for name in names))
    console().print(table)
