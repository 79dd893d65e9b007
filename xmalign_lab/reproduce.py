"""Published figures, made again: a public model on a public set, through the bench's own evaluation.

`published.toml` holds the figures with their sources and protocols. What comes out more than a point away is an error here,
or in the files, or in the publication; none of them may go unnoticed. Figures of transfer, which no public model makes again, are
there too: `crossmodal` prints its own beside them.
"""

from __future__ import annotations

import difflib
import html
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from xmalign_lab import corpora
from xmalign_lab import languages as codes
from xmalign_lab.corpora.lines import Root, files
from xmalign_lab.corpus import Corpus, CorpusError
from xmalign_lab.encoders.cache import encode
from xmalign_lab.encoders.features import Encoder
from xmalign_lab.evaluate import significance
from xmalign_lab.evaluate.retrieval import METRICS, Protocol, Side, per_query, rank_queries, sum_r
from xmalign_lab.similarity import unit

TABLES = Path(__file__).with_name("published.toml")
POINT = 1.0
Names = list[str] | None
MEASURES = [f"{direction} R@{k}" for direction in ("text→image", "image→text") for k in (1, 5, 10)] + ["SumR"]
DRAWS = 10_000
COLUMNS = ["model", "language", "direction", "metric", "published"]


def published(name: str | None = None, model: str | None = None, languages: Names = None) -> pd.DataFrame:
    """The published figures, `set, model, language, direction, metric, published, captions, gallery, source`, those asked for.

    Raises `CorpusError`, listing the nearest names, for a set, a model or a language that no figure is about.
    """
    parts = [pd.DataFrame(one.pop("figures"), columns=COLUMNS).assign(**one) for one in contents()["tables"]]
    found = pd.concat(parts, ignore_index=True)
    spoken = [code if code == "all" else codes.normalise(code) for code in languages or ()]
    for column, wanted in {"set": [name], "model": [model], "language": spoken}.items():
        known = found[column].unique().tolist()
        for one in filter(None, wanted):
            if one not in known:
                near = difflib.get_close_matches(one, known, n=3, cutoff=0.3) or known
                raise CorpusError(f"no published figure of {column} {one!r}; there are {', '.join(near)}")
        found = found[found[column].isin([one for one in wanted if one] or known)]
    return found.reset_index(drop=True)


def contents() -> dict:
    """What `published.toml` holds: models, tables, transfer, unpublished, towers, read_as."""
    return tomllib.loads(TABLES.read_text(encoding="utf-8"))


def transferred(name: str | None = None, target: str | None = None) -> pd.DataFrame:
    """Confirmed figures of cross-lingual cross-modal transfer, of a set and a target language or of all.

    `set, version, method, language, measure, published, image, gallery, trained, protocol, source`: SumR and recalls in per cent,
    or the mean of the six recalls ("average recall"). What is "" or 0 the source, as far as it was read, does not say.
    """
    parts = []
    for one in contents()["transfer"]:
        wide = pd.DataFrame(one.pop("figures"), columns=["method", "language", *one.pop("measures")])
        parts.append(wide.melt(["method", "language"], var_name="measure", value_name="published").assign(**one))
    found = pd.concat(parts, ignore_index=True)
    return found[(found.set == (name or found.set)) & (found.language == (target or found.language))].reset_index(drop=True)


def beside(table: pd.DataFrame, known: pd.DataFrame, here: Mapping[str, object], note: str = "") -> pd.DataFrame:
    """`table` (`method`, `measure`, …) with the columns `published` and `why`: the figure of `known` (`transferred`), and its
    protocol with a `note`; or nothing, and why there is none: "ours" if nobody published the method on this set. `here` are
    columns of `known` in which it has to agree with us.
    """
    reasons = contents()["unpublished"]

    def cell(row) -> tuple[float, str]:
        same = known[(known.method == row.method) & (known.measure == row.measure)]
        reason = reasons.get(row.method, "not given by the source" if row.method in known.method.values else "ours")
        for column, value in here.items():
            if len(same):
                told = " or ".join(str(one or "unknown") for one in same[column].unique())
                reason = f"published with {column} {told}, not {value}"
            same = same[same[column] == value]
        return (np.nan, reason) if same.empty else (same.published.iloc[0], same.protocol.iloc[0] + note)

    cells = [cell(row) for row in table.itertuples()]
    return table.assign(published=[figure for figure, _ in cells], why=[reason for _, reason in cells])


