"""The gallery's pages on notebooks made here; no browser and no kernel is needed."""

import json
import re
from pathlib import Path

import nbformat
import plotly.graph_objects as go
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from bench import demo, gallery
from bench.hidden_errors import STATE, hidden_errors

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
FIRST = "# Losses\n\n> What does $\\tau$ do?\n\n$$L = -\\log \\frac{a}{b}$$\n\nNot `$maths$`, nor $5 and $6.\n"


def shown(data, source="x", tag=None):
    outputs = [new_output("display_data", data)]
    return new_code_cell(source, metadata={"tags": [tag]} if tag else {}, outputs=outputs)


def example(first=FIRST, thumbnail=None, answer="R@1 is **.123** at $\\tau$ = .05"):
    figure = json.loads(go.Figure(go.Scatter(y=[1, 2], name="</script>")).update_layout(title="T", height=333).to_json())
    return new_notebook(
        cells=[
            new_markdown_cell(first),
            shown(thumbnail or {gallery.PLOTLY: figure, "text/plain": "Figure"}, tag="thumbnail"),
            shown({gallery.WIDGET: {"model_id": "1"}, "text/plain": "IntSlider()"}),
            shown({gallery.WIDGET: {"model_id": "2"}, "text/plain": "100%|####| 3/3"}, source="progress"),
            new_markdown_cell("## What we learned\n\nNext: [more](01_more.ipynb) and [absent](09_absent.ipynb)"),
            shown({"text/markdown": answer, "text/plain": "<Markdown>"}, tag="answer"),
        ],
        metadata={"widgets": {STATE: {"state": {"model": {"state": {"value": "saved-widget-state"}}}}}},
    )


@pytest.fixture
def built(tmp_path):
    paths = [tmp_path / "00_first.ipynb", tmp_path / "01_more.ipynb"]
    nbformat.write(example(), paths[0])
    nbformat.write(example("# More\n\n> Why?", {"image/png": PIXEL}), paths[1])
    index = gallery.build(paths, tmp_path / "gallery")
    return index.parent, {file.name: file.read_text(encoding="utf-8") for file in index.parent.glob("*.html")}


def test_pages_ask_nothing_of_a_network_and_links_lead_somewhere(built):
    folder, pages = built
    assert set(pages) == {"index.html", "00_first.html", "01_more.html"}
    for name, text in pages.items():
        asked = re.findall(r"<(?:script|img|iframe|source)[^>]*\bsrc=[\"']([^\"']*)", text)
        asked += re.findall(r"<link[^>]*href=[\"']([^\"']*)", text)
        asked += re.findall(r"(?:import|from)\s*[\"'(]+(https?:[^\"')]*)", text)
        asked += re.findall(r"url\([\"']?(https?:[^\"')]*)", text)
        assert not [url for url in asked if re.match(r"(https?:)?//", url)], name
        local = [url for url in asked + re.findall(r"<a[^>]*href=\"([^\"]*)", text) if not re.match(r"data:|#|https?:", url)]
        assert "plotly.min.js" in local
        missing = [url for url in local if not (folder / url).is_file()]
        assert missing == (["09_absent.ipynb"] if name != "index.html" else []), name
    assert "function" in (folder / "plotly.min.js").read_text(encoding="utf-8")


def test_formulas_become_mathml_outside_code(built):
    text = built[1]["00_first.html"]
    assert text.count("<math") == 3 and 'display="block"' in text  # in the question, on its own, in the answer
    assert "<mfrac>" in text and "$maths$" in text and "nor $5 and $6" in text


def test_figures_are_drawn_and_cannot_end_their_script(built):
    text = built[1]["00_first.html"]
    call = re.search(r'<div id="(figure-1-0)" style="height:333px"></div><script>Plotly.newPlot\("\1", (.*?)\);</script>', text)
    assert call and "<\\/script>" in call[2]
    assert json.loads(f"[{call[2]}]")[0][0]["y"] == [1, 2]


def test_a_widget_leaves_a_caption_and_a_progress_bar_nothing(built):
    text = built[1]["00_first.html"]
    assert text.count("Interactive in JupyterLab") == 1 and "100%|" not in text and "saved-widget-state" not in text


