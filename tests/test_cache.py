"""The cache: computed once, never stale, and whole or absent whoever is killed and whoever writes at the same time."""

import json
import os
import signal
import subprocess
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse

from xmalign_lab.corpus import Corpus, CorpusError
from xmalign_lab.encoders import cache
from xmalign_lab.encoders.classic import ClassicImage, ClassicText
from xmalign_lab.encoders.features import Features

ROOT = Path(__file__).parents[1]
ROWS = [("t1", "eng_Latn", "red ball"), ("t2", "swh_Latn", "mpira mwekundu"), ("t3", "sin_Sinh", "රතු බෝලය")]


def texts(rows=ROWS):
    return Corpus(pd.DataFrame(rows, columns=["id", "lang", "text"]).assign(group="ball"))


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / f"{colour}.png" for colour in ("red", "blue")]
    for path in paths:
        Image.new("RGB", (32, 32), path.stem).save(path)
    return Corpus(pd.DataFrame({"id": ["p1", "p2"], "group": ["r", "b"], "image": list(map(str, paths))}), name="mine")


@dataclass
class Counted:
    """An encoder that counts how often it is really asked."""

    inner: object
    asked: int = 0

    @property
    def modality(self):
        return self.inner.modality

    def spec(self):
        return self.inner.spec()

    def encode(self, corpus, progress=True):
        self.asked += 1
        return self.inner.encode(corpus, progress)


def entries(folder):
    return sorted(path for path in (Path(folder) / "features").iterdir() if not path.name.startswith("."))


def leftovers(folder):
    return [path for path in (Path(folder) / "features").iterdir() if path.name.startswith(".unfinished-")]


