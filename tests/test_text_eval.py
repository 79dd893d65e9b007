"""`bench/text_eval.py` on captions of scenes: made-up files in the true formats, a few steps of training."""

import re
from itertools import product

import numpy as np
import pandas as pd
import pytest

from bench import text_eval
from xmalign_lab import baselines, study, sweep
from xmalign_lab.corpora import scenes
from xmalign_lab.corpus import CorpusError

ENGLISH, TARGETS = "eng_Latn", ("swh_Latn", "deu_Latn")
QUICK = {"epochs": 2, "hidden": 16, "dim": 8, "components": 16, "batch_pairs": 200, "least_count": 1}
WORDS = {"star": "nyota", "heart": "moyo", "middle": "katikati", "red": "nyekundu"}

LINKED = [
    ("red stars fly today again", "wieder fliegen heute rote Sterne", "0-3 1-4 2-1 3-2 4-0"),
    ("stars fly", "Sterne fliegen", "0-0 1-1"),
]
GERMAN = {"rote": "red", "Sterne": "stars", "fliegen": "fly", "heute": "today", "wieder": "again"}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def root(tmp_path):
    """Tatoeba and SIB-200 of captions that no training saw, a Swahili dictionary, German words linked one to one."""
    rows = scenes.load([ENGLISH, *TARGETS], n=160).rows
    rows = rows[(rows.modality == "text") & rows.group.isin(rows.group.unique()[120:])]
    said = {lang: list(of.text) for lang, of in rows.groupby("lang")}
    write(tmp_path / "laser_tatoeba/v1/tatoeba.swh-eng.swh", said["swh_Latn"])
    write(tmp_path / "laser_tatoeba/v1/tatoeba.swh-eng.eng", said[ENGLISH])
    topics = [labels["shape"] for labels in rows.labels[rows.lang == ENGLISH]]
    for lang, texts in said.items():
        cells = [f"{n}\t{topic}\t{text}" for n, (topic, text) in enumerate(zip(topics, texts, strict=True))]
        for split, part in (("train", cells[:30]), ("test", cells[30:])):
            write(tmp_path / f"sib200/data/annotated/{lang}/{split}.tsv", ["index_id\tcategory\ttext", *part])
    pairs = [f"{english.title()}\t{other}" for english, other in WORDS.items()]
    write(tmp_path / "bli_afromt/dictionaries/en-sw.txt", [*pairs, "green\t"])
    write(tmp_path / "word_align_xlwa/data/de/test.tsv", [f"{a}\t{b}\t{links}" for a, b, links in LINKED])
    return tmp_path


@pytest.fixture
def found(root):
    every = {(lang, name): text_eval.read(name, lang, root) for lang in TARGETS for name in text_eval.SOURCES}
    return {key: what for key, what in every.items() if what}


def test_what_the_folder_holds_is_read_and_what_it_lacks_is_none(found, root):
    assert set(found) == {
        ("swh_Latn", "tatoeba"), ("swh_Latn", "sib200"), ("swh_Latn", "afromt"), ("deu_Latn", "sib200"), ("deu_Latn", "xlwa")
    }  # fmt: skip
    here, there, both = found["deu_Latn", "sib200"]
    assert len(here) == len(there) == 40 and set(both.split) == {"train", "test"}
    assert found["swh_Latn", "afromt"][2] == {word: [other] for word, other in WORDS.items()}
    assert found["deu_Latn", "xlwa"][:2] == (sorted(GERMAN), sorted(GERMAN.values()))
    write(root / "laser_tatoeba/v1/tatoeba.swh-eng.eng", ["one line"])
    with pytest.raises(CorpusError, match="lines where"):
        text_eval.read("tatoeba", "swh_Latn", root)


def answers(found, key_of, entries):
    """Values by (language, metric) where texts of one key have one random vector."""
    rng, table = np.random.default_rng(0), {}

    def vectors(lang, texts):
        keys = [key_of(lang, text) for text in texts]
        return np.stack([table.setdefault(key, rng.standard_normal(32)) for key in keys]).astype(np.float32)

    return {(lang, metric): (list(queries), np.asarray(values)) for lang, metric, queries, values in
            text_eval.asked(vectors, found, entries)}  # fmt: skip


def meanings(found):
    """`{(language, text): what both languages share}` of all that the files translate."""
    same = {("swh_Latn", other): word for word, other in WORDS.items()}
    same |= {("deu_Latn", german): word for german, word in GERMAN.items()}
    for (lang, name), (here, there, _) in found.items():
        same |= {(lang, a): b for a, b in zip(here, there, strict=True)} if name in ("tatoeba", "sib200") else {}
    return same


