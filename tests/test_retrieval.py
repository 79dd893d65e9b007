"""Retrieval metrics against trec_eval, brute force and matrices small enough to write the answer out."""

import itertools

import ir_measures
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, ScoredDoc, Success, nDCG
from sklearn.metrics import ndcg_score

from xmalign_lab import baselines, similarity
from xmalign_lab.evaluate.retrieval import (
    METRICS,
    SCORE_COLUMNS,
    Protocol,
    Side,
    hubness,
    mean_rank_variance,
    per_query,
    precision_gain,
    rank_queries,
    sum_r,
    xsim_errors,
)


def side(vectors, groups, families=None) -> Side:
    ids = np.array([f"{group}-{row}" for row, group in enumerate(groups)], object)
    return Side(np.array(vectors, np.float32), ids, np.array(groups, object), np.array(families or groups, object))


def random_side(rng, rows: int, groups: int, width: int = 6) -> Side:
    return side(similarity.unit(rng.normal(size=(rows, width))), [f"g{i}" for i in rng.integers(groups, size=rows)])


def by_rank(ranks: dict[tuple[str, str], dict[str, float]], gallery: str = "google") -> pd.DataFrame:
    """Scores with a query per name, in the given language and direction."""
    rows = [(q, q, lang, direction, gallery, 9, r) for (lang, direction), part in ranks.items() for q, r in part.items()]
    return pd.DataFrame(rows, columns=["query", "family", "lang", "direction", "gallery", "size", "rank"])


def test_many_correct_items_against_trec_eval():
    rng = np.random.default_rng(0)
    queries, gallery = random_side(rng, 40, 12), random_side(rng, 90, 12)
    table = rank_queries(queries, gallery, "swh_Latn", "text→image", "google")
    scores = queries.vectors.astype(float) @ gallery.vectors.astype(float).T
    # trec_eval breaks ties by document name and works in float32: places in a strict order leave it nothing to break.
    places = np.argsort(np.argsort(scores, axis=1), axis=1)
    run = [ScoredDoc(q, d, int(places[i, j])) for i, q in enumerate(queries.ids) for j, d in enumerate(gallery.ids)]
    relevant = queries.groups[:, None] == gallery.groups[None]
    qrels = [ir_measures.Qrel(queries.ids[i], gallery.ids[j], 1) for i, j in np.argwhere(relevant)]
    asked = queries.ids[relevant.any(1)]
    assert len(table) == len(asked) > 30 and relevant.sum(1).max() > 5
    theirs = {AP: "ap", nDCG: "ndcg", RR: "MRR", Success @ 1: "R@1", Success @ 5: "R@5", Success @ 10: "R@10"}
    found = {measure: {} for measure in theirs}
    for value in ir_measures.iter_calc(list(theirs), qrels, run):
        found[value.measure][value.query_id] = value.value
    for measure, ours in theirs.items():
        expected = [found[measure][q] for q in asked]
        # RR and Success look at the best correct item, which no other correct item can push down.
        values = table[ours] if ours in table else METRICS[ours](table["rank"])
        np.testing.assert_allclose(values, expected, atol=1e-9, err_msg=str(measure))


def test_map_and_ndcg_written_out():
    values = precision_gain(np.array([0, 0, 1]), np.array([1.0, 3.0, 2.0]))
    assert values["rank"].tolist() == [1, 2]
    assert values.ap.tolist() == pytest.approx([(1 / 1 + 2 / 3) / 2, 1 / 2])
    ideal = 1 + 1 / np.log2(3)
    assert values.ndcg.tolist() == pytest.approx([(1 + 1 / np.log2(4)) / ideal, 1 / np.log2(3)])


