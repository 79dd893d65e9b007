"""A sheet of pictures to be named in one's own language, saved as one types."""

from __future__ import annotations

import html
from pathlib import Path

import anywidget
import ipywidgets
import pandas as pd
import traitlets
from PIL import Image

from xmalign_lab import naming, pictures
from xmalign_lab.corpus import CorpusError


class Cards(anywidget.AnyWidget):
    """The grid in the browser: a picture, what English calls it, and a field that takes any script in either direction."""

    cards = traitlets.List().tag(sync=True)
    names = traitlets.Dict().tag(sync=True)
    said = traitlets.Unicode().tag(sync=True)
    lang = traitlets.Unicode().tag(sync=True)

    _esm = """export default {render({model, el}) {
        const make = (name, within, set) => within.appendChild(Object.assign(document.createElement(name), set));
        const grid = make("div", el, {className: "xm-naming"}), fields = {};
        const said = make("p", el, {className: "xm-naming-said"}); said.setAttribute("role", "status");
        for (const [group, picture, english] of model.get("cards")) {
            const card = make("label", grid, {});
            make("img", card, {src: picture, alt: english, width: 56, height: 56});
            make("span", card, {textContent: english});
            const field = fields[group] = make("input", card, {type: "text", dir: "auto", spellcheck: false});
            field.lang = model.get("lang").replace("_", "-");
            field.addEventListener("change", () => {
                model.set("names", {...model.get("names"), [group]: field.value}); model.save_changes(); });
            field.addEventListener("keydown", event => {
                const all = [...grid.querySelectorAll("input")];
                if (event.key === "Enter") all[(all.indexOf(field) + 1) % all.length].focus(); event.stopPropagation(); });
        }
        const show = () => { for (const group in fields)
            if (document.activeElement !== fields[group]) fields[group].value = model.get("names")[group] ?? ""; };
        const tell = () => { said.textContent = model.get("said"); };
        model.on("change:names", show); model.on("change:said", tell); show(); tell(); }}"""
    _css = """.xm-naming {display: grid; grid-template-columns: repeat(auto-fill, minmax(148px, 1fr)); gap: 12px; max-width: 60em}
        .xm-naming label {display: flex; flex-direction: column; align-items: center; gap: 4px; padding: 8px;
            border: 1px solid #8884; border-radius: 8px; font: 13px/1.3 system-ui, 'Noto Sans', sans-serif; text-align: center}
        .xm-naming span {opacity: .7; min-height: 2.6em}
        .xm-naming input {width: 100%; box-sizing: border-box; padding: 4px 6px; border: 1px solid #8888; border-radius: 4px;
            font: 16px/1.5 system-ui, 'Noto Sans', sans-serif; color: inherit; background: transparent}
        .xm-naming-said {font: 14px/1.4 system-ui, 'Noto Sans', sans-serif}"""


ROW = "display:flex;gap:8px;align-items:center"


class NamingSheet(traitlets.HasTraits):
    """The sheet at `path` (`naming.write_sheet`) as a grid: a picture and a field each, saved when one leaves the field.

    `names` {group: name} is what is on the sheet: setting it, or a part of it, is typing. `said` tells how many are named. A
    group that is not on the sheet raises `TraitError`. `static()` is the sheet as a table, `html()` the grid without fields.
    """

    names = traitlets.Dict()
    said = traitlets.Unicode()

    def __init__(self, path: str | Path):
        self.path, table = Path(path), naming.table(path)
        self._english = dict(zip(table.group, table.english, strict=True))
        files = [self.path.parent / name for name in table.image]
        shown = [pictures.data_uri(Image.open(file)) for file in files]
        self._cards = [list(card) for card in zip(table.group, shown, table.english, strict=True)]
        self._lang = table.lang.iloc[0]
        super().__init__(names=dict(zip(table.group, table.text, strict=True)))
        self._waiting: dict[str, str] = {}  # typed, and not yet on the sheet
        self._tell(sum(map(bool, self.names.values())))
        self.grid = Cards(cards=self._cards, names=self.names, lang=self._lang, said=self.said)
        self.box = ipywidgets.VBox([self.grid])
        traitlets.link((self, "names"), (self.grid, "names"))
        traitlets.dlink((self, "said"), (self.grid, "said"))
        self.observe(self._save, "names")

    @traitlets.validate("names")
    def _known(self, proposal):
        if unknown := set(proposal.value) - set(self._english):
            raise traitlets.TraitError(f"{sorted(unknown)[0]!r} is not on this sheet of {len(self._english)} pictures")
        before = self.names if self.trait_has_value("names") else {}
        return dict.fromkeys(self._english, "") | before | {g: naming.normalise(text) for g, text in proposal.value.items()}

    def _save(self, change) -> None:
        # Only what changed is written: the others may have been named in a spreadsheet meanwhile.
        self._waiting |= {group: text for group, text in change.new.items() if text != change.old.get(group, "")}
        try:
            count = naming.fill(self.path, self._waiting)
        except (OSError, CorpusError) as error:
            self.said = f"NOT saved: {error}. Close {self.path.name} elsewhere; the next name you type saves this one too."
        else:
            self._waiting = {}
            self._tell(count)

    def _tell(self, count: int) -> None:
        self.said = f"{count} of {len(self.names)} named, saved in {self.path.name}."

    def static(self) -> pd.DataFrame:
        """The sheet as a table: what English says, and the name."""
        return pd.DataFrame({"English": self._english, "name": self.names}).set_index("English")

    def html(self) -> str:
        """The pictures with their names, for pages without a kernel."""
        card = f'<div style="{ROW}"><img src="{{}}" alt="{{}}" width="48"><bdi lang="{{}}">{{}}</bdi></div>'
        lang, said = self._lang.replace("_", "-"), {group: name or "·" for group, name in self.names.items()}
        cells = "".join(card.format(shown, *map(html.escape, (english, lang, said[g]))) for g, shown, english in self._cards)
        grid = "display:grid;grid-template-columns:repeat(auto-fill,minmax(170px,1fr));gap:10px"
        return f'<div style="{pictures.FRAME}{grid}">{cells}</div><p>{html.escape(self.said)}</p>'

    def _repr_mimebundle_(self, **kwargs) -> dict:
        return {**self.box._repr_mimebundle_(**kwargs), "text/html": self.html()}
