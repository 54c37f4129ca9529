"""One writer at a time: the right to write some tables of a lake, across processes, machines and Dagster instances.

What belongs here: taking that right, keeping it, and finding out that it is lost. Dagster's pools order the runs of one
instance; two instances, a command line with another DAGSTER_HOME, or two laptops on one bucket share nothing but the
lake. So the right lies in the lake, ``_locks/<name>/<token>.json``, and not in the ledger, of which they may have two.
Of a right that was given back a folder, or an object that says so, keeps the number.

- A claim is a file (an object) that is made exclusively; its number, the token, is one more than that of the claim
  before. Whoever made the newest claim holds the right.
- The holder keeps its claim: locally by the system's lock on the file, which ends with the process however it ends,
  and everywhere by touching it every few seconds. A claim that nobody keeps is followed by the next one: at once where
  the lock is gone, or the process is (same machine), and else when it was not touched for the length of a lease,
  measured by whoever waits. No clock is compared with another.
- Before each commit the holder asks whether its claim is still the newest. A process that was stopped for longer than
  the lease finds a newer one, fails, and writes nothing any more.

Between that question and the rename or the request that follows it lies a moment in which a process may be stopped all
the same. What it then commits late is either made exclusively (append-only tables), so that it replaces nothing, or is
computed anew by every run.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Protocol

from finance_assets.storage.lake import LOCKS_FOLDER, Lake, LakeError
from finance_assets.storage.lake.local_files import NO_LINKS, lock_file, make_folder, open_temporary_file
from finance_assets.text import safe_logger

if TYPE_CHECKING:
    from finance_assets.contracts.model import Contract
    from finance_assets.storage.s3_objects import S3Objects

log = safe_logger(__name__)

#: How often a claim is touched, as a part of the lease; within twice that part nobody can have followed it.
TOUCHES = 4
FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 1.0
#: How often a wait is told of.
TELL_SECONDS = 15.0
SUFFIX = ".json"


class WriterBusyError(LakeError):
    """Another process kept the right to write for as long as could be waited; nothing was written."""


class WriterLostError(LakeError):
    """Another process has taken the right to write over; nothing is written by this one any more."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a claim.

    Attributes
    ----------
    host, pid
        Machine and process.
    run
        Dagster's id of the run, where it is one.
    since
        When it was claimed, by the clock of that machine, in UTC.
    boot, namespace, started
        What makes the number of a process unique: the start of the machine, the space of process numbers, and the
        start of the process; empty where the system does not tell.
    nonce
        Makes each claim another one.
    """

    host: str
    pid: int
    run: str
    since: str
    boot: str
    namespace: str
    started: str
    nonce: str

    def __str__(self) -> str:
        """Say who, for people."""
        run = f", run {self.run}" if self.run else ""
        return f"process {self.pid} on {self.host}{run}, since {self.since[:19].replace('T', ' ')} UTC"

    @property
    def is_gone(self) -> bool:
        """Whether the process has certainly ended; False where that cannot be seen from here."""
        boot, namespace, _ = _process(os.getpid())
        if not boot or (self.boot, self.namespace) != (boot, namespace):
            return False
        return _process(self.pid)[2] != self.started


def _process(pid: int) -> tuple[str, str, str]:
    """Return the start of the machine, the space of process numbers, and the start of a process, as Linux tells."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            # The name of the program, in brackets, may hold anything.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return "", "", ""
    # A zombie writes no more.
    started = "" if fields[0] in "ZX" else fields[19]
    try:
        return _boot(), os.readlink(f"/proc/{pid}/ns/pid"), started
    except OSError:
        return _boot(), "", started


@cache
def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _this_process(run: str) -> Holder:
    boot, namespace, started = _process(os.getpid())
    since = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
    return Holder(socket.gethostname(), os.getpid(), run, since, boot, namespace, started, uuid.uuid4().hex)


