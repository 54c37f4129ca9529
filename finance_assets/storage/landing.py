"""The landing zone: where others drop files, and what lies there now.

What belongs here: listing and reading the files of one folder or bucket, each entry judged by itself, and telling a
file that is whole from one that is still being written. What became of a file is the ledger's to say.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from finance_assets.regular_files import MAX_FILE_BYTES, irregular_kind, is_sparse
from finance_assets.storage.lake import LakeError, S3Options
from finance_assets.storage.ledger import FileIdentity

#: A local file is whole when nobody has written to it for so long; an object of S3 is whole when it is there.
QUIET = timedelta(seconds=5)
#: Time of one page of a listing of S3, which names up to a thousand objects.
LIST_SECONDS = 30.0
#: A longer key than S3 knows is refused: databases index no longer ones, and systems open no longer paths.
MAX_KEY_BYTES = 1024
#: Folders in folders that are looked into.
MAX_DEPTH = 64
#: Names of files that are being written, or are nobody's data.
_TEMPORARY_ENDS = (".part", ".partial", ".tmp", ".crdownload", ".filepart", "~")
_EPOCH = datetime.fromtimestamp(0, UTC)
#: Times outside of these are of a broken clock; they are kept as the nearest one that a timestamp holds.
_FIRST_TIME, _LAST_TIME = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
_NO_WAIT = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MOVE_IT = "put a file with a plain name in its place, or take it away"


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
    changed
        When a local file was last touched in any way, by the clock of its file system, which nobody can set on a
        file; None on S3.
    """

    identity: FileIdentity
    modified: datetime
    changed: datetime | None = None


@dataclass(frozen=True, slots=True)
class RefusedEntry:
    """An entry of the landing zone that is not read.

    Attributes
    ----------
    key
        Its key, escaped where it holds what no table can store.
    reason
        A code, and after a colon what else is known.
    what_to_do
        How it can be mended.
    size
        Bytes, where they are known, else 0.
    modified
        When it was last written, where that is known.
    """

    key: str
    reason: str
    what_to_do: str
    size: int = 0
    modified: datetime | None = None

    @property
    def digest(self) -> str:
        """What stands for a sha256 of bytes that are not to be had: that of key and reason."""
        return hashlib.sha256(f"{self.key}\0{self.reason}".encode()).hexdigest()


