"""Errors that an executed notebook hides: raised inside a widget's Output or a thread, they fail no cell.

`hidden_errors(notebook)` finds those that left a trace in it. As a pytest plugin (`-p bench.hidden_errors`, with nbmake's
--overwrite) it turns them into failures, with those that only the kernel knew of (`bench/loud_kernel.py`).
"""

from __future__ import annotations

import html
import re
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

SIGNS = ("Exception in thread", "Traceback (most recent call last)")
TOLD = re.compile(r"\b[A-Z]\w*(?:Error|Exception|Interrupt|Exit)(?:</?\w+>)?: [^<]*")  # a widget shows what it has caught
STATE = "application/vnd.jupyter.widget-state+json"
KERNEL = {"PYTHONSTARTUP": str(Path(__file__).with_name("loud_kernel.py"))}
PLACE = "XMALIGN_HIDDEN_ERRORS"  # names the file that a loud kernel writes to


def hidden_errors(notebook: NotebookNode) -> list[str]:
    """One line per error output or traceback in the cells and in the saved widget state; [] if there is none.

    A cell tagged `raises-exception` shows a wrong call on purpose and may. Words of a widget that name an error's class
    (`ValueError: …`) are one that nobody raised: a live run that failed while nobody waited for it.
    """
    found = []
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "code" and "raises-exception" not in cell.metadata.get("tags", []):
            found += [f"cell {number}: {problem}" for problem in _problems(cell.get("outputs", []))]
    widgets = notebook.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    for name, widget in widgets.items():
        state = widget.get("state", {})
        found += [f"widget {name}: {problem}" for problem in [*_problems(state.get("outputs") or []), *_told(state)]]
    return found


def _problems(outputs: list) -> list[str]:
    found = []
    for output in outputs:
        text = "".join(output.get("text", ""))
        if output.get("output_type") == "error":
            found.append(f"{output.get('ename')}: {output.get('evalue')}")
        elif output.get("output_type") == "stream" and any(sign in text for sign in SIGNS):
            found.append(text.strip().splitlines()[-1])
    return found


def _told(state: dict) -> list[str]:
    words = state.get("value") if state.get("_model_name") in ("HTMLModel", "LabelModel") else None
    return [html.unescape(told) for told in TOLD.findall(words)] if isinstance(words, str) else []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """After nbmake has run a notebook without a complaint, look through what it wrote, and what its kernel told."""
    if not getattr(item, "nbmake", False):
        return (yield)
    from nbmake.nb_result import NotebookError, NotebookResult
    from nbmake.pytest_items import NotebookFailedException

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        told = Path(folder) / "hidden.txt"
        for name, value in (KERNEL | {PLACE: str(told)}).items():
            patch.setenv(name, value)
        result = yield
        of_kernel = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    notebook = nbformat.read(item.filename, as_version=4)
    if found := hidden_errors(notebook) + [f"kernel: {line}" for line in of_kernel]:
        error = NotebookError(summary=found[0], trace="hidden errors:\n" + "\n".join(found), failing_cell_index=0)
        raise NotebookFailedException(NotebookResult(nb=notebook, error=error))
    return result
