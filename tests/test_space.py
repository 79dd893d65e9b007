"""Numbers of a space against closed forms, scipy, scikit-learn and brute force."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import ortho_group, spearmanr
from sklearn.metrics import silhouette_samples

from xmalign_lab.corpora.grammar import COMPOSITIONS, describe
from xmalign_lab.evaluate import space
from xmalign_lab.evaluate.space import language_mixing, modality_gap


def turned(*degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def cloud(n: int, d: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_closed_forms():
    assert modality_gap(turned(0), turned(180)) == pytest.approx(2)
    assert modality_gap(turned(0), turned(60)) == pytest.approx(1)
    assert modality_gap(turned(30, -30), turned(60, -60)) == pytest.approx((3**0.5 - 1) / 2)
    assert modality_gap(turned(0, 90, 180, 270), turned(45, 225)) == pytest.approx(0, abs=1e-12)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=30)
def test_it_is_symmetric_bounded_and_knows_no_order(n, m, seed):
    rng = np.random.default_rng(seed)
    images, texts = cloud(n, 4, seed), cloud(m, 4, seed + 1)
    gap = modality_gap(images, texts)
    assert 0 <= gap <= 2 and gap == pytest.approx(modality_gap(texts, rng.permutation(images)))
    assert modality_gap(images, images) == 0


@pytest.mark.parametrize("texts", [np.zeros((0, 2)), np.zeros((3, 4)), np.zeros(2)])
def test_sides_that_do_not_fit_are_refused(texts):
    with pytest.raises(ValueError, match="must be"):
        modality_gap(turned(0, 90), texts)


def test_languages_apart_mixed_and_identical():
    apart, mixed = turned(0, 5, 90, 95), turned(0, 90, 5, 95)
    langs = np.array(["eng_Latn", "eng_Latn", "swh_Latn", "swh_Latn"], object)
    assert language_mixing(apart, langs) == 0 and language_mixing(mixed, langs) == 1
    # a row is never its own neighbour, even where an equal one stands before it
    assert language_mixing(turned(0, 0), np.array(["eng_Latn", "swh_Latn"])) == 1
    with pytest.raises(ValueError, match="4 vectors and 3 languages"):
        language_mixing(apart, langs[:3])


def test_mixing_of_languages_that_do_not_matter():
    langs = np.array(["a", "b", "c"])[np.random.default_rng(0).integers(3, size=900)]
    assert language_mixing(cloud(900, 5).astype(np.float32), langs) == pytest.approx(2 / 3, abs=0.06)


@given(st.lists(st.integers(1, 6), min_size=2, max_size=9), st.integers(0, 99))
@settings(max_examples=60)
def test_the_others_are_a_permutation_without_own_labels(sizes, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    if 2 * max(sizes) > sum(sizes):
        with pytest.raises(ValueError, match=f"{max(sizes)} of {sum(sizes)} rows are '{np.argmax(sizes)}'"):
            space._others(labels, seed)
    else:
        other = space._others(labels, seed)
        assert sorted(other) == list(range(len(labels))) and (labels[other] != labels).all()
        assert (other == space._others(labels, seed)).all()


def test_the_seed_draws_other_partners():
    drawn = {tuple(space._others(np.arange(9), seed)) for seed in range(20)}
    assert len(drawn) > 15


def test_true_pairs_against_random_ones():
    left, right = turned(0, 90, 180), 5 * turned(60, 90, 240)  # cosines do not see lengths
    true, random = space.pair_similarity(left, right, seed=3)
    assert true == pytest.approx([0.5, 1, 0.5])
    every = turned(0, 90, 180) @ turned(60, 90, 240).T
    assert all(value in np.delete(every[i], i).round(9) for i, value in enumerate(random.round(9)))
    groups = np.array(["a", "a", "b", "b"])  # the captions of one picture are no random pair of each other
    assert space.pair_similarity(np.eye(2)[[0, 0, 1, 1]], np.eye(2)[[0, 0, 1, 1]], 0, groups)[1] == pytest.approx([0] * 4)


def test_alignment_is_the_squared_distance_of_each_pair():
    assert space.alignment(turned(0, 0, 0), turned(0, 90, 180)) == pytest.approx([0, 2, 4])


@pytest.mark.parametrize("measure", [space.pair_similarity, space.alignment])
@pytest.mark.parametrize("right", [np.zeros((2, 2)), np.zeros((3, 1)), np.zeros(3)])
def test_pairs_of_other_shapes_are_refused(measure, right):
    with pytest.raises(ValueError, match="must match row for row"):
        measure(turned(0, 90, 180), right)


def test_uniformity_of_points_one_can_place():
    assert space.uniformity(turned(0, 180)) == pytest.approx(-8)  # antipodal: squared distance 4, times t = 2
    assert space.uniformity(turned(0, 180), t=1) == pytest.approx(-4)
    assert space.uniformity(turned(7, 7, 7)) == pytest.approx(0)
    square = np.log((2 * np.exp(-4) + np.exp(-8)) / 3)  # each corner: two neighbours at distance² 2, one at 4
    assert space.uniformity(turned(0, 90, 180, 270)) == pytest.approx(square)
    with pytest.raises(ValueError, match="n ≥ 2"):
        space.uniformity(turned(0))


def test_uniformity_is_the_same_in_blocks():
    x = cloud(2_950, 4).astype(np.float32)  # 64 MiB hold 2,843 rows of its distances, so there are two blocks
    pairs = np.exp(-2 * cdist(x.astype(float), x.astype(float), "sqeuclidean"))
    assert space.uniformity(x) == pytest.approx(np.log(pairs[np.triu_indices(len(x), 1)].mean()), abs=1e-9)


def test_a_probe_that_finds_the_language_and_one_that_cannot():
    langs, groups = np.tile(["eng_Latn", "eng_Latn", "swh_Latn"], 60), np.repeat(np.arange(60), 3)
    x = np.random.default_rng(0).normal(size=(180, 6))
    correct, majority = space.language_probe(x + 9 * (langs == "swh_Latn")[:, None], langs, groups)
    assert correct.shape == (180,) and correct.dtype == bool and correct.all() and majority == pytest.approx(2 / 3)
    assert space.language_probe(x, langs, groups)[0].mean() < 0.75


def test_the_probe_never_judges_a_group_it_has_seen():
    """Each group has one point and one language drawn at random: who has seen the group knows the language by heart."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    x, langs = rng.normal(size=(40, 60))[groups], np.array(["a", "b"])[rng.integers(2, size=40)][groups]
    assert space.language_probe(x, langs, groups)[0].mean() < 0.7
    assert space.language_probe(x, langs, np.arange(200))[0].all()  # the same without groups: a leak, and a perfect score