def _time_with_sleep() -> float:
    """Return seconds that go on while the machine sleeps, where the system has such a clock."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


@dataclass(frozen=True, slots=True)
class Claim:
    """The newest claim as somebody else finds it.

    Attributes
    ----------
    token
        Its number.
    state
        Changes whenever its holder touches it.
    is_free
        Whether nobody keeps it; None where only time can tell.
    holder
        Who made it; None where that cannot be read.
    """

    token: int
    state: str
    is_free: bool | None
    holder: Holder | None


class OwnClaim(Protocol):
    """A claim as its holder keeps it."""

    token: int

    def touch(self) -> bool:
        """Show that the holder lives; return False where the claim is no longer its own."""

    def is_newest(self) -> bool:
        """Whether nobody has followed."""

    def release(self) -> None:
        """Let the next one follow at once."""

    def discard(self) -> None:
        """Take back a claim that came too late."""


class Claims(Protocol):
    """The claims to one right."""

    def newest(self) -> Claim | None:
        """Return the newest claim; None where there is none."""

    def make(self, token: int, holder: Holder) -> OwnClaim | None:
        """Make a claim; None where there is one with that number."""

    def sweep(self, token: int) -> None:
        """Remove old claims before a number."""


def _token(name: str) -> int | None:
    stem = name.removesuffix(SUFFIX)
    return int(stem) if stem.isdigit() else None


def _name(token: int) -> str:
    return f"{token:020d}{SUFFIX}"


def _read_holder(data: bytes) -> Holder | None:
    try:
        return Holder(**json.loads(data)["holder"])
    except (ValueError, TypeError, KeyError):
        return None


# -- in a folder ---------------------------------------------------------------------------------------------


class _FileClaim:
    """A claim as a local file, locked for as long as its descriptor is open in a living process."""

    def __init__(self, folder: str, token: int, descriptor: int) -> None:
        self.token = token
        self._descriptor = descriptor
        self._own = os.path.join(folder, _name(token))
        self._next = os.path.join(folder, _name(token + 1))

    def touch(self) -> bool:
        os.utime(self._descriptor)
        return self.is_newest()

    def is_newest(self) -> bool:
        # In this order: claims are removed oldest first, so where the next one was, this one is gone before it.
        # Where the number was given back already, another one made and used it, and this one came too late.
        if any(os.path.exists(path) for path in (self._next, _given_back(self._next), _given_back(self._own))):
            return False
        try:
            return os.path.samestat(os.stat(self._own), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def discard(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._own)
        os.close(self._descriptor)

    def release(self) -> None:
        try:
            if self.is_newest():
                # The number stays as a folder: what comes next is a higher one, and the lake holds no other file.
                os.makedirs(_given_back(self._own), exist_ok=True)
                os.unlink(self._own)
        finally:
            # Closing it would do, were it not for a child that may have it too.
            with suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)


def _given_back(path: str) -> str:
    """Return the folder that stands for a claim that was given back."""
    return path.removesuffix(SUFFIX)


class _FileClaims:
    """Claims as files of a local folder."""

    def __init__(self, folder: str, temporary_folder: str) -> None:
        self._folder, self._temporary_folder = folder, temporary_folder

    def newest(self) -> Claim | None:
        while True:
            try:
                tokens = [token for name in os.listdir(self._folder) if (token := _token(name)) is not None]
            except FileNotFoundError:
                return None
            if not tokens:
                return None
            path = os.path.join(self._folder, _name(max(tokens)))
            if os.path.isdir(_given_back(path)):
                return Claim(max(tokens), "", True, None)
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                # Shared, so that two who look do not take each other for the holder.
                is_free = lock_file(descriptor, shared=True)
                state = str(os.fstat(descriptor).st_mtime_ns)
                holder = _read_holder(os.pread(descriptor, 1 << 16, 0))
            finally:
                os.close(descriptor)
            return Claim(max(tokens), state, is_free, holder)

    def make(self, token: int, holder: Holder) -> OwnClaim | None:
        make_folder(self._folder)
        path = os.path.join(self._folder, _name(token))
        with open_temporary_file(self._temporary_folder) as (descriptor, temporary):
            # Locked before it has its name: nobody ever sees it free.
            os.write(descriptor, json.dumps({"holder": asdict(holder)}).encode())
            try:
                os.link(temporary, path)
            except FileExistsError:
                return None
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                return self._make_without_links(path, token, holder)
            return _FileClaim(self._folder, token, os.dup(descriptor))

    def _make_without_links(self, path: str, token: int, holder: Holder) -> OwnClaim | None:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        except FileExistsError:
            return None
        lock_file(descriptor)
        os.write(descriptor, json.dumps({"holder": asdict(holder)}).encode())
        return _FileClaim(self._folder, token, descriptor)

    def sweep(self, token: int) -> None:
        for name in sorted(os.listdir(self._folder)):
            found = _token(name)
            if found is not None and found < token:
                path = os.path.join(self._folder, name)
                with suppress(FileNotFoundError):
                    if name.endswith(SUFFIX):
                        os.unlink(path)
                    else:
                        os.rmdir(path)


# -- on S3 ---------------------------------------------------------------------------------------------------


class _ObjectClaim:
    """A claim as an object, replaced by its holder on the condition that it is still the holder's."""

    def __init__(self, objects: S3Objects, folder: str, token: int, holder: Holder, etag: str) -> None:
        self.token = token
        self._objects, self._holder, self._etag = objects, holder, etag
        self._own, self._next = (f"{folder}/{_name(number)}" for number in (token, token + 1))
        self._touches = 0
        self._changing = threading.Lock()

    def touch(self) -> bool:
        return self._replace(released=False) and self.is_newest()

    def is_newest(self) -> bool:
        return not self._objects.exists(self._next) and self._objects.exists(self._own)

    def discard(self) -> None:
        self._objects.remove(self._own)

    def release(self) -> None:
        self._replace(released=True)

    def _replace(self, *, released: bool) -> bool:
        with self._changing:
            self._touches += 1
            data = _object(self._holder, touches=self._touches, released=released)
            etag = self._objects.replace(self._own, data, self._etag)
            if etag is None:
                try:
                    theirs, now = self._objects.read(self._own)
                except FileNotFoundError:
                    return False
                if theirs != data:
                    return False
                # The answer to our own request was lost, and the request sent again.
                etag = now
            self._etag = etag
            return True


