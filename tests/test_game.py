"""The class game: equal parts, a seal that counts, and the winner's curse against brute force."""

import json
import shutil
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmalign_lab import baselines, game, study
from xmalign_lab.corpora import scenes
from xmalign_lab.pairs.parallel import bridge
from xmalign_lab.schedules import Constant

QUICK = baselines.clip(epochs=1, hidden=16, dim=8, components=8, batch_pairs=100, learning_rate=0.01)


@pytest.fixture(scope="module")
def world(one_thread):
    corpus = scenes.load(["eng_Latn", "swh_Latn"], n=120)
    return corpus, study.prepare(corpus)


@pytest.fixture
def ours(world, tmp_path):
    corpus, features = world
    return game.Game(game.parts(corpus, 0, 12), features, lambda part: bridge(part, ["swh_Latn"]), "swh_Latn", tmp_path)


def test_parts_are_of_one_size_and_share_no_family(world):
    corpus, _ = world
    rows = game.parts(corpus, 0, 12).rows
    held = rows[rows.split != "train"]
    assert held.groupby("split").group.nunique().to_dict() == {"test": 12, "validation": 12}
    assert (held.groupby("family").group.nunique() == 1).all() and (rows.groupby("family").split.nunique() == 1).all()
    many = game.parts(corpus, 0, 10_000).rows
    sizes = many[many.split != "train"].groupby("split").group.nunique()
    assert sizes.test == sizes.validation < 10_000, "as many as the smaller part has"


def test_a_game_from_the_first_try_to_the_last_refusal(ours, tmp_path):
    with pytest.raises(ValueError, match="name of its player"):
        ours.play(" ", QUICK)
    ours.play("Amina", QUICK)
    ours.play("Amina", QUICK)
    ours.play("Juma", game.replace(QUICK, temperature=Constant(0.2)))
    assert len(ours.tries) == 2, "the same recipe again is the same try"
    assert list(ours.board().columns) == ["tries", "validation"], "nothing of the test"
    for closed in (lambda: ours.test(ours.tries.key[0]), ours.pool):
        with pytest.raises(game.Sealed, match="sealed"):
            closed()
    board = ours.open(by="Mr Perera")
    assert [(o["by"], o["players"]) for o in ours.openings] == [("Mr Perera", 2)]
    assert np.allclose(board.shrinkage, board.validation - board.test) and (board.low <= board.shrinkage).all()
    assert np.isclose(board.luck.mean(), 0), "each player tried one recipe, and none was chosen"
    assert ours.pool().shape == (2, 24)
    with pytest.raises(game.Sealed, match="another fold"):
        ours.play("Amina", QUICK)
    ours.open(by="again")
    assert len(ours.openings) == 2, "every opening is written down"


def test_a_player_is_one_however_the_name_is_typed(ours, tmp_path):
    for name in ("Amina  J", "amina j ", "Amina J"):
        assert ours.play(name, QUICK).player == "Amina J"
    assert len(ours.tries) == 1
    for nobody in (None, "", " \n"):
        with pytest.raises(ValueError, match="name of its player"):
            ours.play(nobody, QUICK)
    ours.play("../../up/Juma", QUICK)
    sent = tmp_path / "deep" / "sent"
    sent.mkdir(parents=True)
    assert ours.hand_in("../../up/Juma", sent) == sent / "up-Juma.json"
    for text in ("[]", "{", '{"player": "x", "tries": []}'):
        (sent / "other.json").write_text(text)
        with pytest.raises(ValueError, match="other.json: no file of hand_in"):
            ours.take_in(sent)


def test_the_seal_stays_where_there_is_nothing_to_show(ours):
    with pytest.raises(ValueError, match="nobody has tried"):
        ours.open(by="Mr Perera")
    key = ours.play("Amina", QUICK).key
    (ours.folder / "runs" / key).rename(ours.folder / "elsewhere")
    with pytest.raises(ValueError, match="models of 1 tries are missing"):
        ours.open(by="Mr Perera")
    assert not ours.openings
    (ours.folder / "elsewhere").rename(ours.folder / "runs" / key)
    assert "test" in ours.open(by="Mr Perera")


def test_a_game_carried_to_another_machine_opens_there(ours, tmp_path, monkeypatch):
    ours.play("Amina", QUICK)
    carried = shutil.copytree(ours.folder, tmp_path.parent / f"{tmp_path.name} carried")
    monkeypatch.setenv("XMALIGN_RUNS", str(tmp_path / "other runs"))
    there = game.replace(ours, folder=carried)
    assert len(there.open(by="Mr Perera")) == 1 and not ours.openings


