"""Sentences with their translations: FLORES-200, NTREX-128, Tatoeba as line-aligned files; Belebele's passages and questions.

FLORES-200 asks not to be trained on, and SIB-200 and Belebele are made of its sentences: keep them for evaluation.
"""

from __future__ import annotations

import json

from xmalign_lab import languages as codes
from xmalign_lab.corpora.lines import Found, Root, choose, corpus, lines, records
from xmalign_lab.corpus import Corpus, CorpusError


def load(name: str, languages: list[str] | None = None, split: str | None = None, root: Root = None) -> Corpus:
    """Line-aligned files as a corpus: line n of every file is one group, each line a row of kind 'caption'.

    Tatoeba pairs each language with English sentences of its own, so there a group belongs to its pair and English comes
    along. FLORES's metadata become labels where its files are there. Lines without text are left out with a warning.
    Raises `CorpusError` for files of different length, naming both, and for languages or splits that are not there.
    """
    rows, first = [], {}
    for file in choose(name, languages, split, root):
        texts = lines(file.path)
        count, path = first.setdefault((file.other, file.split), (len(texts), file.path))
        if len(texts) != count:
            line = min(len(texts), count) + 1
            raise CorpusError(f"{file.path}, line {line}: the file has {len(texts)} lines where {path} has {count}")
        aligned = ":".join(filter(None, (name, file.other, file.split)))
        for number, (text, labels) in enumerate(zip(texts, _metadata(file, count), strict=True), 1):
            group = f"{aligned}:{number}"
            rows.append(((file.path, number), f"{group}:{file.lang}", group, file.lang, text, "caption", file.split, labels))
    return corpus(name, rows)


def _metadata(file: Found, count: int) -> list[dict[str, str]]:
    """What FLORES's `metadata_dev.tsv` says of each line, or nothing."""
    path = file.path.parent.parent / f"metadata_{file.path.parent.name}.tsv"
    found = [record for _, record in records(path, "\t")] if path.is_file() else [{}] * count
    if len(found) != count:
        raise CorpusError(f"{path}: {len(found)} records where {file.path} has {count} lines")
    return found


def load_passages(name: str, languages: list[str] | None = None, split: str | None = None, root: Root = None) -> Corpus:
    """Belebele: each passage is a row of kind 'passage', each question one of kind 'question', the query that it answers.

    Both have the group of the passage, its `link` (with `split`, where the files have one); a question's labels hold its
    number, the right answer and the four to choose from. Raises `CorpusError` naming file and line for a row that is not
    Belebele's, a question that occurs twice, a second passage under one link, a row of another language than its file.
    """
    rows, seen = [], {}
    for file in choose(name, languages, split, root):
        for number, line in enumerate(lines(file.path), 1):
            if not line.strip():
                continue
            try:
                item = json.loads(line)
                asked, passage = (item["question"], item["question_number"]), item["flores_passage"]
                group = ":".join(str(item[key]) for key in ("link", "split") if key == "link" or key in item)
                labels = {"question": str(asked[1]), "answer": item[f"mc_answer{item['correct_answer_num']}"]}
                labels["choices"] = [item[f"mc_answer{choice}"] for choice in (1, 2, 3, 4)]
                if codes.normalise(item["dialect"]) != file.lang:
                    raise ValueError(f"its dialect is {item['dialect']}")
            except (ValueError, KeyError, TypeError) as error:
                raise CorpusError(f"{file.path}, line {number}: not a row of Belebele in {file.lang} ({error!r})") from None
            both = (("passage", group, passage, {}), ("question", f"{group}#{asked[1]}", asked[0], labels))
            for kind, item_id, text, said in both:
                row = ((file.path, number), f"{item_id}:{file.lang}", group, file.lang, text, kind, file.split, said)
                before = seen.setdefault(row[1], row)
                if before is row:
                    rows.append(row)
                elif kind == "question" or before[4] != text:
                    raise CorpusError(f"{file.path}, line {number}: another {kind} {item_id} than in line {before[0][1]}")
    return corpus(name, rows)
