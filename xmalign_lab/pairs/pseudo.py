"""Pairs that a machine made: captions beside their translation and its way back, each row saying who made it of what.

Over `augment.round_trip`. The rows made here carry in `labels` "made" ("machine"), "by" (the model or the file) and "of" (the
caption's id), and where the output is not to be believed a "flag": "copied", or "empty" if nothing came back of it. What is
empty itself can be no row of a corpus: `judged` shows it too.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd

from xmalign_lab.corpora.captions import KEYED
from xmalign_lab.corpora.lines import lines
from xmalign_lab.corpus import Corpus, CorpusError, Pairs, normalise
from xmalign_lab.pairs.augment import Translate, round_trip

CAPTION = re.compile(r"(?:.*:)?([^:#]+)#(\d+)(?::\w+)?")  # the id of a caption: vatex:sf2PPeXQrUA_000000_000010#3:eng_Latn
Made = tuple[Corpus, Pairs, dict[str, int]]


def pseudo_parallel(corpus: Corpus, lang: str, target: str, translate: Translate, by: str = "") -> Made:
    """Texts of `lang` beside their translation T into `target`, and beside its way back B: `(new rows only, pairs, counts)`.

    The sources are `<lang>-<target>` and `<lang>-<lang>`. A pair's score is the agreement of the text with its B, and so is the
    weight (`round_trip`); what is flagged has weight 0 and no score. A T that copies its text to the letter is a row too, so
    that it is seen; a B that does has said all by its score and is none. Each text counts once, as `empty`, `copied` or `kept`.
    `by` is by default the translator's `name`. Raises as `round_trip`.
    """
    rows, answers = corpus.where_rows(modality="text", lang=lang).rows, []

    def noted(texts: list[str], source: str, into: str) -> list[str]:
        answers.append([normalise(text or "") for text in translate(texts, source, into)])
        return answers[-1]

    new, pairs, _ = round_trip(corpus, lang, target, noted)
    there = dict(zip(rows.id, answers[0], strict=True))
    back = dict(zip([one for one in there if there[one]], answers[1], strict=True))
    flags = {one: _flag(normalise(text), there[one], back.get(one, "")) for one, text in zip(rows.id, rows.text, strict=True)}
    exact = rows[rows.id.map(flags).eq("copied") & ~(rows.id + f"~{target}").isin(new.rows.id)]
    copies = exact.assign(id=exact.id + f"~{target}", lang=target, text=exact.id.map(there))
    pairs += Pairs(pd.DataFrame({"left": exact.id, "right": copies.id, "weight": 0.0, "source": f"{lang}-{target}"}))
    made, of = pd.concat([new.rows, copies]), dict(zip(pairs.rows.right, pairs.rows.left, strict=True))
    by = by or str(getattr(translate, "name", getattr(translate, "__name__", "")))
    of_row = [{"made": "machine", "by": by, "of": of[one], "flag": flags[of[one]]} for one in made.id]
    made["labels"] = [old | {key: new[key] for key in new if new[key]} for old, new in zip(made.labels, of_row, strict=True)]
    counts = {name: [*flags.values()].count(name.removeprefix("kept")) for name in ("empty", "copied", "kept")}
    score = pairs.rows.weight.where(pairs.rows.left.map(flags) == "")
    return replace(corpus, rows=made), pairs.assign(score=score), counts


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