def test_other_validation_families_are_another_try(ours):
    rows = ours.corpus.rows
    held = rows.group[rows.split == "validation"].iloc[0]
    fewer = game.replace(ours, corpus=ours.corpus.select((rows.group != held).to_numpy()))
    assert ours.play("Amina", QUICK).key != fewer.play("Amina", QUICK).key
    sealed = rows.group[rows.split == "test"].iloc[0]
    same = game.replace(ours, corpus=ours.corpus.select((rows.group != sealed).to_numpy()))
    assert same.play("Amina", QUICK).key in set(ours.tries.key) and len(ours.tries) == 2


def test_recipes_sent_as_files_are_trained_again(ours, world, tmp_path):
    ours.play("Amina", QUICK)
    ours.play("Amina", game.replace(QUICK, seed=5))
    with pytest.raises(ValueError, match="'Juma'.*Amina"):
        ours.hand_in("Juma", tmp_path)
    sent = tmp_path / "sent"
    sent.mkdir()
    path = ours.hand_in("Amina", sent)
    teachers = game.Game(ours.corpus, ours.features, ours.make_pairs, ours.lang, tmp_path / "teacher")
    assert teachers.take_in(sent).same.all() and teachers.board().tries["Amina"] == 2, "the tries behind it count"
    told = json.loads(path.read_text())
    told["tries"][0]["validation"] = 0.99
    path.write_text(json.dumps(told))
    assert not teachers.take_in(sent).same.any(), "a score that cannot be had again"
    pd.testing.assert_frame_equal(teachers.open(by="Mr Perera"), ours.open(by="Mr Perera"))
    drops = [np.subtract(*ours._means(key)) for key in ours.tries.key]
    luck = teachers.board().luck["Amina"]
    assert luck == pytest.approx(drops[ours.tries.validation.idxmax()] - np.mean(drops)) and abs(luck) > 1e-6


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=7, unique_by=lambda pair: pair[0]))
def test_best_of_is_the_mean_over_all_choices(pairs):
    validation, test = map(np.array, zip(*pairs, strict=True))
    found = game.best_of(validation, test, range(1, len(pairs) + 1))
    for k in found.index:
        best = [max(some, key=lambda i: validation[i]) for some in combinations(range(len(pairs)), k)]
        assert np.isclose(found.validation[k], validation[best].mean()) and np.isclose(found.test[k], test[best].mean())
    assert abs(found.luck[1]) < 1e-12 and (np.diff(found.validation) > -1e-12).all()


def test_best_of_refuses_more_than_there_are():
    with pytest.raises(ValueError, match="the best of 3 among 2"):
        game.best_of([1, 2], [1, 2], [3])


def test_equal_models_have_luck_and_nothing_else():
    """All tries equally good: choosing the best promises the largest of k normal errors, and brings nothing."""
    values = np.random.default_rng(0).normal(0.5, 1, (64, 400))
    found = game.dealt(values, [1, 8, 64], deals=200)
    largest_of_64 = 2.377  # expectation for standard normal errors; those of a half's mean are 1/√200
    assert found.luck[64] == pytest.approx(largest_of_64 / np.sqrt(200), rel=0.15)
    assert found.luck[1] == pytest.approx(0, abs=1e-9) and found.luck[1] < found.luck[8] < found.luck[64]
    assert (found.low <= found.luck).all() and (found.luck <= found.high).all()


def test_a_model_that_is_truly_better_is_no_luck():
    values = np.zeros((10, 100))
    values[3] = 1
    found = game.dealt(values, [1, 10], deals=20)
    assert found.luck[10] == pytest.approx(0) and found.test[10] == pytest.approx(1)


def test_shrinkage_is_the_difference_with_its_interval():
    rng = np.random.default_rng(0)
    parts = [pd.DataFrame({"value": rng.normal(mean, 0.2, 400), "family": np.arange(400).astype(str)}) for mean in (0.5, 0.4)]
    told = game.shrinkage(*parts)
    assert told["shrinkage"] == pytest.approx(parts[0].value.mean() - parts[1].value.mean())
    width = 2 * 1.96 * 0.2 * np.sqrt(2 / 400)
    assert told["low"] < told["shrinkage"] < told["high"] and told["high"] - told["low"] == pytest.approx(width, rel=0.15)