def test_ties_are_mean_ranks():
    # Two correct items at one point, and a wrong one there too: each stands at (1 + 2 + 3) / 3 of the whole list.
    query, here = side([[1, 0]], ["a"]), [1.0, 0.0]
    tied = rank_queries(query, side([here, here, here, [0, 1]], ["a", "a", "b", "c"]), "deu_Latn", "text→image", "x").iloc[0]
    assert tied["rank"] == 1.5 and tied.ap == pytest.approx(1.5 / 2)
    assert tied.ndcg == pytest.approx((2 / np.log2(3)) / (1 + 1 / np.log2(3)))
    top = rank_queries(query, side([here, here, [0, 1]], ["a", "a", "b"]), "deu_Latn", "text→image", "x").iloc[0]
    assert top["rank"] == 1 and top.ap == 1 and 0.9 < top.ndcg < 1  # as documented: a little below 1


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=2, max_size=8), st.data())
@settings(max_examples=60, deadline=None)
def test_tied_ndcg_is_never_above_the_mean_over_orders(scores, data):
    relevant = np.array(data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)).filter(any)))
    scores = np.array(scores)
    higher, equal = (scores[None] > scores[:, None]).sum(1), (scores[None] == scores[:, None]).sum(1)
    ours = precision_gain(np.zeros(relevant.sum(), int), (1 + higher + (equal - 1) / 2)[relevant]).iloc[0]
    assert 0 < ours.ndcg <= ndcg_score(relevant[None].astype(int), scores[None]) + 1e-9  # averages over the tie's orders
    assert 0 < ours.ap <= 1 + 1e-9


