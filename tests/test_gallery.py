"""The gallery's pages on notebooks made here; no browser and no kernel is needed."""

import base64
import io
import json
import re
from pathlib import Path

import nbformat
import numpy as np
import plotly.graph_objects as go
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image, ImageDraw

from bench import demo, gallery, letters, pictures
from bench.hidden_errors import STATE
from xmalign_lab import style

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
    call = re.search(r'<div[^>]* id="(figure-1-0)"[^>]*></div><script>Plotly.newPlot\("\1", (.*?)\);</script>', text)
    assert 'aria-label="T. Plot: scatter' in call[0] and 'role="img"' in call[0] and "height:333px" in call[0]
    assert call and "\\u003c/script>" in call[2] and "<" not in call[2]  # `<!--<script` too would swallow the page
    assert json.loads(f"[{call[2]}]")[0][0]["y"] == [1, 2]


def test_a_figure_is_said_in_words():
    figure = go.Figure([go.Scattergl(y=[1], name="Swahili & <b>co</b>"), go.Bar(y=[2], showlegend=False, name="hidden")])
    figure.update_layout(title_text='Ranks<br><span style="x">R@1 .3</span>', xaxis_title="rank", yaxis_title="")
    said = gallery.described(json.loads(figure.to_json()))
    assert said == "Ranks R@1 .3. Plot: bar, scatter. axes: rank. shows: Swahili & co"
    assert gallery.described({"data": [{}], "layout": {"title": "T"}}) == "T. Plot: scatter"


def test_pictures_have_words_and_they_are_escaped(tmp_path):
    notebook = example()
    notebook.cells.insert(1, new_markdown_cell('## Heat & "haze"'))
    notebook.cells.insert(2, shown({"image/png": PIXEL}))
    notebook.cells.insert(3, shown({"image/svg+xml": "<svg></svg>"}))
    nbformat.write(notebook, tmp_path / "00_first.ipynb")
    text = (gallery.build([tmp_path / "00_first.ipynb"], tmp_path / "g").parent / "00_first.html").read_text(encoding="utf-8")
    images = re.findall(r"<img[^>]*>", text)
    assert len(images) == 2 and all("""alt='Picture: Heat &amp; "haze"'""" in image for image in images)
    assert "No description has been provided" not in text and text.count('role="img"') == 1


def test_hidden_solutions_stay_folded_and_their_markdown_is_rendered(tmp_path):
    notebook = example()
    notebook.cells.insert(
        1, new_markdown_cell("<details><summary>Solution</summary>\n\n**four**, $\\tau$\n\n```python\nx = 4\n```\n</details>")
    )
    nbformat.write(notebook, tmp_path / "00_first.ipynb")
    text = (gallery.build([tmp_path / "00_first.ipynb"], tmp_path / "g").parent / "00_first.html").read_text(encoding="utf-8")
    hidden = re.search(r"<details><summary>Solution</summary>(.*?)</details>", text, re.S)
    assert hidden and "<strong>four</strong>" in hidden[1] and "<math" in hidden[1] and "<pre>" in hidden[1]


def test_the_style_stands_once_in_both_themes_and_pages_stay_small(built):
    folder, pages = built
    css = (folder / "gallery.css").read_text(encoding="utf-8")
    assert 'body[data-jp-theme-light="false"] {' in css and "--jp-layout-color0: #111;" in css and "@media print" in css
    assert style.NIGHT_CSS.splitlines()[4] in css and not re.search(r"url\([\"']?(?!data:)\w", css)
    for page in pages.values():
        assert "gallery.js" in page and 'id="theme"' in page and len(page) < 40_000
    assert gallery.weight(folder) == sum(file.stat().st_size for file in folder.iterdir())


