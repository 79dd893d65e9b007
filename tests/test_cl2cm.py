"""CL2CM rebuilt: transport against POT, a student that repeats its teacher, what was seen, and what distillation is worth."""

import json
from dataclasses import replace

import numpy as np
import ot
import pandas as pd
import pytest
import torch

from xmalign_lab import cl2cm, corpora, lowresource, study
from xmalign_lab.corpus import Corpus, CorpusError, Pairs, split_by_family
from xmalign_lab.encoders.classic import ClassicImage, ClassicText
from xmalign_lab.encoders.features import Features
from xmalign_lab.encoders.inputs import Inputs, texts
from xmalign_lab.encoders.levels import MultiLevelText
from xmalign_lab.evaluate.retrieval import Side
from xmalign_lab.losses import local
from xmalign_lab.losses.transfer import relational
from xmalign_lab.model import Aligner, Fixed
from xmalign_lab.pairs.noise import shuffle
from xmalign_lab.pairs.parallel import bridge
from xmalign_lab.recipe import TERMS, Recipe, View
from xmalign_lab.schedules import Linear
from xmalign_lab.train import fit

pytestmark = pytest.mark.usefixtures("one_thread")
TARGETS = ("swh_Latn", "sin_Sinh")
SMALL = Recipe(epochs=2, hidden=16, dim=8, components=4, batch_pairs=200, least_count=1)


def drawn(n=4, a=5, b=6, d=7, seed=0):
    """Unit tokens x (n, a, d) and y (n, b, d) with masks; the real ones stand anywhere, the first always."""
    random = torch.Generator().manual_seed(seed)
    x, y = (torch.nn.functional.normalize(torch.randn(n, t, d, generator=random), dim=-1) for t in (a, b))
    masks = [torch.rand(n, t, generator=random) < 0.6 for t in (a, b)]
    for mask in masks:
        mask[:, 0] = True
    return x, y, *masks


def test_the_cost_of_transport_is_pots():
    x, y, x_mask, y_mask = drawn()
    found = local.transport_cost(x, y, x_mask, y_mask, iterations=500)
    for row in range(len(x)):
        left, right = x[row][x_mask[row]].double().numpy(), y[row][y_mask[row]].double().numpy()
        cost = 1 - left @ right.T
        plan = ot.sinkhorn(*(np.full(len(of), 1 / len(of)) for of in (left, right)), cost, 0.1, numItermax=5000, stopThr=1e-12)
        assert found[row].item() == pytest.approx((plan * cost).sum(), abs=1e-5)
        of = local.matching(x, y, x_mask, y_mask, iterations=500)[row][x_mask[row]][:, y_mask[row]]
        np.testing.assert_allclose(of.numpy(), plan, atol=1e-5)


def test_a_text_beside_itself_is_nearly_free_and_its_words_meet_themselves():
    words = torch.eye(4)[None]
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert local.transport_cost(words, words[:, [2, 0, 3, 1]], mask, mask, epsilon=0.02)[0] < 1e-4
    assert local.transport_cost(words, -words, mask, mask)[0] > 1


def test_padding_costs_nothing_and_learns_nothing():
    x, y, x_mask, y_mask = drawn()
    x, y = (torch.cat([of, 9 * torch.ones(4, 2, 7)], 1).requires_grad_() for of in (x, y))
    masks = [torch.cat([mask, torch.zeros(4, 2, dtype=torch.bool)], 1) for mask in (x_mask, y_mask)]
    cost = local.transport_cost(x, y, *masks)
    plain = local.transport_cost(x[:, :5], y[:, :6], x_mask, y_mask)
    torch.testing.assert_close(cost, plain)
    cost.sum().backward()
    assert x.grad[~masks[0]].abs().max() == 0 == y.grad[~masks[1]].abs().max()
    plan = local.matching(x.detach(), y.detach(), *masks)
    torch.testing.assert_close(x.grad, -(plan @ y.detach()), msg="the plan itself has no gradient")
    with pytest.raises(ValueError, match="x, row 1: every token is masked"):
        local.transport_cost(x, y, masks[0] & (torch.arange(4) != 1)[:, None], masks[1])


