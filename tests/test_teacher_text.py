"""`bench/teacher_text.py` on made-up captions and links in the true formats, and teachers of a few steps."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from bench import teacher_text
from xmalign_lab import cl2cm, profile, similarity
from xmalign_lab.evaluate import report, words
from xmalign_lab.losses import local

pytestmark = pytest.mark.usefixtures("one_thread")
WORDS = "dog man girl ball street runs sits holds red green small two park water horse bike plays jumps old tree".split()
SPLITS = {"train": 60, "val": 20, "test_2016_flickr": 20}
LINKS = "1-1 2-2 3p3"


def said(lang, caption):
    return " ".join(word if lang == "en" else f"{word[::-1]}{lang}" for word in caption.split())


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(row + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


@pytest.fixture
def root(tmp_path):
    """100 captions, none twice, but for the 8th of training, whose French is a test caption's in another spelling."""
    rng = np.random.default_rng(0)
    captions = list(dict.fromkeys(" ".join(rng.choice(WORDS, 5, replace=False)) for _ in range(150)))[:100]
    task, first = tmp_path / "multi30k/data/task1", 0
    for split, size in SPLITS.items():
        write(task / f"image_splits/{split}.txt", [f"{1000 + number}.jpg" for number in range(first, first + size)])
        for lang in ("en", "de", "fr", "cs"):
            rows = [said(lang, caption) for caption in captions[first : first + size]]
            if (split, lang) == ("train", "fr"):
                rows[7] = f" {said('fr', captions[99]).upper()} !"
            write(task / f"raw/{split}.{lang}.gz", rows)
        first += size
    pairs = [(" ".join(caption.split()[:3]), said("fr", " ".join(caption.split()[:3]))) for caption in captions[:14]]
    write(tmp_path / "word_align_awesome/examples/enfr.src-tgt", [f"{left} ||| {right}" for left, right in pairs])
    write(tmp_path / "word_align_awesome/examples/enfr.gold", [LINKS] * 14)
    for lang in ("nl", "es"):
        write(tmp_path / f"word_align_xlwa/data/{lang}/test.tsv", [f"{a}\t{b}\t0-0 1-1 2-2" for a, b in pairs[:9]])
    return tmp_path


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("XMALIGN_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(profile, "repository", lambda: tmp_path)
    size = dict(dim=8, hidden=8, epochs=1, batch_pairs=60, least_count=1)
    monkeypatch.setattr(teacher_text, "RECIPE", replace(teacher_text.RECIPE, **size))


def test_a_training_picture_stays_out_where_one_of_its_captions_is_asked(root):
    corpus, gold = teacher_text.read(root, 1_000)
    counts = corpus.rows.groupby(["split", "lang"]).size().unstack()
    assert (counts.loc["train"] == 59).all() and (counts.loc[["test", "validation"]] == 20).all(axis=None)
    assert "flickr:1007" not in set(corpus.rows.group)
    few, _ = teacher_text.read(root, 10)
    training = few.rows[few.rows.split == "train"]
    assert training.group.nunique() == 10 and len(training) == 40 and set(training.id) < set(corpus.ids)
    assert gold["fra_Latn"][0].sure == {(0, 0), (1, 1)} and gold["fra_Latn"][0].possible == {(0, 0), (1, 1), (2, 2)}
    assert [len(of) for of in gold.values()] == [14, 9, 9]


def test_links_are_chosen_on_the_other_half_and_counted_as_by_loops(root):
    _, gold = teacher_text.read(root, 1)
    gold, rng = gold["fra_Latn"], np.random.default_rng(1)
    of = {word: similarity.unit(rng.standard_normal((1, 6)).astype(np.float32))[0] for pair in gold for word in pair.source}
    of |= {
        said("fr", word): similarity.unit((of[word] + 0.3 * rng.standard_normal(6)).astype(np.float32)[None])[0] for word in of
    }

    def encode(texts):
        return np.stack([of[text] for text in texts])

    tried = {}
    for epsilon in teacher_text.EPSILONS:
        for least in teacher_text.CARRIED:
            links = []
            for pair in gold:
                x, y = (torch.from_numpy(encode(side))[None] for side in pair[:2])
                every = torch.ones(1, 3, dtype=torch.bool)
                plan = local.matching(x, y, every, every, epsilon)[0]
                links.append({(i, j) for i in range(3) for j in range(3) if float(plan[i, j]) * 3 >= least})
            tried[epsilon, least] = links
    found = teacher_text.linked(encode, gold)
    for half in (0, 1):
        others = [number for number in range(14) if number % 2 != half]

        def error(links, others=others):
            return words.alignment_scores(
                words.alignment_counts(
                    *([side[n] for n in others] for side in (links, [p.sure for p in gold], [p.possible for p in gold]))
                )
            ).AER

        best = min(tried.values(), key=error)
        for number in range(half, 14, 2):
            links, pair = best[number], gold[number]
            counts = [len(links & pair.sure), len(links & pair.possible), len(links), len(pair.sure)]
            assert found.loc[number, teacher_text.COUNTS].tolist() == counts
    wrong = [pair._replace(sure={(0, 2)}, possible={(0, 2)}) if number % 2 else pair for number, pair in enumerate(gold)]
    assert (teacher_text.linked(encode, wrong).predicted[1::2] == found.predicted[1::2]).all(), (
        "a half does not choose for itself"
    )
    assert teacher_text.aer(found.sum().to_numpy(float)) == pytest.approx(words.alignment_scores(found).AER)


@pytest.mark.parametrize("rate", teacher_text.RATES)
def test_teachers_read_nothing_that_is_asked(root, small, monkeypatch, rate):
    corpus, gold = teacher_text.read(root, 1_000)
    text, asked = corpus.lookup("text"), corpus.rows[corpus.rows.split != "train"]
    seen, train = [], cl2cm.teacher

    def spied(recipe, texts, pairs):
        seen.append((recipe, set(texts.ids), pairs.rows))
        return train(recipe, texts, pairs)

    monkeypatch.setattr(cl2cm, "teacher", spied)
    teacher_text.recorded(0.5, rate, 3, corpus, gold)
    (alone, ids, pairs), (both, more, matched) = seen
    assert ids == set(corpus.rows.id[corpus.rows.split == "train"]) and not ids & set(asked.id)
    assert not {text[one] for one in ids} & set(asked.text)
    assert {one.split(":")[0] for one in more - ids} == {"word"} and set(matched.left) | set(matched.right) <= more
    assert {one.split(":")[2] for one in more - ids} <= {word for one in ids for word in text[one].split()}
    kept = matched[~matched.source.str.startswith("words")].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, pairs.reset_index(drop=True))
    group = corpus.lookup("group")
    wrong = np.mean([group[a] != group[b] for a, b in pairs[["left", "right"]].to_numpy()])
    assert wrong == pytest.approx(teacher_text.RATES[rate], abs=0.01)
    assert both.relations == dict.fromkeys(matched.source[matched.source.str.startswith("words")].unique(), 0.5)
    assert not alone.relations and both.per_epoch == alone.per_epoch and alone.seed == both.seed == 3


