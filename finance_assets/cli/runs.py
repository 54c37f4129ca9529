"""The commands ``demo``, ``materialize``, ``status`` and ``home``."""

from typing import Annotated

import typer

from finance_assets.cli.errors import cli_errors, fail, parse_day, read_settings
from finance_assets.terminal_output import console, print_text

_FROM = "First session. If the day has no session, the next session is used."
_TO = "Last session. If the day has no session, the previous session is used."


def register_commands(app: typer.Typer) -> None:
    """Add these commands to ``finance-assets``."""
    for command in (demo, materialize, status, home):
        app.command()(command)


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
    """Run every asset once on the sample data; needs no API key.

    The sample: real prices from 2000 to 2013, files of fictitious vendors, and simulated payments in a local queue.
    Only the queue needs the network, once, to download its package; without it the demo has no payments. At the end a
    table shows the results and where they are stored. Exit status 0 means that all assets were built and all checks
    passed. A second run changes nothing.
    """
    days = parse_day(first, "--from"), parse_day(last, "--to")
    settings = read_settings()
    if not settings.uses_sample:
        raise fail(
            f"the demo runs on the sample, but FINANCE_ASSETS_MARKET_PROVIDERS is "
            f"{','.join(settings.market_providers)}; unset it, or use finance-assets materialize"
        )
    from finance_assets.demo import land_sample_files, newest_live_session, sample_queue
    from finance_assets.runs.execute import run_assets

    with cli_errors():
        live = newest_live_session(settings)
        if live is not None:
            raise fail(
                f"the lake {settings.lake} holds quotes up to {live}, which the sample does not have; set "
                "FINANCE_ASSETS_HOME to another folder for the demo"
            )
        land_sample_files(settings)
        with sample_queue(settings, console()) as queued:
            outcome = run_assets(queued, first=days[0], last=days[1], console=console())
    outcome.show(console(), next_steps=True)
    raise typer.Exit(0 if outcome.success else 1)


def materialize(
    select: Annotated[
        str,
        typer.Option(
            "--select",
            "-s",
            metavar="SELECTION",
            show_default="everything",
            help="Assets to build, in Dagster's selection syntax: 'key:\"core/quotes\"', 'group:\"market\"', or "
            "'key:\"core/ticker_kpis\"+' for an asset and everything downstream of it.",
        ),
    ] = "*",
    first: Annotated[str | None, typer.Option("--from", metavar="YYYY-MM-DD", help=_FROM)] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="YYYY-MM-DD", help=_TO)] = None,
) -> None:
    """Build assets now, in this process, and wait until they are finished.

    Without dates: all missing or incomplete sessions, oldest first, then the tables over all sessions. With dates:
    these sessions again, whether or not they exist; unchanged rows stay as they are.
    """
    days = parse_day(first, "--from"), parse_day(last, "--to")
    settings = read_settings()
    from finance_assets.runs.execute import run_assets, run_missing

    with cli_errors():
        if days == (None, None):
            outcome = run_missing(settings, select=select, console=console())
        else:
            outcome = run_assets(settings, select=select, first=days[0], last=days[1], console=console())
    if outcome is None:
        console().print("All tables are complete; there is nothing to do. Use --from and --to to build sessions again.")
        return
    outcome.show(console())
    raise typer.Exit(0 if outcome.success else 1)


def status() -> None:
    """Show each table: sessions, rows, newest session, missing sessions, and what to do about them.

    Exit status 1 means that something is missing.
    """
    settings = read_settings()
    from finance_assets.runs.status import show_status

    with cli_errors():
        complete = show_status(settings, console())
    raise typer.Exit(0 if complete else 1)


def home() -> None:
    """Prepare the folder of the Dagster instance, and print its path.

    The folder is DAGSTER_HOME if that is set, otherwise "dagster" in FINANCE_ASSETS_HOME. For scripts:
    export DAGSTER_HOME=$(finance-assets home).
    """
    settings = read_settings()
    from finance_assets.runs.instance import dagster_home

    with cli_errors():
        print_text(str(dagster_home(settings)))
