import json
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from xmalign_lab import languages, pictures, plots, style
from xmalign_lab.corpus import Corpus, CorpusError

CODES = ["eng_Latn", "swh_Latn", "sin_Sinh"]
NASTY = ["</script><script>alert(1)</script>", '<img src=x onerror="alert(1)">', "a < b & c > d", "'\"", "<b>bold</b>", "\\u003c"]


def small_points(groups=4, texts=("moyo", "nyota", "jua", "mwezi"), codes=CODES):
    """One picture and a text per language for each group, placed so that every coordinate is known."""
    rows = []
    for g in range(groups):
        rows.append({"id": f"p{g}", "group": f"g{g}", "modality": "image", "lang": "", "text": "", "x": float(g), "y": 0.0})
        for k, code in enumerate(codes):
            text = texts[g % len(texts)]
            rows.append(
                {"id": f"t{g}{k}", "group": f"g{g}", "modality": "text", "lang": code, "text": text, "x": g + 0.5, "y": k + 1.0}
            )
    return pd.DataFrame(rows)


def header(figure):
    """The line under the title, as it is read."""
    return "".join(Page(figure.layout.title.text).words[1:])


def written(figure, most=20_000):
    """The figure through JSON and back: small, and nothing in it that JSON cannot hold."""
    text = figure.to_json()
    assert len(text) < most
    return json.loads(text)


