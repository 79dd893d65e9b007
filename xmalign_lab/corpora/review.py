"""The review of the grammars: a table for a native speaker to sign, and the signature put into the lexicon.

Every form a caption can hold and a sample of whole captions stand in one CSV. The speaker answers each row with
yes or no, writes a correction beside a no, and a name. Only a table that answers every row with yes signs a language.
"""

from __future__ import annotations

import csv
from pathlib import Path

from xmalign_lab.corpora import grammar
from xmalign_lab.corpora.grammar import Scene, caption, check_languages, forms, lexicon
from xmalign_lab.corpora.lines import records
from xmalign_lab.corpus import CorpusError, normalise
from xmalign_lab.profile import csv_rows

COLUMNS = ("language", "kind", "about", "form", "meaning", "ok?", "correction", "reviewer")
ANSWERS = ("yes", "no", "")


def sample() -> list[Scene]:
    """36 scenes for whole captions: every shape in every colour, and in every number, size and place."""
    counts, places = len(grammar.NUMBERS), grammar.PLACES
    return [
        Scene(shape, colour, grammar.SIZES[(i + j // 3) % 2], (i + j) % counts + 1, places[(i + j) % len(places)])
        for i, shape in enumerate(grammar.SHAPES)
        for j, colour in enumerate(grammar.COLOURS)
    ]


def questions(lang: str) -> list[dict[str, str]]:
    """The rows to be answered for one language: its word forms, then the sample of captions."""
    rows = [("word", f"{concept} ({agrees})", form, lexicon()[lang][concept].gloss) for concept, agrees, form in forms(lang)]
    rows += [("caption", f"scene:{scene.number}", caption(scene, lang), caption(scene, "eng_Latn")) for scene in sample()]
    return [dict(zip(COLUMNS, (lang, *row, "", "", ""), strict=True)) for row in rows]


def write_review(path, languages=None) -> Path:
    """Write the table for `languages` (default: all), with empty answers; UTF-8 with a mark, which spreadsheets need.

    Raises `FileExistsError` rather than write over answers, `CorpusError` for a language without a grammar.
    """
    path, rows = Path(path), [row for lang in check_languages(languages) for row in questions(lang)]
    if path.exists():
        raise FileExistsError(f"{path} is there already, perhaps with answers; name another file")
    with open(path, "x", encoding="utf-8-sig", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    return path


def read_review(path) -> dict[str, str]:
    """The languages a returned table signs, `{language: reviewer}`: every question there, every answer yes, and a name.

    A no or an empty answer leaves its language unsigned. Raises `CorpusError` with file and line for a missing
    column, an unknown language, an answer other than yes or no, a no without correction, a row that our
    grammar does not ask (it has changed, or the form was edited in place), or a row that occurs twice.
    """
    asked, answers, names = {lang: {_key(question) for question in questions(lang)} for lang in lexicon()}, {}, {}
    for number, record in records(Path(path), ",", COLUMNS):
        row = {name: normalise(record[name]) for name in COLUMNS}
        where, lang = f"{path}, line {number}", row["language"]
        if lang not in asked:
            raise CorpusError(f"{where}: no grammar for language {lang!r}; there are {', '.join(asked)}")
        answer, key = row["ok?"].lower(), _key(row)
        if answer not in ANSWERS:
            raise CorpusError(f"{where}: the answer in 'ok?' is {row['ok?']!r}; write yes or no, or leave it empty")
        if answer == "no" and not row["correction"]:
            raise CorpusError(f"{where}: a no needs what is right in the column 'correction'")
        if key not in asked[lang]:
            raise CorpusError(f"{where}: {row['form']!r} is not asked for {row['about']!r}; corrections go into 'correction'")
        if key in answers:
            raise CorpusError(f"{where}: this question occurs twice")
        answers[key] = answer
        if row["reviewer"]:
            names.setdefault(lang, {})[row["reviewer"]] = None
    complete = [lang for lang in asked if all(answers.get(key) == "yes" for key in asked[lang])]
    return {lang: ", ".join(names[lang]) for lang in complete if lang in names}


def _key(row: dict) -> tuple:
    return tuple(row[name] for name in COLUMNS[:4])


def sign(path, lexicon_path=grammar.LEXICON) -> dict[str, str]:
    """Put the names of `read_review(path)` into the lexicon's column `reviewer`; returns what was signed."""
    signed, rows = read_review(path), csv_rows(lexicon_path)
    with open(lexicon_path, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(row | {"reviewer": signed.get(row["lang"], row["reviewer"])} for row in rows)
    lexicon.cache_clear()
    return signed
