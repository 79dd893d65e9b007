"""The towers from scratch: masks, seeds, gradients, tokens and words, save and load."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from bench import bench_towers
from xmalign_lab import corpora
from xmalign_lab.corpora import scenes
from xmalign_lab.corpus import CorpusError
from xmalign_lab.encoders import tiny
from xmalign_lab.encoders.features import Features
from xmalign_lab.encoders.inputs import Inputs
from xmalign_lab.encoders.tiny import TinyText, TinyViT
from xmalign_lab.evaluate.local import inside
from xmalign_lab.model import Encoded

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = dict(width=16, depth=2, heads=2)
TEXTS = ["mpira", "mpira mwekundu mkubwa", "රතු බෝලය"]


def text_tower(**changes):
    return TinyText(**(SMALL | changes)).eval()


def pictures(n=5, size=48, seed=0):
    return torch.randint(0, 256, (n, 4, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def packed(tower, texts=TEXTS):
    return torch.from_numpy(tower.tokenise(texts))


def test_shapes():
    vectors, patches, mask = TinyViT(size=48, patch=8, **SMALL)(pictures())
    assert vectors.shape == (5, 16) and patches.shape == (5, 36, 16) and mask.shape == (5, 36) and mask.all()
    tower = text_tower()
    inputs = packed(tower)
    vectors, tokens, mask = tower(inputs)
    assert inputs.dtype == torch.int32 and inputs.shape == (3, mask.shape[1], 2)
    assert vectors.shape == (3, 16) and tokens.shape == (*mask.shape, 16)


def test_what_stands_at_masked_positions_has_no_influence():
    tower = text_tower()
    inputs = packed(tower)
    before = tower(inputs)
    other = inputs.clone()
    other[..., 0] = torch.where(inputs[..., 1] > 0, inputs[..., 0], torch.randint(1, 4096, inputs.shape[:2]))
    assert (other != inputs).any()
    with torch.no_grad():
        tower.table.weight[0] = 1e4
    for one, again in zip(before, tower(other), strict=True):
        torch.testing.assert_close(one, again, rtol=0, atol=0)
    longer = tower(torch.cat([inputs, torch.zeros_like(inputs[:, :5])], 1))
    torch.testing.assert_close(longer[0], before[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(longer[1][:, :-5], before[1], rtol=1e-5, atol=1e-6)
    assert not longer[2][:, -5:].any()


def test_masked_positions_get_no_gradient():
    tower = text_tower()
    inputs = packed(tower)
    inputs[..., 0] = torch.where(inputs[..., 1] > 0, inputs[..., 0], 4000)  # an id that stands in padding only
    assert not (inputs[inputs[..., 1] > 0] == 4000).any()
    tower(inputs)[0].square().sum().backward()
    assert not tower.table.weight.grad[[0, 4000]].any() and tower.table.weight.grad[inputs[0, 0, 0]].any()


def test_a_text_alone_and_beside_longer_ones_is_the_same():
    tower = text_tower()
    together = tower(packed(tower))[0]
    for text, row in zip(TEXTS, together, strict=True):
        torch.testing.assert_close(tower(packed(tower, [text]))[0][0], row, rtol=1e-5, atol=1e-6)


def test_the_vector_is_the_mean_over_tokens_that_are_there():
    tower = text_tower()
    vectors, tokens, mask = tower(packed(tower))
    for row in range(3):
        torch.testing.assert_close(vectors[row], tokens[row][mask[row]].mean(0))
    assert not tokens[~mask].any()


def test_attention_sees_the_other_tokens_and_their_order():
    tower = text_tower(level="word")
    one, other = tower(packed(tower, ["mbwa huona paka", "paka huona mbwa"]))[0]
    assert (one - other).abs().max() > 1e-4


def test_tokens_by_hand():
    tower = text_tower()
    inputs = tower.tokenise(["ab c", "කාල"])
    assert inputs[..., 1].tolist() == [[1, 1, 2], [1, 1, 0]] and ((inputs[..., 0] > 0) == (inputs[..., 1] > 0)).all()
    assert tower.words_of(inputs).tolist() == [[0, 0, 1], [0, 0, -1]]
    assert text_tower(level="word").tokenise(["ab c", "කාල"])[..., 1].tolist() == [[1, 2], [1, 0]]
    ids = tower.tokenise(["aa a"])[0, :, 0]
    assert ids[0] == ids[2] != ids[1]  # a first letter is told from a later one
    assert text_tower(longest=4).tokenise(["abcdefg", "a"]).shape == (2, 4, 2)
    subwords = text_tower(level="subword", subwords=["▁", "a", "b", "▁a"])
    assert subwords.tokenise(["ab b", "x"]).tolist() == [[[5, 1], [4, 1], [2, 2], [4, 2]], [[2, 1], [1, 1], [0, 0], [0, 0]]]
    assert len(subwords.table.weight) == 6


def test_towers_are_made_again_from_their_settings():
    for tower in (
        TinyViT(16, 8, **SMALL, registers=2, stem=(4, 8)),
        text_tower(),
        text_tower(level="subword", subwords=["a", "b"]),
    ):
        again = tiny.TOWERS[type(tower).__name__](**json.loads(json.dumps(tower.settings)))
        assert tiny.digest(again) == tiny.digest(tower)


def test_a_text_without_any_token_is_refused():
    with pytest.raises(CorpusError, match="text 2 of 2 is empty"):
        text_tower().tokenise(["a", "  "])


@pytest.mark.parametrize("make", [lambda seed: TinyViT(**SMALL, seed=seed), lambda seed: TinyText(**SMALL, seed=seed)])
def test_the_seed_alone_fixes_the_weights_and_torchs_own_generator_is_left_alone(make):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = tiny.digest(make(1))
    assert torch.rand(1) == expected
    assert first == tiny.digest(make(1)) != tiny.digest(make(2))


@pytest.mark.parametrize("registers", [0, 3])
@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_pooling_of_patches(pool, registers):
    tower = TinyViT(size=16, patch=8, pool=pool, registers=registers, **SMALL)
    assert tower.extra.shape[1] == registers + (pool == "cls")
    vectors, patches, mask = tower(pictures(2, 16))
    assert patches.shape == (2, 4, 16) and mask.shape == (2, 4)
    assert torch.allclose(vectors, patches.mean(1), atol=1e-6) == (pool == "mean")
    with torch.no_grad():
        tower.extra.mul_(-20)
    moved = (tower(pictures(2, 16))[1] - patches).abs().max()
    assert (moved > 1e-4) == bool(tower.extras), "what is added takes part in attention"


def test_a_patch_is_a_product_with_its_own_pixels():
    """Without blocks token i is the norm of W patch i + place i, the patches read in rows; what is added is none of them."""
    tower = TinyViT(size=16, patch=8, width=16, depth=0, heads=2, pool="cls", registers=2)
    picture = pictures(1, 16)
    vectors, patches, _ = tower(picture)
    torch.testing.assert_close(vectors[0], tower.norm(tower.extra[0, 0]))
    for i, (row, column) in enumerate(((0, 0), (0, 8), (8, 0), (8, 8))):
        values = picture[0, :, row : row + 8, column : column + 8].float() / 127.5 - 1
        x = tower.patches(values.permute(1, 2, 0).flatten()) + tower.place[0, i]
        torch.testing.assert_close(patches[0, i], tower.norm(x), rtol=1e-4, atol=1e-5)


def test_a_shape_is_the_same_to_the_stem_wherever_it_lies():
    tower = TinyViT(size=48, patch=8, width=16, depth=0, heads=2, stem=(4, 8)).eval()
    torch.nn.init.zeros_(tower.place)
    picture = torch.full((1, 4, 48, 48), 255, dtype=torch.uint8)
    picture[0, :, 19:26, 18:27] = pictures(1, 16)[0, :, :7, :9]
    moved = picture.roll((8, -8), (2, 3))
    tokens, elsewhere = tower(picture)[1].view(6, 6, 16), tower(moved)[1].view(6, 6, 16)
    torch.testing.assert_close(elsewhere[2:5, 1:4], tokens[1:4, 2:5])
    assert (tokens[2, 2] - tokens[4, 4]).abs().max() > 1e-2


def test_shifts_roll_each_picture_in_training_alone():
    given = pictures(40, 8)
    moved = tiny.shifted(given, 2)
    rolls = {(y, x): given.roll((y, x), (2, 3)) for y in range(-2, 3) for x in range(-2, 3)}
    found = [[move for move, rolled in rolls.items() if torch.equal(rolled[i], moved[i])] for i in range(40)]
    assert all(len(moves) == 1 for moves in found) and len({moves[0] for moves in found}) > 10
    tower = TinyViT(size=16, patch=8, shift=4, **SMALL)
    assert not torch.equal(tower(pictures(2, 16))[0], tower(pictures(2, 16))[0])
    tower.eval()
    torch.testing.assert_close(tower(pictures(2, 16))[0], tower(pictures(2, 16))[0], rtol=0, atol=0)


def test_a_frozen_stem_does_not_move():
    tower = TinyViT(size=16, patch=8, stem=(4, 8), **SMALL)
    before = {name: value.clone() for name, value in tower.stem.state_dict().items()}
    tower.stem.requires_grad_(False)
    tower.train()(pictures(4, 16))
    assert all(torch.equal(value, before[name]) for name, value in tower.stem.state_dict().items())
    tower.requires_grad_(True).train()(pictures(4, 16))
    assert not all(torch.equal(value, before[name]) for name, value in tower.stem.state_dict().items())


@pytest.mark.parametrize("given", [torch.rand(2, 4, 16, 16), torch.zeros(2, 3, 16, 16, dtype=torch.uint8)])
def test_pictures_of_another_kind_are_refused(given):
    with pytest.raises(ValueError, match="give uint8"):
        TinyViT(size=16, patch=8, **SMALL)(given)


@pytest.mark.parametrize("options", [{}, dict(pool="cls", registers=2), dict(stem=(8, 8))])
def test_both_towers_learn_end_to_end(options):
    """Four pictures and four texts, matched by a contrastive loss: every weight gets a gradient, and the match is learnt."""
    image, text = TinyViT(size=16, patch=8, **options, **SMALL), TinyText(**SMALL)
    inputs = packed(text, ["moja", "mbili", "tatu", "nne"])
    weights = [*image.parameters(), *text.parameters()]
    optimiser = torch.optim.Adam(weights, 3e-3)
    for _ in range(40):
        vectors = (torch.nn.functional.normalize(found) for found in (image(pictures(4, 16))[0], text(inputs)[0]))
        similarity = torch.einsum("id,jd->ij", *vectors)
        loss = torch.nn.functional.cross_entropy(similarity / 0.1, torch.arange(4))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert all(weight.grad is not None for weight in weights if weight.numel())
    assert similarity.argmax(1).tolist() == [0, 1, 2, 3] and loss < 0.5


def test_the_bench_asks_among_pictures_that_differ_in_one_attribute():
    corpus = corpora.load("scenes", ["eng_Latn"], n=1080, pictures=1).where_rows(modality="image")
    labels = dict(zip(corpus.rows.group, corpus.rows.labels, strict=True))
    sets = bench_towers.alike(corpus)
    assert set(sets) == set(labels) and set(map(len, sets.values())) == {16}
    for group, (first, *others) in list(sets.items())[::40]:
        assert first == group and len(set(others)) == 15
        assert all(sum(labels[other][name] != value for name, value in labels[group].items()) == 1 for other in others)


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures that nobody looks at need not be drawn."""
    blank = lambda corpus, size: Inputs(corpus.rows.id.to_numpy(), np.zeros((len(corpus), 4, 1, 1), np.uint8))  # noqa: E731
    monkeypatch.setattr(bench_towers.inputs, "pictures", blank)