def test_index_has_question_answer_picture_and_attributions(built):
    text = built[1]["index.html"]
    assert text.count("<article>") == 2
    assert "<strong>.123</strong>" in text and text.count("<math") == 3
    thumbnail = re.search(r'Plotly.newPlot\("thumbnail-00_first", (.*?)\);</script>', text)
    _, layout, config = json.loads(f"[{thumbnail[1]}]")
    assert config["staticPlot"] and not layout["showlegend"] and "title" not in layout and layout["height"] == 190
    assert f"data:image/png;base64,{PIXEL}" in text
    for page in built[1].values():
        assert all(name in page for name in ("Twemoji", "Noto Emoji", "OpenMoji", "Unicode CLDR"))
    assert re.search(r"\d{4}-\d\d-\d\d · [\w ]+, \d+ cores", text) and "torch " in text


@pytest.mark.parametrize(
    "broken, message",
    [
        (dict(first="Losses\n\n> Why?"), "title"),
        (dict(first="# Losses\n\nWhy?"), "question"),
        (dict(answer=""), "`answer` must end in a Markdown output"),
        (dict(thumbnail={"text/plain": "no picture"}), "`thumbnail` must show"),
        (dict(first="# Losses\n\n> Why?\n\n$x_$"), "formula"),
        (dict(first="# Losses\n\n> Why?\n\n$\\foobar x$"), "formula .*foobar"),
    ],
)
def test_what_a_notebook_lacks_is_said(tmp_path, broken, message):
    nbformat.write(example(**broken), tmp_path / "02_losses.ipynb")
    with pytest.raises(gallery.GalleryError, match=f"02_losses.ipynb.*{message}"):
        gallery.build([tmp_path / "02_losses.ipynb"], tmp_path / "gallery")


def test_nothing_executed_is_an_error(tmp_path):
    with pytest.raises(gallery.GalleryError, match="make demo"):
        gallery.build([], tmp_path)


def test_hidden_errors_are_found_in_streams_and_widget_state():
    quiet = new_notebook(cells=[new_code_cell("x", outputs=[new_output("stream", text="fine")])])
    assert hidden_errors(quiet) == []
    thread = new_output("stream", name="stderr", text="Exception in thread Thread-5:\nTraceback …\nValueError: late\n")
    error = new_output("error", ename="KeyError", evalue="'x'", traceback=[])
    loud = new_notebook(
        cells=[
            new_code_cell("x", outputs=[thread]),
            new_code_cell("y", metadata={"tags": ["raises-exception"]}, outputs=[error]),
        ],
        metadata={"widgets": {STATE: {"state": {"abc": {"state": {"outputs": [dict(error)]}}, "def": {"state": {"value": 3}}}}}},
    )
    assert hidden_errors(loud) == ["cell 1: ValueError: late", "widget abc: KeyError: 'x'"]


def test_the_demo_names_cell_and_error_and_keeps_going(tmp_path, monkeypatch, capsys):
    ran = {"00_a.ipynb": "", "06_b.ipynb": "cell 3 (fit()): ValueError: no"}
    for name in ran:
        nbformat.write(example(), tmp_path / name)

    def execute(path, title):
        notebook = nbformat.read(path, as_version=4)
        notebook.cells.append(shown({"text/plain": "MRR .2"}, tag="result"))
        notebook.metadata["xmalign"] = gallery.circumstances() | {"seconds": 1.0}
        return notebook, ran[path.name]

    monkeypatch.setattr(demo, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(demo, "EXECUTED", tmp_path / "executed")
    monkeypatch.setattr(demo, "execute", execute)
    shown_paths = []
    monkeypatch.setattr(gallery, "build", lambda paths: shown_paths.extend(paths) or demo.ROOT / "build" / "index.html")
    assert demo.main() == 1
    printed = capsys.readouterr().out
    assert "FAILED: 06_b.ipynb, cell 3 (fit()): ValueError: no" in printed and "MRR .2" in printed
    assert [Path(path).name for path in shown_paths] == ["00_a.ipynb"]
    ran["06_b.ipynb"] = ""
    assert demo.main() == 0