class _ObjectClaims:
    """Claims as objects below a prefix of S3."""

    def __init__(self, objects: S3Objects, folder: str) -> None:
        self._objects, self._folder = objects, folder

    def newest(self) -> Claim | None:
        while True:
            tokens = [token for name in self._objects.names(self._folder) if (token := _token(name)) is not None]
            if not tokens:
                return None
            try:
                data, etag = self._objects.read(f"{self._folder}/{_name(max(tokens))}")
            except FileNotFoundError:
                continue
            holder = _read_holder(data)
            is_free = holder is not None and (bool(json.loads(data).get("released")) or holder.is_gone)
            return Claim(max(tokens), etag, True if is_free else None, holder)

    def make(self, token: int, holder: Holder) -> OwnClaim | None:
        path, data = f"{self._folder}/{_name(token)}", _object(holder)
        try:
            etag = self._objects.create(path, data)
        except FileExistsError:
            # Ours, where the answer was lost and the request sent again.
            theirs, etag = self._objects.read(path)
            if theirs != data:
                return None
        else:
            # A service that ignores the condition has let somebody replace it, or us replace somebody.
            theirs, etag = self._objects.read(path)
            if theirs != data:
                return None
        return _ObjectClaim(self._objects, self._folder, token, holder, etag)

    def sweep(self, token: int) -> None:
        for name in self._objects.names(self._folder):
            found = _token(name)
            if found is not None and found < token:
                self._objects.remove(f"{self._folder}/{name}")


def _object(holder: Holder, *, touches: int = 0, released: bool = False) -> bytes:
    return json.dumps({"holder": asdict(holder), "touches": touches, "released": released}).encode()


# -- the right -----------------------------------------------------------------------------------------------


class Writer:
    """The right to write some tables, while it lasts.

    Attributes
    ----------
    name
        What the right is called.
    token
        Number of the claim; it grows from holder to holder.
    """

    def __init__(self, lake: Lake, name: str, tables: Iterable[Contract], claim: OwnClaim) -> None:
        self.name, self.token = name, claim.token
        self._claim, self._is_s3, self._lease = claim, lake.is_s3, lake.writers.lease_seconds
        self._folders = tuple(f"{lake.folder(table)}/" for table in tables)
        self._is_lost = False
        self._touched = _time_with_sleep()
        self._ended = threading.Event()
        self._release_lock = threading.Lock()
        self._guarding = ExitStack()
        self._guarding.enter_context(lake.guard_commits(self.guard))
        self._keeper = threading.Thread(target=self._keep, name=f"writer-{name}", daemon=True)
        self._keeper.start()

    def check(self) -> None:
        """Raise unless this process still has the right.

        Raises
        ------
        WriterLostError
            Another process has taken it over.
        """
        if not self._is_lost:
            # On S3 each question costs a request; nobody follows within the lease.
            if self._is_s3 and _time_with_sleep() - self._touched < 2 * self._lease / TOUCHES:
                return
            self._is_lost = not (self._touch() if self._is_s3 else self._claim.is_newest())
        if self._is_lost:
            raise WriterLostError(
                f"another process has taken over writing {self.name}: this one (claim {self.token}) did not show for "
                f"{self._lease:g} seconds that it lives, as when a machine sleeps. It writes nothing any more; what it "
                "wrote before is whole. Run again: a run goes on where this one ended"
            )

    def guard(self, path: str) -> None:
        """Check where a path is of the tables of this right."""
        if path.startswith(self._folders):
            self.check()

    def release(self) -> None:
        """Give the right back; more than once does no harm."""
        with self._release_lock:
            if self._ended.is_set():
                return
            self._ended.set()
        self._guarding.close()
        self._keeper.join()
        try:
            self._claim.release()
        except OSError as error:
            log.warning("the right to write %s was not given back (%s); it ends with its lease", self.name, error)

    def _touch(self) -> bool:
        began = _time_with_sleep()
        is_own = self._claim.touch()
        if is_own:
            self._touched = began
        return is_own

    def _keep(self) -> None:
        while not self._ended.wait(self._lease / TOUCHES):
            try:
                if not self._touch():
                    self._is_lost = True
                    return
            except OSError as error:
                log.warning("the right to write %s could not be renewed: %s", self.name, error)