def test_a_gallery_too_large_is_an_error(tmp_path, monkeypatch):
    nbformat.write(example(), tmp_path / "00_first.ipynb")
    monkeypatch.setattr(gallery, "MOST_BYTES", 1e6)
    with pytest.raises(gallery.GalleryError, match="5 MB; 1 MB at most"):
        gallery.build([tmp_path / "00_first.ipynb"], tmp_path / "gallery")


def test_scripts_of_a_text_are_those_that_a_system_may_lack():
    found = letters.scripts("Uso ŋ é ж λ ✓ 😀 මුහුණ ሰላም မင်္ဂ ᏣᎳᎩ وجه")
    assert set(found) == {"Sinhala", "Ethiopic", "Myanmar", "Cherokee", "Arabic"}
    assert found["Ethiopic"] == "".join(sorted("ሰላም")) and "ු" in found["Sinhala"]


@pytest.mark.skipif(not letters._installed("Noto Sans Sinhala"), reason="no Noto Sans Sinhala, fontTools or fc-list here")
def test_fonts_hold_just_the_letters_of_the_page_with_their_marks_and_ligatures():
    from fontTools.ttLib import TTFont

    text = "ක්‍ෂ මුහුණ"
    rules, credit = letters.faces(text + " plain")
    assert rules.count("@font-face") == 1 and "Noto Sans Sinhala" in credit and "SIL Open Font License" in credit
    font = TTFont(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", rules)[1])))
    held = {chr(point) for point in font.getBestCmap()}
    assert set(text) - {" "} <= held | {"\u200d"} and len(held) < 20
    assert "GSUB" in font and font["maxp"].numGlyphs > len(held)  # ligatures of these letters came along
    for sign in set(text) - {" "}:
        assert f"U+{ord(sign):X}" in rules


def test_without_fonts_or_their_tools_the_page_is_left_to_the_reader(monkeypatch):
    monkeypatch.setattr(letters.shutil, "which", lambda name: None)
    assert letters.faces("මුහුණ") == ("", "")
    assert letters.faces("plain") == ("", "")


def test_every_notebook_runs_once_until_it_changes(tmp_path, monkeypatch, capsys):
    (tmp_path / "executed").mkdir()
    ran, problem = [], {"09_b.ipynb": "cell 1: no"}
    for name in ("00_a.ipynb", "09_b.ipynb"):
        nbformat.write(example(), tmp_path / name)

    def execute(path, title):
        ran.append(path.name)
        notebook, said = nbformat.read(path, as_version=4), problem.get(path.name, "")
        notebook.metadata["xmalign"] = gallery.circumstances() | {"seconds": 1.0, "problem": said}
        return notebook, said

    monkeypatch.setenv("XMALIGN_PROFILE", "smoke")
    monkeypatch.setattr(demo, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(demo, "EXECUTED", tmp_path / "executed")
    monkeypatch.setattr(demo, "execute", execute)
    monkeypatch.setattr(gallery, "build", lambda paths: demo.ROOT / "build" / "index.html")
    monkeypatch.setattr(gallery, "weight", lambda folder: 1.5e6)
    assert demo.main(everything=True) == 1 and ran == ["00_a.ipynb", "09_b.ipynb"]
    problem.clear()
    assert demo.main(everything=True) == 0 and ran[2:] == ["09_b.ipynb"]
    assert "00_a: has run already" in (said := capsys.readouterr().out) and "(1.5 of 30 MB)" in said
    assert demo.main(everything=True) == 0 and len(ran) == 3
    changed = example()
    changed.cells[1].source = "y"
    nbformat.write(changed, tmp_path / "00_a.ipynb")
    (tmp_path / "executed" / "09_b.ipynb").write_text("{")
    assert demo.main(everything=True) == 0 and ran[3:] == ["00_a.ipynb", "09_b.ipynb"]
    monkeypatch.setenv("XMALIGN_PROFILE", "small")
    assert not demo.executed(tmp_path / "00_a.ipynb")
    assert demo.main() == 0 and ran[5:] == ["00_a.ipynb"]  # the demo: 00-08, always anew
    assert (tmp_path / "executed" / "09_b.ipynb").exists()


def test_a_notebook_that_ran_with_another_library_runs_again(tmp_path, monkeypatch):
    (tmp_path / "executed").mkdir()
    nbformat.write(example(), tmp_path / "00_a.ipynb")
    lib, ran = tmp_path / "lib", []
    (lib / "widgets").mkdir(parents=True)
    (lib / "widgets" / "view.py").write_text("1")
    changing = []

    def execute(path, title):
        ran.append(path.name)
        notebook = nbformat.read(path, as_version=4)
        notebook.metadata["xmalign"] = gallery.circumstances() | {"seconds": 1.0, "problem": ""}
        for file in changing:
            file.write_text("while it runs")
        return notebook, ""

    monkeypatch.setenv("XMALIGN_PROFILE", "smoke")
    for name, value in {"NOTEBOOKS": tmp_path, "EXECUTED": tmp_path / "executed", "LIBRARY": lib, "execute": execute}.items():
        monkeypatch.setattr(demo, name, value)
    monkeypatch.setattr(gallery, "build", lambda paths: demo.ROOT / "build" / "index.html")
    monkeypatch.setattr(gallery, "weight", lambda folder: 0)

    def times() -> int:
        ran.clear()
        assert demo.main(everything=True) == 0
        return len(ran)

    assert (times(), times()) == (1, 0)
    (lib / "widgets" / "view.py").write_text("2")  # a view, which no record hashes
    assert (times(), times()) == (1, 0)
    (lib / "lessons.json").write_text("{}")
    assert (times(), times()) == (1, 0)
    (lib / "lessons.json").rename(lib / "renamed.json")
    assert (times(), times()) == (1, 0)
    (lib / "__pycache__").mkdir()
    (lib / "__pycache__" / "view.pyc").write_text("what Python writes by itself")
    assert times() == 0
    (lib / "widgets" / "view.py").write_text("3")
    changing.append(lib / "widgets" / "view.py")
    assert times() == 1
    changing.clear()
    assert (times(), times()) == (1, 0)


def test_the_library_is_all_of_its_files():
    files = {file.suffix for file in demo.LIBRARY.rglob("*") if file.is_file()}
    assert {".py", ".csv", ".json"} <= files and (demo.LIBRARY / "widgets").is_dir() and demo.library() == demo.library()


def test_a_picture_is_made_small_without_losing_the_colour_of_a_dot(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (700, 900, 3), dtype=np.uint8))
    draw, dots = ImageDraw.Draw(picture), [*style.OF_LANGUAGE.values()]
    draw.rectangle((0, 0, 899, 600), fill="#EEEEEE")
    for i, colour in enumerate(dots):
        draw.ellipse((20 + 40 * i, 300, 30 + 40 * i, 310), fill=colour)
    picture.save(tmp_path / "x.png")
    pictures.shrink(tmp_path / "x.png")
    small = Image.open(tmp_path / "x.png").convert("RGB")
    assert small.size == picture.size and (tmp_path / "x.png").stat().st_size <= pictures.MOST_BYTES
    for i, colour in enumerate(["#EEEEEE", *dots]):
        seen = small.getpixel((25 + 40 * (i - 1), 305) if i else (5, 5))
        assert np.abs(np.array(seen) - list(bytes.fromhex(colour[1:]))).max() <= 8, colour


def test_a_view_is_found_in_the_notebook_that_shows_it(tmp_path, monkeypatch):
    cells = [new_markdown_cell("Twin("), new_code_cell("import Twin"), new_code_cell("twin = Twin(x)\ntwin")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "07_x.ipynb")
    monkeypatch.setattr(pictures, "NOTEBOOKS", tmp_path)
    assert pictures.cell("Twin(") == (tmp_path / "07_x.ipynb", 2) and pictures.cell("Other(") is None
    assert pictures.main(["nonsense"]) == 1


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
