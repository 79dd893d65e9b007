"""Asking trained models with any word or picture, and seeing what drove the answer and what it is worth."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Mapping, Sequence

import ipywidgets
import pandas as pd
import traitlets
from IPython.display import HTML

from xmalign_lab import pictures as pages
from xmalign_lab.asking import Answer, Asked, cut, opened
from xmalign_lab.corpus import CorpusError, hashed_fraction
from xmalign_lab.style import BLUE, ORANGE, escaped, language_colour, language_name, number
from xmalign_lab.widgets.twin import Twin

KEPT = 20  # questions in the history
HELD = 500  # pictures of the corpus, made ready for the page: 1 MB or two
START, ANY = [("…", -1)], [("any language", "")]  # a Dropdown that begins empty never chooses one
QUIET = "opacity:.75;font-size:12px"
CARD = "width:96px;padding:5px;border-radius:8px;text-align:center;font-size:12px;line-height:1.3;overflow-wrap:anywhere;"
ROW, COLUMN = "display:flex;flex-wrap:wrap;", "flex:1 1 330px;min-width:0"
WORD = "display:inline-flex;flex-direction:column;align-items:center"
KEY = (
    "The number under a word is how far the score falls without it. The darker a letter and the thicker its line, the more "
    "its loss changes the score: with a straight line it raises the score, with a wavy one it lowers it."
)


class RetrievalPlayground(Twin):
    """One question to several models side by side: a text finds pictures, a picture finds captions.

    `models` are `Asked` by name; the second and later ones also show the rank of each hit in the first. `query` is the text
    asked, `lang` its language ("" for any), and `picture` instead of it the id of a picture of the first model, a file, its
    bytes or a PIL image: asking one way empties the other. `place` is the hit, from 1, that is explained. `answer` is
    `{name: Answer}`, `history` what was asked, latest first. A text is never an error; a picture that cannot be read raises
    `TraitError`, by hand it is told in `said`, and the last good one stays. Raises `ValueError` without a model.
    """

    query = traitlets.Unicode()
    lang = traitlets.Unicode()
    picture = traitlets.Any(None, allow_none=True)
    place = traitlets.Int(1)
    answer = traitlets.Dict()
    history = traitlets.Tuple()
    said = traitlets.Unicode()

    def __init__(self, models: Mapping[str, Asked], examples: Sequence[str] | None = None, k: int = 6, **traits):
        self.k, self._uris = k, {}
        self._take(models)
        self.examples = tuple(_examples(self._first) if examples is None else examples)
        super().__init__(**({"query": self.examples[0]} if self.examples and traits.get("picture") is None else {}) | traits)
        self._shown, self._langs = ipywidgets.HTML(), ipywidgets.Dropdown(options=ANY)
        self._choice = ipywidgets.Combobox(continuous_update=False, ensure_option=True)
        self._offer()
        self.box = ipywidgets.VBox([*self._controls(), self._shown])
        self._ask()
        self.observe(self._turn, ["query", "picture"])
        self.observe(lambda change: self._ask(), "lang")
        self.observe(lambda change: self._redraw(), ["place", "said"])

    def replace(self, models: Mapping[str, Asked]) -> None:
        """Ask other models, or these after more training, the same question."""
        self._take(models)
        self._uris.clear()  # it keeps the models that it knows
        self._offer()
        self._ask()

    def static(self) -> HTML:
        return HTML(self.html())

    def html(self) -> str:
        """The question and its answers as a page that needs nothing from outside."""
        said = f"<p><b>✗ {html.escape(self.said)}</b></p>" if self.said else ""
        titles = {name: f'<h4 style="margin:4px 0">{html.escape(name)}</h4>' for name in self.answer}
        columns = "".join(f'<section style="{COLUMN}">{titles[name]}{self._column(name)}</section>' for name in self.answer)
        return f'<div style="{pages.FRAME}">{said}{self._question()}<div style="{ROW}gap:28px">{columns}</div></div>'

    def why(self, name: str) -> pd.DataFrame:
        """`Asked.why` of the hit at `place` of one model; empty where there is none, for noise, and where a picture was asked."""
        answer = self.answer[name]
        if self.picture is not None or answer.hits.empty or answer.noise:
            return pd.DataFrame()
        return self.models[name].why(answer.text, answer.hits.id.iloc[min(self.place, len(answer.hits)) - 1])

    @traitlets.validate("picture")
    def _readable(self, proposal):
        if proposal.value is None or (isinstance(proposal.value, str) and proposal.value in self._labels):
            return proposal.value
        try:
            picture = opened(proposal.value)
        except CorpusError as error:
            self.said = str(error)
            raise traitlets.TraitError(str(error)) from None
        picture.thumbnail((1024, 1024))  # the history keeps it
        return picture

    @traitlets.validate("lang")
    def _known(self, proposal):
        if proposal.value not in ("", *self._first.languages):
            raise traitlets.TraitError(f"{proposal.value!r} is not among the languages: {', '.join(self._first.languages)}")
        return proposal.value

    @traitlets.validate("place")
    def _in_list(self, proposal):
        if not 1 <= proposal.value <= self.k + 1:
            raise traitlets.TraitError(f"hit {proposal.value}: there are {self.k} and perhaps the right one, counted from 1")
        return proposal.value

    def _take(self, models: Mapping[str, Asked]) -> None:
        if not models or not all(isinstance(model, Asked) for model in dict(models).values()):
            raise ValueError("give at least one model: {name: asking.Asked(aligner, corpus, features)}")
        self.models, self._first = dict(models), next(iter(models.values()))
        self._name = {}
        for row in self._first.captions.rows[["group", "text"]].itertuples(index=False):
            self._name.setdefault(row.group, row.text)
        rows = self._first.pictures.rows
        self._labels = {row.id: self._name.get(row.group, row.id) for row in rows.itertuples()}  # the text that names a picture

    def _offer(self) -> None:
        """What can be chosen: the languages and the pictures of the first model."""
        now = self.lang
        self._langs.options = [*ANY, *((language_name(code), code) for code in self._first.languages)]
        self.lang = now if now in self._first.languages else ""  # new options fall back to the first
        self._choice.options = tuple(dict.fromkeys(self._labels.values()))

    def _turn(self, change) -> None:
        """Asking one way empties the other; the observer of the one that was emptied asks nothing."""
        other = "picture" if change.name == "query" else "query"
        if change.new not in ("", None):
            self.set_trait(other, None if other == "picture" else "")
        elif getattr(self, other) not in ("", None):
            return
        self._ask()

    def _ask(self) -> None:
        answers, asked = {}, ("query", self.query.strip()) if self.picture is None else ("picture", self.picture)
        for name, model in self.models.items():
            try:
                known = model.show(self.picture) if self.picture is not None else model.ask(self.query, self.lang, self.k)
            except CorpusError as error:
                known = Answer("", "", pd.DataFrame(), pd.Series(dtype=float), said=str(error))
            answers[name] = known
        self.answer, self.said, self.place = answers, "", 1
        if asked[1] != "":
            self.history = (asked, *(one for one in self.history if one != asked))[:KEPT]
        self._redraw()

    def _redraw(self) -> None:
        self._shown.value = self.html()

    def _controls(self) -> list[ipywidgets.Widget]:
        wide, own = {"description_width": "initial"}, {"display": "flex", "flex_flow": "row wrap"}
        text = ipywidgets.Text(description="Word", placeholder="a word in any language, then Enter", continuous_update=False)
        lang, chosen, back = self._langs, self._choice, ipywidgets.Dropdown(options=START, description="asked before", style=wide)
        lang.description, place = "in", ipywidgets.BoundedIntText(1, min=1, max=self.k + 1, description="explain hit", style=wide)
        for widget, trait in ((text, "query"), (lang, "lang"), (place, "place")):
            traitlets.link((self, trait), (widget, "value"))
        text.style, text.layout.width, lang.style, place.layout.width = wide, "min(100%, 380px)", wide, "150px"
        buttons = [ipywidgets.Button(description=_cut(one, 24), tooltip=f"ask: {one}") for one in self.examples]
        for button, one in zip(buttons, self.examples, strict=True):
            button.layout.width = "auto"
            button.on_click(lambda _, one=one: setattr(self, "query", one))
        upload = ipywidgets.FileUpload(accept="image/*", description="Upload a picture, up to 8 MB")
        upload.layout.width = "auto"
        upload.observe(self._uploaded, "value")
        chosen.description, chosen.placeholder, chosen.style = "or one of these", "type its name", wide
        chosen.value = self._label(self.picture)
        chosen.observe(self._chosen, "value")
        back.observe(lambda change: self._again(back), "value")
        self.observe(lambda change: self._listed(back), "history")
        self._listed(back)
        self.observe(lambda change: setattr(chosen, "value", self._label(change.new)), "picture")
        return [ipywidgets.Box(row, layout=own) for row in ([text, lang, place], buttons, [upload, chosen, back])]

    def _uploaded(self, change) -> None:
        if change.new:
            with contextlib.suppress(traitlets.TraitError):
                self.picture = bytes(change.new[0]["content"])
            change.owner.value = ()

    def _chosen(self, change) -> None:
        if change.new and change.new != self._label(self.picture):
            self.picture = next(row_id for row_id, label in self._labels.items() if label == change.new)

    def _label(self, picture) -> str:
        return self._labels.get(picture, "") if isinstance(picture, str) else ""

    def _listed(self, back: ipywidgets.Dropdown) -> None:
        said = [one if kind == "query" else f"▣ {self._label(one) or 'a picture of your own'}" for kind, one in self.history]
        back.options = [*START, *((_cut(text, 40), number) for number, text in enumerate(said))]

    def _again(self, back: ipywidgets.Dropdown) -> None:
        if back.value >= 0:
            kind, one = self.history[back.value]
            setattr(self, kind, one)

    def _question(self) -> str:
        """The picture that was asked, and what it is called."""
        if self.picture is None:
            return ""
        name = self._label(self.picture) or "a picture of your own"
        shown = f"{self._img(self.picture, name, 96)}<b>{html.escape(name)}</b>"
        return f'<div style="{ROW}gap:12px;align-items:center">{shown}</div>'

    def _column(self, name: str) -> str:
        answer, model, first = self.answer[name], self.models[name], next(iter(self.answer))
        held = f"{len(model.pictures):,} pictures ({model.source or model.pictures.name}), {len(model.captions):,} captions"
        held += f", {model.part} split" if model.part else ""
        parts = [f'<div style="{QUIET}">{html.escape(held)}; rank · cosine</div>']
        if len(why := self.why(name)):
            hit = answer.hits.iloc[min(self.place, len(answer.hits)) - 1]
            parts.append(shaded(why, answer.lang, f"What drove {self._name.get(hit.group, hit.id)}, {hit.score:.2f}"))
        right = answer.hits[answer.hits.correct] if len(answer.hits) else answer.hits
        if self.picture is None and len(answer.hits):
            where = (
                f"The right picture is at rank {number(right['rank'].iloc[0])}. " if len(right) else "No picture has this name. "
            )
            parts.append(f"<b>{where}</b>")
        parts.append(f"<span>{html.escape(answer.words)}</span>")
        before = self.answer[first].ranks if name != first else {}
        for lang, hits in answer.hits.groupby("lang", sort=False) if len(answer.hits) else ():
            cards = "".join(self._hit(hit, model, before.get(hit.id), escaped(_cut(first, 16))) for hit in hits.itertuples())
            if lang:
                look = f"border-left:4px solid {language_colour(lang)};padding:2px 0 2px 10px;margin:10px 0"
                cards = f'<div style="{look}"><div style="{QUIET}">{html.escape(language_name(lang))}</div>{cards}</div>'
            parts.append(
                cards if lang else f'<div style="{ROW}gap:4px;margin-top:8px{";opacity:.6" * answer.noise}">{cards}</div>'
            )
        return "".join(parts)

    def _hit(self, hit, model: Asked, before: float | None, lead: str) -> str:
        """A card for a picture, a line for a caption; with it the rank `before`, in the first model."""
        tick = f'<b style="color:{pages.RIGHT}">✓ right</b>' if hit.correct else ""
        was = f'<span style="{QUIET}">{lead}: {number(before)}</span>' if before is not None else ""
        place = f"{number(hit.rank)} · <b>{hit.score:.2f}</b>".replace("-", "−")
        if hit.lang:
            return f"<div>{place} · {_bdi(hit.text, hit.lang)} {tick} {was}</div>"
        name = self._name.get(hit.group, hit.id)
        lines = "".join(f"<div>{line}</div>" for line in (place, _bdi(name), tick, was) if line)
        frame = f"border:3px solid {pages.RIGHT if hit.correct else 'transparent'}"
        return f'<div style="{CARD}{frame}">{self._img(hit.id, name, 64, model)}{lines}</div>'

    def _img(self, picture, name: str, size: int, model: Asked | None = None) -> str:
        """A picture with its name for who cannot see it; one that cannot be read is its name alone."""
        if not isinstance(picture, str):
            uri = pages.data_uri(picture, size)
        else:
            key = (model or self._first, picture, size)  # two models may have another picture under one id
            if key not in self._uris:
                try:
                    self._uris[key] = pages.data_uri(key[0].pictures.picture(picture), size)
                except CorpusError:
                    self._uris[key] = ""
            uri = self._uris[key]
            if len(self._uris) > HELD:
                del self._uris[next(iter(self._uris))]
        look = f'width="{size}" height="{size}" style="object-fit:contain"'
        return f'<img src="{uri}" alt="{html.escape(name)}" {look}>'


def shaded(why: pd.DataFrame, lang: str = "", title: str = "What drove the score") -> str:
    """A text as HTML, from `asking.occlusion`: each letter shaded and underlined by its share, each word's share below it.

    A letter's number is on hover, and in a table that opens. Lines that raise the score are straight, others wavy.
    """
    words, letters = ([row for row in why.itertuples() if row.kind == kind] for kind in ("word", "grapheme"))
    most = max(1e-9, *(abs(letter.share) for letter in letters), *(abs(word.without + word.share) / 10 for word in words))
    shown, size = [], 24 if len(words) <= 8 else 17
    for word in words:
        spans = "".join(_letter(one.part, one.share, one.share / most) for one in letters if word.start <= one.start < word.end)
        below = f'<span style="{QUIET}">{_signed(word.share)}</span>'
        shown.append(f'<span style="{WORD}"><span style="font-size:{size}px">{spans}</span>{below}</span>')
    rows = "".join(f"<tr><td>{_bdi(row.part)}</td><td>{_signed(row.share, 3)}</td></tr>" for row in (*words, *letters))
    table = f"<p>{KEY}</p><table>{rows}</table>"
    text = f'<div dir="auto"{_lang(lang)} style="{ROW}gap:4px 14px;margin:8px 0;line-height:1.7">{"".join(shown)}</div>'
    return f'{text}<details style="{QUIET};margin-bottom:8px"><summary>{html.escape(title)}</summary>{table}</details>'


def _letter(part: str, share: float, relative: float) -> str:
    colour, line = (BLUE, "solid") if share >= 0 else (ORANGE, "wavy")
    look = f"background:{colour}{round(110 * abs(relative)):02x};text-underline-offset:5px"
    look += f";text-decoration:underline {line} {colour} {1 + round(3 * abs(relative))}px" if abs(relative) > 0.05 else ""
    return f'<span title="{_signed(share)}" style="{look}">{html.escape(part)}</span>'


def _signed(value: float, digits: int = 2) -> str:
    return f"{value:+.{digits}f}".replace("-", "−") if round(value, digits) else "0"


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else cut(text, longest - 1) + "…"


def _lang(code: str) -> str:
    return f' lang="{html.escape(code.replace("_", "-"))}"' if code else ""


def _bdi(text: str, lang: str = "") -> str:
    return f"<bdi{_lang(lang)}>{html.escape(text)}</bdi>"


def _examples(model: Asked) -> list[str]:
    """For up to four languages a name that finds its picture at once and one that does not, where there are any."""
    rows = model.tried[model.tried.modality == "text"].merge(model.captions.rows[["id", "text"]], on="id")
    place = [(max(0, len(row.text) - 18), hashed_fraction(f"example {row.id}")) for row in rows.itertuples()]
    rows = rows.iloc[sorted(range(len(rows)), key=place.__getitem__)]
    return list(dict.fromkeys(rows[rows.lang.isin(model.languages[:4])].groupby(["lang", "right"], sort=False).text.first()))