def view(**changes) -> View:
    x, y, x_mask, y_mask = drawn(5, seed=3)
    left, right = (torch.nn.functional.normalize(of.sum(1), dim=1).requires_grad_() for of in (x, y))
    parts = {"left_tokens": x, "left_mask": x_mask, "right_tokens": y, "right_mask": y_mask, "taught": True}
    parts |= {"positives": torch.eye(5, dtype=torch.bool), "weight": torch.eye(5), "tau": 0.2, "bias": torch.tensor(0.0)}
    return View(left, right, left @ right.T, **parts | changes)


def test_the_cost_is_a_mean_over_the_believed_pairs_by_weight():
    weight = torch.diag(torch.tensor([1.0, 0.5, 0.0, 0.25, 1.0]))
    seen = view(weight=weight, positives=weight > 0)
    each = local.transport_cost(seen.left_tokens, seen.right_tokens, seen.left_mask, seen.right_mask)
    by_hand = (each * weight.diagonal()).sum() / 2.75
    assert TERMS["transport_cost"](seen).item() == pytest.approx(by_hand.item(), rel=1e-5)
    with pytest.raises(ValueError, match="no left tokens, which the term 'transport_cost' needs"):
        TERMS["transport_cost"](view(left_tokens=None))


def test_a_student_that_repeats_its_teacher_has_nothing_to_learn():
    seen = view()
    own = local.transport(seen.left_tokens, seen.right_tokens, seen.left_mask, seen.right_mask)
    for term, agreed in (("relational", {"guide": seen.sim}), ("relational_words", {"guide": seen.sim, "guide_words": own})):
        assert TERMS[term](view(**agreed)).item() == pytest.approx(0, abs=1e-6)
        other = {name: of + torch.randn(5, 5, generator=torch.Generator().manual_seed(1)) for name, of in agreed.items()}
        assert TERMS[term](view(**other)) > 0.1
        assert TERMS[term](view()).item() == 0, "a relation that the teacher does not know"
    with pytest.raises(ValueError, match="give train.. a guide with tokens"):
        TERMS["relational_words"](view(guide=seen.sim))