def test_the_script_prints_its_table_and_goes_on_from_its_records(root, small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(teacher_text, "GOLD", {"fra_Latn": "awesome"})
    monkeypatch.setattr(teacher_text, "METRICS", {name: teacher_text.METRICS[name] for name in ("R@1", "mean rank")})
    compare = report.compare
    monkeypatch.setattr(report, "compare", lambda *of, draws: compare(*of, draws=100))
    teacher_text.main(["--root", str(root), "--captions", "30", "--seeds", "0"])
    shown = capsys.readouterr().out
    made = json.loads((tmp_path / "build/text/teacher.json").read_text(encoding="utf-8"))
    table = pd.DataFrame(made["lines"]).set_index(["pairs", "asked", "metric", "language"])
    assert len(table) == 2 * (2 * 2 * 4 + 1) and shown.count("\n|") == len(table) + 1
    corpus, gold = teacher_text.read(root, 30)
    test = corpus.rows[corpus.rows.split == "test"].pivot(index="group", columns="lang", values="text")
    left, right = (teacher_text.grams(list(test[lang]), buckets=2**13).toarray() for lang in ("deu_Latn", "eng_Latn"))
    sims = left.astype(float) @ right.T
    better = [sum(row > row[i] + 1e-6) + (sum(abs(row - row[i]) <= 1e-6) - 1) / 2 for i, row in enumerate(sims)]
    for metric, value in {"R@1": np.mean(np.array(better) < 0.5), "mean rank": 1 + np.mean(better)}.items():
        cell = table.loc[("human", "to English", metric, "deu_Latn"), "letter n-grams"]
        assert cell[0] == pytest.approx(value) and cell[1] <= value <= cell[2] and f"| {value:.3f} [" in shown
    counts = teacher_text.linked(lambda texts: teacher_text.grams(texts, buckets=2**13).toarray(), gold["fra_Latn"])
    cell = table.loc[("40 % swapped", "word links", "AER", "fra_Latn"), "letter n-grams"]
    assert cell[0] == pytest.approx(words.alignment_scores(counts).AER) and cell[1] <= cell[0] <= cell[2]
    for line in table.itertuples():
        *_, left, right, (difference, low, high, p) = line
        assert difference == pytest.approx(right[0] - left[0]) and low <= difference <= high and 0 < p <= 1
    monkeypatch.setattr(cl2cm, "teacher", None)  # nothing is trained again
    teacher_text.main(["--root", str(root), "--captions", "30", "--seeds", "0"])
    assert capsys.readouterr().out == shown
