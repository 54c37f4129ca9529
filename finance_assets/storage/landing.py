"""The landing zone: where others drop files, and what lies there now.

What belongs here: listing and reading the files of one folder or bucket, and telling a file that is whole from one that
is still being written. What became of a file is the ledger's to say.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from finance_assets.storage.lake import LakeError, S3Options
from finance_assets.storage.ledger import FileIdentity

#: A local file is whole when nobody has written to it for so long; an object of S3 is whole when it is there.
QUIET = timedelta(seconds=5)
#: Time of one page of a listing of S3, which names up to a thousand objects.
LIST_SECONDS = 30.0
#: Names of files that are being written, or are nobody's data.
_TEMPORARY_ENDS = (".part", ".partial", ".tmp", ".crdownload", ".filepart", "~")


@dataclass(frozen=True, slots=True)
class LandedFile:
    """One file of the landing zone.

    Attributes
    ----------
    identity
        Key below the landing zone, size, and a fingerprint that changes when the file does: S3's etag, or the local
        file's time of modification in nanoseconds.
    modified
        When it was last written, aware, in UTC.
    """

    identity: FileIdentity
    modified: datetime


@dataclass
class Landing:
    """Files at one address, in folders of any depth.

    Parameters
    ----------
    uri
        An absolute folder or ``s3://bucket/prefix``.
    s3
        How to reach S3, where the address is there.
    """

    uri: str
    s3: S3Options = field(default_factory=S3Options)

    @property
    def is_s3(self) -> bool:
        """Whether the files are objects of S3."""
        return self.uri.startswith("s3://")

    def listing(self) -> list[LandedFile]:
        """Return every file by key, without hidden and temporary ones.

        Raises
        ------
        LakeError
            The listing failed. It never stands for "no files": a folder that is not there has none, a bucket that is
            not there is an error.
        """
        found = self._objects() if self.is_s3 else self._files()
        return sorted(
            (file for file in found if _is_data(file.identity.key)), key=lambda file: (file.identity.key, file.modified)
        )

    def whole(self, now: datetime) -> list[LandedFile]:
        """Return the files of :meth:`listing` that nobody is writing any more.

        Parameters
        ----------
        now
            The machine's real time, which is what files are dated by.
        """
        return [file for file in self.listing() if self.is_s3 or now - file.modified >= QUIET]

    def read(self, key: str) -> bytes:
        """Return a file's bytes.

        Raises
        ------
        LakeError
            There is no such file, or its key leads out of the landing zone.
        """
        if self.is_s3:
            bucket, prefix = self._place()
            try:
                return bytes(self._client().get_object(Bucket=bucket, Key=prefix + key)["Body"].read())
            except Exception as error:
                raise LakeError(f"{key} in {self.uri} cannot be read: {error}") from error
        try:
            return self.path(key).read_bytes()
        except OSError as error:
            raise LakeError(f"{key} in {self.uri} cannot be read: {error.strerror}") from error

    def path(self, key: str) -> Path:
        """Return where a local file is.

        Raises
        ------
        LakeError
            Its key leads out of the landing zone.
        """
        folder = Path(self.uri)
        path = folder / key
        if not path.resolve().is_relative_to(folder.resolve()):
            raise LakeError(f"{key} leads out of {self.uri}")
        return path

    def _files(self) -> Iterator[LandedFile]:
        folder = Path(self.uri)
        if not folder.exists():
            return

        def refuse(error: OSError) -> None:
            raise LakeError(f"{self.uri} cannot be listed: {error}") from error

        for place, _, names in os.walk(folder, onerror=refuse):
            for name in names:
                path = Path(place) / name
                try:
                    state = path.stat()
                except FileNotFoundError:
                    continue  # taken away since it was listed
                if not path.is_file() or path.is_symlink():
                    continue  # a link could lead anywhere
                key = path.relative_to(folder).as_posix()
                modified = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=state.st_mtime_ns // 1000)
                yield LandedFile(FileIdentity(key, state.st_size, f"mtime:{state.st_mtime_ns}"), modified)

    def _objects(self) -> Iterator[LandedFile]:
        bucket, prefix = self._place()
        try:
            pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            for page in pages:
                for entry in page.get("Contents", ()):
                    key = str(entry["Key"]).removeprefix(prefix)
                    if key and not key.endswith("/"):
                        etag = str(entry["ETag"]).strip('"')
                        modified = entry["LastModified"].astimezone(UTC)
                        yield LandedFile(FileIdentity(key, int(entry["Size"]), f"etag:{etag}"), modified)
        except Exception as error:
            raise LakeError(f"{self.uri} cannot be listed: {error}") from error

    def _place(self) -> tuple[str, str]:
        bucket, _, prefix = self.uri.removeprefix("s3://").partition("/")
        return bucket, f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""

    def _client(self) -> Any:
        from finance_assets.providers.aws_clients import make_limited_client

        return make_limited_client("s3", region=self.s3.region, endpoint=self.s3.endpoint_url, seconds=LIST_SECONDS)


def _is_data(key: str) -> bool:
    parts = key.split("/")
    return not any(part.startswith((".", "_", "~$")) for part in parts) and not parts[-1].endswith(_TEMPORARY_ENDS)