def same(first, second):
    assert list(first.ids) == list(second.ids) and first.key == second.key
    np.testing.assert_array_equal(first.dense(), second.dense())
    for name in ("tokens", "mask", "words"):
        one, other = getattr(first, name), getattr(second, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(one, other)


def test_sparse_features_are_computed_once_and_read_back(tmp_path):
    encoder = Counted(ClassicText())
    first, second = (cache.encode(texts(), encoder, tmp_path) for _ in range(2))
    assert encoder.asked == 1 and sparse.issparse(second.vectors)
    same(first, second)
    same(first, ClassicText().encode(texts()))
    assert not leftovers(tmp_path)


def test_dense_features_are_mapped_and_cannot_change_the_file(tmp_path, pictures):
    cache.encode(pictures, ClassicImage(), tmp_path)
    read = cache.encode(pictures, ClassicImage(), tmp_path)
    assert isinstance(read.vectors, np.memmap)
    torch = pytest.importorskip("torch")  # imported here, because the processes below import this file
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns about arrays it may not write to
        torch.from_numpy(read.vectors).mul_(0)
    same(cache.encode(pictures, ClassicImage(), tmp_path), ClassicImage().encode(pictures))


class Worded(ClassicText):
    """A text's n-grams, and beside them a token for each of its words."""

    def encode(self, corpus, progress=True):
        found = super().encode(corpus, progress)
        tokens = np.random.default_rng(0).random((len(found), 3, 4), np.float32)
        words = np.tile([0, 1, -1], (len(found), 1))
        return Features(found.ids, found.vectors, tokens, words >= 0, words)


def test_tokens_mask_and_words_come_back(tmp_path):
    encoder = Counted(Worded())
    first, second = (cache.encode(texts(), encoder, tmp_path) for _ in range(2))
    assert encoder.asked == 1 and second.tokens.ndim == 3 and second.words is not None
    same(first, second)


@pytest.mark.parametrize("column", ["id", "text", "lang"])
def test_another_id_text_or_language_is_another_entry(tmp_path, column):
    changed = {"id": "t9", "text": "red bell", "lang": "fra_Latn"}[column]
    rows = texts().rows.copy()
    rows.loc[0, column] = changed
    assert cache.address(texts(), ClassicText()) != cache.address(Corpus(rows), ClassicText())


def test_no_two_corpora_run_together():
    """Texts that only differ in where one ends and the next begins."""
    one = texts([("a", "eng_Latn", "red"), ("b", "eng_Latn", "ball")])
    other = texts([("a", "eng_Latn", "redb"), ("b", "eng_Latn", "all")])
    assert cache.address(one, ClassicText()) != cache.address(other, ClassicText())


def test_what_the_encoder_does_not_see_does_not_count(pictures):
    renamed = replace(pictures, rows=pictures.rows.assign(split="train", group="x"), name="other")
    assert cache.address(pictures, ClassicImage()) == cache.address(renamed, ClassicImage())


def test_another_encoder_or_a_changed_picture_is_another_entry(tmp_path, pictures):
    before = cache.address(pictures, ClassicImage())
    assert before != cache.address(pictures, ClassicImage(hog=0.5))
    Image.new("RGB", (32, 32), "green").save(pictures.rows.image[0])
    assert before != cache.address(pictures, ClassicImage())


def test_rendered_pictures_count_by_fingerprint_or_by_pixels():
    def opener(colour, fingerprint=None):
        def open_scene(reference):
            assert fingerprint is None, "a fingerprint saves rendering"
            return Image.new("RGBA", (8, 8), colour)

        if fingerprint:
            open_scene.fingerprint = fingerprint
        return open_scene

    def of(open_image):
        return cache.address(
            Corpus(pd.DataFrame({"id": ["s"], "group": "g", "image": "scene:1"}), open_image=open_image), ClassicImage()
        )

    assert of(opener("red")) == of(opener("red")) != of(opener("blue"))
    assert of(opener("red", "seed 1")) == of(opener("red", "seed 1")) != of(opener("red", "seed 2"))


def test_a_missing_picture_is_named_before_anything_is_encoded(tmp_path, pictures):
    os.remove(pictures.rows.image[1])
    encoder = Counted(ClassicImage())
    with pytest.raises(CorpusError, match="mine, id 'p2': .*blue.png: no such image file .1 of 2 pictures are missing"):
        cache.encode(pictures, encoder, tmp_path)
    assert encoder.asked == 0


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "meta cut", "meta gone"])
def test_a_damaged_entry_is_announced_in_one_line_and_mended(tmp_path, capsys, damage):
    encoder = Counted(ClassicText())
    first = cache.encode(texts(), encoder, tmp_path)
    (entry,) = entries(tmp_path)
    path = entry / ("meta.json" if "meta" in damage else "data.npy")
    content = path.read_bytes()
    if "gone" in damage:
        path.unlink()
    else:
        path.write_bytes(content[:-7] if "cut" in damage else content[:-1] + bytes([content[-1] ^ 1]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(first, cache.encode(texts(), encoder, tmp_path))
    notice = capsys.readouterr().out
    assert encoder.asked == 2 and notice.count("\n") == 1 and "computing these features again" in notice
    assert damage != "cut" or f"data.npy has {len(content) - 7:,} of {len(content):,} bytes" in notice
    same(first, cache.encode(texts(), encoder, tmp_path))
    assert encoder.asked == 2 and entries(tmp_path) == [entry] and not leftovers(tmp_path)


@pytest.mark.parametrize("through", ["argument", "environment"])
def test_a_folder_that_cannot_be_written_is_named_before_encoding(tmp_path, monkeypatch, through):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    encoder = Counted(ClassicText())
    monkeypatch.setenv("XMALIGN_CACHE", str(blocked))
    with pytest.raises(CorpusError, match="cache folder .*file.* cannot be written .*XMALIGN_CACHE"):
        cache.encode(texts(), encoder, blocked if through == "argument" else None)
    assert encoder.asked == 0


def test_the_default_folder_is_the_profiles(tmp_path, monkeypatch):
    monkeypatch.setenv("XMALIGN_CACHE", str(tmp_path / "chosen"))
    cache.encode(texts(), ClassicText())
    monkeypatch.setattr(cache.profile, "cache_root", lambda: tmp_path / "another")
    cache.encode(texts(), ClassicText())
    assert len(entries(tmp_path / "chosen")) == len(entries(tmp_path / "another")) == 1


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.np, "save", full)
    with pytest.raises(CorpusError, match="No space left on device"):
        cache.encode(texts(), ClassicText(), tmp_path)
    assert not entries(tmp_path) and not leftovers(tmp_path)


def test_an_encoder_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(CorpusError, match="norm zero"):
        cache.encode(texts(), ClassicText(characters=(20, 20), words=False), tmp_path)
    assert not entries(tmp_path) and not leftovers(tmp_path)


def test_at_every_step_the_entry_is_absent_or_whole(tmp_path):
    """Python announces each opening, renaming and making of files: a process killed at any of them leaves what stands then."""
    entry = tmp_path / "features" / cache.address(texts(), ClassicText())
    seen, busy = [], True

    def look(event, _):
        nonlocal busy
        if busy or event.split(".")[0] not in ("open", "os", "shutil"):
            return
        busy = True
        try:
            cache._verified(entry)
            seen.append("whole")
        except (OSError, ValueError, KeyError):
            seen.append("broken" if entry.exists() else "absent")
        busy = False

    sys.addaudithook(look)  # cannot be taken away again, so `busy` silences it
    busy = False
    try:
        cache.encode(texts(), ClassicText(), tmp_path)
        seen.append("read")
        cache.encode(texts(), ClassicText(), tmp_path)
    finally:
        busy = True
    assert "broken" not in seen and seen[0] == "absent" and seen[-1] == "whole"
    assert seen.index("read") > 8, "the hook saw the files being written"


CHILD = """
import sys, time
from pathlib import Path
import tests.test_cache as here
from xmalign_lab.encoders import cache
folder, mode = Path(sys.argv[1]), sys.argv[2]

def stop_here(*arguments, **options):
    if mode == "np.save":
        arguments[0].write(b"half a file")
        arguments[0].flush()
    print("now", flush=True)
    time.sleep(600)

class Slow(here.ClassicText):
    def encode(self, corpus, progress=True):
        (folder / f"encoded by {mode}").touch()
        print("now", flush=True)
        while not (folder / "asking two").exists():
            time.sleep(0.01)
        time.sleep(0.5)
        return super().encode(corpus, progress)
    def spec(self):
        return here.ClassicText().spec()

if mode == "np.save":
    cache.np.save = stop_here
elif mode == "os.rename":
    cache.os.rename = stop_here
elif mode == "json.dump":
    cache.json.dump = stop_here
(folder / f"asking {mode}").touch()
encoder = Slow() if mode in ("one", "two") else here.ClassicText()
print(cache.encode(here.texts(), encoder, folder).key, flush=True)
"""


def child(folder, mode):
    return subprocess.Popen([sys.executable, "-c", CHILD, str(folder), mode], cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("moment", ["np.save", "json.dump", "os.rename"])
def test_what_a_killed_process_half_wrote_is_never_believed(tmp_path, capsys, moment):
    process = child(tmp_path, moment)
    assert process.stdout.readline() == "now\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(leftovers(tmp_path)) == 1 and not entries(tmp_path)
    encoder = Counted(ClassicText())
    same(cache.encode(texts(), encoder, tmp_path), ClassicText().encode(texts()))
    assert encoder.asked == 1 and len(entries(tmp_path)) == 1 and capsys.readouterr().out == ""
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("before", ["nothing", "damaged"])
def test_of_two_processes_at_once_one_encodes_and_the_other_waits_for_it(tmp_path, before):
    if before == "damaged":
        cache.encode(texts(), ClassicText(), tmp_path)
        (entries(tmp_path)[0] / "data.npy").write_bytes(b"short")
    both = [child(tmp_path, "one")]
    assert any(line == "now\n" for line in both[0].stdout)
    both.append(child(tmp_path, "two"))
    said = [process.communicate(timeout=120)[0].splitlines()[-1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said == [ClassicText().encode(texts()).key] * 2
    assert len(entries(tmp_path)) == 1 and not leftovers(tmp_path)
    assert [path.name for path in tmp_path.glob("encoded by *")] == ["encoded by one"]
    encoder = Counted(ClassicText())
    same(cache.encode(texts(), encoder, tmp_path), ClassicText().encode(texts()))
    assert encoder.asked == 0


def test_meta_says_what_the_entry_is(tmp_path, pictures):
    features = cache.encode(pictures, ClassicImage(), tmp_path)
    meta = json.loads((entries(tmp_path)[0] / "meta.json").read_text())
    assert meta["spec"] == ClassicImage().spec() and meta["key"] == features.key and meta["shape"] == [2, 2084]
    assert meta["files"]["vectors"]["dtype"] == "<f4" and meta["files"]["vectors"]["shape"] == [2, 2084]
