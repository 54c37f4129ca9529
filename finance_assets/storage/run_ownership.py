"""Which process executes a run, whether that process is alive, and what to do with a run whose process is gone.

What belongs here: the lock that a process holds on each run that it executes, and ending the runs that nobody holds.
A run's record in Dagster outlives its process, and so does its slot in a pool. A lock of the operating system does
not: the kernel releases it at the process's end, however that comes about, and no other process can inherit it by
having the same number.

Each run has a file in ``<DAGSTER_HOME>/run_locks``. Whoever works on the run holds a shared lock (``flock``) on it; a
file on which an exclusive lock can be taken belongs to a run that nobody executes any more.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from dagster._core.storage.event_log.base import EventLogStorage

LOCK_FOLDER = "run_locks"
#: Tag of a run that was ended because its process was gone.
DEAD_TAG = "finance_assets/process_gone"
#: A run that was launched this long ago and has no process yet is given up. The launcher holds the run until its
#: process has begun, and that process takes the lock within milliseconds.
LAUNCH_GRACE_SECONDS = 15.0
#: Locks that one process keeps before it looks which of them belong to runs that have ended.
KEPT_LOCKS = 64
#: A run in one of these has a process, or is about to get one. A queued run waits for the daemon and has none.
_HAS_A_PROCESS = (
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
_HELD: dict[Path, int] = {}
_HELD_GUARD = threading.Lock()


@dataclass(frozen=True, slots=True)
class RunHolder:
    """The process that took the lock of a run first.

    Attributes
    ----------
    pid, host
        The process and its machine.
    command
        What it was started as, in a few words.
    since
        When it took the lock, UTC.
    """

    pid: int
    host: str
    command: str
    since: datetime

    def __str__(self) -> str:
        """Return ``<command> (process <pid> on <host>), since <time>``."""
        return f"{self.command} (process {self.pid} on {self.host}), since {self.since:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True, slots=True)
class DeadRun:
    """A run whose process ended without recording an end.

    Attributes
    ----------
    run_id, job_name
        The run.
    status
        What it was recorded as when it was found.
    holder
        Its process, where it is known.
    """

    run_id: str
    job_name: str
    status: dg.DagsterRunStatus
    holder: RunHolder | None = None

    @property
    def message(self) -> str:
        """What is recorded as the reason of the run's end."""
        of_whom = f" of {self.holder}" if self.holder else ""
        return (
            f"The process{of_whom} ended without recording the end of the run: it was killed, or the machine stopped. "
            "The run is marked as ended and its slots in pools are free; start it again, every step can be repeated."
        )


# -- holding a run -----------------------------------------------------------------------------------------------------


def hold_run(home: str | os.PathLike[str], run_id: str) -> None:
    """Hold a run until this process ends, or until :func:`release_run`. Holding it again changes nothing.

    Parameters
    ----------
    home
        Folder of the Dagster instance.
    run_id
        The run.
    """
    path = _lock_path(home, run_id)
    with _HELD_GUARD:
        if path in _HELD:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not inheritable: a command that a step starts must not keep the run alive after its process.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if not os.fstat(descriptor).st_size:
            os.pwrite(descriptor, _description(), 0)
        _HELD[path] = descriptor
    end_on_hangup()


def release_run(home: str | os.PathLike[str], run_id: str) -> None:
    """Release a run that this process holds, after its end was recorded."""
    with _HELD_GUARD:
        descriptor = _HELD.pop(_lock_path(home, run_id), None)
    if descriptor is not None:
        os.close(descriptor)


@contextmanager
def held_run(home: str | os.PathLike[str], run_id: str) -> Iterator[None]:
    """Hold a run for the length of a block."""
    hold_run(home, run_id)
    try:
        yield
    finally:
        release_run(home, run_id)


def held_runs() -> list[str]:
    """Return the runs that this process holds."""
    with _HELD_GUARD:
        return [path.name for path in _HELD]


