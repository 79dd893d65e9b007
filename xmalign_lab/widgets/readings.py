"""What a dashboard reads off: numbers with their intervals, and what was tried so far. Pure functions."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence

import ipywidgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from xmalign_lab.evaluate.report import family_bootstrap
from xmalign_lab.evaluate.retrieval import per_query
from xmalign_lab.evaluate.significance import paired_bootstrap
from xmalign_lab.pictures import FRAME, RIGHT
from xmalign_lab.schedules import Schedule
from xmalign_lab.style import ORANGE, language_colour, language_name, number

DRAWS = 2000


def fixed(value: float, sign: str = "") -> str:
    """'.100': three decimals, so that a column lines up; '–' for NaN."""
    return "–" if value != value else f"{value:{sign}.3f}".replace("0.", ".", 1).replace("-", "−")


MEAN = "mean"  # stands for a language: the mean over those trained without pictures
# what is shown of a history, and under which name: the CSV has all of it
SHOWN = {name: name for name in ("look", "start", "temperature", "threshold", "pairs", "steps")}
SHOWN |= {"wrong": "wrong pairs", "text": "parallel text"}
SHOWN |= {"seconds": "training, s", "MRR mean": "mean MRR", "change": "change", "low": "low", "high": "high"}
FORMS = dict.fromkeys(("MRR mean", "change", "low", "high"), fixed) | dict.fromkeys(("wrong", "text"), "{:.0%}".format)
FORMS |= {"threshold": "{:.2f}".format, "seconds": "{:.1f}".format}
LINK = "color:var(--jp-content-link-color,#0969da);text-decoration:underline"
CELL = "padding:2px 8px;text-align:right;white-space:nowrap"
SMALL = '<div style="font-size:11px;opacity:.75;line-height:1.2">[{}, {}]</div>'
FIT = "width:0;min-width:100%;white-space:normal;"  # as wide as the column, never wider
TABLE = '<table style="border-collapse:collapse;font-variant-numeric:tabular-nums">'


def compared(now: pd.DataFrame, before: pd.DataFrame | None = None, targets: Sequence[str] = ()) -> pd.DataFrame:
    """A row per language and one for the mean of those of `targets`: MRR and R@1 of the scores `now`, and how far MRR moved.

    Columns lang, MRR, low, high, R@1, change, change low, change high; 95 %, families resampled, the change over the queries
    that both were asked (NaN where there are none).
    """

    def values(scores: pd.DataFrame, metric: str) -> dict[str, pd.Series]:
        wide = per_query(scores, metric).pivot(index=["query", "family"], columns="lang", values="value")
        found = {lang: wide[lang].dropna() for lang in wide}
        asked = wide[[lang for lang in targets if lang in wide]].dropna(how="all")
        shares = asked.div(asked.count()).sum(axis=1) * len(asked) / max(1, asked.shape[1])  # whose mean is the mean of the means
        return found | {MEAN: shares}

    mrr, first, old = values(now, "MRR"), values(now, "R@1"), {} if before is None else values(before, "MRR")
    rows = []
    for lang, value in mrr.items():
        families = value.index.get_level_values("family").to_numpy(object)
        row = {
            "lang": lang,
            "MRR": value.mean(),
            **dict(zip(("low", "high"), family_bootstrap(value.to_numpy(), families, DRAWS), strict=True)),
        }
        both = pd.concat([value, old.get(lang, value.iloc[:0])], axis=1, join="inner")
        change = (np.nan,) * 3
        if both.index.get_level_values("family").nunique() > 1:
            of = both.index.get_level_values("family").to_numpy(object)
            change = paired_bootstrap(*both.to_numpy().T, of, DRAWS)[:3]
        rows.append(row | {"R@1": first[lang].mean(), **dict(zip(("change", "change low", "change high"), change, strict=True))})
    return pd.DataFrame(rows)


def head_html(state: str, said: str) -> str:
    """What can be turned, what goes on, and what was said of it."""
    note = "Turn the temperature or the threshold: it trains on for some seconds, and everything is redrawn."
    note += " Each run follows its whole temperature schedule: τ starts again where a run does."
    words = f"{'●' if state in ('ready', 'failed') else '⏳'} <b>{html.escape(state)}</b> {html.escape(said)}"
    return f'<div style="{FRAME}"><span style="opacity:.7">{note}</span><br>{words}</div>'


def numbers_html(table: pd.DataFrame | None, note: str = "") -> str:
    """The table of `compared` as HTML; a change whose interval holds 0 is called not shown."""
    if table is None:
        return f'<div style="{FRAME}opacity:.7">no numbers yet</div>'
    rows = [f'<tr style="opacity:.7"><td></td>{_cells("MRR [95 %]", "R@1", "this change")}</tr>']
    for row in table.itertuples(index=False):
        r = dict(zip(table.columns, row, strict=True))
        name, colour = (MEAN, "inherit") if r["lang"] == MEAN else (language_name(r["lang"]), language_colour(r["lang"]))
        value = f"<b>{fixed(r['MRR'])}</b>{SMALL.format(fixed(r['low']), fixed(r['high']))}"
        line = f'<td style="padding:2px 8px 2px 0"><span style="color:{colour}">●</span> {html.escape(name)}</td>'
        rows.append(f'<tr style="border-top:1px solid #8884">{line}{_cells(value, fixed(r["R@1"]), _change(r))}</tr>')
    below = f'<div style="opacity:.7">{html.escape(note)}</div>'
    return f'<div style="{FRAME}{FIT}font-size:13px">{TABLE}{"".join(rows)}</table>{below}</div>'


def history_html(tried: pd.DataFrame, asked: str, most: int = 8) -> str:
    """The last `most` settings and what came of them, how often the same families were looked at, and a CSV to take."""
    if tried.empty:
        return ""
    looks = len(tried)
    warning = f"{looks} look{'s' * (looks > 1)} at {asked}. The more one tries, the more the best of it flatters."
    warning += " The test families stay closed."
    given = [name for name in ("languages", "wrong", "text") if name in tried]
    alike = (tried[given] == tried[given].iloc[-1]).all(axis=1)  # of other data the numbers say nothing here
    best, shown = tried["MRR mean"][alike].idxmax(), [name for name in SHOWN if name in tried]
    head, rows = _cells(*(SHOWN[name] for name in shown)), []
    for at, row in tried.tail(most).iloc[::-1].iterrows():
        cells = _cells(*(html.escape(FORMS.get(name, str)(row[name])) for name in shown))
        rows.append(f'<tr style="border-top:1px solid #8884;{"font-weight:600" * bool(at == best)}">{cells}</tr>')
    data = base64.b64encode(tried.to_csv(index=False).encode()).decode()
    link = f'<a download="tried.csv" href="data:text/csv;base64,{data}" style="{LINK}">take all of it as CSV</a>'
    table = f'{TABLE}<tr style="opacity:.7">{head}</tr>{"".join(rows)}</table>'
    words = f'<div style="white-space:normal"><b>What was tried</b> · {html.escape(warning)} · {link}</div>'
    return f'<div style="{FRAME}font-size:13px">{words}{table}</div>'


def took_html(took: Mapping[str, float]) -> str:
    """Where the seconds went."""
    said = " · ".join(f"{name} {seconds:.1f} s" for name, seconds in took.items())
    return f'<div style="{FRAME}{FIT}font-size:12px;opacity:.7">{html.escape(said)}</div>'


def _cells(*cells: str) -> str:
    return "".join(f'<td style="{CELL}">{cell}</td>' for cell in cells)


def _change(r: Mapping) -> str:
    if r["change"] != r["change"]:
        return "–"
    shown = 1 if r["change low"] > 0 else -1 if r["change high"] < 0 else 0
    sign, colour = {1: ("▲", RIGHT), -1: ("▼", ORANGE), 0: ("not shown", "inherit")}[shown]
    value, low, high = (fixed(r[name], "+") for name in ("change", "change low", "change high"))
    return f'{value} <span style="color:{colour}">{sign}</span>{SMALL.format(low, high)}'


def page_html(figures: Sequence[go.Figure], settings: str, numbers: str, history: str) -> str:
    """The static twin of a dashboard: its figures side by side, without plotly.js, between what it is set to and what it says."""
    config = {"displaylogo": False, "responsive": True}
    drawn = (figure.to_html(full_html=False, include_plotlyjs=False, config=config) for figure in figures)
    row = "".join(f'<div style="flex:1 1 420px;min-width:0">{one}</div>' for one in drawn)
    return f'<div>{settings}<div style="display:flex;flex-wrap:wrap">{row}</div>{numbers}{history}</div>'


def settings_html(languages: Sequence[str], noise: float, text: float, temperature: Schedule, threshold: float) -> str:
    """What a dashboard is set to, in a line."""
    parts = [", ".join(map(language_name, languages)), f"{noise:.0%} of the pairs wrong", f"{text:.0%} of the parallel text"]
    parts += [f"τ {short(temperature)}", f"threshold {number(threshold)}"]
    return f'<div style="{FRAME}">{html.escape("; ".join(parts))}</div>'


def short(plan: Schedule) -> str:
    """'constant .1', 'cosine .2 .05 .5'."""
    return " ".join([type(plan).__name__.lower(), *(number(v) for v in vars(plan).values() if isinstance(v, float))])


def titled(text: str) -> ipywidgets.HTML:
    """The title of a part of the page."""
    return ipywidgets.HTML(f'<div style="{FRAME}font-weight:600;border-bottom:1px solid #8884;margin-top:4px">{text}</div>')
