"""Mining: neighbours against brute force, rounds with a known truth, cold starts and the overlap dial."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from bench import bench_ranks
from xmalign_lab import similarity
from xmalign_lab.corpus import Corpus, CorpusError, Pairs
from xmalign_lab.encoders.features import Features
from xmalign_lab.pairs import mining


def pools(n=40, m=50, width=8, noise=0.7, seed=0):
    """Left rows a0 …, right rows b0 …; a<i> and b<i> mean the same, the last right ones nothing on the left."""
    rng = np.random.default_rng(seed)
    meaning = rng.normal(size=(max(n, m), width))
    left, right = (meaning[:rows] + noise * rng.normal(size=(rows, width)) for rows in (n, m))
    return Features.from_arrays(left, [f"a{i}" for i in range(n)]), Features.from_arrays(right, [f"b{i}" for i in range(m)])


def margins(left, right, k=4):
    full = similarity.unit(left.vectors) @ similarity.unit(right.vectors).T
    near = np.sort(full, 1)[:, ::-1][:, :k].mean(1), np.sort(full, 0)[::-1][:k].mean(0)
    return full, full / ((near[0][:, None] + near[1]) / 2)


def edges(pairs):
    return {(int(a[1:]), int(b[1:])) for a, b in zip(pairs.rows.left, pairs.rows.right, strict=True)}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.7, 1.3), st.integers(2, 6))
def test_mutual_neighbours_above_the_margin_and_no_others(seed, margin, k):
    left, right = pools(seed=seed)
    full, ratio = margins(left, right, k)
    i, j = np.arange(40), full.argmax(1)
    mutual = {(a, b) for a, b in zip(i, j, strict=True) if full[:, b].argmax() == a and ratio[a, b] >= margin}
    if mutual:
        found = mining.mine(left, right, "s", margin, k)
        assert edges(found) == mutual and (found.rows.weight == 1).all() and found.sources == ["s"]
        np.testing.assert_allclose(found.rows.score, [ratio[a, b] for a, b in sorted(mutual)], rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000))
def test_one_to_one_is_stable_finds_more_and_at_least_half_of_the_best(seed):
    left, right = pools(seed=seed, noise=1.2)
    full, ratio = margins(left, right)
    near = np.zeros(full.shape, bool)
    np.put_along_axis(near, np.argsort(-full, 1)[:, :4], True, 1)
    np.put_along_axis(near, np.argsort(-full, 0)[:4], True, 0)
    graph = np.where(near & (ratio >= 0.8), ratio, 0)
    found = mining.mine(left, right, "s", 0.8, one_to_one=True)
    assert found.rows.left.is_unique and found.rows.right.is_unique
    of_left, of_right = np.zeros(40), np.zeros(50)
    for (i, j), score in zip(
        ((int(a[1:]), int(b[1:])) for a, b in found.rows[["left", "right"]].to_numpy()), found.rows.score, strict=True
    ):
        assert graph[i, j] == pytest.approx(score, rel=1e-4)
        of_left[i] = of_right[j] = score
    assert not (graph > np.maximum(of_left[:, None], of_right) + 1e-4).any(), "no two prefer each other to what they got"
    assert found.rows.score.sum() >= graph[linear_sum_assignment(-graph)].sum() / 2
    assert len(found) > len(mining.mine(left, right, "s", 0.8))


def test_unmatched_concepts_are_left_out_by_the_margin():
    left, right = pools(60, 60, 16, 0.35, seed=1)
    left, right = Features(left.ids[:40], left.vectors[:40]), Features(right.ids[20:], right.vectors[20:])
    group = {row_id: row_id[1:] for row_id in (*left.ids, *right.ids)}
    loose, strict = (
        mining.round_report(mining.mine(left, right, "s", margin), None, group, (left.ids, right.ids)) for margin in (0, 1.5)
    )
    assert strict["precision"] > loose["precision"] and strict["precision"] > 0.9 and loose["recall"] >= strict["recall"] > 0.5


def test_pictures_are_a_pool_like_any_other():
    rng = np.random.default_rng(0)
    meaning = rng.normal(size=(30, 16))
    pictures = Features.from_arrays(meaning + 0.2 * rng.normal(size=(30, 16)), [f"g{i}:google" for i in range(30)])
    texts = Features.from_arrays(meaning[:20] + 0.2 * rng.normal(size=(20, 16)), [f"g{i}:swh_Latn" for i in range(20)])
    found = mining.mine(pictures, texts, "image-swh_Latn")
    assert all(a.split(":")[0] == b.split(":")[0] for a, b in zip(found.rows.left, found.rows.right, strict=True))
    assert len(found) == 20 and found.sources == ["image-swh_Latn"]


def test_nothing_found_or_nothing_to_tell_apart():
    left, right = pools()
    with pytest.raises(CorpusError, match=r"mining 's', 40 × 50 rows: no mutual .* margin of 9; the largest is 1\.\d"):
        mining.mine(left, right, "s", 9)
    same = Features.from_arrays(np.ones((5, 3)), [f"a{i}" for i in range(5)])
    with pytest.raises(CorpusError, match="mining 's': all similarities are 1, so no neighbour is nearest"):
        mining.mine(same, same, "s")
    with pytest.raises(ValueError, match=r"\(n, d\) and \(m, d\)"):
        mining.mine(left, pools(width=3)[1], "s")
    eye = Features.from_arrays(np.eye(6), [f"a{i}" for i in range(6)])
    assert edges(mining.mine(eye, eye, "s")) == {(i, i) for i in range(6)}, "neighbours of cosine 0 are a scale"


# Rounds


def found(*both, source="s"):
    return Pairs(pd.DataFrame([(f"a{i}", f"b{j}", source) for i, j in both], columns=["left", "right", "source"]))


def test_consistency_keeps_what_two_rounds_agree_on():
    now, before = found((0, 0), (1, 2), (3, 3)).assign(score=[1.1, 1.2, 1.3]), found((3, 3), (0, 0), (1, 1), (4, 4))
    stable = mining.consistent(now, before)
    assert edges(stable) == {(0, 0), (3, 3)} and stable.rows.score.tolist() == [1.1, 1.3]
    assert len(mining.consistent(now, found((0, 0), (3, 3), source="t"))) == 0


def test_a_report_counts_what_is_right_what_is_found_and_what_has_gone():
    group = {f"{side}{i}": str(i) for side in "ab" for i in range(9)}
    now, before = found((0, 0), (1, 2), (3, 3)), found((3, 3), (0, 0), (1, 1), (4, 4))
    report = mining.round_report(now, before, group, ([f"a{i}" for i in range(5)], [f"b{i}" for i in range(1, 9)]))
    assert report == pytest.approx({"count": 3, "drift": 1 / 2, "precision": 2 / 3, "recall": 1 / 4})
    blind = mining.round_report(now)
    assert blind["count"] == 3 and np.isnan([blind["drift"], blind["precision"], blind["recall"]]).all()
    assert mining.round_report(now, now)["drift"] == 0


def test_a_wrong_pair_of_one_round_goes_in_the_next():
    left, right = pools(60, 60, 16, 1.0, seed=3)
    other = Features.from_arrays(right.vectors + 0.7 * np.random.default_rng(5).normal(size=right.vectors.shape), right.ids)
    one, two = mining.mine(left, right, "s"), mining.mine(left, other, "s")
    group = {row_id: row_id[1:] for row_id in (*left.ids, *right.ids)}
    both = mining.round_report(mining.consistent(two, one), one, group)
    assert both["precision"] > mining.round_report(two, None, group)["precision"] and 0 < both["drift"] < 1


# Cold starts and the dial


def corpus(families=30):
    rows = []
    for f in range(families):
        split = "test" if f % 5 == 0 else "train"
        for lang in ("eng_Latn", "swh_Latn"):
            for kind in ("name", "keywords"):
                base = {"group": f"g{f}", "family": f"f{f // 2}", "lang": lang, "kind": kind, "split": split}
                rows.append(base | {"id": f"g{f}:{lang}:{kind}", "text": f"{kind} {lang} {chr(97 + f)}"})
        rows.append({"id": f"g{f}:image", "group": f"g{f}", "family": f"f{f // 2}", "image": "x.png", "split": split})
    return Corpus(pd.DataFrame(rows), "toy")


def test_a_dictionary_holds_right_training_names_and_a_smaller_one_lies_in_a_larger():
    toy = corpus()
    pairs = Pairs.by_group(toy, {"lang": "eng_Latn"}, {"lang": "swh_Latn"}, "eng_Latn-swh_Latn", match=("kind",))
    wrong = Pairs(pd.DataFrame({"left": ["g1:eng_Latn:name"], "right": ["g2:swh_Latn:name"], "source": "eng_Latn-swh_Latn"}))
    small, large = (set(mining.seed_dictionary(pairs + wrong, toy, n).rows.left) for n in (5, 20))
    assert len(small) == 5 and len(large) == 20 and small < large
    group, kind, split = (toy.lookup(column) for column in ("group", "kind", "split"))
    for row in mining.seed_dictionary(pairs + wrong, toy, 24, seed=3).rows.itertuples():
        assert group[row.left] == group[row.right] and split[row.left] == "train"
        assert kind[row.left] == kind[row.right] == "name"
    assert set(mining.seed_dictionary(pairs, toy, 5, seed=1).rows.left) != small
    with pytest.raises(CorpusError, match="a dictionary of 25: source 'eng_Latn-swh_Latn' has 24 right pairs of training names"):
        mining.seed_dictionary(pairs, toy, 25)


def test_shared_spelling_is_free_and_sometimes_wrong():
    texts = [
        ("pizza", "eng_Latn", "Pizza"), ("pizza", "swh_Latn", "pizza"),
        ("one", "eng_Latn", "07:00"), ("seven", "eng_Latn", "one o'clock, 1:00"), ("seven", "swh_Latn", "saa 1, 00"),
        ("flag", "eng_Latn", "flag"), ("flag2", "eng_Latn", "Flag"), ("flag", "swh_Latn", "flag"),
        ("key", "eng_Latn", "keycap 10"), ("key", "swh_Latn", "kitufe ෧෦"), ("none", "swh_Latn", "moyo"),
    ]  # fmt: skip
    rows = [{"id": f"{group}:{lang}", "group": group, "lang": lang, "text": text, "kind": "name"} for group, lang, text in texts]
    kinds = [{"id": "k", "group": "k", "lang": "swh_Latn", "text": "07:00", "kind": "keywords"}]
    toy = Corpus(pd.DataFrame(rows + kinds), "toy")
    both = mining.shared_spelling(toy, "eng_Latn", "swh_Latn")
    assert set(zip(both.rows.left, both.rows.right, strict=True)) == {
        ("pizza:eng_Latn", "pizza:swh_Latn"), ("seven:eng_Latn", "seven:swh_Latn"), ("key:eng_Latn", "key:swh_Latn"),
    }, "not what two texts of a language share, nor a name with keywords"  # fmt: skip
    assert both.sources == ["eng_Latn-swh_Latn"]
    with pytest.raises(CorpusError, match="no text in 'deu_Latn' shares its spelling or its numbers"):
        mining.shared_spelling(toy, "deu_Latn", "swh_Latn")


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.floats(0, 1), st.integers(0, 50))
def test_the_pools_share_as_many_concepts_as_the_dial_says(families, share, seed):
    toy = corpus(2 * families)
    part = mining.overlap(toy, "eng_Latn", "swh_Latn", share, seed)
    a, b = (set(part.where_rows(lang=lang).rows.family) for lang in ("eng_Latn", "swh_Latn"))
    assert a | b == set(toy.rows.family) and abs(len(a) - len(b)) <= 1
    assert abs(len(a & b) / len(a) - share) <= 2 / families
    for lang, pool in (("eng_Latn", a), ("swh_Latn", b)):
        whole = toy.rows[(toy.rows.lang == lang) & toy.rows.family.isin(pool)]
        assert set(part.where_rows(lang=lang).ids) == set(whole.id), "a family keeps its whole text or nothing"
    assert set(part.where_rows(modality="image").ids) == set(toy.where_rows(modality="image").ids)


def test_the_dials_arithmetic():
    toy = corpus(2 * 57)
    for share, common, pool in ((1, 57, 57), (0.5, 19, 38), (0.1, 3, 30), (0, 0, 29)):
        part = mining.overlap(toy, "eng_Latn", "swh_Latn", share)
        a, b = (set(part.where_rows(lang=lang).rows.family) for lang in ("eng_Latn", "swh_Latn"))
        assert (len(a & b), len(a)) == (common, pool)
    lonely = toy.select((toy.rows.lang != "swh_Latn") | (toy.rows.family != "f0"))
    assert "f0" not in set(mining.overlap(lonely, "eng_Latn", "swh_Latn", 1).where_rows(lang="eng_Latn").rows.family)
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\], not 50"):
        mining.overlap(toy, "eng_Latn", "swh_Latn", 50)
    with pytest.raises(CorpusError, match="toy: no family has texts in both 'eng_Latn' and 'sin_Sinh'"):
        mining.overlap(toy, "eng_Latn", "sin_Sinh", 0.5)


def test_several_second_languages_share_one_pool():
    toy = corpus(2 * 57)
    more = toy.rows[toy.rows.lang == "swh_Latn"]
    more = more.assign(id=more.id + "~", lang="sin_Sinh")
    both = Corpus(pd.concat([toy.rows, more], ignore_index=True), "toy")
    part = mining.overlap(both, "eng_Latn", ["swh_Latn", "sin_Sinh"], 0.5)
    alone = mining.overlap(toy, "eng_Latn", "swh_Latn", 0.5)
    families = {lang: set(part.where_rows(lang=lang).rows.family) for lang in ("eng_Latn", "swh_Latn", "sin_Sinh")}
    assert families["swh_Latn"] == families["sin_Sinh"] == set(alone.where_rows(lang="swh_Latn").rows.family)
    assert families["eng_Latn"] == set(alone.where_rows(lang="eng_Latn").rows.family)


def test_the_bench_runs_on_little_data(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(bench_ranks.profile, "repository", lambda: tmp_path)
    monkeypatch.setattr(bench_ranks, "SQUARE", 256)
    bench_ranks.main("mining", "300")
    printed = capsys.readouterr().out
    assert "rows: 300" in printed and "mining / rate of torch.mm" in printed
    assert json.loads((tmp_path / "build" / "bench" / "mining-300.json").read_text())["precision"] > 0.9