def is_held(home: str | os.PathLike[str], run_id: str) -> bool | None:
    """Tell whether a process holds a run; None where no process ever did, so that nothing can be told."""
    try:
        descriptor = os.open(_lock_path(home, run_id), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        # Another descriptor of the same process counts as another holder, so this also sees our own runs.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def holder_of(home: str | os.PathLike[str], run_id: str) -> RunHolder | None:
    """Return the process that held a run first, dead or alive; None where it is not known."""
    try:
        found = json.loads(_lock_path(home, run_id).read_bytes())
        return RunHolder(
            int(found["pid"]), str(found["host"]), str(found["command"]), datetime.fromisoformat(found["since"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def end_on_hangup() -> None:
    """Let the end of the terminal (SIGHUP) end this process as Ctrl-C does, so that a run can record its end.

    A process that ignores the signal, as under ``nohup``, goes on ignoring it. Outside the main thread nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        # Dagster replaces the handler of Ctrl-C while a run goes on: whichever is in force then is used.
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGINT))


def _lock_path(home: str | os.PathLike[str], run_id: str) -> Path:
    return Path(home) / LOCK_FOLDER / run_id


def _description() -> bytes:
    """Return this process as JSON."""
    name = Path(sys.argv[0]).name if sys.argv and sys.argv[0] not in ("", "-c", "-m") else "python"
    words = [name, *sys.argv[1:2]] if name == "finance-assets" else ["Dagster"]
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps(
        {"pid": os.getpid(), "host": socket.gethostname(), "command": " ".join(words), "since": since}
    ).encode()


# -- ending runs that nobody holds -------------------------------------------------------------------------------------


def end_dead_runs(instance: dg.DagsterInstance) -> list[DeadRun]:
    """Mark the runs whose process is gone as ended, and free the slots that they hold in pools.

    A run that was to be canceled is marked as canceled, any other as failed. A run of which no process ever took the
    lock is left to Dagster's run monitoring, unless the process that its events name is gone. Slots and places in a
    pool's queue that belong to a run that has ended, or to none, are freed as well.

    Parameters
    ----------
    instance
        A Dagster instance with a folder on this machine.

    Returns
    -------
    list of DeadRun
        The runs that were ended, oldest first.
    """
    home = instance.root_directory
    dead = []
    for run in reversed(list(instance.get_runs(dg.RunsFilter(statuses=list(_HAS_A_PROCESS))))):
        if not _is_dead(instance, home, run):
            continue
        # It may have ended by itself between the two looks.
        now = instance.get_run_by_id(run.run_id)
        if now is None or now.is_finished:
            continue
        found = DeadRun(run.run_id, run.job_name, now.status, holder_of(home, run.run_id))
        mark_as_dead(instance, now)
        if now.status is dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(now, found.message)
        else:
            instance.report_run_failed(now, found.message)
        dead.append(found)
    free_slots_without_owner(instance)
    _forget_ended_runs(instance, home)
    return dead


def mark_as_dead(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Tag a run whose process is gone; what failed by itself and what was killed are treated differently."""
    instance.add_run_tags(run.run_id, {DEAD_TAG: "true"})


def run_is_alive(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Tell whether a run may still do something: a process holds it, or nothing proves that its process is gone."""
    return not _is_dead(instance, instance.root_directory, run)


def _is_dead(instance: dg.DagsterInstance, home: str, run: dg.DagsterRun) -> bool:
    held = is_held(home, run.run_id)
    if held is None:
        return run.status is dg.DagsterRunStatus.STARTED and _named_process_is_gone(instance, run)
    if held:
        return False
    if run.status in (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING):
        return True
    # The launcher has let go, and the run's process is about to take over.
    with suppress(FileNotFoundError):
        return time.time() - _lock_path(home, run.run_id).stat().st_mtime > LAUNCH_GRACE_SECONDS
    return False


def _named_process_is_gone(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the process that a run's events name does not exist, or began after the run did.

    For runs that began before there were locks, or under another event log than ours. They are of this machine: the
    records of a SQLite instance are in its folder.
    """
    if type(instance.event_log_storage).__name__ not in ("BatchedSqliteEventLogStorage", "SqliteEventLogStorage"):
        return False
    events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    for event in reversed(list(events)):
        entry = event.dagster_event.engine_event_data.metadata.get("pid") if event.dagster_event else None
        if entry is not None:
            began = _start_of(int(str(entry.value)))
            return began is None or began > event.timestamp + 1
    return False


def _start_of(pid: int) -> float | None:
    """Return when a process began, Unix time; None where there is no such process, 0 where it cannot be told."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return 0.0
    try:
        # The 22nd field is the start in clock ticks since boot; the name before it may hold spaces and brackets.
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    except (OSError, ValueError, IndexError, StopIteration):
        return 0.0
    return int(boot.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")


def free_slots_without_owner(instance: dg.DagsterInstance, *pools: str) -> list[str]:
    """Free the slots of runs that have ended, or that are not recorded at all, and that no process holds.

    Parameters
    ----------
    instance
        A Dagster instance with a folder on this machine.
    *pools
        The pools to look at; by default all.

    Returns
    -------
    list of str
        The runs whose slots were freed.
    """
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return []
    freed = []
    for run_id in sorted(_runs_in_pools(storage, pools or tuple(storage.get_concurrency_keys()))):
        run = instance.get_run_by_id(run_id)
        if (run is None or run.is_finished) and not is_held(instance.root_directory, run_id):
            storage.free_concurrency_slots_for_run(run_id)
            freed.append(run_id)
    return freed


def _runs_in_pools(storage: EventLogStorage[Any], pools: tuple[str, ...]) -> set[str]:
    """Return the runs that hold a slot of a pool or wait for one."""
    found: set[str] = set()
    for pool in pools:
        info = storage.get_concurrency_info(pool)
        found |= {slot.run_id for slot in info.claimed_slots} | {step.run_id for step in info.pending_steps}
    return found


def _forget_ended_runs(instance: dg.DagsterInstance, home: str) -> None:
    """Remove the lock files of runs that have ended and that nobody holds."""
    folder = Path(home) / LOCK_FOLDER
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if is_held(home, path.name) is False:
            run = instance.get_run_by_id(path.name)
            if run is not None and run.is_finished:
                path.unlink(missing_ok=True)


def release_ended_runs(instance: dg.DagsterInstance) -> None:
    """Release the runs of this process that have ended, once it holds many: each takes a file descriptor."""
    held = held_runs()
    if len(held) < KEPT_LOCKS:
        return
    for run_id in held:
        run = instance.get_run_by_id(run_id)
        if run is not None and run.is_finished:
            release_run(instance.root_directory, run_id)