class Page(HTMLParser):
    """Reads a page as a browser would: the tags there are, and the text between them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words, self.attributes = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.words.append(data)


# --- colours, labels, numbers


def test_every_language_has_a_name_and_a_readable_colour():
    def contrast(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 1.05 / (np.dot([0.2126, 0.7152, 0.0722], linear) + 0.05)

    colours = {language.code: style.language_colour(language.code) for language in languages.all_languages()}
    assert min(map(contrast, colours.values())) > 2  # on white; points and bars, not running text
    named = [colours[code] for code in style.OF_LANGUAGE]
    assert len(set(named)) == len(named) and not set(named) & set(style.OTHERS)
    assert {colours[code] for code in colours if code not in style.OF_LANGUAGE} == set(style.OTHERS)


@pytest.mark.parametrize(
    "value, text",
    [(0.314, ".31"), (0.8, ".8"), (1.0, "1"), (-0.25, "-.25"), (0.035, ".035"), (12.0, "12"), (float("nan"), "–"), (0.0, "0")],
)
def test_numbers_are_written_as_in_the_tables(value, text):
    assert style.number(value) == text


# --- results


def test_recall_bars_hold_values_and_intervals():
    cells = [(lang, metric, method) for lang in CODES[:2] for metric in ("R@1", "MRR") for method in ("aligned", "chance")]
    table = pd.DataFrame(cells, columns=["lang", "metric", "method"]).assign(value=np.arange(8) / 10 + 0.1)
    table = table.assign(low=table.value - 0.05, high=table.value + 0.02)
    figure = plots.recall_bars(table, "gallery 380")
    assert len(figure.data) == 4 and sum(t.showlegend for t in figure.data) == 2
    swahili_mrr = next(t for t in figure.data if t.name == "Swahili" and t.xaxis == "x2")
    assert list(swahili_mrr.y) == ["aligned", "chance"] and np.allclose(swahili_mrr.x, [0.7, 0.8])
    assert np.allclose(swahili_mrr.error_x.array, 0.02) and np.allclose(swahili_mrr.error_x.arrayminus, 0.05)
    assert swahili_mrr.marker.color == style.language_colour("swh_Latn")
    written(figure)


def test_rank_bars_add_up_to_recall():
    ranks = {"swh_Latn": np.array([1, 1.5, 2, 5, 7, 11, 60, 300]), "eng_Latn": np.array([1.0, 1.0])}
    swahili, english = plots.rank_histogram(ranks).data
    for k, bars in ((1, 1), (5, 2), (10, 3), (50, 4), (100, 5)):
        assert sum(swahili.y[:bars]) == pytest.approx((ranks["swh_Latn"] <= k).mean())
    assert sum(swahili.y) == pytest.approx(1) and english.y[0] == 1
    assert swahili.name == "Swahili (8)"


def test_heatmap_holds_the_matrix_and_checks_its_labels():
    matrix = np.arange(6.0).reshape(2, 3)
    figure = plots.similarity_heatmap(matrix, (["a", "<i>b</i>"], ["x", "y", "z"]))
    assert np.array_equal(figure.data[0].z, matrix) and figure.layout.yaxis.ticktext == ("a", "&lt;i&gt;b&lt;/i&gt;")
    written(figure)
    written(plots.similarity_heatmap(np.zeros((200, 200)), [str(i) for i in range(200)]), 250_000)
    for shape, labels in (((2, 3), ["a", "b"]), ((201, 201), ["a"] * 201)):
        with pytest.raises(ValueError, match="take a sample"):
            plots.similarity_heatmap(np.zeros(shape), labels)


# --- pages with pictures


def test_data_uri_is_the_picture_shrunk_with_its_transparency():
    import base64
    import io

    image = Image.new("RGBA", (200, 100), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (100, 0, 200, 100))
    head, body = pictures.data_uri(image, 64).split(",")
    back = Image.open(io.BytesIO(base64.b64decode(body)))
    assert head == "data:image/webp;base64" and back.size == (64, 32) and image.size == (200, 100)
    assert back.convert("RGBA").getpixel((8, 16))[3] == 0 and back.getpixel((56, 16))[2] > 200


PIXEL = pictures.data_uri(Image.new("RGBA", (2, 2), "red"))


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60) | st.sampled_from(NASTY))
def test_texts_reach_pages_as_text_only(text):
    example = {"query": text, "lang": "swh_Latn", "rank": 2, "hits": [{"picture": PIXEL, "caption": text, "correct": True}]}
    for page in (
        pictures.retrieval_html([example]),
        pictures.panel(text, [("eng_Latn", text)], PIXEL),
        pictures.panel(text, [], None),
    ):
        read = Page(page)
        assert set(read.tags) <= {"div", "span", "b", "bdi", "img"} and not {a for a in read.attributes if a.startswith("on")}
        assert text in "".join(read.words)


def test_retrieval_frames_the_right_answer_only():
    hits = [{"picture": PIXEL}, {"picture": Image.new("RGB", (3, 3)), "correct": True}, {"caption": "jua"}]
    page = pictures.retrieval_html([{"picture": PIXEL, "hits": hits, "rank": 1.5}])
    assert page.count("✓") == 1 and page.count(f"border:3px solid {pictures.RIGHT}") == 1 and "rank 1.5" in page
    assert page.count("<img") == 3


def test_contact_sheet_shows_pictures_with_captions_in_the_wanted_languages(tmp_path):
    Image.new("RGBA", (8, 8), "blue").save(tmp_path / "a.png")
    rows = [
        {"id": "p", "group": "g", "image": str(tmp_path / "a.png")},
        {"id": "q", "group": "g", "image": str(tmp_path / "b.png")},
    ]
    rows += [{"id": code, "group": "g", "text": f"{code} <i>", "lang": code} for code in CODES]
    corpus = Corpus(pd.DataFrame(rows))
    page = pictures.contact_sheet(corpus, ["p"], shown=["swh_Latn", "eng_Latn", "deu_Latn"])
    assert page.index("swh_Latn &lt;i&gt;") < page.index("eng_Latn &lt;i&gt;") and "sin_Sinh" not in page
    assert "sin_Sinh &lt;i&gt;" in pictures.contact_sheet(corpus, ["p"]) and page.count("data:image/webp") == 1
    with pytest.raises(CorpusError, match="b.png: no such image file"):
        pictures.contact_sheet(corpus, ["q"])
    with pytest.raises(CorpusError, match="'nobody' has no image"):
        pictures.contact_sheet(corpus, ["nobody"])


def test_language_bars_keep_order_names_and_colours():
    figure = plots.language_bars({"swh_Latn": 3, "eng_Latn": 5}, "Texts")
    bar = figure.data[0]
    assert list(bar.x) == ["Swahili", "English"] and list(bar.y) == [3, 5]
    assert list(bar.marker.color) == [style.language_colour("swh_Latn"), style.language_colour("eng_Latn")]
