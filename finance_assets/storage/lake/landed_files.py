"""Landed bytes: files as they were delivered, stored below ``landing/`` under their sha256."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from finance_assets.storage.lake import local_files
from finance_assets.storage.lake.files import SAFE_KEY, LakeFiles
from finance_assets.storage.lake.model import LANDING_FOLDER, LakeError, StagedFile

if TYPE_CHECKING:
    from pathlib import Path

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SAFE_SUFFIX = re.compile(r"(\.[A-Za-z0-9]+)*")


class LandedFiles(LakeFiles):
    """The landing zone of a lake."""

    def land(self, data: bytes, *parts: str, suffix: str = "", digest: str | None = None) -> str:
        """Store bytes as they are, under their sha256; return the sha256.

        Parameters
        ----------
        data
            The bytes.
        parts
            Folders below ``landing/``, such as the domain and the provider.
        suffix
            File ending, such as ``.json``.
        digest
            The sha256, where it is known already.
        """
        digest = digest or hashlib.sha256(data).hexdigest()
        path = self.landed_path(digest, *parts, suffix=suffix)
        # A second writer has the same bytes, so the file need not be created exclusively.
        if not self.exists(path):
            self.put(path, data)
        return digest

    @contextmanager
    def stage_file(self, file: Path) -> Iterator[StagedFile]:
        """Copy a local file into a lake on the same machine, to be read there and stored under its sha256.

        The copy cannot be changed by whoever delivered the file. A copy that is not kept is removed.

        Parameters
        ----------
        file
            The file.

        Raises
        ------
        LakeError
            The file cannot be read, there is no space for it, or the lake is on S3.
        """
        if self.is_s3:
            raise LakeError(f"{file} cannot be staged in a lake on S3; land its bytes")
        with local_files.open_temporary_file(self.temporary_folder) as (descriptor, temporary):
            try:
                # Where it can, the kernel copies without passing the bytes through this process.
                shutil.copyfile(file, temporary)
            except OSError as error:
                raise LakeError(f"{file} cannot be copied into {self.root}: {error.strerror or error}") from error

            def keep(digest: str, *parts: str) -> None:
                path = self.landed_path(digest, *parts)
                if not self.exists(path):
                    local_files.make_folder(os.path.dirname(path))
                    os.fsync(descriptor)
                    os.replace(temporary, path)
                    local_files.sync_folder(os.path.dirname(path))

            yield StagedFile(descriptor, keep)

    def landed_path(self, digest: str, *parts: str, suffix: str = "") -> str:
        """Return the path of landed bytes."""
        for part in parts:
            if not SAFE_KEY.fullmatch(part):
                raise LakeError(f"{part!r} cannot name a landing folder")
        if not _DIGEST.fullmatch(digest) or not _SAFE_SUFFIX.fullmatch(suffix):
            raise LakeError(f"{digest + suffix!r} cannot name landed bytes; their name is their sha256")
        return "/".join((self.root, LANDING_FOLDER, *parts, digest + suffix))