def test_the_bench_scores_what_it_is_given(undrawn):
    """A stand-in that sees the attributes themselves finds every picture; blind to colour it ties with five others."""
    corpus = corpora.load("scenes", ["eng_Latn", "swh_Latn"], n=1080, pictures=1)
    values = pd.get_dummies(pd.DataFrame(list(corpus.rows.labels))[["shape", "colour", "size", "count", "place"]].astype(str))

    def attributes(columns):
        unit = values.loc[:, columns].to_numpy(np.float32)
        of = dict(zip(corpus.rows.id, unit / np.linalg.norm(unit, axis=1, keepdims=True), strict=True))
        heads = {"text": SimpleNamespace(tower=SimpleNamespace(tokenise=text_tower().tokenise))}
        encode = lambda rows: np.stack([of[row_id] for row_id in rows.ids])  # noqa: E731
        return SimpleNamespace(heads=heads, encode_image=encode, encode_text=encode)

    pictures, captions = (corpus.where_rows(modality=modality) for modality in ("image", "text"))
    every = bench_towers.tested(attributes(values.columns), pictures, captions)
    assert every.lang.tolist() == ["eng_Latn", "swh_Latn"] and (every.iloc[:, 1:] == [1080, 1, 1, 1]).all(axis=None)
    blind = bench_towers.tested(attributes(~values.columns.str.startswith("colour")), pictures, captions)
    assert (blind["R@1"] == 0).all() and (blind["mean rank"] == 3.5).all() and (blind["R@1 of 16 alike"] == 0).all()


