"""Points chosen by hand: kept in a file, and what there is more of among them than elsewhere."""

from __future__ import annotations

import csv
import html
import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import regex

from xmalign_lab import pictures as pages
from xmalign_lab.corpus import CorpusError
from xmalign_lab.encoders.classic import words
from xmalign_lab.evaluate.significance import holm
from xmalign_lab.spaces import VERDICTS, captions
from xmalign_lab.style import language_name, number

CELL = "padding:3px 14px 3px 0;text-align:left;vertical-align:middle;border-top:1px solid #8884"
PATIENCE = 1.0  # seconds for a whole search: an expression can take for ever
CIRCULAR = "<p>A selection made by a word, a label or a rank proves nothing about that word, label or rank.</p>"
LEAST = 3  # units that must have a value before it is asked whether the selection has more of it


def save(ids: Iterable[str], path: str | Path, points: pd.DataFrame | None = None) -> Path:
    """Write row ids as JSON (`{"ids": […]}`) or CSV (a column id; with `points` also group, lang and text, for a reader).

    The ending decides; any other raises `ValueError`.
    """
    path, ids = Path(path), list(ids)
    if path.suffix == ".json":
        path.write_text(json.dumps({"ids": ids}, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    elif path.suffix == ".csv":
        told = [] if points is None else ["group", "lang", "text"]
        rows = pd.DataFrame({"id": ids}) if points is None else points.set_index("id").loc[ids, told].reset_index()
        rows.to_csv(path, index=False)
    else:
        raise ValueError(f"{path}: a selection is a .json or a .csv file")
    return path


def load(path: str | Path, known: Collection[str]) -> tuple[str, ...]:
    """The row ids of a file as `save` wrote it, each once; a CSV may have further columns.

    Raises `CorpusError`, naming file and row, for an id that `known` lacks and for a file of another form, `ValueError` for
    another ending.
    """
    path, known = Path(path), set(known)
    if path.suffix not in (".json", ".csv"):
        raise ValueError(f"{path}: a selection is a .json or a .csv file")
    try:
        text = path.read_text(encoding="utf-8-sig")
        ids = json.loads(text)["ids"] if path.suffix == ".json" else [row["id"] for row in csv.DictReader(text.splitlines())]
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{path}: no selection ({error}); it needs {{'ids': […]}} or a column 'id'") from None
    if not isinstance(ids, list):
        raise CorpusError(f"{path}: 'ids' is no list")
    for row, row_id in enumerate(ids, 1):
        if not isinstance(row_id, str) or row_id not in known:
            raise CorpusError(f"{path}, row {row}: no point has the id {row_id!r}")
    return tuple(dict.fromkeys(ids))


def matching(points: pd.DataFrame, pattern: str, langs: Sequence[str] | None = None) -> np.ndarray:
    """Which rows (n,) belong to a group with a text, in one of `langs`, where the regular expression `pattern` is found.

    Letters of either case. Raises `ValueError` for an expression that is broken, or not done after a second.
    """
    if not pattern:
        return np.ones(len(points), bool)
    text = (points.modality == "text") & (points.lang.isin(langs) if langs is not None else True)
    left, hits, until = points[text], set(), time.monotonic() + PATIENCE
    try:
        found = regex.compile(pattern, regex.IGNORECASE)
        for group, said in zip(left.group, left.text, strict=True):
            if group not in hits and found.search(said, timeout=max(until - time.monotonic(), 1e-3)):
                hits.add(group)
    except regex.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    except TimeoutError:
        raise ValueError(f"{pattern!r} was not searched for within {PATIENCE:.0f} s; make it simpler") from None
    return points.group.isin(hits).to_numpy()


def tallies(points: pd.DataFrame) -> pd.DataFrame:
    """What each point could have more of: columns what, lang, value, unit, row (number of the point), one line each.

    The language of a text (its unit is a family's texts in that language), the family (of a group), each label (of a family)
    and each word or pair of neighbouring words of a text (of a family's texts in its language): near-copies count once.
    """
    rows = np.arange(len(points))
    texts = points.assign(row=rows)[(points.modality == "text").to_numpy()]
    found = [(texts.row, "language", "", texts.lang, texts.family + "\t" + texts.lang)]
    found.append((rows, "family", "", points.family, points.group))
    for name in dict.fromkeys(name for labels in points.labels for name in labels) if "labels" in points else ():
        values = points.labels.map(lambda labels, name=name: labels.get(name, ""))
        found.append((rows, name, "", values.astype(str), points.family))
    grams = [(row, gram) for row, said in zip(texts.row, texts.text, strict=True) for gram in _grams(said)]
    row, gram = (list(part) for part in zip(*grams, strict=True)) if grams else ([], [])
    found.append((row, "words", points.lang.to_numpy()[row], gram, points.family.to_numpy()[row]))
    frames = [
        pd.DataFrame({"row": np.asarray(r), "what": w, "lang": g, "value": np.asarray(v), "unit": np.asarray(u)})
        for r, w, g, v, u in found
    ]
    return pd.concat(frames, ignore_index=True)


def over_represented(points: pd.DataFrame, ids: Collection[str], counted: pd.DataFrame | None = None) -> pd.DataFrame:
    """What the selection has more of than the rest: what, lang, value, inside, outside (shares), count, p, p_holm; best first.

    Of the U units of a kind (`tallies`; the words of each language are a kind), k are in the selection, K have the value, x
    are both: p is the upper tail of the hypergeometric distribution, P(X ≥ x), Fisher's exact test of one side. A unit is in
    the selection if any of its points of that kind is (no picture has words, no Swahili text an English one). What the
    selection was made by, as a word that was searched for, it has more of in any case. Every value that three units have is
    tested, whether or not the selection has it, and Holm's correction is over all of them; `attrs["tests"]` is their number.
    `counted` are the `tallies`, for many selections of the same points.
    """
    from scipy.stats import hypergeom

    counted = tallies(points) if counted is None else counted
    chosen = points.id.isin(set(ids)).to_numpy()[counted.row.to_numpy(int)]
    kind = ["what", "lang"]
    inside = counted.assign(chosen=chosen).groupby([*kind, "unit"], sort=False).chosen
    counted = counted.assign(chosen=inside.transform("any")).drop_duplicates([*kind, "value", "unit"])
    sizes = counted.drop_duplicates([*kind, "unit"]).groupby(kind).chosen.agg(units="size", taken="sum")
    found = counted[counted.value != ""].groupby([*kind, "value"], sort=False).chosen
    table = found.agg(count="sum", total="size").reset_index().join(sizes, on=kind)
    table = table[table.total >= LEAST]
    units, taken = table.pop("units").to_numpy(float), table.pop("taken").to_numpy(float)
    p = hypergeom.sf(table["count"] - 1, units, table.total, taken).clip(0, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = {"inside": table["count"] / taken, "outside": (table.total - table["count"]) / (units - taken)}
    table = (
        table.assign(**shares, p=p, p_holm=holm(p)).drop(columns="total").sort_values(["p", "inside"], ascending=[True, False])
    )
    table = table[table.inside > table.outside.fillna(0)].reset_index(drop=True)
    table.attrs = {"tests": len(p)}
    return table


def _grams(text: str) -> set[str]:
    said = words(text)
    return {*said, *(f"{a} {b}" for a, b in zip(said, said[1:], strict=False))}


def mark(right: bool) -> str:
    """✓ or ✗, in its colour."""
    sign, name = list(VERDICTS)[0 if right else 1].split()
    return f'<span style="color:{VERDICTS[f"{sign} {name}"]};font-weight:600" role="img" aria-label="{name}">{sign}</span>'


def thumbnail(group: str, pictures: Mapping[str, str], said: Mapping[str, list], size: int) -> str:
    """The picture of a group as HTML, with its first caption for those who do not see it; "" where there is none."""
    return pages.img(pictures.get(group), size, said[group][0][1] if said.get(group) else group)


def fares(rows: pd.DataFrame, most: int = 12) -> str:
    """HTML: how these rows of a meaning fare when they ask (`spaces.judged`); "" where nothing was judged."""
    if "rank" not in rows or not len(rows):
        return ""
    lines = []
    for row in rows[:most].itertuples():
        rank = "not asked" if np.isnan(row.rank) else f"{mark(row.correct)} {number(row.rank)}"
        lines.append([html.escape(language_name(row.lang)), rank, number(row.gap)])
    return f'<div style="{pages.FRAME}padding:4px 8px">{table(["asks", "rank of the answer", "gap"], lines)}</div>'


def near(asked: pd.Series, found: Iterable, pictures: Mapping[str, str], said: Mapping[str, list], dimensions: int) -> str:
    """HTML: what lies near the row `asked`: rows, as of `itertuples`, with `cosine` and `right`."""
    lines = []
    for row in found:
        if row.modality == "text":
            lines.append(f"<div>{mark(row.right)} {number(row.cosine)} {pages.bdi(row.lang, row.text)}</div>")
        else:
            card = f"{thumbnail(row.group, pictures, said, 40) or html.escape(row.id)}<br>{mark(row.right)}"
            lines.append(f'<span style="display:inline-block;margin:2px;text-align:center">{card}</span>')
    name = "the picture" if asked.modality == "image" else f"the text in {language_name(asked.lang)}"
    title = f"Nearest to {name}, in all {dimensions} dimensions"
    return f'<div style="{pages.FRAME}padding:0 8px"><b>{html.escape(title)}</b><br>{"".join(lines)}</div>'


def listed(
    points: pd.DataFrame,
    ids: Collection[str],
    pictures: Mapping[str, str],
    shown: Sequence[str],
    counted: pd.DataFrame | None = None,
    most: int = 12,
) -> str:
    """HTML of a selection: its numbers, what it has more of than the rest, and its meanings, widest mean gap first."""
    rows, judged = points[points.id.isin(set(ids))], "rank" in points
    told = [f"{len(rows):,} points", f"{rows.group.nunique():,} meanings"]
    told += [f"mean gap {number(rows['gap'].mean())}", f"median rank {number(rows['rank'].median())}"] if judged else []
    told += [f"{language_name(code)} {count:,}" for code, count in rows.lang.value_counts().items()]
    more = over_represented(points, ids, counted)
    lines = []
    for row in more[more.p_holm < 0.05][:most].itertuples():
        name = language_name(row.value) if row.what == "language" else row.value
        kind = f"{row.what}, {language_name(row.lang)}" if row.what == "words" else row.what
        shares = (f"{share:.0%}" for share in (row.inside, row.outside))
        lines.append([html.escape(kind), pages.bdi(row.lang, name), *shares, f"{row.p_holm:.1g}"])
    title = "What it has more of than the rest" if lines else "Nothing is clearly more frequent in it than in the rest"
    found = table(["more of", "", "inside", "outside", "p"], lines) + CIRCULAR if lines else ""
    found = f"<p><b>{title}</b> ({more.attrs['tests']:,} one-sided Fisher tests, Holm's correction)</p>{found}"
    said = captions(points[points.group.isin(rows.group)])
    means = rows.groupby("group", sort=False)[["gap", "rank"] if judged else []].mean()
    means = means.sort_values("gap", ascending=False) if judged else means
    lines = []
    for group, *values in means[:most].itertuples():
        texts = " · ".join(pages.bdi(code, text) for code, text in said[group] if code in shown)
        lines.append([thumbnail(group, pictures, said, 40), texts or html.escape(group), *(number(value) for value in values)])
    rest = f"<p>… and {len(means) - most:,} more.</p>" if len(means) > most else ""
    meanings = table(["", "meaning", *(["mean gap", "mean rank"] if judged else [])], lines)
    return f'<div style="{pages.FRAME}"><p><b>{" · ".join(told)}</b></p>{found}<p></p>{meanings}{rest}</div>'


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [("th", head), *(("td", line) for line in lines)]
    cells = ("".join(f'<{tag} style="{CELL}">{cell}</{tag}>' for cell in line) for tag, line in rows)
    return f'<table style="border-collapse:collapse">{"".join(f"<tr>{row}</tr>" for row in cells)}</table>'
