"""Errors that fail no cell are found all the same: each kind in a notebook of its own, run as `make test-notebooks` runs them."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from bench.hidden_errors import STATE, hidden_errors

ROOT = Path(__file__).resolve().parent.parent
BEGIN = """import asyncio, comm, gc, ipywidgets, threading
def sent(widget, **data):  # what the page would send, handed over as the kernel does when a message arrives, between cells
    message = {"content": {"comm_id": widget.comm.comm_id, "data": data}, "buffers": []}
    asyncio.get_running_loop().call_later(0.1, comm.get_comm_manager().comm_msg, None, None, message)
class Own: comm = comm.create_comm(target_name="own")
"""
# Each calls WRONG, which is int(its name): none of them makes a cell fail.
FAILING = {
    "output": "out = ipywidgets.Output()\nwith out: WRONG\nout",
    "capture": "out = ipywidgets.Output()\n@out.capture()\ndef f(): WRONG\nf()\nout",
    "interact": "ipywidgets.interact(lambda x: WRONG, x=3);",
    "interactive_output": "ipywidgets.interactive_output(lambda x: WRONG, {'x': ipywidgets.IntSlider()})",
    "thread": "t = threading.Thread(target=lambda: WRONG)\nt.start()\nt.join()",
    "thread that dies when its cell is over": "threading.Timer(0.3, lambda: WRONG).start()",
    "observer called by the page": "slider = ipywidgets.IntSlider()\nslider.observe(lambda change: WRONG, 'value')\n"
    "sent(slider, method='update', state={'value': 7}, buffer_paths=[])",
    "button clicked in the page": "button = ipywidgets.Button()\nbutton.on_click(lambda _: WRONG)\n"
    "sent(button, method='custom', content={'event': 'click'})",
    "message callback": "button = ipywidgets.Button()\nbutton.on_msg(lambda *_: WRONG)\n"
    "sent(button, method='custom', content={})",
    "a comm of one's own": "Own.comm.on_msg(lambda _: WRONG)\nsent(Own)",
    "task": "async def lose(): WRONG\nasyncio.create_task(lose());",
    "finaliser": "class Held:\n    def __del__(self): WRONG\nheld = Held()\ndel held",
    "a run nobody waits for": "from xmalign_lab.widgets import LiveRun\ndef steps():\n    WRONG\n    yield\n"
    "live = LiveRun()\nlive.run(steps())\nlive\n===\nlive._thread.join(20)",
}
FINE = """print('begun')
===
#raises-exception
WRONG
===
try:
    WRONG
except ValueError as error:
    print(error)
===
import threading
threading.Thread(target=int, args=('3',)).start()
assert not [name for name in dir() if 'listen' in name], 'the tests leave no name in the notebook'"""


def notebook(code):
    cells = [new_code_cell(part.strip("\n")) for part in code.split("===")]
    for cell in cells:
        first, _, rest = cell.source.partition("\n")
        if first.startswith("#"):
            cell.source, cell.metadata["tags"] = rest, [first[1:]]
    return new_notebook(cells=cells)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """{notebook: what nbmake and the plugin said of it, '' where it passed}, as `make test-notebooks` calls them."""
    folder = tmp_path_factory.mktemp("notebooks")
    (folder / "pytest.ini").write_text("[pytest]\n")
    parts = [BEGIN, *FAILING.values(), "await asyncio.sleep(1)\ngc.collect()"]
    names = ["begin", *FAILING, "end"]
    loud = "\n===\n".join(code.replace("WRONG", f"int({name!r})") for name, code in zip(names, parts, strict=True))
    nbformat.write(notebook(loud), folder / "loud.ipynb")
    nbformat.write(notebook(FINE.replace("WRONG", "int('on purpose')")), folder / "fine.ipynb")
    plugins = ["-p", "bench.hidden_errors", "-p", "no:cacheprovider", "--nbmake", "--overwrite", "--junitxml=told.xml"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    run = [sys.executable, "-m", "pytest", "-q", *plugins, "."]
    subprocess.run(run, cwd=folder, capture_output=True, env=environment | {"PYTHONPATH": str(ROOT)})
    cases = list(ElementTree.parse(folder / "told.xml").getroot().iter("testcase"))
    failures = ["".join(part.text or "" for part in case if part.tag in ("failure", "error")) for case in cases]
    return dict(zip((case.get("name") for case in cases), failures, strict=True))


@pytest.mark.parametrize("name", FAILING)
def test_an_error_that_fails_no_cell_fails_the_notebook(told, name):
    text = next(text for name, text in told.items() if "loud" in name)
    assert text.startswith("hidden errors"), "no cell failed"
    assert f"ValueError: invalid literal for int() with base 10: {name!r}" in text


def test_what_is_shown_on_purpose_passes(told):
    assert [text for name, text in told.items() if "fine" in name] == [""]


def test_hidden_errors_are_found_in_streams_and_widget_state():
    quiet = new_notebook(cells=[new_code_cell("x", outputs=[new_output("stream", text="fine")])])
    assert hidden_errors(quiet) == []
    thread = new_output("stream", name="stderr", text="Exception in thread Thread-5:\nTraceback …\nValueError: late\n")
    error = new_output("error", ename="KeyError", evalue="'x'", traceback=[])
    states = {"abc": {"outputs": [dict(error)]}, "def": {"value": 3}, "fine": {"_model_name": "HTMLModel", "value": "Errors: 3"}}
    states["run"] = {"_model_name": "HTMLModel", "value": "<span>failed <b>ZeroDivisionError: by 0</b></span>"}
    loud = new_notebook(
        cells=[
            new_code_cell("x", outputs=[thread]),
            new_code_cell("y", metadata={"tags": ["raises-exception"]}, outputs=[error]),
        ],
        metadata={"widgets": {STATE: {"state": {name: {"state": state} for name, state in states.items()}}}},
    )
    expected = ["cell 1: ValueError: late", "widget abc: KeyError: 'x'", "widget run: ZeroDivisionError: by 0"]
    assert hidden_errors(loud) == expected
