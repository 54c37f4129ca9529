"""``python -m finance_assets.cli`` runs the ``finance-assets`` command."""

from finance_assets.cli.app import main

if __name__ == "__main__":
    main()
