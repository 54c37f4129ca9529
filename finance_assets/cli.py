"""The `finance-assets` command: what people type.

What belongs here: reading arguments, showing progress and results. Everything is done by the rooms it calls; heavy modules are
imported inside the commands, so that ``--help`` answers at once.
"""

import sys
from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(
    name="finance-assets",
    help=(
        "A financial data platform on Dagster: quotes to KPIs and sector marts, every number explained.\n\n"
        "Start with [bold]demo[/bold]: it runs the whole platform once on data that is already on your disk. "
        "Settings are environment variables that begin with FINANCE_ASSETS_; docs/operations.md lists them."
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
contracts_app = typer.Typer(
    help="Look at table contracts, and write what is generated from them.", no_args_is_help=True
)
app.add_typer(contracts_app, name="contracts")

Day = Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", show_default=False)]


def _console() -> Console:
    return Console(stderr=False, highlight=False)


def _fail(message: str) -> typer.Exit:
    """Say what is wrong on standard error, in one line, and end with status 2."""
    Console(stderr=True, highlight=False).print(f"[red]error:[/red] {message}", soft_wrap=True)
    return typer.Exit(2)


def _day(text: str | None, option: str) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise _fail(f"{option} takes a date such as 2013-03-01, not {text!r}") from None


@app.command()
def demo(
    first: Annotated[
        str | None,
        typer.Option("--from", metavar="YYYY-MM-DD", help="First session; default: the sample's first."),
    ] = None,
    last: Annotated[
        str | None,
        typer.Option("--to", metavar="YYYY-MM-DD", help="Last session; default: the sample's last."),
    ] = None,
) -> None:
    """Run every asset once on the sample: real prices of 2000 to 2013, offline, no key.

    Ends with a table of what was made and where it lies. Exit status 0 means that every asset was made and every
    check passed.
    """
    from finance_assets.running import run_assets
    from finance_assets.settings import Settings

    settings = Settings.from_env()
    if not settings.uses_sample:
        raise _fail("the demo runs on the sample; unset FINANCE_ASSETS_MARKET_PROVIDERS, or use materialize")
    outcome = run_assets(settings, first=_day(first, "--from"), last=_day(last, "--to"), console=_console())
    outcome.show(_console(), next_steps=True)
    raise typer.Exit(0 if outcome.success else 1)


@app.command()
def materialize(
    select: Annotated[
        str,
        typer.Option(
            "--select",
            "-s",
            help="Assets to make, in Dagster's selection syntax, such as 'group:\"market\"' or 'key:\"core/ticker_kpis\"+'.",
        ),
    ] = "*",
    first: Annotated[str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="First session.")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="Last session.")] = None,
) -> None:
    """Make assets now, in this process, and wait for them.

    Without dates: every session that is missing or incomplete, oldest first, so a gap heals. With dates: those
    sessions again, whatever is there.
    """
    from finance_assets.running import run_assets, run_missing
    from finance_assets.settings import Settings

    settings = Settings.from_env()
    days = _day(first, "--from"), _day(last, "--to")
    if days == (None, None):
        outcome = run_missing(settings, select=select, console=_console())
        if outcome is None:
            _console().print(
                "Every closed session is complete; nothing to do. --from and --to make sessions again."
            )
            return
    else:
        outcome = run_assets(settings, select=select, first=days[0], last=days[1], console=_console())
    outcome.show(_console())
    raise typer.Exit(0 if outcome.success else 1)


@app.command()
def status() -> None:
    """Show every table: partitions, rows, newest session, and what is missing."""
    from finance_assets.running import show_status
    from finance_assets.settings import Settings

    show_status(Settings.from_env(), _console())


@contracts_app.command("show")
def contracts_show(table: Annotated[str, typer.Argument(help="Table, such as core/quotes.")]) -> None:
    """Print one table's contract: grain, key, columns with units, rules."""
    from finance_assets.contracts import ContractError, contract_of
    from finance_assets.contracts.dictionary import data_dictionary

    try:
        contract = contract_of(table)
    except ContractError as error:
        raise _fail(str(error)) from None
    from rich.markdown import Markdown

    _console().print(Markdown(data_dictionary([contract])))


@contracts_app.command("write")
def contracts_write(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail where a file is out of date.")
    ] = False,
) -> None:
    """Write dbt's YAML and docs/data_dictionary.md from the contracts."""
    from finance_assets.contracts.generated import stale_files, write_files

    root = Path(__file__).resolve().parents[1]
    if check:
        stale = stale_files(root)
        if stale:
            raise _fail(
                f"out of date: {', '.join(str(path.relative_to(root)) for path in stale)}; "
                "run finance-assets contracts write"
            )
        _console().print("everything generated from the contracts is up to date")
        return
    for path in write_files(root):
        _console().print(f"wrote {path.relative_to(root)}")


def main() -> None:
    """Run the command; a wrong setting is told in one line, not in a traceback."""
    from pydantic import ValidationError

    try:
        app()
    except ValidationError as error:
        lines = "; ".join(
            str(entry["msg"]).removeprefix("Value error, ") for entry in error.errors(include_input=False)
        )
        Console(stderr=True, highlight=False).print(f"[red]error:[/red] settings: {lines}", soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
