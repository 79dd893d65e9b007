"""A real JupyterLab in a real browser: its server, a notebook opened in it, and what both are caught at."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from bench.hidden_errors import KERNEL, PLACE, TOLD, hidden_errors

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "browser"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},  # else cells out of sight are not in the page
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
LOCAL = ("127.0.0.1", "localhost")
# The notebook's panel; a stopwatch from the first event of a kind to the frame that shows what it changed; what the kernel sends.
SCRIPT = """
window.bench = {
  panel: () => window.jupyterapp.shell.currentWidget,
  kernel: () => bench.panel().context.sessionContext.session.kernel,
  ready() {
    const context = window.jupyterapp?.shell.currentWidget?.context;
    return context?.isReady && context.sessionContext.isReady && bench.kernel()?.connectionStatus === "connected";
  },
  listen() {
    bench.heard = [];
    bench.kernel().iopubMessage.connect((_, message) => {
      const {content, header, parent_header} = message;
      if (header.msg_type === "error") bench.heard.push({at: performance.now(), kind: "error", of: parent_header.msg_type,
        text: `${content.ename}: ${content.evalue}`});
      if (header.msg_type === "comm_msg") bench.heard.push({at: performance.now(), kind: "comm",
        plot: Object.entries(content.data?.state ?? {}).some(([name, value]) => name.startsWith("_py2js_") && value)});
    });
  },
  async python(code) {
    const said = [];
    const future = bench.kernel().requestExecute({code, store_history: false, stop_on_error: false});
    future.onIOPub = ({header, content}) => {
      if (header.msg_type === "stream") said.push(content.text);
      if (header.msg_type === "error") said.push(content.traceback.join("\\n"));
    };
    const reply = await future.done;
    return [reply.content.status, said.join("")];
  },
  run() { bench.ran = null; jupyterapp.commands.execute("notebook:run-all-cells").then(done => { bench.ran = done; }); },
  busy: () => bench.panel().content.model.sharedModel.cells.some(cell => cell.executionState === "running"),
  watch(element, what, event) {  // what: "plot" for a plotly figure drawn anew, "page" for any change in the element
    const watch = bench.watched = {begun: null, ended: null, frames: []};
    const seen = () => { if (watch.begun !== null) requestAnimationFrame(() => setTimeout(() => {
      watch.ended ??= performance.now(); watch.frames.push(performance.now()); })); };
    document.addEventListener(event, () => { watch.begun ??= performance.now(); }, {capture: true, once: true});
    if (what === "plot") element.on("plotly_afterplot", seen);
    else new MutationObserver(seen).observe(element, {childList: true, subtree: true, attributes: true, characterData: true});
  },
  count(element) { const drawn = bench.drawn = []; element.on("plotly_afterplot", () => drawn.push(performance.now())); },
};
"""


class Server:
    """A JupyterLab of the tests' own on a free port: its folder `root`, its `url`, and its kernels' hidden errors in `told`."""

    def __init__(self, folder: Path):
        self.root, self.log, self.told = folder / "notebooks", BUILD / "server.log", folder / "hidden.txt"
        for part in (self.root, folder / "runtime", BUILD):
            part.mkdir(parents=True, exist_ok=True)
        for name, settings in SETTINGS.items():
            file = folder / "settings" / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(settings))
        own = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "RUNTIME", "DATA")}
        own |= {f"JUPYTERLAB_{name}_DIR": str(folder / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
        options = ["--no-browser", "--allow-root", "--expose-app-in-browser", "--port=0", "--ServerApp.ip=127.0.0.1"]
        options += ["--IdentityProvider.token=", f"--ServerApp.root_dir={self.root}", "--LabApp.extension_manager=readonly"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jupyterlab", *options],
                env=os.environ | own | KERNEL | {PLACE: str(self.told)}, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.url = self._found(folder / "runtime" / f"jpserver-{self.process.pid}.json")

    def _found(self, told: Path, patience: float = 60) -> str:
        """Where the server answers: the file is named after its process, and it must serve our own folder."""
        until = time.monotonic() + patience
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError, json.JSONDecodeError):  # no file yet, half of one, or no answer yet
                server = json.loads(told.read_text())
                with urlopen(f"{server['url']}api/status") as answer:
                    if answer.status == 200 and server["root_dir"] == str(self.root):
                        return server["url"]
            time.sleep(0.1)
        self.stop()
        raise RuntimeError(f"JupyterLab did not start, or another server answers:\n{self.log.read_text()[-2000:]}")

    def hidden(self) -> list[str]:
        """What kernels told since the last call, and tracebacks in the server's log."""
        lines = self.told.read_text(encoding="utf-8").splitlines() if self.told.exists() else []
        self.told.unlink(missing_ok=True)
        return lines

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Notebook:
    """A copy of a notebook, open in the browser with its kernel connected; `complaints` is what went wrong so far.

    Python runs in the notebook's own kernel by `python(code)`, what it printed is returned, and `value(expression)`, as JSON
    knows it. `cell(source)` is the cell that holds such a text, `output(source)` what it shows.
    """

    def __init__(self, server: Server, context, notebook, name: str, cells: slice = slice(None)):
        self.server, self.name, self._told = server, name, []
        if not isinstance(notebook, Path):
            code = notebook if isinstance(notebook, list) else [notebook]
            kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
            self.notebook = new_notebook(cells=[new_code_cell(source) for source in code], metadata=kernel)
        else:
            self.notebook = nbformat.read(notebook, as_version=4)
        self.notebook.cells = self.notebook.cells[cells]
        self.path = server.root / f"{name}.ipynb"
        nbformat.write(self.notebook, self.path)
        self.page = context.new_page()
        self.page.on("console", lambda said: said.type == "error" and self._told.append(f"console: {said.text}"))
        self.page.on("pageerror", lambda error: self._told.append(f"page: {error}"))
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.on("websocket", lambda socket: self._asked(socket.url))
        self.page.goto(f"{server.url}lab/tree/{name}.ipynb?reset")
        self.page.wait_for_function("bench.ready()", timeout=60_000)
        self.page.evaluate("bench.listen()")
        self.page.evaluate("jupyterapp.commands.execute('application:toggle-left-area')")

    def _asked(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob", "about") and parts.hostname not in LOCAL:
            self._told.append(f"asked for {url}")

    def run(self, patience: float = 400) -> Notebook:
        """Run all cells and wait until the last has ended. `AssertionError` with its message if one raised."""
        self.page.evaluate("bench.run()")
        self.page.wait_for_function("bench.ran !== null", timeout=1000 * patience)
        errors = [f"{out.ename}: {out.evalue}" for cell in self.model().cells for out in cell.get("outputs", [])
                  if out.output_type == "error"]  # fmt: skip
        assert self.page.evaluate("bench.ran"), f"{self.name}: {errors}"
        return self

    def python(self, code: str) -> str:
        status, said = self.page.evaluate("code => bench.python(code)", code)
        assert status == "ok", said
        return said.rstrip("\n")

    def value(self, expression: str):
        return json.loads(self.python(f"import json as _json; print(_json.dumps({expression}, default=float))"))

    def wait(self, expression: str, patience: float = 40) -> None:
        """Until a Python expression is true. `AssertionError` if it never is."""
        until = time.monotonic() + patience
        while not self.value(f"bool({expression})"):
            assert time.monotonic() < until, f"never came true: {expression}"
            self.page.wait_for_timeout(50)

    def model(self):
        """The notebook as JupyterLab holds it now, outputs and all."""
        return nbformat.from_dict(self.page.evaluate("bench.panel().context.model.toJSON()"))

    def cell(self, source: str):
        """The cell whose code ends in, or else holds, `source`."""
        found = [n for n, cell in enumerate(self.notebook.cells) if cell.source.endswith(source)]
        found = found or [n for n, cell in enumerate(self.notebook.cells) if source in cell.source]
        assert found, f"{self.name} has no cell with {source!r}"
        return self.page.locator(".jp-Notebook .jp-Cell").nth(found[0])

    def output(self, source: str, plots: int = 1):
        """What that cell shows, scrolled to, once all its widgets and at least so many plots are drawn."""
        output = self.cell(source).locator(".jp-Cell-outputArea")
        output.locator(".jupyter-widgets").first.wait_for(timeout=60_000)
        drawn = """([area, plots]) => { const all = [...area.querySelectorAll(".js-plotly-plot")];
            return all.length >= plots && all.every(plot => plot._fullData?.length && plot.calcdata?.length); }"""
        self.page.wait_for_function(drawn, arg=[output.element_handle(), plots], timeout=60_000)
        output.scroll_into_view_if_needed()
        return output

    def save(self) -> Path:
        """Save as Ctrl+S does."""
        self.page.evaluate("jupyterapp.commands.execute('docmanager:save')")
        self.page.wait_for_function("!bench.panel().context.model.dirty", timeout=60_000)
        return self.path

    def timed(self, element, act, event: str, what: str = "plot", patience: float = 40) -> float:
        """Milliseconds from the first `event` that `act()` causes to the frame in which `element` has changed for it."""
        element.evaluate("(element, [what, event]) => bench.watch(element, what, event)", [what, event])
        act()
        self.page.wait_for_function("bench.watched.ended !== null", timeout=1000 * patience)
        return self.page.evaluate("bench.watched.ended - bench.watched.begun")

    def opens(self, source: str, patience: float = 60) -> float:
        """Milliseconds from running that cell (anew) to the frame that shows its plot."""
        script = """async (cell, patience) => {
            const panel = bench.panel(), cells = [...panel.node.querySelectorAll(".jp-Notebook .jp-Cell")];
            panel.content.deselectAll(); panel.content.activeCellIndex = cells.indexOf(cell);
            await jupyterapp.commands.execute("notebook:clear-cell-output");
            const frame = () => new Promise(requestAnimationFrame), begun = performance.now();
            jupyterapp.commands.execute("notebook:run-cell");
            const drawn = () => cell.querySelector(".js-plotly-plot")?.calcdata?.length && cell.querySelector(
                ".js-plotly-plot .gl-canvas, .js-plotly-plot .scatterlayer .trace");
            while (!drawn() && performance.now() < begun + patience) await frame();
            await frame(); await frame();
            return drawn() ? performance.now() - begun : null; }"""
        took = self.cell(source).evaluate(script, 1000 * patience)
        assert took is not None, "no plot appeared"
        return took

    def still(self, quiet: float = 0.3, patience: float = 40) -> None:
        """Wait until the kernel has taken in what the page sent, and has sent nothing to a widget for `quiet` seconds."""
        until, heard = time.monotonic() + patience, -1
        while (now := self.page.evaluate("bench.heard.length")) != heard:
            assert time.monotonic() < until, "the kernel goes on sending"
            heard = now
            self.page.wait_for_timeout(1000 * quiet)
            self.python("")

    @property
    def complaints(self) -> list[str]:
        heard = self.page.evaluate("bench.heard.filter(m => m.kind === 'error' && m.of !== 'execute_request').map(m => m.text)")
        words = "[w.value for w in __import__('ipywidgets').widgets.widget._instances.values() if w._model_name == 'HTMLModel']"
        told = [told for text in self.value(words) for told in TOLD.findall(text)]
        hidden = [*heard, *told, *hidden_errors(self.model()), *self.server.hidden()]
        return self._told + [f"hidden: {error}" for error in hidden]

    def close(self) -> None:
        self.page.evaluate("bench.panel().context.sessionContext.shutdown()")
        self.page.close()
