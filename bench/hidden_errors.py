"""Errors that an executed notebook hides: raised inside a widget's Output or a thread, they fail no cell.

`hidden_errors(notebook)` finds them. As a pytest plugin (`-p bench.hidden_errors`, with nbmake's --overwrite) it turns
them into failures.
"""

from __future__ import annotations

import nbformat
import pytest
from nbformat import NotebookNode

SIGNS = ("Exception in thread", "Traceback (most recent call last)")
STATE = "application/vnd.jupyter.widget-state+json"


def hidden_errors(notebook: NotebookNode) -> list[str]:
    """One line per error output or traceback in the cells and in the saved widget state; [] if there is none.

    A cell tagged `raises-exception` shows a wrong call on purpose and may.
    """
    found = []
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "code" and "raises-exception" not in cell.metadata.get("tags", []):
            found += [f"cell {number}: {problem}" for problem in _problems(cell.get("outputs", []))]
    widgets = notebook.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    for name, widget in widgets.items():
        found += [f"widget {name}: {problem}" for problem in _problems(widget.get("state", {}).get("outputs") or [])]
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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """After nbmake has run a notebook without a complaint, look through what it wrote."""
    result = yield
    if getattr(item, "nbmake", False):
        from nbmake.nb_result import NotebookError, NotebookResult
        from nbmake.pytest_items import NotebookFailedException

        notebook = nbformat.read(item.filename, as_version=4)
        if found := hidden_errors(notebook):
            error = NotebookError(summary=found[0], trace="hidden errors:\n" + "\n".join(found), failing_cell_index=0)
            raise NotebookFailedException(NotebookResult(nb=notebook, error=error))
    return result
