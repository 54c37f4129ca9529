"""Objects of S3 on conditions: made only where there is none, replaced only where they are what they were.

What belongs here: the requests that Arrow's file system does not know, by boto3. Everything else of the lake goes by
Arrow.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

#: How often a request is made again that met another one for the same object, and the first pause between two.
CONFLICT_ATTEMPTS = 8
CONFLICT_PAUSE_SECONDS = 0.1
#: The object is there, or is not what it was.
_FAILED = ("PreconditionFailed", "412")
#: Another request for the same object was under way; nobody knows yet how that one ends.
_CONFLICT = ("ConditionalRequestConflict", "409")
_MISSING = ("NoSuchKey", "404")


class S3Objects:
    """Conditional requests to one S3 endpoint.

    Paths are ``bucket/key``. What fails otherwise than by its condition is an OSError.

    Parameters
    ----------
    region, endpoint_url
        Where S3 is; None for AWS's own address. Credentials come from the usual AWS chain.
    part_bytes
        Size of the parts of large objects.
    seconds
        Time of one request.
    """

    def __init__(self, region: str, endpoint_url: str | None, part_bytes: int, *, seconds: float) -> None:
        self._region, self._endpoint, self._part_bytes = region, endpoint_url, part_bytes
        self._seconds = seconds

    @cached_property
    def _client(self) -> Any:
        from finance_assets.providers.aws_clients import make_limited_client

        client = make_limited_client("s3", region=self._region, endpoint=self._endpoint, seconds=self._seconds)
        weakref.finalize(self, client.close)
        return client

    def open(self) -> None:
        """Make the client, which takes a while, before it is needed."""
        _ = self._client

    def create(self, path: str, data: bytes | memoryview) -> str:
        """Make an object where there is none; return its ETag.

        Raises
        ------
        FileExistsError
            There is one. It may be this very one, where an answer was lost and the request was sent again.
        """
        bucket, _, key = path.partition("/")
        if len(data) <= self._part_bytes:
            # botocore sends bytes and files, no views of memory.
            return self._etag(
                path, lambda: self._client.put_object(Bucket=bucket, Key=key, Body=bytes(data), IfNoneMatch="*")
            )

        def upload(number: int, start: int, stop: int, upload_id: str) -> str:
            answer = self._client.upload_part(
                Bucket=bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=bytes(data[start:stop])
            )
            return str(answer["ETag"])

        return self._in_parts(path, len(data), upload)

    def copy_new(self, source: str, path: str, size: int) -> None:
        """Have S3 copy an object to where there is none; complete, or not at all.

        An upload in parts even where one request could copy all: only the completion of an upload has a condition
        everywhere.

        Raises
        ------
        FileExistsError
            There is an object.
        """
        (source_bucket, _, source_key), (bucket, _, key) = source.partition("/"), path.partition("/")

        def copy(number: int, start: int, stop: int, upload_id: str) -> str:
            answer = self._client.upload_part_copy(
                Bucket=bucket,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                CopySource={"Bucket": source_bucket, "Key": source_key},
                CopySourceRange=f"bytes={start}-{stop - 1}",
            )
            return str(answer["CopyPartResult"]["ETag"])

        self._in_parts(path, size, copy)

    def copy_in_parts(self, source: str, path: str) -> None:
        """Have S3 copy a large object in parts, over whatever is there."""
        from boto3.s3.transfer import TransferConfig

        (source_bucket, _, source_key), (bucket, _, key) = source.partition("/"), path.partition("/")
        try:
            self._client.copy(
                {"Bucket": source_bucket, "Key": source_key},
                bucket,
                key,
                Config=TransferConfig(multipart_threshold=self._part_bytes, multipart_chunksize=self._part_bytes),
            )
        except Exception as error:
            raise OSError(str(error)) from error

    def replace(self, path: str, data: bytes, etag: str) -> str | None:
        """Replace an object that is what it was; return its new ETag, or None where it is another one or gone."""
        bucket, _, key = path.partition("/")
        try:
            return self._etag(path, lambda: self._client.put_object(Bucket=bucket, Key=key, Body=data, IfMatch=etag))
        except (FileExistsError, FileNotFoundError):
            return None

    def read(self, path: str) -> tuple[bytes, str]:
        """Return an object's bytes and its ETag; FileNotFoundError where there is none."""
        bucket, _, key = path.partition("/")
        with _python_errors(path):
            answer = self._client.get_object(Bucket=bucket, Key=key)
            return answer["Body"].read(), str(answer["ETag"])

    def exists(self, path: str) -> bool:
        """Return whether there is an object."""
        bucket, _, key = path.partition("/")
        try:
            with _python_errors(path):
                self._client.head_object(Bucket=bucket, Key=key)
        except FileNotFoundError:
            return False
        return True

    def names(self, folder: str) -> list[str]:
        """Return the names of the objects right below a folder, sorted."""
        bucket, _, prefix = folder.partition("/")
        with _python_errors(folder):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
            keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        return sorted(key.rsplit("/", 1)[-1] for key in keys)

    def remove(self, path: str) -> None:
        """Remove an object; it need not be there."""
        bucket, _, key = path.partition("/")
        with _python_errors(path):
            self._client.delete_object(Bucket=bucket, Key=key)

    def _in_parts(self, path: str, size: int, part: Callable[[int, int, int, str], str]) -> str:
        """Make an object of parts where there is none; parts of an upload that fails are taken away."""
        bucket, _, key = path.partition("/")
        with _python_errors(path):
            upload_id = self._client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        try:
            parts = []
            for number, start in enumerate(range(0, size, self._part_bytes), start=1):
                with _python_errors(path):
                    etag = part(number, start, min(start + self._part_bytes, size), upload_id)
                parts.append({"PartNumber": number, "ETag": etag})
            return self._etag(
                path,
                lambda: self._client.complete_multipart_upload(
                    Bucket=bucket,
                    Key=key,
                    UploadId=upload_id,
                    MultipartUpload={"Parts": parts},
                    IfNoneMatch="*",
                ),
            )
        except BaseException:
            with suppress(OSError), _python_errors(path):
                self._client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
            raise

    def _etag(self, path: str, request: Callable[[], Any]) -> str:
        """Make a conditional request, again where it met another one; return the ETag of what it made."""
        for attempt in range(CONFLICT_ATTEMPTS):
            try:
                with _python_errors(path):
                    return str(request()["ETag"])
            except BlockingIOError:
                time.sleep(CONFLICT_PAUSE_SECONDS * 2**attempt)
        raise OSError(f"{path}: other requests for the same object were under way at {CONFLICT_ATTEMPTS} attempts")


@contextmanager
def _python_errors(path: str) -> Iterator[None]:
    """Turn what botocore raises into Python's own errors."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        if code in _FAILED or status in _FAILED:
            raise FileExistsError(f"{path} is there, or is not what it was") from error
        if code in _CONFLICT:
            raise BlockingIOError(f"{path}: another request for it is under way") from error
        if code in _MISSING:
            raise FileNotFoundError(f"{path} is not there") from error
        raise OSError(str(error)) from error
    except BotoCoreError as error:
        raise OSError(str(error)) from error