class Said:
    """In place of a head: gives what it was made with, so many rows as it is asked for, whatever these are."""

    tower = SimpleNamespace(tokenise=lambda texts: np.ones((len(texts), 1), np.int32))

    def __init__(self, vectors, tokens):
        self.left = Encoded(
            *(torch.as_tensor(x, dtype=torch.float32) for x in (vectors, tokens)), torch.ones(tokens.shape[:2]) > 0
        )

    def __call__(self, rows):
        given, self.left = zip(*((part[: len(rows)], part[len(rows) :]) for part in self.left), strict=True)
        return Encoded(*given)


def test_the_bench_judges_what_finds_and_what_points(undrawn):
    """Captions that know all attributes, nouns that point at the shapes and colours that point elsewhere; then parts that err."""
    corpus = corpora.load("scenes", ["eng_Latn", "swh_Latn"], n=1080, pictures=1)
    shown, captions = (corpus.where_rows(modality=modality) for modality in ("image", "text"))
    captions = captions.select(captions.rows.group.isin(captions.rows.group.unique()[:40]))
    rows = pd.concat([captions.where_rows(lang=lang).rows for lang in captions.languages])  # in the order they are asked
    columns = ["shape", "colour", "size", "count", "place"]
    known = [pd.get_dummies(pd.DataFrame(list(of.labels))[columns].astype(str)).astype(float) for of in (shown.rows, rows)]
    known = known[0].to_numpy(), known[1].reindex(columns=known[0].columns, fill_value=0).to_numpy()
    lie = inside(np.stack([scenes.box(scenes.scene_of(reference)) for reference in shown.rows.image]), (4, 4))
    words = np.zeros((len(rows), 16, 2))
    of = dict(zip(shown.rows.group, shown.rows.image, strict=True))
    for word, (group, lang) in zip(words, rows[["group", "lang"]].to_numpy(), strict=True):
        said = scenes.said_at(scenes.scene_of(of[group]), lang)
        word[said["shape"]], word[said["colour"]] = (1, 0), (0, 1)

    def measured(term):
        heads = {"image": Said(known[0] / 5**0.5, np.stack([lie, ~lie], 2)), "text": Said(known[1] / 5**0.5, words)}
        stand_in = SimpleNamespace(heads=heads)
        stand_in.eval = lambda: stand_in
        return bench_towers.judged(stand_in, shown, captions, term)

    table = measured("")
    assert table.groupby("lang").size().to_dict() == {"eng_Latn": 40, "swh_Latn": 40}
    assert (table[["R@1", "alike", "with parts", "noun"]] == 1).all(axis=None) and (table.colour == 0).all()
    np.testing.assert_allclose(table.chance, np.tile(lie[[list(of).index(group) for group in table.group[:40]]].mean(1), 2))
    assert measured("filip").drop(columns="with parts").equals(table.drop(columns="with parts"))
    known = known[0], np.zeros_like(known[1])  # then the parts alone decide, and they know the place at the most
    blind = measured("filip")
    assert blind["R@1"].mean() < 0.1 and blind["with parts"].mean() < 0.5 and (blind.noun == 1).all()


