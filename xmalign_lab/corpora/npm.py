"""Fetch pinned npm packages as data: no scripts, no lock file, only the parts in use, checked, all or nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from xmalign_lab.corpus import CorpusError

FLAGS = ("--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--loglevel=error")
OFFLINE = re.compile("ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ENOTCACHED")


def checksum(package: Path, parts: tuple[str, ...]) -> str:
    """SHA-256 over the names and bytes of the files of `package` under `parts`, in order of name."""
    digest = hashlib.sha256()
    files = {path for part in parts for path in [package / part, *(package / part).rglob("*")] if path.is_file()}
    for path in sorted(files, key=lambda path: path.relative_to(package).as_posix()):
        digest.update(f"{path.relative_to(package).as_posix()} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def fault(folder: Path, versions: dict[str, str], parts: dict[str, tuple[str, ...]], sums: dict[str, str]) -> str:
    """What is wrong with the packages `parts` in `folder`, in words; '' if each has its version and its checksum."""
    for package, wanted in parts.items():
        try:
            version = json.loads((folder / package / "package.json").read_text(encoding="utf-8"))["version"]
        except (OSError, ValueError, KeyError):
            return f"{folder / package} is not there"
        if version != versions[package]:
            return f"{folder / package} is version {version}, not {versions[package]}"
        if package in sums and checksum(folder / package, wanted) != sums[package]:
            return f"{folder / package} is not what was published: its checksum differs from the card's"
    return ""


def fetch(folder: Path, versions: dict[str, str], parts: dict[str, tuple[str, ...]], sums: dict[str, str]) -> Path:
    """Bring the packages `parts` (their files to keep, by package) at `versions` into `folder`, unless they are there.

    They are installed and checked in a temporary folder beside it, which then takes its place: a killed or failed
    fetch leaves what was there. Raises `CorpusError` in one line: npm missing, no network, folder not writable, a checksum.
    """
    if not fault(folder, versions, parts, sums):
        return folder
    npm = shutil.which("npm")
    if npm is None:
        raise CorpusError("npm is not installed; install Node.js (which brings npm) and fetch again")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as work:
            _install(npm, Path(work), {package: versions[package] for package in parts})
            ready = _keep(Path(work), parts)
            wrong = fault(ready, versions, parts, sums)
            if wrong:
                raise CorpusError(f"fetched data are not used: {wrong}")
            if folder.exists():
                os.replace(folder, Path(work) / "old")
            os.replace(ready, folder)
    except OSError as error:
        raise CorpusError(f"{folder.parent} cannot be written ({error.strerror}); choose another folder: XMALIGN_DATA") from None
    return folder


def _install(npm: str, work: Path, versions: dict[str, str]) -> None:
    """Run npm in `work`, showing how much has arrived; `CorpusError` with the reason if it fails."""
    from tqdm.auto import tqdm

    (work / "package.json").write_text(json.dumps({"private": True, "dependencies": versions}))
    with open(work / "npm.log", "w+", encoding="utf-8") as log:
        process = subprocess.Popen([npm, "install", *FLAGS, "--prefix", str(work)], cwd=work, stdout=log, stderr=log)
        try:
            with tqdm(desc=f"fetching {len(versions)} packages", unit="B", unit_scale=True) as bar:
                while process.poll() is None:
                    time.sleep(0.2)
                    with suppress(OSError):  # renamed between the listing and the look
                        size = sum(path.lstat().st_size for path in work.rglob("*"))
                        bar.update(max(0, size - bar.n))
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        log.seek(0)
        said = log.read()
    if process.returncode:
        reason = "no network" if OFFLINE.search(said) else (said.strip().splitlines() or ["it gave no reason"])[0]
        raise CorpusError(f"npm could not fetch {', '.join(versions)}: {reason}")


def _keep(work: Path, parts: dict[str, tuple[str, ...]]) -> Path:
    """Move the parts in use, with each package's own package.json, licence and readme, out of npm's tree; return where."""
    ready = work / "ready"
    for package, wanted in parts.items():
        source = work / "node_modules" / package
        beside = [path.name for path in source.glob("*") if re.match("package.json|licen[cs]e|readme", path.name, re.I)]
        for part in (*wanted, *beside):
            if (source / part).exists():
                (ready / package / part).parent.mkdir(parents=True, exist_ok=True)
                os.replace(source / part, ready / package / part)
    return ready