class ChangedError(LakeError):
    """A file is not the one that was listed any more: it was replaced, or is still being written."""


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
    _clients: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)
    #: When files of the future were first seen as they are.
    _looks: dict[FileIdentity, datetime] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def is_s3(self) -> bool:
        """Whether the files are objects of S3."""
        return self.uri.startswith("s3://")

    def survey(self) -> tuple[list[LandedFile], list[RefusedEntry]]:
        """Return every file by key, and every entry that is not read; hidden and temporary ones are neither.

        Raises
        ------
        LakeError
            The landing zone itself cannot be listed. It never stands for "no files": a folder that is not there has
            none, a bucket that is not there is an error. What cannot be listed below it is a refused entry.
        """
        files: list[LandedFile] = []
        refused: list[RefusedEntry] = []
        for entry in self._objects() if self.is_s3 else self._entries():
            if isinstance(entry, LandedFile):
                files.append(entry)
            else:
                refused.append(entry)
        files.sort(key=lambda file: (file.identity.key, file.modified))
        return files, sorted(refused, key=lambda entry: (entry.key, entry.reason))

    def listing(self) -> list[LandedFile]:
        """Return every file by key, without hidden and temporary ones, and without those that are refused.

        Raises
        ------
        LakeError
            As of :meth:`survey`.
        """
        return self.survey()[0]

    def whole(self, now: datetime) -> list[LandedFile]:
        """Return the files of :meth:`listing` that nobody is writing any more.

        Parameters
        ----------
        now
            The machine's real time, which is what files are dated by.
        """
        return [file for file in self.listing() if self.is_whole(file, now)]

    def is_whole(self, file: LandedFile, now: datetime) -> bool:
        """Whether nobody is writing a file any more.

        A time of modification in the future, which anybody can set, says nothing: the file then counts as written when
        it was last touched. Where the clock of the file system says the future too, the file must be the same in two
        looks, some time apart; the first is remembered here.
        """
        if self.is_s3:
            return True
        written = file.modified
        if written > now and file.changed is not None:
            written = file.changed
        if written > now:
            written = self._looks.setdefault(file.identity, now)
        return now - written >= QUIET

    def has_settled(self, file: LandedFile) -> bool:
        """Whether a file is still the one that was listed; for a second look some time after the first."""
        if self.is_s3:
            return True
        try:
            state = os.lstat(self.path(file.identity.key))
        except (OSError, LakeError):
            return False
        return stat.S_ISREG(state.st_mode) and _identity(file.identity.key, state) == file.identity

    def read(self, key: str) -> bytes:
        """Return a file's bytes.

        Raises
        ------
        LakeError
            There is no such file, it is no regular file, or its key leads out of the landing zone.
        ChangedError
            It was written while it was read.
        """
        if self.is_s3:
            return self._get(key)
        path = self.path(key)
        try:
            # What was swapped for a pipe since it was listed is not waited for.
            descriptor = os.open(path, _NO_WAIT)
            try:
                before = os.fstat(descriptor)
                if not stat.S_ISREG(before.st_mode):
                    raise LakeError(f"{key} in {self.uri} is no file any more")
                with open(descriptor, "rb", closefd=False) as file:
                    data = file.read()
                after = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise LakeError(f"{key} in {self.uri} cannot be read: {error.strerror or error}") from error
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(data) != after.st_size:
            raise ChangedError(f"{key} in {self.uri} was written while it was read")
        return data

    def read_version(self, identity: FileIdentity) -> bytes:
        """Return the bytes of a file as it was listed.

        Raises
        ------
        LakeError
            As of :meth:`read`.
        ChangedError
            It is another one by now.
        """
        if self.is_s3:
            return self._get(identity.key, identity.fingerprint.removeprefix("etag:"))
        data = self.read(identity.key)
        self.check_unchanged(identity)
        if len(data) != identity.size:
            raise ChangedError(f"{identity.key} in {self.uri} changed since it was listed")
        return data

    def check_unchanged(self, identity: FileIdentity) -> None:
        """Raise ChangedError where a local file is not the one that was listed; one that is gone was not changed."""
        if self.is_s3:
            return
        try:
            state = os.lstat(self.path(identity.key))
        except OSError:
            return
        if _identity(identity.key, state) != identity:
            raise ChangedError(f"{identity.key} in {self.uri} changed since it was listed")

    def path(self, key: str) -> Path:
        """Return where a local file is.

        Raises
        ------
        LakeError
            Its key leads out of the landing zone.
        """
        folder = Path(self.uri)
        path = folder / key
        try:
            is_inside = path.resolve().is_relative_to(folder.resolve())
        except (OSError, RuntimeError) as error:
            # A link that leads to itself leads nowhere.
            raise LakeError(f"{key} in {self.uri} cannot be read: {error}") from error
        if not is_inside:
            raise LakeError(f"{key} leads out of {self.uri}")
        return path

    # -- folders -----------------------------------------------------------------------------------------

    def _entries(self) -> Iterator[LandedFile | RefusedEntry]:
        if not os.path.lexists(self.uri):
            return
        try:
            # The landing zone may itself be a link.
            found = _scan(os.open(self.uri, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError as error:
            raise LakeError(f"{self.uri} cannot be listed: {error}") from error
        yield from self._below("", found, ())

    def _below(self, prefix: str, found: _Folder, above: tuple[tuple[int, int], ...]) -> Iterator[Any]:
        """Yield what lies in a folder that is open, and close it."""
        try:
            above = (*above, found.place)
            for name in sorted(found.names):
                if _is_hidden(name):
                    continue
                key = f"{prefix}{name}"
                try:
                    state = os.stat(name, dir_fd=found.descriptor, follow_symlinks=False)
                except FileNotFoundError:
                    continue  # taken away since it was listed
                except OSError as error:
                    yield _unreachable(key, error)
                    continue
                if stat.S_ISDIR(state.st_mode):
                    yield from self._folder(name, key, state, found.descriptor, above)
                elif not name.endswith(_TEMPORARY_ENDS):
                    yield _judged(key, state, name, found.descriptor, Path(self.uri))
        finally:
            os.close(found.descriptor)

    def _folder(
        self, name: str, key: str, state: os.stat_result, parent: int, above: tuple[tuple[int, int], ...]
    ) -> Iterator[LandedFile | RefusedEntry]:
        shown = f"{printable_key(key)}/"
        modified = time_of(state.st_mtime_ns)
        if (state.st_dev, state.st_ino) in above:
            yield RefusedEntry(shown, "folder_loop: it is a folder that holds it", "take the mount away", 0, modified)
            return
        if len(above) > MAX_DEPTH:
            yield RefusedEntry(
                shown, f"folder_too_deep: more than {MAX_DEPTH} folders above it", "move its files up", 0, modified
            )
            return
        try:
            found = _scan(os.open(name, _NO_WAIT | os.O_DIRECTORY, dir_fd=parent))
        except FileNotFoundError:
            return
        except OSError as error:
            yield RefusedEntry(
                shown,
                f"folder_cannot_be_listed: {error.strerror or error}",
                "let the platform's user list it; its files are read as soon as it can be listed",
                0,
                modified,
            )
            return
        yield from self._below(f"{key}/", found, above)

    # -- S3 ----------------------------------------------------------------------------------------------

    def _objects(self) -> Iterator[LandedFile | RefusedEntry]:
        bucket, prefix = self._place()
        try:
            pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            for page in pages:
                for entry in page.get("Contents", ()):
                    judged = _judged_object(entry, str(entry["Key"]).removeprefix(prefix))
                    if judged is not None:
                        yield judged
        except Exception as error:
            raise LakeError(f"{self.uri} cannot be listed: {error}") from error

    def _get(self, key: str, etag: str = "") -> bytes:
        """Return an object's bytes; with its etag, of that version alone."""
        bucket, prefix = self._place()
        condition = {"IfMatch": f'"{etag}"'} if etag else {}
        try:
            return bytes(self._client().get_object(Bucket=bucket, Key=prefix + key, **condition)["Body"].read())
        except Exception as error:
            response = getattr(error, "response", None) or {}
            code = response.get("Error", {}).get("Code")
            if code == "PreconditionFailed" or response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 412:
                raise ChangedError(f"{key} in {self.uri} changed since it was listed") from error
            if code == "InvalidObjectState":
                raise LakeError(f"{key} in {self.uri} is archived ({error}); restore it in S3") from error
            raise LakeError(f"{key} in {self.uri} cannot be read: {error}") from error

    def _place(self) -> tuple[str, str]:
        bucket, _, prefix = self.uri.removeprefix("s3://").partition("/")
        return bucket, f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""

    def _client(self) -> Any:
        """Return the client; to make one takes longer than to read a small file."""
        from finance_assets.providers.aws_clients import make_limited_client

        if not self._clients:
            self._clients.append(
                make_limited_client("s3", region=self.s3.region, endpoint=self.s3.endpoint_url, seconds=LIST_SECONDS)
            )
        return self._clients[0]


# -- one entry ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder that is open, which file it is, and the names in it."""

    descriptor: int
    place: tuple[int, int]
    names: Sequence[str]


def _scan(descriptor: int) -> _Folder:
    try:
        state = os.fstat(descriptor)
        with os.scandir(descriptor) as entries:
            return _Folder(descriptor, (state.st_dev, state.st_ino), [entry.name for entry in entries])
    except BaseException:
        os.close(descriptor)
        raise


def _judged(key: str, state: os.stat_result, name: str, folder: int, zone: Path) -> LandedFile | RefusedEntry:
    """Return what an entry that is no folder is taken for."""
    modified = time_of(state.st_mtime_ns)

    def refused(reason: str, what_to_do: str = _MOVE_IT) -> RefusedEntry:
        return RefusedEntry(printable_key(key), reason, what_to_do, state.st_size, modified)

    if stat.S_ISLNK(state.st_mode):
        return refused(f"symbolic_link: {_of_link(key, name, folder, zone)}", "put the file itself in its place")
    kind = irregular_kind(state.st_mode)
    if kind is not None:
        return refused(f"not_a_file: it is {kind}")
    complaint = _complaint_of_key(key)
    if complaint is not None:
        return refused(*complaint)
    if state.st_size > MAX_FILE_BYTES:
        return refused(
            f"too_large: {state.st_size:,} bytes", f"split it into files of at most {MAX_FILE_BYTES:,} bytes"
        )
    if is_sparse(state):
        return refused(
            f"sparse_file: {state.st_blocks * 512:,} of its {state.st_size:,} bytes are on the disk",
            "send it again, complete",
        )
    if (
        os.access in os.supports_dir_fd
        and os.access in os.supports_effective_ids
        and not os.access(name, os.R_OK, dir_fd=folder, effective_ids=True)
    ):
        return refused(
            f"cannot_be_opened: {os.strerror(errno.EACCES)}",
            "let the platform's user read it; it is read as soon as it can be opened",
        )
    return LandedFile(_identity(key, state), modified, time_of(state.st_ctime_ns))


def _judged_object(entry: dict[str, Any], key: str) -> LandedFile | RefusedEntry | None:
    """Return what an object of S3 is taken for; None for what is nobody's data."""
    size = int(entry["Size"])
    modified = entry["LastModified"].astimezone(UTC)
    if not key or (key.endswith("/") and not size):
        return None  # a folder, as consoles make them
    parts = key.split("/")
    is_relative = any(part in (".", "..") for part in parts)
    if parts[-1].endswith(_TEMPORARY_ENDS) or any(_is_hidden(part) for part in parts if part not in (".", "..")):
        return None
    complaint: tuple[str, str] | None
    if is_relative:
        complaint = ("relative_key: a part of it is . or ..", _MOVE_IT)
    elif key.endswith("/"):
        complaint = ("folder_with_bytes: a key that ends in / stands for a folder", _MOVE_IT)
    elif size > MAX_FILE_BYTES:
        complaint = _too_large(size)
    else:
        complaint = _complaint_of_key(key)
    if complaint is not None:
        return RefusedEntry(printable_key(key), *complaint, size, modified)
    etag = str(entry["ETag"]).strip('"')
    return LandedFile(FileIdentity(key, size, f"etag:{etag}"), modified)


def _complaint_of_key(key: str) -> tuple[str, str] | None:
    """Return why a key cannot be stored, and what to do; None where it can be."""
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        return "name_is_not_utf8: its bytes are no text", "give it a name in UTF-8"
    if length > MAX_KEY_BYTES:
        return f"name_too_long: {length:,} bytes", f"give it a path of at most {MAX_KEY_BYTES:,} bytes"
    if "\0" in key:
        return "name_cannot_be_stored: it holds a zero byte", _MOVE_IT
    return None


def _too_large(size: int) -> tuple[str, str]:
    return f"too_large: {size:,} bytes", f"split it into files of at most {MAX_FILE_BYTES:,} bytes"


def _of_link(key: str, name: str, folder: int, zone: Path) -> str:
    """Say where a link leads; nothing behind it is opened."""
    try:
        state = os.stat(name, dir_fd=folder)
    except FileNotFoundError:
        return "what it leads to is not there"
    except OSError as error:
        return "it leads to itself" if error.errno == errno.ELOOP else f"it leads nowhere ({error.strerror})"
    try:
        is_inside = (zone / key).resolve().is_relative_to(zone.resolve())
    except (OSError, RuntimeError, ValueError):
        is_inside = False
    if not is_inside:
        return "it leads out of the landing zone"
    return "it leads to a folder" if stat.S_ISDIR(state.st_mode) else "it leads to another file"


def _unreachable(key: str, error: OSError) -> RefusedEntry:
    return RefusedEntry(
        printable_key(key),
        f"cannot_be_opened: {error.strerror or error}",
        "let the platform's user read it; it is read as soon as it can be opened",
    )


def _identity(key: str, state: os.stat_result) -> FileIdentity:
    return FileIdentity(key, state.st_size, f"mtime:{state.st_mtime_ns}")


def time_of(nanoseconds: int) -> datetime:
    """Return a file's time in whole microseconds; one that no timestamp holds as the nearest that one does."""
    try:
        found = _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return _LAST_TIME if nanoseconds > 0 else _FIRST_TIME
    return min(max(found, _FIRST_TIME), _LAST_TIME)


def printable_key(key: str) -> str:
    r"""Return a key as text that can be stored and shown: what is no visible character as ``\x..`` or ``\u....``.

    A backslash is doubled where anything was escaped, so that no two keys look alike.
    """
    escaped = "".join(_escaped(letter) for letter in key)
    return key if escaped == key else "".join("\\\\" if letter == "\\" else _escaped(letter) for letter in key)


def _escaped(letter: str) -> str:
    if 0xDC80 <= (code := ord(letter)) <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"  # a byte that is no text
    if unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return letter
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_", "~$"))