def test_the_bench_compares_in_pairs(capsys):
    groups = [f"g{i}" for i in range(30)]
    base = pd.DataFrame(dict.fromkeys(bench_towers.MEASURES, np.arange(30) % 2 * 1.0) | {"lang": "swh_Latn", "group": groups})
    better = base.assign(**{"R@1": 1.0})[::-1]
    made = bench_towers.compared("swh", {"one": [base] * 3, "other": [better, better, base]})
    assert made["one"]["R@1"] == (0.5, 0, 0, 0) and made["other"]["alike"] == (0.5, 0, 0, 0)
    mean, gain, low, high = made["other"]["R@1"]
    assert mean == pytest.approx(5 / 6) and gain == pytest.approx(1 / 3) and low < 0 < gain < high, "one seed of three disagrees"
    assert f"| other | 0.833 (+0.333 [{low:+.3f}, {high:+.3f}]) | 0.500 |" in capsys.readouterr().out


def test_the_bench_draws_few_compositions_and_fewer_among_them():
    corpus = corpora.load("scenes", ["eng_Latn", "swh_Latn"], n=40, pictures=3)
    one, other = bench_towers.few(corpus, 10, 1), bench_towers.few(corpus, 2, 1)
    assert one.rows.group.nunique() == 10 and set(other.rows.group) < set(one.rows.group)
    assert one.rows.groupby("group").size().unique() == [4] and one.rows.source.nunique() == 3
    assert set(bench_towers.few(corpus, 10, 2).rows.group) != set(one.rows.group)


