"""Translators on tiny real models of each family: the model is asked as by hand, and the cache loses and mixes nothing."""

import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xmalign_lab import languages
from xmalign_lab.corpus import CorpusError
from xmalign_lab.encoders import translate
from xmalign_lab.encoders.translate import Translator

pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")
import checkpoints
from checkpoints import transformers

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")]
TEXTS = ["the big dog is running fast", "a small cat and a dog", "dog", "a small dog is running", "cat"]
KINDS = ["nllb", "m2m100", "marian", "madlad"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of a tiny translator of a kind, made once."""
    folder = tmp_path_factory.mktemp("translators")
    return lambda kind: folder / kind if (folder / kind).is_dir() else getattr(checkpoints, f"{kind}_translator")(folder / kind)


@pytest.fixture
def made(built, tmp_path):
    """A translator of a kind with a cache of its own."""
    return lambda kind, **more: Translator(built(kind), folder=tmp_path / "cache", longest=20, **more)


@cache
def loaded(folder, kind):
    tokenizer = (transformers.MarianTokenizer if kind == "marian" else transformers.AutoTokenizer).from_pretrained(folder)
    return tokenizer, transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()


def by_hand(folder, kind, text, source, target, beams=1):
    """One text, asked with ids put together here."""
    tokenizer, model = loaded(folder, kind)
    forced, before, text = {}, [], f"<2{target[:2]}> {text}" if kind == "madlad" else text
    if kind in ("nllb", "m2m100"):
        names = [code if kind == "nllb" else f"__{code[:2]}__" for code in (source, target)]
        first, last = tokenizer.convert_tokens_to_ids(names)
        before, forced = [first], {"forced_bos_token_id": last}
    plain = tokenizer(text, add_special_tokens=False).input_ids[: 19 - len(before)]
    ids = torch.tensor([[*before, *plain, tokenizer.eos_token_id]])
    with torch.inference_mode():
        found = model.generate(input_ids=ids, num_beams=beams, early_stopping=beams > 1, max_new_tokens=20, **forced)
    return tokenizer.decode(found[0].tolist()[1 + len(forced) :], skip_special_tokens=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_is_what_each_text_gets_by_hand(built, made, kind, beams):
    target = "sin_Sinh" if kind in ("nllb", "m2m100") else "swh_Latn"
    found = made(kind, beams=beams, batch=3)(TEXTS, "eng_Latn", target)
    assert found == [by_hand(built(kind), kind, text, "eng_Latn", target, beams) for text in TEXTS]
    assert len(set(found)) > 1 and all(found), "the answer depends on the text"


def test_both_languages_reach_the_model_in_every_batch(made):
    for kind in ("nllb", "m2m100"):
        translator = made(kind, batch=2)
        ways = [("eng_Latn", "swh_Latn"), ("eng_Latn", "sin_Sinh"), ("sin_Sinh", "swh_Latn"), ("en", "sw")]
        found = [translator(TEXTS, *way) for way in ways]
        assert found[0] == found[3] and len({*map(tuple, found)}) == 3
        assert not any("__sw__" in text for text in found[0]), "the language is no word of the answer"
    found = [made("madlad")(TEXTS, source, target) for source, target in (("en", "sw"), ("en", "yo"), ("si", "sw"))]
    assert found[0] == found[2] != found[1]


# Codes


FIVE = {"swh_Latn": "sw", "sin_Sinh": "si", "yor_Latn": "yo", "amh_Ethi": "am"}


def test_m2m100_is_told_two_letters_and_lacks_quechua(made):
    translator = made("m2m100")
    tokenizer = translator._loaded[0].tokenizer
    for code, own in FIVE.items():
        assert translator._asked("eng_Latn", code) == ("", [tokenizer.lang_code_to_id[own]])
    for way in (("eng_Latn", "que_Latn"), ("que_Latn", "eng_Latn")):
        with pytest.raises(CorpusError, match="knows no 'que_Latn'; give instead="):
            translator(TEXTS, *way)
    assert made("m2m100", instead={"que_Latn": "spa_Latn"})._asked("que_Latn", "eng_Latn")


def test_nllb_is_told_its_own_codes_and_ayacucho_quechua_for_quechua(built, made, tmp_path):
    folder = shutil.copytree(built("nllb"), tmp_path / "nllb")
    few = checkpoints.nllb_tokenizer()
    tokenizer = transformers.NllbTokenizer(vocab=few._vocab, merges=few._merges)  # with all of NLLB's languages
    tokenizer.save_pretrained(folder)
    translator = Translator(folder)
    for code in ("quy_Latn", *FIVE):
        assert translator._asked("eng_Latn", code) == ("", [tokenizer.convert_tokens_to_ids(code)])
    assert translator._asked("eng_Latn", "que_Latn") == translator._asked("eng_Latn", "quy_Latn")
    assert translator._asked("eng_Latn", "ful_Latn") == translator._asked("eng_Latn", "fuv_Latn")
    assert {code for code in tokenizer.extra_special_tokens if languages.known(code)} <= set(translator._loaded[0].codes)
    with pytest.raises(CorpusError, match="knows no 'chr_Cher'"):
        translator._asked("eng_Latn", "chr_Cher")
    made("nllb")(TEXTS[:1], "eng_Latn", "que_Latn")


def test_madlad_is_told_by_a_token_before_the_text(made):
    translator = made("madlad")
    for code, own in (FIVE | {"que_Latn": "qu", "quy_Latn": "qu", "azj_Latn": "az"}).items():
        assert translator._asked("eng_Latn", code) == (f"<2{own}> ", [])
    for way in (("eng_Latn", "deu_Latn"), ("deu_Latn", "eng_Latn")):
        with pytest.raises(CorpusError, match="knows no 'deu_Latn'"):
            translator(TEXTS, *way)


def test_marian_translates_its_pair_or_into_the_languages_of_its_tokens(made, tmp_path):
    for way in (("eng_Latn", "sin_Sinh"), ("swh_Latn", "eng_Latn"), ("sin_Sinh", "swh_Latn")):
        with pytest.raises(CorpusError, match=f"translates en into sw, not {way[0]} into {way[1]}"):
            made("marian")(TEXTS, *way)
    folder = checkpoints.marian_translator(tmp_path / "many", "swh", "cmn_Hans", pair=("en", "mul"))
    many = Translator(folder)
    assert many._asked("eng_Latn", "swh_Latn") == (">>swh<< ", []) and many._asked("eng_Latn", "zho_Hans") == (
        ">>cmn_Hans<< ",
        [],
    )
    for way in (("eng_Latn", "sin_Sinh"), ("sin_Sinh", "swh_Latn")):
        with pytest.raises(CorpusError, match="translates en into mul, not"):
            many(TEXTS, *way)
    tokenizer = many._loaded[0].tokenizer
    assert tokenizer.tokenize(">>swh<< dog")[0] == ">>swh<<"


# What goes in and comes out


def counting(translator, fails=lambda texts: None):
    """Each batch of ids that the model is asked from here on."""
    reader, answer = translator._loaded
    asked = []

    def counted(ids, mask, first):
        fails(ids)
        asked.append(ids)
        return answer(ids, mask, first)

    translator.__dict__["_loaded"] = (reader, counted)
    return asked


def test_longest_first_each_once_and_no_empty_ones(made):
    translator = made("nllb", batch=2)
    asked = counting(translator)
    found = translator([TEXTS[2], "", *TEXTS, " ", TEXTS[2]], "eng_Latn", "swh_Latn")
    assert found[1] == found[-2] == "" and found[0] == found[-1] == found[4] and all(found[2:-2])
    lengths = [int((ids != 1).sum(1).max()) for ids in asked]
    assert [len(ids) for ids in asked] == [2, 2, 1] and lengths == sorted(lengths, reverse=True)
    assert translator(["", " "], "eng_Latn", "sin_Sinh") == ["", ""] and len(asked) == 3


def test_a_batch_that_the_memory_does_not_hold_is_halved(made, capsys):
    def small(ids):
        if len(ids) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate")

    translator = made("marian", batch=5)
    asked = counting(translator, small)
    assert translator(TEXTS, "en", "sw") == made("marian", batch=1)(TEXTS, "en", "sw")
    assert [len(ids) for ids in asked] == [2, 2, 1] and "going on with batches of 2" in capsys.readouterr().out
    with pytest.raises(RuntimeError, match="something else"):
        counting(translator, lambda ids: (_ for _ in ()).throw(RuntimeError("something else")))
        translator(["a cat"], "en", "sw")


def test_what_is_longer_than_the_model_reads_is_cut_and_said(made, capsys):
    translator = made("nllb")
    text = "dog " * 60
    found = translator([text, "cat"], "eng_Latn", "swh_Latn")
    assert "1 of 2 texts in eng_Latn are longer than its 20 pieces" in capsys.readouterr().out
    tokenizer = translator._loaded[0].tokenizer
    assert all(0 < len(tokenizer(one, add_special_tokens=False).input_ids) <= 20 for one in found)
    assert Translator(made("nllb").name, longest=500)._loaded[0].limit == 24, "its places"


# The cache


def cache_files(tmp_path):
    return sorted((tmp_path / "cache/translations").glob("*.jsonl"))


def test_only_what_is_missing_is_translated(made, tmp_path):
    first, second = made("nllb", batch=2), made("nllb", batch=3)
    found = first(TEXTS[:3], "eng_Latn", "swh_Latn")
    asked = counting(second)
    assert second(TEXTS, "eng_Latn", "swh_Latn")[:3] == found and sum(map(len, asked)) == 2
    again = made("nllb")
    again.__dict__["_loaded"] = None  # not needed any more
    assert again(TEXTS[::-1], "eng_Latn", "swh_Latn") == second(TEXTS, "eng_Latn", "swh_Latn")[::-1]
    (path,) = cache_files(tmp_path)
    assert path.name.startswith("eng_Latn-swh_Latn-") and len(path.read_text().splitlines()) == 1 + len(TEXTS)


KILLED = """
import os, signal, sys
import numpy as np
from xmalign_lab.encoders.translate import Translator

class Reader:  # without transformers, which takes seconds to import
    tokenizer = None
    def parts(self, rows):
        return [np.arange(len(rows))], rows
    def say(self, table):
        pass
    def __call__(self, texts, lang):
        return {"input_ids": texts, "attention_mask": None}

def answer(texts, mask, first):
    if texts == [sys.argv[5]]:
        os.kill(os.getpid(), signal.SIGKILL)
    return ["made of " + text for text in texts]

translator = Translator(sys.argv[1], folder=sys.argv[2], longest=20, batch=1)
translator.__dict__["_loaded"] = Reader(), answer
Translator._asked = lambda *_: ("", [1])
translator(sys.argv[3:], "eng_Latn", "swh_Latn")
"""


def test_a_killed_process_loses_its_last_batch_at_most(made, built, tmp_path):
    command = [sys.executable, "-c", KILLED, str(built("nllb")), str(tmp_path / "cache"), *TEXTS]
    assert subprocess.run(command, capture_output=True, timeout=300).returncode == -signal.SIGKILL
    (path,) = cache_files(tmp_path)
    before = path.read_bytes()
    assert before.count(b"\n") == 3, "the settings and two texts"
    path.write_bytes(before[:-4])  # as if the second had been half-written
    translator = made("nllb")
    asked = counting(translator)
    found = translator(TEXTS, "eng_Latn", "swh_Latn")
    assert sum(map(len, asked)) == 4 and path.read_bytes().startswith(before[: before.rfind(b"{")])
    elsewhere = Translator(built("nllb"), folder=tmp_path / "other", longest=20)(TEXTS, "eng_Latn", "swh_Latn")
    assert found == ["made of " + TEXTS[0], *elsewhere[1:]]


def test_models_settings_and_languages_do_not_mix(made, tmp_path):
    for translator, way in (
        (made("nllb"), ("eng_Latn", "swh_Latn")), (made("nllb", beams=2), ("eng_Latn", "swh_Latn")),
        (made("nllb"), ("eng_Latn", "sin_Sinh")), (made("m2m100"), ("eng_Latn", "swh_Latn")),
    ):  # fmt: skip
        asked = counting(translator)
        translator(TEXTS[:1], *way)
        assert len(asked) == 1
    first, second, *more = cache_files(tmp_path)
    assert len(more) == 2
    shutil.copy(first, second)  # by hand
    with pytest.raises(CorpusError, match=r"jsonl, line 1: another model or other settings made this file"):
        for way in (("eng_Latn", "swh_Latn"), ("eng_Latn", "sin_Sinh")):
            for translator in (made("nllb"), made("nllb", beams=2), made("m2m100")):
                translator(TEXTS[:1], *way)


def test_a_model_in_another_folder_is_the_same_model(made, built, tmp_path):
    translator = made("nllb")
    found = translator(TEXTS, "eng_Latn", "swh_Latn")
    moved = Translator(shutil.copytree(built("nllb"), tmp_path / "moved"), folder=tmp_path / "cache", longest=20)
    moved.__dict__["_loaded"] = None
    assert moved(TEXTS, "eng_Latn", "swh_Latn") == found


@pytest.mark.parametrize("line", [b'{"dog": "mbw', b"", b"7", b"\xff\xfe", b'["a", "b", "c"]'])
def test_a_line_that_is_no_translation_is_named_and_nothing_is_lost(made, tmp_path, line):
    translator = made("nllb")
    found = translator(TEXTS, "eng_Latn", "swh_Latn")
    (path,) = cache_files(tmp_path)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:2], line, *lines[3:]]))
    damaged = path.read_bytes()
    with pytest.raises(CorpusError, match=r"eng_Latn-swh_Latn-\w+\.jsonl, line 3: "):
        made("nllb")(TEXTS, "eng_Latn", "swh_Latn")
    assert path.read_bytes() == damaged
    path.write_bytes(b"\n".join([*lines[:2], *lines[3:]]))
    assert made("nllb")(TEXTS, "eng_Latn", "swh_Latn") == found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8"))), st.floats(0, 1))
def test_cut_anywhere_a_file_keeps_its_whole_lines(tmp_path, table, share):
    path = tmp_path / "x.jsonl"
    path.unlink(missing_ok=True)
    with translate._kept(path, "[1]") as (done, add):
        add(table)
    data = path.read_bytes()
    cut = round(share * len(data))
    path.write_bytes(data[:cut])
    with translate._kept(path, "[1]") as (done, add):
        assert list(done.items()) == list(table.items())[: max(0, data[:cut].count(b"\n") - 1)]
        add({text: table[text] for text in table if text not in done})
    assert path.read_bytes() == data


def test_who_comes_second_waits_and_asks_nothing(made, tmp_path):
    translators = [made("nllb", batch=1) for _ in range(2)]
    asked = [counting(translator, lambda ids: time.sleep(0.02)) for translator in translators]
    found = [None, None]

    def work(which):
        found[which] = translators[which](TEXTS, "eng_Latn", "swh_Latn")

    threads = [threading.Thread(target=work, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(map(len, asked)) == [0, len(TEXTS)] and found[0] == found[1] != [None]
    assert len(cache_files(tmp_path)[0].read_text().splitlines()) == 1 + len(TEXTS)


def test_a_cache_that_cannot_be_written(made, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(CorpusError, match="set XMALIGN_CACHE to a folder that can be written"):
        made("nllb")(TEXTS, "eng_Latn", "swh_Latn")


# Folders


def test_weights_may_be_a_bin(built, tmp_path):
    folder = shutil.copytree(built("marian"), tmp_path / "bin")
    model = transformers.MarianMTModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    ways = [Translator(one, folder=tmp_path / "cache", longest=20) for one in (folder, built("marian"))]
    assert ways[0](TEXTS, "en", "sw") == ways[1](TEXTS, "en", "sw") and len(cache_files(tmp_path)) == 2


def test_folders_that_are_no_translator(built, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(built("nllb"), tmp_path / "lacks")
    weights = load_file(folder / "model.safetensors")
    save_file({name: weights[name] for name in weights if "fc1" not in name}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CorpusError, match="lacks cannot be loaded: the weights lack 4 parts of the model"):
        Translator(folder, folder=tmp_path)(TEXTS, "eng_Latn", "swh_Latn")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CorpusError, match=r"lacks holds no \*.safetensors or pytorch_model\*.bin or model.bin"):
        Translator(folder, folder=tmp_path)(TEXTS, "eng_Latn", "swh_Latn")
    plain = shutil.copytree(built("madlad"), tmp_path / "plain")
    made = checkpoints.trained("Unigram", ["<pad>", "</s>", "<unk>"], unk_token="<unk>")
    transformers.T5Tokenizer(vocab=[tuple(piece) for piece in made["vocab"]], extra_ids=0).save_pretrained(plain)
    with pytest.raises(CorpusError, match="T5Tokenizer is told no language"):
        Translator(plain, folder=tmp_path)(TEXTS, "eng_Latn", "swh_Latn")


# CTranslate2


def converted(folder, to):
    converters = pytest.importorskip("ctranslate2.converters")
    weights = ("config.json", "generation_config.json", "model.safetensors")
    files = [path.name for path in folder.iterdir() if path.name not in weights]
    return Path(converters.TransformersConverter(str(folder), copy_files=files).convert(str(to)))


@pytest.mark.parametrize(("kind", "beams"), [("nllb", 1), ("nllb", 2), ("marian", 1), ("madlad", 1)])
def test_a_converted_model_answers_as_the_model(built, made, tmp_path, kind, beams):
    folder = converted(built(kind), tmp_path / "converted")
    there = Translator(folder, "cpu", tmp_path / "cache", beams=beams, longest=20)
    assert there(TEXTS, "eng_Latn", "swh_Latn") == made(kind, beams=beams, device="cpu")(TEXTS, "eng_Latn", "swh_Latn")
    assert len(cache_files(tmp_path)) == 2 and "ctranslate2" in there.spec()


def test_a_converted_model_without_ctranslate2(built, tmp_path, monkeypatch):
    folder = shutil.copytree(built("nllb"), tmp_path / "converted")
    (folder / "model.bin").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(CorpusError, match=r"ctranslate2.*; pip install -c constraints.txt -e '.\[translate\]'"):
        Translator(folder, folder=tmp_path)(TEXTS, "eng_Latn", "swh_Latn")