def test_a_probe_needs_two_languages_and_groups():
    with pytest.raises(ValueError, match="1 languages and 2 groups"):
        space.language_probe(turned(0, 90), ["a", "a"], [1, 2])
    with pytest.raises(ValueError, match="2 languages and 1 groups"):
        space.language_probe(turned(0, 90), ["a", "b"], [1, 1])


@pytest.mark.parametrize("k", [1, 2, 5, 8])
def test_effective_rank_of_an_isometry_is_its_rank(k):
    turn = ortho_group.rvs(8, random_state=0)[:k]
    assert space.effective_rank(np.concatenate([turn, -turn])) == pytest.approx(k)  # centred, k equal singular values
    assert space.effective_rank(np.concatenate([turn, -turn]) + 7) == pytest.approx(k)  # the mean is no dimension


def test_effective_rank_of_what_one_can_write_out_and_of_a_collapse():
    p = np.array([3, 1]) / 4
    x = np.array([[3, 0], [-3, 0], [0, 1], [0, -1.0]])
    assert space.effective_rank(x) == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    one = np.tile(cloud(1, 300).astype(np.float32), (500, 1))
    assert space.effective_rank(one) == 0 and space.effective_rank(np.zeros((4, 2))) == 0
    assert space.effective_rank(cloud(400, 8)) > 7.9


def test_rsa_is_the_rank_correlation_of_all_pairs():
    x, y = cloud(12, 4), cloud(12, 6, seed=1)
    pairs = list(combinations(range(12), 2))
    within = [[side[i] @ side[j] for i, j in pairs] for side in (x, y)]
    assert space.rsa(x, 3 * y) == pytest.approx(spearmanr(*within).statistic, abs=1e-4)
    assert space.rsa(x, x @ ortho_group.rvs(4, random_state=0)) == pytest.approx(1)


def test_rsa_holds_true_ties_through_rounding():
    """Few different cosines, so many ties, which a turn leaves equal only up to rounding."""
    x = np.array(list(product([0.0, 1.0], repeat=5)))[1:]
    assert space.rsa(x, x @ ortho_group.rvs(5, random_state=1)) == pytest.approx(1, abs=1e-9)


