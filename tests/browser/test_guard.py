"""The browser tests' own guard: what a reader would not see at once is a complaint all the same."""

import pytest

WRONG = {
    "an error told to the console": ("console: lost", "console.error('lost')"),
    "an error of the page": ("page: lost", "setTimeout(() => { throw new Error('lost'); })"),
    "something asked for from outside": (
        "asked for https://example.org/lost.js",
        "fetch('https://example.org/lost.js').catch(() => 0)",
    ),
    "a socket to the outside": ("asked for wss://x.org/lost", "new WebSocket('wss://x.org/lost')"),
}
HIDDEN = {
    "an observer called by the page": "slider.observe(lambda change: int('lost'), 'value')",
    "a thread": "import threading; threading.Timer(0.1, int, ('lost',)).start()",
    "an Output": "import ipywidgets\nwith ipywidgets.Output():\n    int('lost')",
    "a run that nobody waits for": "from xmalign_lab.widgets import LiveRun\ndef steps():\n    int('lost')\n    yield\n"
    "live = LiveRun()\nlive.run(steps())",
}


def test_what_goes_wrong_out_of_sight_is_a_complaint(opened):
    lab = opened(["import ipywidgets\nslider = ipywidgets.IntSlider(description='n')\nslider"], "guard").run()
    view = lab.output("slider", plots=0)
    assert lab.complaints == []
    for what, (told, script) in WRONG.items():
        lab.page.evaluate(f"() => {{ {script} }}")
        lab.page.wait_for_timeout(300)
        assert any(complaint.startswith(told) for complaint in lab.complaints), what
    for what, code in HIDDEN.items():
        lab._told.clear()
        lab.page.evaluate("bench.heard.length = 0")
        lab.python(code)
        if "observer" in what:
            view.locator("[role=slider]").press("ArrowRight")
        lab.page.wait_for_timeout(500)
        lab.python("")
        complaints = lab.complaints
        assert any("hidden" in complaint and "'lost'" in complaint.replace("&#x27;", "'") for complaint in complaints), what
    lab.python("live._said.value = ''")
    lab._told.clear()
    lab.page.evaluate("bench.heard.length = 0")


def test_a_cell_that_raises_fails_its_run(opened):
    lab = opened(["1 / 0", "2"], "raises")
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        lab.run()
    assert lab.complaints == ["hidden: cell 1: ZeroDivisionError: division by zero"]
    lab.page.evaluate("jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
