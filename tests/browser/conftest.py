"""JupyterLab in Chromium: skipped with a reason where one of both is missing, unless XMALIGN_BROWSER=required.

What is left in build/browser: pictures and their index.html, budget.json, the saved notebooks, the server's log.
"""

import html
import json
import os
import shutil
import time
from importlib.util import find_spec

import pytest
from lab import BUILD, CHROMIUM, LOCAL, ROOT, SCRIPT, Notebook, Server

from xmalign_lab.records import environment

VIEW = {"width": 1280, "height": 1300}
_measured, _servers = [], []


@pytest.fixture(scope="session")
def browser():
    missing = [name for name in ("playwright", "jupyterlab") if not find_spec(name)] + ["Chromium"] * (CHROMIUM is None)
    if missing:
        why = f"browser tests need {' and '.join(missing)}; make test-browser installs the packages, Chromium is yours to install"
        (pytest.fail if os.environ.get("XMALIGN_BROWSER") == "required" else pytest.skip)(why)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # No name but ours is resolved, so that what asks for one is seen and gets nothing.
        rules = "MAP * ~NOTFOUND, " + ", ".join(f"EXCLUDE {name}" for name in LOCAL)
        options = ["--no-sandbox", "--use-angle=swiftshader", f"--host-resolver-rules={rules}"]
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def server(browser, tmp_path_factory):
    shutil.rmtree(BUILD, ignore_errors=True)
    server = Server(tmp_path_factory.mktemp("lab"))
    _servers.append(server)
    yield server
    server.stop()


@pytest.fixture
def opened(server, browser):
    """`opened("03")` opens and returns a copy of a notebook; `opened(code, name)` one made of cells. Complaints fail the test."""
    contexts, notebooks = [], []

    def open_one(notebook, name=None, cells=slice(None), **view):
        if isinstance(notebook, str) and notebook.isdigit():
            notebook = next((ROOT / "notebooks").glob(f"{notebook}_*.ipynb"))
        context = browser.new_context(**{"viewport": VIEW, **view})
        context.add_init_script(SCRIPT)
        contexts.append(context)
        notebooks.append(Notebook(server, context, notebook, name or notebook.stem, cells))
        return notebooks[-1]

    yield open_one
    complaints = [complaint for notebook in notebooks for complaint in notebook.complaints]
    for notebook in notebooks:
        shutil.copy(notebook.path, BUILD)
        notebook.close()
    for context in contexts:
        context.close()
    if complaints:
        pytest.fail("\n".join(dict.fromkeys(complaints)), pytrace=False)


@pytest.fixture
def picture(request):
    """`picture(locator, "name")` keeps a picture of it in build/browser."""

    def keep(what, name):
        page = what.page
        if (height := what.bounding_box()["height"] + 300) > VIEW["height"]:  # what is out of sight would be grey
            page.set_viewport_size({**page.viewport_size, "height": int(height)})
            what.scroll_into_view_if_needed()
            page.wait_for_timeout(500)
        what.screenshot(path=BUILD / f"{name}.png", animations="disabled")
        page.set_viewport_size({**page.viewport_size, "height": VIEW["height"]})
        what.scroll_into_view_if_needed()

    return keep


@pytest.fixture
def budget():
    """`budget("what", [values], limit, unit)` keeps the median of what was measured, to be told beside its limit."""

    def keep(what, values, limit, unit="ms"):
        values = sorted(values if isinstance(values, list) else [values])
        row = {"what": what, "measured": round(values[len(values) // 2], 3), "limit": limit, "unit": unit}
        _measured.append(row | {"worst": round(values[-1], 3), "n": len(values)})
        return row["measured"]

    return keep


def pytest_terminal_summary(terminalreporter):
    if not _measured:
        return
    terminalreporter.section("interaction budget, measured in the browser")
    for row in _measured:
        kept = "kept" if row["measured"] <= row["limit"] else "BROKEN"
        line = "{what:54} {measured:>9,.4g} of {limit:,} {unit:4} {kept:6} (worst of {n}: {worst:,.4g})"
        terminalreporter.line(line.format(kept=kept, **row))


def pytest_sessionfinish():
    if not _servers:
        return
    where = {"machine": environment()["machine"], "date": time.strftime("%Y-%m-%d"), "load": round(os.getloadavg()[1], 1)}
    (BUILD / "budget.json").write_text(json.dumps(where | {"rows": _measured}, indent=1) + "\n")
    pictures = sorted(path.name for path in BUILD.glob("*.png"))
    shown = "".join(f'<h2>{html.escape(name[:-4])}</h2><img src="{html.escape(name)}" alt="">\n' for name in pictures)
    look = "<style>body{font-family:sans-serif;margin:2em}img{max-width:100%;border:1px solid #ccc}</style>"
    (BUILD / "index.html").write_text(f'<!doctype html><meta charset="utf-8"><title>Browser tests</title>{look}\n{shown}')