def test_distillation_has_a_temperature_of_its_own():
    guide = torch.randn(5, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
    seen = view(guide=guide, guide_tau=0.7)
    loss = TERMS["relational"](seen)
    assert loss.item() == pytest.approx(relational(seen.sim, guide, 0.7).item())
    assert TERMS["relational"](replace(seen, guide_tau=None)).item() == pytest.approx(relational(seen.sim, guide, 0.2).item())
    loss.backward()
    assert guide.grad is None and seen.left.grad.abs().max() > 0
    recipe = replace(SMALL, guide_temperature=Linear(0.2, 0.05))
    assert Recipe.from_json(recipe.to_json()) == recipe
    with pytest.raises(ValueError, match="a temperature must stay finite and above 0"):
        replace(SMALL, guide_temperature=Linear(0.2, -0.05))


# -- what was seen ----------------------------------------------------------------------------------------------------------


def captioned() -> tuple[Corpus, Pairs]:
    """Two pictures with an English caption each, its machine translation into Swahili, and a human's."""
    row = {"group": "g0", "family": "g0", "kind": "caption", "lang": "", "text": "", "image": ""}
    rows = []
    for n in "01":
        of = row | {"group": f"g{n}", "family": f"g{n}"}
        rows.append(of | {"id": f"i{n}", "image": f"scene:{n}", "kind": "picture"})
        rows.append(of | {"id": f"e{n}", "lang": "eng_Latn", "text": "a dog"})
        rows.append(of | {"id": f"m{n}", "lang": "swh_Latn", "text": "mbwa", "labels": {"made": "machine", "by": "nobody"}})
        rows.append(of | {"id": f"h{n}", "lang": "swh_Latn", "text": "mbwa mmoja"})
    rows = [{"labels": {}} | one for one in rows]
    tie = [("i", "e", "image-eng_Latn"), ("e", "m", "eng_Latn-swh_Latn"), ("i", "m", "image-swh_Latn")]
    pairs = [{"left": a + n, "right": b + n, "source": source} for a, b, source in tie for n in "01"]
    return Corpus(pd.DataFrame(rows), "two pictures"), Pairs(pd.DataFrame(pairs))


def test_what_was_seen_is_counted_by_kind():
    corpus, pairs = captioned()
    weighed = pairs.assign(weight=np.where(pairs.rows.left == "e1", 0.0, 1.0))
    table = cl2cm.seen(weighed, corpus).set_index("source")
    assert table.pairs.to_dict() == {"image-eng_Latn": 2, "eng_Latn-swh_Latn": 1, "image-swh_Latn": 2}
    assert table.made.to_dict() == {"image-eng_Latn": "human", "eng_Latn-swh_Latn": "machine", "image-swh_Latn": "machine"}
    assert table.loc["image-swh_Latn", ["left modality", "left lang", "right modality", "right lang"]].tolist() == [
        "image", "", "text", "swh_Latn",
    ]  # fmt: skip
    assert table.through["image-swh_Latn"] == 1, "the other's way has no weight"
    copied = Pairs(pd.DataFrame({"left": ["e0"], "right": ["e0"], "source": "copied"}))
    alone = cl2cm.seen(pairs.select(pairs.rows.source == "image-eng_Latn") + copied, corpus).set_index("source")
    assert alone.through["image-eng_Latn"] == 0, "a copy is no way to its own original"
    with pytest.raises(CorpusError, match="no row has the id 'i0', which a pair names"):
        cl2cm.seen(pairs, corpus.where_rows(modality="text"))


def test_one_human_caption_beside_a_picture_breaks_the_proof():
    corpus, pairs = captioned()
    cl2cm.prove_no_image_target(cl2cm.seen(pairs, corpus), "swh_Latn")
    for left, right in (("i1", "h1"), ("h1", "i1")):
        told = pairs + Pairs(pd.DataFrame({"left": [left], "right": [right], "source": "leak"}))
        with pytest.raises(ValueError, match="human texts in swh_Latn: 1 pairs of 'leak', 0 of them through others"):
            cl2cm.prove_no_image_target(cl2cm.seen(told, corpus), "swh_Latn")
    cl2cm.prove_no_image_target(cl2cm.seen(told, corpus), "sin_Sinh")
    cl2cm.prove_no_image_target(cl2cm.seen(told.assign(weight=(told.rows.source != "leak") * 1.0), corpus), "swh_Latn")


def test_a_text_of_another_target_is_no_way_to_a_picture():
    corpus, pairs = captioned()
    rows = corpus.rows.assign(lang=corpus.rows.lang.replace("eng_Latn", "sin_Sinh"))
    human = Pairs(pairs.rows.replace({"m0": "h0", "m1": "h1"}))
    table = cl2cm.seen(human, Corpus(rows, "no English"))
    for target in ("swh_Latn", "sin_Sinh"):
        with pytest.raises(ValueError, match=f"human texts in {target}"):
            cl2cm.prove_no_image_target(table, target, stand_in=True)


def test_a_stand_in_may_be_seen_through_its_caption_alone():
    corpus, pairs = captioned()
    human = Pairs(pairs.rows.replace({"m0": "h0", "m1": "h1"}))
    table = cl2cm.seen(human, corpus)
    cl2cm.prove_no_image_target(table, "swh_Latn", stand_in=True)
    with pytest.raises(ValueError, match="2 pairs of 'image-swh_Latn', 2 of them through others"):
        cl2cm.prove_no_image_target(table, "swh_Latn")
    direct = human.select(human.rows.left != "e1")
    with pytest.raises(ValueError, match="2 pairs of 'image-swh_Latn', 1 of them through others"):
        cl2cm.prove_no_image_target(cl2cm.seen(direct, corpus), "swh_Latn", stand_in=True)


# -- teacher and student ------------------------------------------------------------------------------------------------------


def towers():
    """Eight concepts: pictures as sequences of three patches, English and Swahili texts of two words."""
    random = np.random.default_rng(0)
    named = {"eng_Latn": ("red dog", "blue dog", "red cat", "blue cat"), "swh_Latn": ("mbwa xa", "mbwa yo", "paka xa", "paka yo")}
    tower = MultiLevelText(levels=("words",), width=8, heads=1, buckets=256)
    spelled = [text for of in named.values() for text in of]
    inputs = texts(spelled, tower.tokenise)
    patches = random.normal(size=(4, 3, 5)).astype(np.float32)
    patches[0, 2] = 0
    ids = [f"{lang[0]}{n}" for lang in named for n in range(4)]
    tables = {"image": Inputs([f"i{n}" for n in range(4)], patches), "text": Inputs(ids, inputs.rows)}
    towers = {"image": {"tower": "Sequence", "width_in": 5, "width": 8}, "text": {"tower": "MultiLevelText", **tower.settings}}
    recipe = replace(SMALL, towers=towers, epochs=30, batch_pairs=8, learning_rate=0.02)
    tie = [
        (f"{a}{n}", f"{b}{n}", source) for a, b, source in (("i", "e", "image-eng_Latn"), ("e", "s", "text")) for n in range(4)
    ]
    return tables, recipe, Pairs(pd.DataFrame(tie, columns=["left", "right", "source"]))


def steps_of(folder) -> pd.DataFrame:
    return pd.DataFrame(json.loads((folder / "state.json").read_text())["rows"])


def test_the_teacher_learns_sentences_and_words_and_a_student_leaves_it_as_it_is(tmp_path):
    tables, recipe, pairs = towers()
    parallel = pairs.select(pairs.rows.source == "text")
    pictured = pairs.select(pairs.rows.source != "text")
    master = cl2cm.teacher(recipe, tables["text"], parallel, tmp_path)
    steps = steps_of(tmp_path)
    assert {"text/info_nce", "text/transport_cost"} <= set(steps)
    assert steps["text/transport_cost"].iloc[-1] < 0.5 * steps["text/transport_cost"].iloc[0]
    assert pd.read_parquet(tmp_path / "pairs.parquet").left.tolist() == parallel.rows.left.tolist()
    guide = cl2cm.knowledge(master, tables["text"], pictured)
    vectors = dict(zip(guide.ids, guide.vectors, strict=True))
    np.testing.assert_allclose(vectors["i2"], vectors["e2"], atol=1e-6)
    assert (guide.vectors[4:] == master.encode_text(tables["text"])).all() and guide.tokens.shape[:2] == (12, 2)
    before = {name: weight.clone() for name, weight in master.state_dict().items()}
    both = pictured + Pairs(parallel.rows.assign(left=pictured.rows.left.to_numpy(), source="image-swh_Latn"))
    pupil = cl2cm.student(recipe, tables, both, guide, tmp_path / "student")
    steps = steps_of(tmp_path / "student")
    for term in ("relational", "relational_words"):
        assert steps[f"image-swh_Latn/{term}"].iloc[-1] < steps[f"image-swh_Latn/{term}"].iloc[0]
    assert all(torch.equal(weight, before[name]) for name, weight in master.state_dict().items())
    found = pupil.encode_text(tables["text"])[4:] @ pupil.encode_image(tables["image"]).T
    assert (found.argmax(1) == np.arange(4)).all()


def test_a_run_goes_on_with_its_own_pairs_only(tmp_path):
    tables, recipe, pairs = towers()
    fit(recipe, tables, pairs, tmp_path, progress=False)
    fit(recipe, tables, pairs, tmp_path, progress=False)
    with pytest.raises(ValueError, match="holds a run of other pairs"):
        fit(recipe, tables, pairs.select(pairs.rows.left != "i0"), tmp_path, progress=False)


def test_a_picture_of_two_captions_is_guided_by_their_mean():
    known = Features(["a", "b", "c"], np.eye(3, dtype=np.float32))
    master = Aligner(Fixed(3), Fixed(3))
    pairs = Pairs(pd.DataFrame({"left": ["p", "q", "p"], "right": ["a", "c", "b"], "weight": [1.0, 1.0, 0.5]}))
    guide = cl2cm.knowledge(master, known, pairs)
    expected = np.array([[1, 0.5, 0], [0, 0, 1]]) / [[1.25**0.5], [1]]
    np.testing.assert_allclose(guide.vectors[:2], expected, rtol=1e-6)
    assert guide.ids.tolist() == ["p", "q", "a", "b", "c"] and guide.tokens is None


@pytest.fixture(scope="module")
def task():
    corpus = split_by_family(corpora.load("scenes", ["eng_Latn", *TARGETS], n=80), 0)
    features = {"image": ClassicImage().encode(corpus, progress=False), "text": ClassicText().encode(corpus, progress=False)}
    pairs = bridge(study.training_part(corpus, "test"), list(TARGETS))
    return study.Task(corpus, features, pairs, np.ones(len(pairs), bool), TARGETS, 0)


def test_the_study_sees_a_target_through_the_pivot_alone(task):
    scores = cl2cm.METHODS["pseudo-pairs"][0](task, SMALL)
    told = pd.DataFrame(scores.attrs["seen"])
    pseudo = told[told.source.str.startswith("image-s")]
    assert (pseudo.pairs == pseudo.through).all() and set(pseudo["right lang"]) == set(TARGETS)
    assert set(scores.lang) == {"eng_Latn", *TARGETS}
    direct = Pairs.by_group(task.training, {"modality": "image"}, {"lang": "swh_Latn", "modality": "text"}, "direct")
    with pytest.raises(ValueError, match="pictures were paired with human texts in swh_Latn"):
        cl2cm.run(replace(task, pairs=task.pairs + direct), SMALL)


def test_every_part_makes_another_student(task):
    recipe = replace(SMALL, epochs=8, dim=32, hidden=32, learning_rate=0.01)
    scores = {name: run(task, recipe) for name, (run, _) in (cl2cm.METHODS | cl2cm.ABLATION).items()}
    ranks = {name: tuple(of["rank"]) for name, of in scores.items()}
    assert len(set(ranks.values())) == len(ranks) == 5
    assert scores["CL2CM"].attrs["seen"] == scores["pseudo-pairs"].attrs["seen"]


def test_transport_matches_words_that_translate_each_other(task):
    recipe = replace(SMALL, epochs=20, dim=32, hidden=32, learning_rate=0.01)
    leveled = lowresource.leveled(task.corpus, ("levels",))
    ids = task.training.where_rows(modality="text").ids
    known = Features(ids, leveled.take(ids))
    noisy, truth = shuffle(task.pairs, task.training, 0.2, sources=[f"eng_Latn-{target}" for target in TARGETS])
    noisy = replace(task, pairs=noisy, truth=truth)
    features, pairs = cl2cm.matched_words(noisy, cl2cm.teacher(recipe, known, noisy.parallel), least=0.2)
    rows = pairs.rows[pairs.rows.source == "words eng_Latn-swh_Latn"].sort_values("weight")
    best = {left.split(":")[2]: right.split(":")[2] for left, right in rows[["left", "right"]].to_numpy()}
    assert best.items() >= {("blue", "bluu"), ("green", "kijani"), ("left", "kushoto")} and rows.weight.between(0.2, 1).all()
    pairs.check(features.ids)


def test_a_student_may_start_where_its_teacher_stopped(task):
    ids = task.training.where_rows(modality="text").ids
    texts = Features(ids, task.features["text"].take(ids))
    still = replace(SMALL, epochs=1, learning_rate=1e-12, weight_decay=0.0)
    master = cl2cm.teacher(SMALL, texts, task.parallel)
    begun, fresh = (cl2cm.student(still, task.features, task.pictured, None, begin=of) for of in (master, None))
    np.testing.assert_allclose(begun.encode_text(texts), master.encode_text(texts), atol=1e-6)
    assert abs(fresh.encode_text(texts) - master.encode_text(texts)).max() > 0.1
    assert begun.heads["text"] is not master.heads["text"]


# -- what it is worth ---------------------------------------------------------------------------------------------------------


def test_distillation_helps_where_translations_are_wrong():
    """Few noisy pictures, many parallel texts, 40 % of them of another concept: the teacher knows better than the pairs."""
    random, n, train, pictured = np.random.default_rng(0), 680, 600, 120
    concept = random.normal(size=(n, 12))
    turn = np.linalg.qr(random.normal(size=(12, 12)))[0]
    image = concept @ random.normal(size=(12, 40)) + 1.5 * random.normal(size=(n, 40))
    english = np.pad(concept, ((0, 0), (0, 12))) + 0.3 * random.normal(size=(n, 24))
    target = np.pad(concept @ turn, ((0, 0), (12, 0))) + 0.3 * random.normal(size=(n, 24))
    ids = {kind: [f"{kind}{k}" for k in range(n)] for kind in "iet"}
    both = Features.from_arrays(np.r_[english, target], ids["e"] + ids["t"])
    features = {"image": Features.from_arrays(image, ids["i"]), "text": both}
    moved = np.arange(train)
    wrong = random.permutation(train)[: int(0.4 * train)]
    moved[wrong] = np.roll(moved[wrong], 1)
    targets = np.array(ids["t"])[moved]
    tie = {"text": (ids["e"][:train], targets), "to English": (ids["i"], ids["e"]), "to Swahili": (ids["i"], targets)}
    tie = {source: (a, b) if source == "text" else (a[:pictured], b[:pictured]) for source, (a, b) in tie.items()}
    pairs = Pairs(pd.concat([pd.DataFrame({"left": a, "right": b, "source": source}) for source, (a, b) in tie.items()]))
    of = {source: pairs.select(pairs.rows.source == source) for source in tie}
    linear = {"image_head": "linear", "text_head": "linear", "image_dropout": 0.0, "text_dropout": 0.0, "dropout": 0.0}
    recipe = Recipe(epochs=40, batch_pairs=120, dim=16, components=24, learning_rate=0.01, **linear)
    guide = cl2cm.knowledge(cl2cm.teacher(recipe, both, of["text"]), both, of["to English"])
    reached = []
    for what in (None, guide):
        pupil = cl2cm.student(recipe, features, of["to English"] + of["to Swahili"], what)
        sims = pupil.encode_text(both)[n + train :] @ pupil.encode_image(features["image"])[train:].T
        reached.append((1 / (1 + (sims > sims.diagonal()[:, None]).sum(1))).mean())
    assert reached[1] > reached[0] + 0.05


def test_distances_and_ranks_are_those_of_loops():
    random = np.random.default_rng(0)
    names = np.array(["a", "b", "c"], object)
    sides = {}
    for name in ("pictures", "eng", "swh"):
        vectors = random.normal(size=(3, 4))
        sides[name] = Side(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), names, names, names)
    table = cl2cm.distances(sides).set_index(["left", "right"])
    x, y = sides["pictures"].vectors, sides["swh"].vectors
    same = np.mean([1 - x[k] @ y[k] for k in range(3)])
    other = np.mean([1 - x[k] @ y[j] for k in range(3) for j in range(3) if k != j])
    row = table.loc[("pictures", "swh")]
    assert [row.same, row.other, row.ratio] == pytest.approx([same, other, same / other]) and len(table) == 3
    assert row.gap == pytest.approx(np.linalg.norm(x.mean(0) - y.mean(0)))
    ranks = [pd.DataFrame({"query": list("abc")[:n], "lang": "swh", "rank": [n] * n}) for n in (3, 2, 2)]
    assert cl2cm.compared(*ranks).to_numpy().tolist() == [["a", "swh", 3, 2, 2], ["b", "swh", 3, 2, 2]]
