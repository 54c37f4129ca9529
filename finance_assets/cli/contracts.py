"""The commands ``contracts show`` and ``contracts write``."""

from typing import Annotated

import typer

from finance_assets.cli.errors import cli_errors, fail
from finance_assets.terminal_output import console, shown, shown_message

contracts_app = typer.Typer(
    help="Show the contracts of tables, and generate the files that depend on them.", no_args_is_help=True
)


def register_commands(app: typer.Typer) -> None:
    """Add these commands to ``finance-assets``."""
    app.add_typer(contracts_app, name="contracts")


@contracts_app.command("show")
def contracts_show(
    table: Annotated[
        str | None, typer.Argument(metavar="TABLE", help="For example core/quotes. Without it, all tables are listed.")
    ] = None,
) -> None:
    """Print the contract of a table: the meaning of a row, the key, the columns with their units, the rules."""
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
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a file is out of date.")] = False,
) -> None:
    """Generate dbt's YAML and docs/data_dictionary.md from the contracts."""
    from finance_assets.contracts.generated import stale_files, write_files
    from finance_assets.project_files import find_checkout

    root = find_checkout()
    if root is None:
        raise fail("contracts write regenerates files of a checkout, and this is an installed package")
    with cli_errors():
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