def test_a_space_that_knows_every_translation_answers_all_and_one_that_knows_none_does_not(found):
    same, nothing = meanings(found), {lang: set() for lang in (ENGLISH, *TARGETS)}
    knows = answers(found, lambda lang, text: same.get((lang, text), text), nothing)
    guesses = answers(found, lambda lang, text: (lang, text), nothing)
    assert set(knows) == set(guesses) and len(knows) == 3 * 3 + 2 + 2 * 2
    for (lang, metric), (_, values) in knows.items():
        if "topic" not in metric:
            low = 0.9 if "cosine" in metric else 1.0
            assert values.mean() >= low > guesses[lang, metric][1].mean() + 0.1, (lang, metric)


def test_a_word_read_in_training_on_either_side_is_not_asked(found):
    read = {ENGLISH: {"star"}, "swh_Latn": {"moyo", "katikati na juu"}, "deu_Latn": set()}
    asked = answers(found, lambda lang, text: (lang, text), read)
    words = [queries for (_, metric), (queries, _) in asked.items() if "P@1" in metric]
    assert [sorted(queries) for queries in words] == [["middle", "red"]]


def test_mean_recall_weighs_each_topic_alike(found):
    same = meanings(found)
    asked = answers(found, lambda lang, text: same.get((lang, text), text), {lang: set() for lang in (ENGLISH, *TARGETS)})
    queries, values = asked["deu_Latn", "sib200: topic, mean recall of the topics"]
    correct = asked["deu_Latn", "sib200: topic, accuracy"][1].astype(bool)
    both = found["deu_Latn", "sib200"][2].set_index("group").topic[queries].to_numpy()
    assert values.mean() == pytest.approx(np.mean([correct[both == topic].mean() for topic in set(both)]))


def test_every_method_is_asked_the_same_with_seeds_of_noise_and_once_clean(found, monkeypatch):
    monkeypatch.setattr(sweep, "SIZE", QUICK)
    few = {("swh_Latn", "tatoeba"): found["swh_Latn", "tatoeba"], ("deu_Latn", "xlwa"): found["deu_Latn", "xlwa"]}
    scores = text_eval.evaluate(scenes.load([ENGLISH, *TARGETS], n=60), few, TARGETS, seeds=(0, 1))
    assert baselines.score is study.score, "put back"
    runs = scores.groupby(["condition", "method"]).seed.unique().map(list)
    assert runs[str(text_eval.NOISE)].to_dict() == {method: [0, 1] for method in text_eval.METHODS}
    assert runs["clean"].to_dict() == {method: [0] for method in text_eval.METHODS if method != "oracle filter"}
    of_run = scores.groupby(["condition", "seed", "method"])
    asked = of_run[["lang", "metric", "query"]].apply(lambda part: frozenset(map(tuple, part.to_numpy())))
    assert asked.nunique() == 1 and len(next(iter(asked))) == 3 * 40 + 2 and scores.value.notna().all()
    values = of_run.value.agg(tuple).unstack("method")
    assert values["spelling"].nunique() == 1 and values["constant τ"].nunique() == 3, "only what is trained depends on noise"
    assert values.loc["clean", 0].nunique() == 4, "too few pairs to doubt any: an adaptive method is then its plain one"


def test_the_lead_is_the_paired_difference_from_the_best_baseline_of_the_row():
    rng, rows = np.random.default_rng(0), []
    offset = dict(zip(text_eval.METHODS, (0.3, 0.1, 0.0, 0.2, 0.1, 0.4, 0.0), strict=True))
    hard = rng.random(50)
    for method, seed in product(text_eval.METHODS, range(3)):
        value = hard + offset[method] + 0.01 * rng.standard_normal(50)
        where = {"condition": "noise", "lang": "swh_Latn", "metric": "m", "method": method, "seed": seed}
        rows.append(pd.DataFrame({"query": [f"q{n}" for n in range(50)], "value": value} | where))
    scores = pd.concat(rows)
    (row,) = text_eval.table(scores).to_dict("records")
    means = scores.groupby("method").value.mean()
    assert row["queries"] == 50 and row["spelling"].startswith(f"{means['spelling']:.3f} [")
    for method in text_eval.ADAPTIVE:
        lead, low, high, best = re.fullmatch(r"(\S+) \[(\S+), (\S+)\], (.*)", row[f"{method} - best"]).groups()
        assert best == "kernel ridge" and float(lead) == pytest.approx(means[method] - means[best], abs=6e-4)
        assert float(low) < offset[method] - offset[best] < float(high)
        assert float(high) - float(low) < 0.05, "what is hard for all is no uncertainty of the difference"
