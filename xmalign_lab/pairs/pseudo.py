"""Pairs that a machine made: captions beside their translation and its way back, each row saying who made it of what.

The rows made here carry in `labels` "made" ("machine"), "by" (the model or the file) and "of" (the
caption's id), and where the output is not to be believed a "flag": "copied", or "empty" if nothing came back of it. What is
empty itself can be no row of a corpus: `judged` shows it too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from xmalign_lab.corpora.captions import KEYED
from xmalign_lab.corpora.lines import lines
from xmalign_lab.corpus import Corpus, CorpusError, Pairs, normalise
from xmalign_lab.encoders.classic import ClassicText
from xmalign_lab.pairs.augment import translated

CAPTION = re.compile(r"(?:.*:)?([^:#]+)#(\d+)(?::\w+)?")  # the id of a caption: vatex:sf2PPeXQrUA_000000_000010#3:eng_Latn
Made = tuple[Corpus, Pairs, dict[str, int]]
Translate = Callable[[list[str], str, str], Sequence[str]]


def pseudo_parallel(corpus: Corpus, lang: str, target: str, translate: Translate, by: str = "") -> Made:
    """Texts of `lang` beside their translation T into `target`, and beside its way back B: `(new rows only, pairs, counts)`.

    `translate(texts, source, target)` gives as many texts. The sources are `<lang>-<target>` and `<lang>-<lang>`. A pair's score
    is the agreement of the text with its B, the cosine of their letter n-grams, in [0, 1], and so is the weight; what is flagged
    has weight 0 and no score: a translator that has given up must not teach. A T that copies its text to the letter is a row
    too, so that it is seen; a B that does has said all by its score and is none. Each text counts once, as `empty`, `copied` or
    `kept`. `by` is by default the translator's `name`. After NRCCR's cycle (Wang et al. 2022, arXiv 2208.12526). Raises
    `CorpusError` if nothing came back, or not as many texts as were sent.
    """
    rows = corpus.where_rows(modality="text", lang=lang).rows
    sent = dict(zip(rows.id, rows.text, strict=True))
    there = _called(translate, sent, lang, target)
    back = _called(translate, there, target, lang)
    texts = {one: normalise(text) for one, text in sent.items()}
    flags = {one: _flag(text, there.get(one, ""), back.get(one, "")) for one, text in texts.items()}
    agreement = dict.fromkeys(texts, 0.0)
    if kept := [one for one in texts if not flags[one]]:
        before, after = (ClassicText().encode([of[one] for one in kept], progress=False).vectors for of in (sent, back))
        agreement |= dict(zip(kept, np.clip(np.asarray(before.multiply(after).sum(1)).ravel(), 0, 1).tolist(), strict=True))
    new, pairs = translated(corpus, there, lang, target)
    made = [new.rows]
    if changed := {one: text for one, text in back.items() if text != texts[one]}:
        new, returned = translated(corpus, changed, lang, lang)
        made, pairs = [*made, new.rows], pairs + returned
    exact = rows[rows.id.map(there) == rows.id.map(texts)]
    copies = exact.assign(id=exact.id + f"~{target}", lang=target, text=exact.id.map(there))
    pairs += Pairs(pd.DataFrame({"left": exact.id, "right": copies.id, "source": f"{lang}-{target}"}))
    made, of = pd.concat([*made, copies], ignore_index=True), dict(zip(pairs.rows.right, pairs.rows.left, strict=True))
    by = by or str(getattr(translate, "name", getattr(translate, "__name__", "")))
    of_row = [{"made": "machine", "by": by, "of": of[one], "flag": flags[of[one]]} for one in made.id]
    made["labels"] = [old | {key: new[key] for key in new if new[key]} for old, new in zip(made.labels, of_row, strict=True)]
    counts = {name: [*flags.values()].count(name.removeprefix("kept")) for name in ("empty", "copied", "kept")}
    weight = pairs.rows.left.map(agreement)
    return replace(corpus, rows=made), pairs.assign(weight=weight, score=weight.where(pairs.rows.left.map(flags) == "")), counts


def _called(translate: Translate, texts: Mapping[str, str], lang: str, target: str) -> dict[str, str]:
    """What `translate` makes of the texts, by id, without the empty ones."""
    answers = translate(list(texts.values()), lang, target)
    if len(answers) != len(texts):
        raise CorpusError(f"translating {lang} into {target}: {len(texts)} texts were sent and {len(answers)} came back")
    found = {row_id: tidy for row_id, text in zip(texts, answers, strict=True) if (tidy := normalise(text or ""))}
    if not found:
        raise CorpusError(f"translating {lang} into {target}: all {len(texts)} outputs are empty")
    return found


def _flag(text: str, there: str, back: str) -> str:
    copied = there and there.casefold() in (text.casefold(), back.casefold())
    return "copied" if copied else "" if there and back else "empty"


def from_lines(corpus: Corpus, lang: str, target: str, path: str | Path, back: str | Path | None = None) -> Made:
    """`pseudo_parallel` with translations that are there: a file, plain or .gz, and perhaps one with their ways back.

    Line n belongs to the n-th text of `lang`; or each line begins with its caption's key, `name#0<TAB>…` or `video#enc2zh#0 …`,
    and pictures that the corpus does not have are passed over. An empty line is a translation that failed. Without `back`,
    weights are 1, or 0 for what is flagged, and there are no scores. Raises `CorpusError` with file and line for a text without
    a line and the reverse.
    """
    rows = corpus.where_rows(modality="text", lang=lang).rows
    there = _said(Path(path), rows)
    again = _said(Path(back), rows) if back else [*rows.text]

    def from_file(texts: list[str], source: str, into: str) -> list[str]:
        return there if into == target else [text for text, before in zip(again, there, strict=True) if before.strip()]

    new, pairs, counts = pseudo_parallel(corpus, lang, target, from_file, Path(path).name)
    return new, pairs if back else pairs.assign(weight=pairs.rows.score.notna().astype(float), score=float("nan")), counts


def _said(path: Path, rows: pd.DataFrame) -> list[str]:
    """What a file says of each row."""
    said, found = {}, lines(path)
    keyed = bool(found and KEYED.fullmatch(found[0]))
    ids = [CAPTION.fullmatch(row_id) for row_id in rows.id] if keyed else []
    keys = [match and (match[1], int(match[2])) for match in ids] or [*range(len(rows))]
    wanted, pictures = set(keys), {match[1] for match in ids if match}
    for number, line in enumerate(found, 1):
        match = KEYED.fullmatch(line) if keyed else None
        key = (match[1].split(".")[0], int(match[3])) if match else number - 1
        if key in said or (key not in wanted and (not match or key[0] in pictures)):
            raise CorpusError(f"{path}, line {number}: no text for this line; {len(found)} lines, {len(rows)} texts")
        said[key] = match[4] if match else line
    for row_id, key in zip(rows.id, keys, strict=True):
        if key not in said:
            raise CorpusError(f"{path}, line {len(found) + 1}: none for {row_id!r}; {len(found)} lines, {len(rows)} texts")
    return [said[key] for key in keys]


def judged(corpus: Corpus, made: Corpus, pairs: Pairs, lang: str) -> pd.DataFrame:
    """A row per text of `lang`: `id, text, translation, back, score, weight, flag`; the flag is "empty" where nothing was made.

    `made` and `pairs` are of one target. To see what to believe: `judged(…).score.hist()`, or `.sort_values("score")`.
    """
    of = made.rows.labels.map(lambda labels: labels["of"])
    there, back = (made.rows[mask].set_index(of[mask]) for mask in (made.rows.lang != lang, made.rows.lang == lang))
    pair = pairs.rows.drop_duplicates("left").set_index("left")
    rows = corpus.where_rows(modality="text", lang=lang).rows.set_index("id")[["text"]]
    flag = there.labels.map(lambda labels: labels.get("flag", ""))
    table = rows.assign(translation=there.text, back=back.text, score=pair.score, weight=pair.weight, flag=flag)
    table["back"] = table.back.where(table.back.notna() | table.score.isna(), table.text.map(normalise))
    return table.fillna({"translation": "", "back": "", "weight": 0.0, "flag": "empty"}).reset_index()