def test_rsa_of_a_sample_needs_a_seed_and_no_large_matrix(monkeypatch):
    monkeypatch.setattr(space, "MOST_COMPARED", 60)
    x = cloud(400, 4)
    y = x + 0.3 * cloud(400, 4, seed=1)
    assert space.rsa(x, y, seed=1) == space.rsa(x, y, seed=1) != space.rsa(x, y, seed=2)
    assert np.isnan(space.rsa(np.eye(3), cloud(3, 3))) and np.isnan(space.rsa(x[:3], np.diag([1, 0, 1.0])))
    with pytest.raises(ValueError, match=r"\(3, 3\) and \(2, 3\) must match row for row .* any d"):
        space.rsa(np.eye(3), np.eye(3)[:2])


def test_cka_is_blind_to_rotation_scale_and_shift_and_to_nothing_else():
    x = cloud(50, 5)
    assert space.linear_cka(x, 3 * x @ ortho_group.rvs(5, random_state=0) + 4) == pytest.approx(1)
    y = cloud(50, 7, seed=1)
    kernels = [(side - side.mean(0)) @ (side - side.mean(0)).T for side in (x, y)]  # HSIC: the other way to write it
    by_kernel = (kernels[0] * kernels[1]).sum() / np.prod([np.linalg.norm(kernel) for kernel in kernels])
    assert space.linear_cka(x, y) == pytest.approx(by_kernel) and by_kernel < 0.5
    assert space.linear_cka(x, x @ np.diag([9, 1, 1, 1, 1])) < 0.95
    assert np.isnan(space.linear_cka(x, np.tile(y[:1], (50, 1))))
    with pytest.raises(ValueError, match="must match row for row"):
        space.linear_cka(x, y[:49])


def test_single_changes_of_a_table_one_can_count():
    labels = pd.DataFrame({"colour": ["red", "blue", "red", "blue"], "count": [1, 1, 2, 3]}, index=[9, 8, 7, 6])
    found = {tuple(row) for row in space.single_changes(labels).itertuples(index=False)}
    there = {(0, 1, "colour red→blue"), (0, 2, "count 1→2"), (1, 3, "count 1→3")}
    assert found == there | {(1, 0, "colour blue→red"), (2, 0, "count 2→1"), (3, 1, "count 3→1")}


def test_single_changes_of_all_scenes():
    labels = pd.DataFrame([describe(number).labels for number in range(COMPOSITIONS)])
    changes = space.single_changes(labels)
    assert len(changes) == COMPOSITIONS * (5 + 5 + 1 + 2 + 4)  # other shapes, colours, sizes, numbers and places
    before, after = labels.iloc[changes.before].to_numpy(str), labels.iloc[changes.after].to_numpy(str)
    assert ((before != after).sum(1) == 1).all()


def test_offsets_that_agree_across_languages_and_those_that_do_not():
    """Two languages of one additive space, the second turned in a way that keeps offsets, and one without any order."""
    changes = np.repeat(["colour red→blue", "size small→large", "count 1→2"], 4)
    base, other_base = cloud(12, 6), cloud(12, 6, seed=1)
    moves = np.eye(6)[np.repeat([0, 1, 2], 4)]
    same, shuffled = space.offset_consistency(base, base + moves, other_base, other_base + 2 * moves, changes)
    assert same == pytest.approx(np.ones(12)) and shuffled == pytest.approx(np.zeros(12), abs=1e-9)
    same, _ = space.offset_consistency(base, base + moves, other_base, other_base - moves, changes)
    assert same == pytest.approx(-np.ones(12))
    unsaid = other_base + moves * (changes != "count 1→2")[:, None]
    assert space.offset_consistency(base, base + moves, other_base, unsaid, changes)[0] == pytest.approx(np.repeat([1, 1, 0], 4))
    with pytest.raises(ValueError, match="must match row for row"):
        space.offset_consistency(base, base, base[:2], base[:2], changes)
    with pytest.raises(ValueError, match="8 of 12 rows are 'a'"):
        space.offset_consistency(base, base + moves, base, base + moves, np.repeat(["a", "b"], [8, 4]))


def test_silhouette_is_scikit_learns_and_a_hand_made_one():
    labels = np.array(["a", "a", "b", "b"])
    found = space.silhouette(turned(0, 0, 90, 180), labels, np.arange(4))
    assert found == pytest.approx([1, 1, 0, (2 - 1) / 2])  # the third is as near to the fourth as to the others
    x, labels = cloud(60, 5), np.random.default_rng(0).integers(4, size=60)
    assert space.silhouette(x, labels, np.arange(60)) == pytest.approx(silhouette_samples(x, labels, metric="cosine"))
    with pytest.raises(ValueError, match="Number of labels"):
        space.silhouette(x, np.arange(60), np.arange(60))