def claims_of(lake: Lake, name: str) -> Claims:
    """Return the claims to one right of a lake."""
    folder = f"{lake.root}/{LOCKS_FOLDER}/{name}"
    return _ObjectClaims(lake.s3_objects, folder) if lake.is_s3 else _FileClaims(folder, lake.temporary_folder)


@contextmanager
def single_writer(
    lake: Lake,
    name: str,
    tables: Iterable[Contract],
    *,
    run: str = "",
    tell: Callable[[str], object] | None = None,
) -> Iterator[Writer]:
    """Hold the right to write some tables of a lake while the block lasts; nobody else writes them meanwhile.

    What is read to be written again is read inside the block. Each commit to one of the tables, by any thread of the
    process and any :class:`Lake` of the same address, checks that the right still holds.

    Parameters
    ----------
    lake
        The lake; its ``writers`` say how long is waited.
    name
        What the right is called; whoever writes one of the tables uses the same name.
    tables
        The tables.
    run
        Dagster's id of the run, for those who wait.
    tell
        Told what is waited for, at once and then now and again; by default it is logged.

    Raises
    ------
    WriterBusyError
        Another process kept the right for as long as could be waited.
    WriterLostError
        From a commit: another process has taken over.
    """
    _release_abandoned(lake, name)
    with lake.explain_s3_errors("locking", f"{lake.root}/{LOCKS_FOLDER}/{name}"):
        claim = _claim(lake, name, run, tell or log.warning)
    writer = Writer(lake, name, tables, claim)
    _held[lake.root, name] = (threading.get_ident(), writer)
    try:
        yield writer
    finally:
        writer.release()


#: Rights of this process, by lake and name, with the thread that took each.
_held: dict[tuple[str, str], tuple[int, Writer]] = {}


def _release_abandoned(lake: Lake, name: str) -> None:
    """Give back a right that this thread took before and never gave back.

    A step that fails while Dagster writes its result is a generator that nobody closes; it may live until the garbage
    is collected, and the same thread is at another step by then.
    """
    thread, writer = _held.get((lake.root, name), (0, None))
    if writer is not None and thread == threading.get_ident():
        writer.release()


def _claim(lake: Lake, name: str, run: str, tell: Callable[[str], object]) -> OwnClaim:
    """Wait for the right, and take it."""
    claims = claims_of(lake, name)
    began = seen_since = time.monotonic()
    seen: tuple[int, str] | None = None
    told = -TELL_SECONDS
    pause = FIRST_PAUSE_SECONDS
    while True:
        newest = claims.newest()
        now = time.monotonic()
        if newest is not None and seen != (newest.token, newest.state):
            seen, seen_since = (newest.token, newest.state), now
        is_stopped = newest is not None and now - seen_since >= lake.writers.lease_seconds
        if newest is None or newest.is_free or is_stopped or _is_gone(newest):
            token = 1 if newest is None else newest.token + 1
            made = claims.make(token, _this_process(run))
            if made is None:
                continue
            # Others may have come and gone since the claims were listed.
            now_newest = claims.newest()
            if now_newest is None or now_newest.token > token or not made.is_newest():
                made.discard()
                continue
            if newest is not None and is_stopped and not newest.is_free:
                tell(f"taking over writing {name} from {_who(newest)}: it shows no sign of life")
            if newest is not None:
                claims.sweep(token)
            return made
        if now - began >= lake.writers.wait_seconds:
            raise WriterBusyError(
                f"{name} is being written by {_who(newest)}; waited {now - began:.0f} s for it "
                "(FINANCE_ASSETS_WRITER_WAIT_SECONDS). Nothing was written: run again when it has ended"
            )
        if now - told >= TELL_SECONDS:
            told = now
            tell(f"waiting to write {name}, for {now - began:.0f} s so far: it is being written by {_who(newest)}")
        time.sleep(min(pause, max(began + lake.writers.wait_seconds - now, 0)))
        pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)


def _is_gone(claim: Claim) -> bool:
    """Whether the process of a claim has ended, where no lock of the system says so."""
    return claim.is_free is None and claim.holder is not None and claim.holder.is_gone


def _who(claim: Claim) -> str:
    return str(claim.holder or f"somebody (claim {claim.token} cannot be read)")
