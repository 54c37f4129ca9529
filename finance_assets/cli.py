"""The `finance-assets` command: what people type.

What belongs here: reading arguments, showing progress and results. Everything is done by the rooms it calls; heavy
modules are imported inside the commands, so that ``--help`` answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from finance_assets import cli_advisory, cli_transactions
from finance_assets.terminal import (
    SafeGroup,
    console,
    day_of,
    fail,
    print_text,
    read_settings,
    shown,
    shown_message,
    told_in_one_line,
)
from finance_assets.text import safe_traceback

app = typer.Typer(
    name="finance-assets",
    cls=SafeGroup,
    help=(
        "A financial data platform on Dagster: quotes to KPIs and sector marts, every number explained.\n\n"
        "Start with [bold]demo[/bold]: it runs the whole platform once on data that is already on your disk. "
        "[bold]status[/bold] shows what there is, [bold]materialize[/bold] makes what is missing.\n\n"
        "Settings are environment variables that begin with FINANCE_ASSETS_, such as FINANCE_ASSETS_HOME for the "
        "folder of everything that is written; docs/operations.md lists them. Exit status: 0 all is well, 1 "
        "something failed or is missing, 2 the command or a setting is wrong."
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
contracts_app = typer.Typer(
    help="Look at what each table promises, and write what is generated from the promises.", no_args_is_help=True
)
app.add_typer(contracts_app, name="contracts")


_FROM = "First session. A day without a session stands for the next one."
_TO = "Last session. A day without a session stands for the one before."


@app.command()
def demo(
    first: Annotated[
        str | None,
        typer.Option("--from", metavar="YYYY-MM-DD", help=f"{_FROM} Default: the sample's first, 2000-03-01."),
    ] = None,
    last: Annotated[
        str | None,
        typer.Option("--to", metavar="YYYY-MM-DD", help=f"{_TO} Default: the sample's last, 2013-03-01."),
    ] = None,
) -> None:
    """Run every asset once on the sample; no key.

    The sample: real prices of 2000 to 2013, files of fictitious vendors, simulated payments in a queue on this machine.
    Only that queue needs the network, once, to download its package; without it the demo runs without payments.
    Ends with a table of what was made and where it lies. Exit status 0 means that every asset was made and every
    check passed. Running it again changes nothing.
    """
    days = day_of(first, "--from"), day_of(last, "--to")
    settings = read_settings()
    if not settings.uses_sample:
        raise fail(
            f"the demo runs on the sample, but FINANCE_ASSETS_MARKET_PROVIDERS is "
            f"{','.join(settings.market_providers)}; unset it, or use finance-assets materialize"
        )
    from finance_assets.running import land_sample_files, live_sessions_in, queued_sample, run_assets

    with told_in_one_line():
        live = live_sessions_in(settings)
        if live is not None:
            raise fail(
                f"the lake {settings.lake} holds quotes up to {live}, which the sample does not have; set "
                "FINANCE_ASSETS_HOME to another folder for the demo"
            )
        land_sample_files(settings)
        with queued_sample(settings, console()) as queued:
            outcome = run_assets(queued, first=days[0], last=days[1], console=console())
    outcome.show(console(), next_steps=True)
    raise typer.Exit(0 if outcome.success else 1)


@app.command()
def materialize(
    select: Annotated[
        str,
        typer.Option(
            "--select",
            "-s",
            metavar="SELECTION",
            show_default="everything",
            help="Assets to make, in Dagster's selection syntax: 'key:\"core/quotes\"', 'group:\"market\"', or "
            "'key:\"core/ticker_kpis\"+' for an asset with all that follows from it.",
        ),
    ] = "*",
    first: Annotated[str | None, typer.Option("--from", metavar="YYYY-MM-DD", help=_FROM)] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="YYYY-MM-DD", help=_TO)] = None,
) -> None:
    """Make assets now, in this process, and wait for them.

    Without dates: every session that is missing or incomplete, oldest first, so a gap heals; then the tables over all
    sessions. With dates: those sessions again, whatever is there; rows that have not changed stay as they are.
    """
    days = day_of(first, "--from"), day_of(last, "--to")
    settings = read_settings()
    from finance_assets.running import run_assets, run_missing

    with told_in_one_line():
        if days == (None, None):
            outcome = run_missing(settings, select=select, console=console())
        else:
            outcome = run_assets(settings, select=select, first=days[0], last=days[1], console=console())
    if outcome is None:
        console().print("Everything is there; nothing to do. --from and --to make sessions again.")
        return
    outcome.show(console())
    raise typer.Exit(0 if outcome.success else 1)


@app.command()
def status() -> None:
    """Show every table: sessions, rows, the newest session, what is missing, and what to do about it.

    Exit status 1 means that something is missing.
    """
    settings = read_settings()
    from finance_assets.running import show_status

    with told_in_one_line():
        complete = show_status(settings, console())
    raise typer.Exit(0 if complete else 1)


@app.command()
def home() -> None:
    """Make the folder of the Dagster instance ready, and print its path.

    The folder is DAGSTER_HOME where that is set, else "dagster" in FINANCE_ASSETS_HOME. For scripts:
    export DAGSTER_HOME=$(finance-assets home).
    """
    settings = read_settings()
    from finance_assets.running import dagster_home

    with told_in_one_line():
        print_text(str(dagster_home(settings)))


@contracts_app.command("show")
def contracts_show(
    table: Annotated[
        str | None, typer.Argument(metavar="TABLE", help="Such as core/quotes. Without one, all are listed.")
    ] = None,
) -> None:
    """Print one table's contract: what a row is, its key, its columns with their units, its rules."""
    from finance_assets.contracts import CONTRACTS, ContractError, contract_of
    from finance_assets.contracts.dictionary import data_dictionary

    if table is None:
        width = max(map(len, CONTRACTS))
        for contract in CONTRACTS.values():
            console().print(f"{contract.path:{width}}  {shown_message(contract.grain)}")
        return
    try:
        contract = contract_of(table)
    except ContractError as error:
        raise fail(str(error)) from None
    from rich.markdown import Markdown

    console().print(Markdown(data_dictionary([contract])))


@contracts_app.command("write")
def contracts_write(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where a file is out of date.")] = False,
) -> None:
    """Write dbt's YAML and docs/data_dictionary.md from the contracts."""
    from finance_assets.contracts.generated import stale_files, write_files

    root = Path(__file__).resolve().parents[1]
    with told_in_one_line():
        if check:
            stale = stale_files(root)
            if stale:
                raise fail(
                    f"out of date: {', '.join(str(path.relative_to(root)) for path in stale)}; "
                    "run finance-assets contracts write",
                    status=1,
                )
            console().print("Everything generated from the contracts is up to date.")
            return
        for path in write_files(root):
            console().print(f"wrote {shown(path.relative_to(root))}")


cli_advisory.register_commands(app)
cli_transactions.register_commands(app)


def main() -> None:
    """Run the command; an exception that no command expects ends it with a traceback without control characters."""
    try:
        app()
    except Exception as error:
        sys.stderr.write(safe_traceback(type(error), error, error.__traceback__))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