@given(st.integers(0, 10_000), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_rank_is_that_of_similarity_with_ties_and_several_correct(seed, width):
    rng = np.random.default_rng(seed)
    points = similarity.unit(rng.normal(size=(5, width)))  # few points, so many exact ties
    queries = side(points[rng.integers(5, size=20)], [f"g{i}" for i in rng.integers(4, size=20)])
    gallery = side(points[rng.integers(5, size=30)], [f"g{i}" for i in rng.permutation(np.arange(30) % 4)])
    table = rank_queries(queries, gallery, "swh_Latn", "text→image", "x")
    expected = similarity.ranks(queries.vectors, gallery.vectors, queries.groups, gallery.groups)
    np.testing.assert_allclose(table["rank"], expected)


def test_one_correct_item_each_agrees_with_the_general_way():
    rng = np.random.default_rng(3)
    gallery = side(similarity.unit(rng.normal(size=(30, 4))), [f"g{i}" for i in range(30)])
    queries = side(similarity.unit(gallery.vectors[:20] + rng.normal(size=(20, 4))), list(gallery.groups[:20]))
    table = rank_queries(queries, gallery, "swh_Latn", "text→image", "x")
    query, _, rank = similarity.positive_ranks(queries.vectors, gallery.vectors, queries.groups, gallery.groups)
    np.testing.assert_allclose(table[["rank", "ap", "ndcg"]], precision_gain(query, rank))
    np.testing.assert_allclose(table.ap, 1 / table["rank"])


def test_a_scorer_that_says_nothing_lies_below_guessing_because_ties_take_the_mean_rank():
    n = 9
    gallery, queries = side([[1, 0]] * n, list("abcdefghi")), side([[0.6, 0.8]] * n, list("abcdefghi"))
    table = rank_queries(queries, gallery, "swh_Latn", "text→image", "x")
    chance = baselines.chance(table)
    assert (table["rank"] == (n + 1) / 2).all() and chance["mean rank"] == (n + 1) / 2
    assert per_query(table, "MRR").value.tolist() == pytest.approx([2 / (n + 1)] * n)
    assert chance["MRR"] == pytest.approx(sum(1 / r for r in range(1, n + 1)) / n) and chance["MRR"] > 1.5 * 2 / (n + 1)


def test_queries_that_have_no_answer_are_counted():
    gallery, queries = side([[1, 0], [0, 1], [0, 1]], ["a", "b", "b"]), side([[1, 0]] * 5, ["a", "b", "c", "d", "d"])
    table = rank_queries(queries, gallery, "swh_Latn", "text→image", "x")
    assert table.dropped.tolist() == [3, 3] and tuple(table) == SCORE_COLUMNS
    first = rank_queries(queries, gallery, "swh_Latn", "text→image", "x", Protocol(captions="first"))
    assert first.dropped.tolist() == [2, 2], "of each group the first only, and then what no item answers"
    assert rank_queries(queries.rows(slice(2)), gallery, "swh_Latn", "text→image", "x").dropped.tolist() == [0, 0]


def test_captions_first_or_all_on_either_side():
    images = side([[1, 0], [0, 1]], ["a", "b"])
    captions = side([[0, 1], [1, 0], [0.6, 0.8], [1, 0]], ["a", "a", "b", "b"], ["A", "A", "B", "B"])
    every = rank_queries(captions, images, "swh_Latn", "text→image", "x")
    assert every["query"].tolist() == ["a", "a", "b", "b"] and every["rank"].tolist() == [2, 1, 1, 2]
    assert per_query(every, "R@1").value.tolist() == [0.5, 0.5] and per_query(every, "R@1").family.tolist() == ["A", "B"]
    first = rank_queries(captions, images, "swh_Latn", "text→image", "x", Protocol(captions="first"))
    assert first["query"].tolist() == ["a", "b"] and first["rank"].tolist() == [2, 1]
    back = rank_queries(images, captions, "swh_Latn", "image→text", "x")
    assert back["rank"].tolist() == [1.5, 2] and back["size"].tolist() == [4, 4]
    back = rank_queries(images, captions, "swh_Latn", "image→text", "x", Protocol(captions="first"))
    assert back["rank"].tolist() == [2, 2] and back["size"].tolist() == [2, 2]


def test_the_first_caption_is_the_first_row_whatever_the_order_of_groups():
    captions = side([[0, 1], [1, 0], [1, 0]], ["z", "a", "z"])
    table = rank_queries(captions, side([[1, 0], [0, 1]], ["a", "z"]), "en", "text→image", "x", Protocol(captions="first"))
    assert table["query"].tolist() == ["z", "a"] and table["rank"].tolist() == [1, 1]


def test_csls_reranking_against_the_formula():
    rng = np.random.default_rng(1)
    queries, gallery = random_side(rng, 60, 200, 3), random_side(rng, 80, 200, 3)
    gallery = side(gallery.vectors, [f"g{i}" for i in range(80)])
    table = rank_queries(queries, gallery, "swh_Latn", "eng→swh", "x", Protocol(rerank="CSLS"))
    plain = rank_queries(queries, gallery, "swh_Latn", "eng→swh", "x")
    kept = np.isin(queries.groups, gallery.groups)
    cosines = queries.vectors[kept].astype(float) @ gallery.vectors.astype(float).T
    to_gallery = np.sort(cosines, axis=1)[:, -10:].mean(1)
    to_queries = np.sort(cosines, axis=0)[-10:].mean(0)
    scores = 2 * cosines - to_gallery[:, None] - to_queries[None]
    correct = (queries.groups[kept][:, None] == gallery.groups[None]).argmax(1)
    expected = 1 + (scores > scores[np.arange(kept.sum()), correct][:, None]).sum(1)
    assert table["rank"].tolist() == expected.tolist() and (table["rank"] != plain["rank"]).any()


def test_protocol_goes_with_every_row_and_refuses_the_unknown():
    table = rank_queries(side([[1, 0]], ["a"]), side([[1, 0]], ["a"]), "swh_Latn", "swh→eng", "x", Protocol(translate_test=True))
    assert set(table.protocol) == {"captions: all; ties: mean rank; translate-test: on; re-ranking: none"}
    assert str(Protocol(captions="first", rerank="CSLS")) != str(Protocol()) and "\n" not in str(Protocol())
    for wrong in ({"captions": "some"}, {"ties": "optimistic"}, {"rerank": "csls"}, {"translate_test": "yes"}):
        with pytest.raises(ValueError, match=f"protocol: {next(iter(wrong))} is .*; known are "):
            Protocol(**wrong)


def test_scores_without_the_column_say_so():
    with pytest.raises(ValueError, match="mAP needs the column 'ap'"):
        per_query(by_rank({("swh_Latn", "text→image"): {"a": 1}}), "mAP")


def test_sum_r_written_out():
    table = by_rank(
        {
            ("deu_Latn", "text→image"): {"a": 1, "b": 7},
            ("deu_Latn", "image→text"): {"a": 4, "b": 40},
            ("swh_Latn", "text→image"): {"a": 1, "b": 1},
            ("swh_Latn", "image→text"): {"a": 1, "b": 1},
        }
    )
    values = sum_r(table)
    # a: 100 + 100 + 100 and 0 + 100 + 100; b: 0 + 0 + 100 and nothing.
    assert values[values.lang == "deu_Latn"].set_index("query").value.to_dict() == {"a": 500, "b": 100}
    assert values.groupby("lang").value.mean().to_dict() == {"deu_Latn": 300, "swh_Latn": 600}
    parts = [
        per_query(table, m).groupby(["lang", "direction"]).value.mean().groupby("lang").sum() for m in ("R@1", "R@5", "R@10")
    ]
    pd.testing.assert_series_equal(100 * sum(parts), values.groupby("lang").value.mean())
    with pytest.raises(ValueError, match="every query of swh_Latn in two directions; it has text→image"):
        sum_r(table[(table.lang != "swh_Latn") | (table.direction == "text→image")])
    with pytest.raises(ValueError, match="deu_Latn in two directions"):
        sum_r(table.iloc[1:])


@pytest.mark.parametrize(("n", "languages"), [(3, 2), (4, 3)])
def test_mean_rank_variance_of_languages_that_guess_independently(n, languages):
    """Every combination of ranks once, so the mean over the queries is the expectation."""
    codes = ["deu_Latn", "sin_Sinh", "swh_Latn"][:languages]
    rows = [
        {"query": f"{ranks}", "family": f"{ranks}", "lang": lang, "direction": "text→image", "gallery": "x", "rank": float(rank)}
        for ranks in itertools.product(range(1, n + 1), repeat=languages)
        for lang, rank in zip(codes, ranks, strict=True)
    ]
    expected = (n**2 - 1) / 12 * (languages - 1) / languages
    assert mean_rank_variance(pd.DataFrame(rows)).value.mean() == pytest.approx(expected)


def test_mean_rank_variance_written_out():
    forward = {("deu_Latn", "text→image"): {"a": 1, "b": 2}, ("swh_Latn", "text→image"): {"a": 3, "b": 2}}
    google = by_rank({**forward, ("sin_Sinh", "text→image"): {"a": 5, "b": 2}})
    twitter = by_rank({**forward, ("sin_Sinh", "text→image"): {"a": 2, "b": 8}}, "twitter")
    values = mean_rank_variance(pd.concat([google, twitter])).set_index("query").value
    # a: ranks 1, 3, 5 (variance 8/3) and 1, 3, 2 (2/3); b: 2, 2, 2 (0) and 2, 2, 8 (8): galleries are averaged after.
    assert values.to_dict() == pytest.approx({"a": (8 / 3 + 2 / 3) / 2, "b": 4})
    with pytest.raises(ValueError, match="two or more; these scores have deu_Latn"):
        mean_rank_variance(google[google.lang == "deu_Latn"])
    with pytest.raises(ValueError, match=r"query 'b' \(text→image\) has no rank in swh_Latn"):
        mean_rank_variance(google[(google.lang != "swh_Latn") | (google["query"] == "a")])


def test_several_captions_and_pictures_sum_up_per_meaning():
    rng = np.random.default_rng(5)
    texts, pictures = random_side(rng, 30, 6), random_side(rng, 20, 6)
    parts = []
    for lang, words in {"swh_Latn": texts, "deu_Latn": random_side(rng, 25, 6)}.items():
        parts += [rank_queries(words, pictures, lang, "text→image", "x"), rank_queries(pictures, words, lang, "image→text", "x")]
    scores = pd.concat(parts)
    assert sum_r(scores).groupby("lang").size().tolist() == [6, 6] and len(mean_rank_variance(scores)) == 12
    assert sum_r(scores).value.between(0, 600).all()


@pytest.mark.parametrize("k", [1, 4])
def test_xsim_against_brute_force(k):
    rng = np.random.default_rng(2)
    left = similarity.unit(rng.normal(size=(60, 5)))
    right = similarity.unit(left + 0.7 * rng.normal(size=left.shape))
    cosines = left.astype(float) @ right.astype(float).T
    assert xsim_errors(left, right, margin=False).tolist() == (cosines.argmax(1) != np.arange(60)).tolist()
    near = np.sort(cosines, axis=1)[:, -k:].mean(1)[:, None] / 2 + np.sort(cosines, axis=0)[-k:].mean(0)[None] / 2
    candidates = cosines >= np.sort(cosines, axis=1)[:, -k:][:, :1]  # LASER looks at each row's k nearest only
    margin = np.where(candidates, cosines / near, -np.inf)
    errors = xsim_errors(left, right, k=k)
    assert errors.dtype == bool and errors.tolist() == (margin.argmax(1) != np.arange(60)).tolist() and 0 < errors.mean() < 1
    assert not xsim_errors(left, left).any()
    with pytest.raises(ValueError, match=r"left is \(60, 5\), right is \(59, 5\)"):
        xsim_errors(left, right[1:])


def test_hubness_of_a_hub_and_of_none():
    same = np.eye(4, dtype=np.float32)
    assert hubness(same, same, k=1) == (0, 0)
    # Item 0 is nearest to three of four queries, item 1 to one, items 2 and 3 to none: N = 3, 1, 0, 0.
    queries = same[[0, 0, 0, 1]]
    counts = np.array([3, 1, 0, 0])
    skewness = ((counts - 1) ** 3).mean() / ((counts - 1) ** 2).mean() ** 1.5
    assert hubness(queries, same, k=1) == pytest.approx((skewness, 0.5))
    rng = np.random.default_rng(0)
    queries, gallery = (similarity.unit(rng.normal(size=(n, 8)) + 0.5) for n in (50, 80))
    times = np.bincount(np.argsort(-(queries @ gallery.T), axis=1)[:, :3].ravel(), minlength=80)
    away = times - times.mean()
    expected = (away**3).mean() / (away**2).mean() ** 1.5, (times == 0).mean()
    assert hubness(queries, gallery, 3) == pytest.approx(expected) and min(expected) > 0
    near = np.sort(gallery @ queries.T, axis=1)[:, -4:].mean(1)
    times = np.bincount(np.argsort(near - 2 * (queries @ gallery.T), axis=1)[:, :3].ravel(), minlength=80)
    calm = hubness(queries, gallery, 3, csls=4)
    assert calm.anti_hubs == (times == 0).mean() < expected[1] and 0 < calm.skewness < expected[0]


def test_every_metric_has_a_value_per_query():
    rng = np.random.default_rng(4)
    table = rank_queries(random_side(rng, 20, 5), random_side(rng, 30, 5), "swh_Latn", "text→image", "x")
    for metric, lang in itertools.product(METRICS, ["swh_Latn"]):
        values = per_query(table, metric)
        assert values.lang.unique().tolist() == [lang] and values["query"].is_unique and np.isfinite(values.value).all()


def test_a_query_without_a_rank_is_no_miss():
    assert [METRICS[name](np.array([1.0, np.nan, 7.0])).tolist()[::2] for name in ("R@1", "R@10")] == [[1, 0], [1, 1]]
    assert all(np.isnan(METRICS[name](np.array([1.0, np.nan]))[1]) for name in ("R@1", "R@5", "R@10", "MRR"))
