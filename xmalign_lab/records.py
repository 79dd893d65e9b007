"""Records: one folder per run, the only source of any number shown anywhere.

`runs/<key>/` holds recipe.json, env.json, steps.parquet, scores.parquet, edits.jsonl, state.*, aligner.* and DONE. The key
hashes the recipe, the data and the library's own source as far as the run can reach it, so that changed code never finds
stale results, and a new method leaves the records of the others alone.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from xmalign_lab import profile

# Source that draws, compares or checks, and cannot change what is recorded
SHOWN_ONLY = (
    "plots.py", "spaces.py", "selections.py", "dials.py", "curves.py", "pictures.py", "style.py", "widgets", "cli.py",
    "doctor.py", "lessons.py", "game.py", "naming.py",
    "evaluate/report.py", "evaluate/significance.py", "corpora/check.py", "corpora/review.py",
)  # fmt: skip


@dataclass(frozen=True)
class Record:
    """A finished run's folder, read lazily."""

    folder: Path

    @property
    def key(self) -> str:
        return self.folder.name

    @property
    def recipe(self) -> dict:
        return json.loads((self.folder / "recipe.json").read_text())

    @property
    def environment(self) -> dict:
        """Versions, machine, threads, date, seconds taken, and the inputs that the key hashes."""
        return json.loads((self.folder / "env.json").read_text())

    @property
    def steps(self) -> pd.DataFrame:
        """One row per training step: step, epoch, progress, tau, learning_rate, one column per term."""
        return pd.read_parquet(self.folder / "steps.parquet")

    @property
    def scores(self) -> pd.DataFrame:
        """One row per query: query, family, lang, direction, gallery, size, rank."""
        return pd.read_parquet(self.folder / "scores.parquet")

    @property
    def edits(self) -> list[dict]:
        """What was changed while the run ran, in order."""
        path = self.folder / "edits.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def get_or_run(
    recipe, run: Callable[[Path], None], inputs: Iterable[str] = (), root: Path | None = None, module: str = ""
) -> Record:
    """The record of `recipe` on `inputs` (content hashes of features and pairs), made by `run(folder)` if there is none.

    `module` names the one whose source, with all that it imports, decides what `run` does; without it all of the library does.

    `recipe` needs `to_json()`. `run` fills the folder, and finds there what an interrupted run left. DONE is written
    last: a folder without it is never believed. A lock lets two processes ask for one run; the second waits.
    """
    root = Path(root or profile.runs_root())
    root.mkdir(parents=True, exist_ok=True)
    inputs = list(inputs)
    key = _digest([recipe.to_json(), *inputs, source_hash(module)])[:16]
    folder = root / key
    if (folder / "DONE").exists():
        return Record(folder)
    with FileLock(root / f".{key}.lock"):
        if not (folder / "DONE").exists():
            folder.mkdir(exist_ok=True)
            started = datetime.now(UTC)
            (folder / "recipe.json").write_text(recipe.to_json())
            run(folder)
            seconds = (datetime.now(UTC) - started).total_seconds()
            facts = environment() | {
                "inputs": inputs,
                "started": started.isoformat(timespec="seconds"),
                "seconds": round(seconds, 2),
            }
            (folder / "env.json").write_text(json.dumps(facts, indent=2))
            (folder / "DONE").write_text("")
    return Record(folder)


def environment() -> dict:
    """What a reader needs to know of the machine: versions, processor, threads."""
    import torch

    packages = ("torch", "numpy", "scipy", "scikit-learn", "scikit-image", "pandas")
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "device": str(profile.device()),
    }


@cache
def source_hash(module: str = "") -> str:
    """Hash of the source that can change a result: what `module` reaches, or all of the library but what only shows results."""
    here = Path(__file__).parent
    if module:
        files = reached(module) | set(here.rglob("*.csv"))
    else:
        files = {path for kind in ("*.py", "*.csv") for path in here.rglob(kind)}
        files = {p for p in files if not {p.relative_to(here).parts[0], p.relative_to(here).as_posix()} & set(SHOWN_ONLY)}
    files = {path.relative_to(here).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return _digest(f"{name} {digest}" for name, digest in sorted(files.items()))


def reached(module: str, here: Path = Path(__file__).parent) -> set[Path]:
    """The files of the package `here` that `module`, a dotted name, imports anywhere, over others too, and its own."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        path = here.parent.joinpath(*waiting.pop().split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if path in found or here not in path.parents or not path.exists():
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def frame_hash(frame: pd.DataFrame) -> str:
    """Content hash of a table's values, in order: for pairs."""
    return hashlib.sha256(np.ascontiguousarray(pd.util.hash_pandas_object(frame, index=False)).tobytes()).hexdigest()


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