def test_silhouette_of_many_rows_draws_whole_groups(monkeypatch):
    monkeypatch.setattr(space, "MOST_JUDGED", 30)
    x, groups, langs = cloud(90, 5), np.repeat(np.arange(30), 3), np.tile(["a", "b", "c"], 30)
    values = space.silhouette(x, groups, groups, seed=1)
    judged = ~np.isnan(values)
    assert judged.sum() == 30 and (judged.reshape(30, 3).all(1) | ~judged.reshape(30, 3).any(1)).all()
    assert values[judged] == pytest.approx(silhouette_samples(x[judged], groups[judged], metric="cosine"))
    assert (np.isnan(space.silhouette(x, langs, groups, seed=1)) == ~judged).all()  # by language, the same rows
    assert (np.isnan(space.silhouette(x, groups, groups, seed=2)) == judged).any()


def sample(shift: float = 0.0):
    """40 concepts: a picture of each, an English text, and a Swahili one of the first 30, near each other."""
    concepts = cloud(40, 8)
    rows = [("image", "", g) for g in range(40)] + [("text", "eng_Latn", g) for g in range(40)]
    rows += [("text", "swh_Latn", g) for g in range(30)]
    modality, langs, groups = (np.array(column) for column in zip(*rows, strict=True))
    x = concepts[groups] + 0.05 * cloud(110, 8, seed=1) + shift * np.eye(8)[0] * (langs == "swh_Latn")[:, None]
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), modality, langs, groups, groups // 2


def test_a_report_says_what_its_parts_say():
    x, modality, langs, groups, families = sample()
    table = space.space_report(x, modality, langs, groups, families)
    assert list(table) == ["metric", "value", "meaning"] and table.value.map(np.isfinite).all() and table.metric.is_unique
    value = table.set_index("metric").value
    image, english, swahili = x[:40], x[40:80], x[80:]
    shared = np.argsort(np.arange(30).astype(str))  # an RSA ranks pairs in any order, its rounding does not
    assert value["modality gap"] == modality_gap(image, x[40:])
    assert value["uniformity, texts"] == space.uniformity(x[40:])
    assert value["effective rank, images"] == space.effective_rank(image)
    assert value["RSA, text–text"] == pytest.approx(space.rsa(english[shared], swahili[shared]))
    cosines = (image * english).sum(1).mean(), (image[:30] * swahili).sum(1).mean()
    assert value["cosine of true pairs, image–text"] == pytest.approx(np.mean(cosines))
    alike = space.linear_cka(image, english), space.linear_cka(image[:30], swahili)
    assert value["CKA, image–text"] == pytest.approx(np.mean(alike))
    assert value["cosine of true pairs, text–text"] > 0.9 > 0.3 > abs(value["cosine of random pairs, text–text"])
    assert value["language probe"] == space.language_probe(x[40:], langs[40:], families[40:])[0].mean()
    assert value["silhouette by concept"] > 0.1 > value["silhouette by language"]
    assert "0.571" in table.meaning[table.metric == "language probe"].item()  # 40 of 70 texts


def test_a_report_stands_a_collapse():
    x, modality, *of_rows = sample()
    value = space.space_report(np.tile(x[:1], (110, 1)), modality, *of_rows).set_index("metric").value
    assert value["effective rank, texts"] == 0 and value["uniformity, texts"] == pytest.approx(0, abs=1e-6)
    assert set(value.index[value.isna()]) == {"RSA, image–text", "CKA, image–text", "RSA, text–text", "CKA, text–text"}


def test_a_report_sees_languages_apart():
    value = space.space_report(*sample(shift=3)).set_index("metric").value
    assert value["language probe"] > 0.95 and value["language mixing"] < 0.05 and value["silhouette by language"] > 0.3


def test_a_report_leaves_out_what_cannot_be_had():
    x, modality, langs, groups, families = sample()
    for kept, missing in ((slice(0, 80), "language"), (slice(40, 110), "modality gap"), (slice(0, 40), "texts")):
        table = space.space_report(x[kept], modality[kept], langs[kept], groups[kept], families[kept])
        assert len(table) and not table.metric.str.contains(missing).any()
    strangers = groups + 100 * (langs == "swh_Latn")  # no concept twice
    metrics = set(space.space_report(x[40:], modality[40:], langs[40:], strangers[40:], strangers[40:]).metric)
    assert "silhouette by language" in metrics and not metrics & {"silhouette by concept", "RSA, text–text"}
