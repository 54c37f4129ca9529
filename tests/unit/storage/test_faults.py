"""Whose fault an exception is."""

from __future__ import annotations

import errno
import sqlite3

import botocore.exceptions
import pyarrow as pa
import pytest
import sqlalchemy as sa

from finance_assets.contracts.model import ContractError
from finance_assets.storage.faults import describe_error, is_fault, is_of_one_file
from finance_assets.storage.lake import LakeError, NotSortedError


def refusal(status: int, code: str = "X") -> botocore.exceptions.ClientError:
    return botocore.exceptions.ClientError(
        {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "GetObject",
    )


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(number, "x") for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE)),
        PermissionError(errno.EACCES, "x"),
        MemoryError(),
        pa.lib.ArrowMemoryError("x"),
        sqlite3.DatabaseError("database disk image is malformed"),
        sa.exc.OperationalError("x", {}, Exception("locked")),
        sa.exc.TimeoutError("x"),
        refusal(500),
        botocore.exceptions.EndpointConnectionError(endpoint_url="x"),
        ConnectionResetError(),
        TimeoutError(),
        LakeError("x"),
        RuntimeError("can't start new thread"),
    ],
    ids=repr,
)
def test_disk_database_network_and_memory_are_no_verdict(error: Exception) -> None:
    assert is_fault(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"), KeyError("x"), ZeroDivisionError(), RecursionError(), RuntimeError("x"), ContractError("x"),
        NotSortedError("x"), pa.ArrowInvalid("x"), OSError("Couldn't deserialize thrift"), UnicodeDecodeError("a", b"", 0, 1, "x"),
    ],
    ids=repr,
)  # fmt: skip
def test_whatever_else_goes_wrong_on_the_bytes_is_the_readers(error: Exception) -> None:
    assert not is_fault(error)


@pytest.mark.parametrize(
    ("error", "of_one"),
    [
        (OSError(errno.EACCES, "x"), True),
        (OSError(errno.EIO, "x"), True),
        (OSError(errno.ENOENT, "x"), True),
        (OSError(errno.EMFILE, "x"), False),
        (OSError(errno.ENOSPC, "x"), False),
        (refusal(403, "InvalidObjectState"), True),
        (refusal(404), True),
        (refusal(429), False),
        (refusal(503, "SlowDown"), False),
        (MemoryError(), False),
    ],
)
def test_a_fault_of_one_file_says_nothing_of_the_next(error: Exception, of_one: bool) -> None:
    assert is_of_one_file(error) is of_one
    wrapped = LakeError("cannot be read")
    wrapped.__cause__ = error
    assert is_of_one_file(wrapped) is of_one


def test_what_a_bug_says_is_not_told_since_it_may_hold_data() -> None:
    assert describe_error(OSError(errno.ENOSPC, "No space left")) == "OSError: [Errno 28] No space left"
    assert describe_error(ValueError("900-12-3456")) == "ValueError"
    locked = sa.exc.OperationalError(
        "insert", {"reason": "900-12-3456"}, sqlite3.OperationalError("database\nis locked")
    )
    assert describe_error(locked) == "OperationalError: database is locked"