@pytest.fixture
def untrained(monkeypatch, tmp_path):
    """What would have been trained, and on what; pictures and texts are all alike to what comes of it."""
    calls = []
    tower = SimpleNamespace(tokenise=text_tower().tokenise)
    alike = {f"encode_{side}": lambda rows: np.ones((len(rows), 1), np.float32) for side in ("image", "text")}
    aligner = SimpleNamespace(heads={"text": SimpleNamespace(tower=tower)}, **alike)
    monkeypatch.setattr(bench_towers, "trained", lambda corpus, *given: calls.append((corpus.rows, *given)) or aligner)
    row = dict.fromkeys(bench_towers.MEASURES, 0.5) | {"lang": "eng_Latn"}
    judged = lambda aligner, pictures, captions, term: pd.DataFrame([row | {"group": group} for group in "ab"])  # noqa: E731
    monkeypatch.setattr(bench_towers, "judged", judged)
    encode = lambda self, corpus: Features(corpus.rows.id.to_numpy(), np.ones((len(corpus), 2), np.float32))  # noqa: E731
    monkeypatch.setattr(bench_towers.ClassicImage, "encode", encode)
    monkeypatch.setattr(bench_towers.profile, "built", lambda *names: tmp_path.joinpath(*names))
    return calls


def test_the_bench_gives_global_and_local_losses_the_same_to_learn_from(untrained):
    corpus = corpora.load("scenes", ["eng_Latn", "swh_Latn"], n=200, pictures=3)
    made = bench_towers.local_or_not(corpus, corpus, corpus)["six languages"]
    assert list(made) == ["global alone", "filip", "gloria", "pacl", "transport"] and made["pacl"]["R@1"] == (0.5, 0, 0, 0)
    terms = [tuple(recipe.terms) for _, recipe, _ in untrained]
    assert terms == [("info_nce",), *(("info_nce", term) for term in list(made)[1:])] * 3
    for seed in range(3):
        of = untrained[5 * seed : 5 * seed + 5]
        assert {recipe.seed for _, recipe, _ in of} == {seed} and len({tuple(rows.id) for rows, *_ in of}) == 1
    assert untrained[0][0].group.nunique() == 135 and set(untrained[0][0].group) != set(untrained[5][0].group)


def test_the_bench_hides_most_captions_of_two_languages(untrained, monkeypatch):
    pytest.importorskip("tokenizers")
    corpus = corpora.load("scenes", ["eng_Latn", "swh_Latn", "sin_Sinh", "hau_Latn"], n=80, pictures=3)
    learned, shown = (
        corpus.select(corpus.rows.group.isin(corpus.rows.group.unique()[half])) for half in (slice(40), slice(40, 80))
    )
    read = []
    monkeypatch.setattr(bench_towers.mlm, "pretrain", lambda tower, texts, seed: read.append(texts) or (tower, []))
    made = bench_towers.masked_or_not(learned, shown.where_rows(source=["jitter-a"]), shown.where_rows(modality="text"))
    assert set(made) == {"swh_Latn", "sin_Sinh"} and list(made["swh_Latn"]) == ["from nothing", "from masked words"]
    assert len(untrained) == 6 and ["weights" in text for _, _, text, _ in untrained] == [False, True] * 3
    for rows, *_ in untrained:
        assert rows.lang.value_counts().to_dict() == {"": 80, "eng_Latn": 40, "swh_Latn": 2, "sin_Sinh": 2}
    known = set(learned.where_rows(lang=["swh_Latn", "sin_Sinh"]).rows.text)
    assert len(read) == 3 and all(set(texts) == known and len(texts) == 80 for texts in read), "and never one that is asked"


def test_settings_that_do_not_divide_are_refused():
    for wrong in (dict(size=50), dict(width=30), dict(pool="max")):
        with pytest.raises(ValueError, match="must divide"):
            TinyViT(**wrong)
    with pytest.raises(ValueError, match="word, grapheme or"):
        TinyText(level="byte")


def test_early_patches_know_nothing_of_each_other():
    tower = TinyViT(size=24, patch=8, width=16, depth=2, heads=2, early=True).eval()
    picture = torch.zeros(1, 4, 24, 24, dtype=torch.uint8)
    changed = picture.clone()
    changed[..., :8, :8] = 255  # the first patch alone
    (whole, before, _), (other, after, _) = tower(picture), tower(changed)
    moved = (before - after).abs().sum(-1)[0]
    assert moved[0] > 0 and torch.equal(moved[1:], torch.zeros(8)) and not torch.allclose(whole, other)
    last = TinyViT(size=24, patch=8, width=16, depth=2, heads=2).eval()
    assert ((last(picture)[1] - last(changed)[1]).abs().sum(-1)[0] > 0).all(), "behind the blocks all have seen it"
