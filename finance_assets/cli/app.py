"""The command itself: its help, its groups, and the last handler of errors.

The groups are in the other modules of this package. Heavy modules are imported inside the commands, so that ``--help``
starts quickly.
"""

import sys

import typer

from finance_assets.cli import contracts, runs, transactions, vendors
from finance_assets.cli.errors import SafeGroup
from finance_assets.text import safe_traceback

app = typer.Typer(
    name="finance-assets",
    cls=SafeGroup,
    help=(
        "A financial data platform on Dagster: quotes, vendor files and payments become explained numbers.\n\n"
        "Start with [bold]demo[/bold]: it runs the whole platform once on sample data that is already installed. "
        "[bold]status[/bold] shows all tables, [bold]materialize[/bold] builds the missing ones.\n\n"
        "Settings are environment variables that begin with FINANCE_ASSETS_, such as FINANCE_ASSETS_HOME for the "
        "output folder; docs/operations.md lists them. Exit status: 0 success, 1 something failed or is "
        "missing, 2 the command or a setting is wrong."
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for group in (runs, contracts, vendors, transactions):
    group.register_commands(app)


def main() -> None:
    """Run the command; an unexpected exception prints a traceback without control characters."""
    try:
        app()
    except Exception as error:
        sys.stderr.write(safe_traceback(type(error), error, error.__traceback__))
        raise SystemExit(1) from None
