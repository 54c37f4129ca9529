"""The ``finance-assets`` command: one module per group of commands."""
