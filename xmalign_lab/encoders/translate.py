"""Captions translated by a model from a folder or the hub: through transformers, or through CTranslate2 where it was converted.

    <cache>/translations/<source>-<target>-<address>.jsonl   a line for the settings, then a line per text

What was made is appended after each batch, so a run that was killed goes on where it stopped. `pairs.pseudo` makes pairs of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock

from xmalign_lab import languages, profile
from xmalign_lab.corpus import CorpusError
from xmalign_lab.encoders.checkpoint import FILES, TOKENIZER, Output, digests, encoded, folder_of, imported, loading
from xmalign_lab.encoders.reading import Reader

LAYOUT = 1  # the version of the cache's lines
WEIGHTS = ["*.safetensors", "pytorch_model*.bin", "model.bin"]  # many a translator is published as .bin alone
ALL = [*FILES, *WEIGHTS, "*.spm"]
PREFIX = re.compile(r"<2(\w+)>|>>(\w+)<<")  # MADLAD's and Marian's tokens for the language to translate into
# A macrolanguage and one of its languages: where a model knows one of the two, it is told that one
NEAR = {"que_Latn": "quy_Latn", "quy_Latn": "que_Latn", "ful_Latn": "fuv_Latn", "fuv_Latn": "ful_Latn"}
Answer = Callable[[torch.Tensor, torch.Tensor, list[int]], list[str]]  # to ids (b, t), mask (b, t), and how an answer begins


@dataclass(frozen=True)
class Translator:
    """`translate(texts, source, target) -> list[str]`: texts of one language in another, as many, in the same order.

    `name` is a folder or a model of the hub: NLLB, M2M100 or mBART, which are told both languages by tokens of their own,
    MADLAD (a T5), which is told the second by `<2sw>` before the text, or Marian, one per pair, or with `>>swh<<` before the
    text. A folder with a `model.bin` was made for CTranslate2, with the tokenizer's files beside it; it needs the extra
    `translate`. Languages are the project's codes, or whatever `languages.normalise` takes; `instead` says which to tell for
    one that the model lacks, {"pcm_Latn": "eng_Latn"}. Quechua and Fula are told by whichever code the model has (`NEAR`).

    `beams` 1 is greedy search. At most `longest` pieces of a text are read (what is cut, is said) and as many are written.
    Texts go longest first, `batch` at a time; a batch that the memory does not hold is halved, and so are those after it. An
    empty text stays empty. `folder` is the cache, by default `profile.cache_root()`. Its key is what an answer depends on:
    the model's files, settings, versions and languages; a second process that wants the same waits for the first.

    Raises `CorpusError` for a folder that lacks something, a name that the hub does not give, weights that do not fill the
    model, a language or pair that the model does not know, and a cache with a line that cannot be read or of another model.
    """

    name: str | Path
    device: str | None = None
    folder: str | Path | None = None
    batch: int = 32
    beams: int = 1
    longest: int = 128
    dtype: str = "float32"
    instead: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        source, target = languages.normalise(source), languages.normalise(target)
        made_by = json.dumps([LAYOUT, source, target, self.spec()], sort_keys=True)
        name = f"{source}-{target}-{hashlib.sha256(made_by.encode()).hexdigest()[:16]}.jsonl"
        with _kept(Path(self.folder or profile.cache_root()) / "translations" / name, made_by) as (done, add):
            if missing := [text for text in dict.fromkeys(texts) if text.strip() and text not in done]:
                self._translate(missing, source, target, add)
        return [done.get(text, "") for text in texts]

    def spec(self) -> dict:
        """The same model in another folder has the same spec: it holds a digest of each file, and no name."""
        folder, converted = self._model
        libraries = ["transformers", "sentencepiece", "sacremoses", *["ctranslate2"] * converted]
        settings = {"beams": self.beams, "longest": self.longest, "dtype": self.dtype, "instead": dict(self.instead)}
        return settings | {one: version(one) for one in libraries if find_spec(one)} | {"files": digests(folder, ALL)}

    @cached_property
    def _model(self) -> tuple[Path, bool]:
        """The folder, and whether CTranslate2 reads it."""
        folder = folder_of(self.name, (["config.json"], WEIGHTS, [*TOKENIZER, "*.spm"]), ALL)
        return folder, (folder / "model.bin").is_file()

    @cached_property
    def _loaded(self) -> tuple[Reader, Answer]:
        """How texts are read and answered. A code of the reader is a token before the text where there is no `src_lang`."""
        (folder, converted), kinds = self._model, imported("transformers")
        with loading(folder, "; pip install -c constraints.txt -e '.[translate]'" * converted):
            kind = kinds.MarianTokenizer if (folder / "source.spm").is_file() else kinds.AutoTokenizer
            tokenizer = kind.from_pretrained(folder)
            limit, answer = (_by_ctranslate2 if converted else _by_transformers)(self, folder, tokenizer)
            reader = Reader(tokenizer, limit, "", str(folder), self.instead)
            codes = reader.codes = reader.codes or _prefixes(tokenizer)
            if not codes and not hasattr(tokenizer, "source_lang"):
                raise ValueError(f"{type(tokenizer).__name__} is told no language as NLLB, M2M100, mBART, MADLAD and Marian are")
        codes |= {code: codes[near] for code, near in NEAR.items() if near in codes and code not in codes}
        return reader, answer

    def _asked(self, source: str, target: str) -> tuple[str, list[int]]:
        """What goes before each text, and the token that an answer begins with. Raises for what the model does not know."""
        reader, tokenizer = self._loaded[0], self._loaded[0].tokenizer
        if not hasattr(tokenizer, "source_lang"):
            _, code = reader.told(source), reader.told(target)
            if not hasattr(type(tokenizer), "src_lang"):
                return f"{code} ", []
            return "", [getattr(tokenizer, "get_lang_id", tokenizer.convert_tokens_to_ids)(code)]
        code, of, into = reader.codes.get(target[:8]), *map(_code, (tokenizer.source_lang, tokenizer.target_lang))
        if of not in (None, source[:8]) or not (code or into == target[:8] or not (into or reader.codes)):
            pair = f"{tokenizer.source_lang} into {tokenizer.target_lang}"
            raise CorpusError(f"{self.name} translates {pair}, not {source} into {target}; there is a Marian for each pair")
        return f"{code} " if code else "", []

    def _translate(self, texts: list[str], source: str, target: str, add: Callable[[dict[str, str]], None]) -> None:
        """Hands `{text: translation}` of each batch to `add`."""
        (reader, answer), (before, first) = self._loaded, self._asked(source, target)
        shown = [before + text for text in texts]
        parts, table = reader.parts(pd.DataFrame({"text": shown, "lang": target}))
        reader.say(table.assign(lang=source))

        def run(part) -> Output:
            asked = [shown[row] for row in part]
            read = reader(asked, source) if first else reader.read(asked)
            answers = answer(read["input_ids"], read["attention_mask"], first)
            add({texts[row]: said for row, said in zip(part, answers, strict=True)})
            return Output(torch.ones(len(part), 1))  # nobody wants vectors; `encoded` halves what the memory does not hold

        encoded(pd.Series(texts), shown, run, parts, self.batch, True)


def _by_transformers(asked: Translator, folder: Path, tokenizer) -> tuple[int, Answer]:
    """How many pieces a model reads, and its answers."""
    model, found = imported("transformers").AutoModelForSeq2SeqLM.from_pretrained(folder, output_loading_info=True)
    if lost := sorted(found["missing_keys"]):  # which would be left random, with a warning only
        raise ValueError(f"the weights lack {len(lost)} parts of the model, {lost[0]} for one")
    model = model.to(asked.device or profile.device(), getattr(torch, asked.dtype)).eval()
    limit = min(asked.longest, tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", asked.longest))
    length, beams = {"max_new_tokens": limit, "max_length": None}, {"num_beams": asked.beams, "early_stopping": asked.beams > 1}
    model.generation_config.update(**length, **beams, do_sample=False)

    def answer(ids: torch.Tensor, mask: torch.Tensor, first: list[int]) -> list[str]:
        forced = {"forced_bos_token_id": first[0]} if first else {}
        made = model.generate(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), **forced)
        # Without the start and the language, which M2M100's tokenizer takes for a word
        return tokenizer.batch_decode(made[:, 1 + len(first) :], skip_special_tokens=True)

    return limit, answer


def _by_ctranslate2(asked: Translator, folder: Path, tokenizer) -> tuple[int, Answer]:
    """As `_by_transformers`; the dtype float32 leaves the weights as they were converted, int8 for example."""
    from ctranslate2 import Translator as Converted

    device, weights = str(asked.device or profile.device()), {"float32": "default"}.get(asked.dtype, asked.dtype)
    model = Converted(str(folder), device, compute_type=weights, intra_threads=torch.get_num_threads())
    limit, special = min(asked.longest, tokenizer.model_max_length), set(tokenizer.all_special_tokens)

    def answer(ids: torch.Tensor, mask: torch.Tensor, first: list[int]) -> list[str]:
        rows = [tokenizer.convert_ids_to_tokens(row[keep].tolist()) for row, keep in zip(ids, mask.bool(), strict=True)]
        begun = [tokenizer.convert_ids_to_tokens(first)] * len(rows) if first else None
        made = model.translate_batch(rows, target_prefix=begun, beam_size=asked.beams, max_decoding_length=limit)
        said = [[one for one in row.hypotheses[0][len(first) :] if one not in special] for row in made]
        return [tokenizer.convert_tokens_to_string(row) for row in said]

    return limit, answer


def _code(own: str) -> str | None:
    """The project's code for one of a model's, without a region; None for a group of languages or an unknown one."""
    with suppress(ValueError):
        return languages.normalise(own)[:8]


def _prefixes(tokenizer) -> dict[str, str]:
    """By the project's code, the token that asks MADLAD or a Marian of many languages for that language."""
    found = sorted(filter(PREFIX.fullmatch, tokenizer.get_vocab()), key=len, reverse=True)  # az replaces az_RU
    return {code: token for token in found if (code := _code("".join(PREFIX.fullmatch(token).groups(""))))}


@contextmanager
def _kept(path: Path, made_by: str):
    """The translations in a file, and what adds more to both; one process at a time. A half-written last line is dropped.

    Lines are appended and brought to the disk together, so only the last can be half, and then it has no newline.
    """
    with loading(path, "; set XMALIGN_CACHE to a folder that can be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(path.with_name(f".{path.name}.lock")).acquire()
    with held, open(path, "ab+") as file:
        file.seek(0)
        whole, end, _ = file.read().rpartition(b"\n")
        file.truncate(len(whole + end))
        (first, *lines), done = whole.split(b"\n"), {}
        if end and first != made_by.encode():
            raise CorpusError(f"{path}, line 1: another model or other settings made this file; move it away")
        for number, line in enumerate(lines, 2):
            try:
                done |= json.loads(line)
            except (ValueError, TypeError) as error:
                raise CorpusError(f"{path}, line {number}: {error}; without this line, its text is translated again") from None

        def add(made: dict[str, str]) -> None:
            done.update(made)
            file.write("".join(f"{json.dumps({one: made[one]}, ensure_ascii=False)}\n" for one in made).encode())
            file.flush()
            os.fsync(file.fileno())

        file.write(b"" if end else f"{made_by}\n".encode())
        yield done, add
