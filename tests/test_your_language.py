"""From one's own files to a kept model and a verdict: line counts, families, the ridge as a head, three ways to fail."""

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from xmalign_lab import baselines, corpora, study, worked
from xmalign_lab.corpus import Corpus, CorpusError, split_by_family
from xmalign_lab.encoders.classic import ClassicText
from xmalign_lab.encoders.features import Features
from xmalign_lab.evaluate import report
from xmalign_lab.model import Aligner
from xmalign_lab.pairs.parallel import bridge

LANG = "hau_Latn"


def written(n=3):
    rows = [(f"t{i}", f"g{i}", "eng_Latn", text, "") for i, text in enumerate(["a dog", "a cat", "OK"][:n])]
    return Corpus(pd.DataFrame(rows, columns=["id", "group", "lang", "text", "image"]), "mine", where="mine.csv")


def test_line_n_translates_text_n(tmp_path):
    path = tmp_path / "mine.hau"
    path.write_text("kare\n\nOK\n", encoding="utf-8")
    corpus, counts = worked.with_translations(written(), path, "ha")
    assert counts == {"translated": 1, "empty": 1, "copied": 1}
    (row,) = corpus.where_rows(lang=LANG).rows.itertuples()
    assert (row.text, row.group, row.id) == ("kare", "g0", "t0~hau_Latn")


@pytest.mark.parametrize("text, line, many", [("kare\nkyanwa\n", 3, 2), ("kare\nkyanwa\nOK\nbiyar\n", 4, 4)])
def test_a_file_of_another_length_names_itself_and_the_line(tmp_path, text, line, many):
    path = tmp_path / "mine.hau"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CorpusError, match=rf"mine\.hau, line {line}: the file has {many} lines where mine\.csv has 3 texts"):
        worked.with_translations(written(), path, LANG)


def test_near_copies_join_families_over_others_too():
    corpus = written()
    corpus = replace(
        corpus, rows=pd.concat([corpus.rows, corpus.rows.assign(id=lambda r: r.id + "x", group=lambda r: r.group + "x")])
    )
    corpus = replace(corpus, rows=corpus.rows.assign(family=corpus.rows.group))
    tied = worked.joined(corpus, pd.DataFrame({"a": ["t0", "t1"], "b": ["t1", "t2x"]})).lookup("family")
    assert tied["t0"] == tied["t1"] == tied["t2x"] == "g0"
    assert {row_id: tied[row_id] for row_id in ("t2", "t0x", "t1x")} == {"t2": "g2", "t0x": "g0x", "t1x": "g1x"}
    nothing = pd.DataFrame({"a": [], "b": []}, dtype=object)
    assert worked.joined(corpus, nothing).rows.family.equals(corpus.rows.family)


@pytest.fixture(scope="module")
def task():
    corpus = split_by_family(corpora.load("scenes", ["eng_Latn", LANG], n=90), 0)
    pairs = bridge(study.training_part(corpus, "test"), [LANG])
    return study.Task(corpus, study.prepare(corpus), pairs, np.ones(len(pairs), bool), (LANG,), 0)


@pytest.fixture(scope="module")
def recipe():
    return baselines.clip(name="mine", epochs=3, hidden=32, dim=16, components=32)


def test_the_kept_model_ranks_as_kernel_ridge_does(task, recipe, tmp_path):
    weight = np.random.default_rng(0).uniform(0.1, 1, len(task.pairs))
    task = replace(task, pairs=task.pairs.assign(weight=weight))  # the belief counts
    model = worked.kept(task, recipe)
    model.save(tmp_path / "model")
    loaded, asked = Aligner.load(tmp_path / "model"), task.asked.where_rows(lang=["", LANG])
    columns = ["query", "direction", "gallery", "rank"]
    expected = baselines.kernel_ridge(task, recipe).query("lang == @LANG")[columns].reset_index(drop=True)
    for aligner in (model, loaded):
        pd.testing.assert_frame_equal(study.score(aligner, asked, task.features)[columns], expected)
    plain = study.score(worked.kept(replace(task, pairs=task.pairs.assign(weight=1.0)), recipe), asked, task.features)
    assert not plain["rank"].equals(expected["rank"])


