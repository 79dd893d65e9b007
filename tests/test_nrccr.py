"""NRCCR's network, its six terms, its training and its traps, each against a direct computation."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import normalize

from xmalign_lab import corpora, nrccr, study, sweep
from xmalign_lab.baselines import NotApplicable, clip
from xmalign_lab.corpus import Corpus, CorpusError, Pairs
from xmalign_lab.encoders.features import Features
from xmalign_lab.encoders.inputs import Inputs
from xmalign_lab.encoders.levels import MultiLevelText
from xmalign_lab.model import Aligner
from xmalign_lab.nrccr import NO_TRAPS, Settings, Traps

WORDS = {"tower": "MultiLevelText", "levels": ["words"], "width": 8, "depth": 0, "buckets": 256}
SIZES = dict(inner=12, keys=8, heads=2, hidden=10, dim=6, batch=5, learning_rate=0.01, epochs=2)
SMALL = Settings(**SIZES, traps=NO_TRAPS)
THINGS = ["cat", "dog", "red car", "tree", "big blue house", "sun", "moon", "old man", "fish", "bird"]

pytestmark = pytest.mark.usefixtures("one_thread")


def made():
    """Ten pictures, each with an English name, its translation, and what came back: features and samples."""
    rng = np.random.default_rng(0)
    texts = {f"s{i}": text for i, text in enumerate(THINGS)}
    texts |= {f"t{i}": " ".join("x" + word for word in text.split()) for i, text in enumerate(THINGS)}
    texts |= {f"b{i}": text.replace("old", "aged") for i, text in enumerate(THINGS)}
    settings = {name: value for name, value in WORDS.items() if name != "tower"}
    packed = MultiLevelText(**settings).tokenise(list(texts.values()))
    vectors = rng.normal(size=(10, 7)).astype(np.float32)
    features = {"image": Features([f"v{i}" for i in range(10)], vectors), "text": Inputs(list(texts), packed)}
    names = {"image": "v", "source": "s", "target": "t", "back": "b"}
    return features, pd.DataFrame({name: [f"{mark}{i}" for i in range(10)] for name, mark in names.items()})


def vectors(seed=0, n=5, dim=6, **grad):
    torch.manual_seed(seed)
    return [normalize(torch.randn(n, dim), dim=-1).requires_grad_() for _ in range(5)]


def head(**changes):
    torch.manual_seed(1)
    return nrccr.TextHead(WORDS, **{"dim": 6, "inner": 12, "keys": 8, "heads": 2} | changes).eval()


def packed(*texts):
    return head().tower.tokenise(list(texts))


# the network


def looked(head, x, other):
    """A(x, other) of one text, by loops over heads and places; `other` holds its real tokens alone."""
    heads, keys = head.settings["heads"], head.settings["keys"]
    query, key, value = head.look(x)[:, :keys], head.look(other)[:, keys:], head.seen(other)
    size, width, out = keys // heads, value.shape[1] // heads, torch.zeros(len(x), value.shape[1])
    for h in range(heads):
        for i in range(len(x)):
            logits = torch.stack([query[i, h * size : (h + 1) * size] @ k[h * size : (h + 1) * size] for k in key])
            share = (logits / width**0.5).softmax(0)
            out[i, h * width : (h + 1) * width] = share @ value[:, h * width : (h + 1) * width]
    return head.after(out)


@torch.no_grad()
def test_the_text_head_and_the_soft_teacher_are_what_the_formula_says():
    network, source, target = head(), packed("red car", "a very old man"), packed("x y z", "w")
    (_, *s), (_, *t) = network.read(source), network.read(target)
    vectors, taught = network(source), network.teacher(*s, *t)
    for i in range(2):
        x, y = s[0][i][s[1][i]], t[0][i][t[1][i]]
        own = network.norm(x + looked(network, x, x)).mean(0)
        torch.testing.assert_close(vectors[i], normalize(network.out(own[None]), dim=-1)[0], atol=1e-5, rtol=1e-4)
        both = torch.cat([network.norm(looked(network, x, y)), y]).mean(0)
        torch.testing.assert_close(taught[i], normalize(network.out(both[None]), dim=-1)[0], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_padding_counts_only_in_its_trap():
    for padding, same in ((False, True), (True, False)):
        network = head(padding=padding)
        alone, beside = network(packed("red car"))[0], network(packed("red car", "a very old man indeed"))[0]
        assert torch.allclose(alone, beside, atol=1e-6) == same
        short, long = (network.read(packed("x y", *more)) for more in ((), ("one two three four five",)))
        s = network.read(packed("cat", *["cat"]))[1:]
        taught = [network.teacher(*(part[:1] for part in s), of[1][:1], of[2][:1])[0] for of in (short, long)]
        assert torch.allclose(*taught, atol=1e-6) == same


def test_frozen_vectors_and_frames_go_through_one_visual_head():
    torch.manual_seed(0)
    sequence = {"tower": "Sequence", "width_in": 4, "width": 8}
    network = nrccr.VisualHead(sequence, dim=6).eval()
    rows = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    with torch.no_grad():
        one = network(network.prepare(rows))
        torch.testing.assert_close(one, network(network.prepare(rows[:, None])))
    torch.testing.assert_close(one.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("cut", [True, False])
def test_a_cut_gradient_freezes_a_tower_of_pictures_and_nothing_else(cut):
    rng = np.random.default_rng(0)
    vit = nrccr.VisualHead({"tower": "TinyViT", "size": 8, "patch": 4, "width": 8, "depth": 1, "heads": 2}, dim=6, cut=cut)
    vit(rng.integers(256, size=(3, 4, 8, 8), dtype=np.uint8))[:, 0].sum().backward()
    assert all((weight.grad is None) == cut for weight in vit.tower.parameters())
    assert vit.out[0].weight.grad.abs().sum() > 0
    frames = nrccr.VisualHead({"tower": "Sequence", "width_in": 4, "width": 8}, dim=6, cut=cut)
    frames(rng.normal(size=(3, 2, 4)).astype(np.float32))[:, 0].sum().backward()
    assert frames.tower.enter[0].weight.grad.abs().sum() > 0, "a temporal tower has no other way to learn"


# the terms


def by_loops(a, b, margin=0.2):
    """L_tri of aligned rows, the diagonal being right."""
    sim, total = (a @ b.T).detach().numpy(), 0.0
    for i in range(len(sim)):
        others = [j for j in range(len(sim)) if j != i]
        total += max(0, margin - sim[i, i] + max(sim[i, j] for j in others))
        total += max(0, margin - sim[i, i] + max(sim[j, i] for j in others))
    return total


def softmax(x):
    return np.exp(x) / np.exp(x).sum(1, keepdims=True)


def test_the_five_terms_are_what_numpy_says():
    v, s, t, c, b = given = vectors()
    found = {name: float(value.detach()) for name, value in nrccr.terms(*given, torch.eye(5) > 0, Traps()).items()}
    for name, pair in {"source": (s, v), "target": (t, v), "cycle": (s, b)}.items():
        assert found[name] == pytest.approx(by_loops(*pair), rel=1e-4)
    v, t, c = (each.detach().numpy().astype(float) for each in (v, t, c))
    forth = -(softmax(v @ c.T / 0.07) * np.log(softmax(v @ t.T / 0.07))).sum(1).mean()
    back = -(softmax(c @ v.T / 0.07) * np.log(softmax(t @ v.T / 0.07))).sum(1).mean()
    assert found["similarity"] == pytest.approx((forth + back) / 2, rel=1e-4)
    assert found["feature"] == pytest.approx(((t - c) ** 2 / 8).mean(), rel=1e-4), "all differences are below beta = 4"


def test_the_two_losses_of_the_discriminator_are_what_they_should_be():
    torch.manual_seed(0)
    discriminator, rows = nrccr.critic(4), torch.randn(3, 4)
    assert [layer.out_features for layer in discriminator if hasattr(layer, "out_features")] == [256, 128, 1]
    says = discriminator(rows).sigmoid()
    for source, likely in ((True, says), (False, 1 - says)):
        torch.testing.assert_close(nrccr.believed(discriminator, rows, source), -likely.log().mean())


def test_gradients_go_where_they_are_published_to_go():
    def moved(term, **traps):
        given = vectors()
        nrccr.terms(*given, torch.eye(5) > 0, replace(Traps(), **traps))[term].backward()
        return {name for name, each in zip("vstcb", given, strict=True) if each.grad is not None and each.grad.abs().sum() > 0}

    assert moved("source") == {"s", "v"} and moved("target") == {"t", "v"} and moved("cycle") == {"s", "b"}
    assert moved("similarity") == {"v", "t"}, "the teacher is detached"
    assert moved("feature") == {"t", "c"} and moved("feature", open_target=False) == {"t"}
    v, *_ = given = vectors()  # a picture learns through the goal too, which the teacher's similarities to it make
    goal = (v @ given[3].detach().T / 0.07).softmax(1)
    assert goal.requires_grad


def test_each_switch_of_the_terms_changes_its_own_values_alone():
    given, positives = vectors(n=8), torch.eye(8) > 0
    base = nrccr.terms(*given, positives, NO_TRAPS)
    for name in Traps.__dataclass_fields__:
        other = nrccr.terms(*given, positives, replace(NO_TRAPS, **{name: getattr(Traps(), name)}))
        changed = {term for term in base if not torch.equal(base[term], other[term])}
        assert changed == ({"source", "target", "cycle"} if name == "summed" else set())
        if name == "summed":
            torch.testing.assert_close(other["cycle"], 8 * base["cycle"])


def test_another_caption_of_the_same_picture_is_no_negative():
    rows = pd.DataFrame({"image": ["v1", "v1", "v2", "v3"], "source": ["s1", "s2", "s2", "s9"]})
    group = nrccr.groups(rows)
    assert len({*group[:3]}) == 1 and group[3] != group[0], "v1 and v2 share s2"


# training


def weights(aligner):
    return {name: tensor.cpu() for name, tensor in aligner.state_dict().items()}


def equal(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_it_learns_what_is_asked_of_it():
    features, rows = made()
    few = replace(SMALL, epochs=25, dropout=0.0)
    aligner, log = nrccr.fit(few, features, rows, {"text": WORDS}, progress=False)
    assert nrccr.recall(aligner, features, rows, NO_TRAPS) > 230, "by chance it would be 160"
    assert log.target.iloc[-1] < log.target.iloc[0] / 2 and len(log) == 25
    assert set(nrccr.WEIGHTS) | {"critic", "epoch", "learning_rate", "validation"} == set(log)


def test_saved_and_read_again_it_is_the_same(tmp_path):
    features, rows = made()
    aligner, _ = nrccr.fit(SMALL, features, rows, {"text": WORDS}, progress=False)
    aligner.save(tmp_path)
    again = Aligner.load(tmp_path)
    for name, encode in (("image", "encode_image"), ("text", "encode_text")):
        np.testing.assert_allclose(getattr(again, encode)(features[name]), getattr(aligner, encode)(features[name]), atol=1e-6)


@pytest.mark.parametrize("validated", [False, True])
def test_a_run_that_was_broken_off_goes_on_to_the_same_numbers(tmp_path, validated):
    features, rows = made()
    validation = rows if validated else None
    run = lambda epochs, folder: nrccr.fit(  # noqa: E731
        replace(SMALL, epochs=epochs), features, rows, {"text": WORDS}, validation, folder, progress=False
    )
    whole, log = run(5, None)
    run(2, tmp_path)
    resumed, other = run(5, tmp_path)
    assert equal(weights(whole), weights(resumed))
    pd.testing.assert_frame_equal(log, other)
    assert [file.name for file in tmp_path.iterdir()] == ["nrccr.safetensors"]
    with pytest.raises(ValueError, match="other settings: dropout"):
        nrccr.fit(replace(SMALL, dropout=0.5), features, rows, {"text": WORDS}, folder=tmp_path, progress=False)


def test_the_rate_falls_and_training_ends_as_published():
    seen = [1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 3.0]
    rates = [nrccr.pace(seen[:n], 1.0)[0] / 0.99**n for n in range(8)]
    assert rates == pytest.approx([1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]), "not before three epochs at one rate"
    assert nrccr.pace([5.0] + [4.0] * 11, 1.0)[1:] == (5.0, 11)
    assert nrccr.pace([np.nan] * 30, 1.0)[0] == pytest.approx(0.99**30), "without validation it decays alone"


def test_after_eleven_idle_epochs_it_ends_with_the_best_weights(monkeypatch):
    features, rows = made()
    values, kept = iter([1.0, 7.0] + [2.0] * 30), []

    def seen(aligner, *_):
        kept.append({name: tensor.clone() for name, tensor in weights(aligner).items()})
        return next(values)

    monkeypatch.setattr(nrccr, "recall", seen)
    aligner, log = nrccr.fit(replace(SMALL, epochs=30), features, rows, {"text": WORDS}, rows, progress=False)
    assert len(log) == 13 and equal(weights(aligner), kept[1]) and not equal(kept[1], kept[12])


def test_the_discriminator_and_the_others_learn_in_turn(monkeypatch):
    features, rows = made()
    run = nrccr._Run(SMALL, features, rows, {"text": WORDS})
    moved, descend = [], run._descend

    def watched(*loss):
        before = {name: {k: t.clone() for k, t in part.named_parameters()} for name, part in run.parts.items()}
        descend(*loss)
        moved.append(
            {n for n, part in run.parts.items() if any(not torch.equal(t, before[n][k]) for k, t in part.named_parameters())}
        )

    monkeypatch.setattr(run, "_descend", watched)
    run.epoch(0, 0.01, False)
    assert moved == [{"critic"}, {"aligner"}] * 2


def test_the_adversary_makes_translations_look_like_the_source():
    features, rows = made()
    fooled = []
    for weight in (0.0, 1.0):
        run = nrccr._Run(replace(SMALL, weights={"adversary": weight}), features, rows, {"text": WORDS})
        fooled.append(np.mean([run.epoch(number, 0.01, False)["adversary"] for number in range(10)]))
    assert fooled[1] < 0.8 * fooled[0]


@pytest.mark.parametrize("trap", ["ensemble", "validating", "minmax", "cut"])
def test_a_trap_of_scoring_leaves_training_as_it_is(trap):
    features, rows = made()
    runs = [replace(SMALL, traps=replace(NO_TRAPS, **{trap: value})) for value in (False, getattr(Traps(), trap))]
    one, other = (weights(nrccr.fit(settings, features, rows, {"text": WORDS}, progress=False)[0]) for settings in runs)
    assert equal(one, other), "there is no validation, and no tower of pictures"


@pytest.mark.parametrize("trap", ["padding", "summed", "open_target"])
def test_a_trap_of_training_changes_what_is_learned(trap):
    features, rows = made()
    runs = [replace(SMALL, traps=replace(NO_TRAPS, **{trap: value})) for value in (False, True)]
    one, other = (weights(nrccr.fit(settings, features, rows, {"text": WORDS}, progress=False)[0]) for settings in runs)
    assert not equal(one, other)


def test_what_cannot_be_trained_is_said_at_once():
    features, rows = made()
    for wrong, message in (({"rows": rows[:1]}, "two or more"), ({"validation": rows.assign(image="v99")}, "'v99'")):
        with pytest.raises(CorpusError, match=message):
            nrccr.fit(SMALL, features, towers={"text": WORDS}, progress=False, **{"rows": rows} | wrong)


def test_of_a_tower_so_many_blocks_are_trained():
    features, rows = made()
    deep = WORDS | {"levels": ["words", "sentence"], "depth": 3, "heads": 2}
    run = nrccr._Run(replace(SMALL, trained=2), features, rows, {"text": deep})
    tower = run.aligner.heads["text"].tower
    trained = [all(weight.requires_grad for weight in block.parameters()) for block in tower.blocks]
    assert trained == [False, True, True] and not tower.tables["words"].weight.requires_grad


# the ensemble


@pytest.mark.parametrize("share, minmax", [(0.5, True), (0.2, True), (0.5, False), (0.0, True), (1.0, True)])
def test_the_ensemble_orders_as_the_sum_of_the_two_matrices(share, minmax):
    rng = np.random.default_rng(3)
    unit = lambda n: nrccr.similarity.unit(rng.normal(size=(n, 5)))  # noqa: E731
    images, direct, back = unit(9), unit(7), unit(7)
    scaled = (lambda x: (x - x.min()) / (x.max() - x.min())) if minmax else (lambda x: x)
    whole = share * scaled(back @ images.T) + (1 - share) * scaled(direct @ images.T)
    texts, pictures = nrccr.ensembled(images, direct, back, share, minmax)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, rtol=1e-5)
    for sims, other in ((texts @ pictures.T, whole), ((texts @ pictures.T).T, whole.T)):
        assert (np.argsort(sims, 1) == np.argsort(other, 1)).all()


def small_corpus():
    groups = [f"g{i}" for i in range(4)]
    rows = [{"id": f"v{g}{k}", "group": g, "modality": "image", "image": "x", "source": k} for g in groups for k in "ab"]
    rows += [{"id": f"{lang}{g}", "group": g, "modality": "text", "lang": lang, "text": "x", "kind": "name"}
             for g in groups for lang in ("eng_Latn", "swh_Latn")]  # fmt: skip
    return Corpus(pd.DataFrame(rows), "small")


def test_ranks_of_the_ensemble_are_those_of_brute_force():
    corpus, rng = small_corpus(), np.random.default_rng(1)
    shown, asked = (corpus.where_rows(modality=m) for m in ("image", "text"))
    spaces = [Features(of.ids, nrccr.similarity.unit(rng.normal(size=(len(of.ids), 5)))) for of in (shown, asked, asked)]
    found = nrccr.score_ensemble(corpus, *spaces)
    assert found.protocol.str.contains("translate-test: on").all() and len(found) == 2 * 2 * 2 * 4
    images, direct, back = spaces
    for (source, lang), part in found[found.direction == "text→image"].groupby(["gallery", "lang"]):
        v, t = shown.where_rows(source=source), asked.where_rows(lang=lang)
        mixed = sum(
            (x - x.min()) / (x.max() - x.min()) / 2
            for x in (table.take(t.ids) @ images.take(v.ids).T for table in (direct, back))
        )
        ranks = {g: 1 + (row > row[list(v.rows.group).index(g)]).sum() for g, row in zip(t.rows.group, mixed, strict=True)}
        assert dict(zip(part["query"], part["rank"], strict=True)) == ranks


def test_validation_is_by_the_ensemble_if_the_trap_says_so():
    features, rows = made()
    aligner, _ = nrccr.fit(SMALL, features, rows, {"text": WORDS}, progress=False)
    plain = nrccr.recall(aligner, features, rows, NO_TRAPS)
    images, texts = aligner.encode_image(features["image"]), features["text"].take(rows.target)
    rank = nrccr.similarity.ranks(aligner.encode_text(Inputs(rows.target, texts)), images, rows.index, rows.index)
    assert plain == pytest.approx(100 * sum((rank <= k).mean() for k in (1, 5, 10)))
    swapped = rows.assign(target=rows.back, back=rows.target)
    assert nrccr.recall(aligner, features, swapped, replace(NO_TRAPS, validating=1.0)) == pytest.approx(plain)


# samples, and the study


def test_samples_join_the_three_relations():
    table = [("v1", "s1", "image-eng_Latn"), ("v2", "s2", "image-eng_Latn"), ("v3", "s3", "image-eng_Latn"),
             ("s1", "t1", "eng_Latn-swh_Latn"), ("s2", "t2", "eng_Latn-swh_Latn"), ("s3", "t3", "eng_Latn-swh_Latn"),
             ("s1", "s1~back", "eng_Latn-eng_Latn"), ("s3", "d3", "eng_Latn-deu_Latn")]  # fmt: skip
    rows = pd.DataFrame(table, columns=["left", "right", "source"]).assign(weight=[1, 1, 1, 1, 1, 0, 1, 1])
    found = nrccr.samples(Pairs(rows), "swh_Latn")
    assert found.to_numpy().tolist() == [["v1", "s1", "t1", "s1~back"], ["v2", "s2", "t2", "s2"]]
    with pytest.raises(CorpusError, match="no picture has a text in eng_Latn with a translation into yor_Latn"):
        nrccr.samples(Pairs(rows), "yor_Latn")


@pytest.fixture(scope="module")
def task():
    run = sweep.Run("", sweep.Condition("translation", 0.4), 0, "test", ("swh_Latn", "sin_Sinh"), "scenes", 100)
    corpus = corpora.load("scenes", ["eng_Latn", *run.targets], n=run.size)
    return sweep.task_of(corpus, study.prepare(corpus), run)


def test_the_rows_of_the_study_share_one_run_and_differ_in_how_they_score(task, monkeypatch, tmp_path):
    monkeypatch.setenv("XMALIGN_RUNS", str(tmp_path))
    monkeypatch.setattr(nrccr.run, "__defaults__", (False, replace(nrccr.SMALL, **SIZES), 3))
    scores = {name: method(task, recipe) for name, (method, recipe) in nrccr.METHODS.items()}
    one, other = scores.values()
    assert list(scores) == ["NRCCR", "NRCCR, ensemble"]
    assert len([*(tmp_path / "nrccr").glob("*/DONE")]) == 1
    keys = ["lang", "direction", "gallery", "query", "size"]
    assert len(one) and sorted(map(tuple, one[keys].to_numpy())) == sorted(map(tuple, other[keys].to_numpy()))
    assert {*one.lang} == {"eng_Latn", "swh_Latn", "sin_Sinh"}
    merged = one.merge(other, on=keys)
    assert (merged.rank_x != merged.rank_y)[merged.lang != "eng_Latn"].any()
    told = pd.DataFrame(one.attrs["seen"])
    assert (told["left modality"] != "image")[told.source.eq("eng_Latn-swh_Latn")].all() and {*told["made"]} == {"human"}
    through = told[told["left modality"].eq("image") & told["right lang"].isin(["swh_Latn", "sin_Sinh"])]
    assert len(through) and (through.through == through.pairs).all(), "a picture meets a target over its English text alone"
    np.testing.assert_array_equal(*(merged[side][merged.lang == "eng_Latn"] for side in ("rank_x", "rank_y")))


def test_without_parallel_text_there_is_nothing_to_train_on(task):
    bare = replace(task, pairs=task.pairs.select(task.pairs.rows.source == "image-eng_Latn"))
    with pytest.raises(NotApplicable, match="nothing to translate with"):
        nrccr.run(bare, clip())
