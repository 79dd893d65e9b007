"""Fetch one file over HTTP: resumed where it broke off, checked, unpacked beside its place, which it takes when whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from http.client import HTTPException
from pathlib import Path, PureWindowsPath
from urllib.request import Request, urlopen

from xmalign_lab.corpus import CorpusError


def fetch(url: str, sha256: str, folder: Path) -> Path:
    """Bring the content of the tar or zip archive at `url` into `folder`, which must not exist.

    What has arrived waits in `.fetching/NAME.part` beside the folder, and the next call goes on from there. Raises
    `CorpusError` if the transfer fails, if the checksum differs (the file is removed), if the archive is damaged or has a
    member that is a link, a device or could leave the folder.
    """
    if folder.exists():
        raise CorpusError(f"{folder} is there already, without the files of its source; move it away and fetch again")
    part = folder.parent / ".fetching" / f"{folder.name}.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    _download(url, part)
    try:
        with open(part, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise CorpusError(f"{url} is not what was published: its SHA-256 is {found}, not {sha256}; it was removed")
        with tempfile.TemporaryDirectory(dir=part.parent) as work:
            _unpack(part, Path(work) / "ready")
            os.replace(Path(work) / "ready", folder)
    finally:
        part.unlink()
    return folder


def _download(url: str, part: Path) -> None:
    """Append what is missing of `part`; start again where the server cannot resume. Progress is shown."""
    from tqdm.auto import tqdm

    have = part.stat().st_size if part.exists() else 0
    try:
        with urlopen(Request(url, headers={"Range": f"bytes={have}-"} if have else {}), timeout=60) as answer:
            have = have if answer.status == 206 else 0
            whole = have + int(answer.headers.get("Content-Length") or 0)
            with open(part, "ab" if have else "wb") as file:
                with tqdm.wrapattr(file, "write", total=whole, initial=have, desc=f"fetching {part.stem}") as counted:
                    shutil.copyfileobj(answer, counted)
    except (OSError, HTTPException) as error:
        if getattr(error, "code", None) == 416:  # the server has nothing beyond what is here: the checksum tells
            return
        raise CorpusError(f"{url} could not be fetched ({error}); run it again to go on from where it stopped") from None
    if part.stat().st_size < whole:
        raise CorpusError(f"{url} broke off after {part.stat().st_size:,} of {whole:,} bytes; run it again to go on")


def _unpack(archive: Path, into: Path) -> None:
    """Unpack a tar or zip archive if all of its members stay inside."""
    try:
        if tarfile.is_tarfile(archive):
            packed = tarfile.open(archive)
            packed.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 has it
            members = [(member.name, member.isfile() or member.isdir()) for member in packed.getmembers()]
        else:
            packed = zipfile.ZipFile(archive)
            members = [(member.filename, not stat.S_ISLNK(member.external_attr >> 16)) for member in packed.infolist()]
        with packed:
            for member, plain in members:
                path = PureWindowsPath(member)  # it takes both slashes for separators, as some system or other does
                if path.anchor or ".." in path.parts or not plain:
                    raise CorpusError(f"the archive's member {member!r} could leave the folder; nothing of it is kept")
            packed.extractall(into)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, RuntimeError) as error:
        raise CorpusError(f"{archive.name}: the archive cannot be unpacked ({error}); nothing of it is kept") from None
