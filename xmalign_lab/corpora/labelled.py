"""Texts with a class each, the same task in many languages: SIB-200 (topics), NusaX and AfriSenti (sentiment)."""

from __future__ import annotations

from xmalign_lab.corpora.lines import Root, choose, corpus, records, sources
from xmalign_lab.corpus import Corpus, CorpusError


def load(name: str, languages: list[str] | None = None, split: str | None = None, root: Root = None) -> Corpus:
    """A labelled source as a corpus: rows of kind 'caption' with labels `{"topic": …}` or `{"sentiment": …}`.

    The item's id is the group, so SIB-200 and NusaX are parallel corpora too. Records without text are left out with a
    warning. Raises `CorpusError` naming file and line for a missing column or label, an id that occurs twice in a
    language, and an item whose label differs between languages.
    """
    form, rows, seen, classes = sources()[name], [], {}, {}
    for file in choose(name, languages, split, root):
        columns = [column for column in (form.item, form.text, form.label) if column]
        for line, record in records(file.path, "," if ".csv" in file.path.suffixes else "\t", columns):
            where, label = f"{file.path}, line {line}", record[form.label].strip()
            item = record[form.item].strip() if form.item else f"{file.lang}:{file.split}:{line}"
            if not (label and item):
                raise CorpusError(f"{where}: {form.item if label else form.label!r} is empty")
            if seen.setdefault((item, file.lang), where) is not where:
                raise CorpusError(f"{where}: {form.item} {item!r} occurs twice, first in {seen[item, file.lang]}")
            agreed, first = classes.setdefault(item, (label, where))
            if label != agreed:
                raise CorpusError(f"{where}: {form.item} {item!r} is {label!r}, but {agreed!r} in {first}")
            group, labels = f"{name}:{item}", {form.says: label}
            text = record[form.text]
            rows.append(((file.path, line), f"{group}:{file.lang}", group, file.lang, text, "caption", file.split, labels))
    return corpus(name, rows)
