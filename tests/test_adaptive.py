"""The adaptive method: who judges a pair has not seen it, right pairs earn their weight, none is condemned unheard."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from xmalign_lab import adaptive, corpora, study
from xmalign_lab.baselines import NotApplicable
from xmalign_lab.corpus import Corpus, Pairs, split_by_family
from xmalign_lab.encoders.classic import ClassicText
from xmalign_lab.encoders.features import Features
from xmalign_lab.pairs import noise
from xmalign_lab.pairs.parallel import bridge

TARGETS = ("swh_Latn", "sin_Sinh")


@pytest.fixture(scope="module")
def task():
    corpus = split_by_family(corpora.load("scenes", ["eng_Latn", *TARGETS], n=600), 0)
    text = ClassicText().encode(corpus.where_rows(modality="text"), progress=False)
    pictures = corpus.where_rows(modality="image").ids
    images = Features(pictures, np.ones((len(pictures), 2), np.float32))  # no picture is looked at here
    pairs = bridge(study.training_part(corpus, "test"), list(TARGETS))
    noisy, truth = noise.shuffle(pairs, corpus, 0.4, 0, [f"eng_Latn-{target}" for target in TARGETS])
    return study.Task(corpus, {"image": images, "text": text}, noisy, truth, TARGETS, 0)


def test_pairs_are_tied_over_families_and_over_texts():
    rows = [
        dict(id=f"e{k}", group=f"g{k}", family=f"f{k // 2}", modality="text", lang="eng_Latn", text=f"x{k}") for k in range(8)
    ]
    rows += [
        dict(id=f"s{k}", group=f"g{k}", family=f"f{k // 2}", modality="text", lang="swh_Latn", text=f"y{k}") for k in range(8)
    ]
    corpus = Corpus(pd.DataFrame(rows))
    pairs = Pairs(pd.DataFrame([("e0", "s0"), ("e1", "s7"), ("e6", "s7"), ("e7", "s6"), ("e2", "s2")], columns=["left", "right"]))
    tied = adaptive.tied(pairs, corpus)
    assert tied[0] == tied[1], "one family"
    assert tied[1] == tied[2] == tied[3], "one text in two families"
    assert tied[4] not in tied[:4]


def test_right_pairs_earn_their_weight_and_the_share_of_wrong_ones_is_estimated(task):
    judged = adaptive.judged(task)
    parallel = task.pairs.rows.source.isin([f"eng_Latn-{target}" for target in TARGETS]).to_numpy()
    weight = judged.pairs.rows.weight.to_numpy()
    assert (weight[~parallel] == 1).all() and judged.pairs.rows.score[~parallel].isna().all(), "pictures are not judged"
    assert judged.pairs.rows[["left", "right", "source"]].equals(task.pairs.rows[["left", "right", "source"]])
    for target in TARGETS:
        of = (task.pairs.rows.source == f"eng_Latn-{target}").to_numpy()
        assert roc_auc_score(task.truth[of], weight[of]) > 0.97
        assert abs(weight[of].mean() - task.truth[of].mean()) < 0.2
        assert weight[of][task.truth[of]].mean() > 0.85 > 0.4 > weight[of][~task.truth[of]].mean()
    assert (judged.pairs.rows.score[parallel] == weight[parallel]).all()


def test_copied_sources_can_be_judged(task):
    """Texts that only the pairs made wrong on purpose hold: a family whose translation was copied has its own in English."""
    clean, sources = bridge(task.training, list(TARGETS)), [f"eng_Latn-{target}" for target in TARGETS]
    near = noise.nearest_families(task.corpus, task.features["text"], "eng_Latn")
    noisy, truth = noise.translate_badly(clean, task.corpus, 0.6, near, 0, sources)
    lang = task.corpus.lookup("lang")
    assert "eng_Latn" in {lang[right] for right in noisy.rows.right[noisy.rows.source.isin(sources)]}
    judged = adaptive.judged(replace(task, pairs=noisy, truth=truth))
    assert judged.pairs.rows.weight.between(0, 1).all()


def test_clean_pairs_keep_their_weight(task):
    clean = bridge(task.training, list(TARGETS))
    judged = adaptive.judged(replace(task, pairs=clean, truth=np.ones(len(clean), bool)))
    assert judged.pairs.rows.weight.mean() > 0.98


def test_the_belief_does_not_look_at_the_truth_and_is_the_same_each_time(task):
    hidden = replace(task, truth=~task.truth)
    assert adaptive.judged(task).pairs.rows.equals(adaptive.judged(hidden).pairs.rows)


def test_of_too_few_pairs_all_are_believed_and_of_none_it_says_so(task):
    few = task.parallel.select(np.arange(len(task.parallel)) < adaptive.LEAST - 1)
    same, share = adaptive.believed(few, task.training, task.features["text"], task.features["text"])
    assert same is few and not share
    bare = replace(task, pairs=task.pictured, truth=np.ones(len(task.pictured), bool))
    with pytest.raises(NotApplicable, match="no parallel text in swh_Latn, sin_Sinh: nothing to believe"):
        adaptive.judged(bare)


def test_mining_with_nothing_to_start_from_says_so(task):
    bare = replace(task, pairs=task.pictured, truth=np.ones(len(task.pictured), bool))
    with pytest.raises(NotApplicable, match="no parallel text in swh_Latn, and .*nothing to start from"):
        adaptive.mined(bare, adaptive.MINING["mined"][1])