def plain(text: str) -> str:
    """Letters and digits alone, without case: what tokenising and lower-casing leave of a text."""
    return re.sub(r"[\W_]+", "", html.unescape(text).casefold())


def as_people_wrote(made: pd.DataFrame, source: str, target: str, root: Root = None) -> tuple[np.ndarray, int]:
    """Which rows of `made` (n,) are, by `plain`, a human caption of their group, and how many have such captions to compare.

    The captions are those in `target` of all versions and splits of `source` that are there, but the machine's. A version that
    cannot be read is named and passed over: nobody asked for it.
    """
    wrote: set[tuple[str, str]] = set()
    there = {one.version: one.lang for one in files(source, root) if one.lang in ("", target)}
    for version, lang in there.items() - {("google", target), ("back", target)}:
        try:
            rows = corpora.load(source, [lang] if lang else None, root=root, version=version).where_rows(lang=target).rows
            wrote |= set(zip(rows.group, rows.text.map(plain), strict=True))
        except CorpusError as error:
            print(f"not compared with the translations: {error}")
    same = [one in wrote and one[1] != "" for one in zip(made.group, made.text.map(plain), strict=True)]
    return np.array(same, bool), int(made.group.isin({group for group, _ in wrote}).sum())


def figures(found: Mapping[str, list[pd.DataFrame]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`method, measure, here, low, high` of each measure, and of every two methods the paired test of their SumR.

    In per cent; every picture counts once, however many captions it has; intervals are over pictures (families), and over seeds
    where there are three or more (two are averaged). p is the larger of bootstrap and permutation, p_holm corrected for all.
    """
    tables = [[per_picture(scores) for scores in of] for of in found.values()]
    index = tables[0][0].index
    values = np.array([[one.loc[index].to_numpy().T for one in of] for of in tables]).transpose(0, 2, 1, 3)
    values = values if values.shape[2] > 2 else values.mean(2, keepdims=True)
    drawn = significance.pairwise(values, index.get_level_values("family").to_numpy(), DRAWS)
    table = pd.DataFrame(drawn, columns=["method", "other", "measure", "here", "low", "high", "p", "p_flipped", "smallest"])
    table = table[table.measure < len(MEASURES)].sort_values(["method", "other", "measure"])  # behind them, their mean
    table = table.assign(measure=table.measure.map(MEASURES.__getitem__), p=table[["p", "p_flipped"]].max(axis=1))
    table[["method", "other"]] = table[["method", "other"]].map(list(found).__getitem__)
    tests = table[(table.method != table.other) & (table.measure == "SumR")].rename(columns={"here": "difference"})
    tests = tests.assign(p_holm=significance.holm(tests.p.to_numpy()) if len(tests) else [])
    kept = ["method", "other", "difference", "low", "high", "p", "p_holm"]
    return table[table.method == table.other][["method", "measure", "here", "low", "high"]], tests[kept]


def per_picture(scores: pd.DataFrame) -> pd.DataFrame:
    """`MEASURES` in per cent, a row per picture (and its family): what a picture's captions reach on average."""
    index = ["query", "family"]
    hits = {k: per_query(scores, f"R@{k}").pivot(index=index, columns="direction", values="value") for k in (1, 5, 10)}
    table = pd.concat([100 * part.add_suffix(f" R@{k}") for k, part in hits.items()], axis=1)
    return table.assign(SumR=sum_r(scores).set_index(index).value)[MEASURES]


def listed(table: pd.DataFrame) -> str:
    """A table as text, its sources below: one decimal, four of a p, nothing where there is no number."""
    small = {name: "{:.4f}".format for name in ("p", "p_holm")} | {"gallery": lambda size: str(size or "")}
    shown = table.drop(columns="source", errors="ignore").to_string(index=False, na_rep="", float_format="%.1f", formatters=small)
    return "\n".join([shown, *(f"published: {one}" for one in table.get("source", pd.Series(dtype=str)).unique())])


def zero_shot(pictures: np.ndarray, truth: np.ndarray, prompts: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Whether each picture (n, d) is nearest to its own class: (n,) bool; `truth` (n,) and `classes` (m,) name them.

    A class is the direction of the mean of its prompts (m, d), all of unit length (Radford et al. 2021, arXiv 2103.00020).
    """
    known, place = np.unique(classes, return_inverse=True)
    centres = np.zeros((len(known), prompts.shape[1]))
    np.add.at(centres, place, prompts)
    return known[(pictures @ unit(centres).T).argmax(1)] == truth


def measure(figures: pd.DataFrame, corpus: Corpus, image: Encoder, text: Encoder) -> pd.DataFrame:
    """The figures of one set and model with the columns `here` and `difference`, in per cent, by a pair of encoders.

    Each encoder sees the rows of its modality, the text encoder those of one language at a time. Every caption is a query,
    as published, so a picture with more captions counts for more. Raises `CorpusError` for a gallery (of pictures, or of
    classes with pictures) of another size than the published one.
    """
    shown, firsts = _side(corpus.where_rows(modality="image"), image), set(figures.captions) == {"first"}

    @cache
    def texts(lang: str) -> Side:
        written = corpus.where_rows(modality="text", lang=lang)
        return _side(written.select(~written.rows.group.duplicated()) if firsts else written, text)

    def value(figure, lang: str) -> float:
        if figure.metric == "accuracy":
            mine = shown.rows(np.isin(shown.groups.astype(str), texts(lang).groups.astype(str)))
            hits, size = zero_shot(mine.vectors, mine.groups, texts(lang).vectors, texts(lang).groups), len(set(mine.groups))
        else:
            sides = (texts(lang), shown) if figure.direction == "text→image" else (shown, texts(lang))
            scores = rank_queries(*sides, lang, figure.direction, corpus.name, Protocol(captions=figure.captions))
            hits, size = METRICS[figure.metric](scores["rank"].to_numpy()), len(shown.ids)
        if size != figure.gallery:
            what = "classes" if figure.metric == "accuracy" else "pictures"
            raise CorpusError(f"{corpus.name}: in {lang} {figure.metric} is published over {figure.gallery} {what}, not {size}")
        return 100 * float(hits.mean())

    langs = {"all": corpus.languages}
    here = [np.mean([value(row, lang) for lang in langs.get(row.language, [row.language])]) for row in figures.itertuples()]
    return figures.assign(here=here, difference=here - figures.published)


def _side(corpus: Corpus, encoder: Encoder) -> Side:
    features, rows = encode(corpus, encoder), corpus.rows
    return Side(unit(features.take(rows.id)), rows.id.to_numpy(), rows.group.to_numpy(), rows.family.to_numpy())


def encoders(model: str, folder: Root = None) -> tuple[Encoder, Encoder]:
    """The image and the text encoder of a model of the table, from open_clip's folder `folder` or else from the hub."""
    from xmalign_lab.encoders.clip import OpenClip

    tables = contents()
    settings = tables["models"][model]
    instead = next((told for begin, told in tables["read_as"].items() if model.startswith(begin)), {})
    place = (f"local-dir:{folder}", None) if folder else (settings["open_clip"], settings["weights"])
    clip = OpenClip(*place, instead=instead)
    return clip.images, clip.texts


def run(
    name: str, model: str, languages: Names = None, root: Root = None, images: Root = None, folder: Root = None
) -> pd.DataFrame:
    """The published figures of a model on a set, in some languages or all, measured here: see `published` and `measure`."""
    figures = published(name, model, languages)
    spoken = None if "all" in set(figures.language) else sorted(set(figures.language))
    options = {"prompts": True} if name == "babel_imagenet" else {}
    corpus = corpora.load(name, spoken, root=root, images=images, **options)
    if "image" not in set(corpus.rows.modality):
        raise CorpusError(f"{name}: there are no pictures; you need {corpora.cards()[name]['pictures']}")
    corpus.picture(corpus.rows.id[corpus.rows.modality == "image"].iloc[0])  # no model is fetched for pictures that are not there
    return measure(figures, corpus, *encoders(model, folder))


def verdict(figures: pd.DataFrame) -> str:
    """What is more than a point from its published figure, in one line; '' if nothing is."""
    far = figures[figures.difference.abs() > POINT].itertuples()
    said = [f"{one.language} {one.direction} {one.metric} {one.here:.1f}, published {one.published:g}" for one in far]
    more = f"{len(said)} of {len(figures)} figures are more than a point from the published ones"
    return f"{more}: {'; '.join(said)}" if said else ""
