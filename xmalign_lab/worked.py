"""From files of your own to a model that can be kept, and a page that says whether it worked: notebook 10, step by step."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from xmalign_lab import languages, ridge, style
from xmalign_lab.baselines import need_parallel, teacher
from xmalign_lab.corpora.lines import lines
from xmalign_lab.corpus import Corpus, CorpusError, concatenate
from xmalign_lab.encoders.features import Features
from xmalign_lab.evaluate import report
from xmalign_lab.heads import Linear, SparseInput
from xmalign_lab.model import Aligner
from xmalign_lab.pairs.augment import translated
from xmalign_lab.study import Task
from xmalign_lab.train import Recipe


def with_translations(corpus: Corpus, path: str | Path, lang: str, pivot: str = "eng_Latn") -> tuple[Corpus, dict[str, int]]:
    """`corpus` and the translations in a file: line n is that of its nth text in `pivot`, in the order of the table.

    An empty line is a translation that is lacking; a line that repeats the original is left out, as a translator that has given
    up must neither teach nor be asked (which also drops names spelled alike). The dict counts `translated`, `empty` and
    `copied`. Raises `CorpusError` naming file and line for a file with too many or too few lines, or that `lines` cannot read.
    """
    texts, found = corpus.where_rows(modality="text", lang=pivot).rows, lines(Path(path))
    if len(found) != len(texts):
        line, where = min(len(found), len(texts)) + 1, corpus.where or corpus.name
        raise CorpusError(
            f"{path}, line {line}: the file has {len(found):,} lines where {where} has {len(texts):,} texts in {pivot}; "
            "line n translates text n, and an empty line stands for a missing one"
        )
    new, _ = translated(corpus, dict(zip(texts.id, found, strict=True)), pivot, languages.normalise(lang))
    empty = sum(not line.strip() for line in found)
    counts = {"translated": len(new), "empty": empty, "copied": len(found) - len(new) - empty}
    return concatenate([corpus, new], corpus.name), counts


def joined(corpus: Corpus, findings: pd.DataFrame) -> Corpus:
    """`corpus` with the families joined that `check_table` ties to each other, directly or over others: no split parts them."""
    names, of_row = np.unique(corpus.rows.family.astype(str), return_inverse=True)
    number = pd.Series(of_row, corpus.rows.id)
    ends = [number[findings[side]].to_numpy() for side in "ab"]
    graph = sparse.coo_matrix((np.ones(len(findings)), ends), shape=(len(names), len(names)))
    part = sparse.csgraph.connected_components(graph, directed=False)[1]
    return replace(corpus, rows=corpus.rows.assign(family=names[np.unique(part, return_index=True)[1]][part[of_row]]))


def kept(task: Task, recipe: Recipe) -> Aligner:
    """`baselines.kernel_ridge` as a model to keep: its text head encodes texts of the task's target, not of the pivot.

    The ridge's map is linear in a row's columns, x · (Rᵀ dual) with R the training rows at unit length, so it is a linear head,
    exactly; a text without a known n-gram gets the mean of the training vectors, as there. The pictures' head is the
    teacher's. Several targets share one map, which is not what `kernel_ridge` does with them.
    """
    need_parallel(task, "nothing to regress on")
    master, take, rows = teacher(task, recipe), task.features["text"].take, task.parallel.rows
    goal = master.encode_text(Features(ids := rows.left.unique(), take(ids)))[pd.Index(ids).get_indexer(rows.left)]
    families = rows.left.map(task.corpus.lookup("family")).to_numpy()
    learned, _ = ridge.fit(take(rows.right), goal, families, rows.weight.to_numpy(float))
    known = SparseInput.fit(learned.rows, 1)
    table = known.prepare(learned.rows).T @ learned.dual / known.size.numpy()[:, None]  # columns that share a row share it
    head = Linear(len(known.place), known.inner, 0, table.shape[1], True, 0.0, 0.0, known)
    with torch.no_grad():
        head.table.copy_(torch.from_numpy(table))
        head.bias.copy_(torch.from_numpy(1e-6 * learned.middle / np.linalg.norm(learned.middle)))
    return Aligner(master.heads["image"], head).eval()


def verdict(
    comparison: report.Comparison, lang: str, method: str, nothing: str, english: tuple[float, float, float], chance: float
) -> tuple[bool, str]:
    """Whether `method` worked in `lang`, and the sentence that says so, from the intervals and tests alone.

    It worked unless one of three things holds, the first of which is named: English, `english` (value, low, high), is itself not
    above `chance`, an MRR; `method` is not shown to beat `nothing`, the row without any translation; another row beats it.
    """
    rows = comparison.table[comparison.table.lang == lang].set_index("method")
    mine, name = rows.loc[method], languages.info(lang).name
    numbers = {name: mine[["value", "low", "high"]], "no translation at all": rows.loc[nothing, ["value", "low", "high"]]}
    said = ", ".join(f"{of} {v:.3f} [{low:.3f}, {high:.3f}]" for of, (v, low, high) in (numbers | {"English": english}).items())
    winners = rows.index[rows.beats.map(lambda beaten: mine.letter in beaten)]
    ways = {
        "even in English a caption is not shown to find its picture, which no translation can mend": english[1] <= chance,
        "the translations are not shown to add anything: they are too few, too wrong, or not in the language they claim": (
            rows.letter[nothing] not in mine.beats
        ),
        f"{', '.join(winners)} does better with the same files; keep that instead": len(winners) > 0,
    }
    why = next((way for way, so in ways.items() if so), "")
    start = f"it is not shown to work: {why}" if why else f"it worked: {name} captions find pictures that had none in {name}"
    return not why, f"{start}. {comparison.metric}: {said}; guessing {chance:.3f}."


def between(comparison: report.Comparison, lang: str, mine: str, cannot: str, must: str) -> str:
    """Where the row `mine` lies between two controls: `cannot`, which cannot work in `lang`, and `must`, which has to.

    (mine − cannot) / (must − cannot), with what the tests show of either end. Where they do not show that `must` beats `cannot`,
    these files tell nothing from nothing, and there is no place to give.
    """
    rows = comparison.table[comparison.table.lang == lang].set_index("method").loc[[cannot, mine, must]]
    said = ", ".join(f"{name} {row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" for name, row in rows.iterrows())
    low, value, high = rows.value

    def beats(a: str, b: str) -> bool:
        return rows.letter[b] in rows.beats[a]

    if not beats(must, cannot):
        where = "the two controls are not shown to differ: whatever the lines, these files are too few to tell"
    else:
        ends = "" if beats(mine, cannot) else "not ", "" if beats(must, mine) else "not "
        where = f"{mine}, {(value - low) / (high - low):.0%} of the way from {cannot} to {must}"
        where += f"; {ends[0]}shown to beat the first, {ends[1]}shown to be behind the second"
    return f"{where}. {comparison.metric}: {said}."


def page(title: str, worked: bool, sentence: str, parts: Mapping[str, str]) -> str:
    """A page that needs nothing from outside: the verdict, then `parts`, {heading: HTML}."""
    body = "".join(f"<h2>{html.escape(heading)}</h2>{part}" for heading, part in parts.items())
    said, colour = html.escape(sentence[:1].upper() + sentence[1:]), style.BLUE if worked else style.ORANGE
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{CSS}</style>'
    start = f'<!doctype html><html lang="en"><head>{head}<title>{html.escape(title)}</title></head><body>'
    return f'{start}<h1>{html.escape(title)}</h1><p style="border-color:{colour}">{said}</p>{body}</body></html>\n'


CSS = """:root{color-scheme:light dark}body{font:16px/1.5 system-ui,'Noto Sans',sans-serif;max-width:60em;margin:2em auto}
body{padding:0 1em}h2{margin-top:2em}h1+p{border-left:6px solid;padding:.5em 1em;font-size:1.1em}table{border-collapse:collapse}
th,td{padding:.25em .8em;text-align:right;border-bottom:1px solid #8884;vertical-align:top}
pre{overflow-x:auto;padding:.8em;background:#8882;border-radius:6px}"""
