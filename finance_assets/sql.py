"""What DuckDB is told in text: values, and addresses of files.

What belongs here: writing a value or a path into a statement so that it stands for itself, whatever characters it has.
No statement of a domain, no connection, no storage.

DuckDB reads more into a path than a name: ``*``, ``?`` and ``[`` are patterns, a backslash ends a folder, and
``name=value`` becomes a column of every row below it. The first two are kept from it by `exact_path` and
`pattern_of_files`, the last by `PARQUET_OPTIONS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

#: For every ``read_parquet`` of ours: a folder called ``currency=USD`` must not become, or replace, a column.
PARQUET_OPTIONS = "hive_partitioning = false"

_PATTERN = re.compile(r"[\[*?]")


def literal(text: str) -> str:
    """Quote a text for SQL."""
    return "'" + text.replace("'", "''") + "'"


def exact_path(path: str) -> str:
    """Return a path as DuckDB takes it for that one file or folder and no other.

    Nothing can be escaped in a path with a backslash; DuckDB takes it as it is where it has none of ``* ? [``, and
    `finance_assets.settings` refuses those that have both.
    """
    return path if "\\" in path else _PATTERN.sub(lambda found: f"[{found.group()}]", path)


def pattern_of_files(folder: str, suffix: str) -> str | None:
    """Return the pattern of all files of a folder, or None where DuckDB has no pattern for it: list them then."""
    return None if "\\" in folder else f"{exact_path(folder)}/*{suffix}"


def read_parquet(files: str | Iterable[str], *options: str) -> str:
    """Return the call that reads Parquet files.

    Parameters
    ----------
    files
        A pattern of `pattern_of_files`, or paths, each of which is read as it is.
    options
        Further options, such as ``union_by_name = true``.
    """
    if isinstance(files, str):
        address = literal(files)
    else:
        address = f"[{', '.join(literal(exact_path(path)) for path in files)}]"
    return f"read_parquet({', '.join([address, PARQUET_OPTIONS, *options])})"
