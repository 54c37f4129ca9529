"""Faults of the machine and of services, told apart from verdicts on data.

What belongs here: the one answer to whose fault an exception is. A full disk, a locked database, an unreachable bucket
or a lack of memory says nothing of the data that was at hand, so work that met one is tried again without end.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator

from finance_assets.contracts.model import ContractError
from finance_assets.storage.lake import LakeError, NotSortedError
from finance_assets.storage.ledger import LedgerError

#: Modules of clients of databases and services: whatever they raise is of the connection or of the far side.
_CLIENTS = ("sqlalchemy.exc", "psycopg", "botocore", "boto3", "s3transfer", "urllib3")
#: What a system says of one file; it says nothing of the files beside it.
_OF_ONE_FILE = frozenset(
    {
        errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG,
        errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.EBUSY, errno.ETXTBSY, errno.EOVERFLOW, errno.EFBIG,
        errno.ENODATA, errno.EBADMSG, errno.EILSEQ, errno.EINVAL,
    }
)  # fmt: skip


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that caused it, the last one first."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def is_fault(error: BaseException) -> bool:
    """Whether an exception is a fault of disk, database, network or memory, and so no verdict on data."""
    if isinstance(error, NotSortedError | ContractError):
        return False
    if isinstance(error, LakeError | LedgerError | MemoryError | ConnectionError | TimeoutError | sqlite3.Error):
        return True
    if isinstance(error, OSError):
        # Arrow reports a damaged file as an OSError of no number.
        return error.errno is not None
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return True
    return any(kind.__module__.startswith(_CLIENTS) for kind in type(error).__mro__)


def is_of_one_file(error: BaseException) -> bool:
    """Whether a fault that was met on reading a file says nothing of the files beside it."""
    for link in chain_of(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            # A refusal (4xx) is of one object; a service that is down (5xx), or slows us down, refuses all.
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0
            return 400 <= int(status) < 500 and int(status) not in (408, 429)
        if isinstance(link, OSError) and link.errno is not None:
            return link.errno in _OF_ONE_FILE
    return False


def describe_error(error: BaseException) -> str:
    """Return an error as a sentence: its kind and what it says.

    What an error says may repeat the data at hand, so that of a mere bug is left out; then the place stands for it.
    """
    if is_fault(error) or isinstance(error, OSError):
        # Of a database's error the statement and its values are left out.
        said = getattr(error, "orig", None) or error
        return f"{type(error).__name__}: {' '.join(str(said).split())}"
    place = ""
    trace = error.__traceback__
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if module.startswith(__name__.partition(".")[0]):
            place = f" in {module}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}{place}"
