"""`make demo`: execute notebooks 00-08, build the gallery, print the results table. `make gallery` (--all): every notebook.

`XMALIGN_PROFILE` chooses the size (default small). Ends with status 1 if a notebook fails, naming it, the cell and the
error; the others still run, and the gallery shows those that did. With --all, a notebook that has run well in this size
since its cells and the library last changed is not run again.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this file is run as a script, and `bench` is no installed package
from bench import gallery  # noqa: E402
from bench.hidden_errors import hidden_errors  # noqa: E402

NOTEBOOKS, EXECUTED, LIBRARY = ROOT / "notebooks", ROOT / "build" / "executed", ROOT / "xmalign_lab"
RESULT_NOTEBOOK = "06_"
# Seconds, so that a hanging cell ends the demo instead of the reader's patience. An output may come as late: nbclient gives up
# on it after four seconds, silently, and on a busy machine a notebook would lose its answer.
CELL_LIMIT = 600


@contextmanager
def ticking(status):
    """Print `status()` while the body runs: every second over itself on a terminal, every 20 seconds in a log."""
    terminal, done = sys.stdout.isatty(), threading.Event()

    def tick():
        while not done.wait(1 if terminal else 20):
            print(("\r\033[K" if terminal else "  ") + status(), end="" if terminal else "\n", flush=True)

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()
        print("\r\033[K" if terminal else "", end="", flush=True)


def execute(path: Path, title: str) -> tuple[NotebookNode, str]:
    """Run one notebook in its own folder; return it with its outputs, and what went wrong ('' if nothing did)."""
    notebook = nbformat.read(path, as_version=4)
    code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    at = {"cell": code[0] if code else 0}
    client = NotebookClient(
        notebook,
        timeout=CELL_LIMIT,
        iopub_timeout=CELL_LIMIT,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.extra_arguments = ["--IPKernelApp.log_level=ERROR"]  # it warns about local ports in every notebook
    client.on_cell_execute = lambda cell, cell_index: at.update(cell=cell_index)
    start, problem = time.monotonic(), ""

    def status() -> str:
        number = sum(i <= at["cell"] for i in code)
        return f"{title}: cell {number}/{len(code)}, {time.monotonic() - start:.0f} s"

    with ticking(status):
        try:
            client.execute()
        except (CellExecutionError, CellTimeoutError, RuntimeError) as error:
            # a RuntimeError: the kernel died, or never started
            said = f"{error.ename}: {error.evalue}" if isinstance(error, CellExecutionError) else str(error).splitlines()[0]
            first = (notebook.cells[at["cell"]].source.strip() or "empty").splitlines()[0]
            problem = f"cell {at['cell'] + 1} ({first[:60]}): {said}"
    if not problem and (hidden := hidden_errors(notebook)):
        problem = hidden[0]
    told = {"seconds": round(time.monotonic() - start, 1), "problem": problem}
    notebook.metadata["xmalign"] = gallery.circumstances() | told
    return notebook, problem


def library() -> str:
    """SHA-256 over names and contents of all files of the library: a page shows its views and widgets as well as its numbers."""
    digest = hashlib.sha256()
    for file in sorted(file for file in LIBRARY.rglob("*") if file.is_file() and "__pycache__" not in file.parts):
        digest.update(f"{file.relative_to(LIBRARY).as_posix()} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def executed(path: Path) -> bool:
    """Whether the copy in `EXECUTED` ran well, in this profile, with the cells and the library that there are now."""
    try:
        copy = nbformat.read(EXECUTED / path.name, as_version=4)
    except (OSError, ValueError):  # none, or half of one
        return False
    told, cells = copy.metadata.get("xmalign", {}), nbformat.read(path, as_version=4).cells
    same = [cell.source for cell in cells] == [cell.source for cell in copy.cells]
    same &= told.get("profile") == os.environ["XMALIGN_PROFILE"] and told.get("library") == library()
    return same and not told.get("problem", "unknown")


def result_table(notebook: NotebookNode) -> str:
    """The text of the last output of the cell tagged `result`; '' if there is none."""
    for cell in notebook.cells:
        if "result" in cell.metadata.get("tags", []):
            texts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.get("outputs", [])]
            return next((text for text in reversed(texts) if text), "")
    return ""


def main(everything: bool = False) -> int:
    os.environ.setdefault("XMALIGN_PROFILE", "small")
    paths = sorted(NOTEBOOKS.glob("*.ipynb" if everything else "0[0-8]_*.ipynb"))
    if not paths:
        print(f"no notebooks {'' if everything else '00-08 '}in {NOTEBOOKS}")
        return 1
    EXECUTED.mkdir(parents=True, exist_ok=True)
    print(f"{len(paths)} notebooks in the profile {os.environ['XMALIGN_PROFILE']!r}; executed copies go to build/executed/")
    failures, table, start = [], "", time.monotonic()
    for number, path in enumerate(paths, 1):
        title = f"[{number}/{len(paths)}] {path.stem}"
        if everything and executed(path):
            print(f"{title}: has run already", flush=True)
            continue
        print(f"{title} …", flush=True)
        (EXECUTED / path.name).unlink(missing_ok=True)
        began_with = library()  # what is changed while the notebook runs must count as changed since
        notebook, problem = execute(path, title)
        notebook.metadata.xmalign["library"] = began_with
        nbformat.write(notebook, EXECUTED / path.name)
        print(f"{title}: {'FAILED, ' + problem if problem else 'ok'}, {notebook.metadata.xmalign.seconds:.0f} s", flush=True)
        if problem:
            failures.append(f"{path.name}, {problem}")
        if path.name.startswith(RESULT_NOTEBOOK):
            table = result_table(notebook)
    failed = {failure.split(",")[0] for failure in failures}
    try:
        page = gallery.build([EXECUTED / path.name for path in paths if path.name not in failed])
    except gallery.GalleryError as error:
        print(f"gallery: {error}")
        return 1
    if table:
        print(f"\n{table}\n")
    size = f"{gallery.weight(page.parent) / 1e6:.1f} of {gallery.MOST_BYTES / 1e6:.0f} MB"
    print(f"{time.monotonic() - start:.0f} s in all; open {page.relative_to(ROOT)} ({size})")
    for failure in failures:
        print(f"FAILED: {failure}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main("--all" in sys.argv[1:]))
