"""Smoke, small or full: the size of a run, its seed, its device and its folders, in one place.

The environment decides: `XMALIGN_PROFILE` (smoke | small | full), `XMALIGN_DATA`, `XMALIGN_CACHE`, `XMALIGN_RUNS`.
"""

from __future__ import annotations

import csv
import ctypes
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch costs a second; naming a profile must not
    import torch

PROFILES = ("smoke", "small", "full")


def current() -> str:
    """The profile named by `XMALIGN_PROFILE`, else `small`. Raises `ValueError` for an unknown name."""
    name = os.environ.get("XMALIGN_PROFILE") or "small"
    if name not in PROFILES:
        raise ValueError(f"XMALIGN_PROFILE={name!r} is no profile; use one of {', '.join(PROFILES)}")
    return name


def pick(*, smoke, small, full):
    """The value for the current profile; the three stand side by side in a notebook's parameters cell."""
    return {"smoke": smoke, "small": small, "full": full}[current()]


def csv_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV that comes with the library."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def device() -> torch.device:
    """CUDA where there is one, else the CPU. Not MPS, on which nothing here was ever run."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def keep_memory() -> None:
    """Let glibc keep freed memory for the next step instead of handing it back. Does nothing elsewhere.

    A training step frees and asks for the same tens of megabytes again, and the kernel clears each page anew: this took
    a quarter of a step's time. Numbers do not change.
    """
    if platform.libc_ver()[0] == "glibc":
        libc, largest = ctypes.CDLL(None), 2**31 - 1
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, largest)  # M_TRIM_THRESHOLD


def repository() -> Path:
    """The checkout that holds this package, or the one above the working folder, or the working folder itself."""
    here = Path.cwd()
    for folder in (Path(__file__).resolve().parent.parent, here, *here.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "xmalign_lab").is_dir():
            return folder
    return here


def built(*names: str) -> Path:
    """Where `build/NAMES…` of the checkout lies or will lie; its folder is made."""
    path = repository().joinpath("build", *names)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _folder(variable: str, default: str) -> Path:
    given = os.environ.get(variable)
    return Path(given).expanduser().resolve() if given else repository() / default


def data_root() -> Path:
    """Where fetched data lie: `XMALIGN_DATA`, else `data/` of the checkout."""
    return _folder("XMALIGN_DATA", "data")


def cache_root() -> Path:
    """Where encoded features lie: `XMALIGN_CACHE`, else `.cache/` of the checkout."""
    return _folder("XMALIGN_CACHE", ".cache")


def runs_root() -> Path:
    """Where runs are recorded: `XMALIGN_RUNS`, else `runs/` of the checkout."""
    return _folder("XMALIGN_RUNS", "runs")