def test_a_text_of_unknown_letters_gets_the_mean_of_the_training_vectors(task, recipe):
    model, teacher = worked.kept(task, recipe), baselines.teacher(task, recipe)
    left = task.parallel.rows.left
    goal = teacher.encode_text(Features(left.to_numpy(), task.features["text"].take(left))).sum(0)
    vector = model.encode_text(ClassicText().encode(["ខ្មែរ"]))[0]
    np.testing.assert_allclose(vector, goal / np.linalg.norm(goal), atol=1e-4)


def test_without_translations_nothing_is_kept(task, recipe):
    with pytest.raises(baselines.NotApplicable, match="no parallel text in hau_Latn: nothing to regress on"):
        worked.kept(replace(task, pairs=task.pictured), recipe)


def ranked(rank):
    """Scores of 60 queries with ranks around `rank`, the same noise for every method."""
    ranks = np.maximum(1, np.round(rank * np.random.default_rng(0).uniform(0.5, 1.5, 60)))
    names = [f"q{i}" for i in range(60)]
    fixed = {"lang": LANG, "direction": "text→image", "gallery": "mine", "size": 100}
    return pd.DataFrame({"query": names, "family": names, "rank": ranks, **fixed})


@pytest.mark.parametrize(
    "mine, nothing, simple, english, worked_out, why",
    [
        (2, 40, 4, (0.5, 0.4, 0.6), True, "it worked: Hausa captions find pictures that had none in Hausa"),
        (2, 40, 2, (0.5, 0.4, 0.6), True, "it worked"),  # no better than a simpler way, and not worse
        (2, 40, 4, (0.06, 0.04, 0.08), False, "even in English a caption is not shown to find its picture"),
        (40, 40, 41, (0.5, 0.4, 0.6), False, "the translations are not shown to add anything"),
        (40, 2, 41, (0.5, 0.4, 0.6), False, "the translations are not shown to add anything"),
        (4, 40, 1, (0.5, 0.4, 0.6), False, "simple does better with the same files"),
    ],
)
def test_a_verdict_comes_from_intervals_and_tests(mine, nothing, simple, english, worked_out, why):
    compared = report.compare({"mine": ranked(mine), "nothing": ranked(nothing), "simple": ranked(simple)})
    did, sentence = worked.verdict(compared, LANG, "mine", "nothing", english, chance=0.05)
    assert did is worked_out and why in sentence
    assert sentence.startswith("it worked" if did else "it is not shown to work: ")
    row = compared.table.query("method == 'mine' and lang == @LANG").iloc[0]
    assert f"Hausa {row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" in sentence and "guessing 0.050" in sentence


@pytest.mark.parametrize(
    "cannot, mine, must, said",
    [
        (40, 4, 2, "shown to beat the first, shown to be behind the second"),
        (40, 2, 2, "mine, 100% of the way from cannot to must; shown to beat the first, not shown to be behind the second"),
        (40, 40, 2, "mine, 0% of the way from cannot to must; not shown to beat the first, shown to be behind the second"),
        (40, 4, 40, "the two controls are not shown to differ: whatever the lines, these files are too few to tell"),
    ],
)
def test_a_result_lies_between_two_controls(cannot, mine, must, said):
    scores = {"cannot": ranked(cannot), "mine": ranked(mine), "must": ranked(must)}
    compared = report.compare(scores, references=["cannot", "must"])
    sentence = worked.between(compared, LANG, "mine", "cannot", "must")
    assert said in sentence
    low, value, high = ((1 / scores[name]["rank"]).mean() for name in ("cannot", "mine", "must"))
    assert f"MRR: cannot {low:.3f} [" in sentence and f"must {high:.3f} [" in sentence
    assert low == high or f"{(value - low) / (high - low):.0%} of the way" in sentence


class Loads(HTMLParser):
    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "link", "iframe") and not any(str(value).startswith("http") for _, value in attrs)


def test_a_page_escapes_what_it_is_told_and_loads_nothing():
    page = worked.page("a <b>", True, "it worked: 1 < 2", {"Numbers & tests": "<p>kept</p>"})
    assert "a &lt;b&gt;" in page and "It worked: 1 &lt; 2" in page and "<h2>Numbers &amp; tests</h2><p>kept</p>" in page
    Loads().feed(page)
    assert worked.page("a", True, "x", {}) != worked.page("a", False, "x", {})
