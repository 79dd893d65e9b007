"""Text at several levels: each level by hand, masks that hold at every level, and gates that can be looked at."""

import numpy as np
import pytest
import torch

from xmalign_lab.corpus import CorpusError
from xmalign_lab.encoders.levels import LETTERS, LEVELS, PIECES, Block, MultiLevelText, masked_mean
from xmalign_lab.encoders.tiny import TOWERS

pytestmark = pytest.mark.usefixtures("one_thread")

PIECE_LIST = ["▁", *"abdeikmnoprtuwy", "mp", "▁m", "ra", "ද", "රතු"]
TEXTS = ["mpira", "mpira mwekundu mpira mkubwa", "රතු බෝලය"]
SMALL = dict(width=16, depth=1, heads=2, buckets=512, longest=12, subwords=PIECE_LIST)
SOME = [("words",), ("characters",), ("subwords",), ("words", "sentence"), ("characters", "subwords"), LEVELS]


def tower(levels=LEVELS, seed=0, **changes):
    """A tower whose gates are not all equal."""
    made = MultiLevelText(levels, **(SMALL | changes), seed=seed).eval()
    torch.nn.init.normal_(made.gate.weight, generator=torch.Generator().manual_seed(seed))
    return made


def packed(made, texts=TEXTS):
    return torch.from_numpy(made.tokenise(texts))


@pytest.mark.parametrize("levels", SOME)
def test_shapes_and_settings(levels):
    made = tower(levels)
    inputs = packed(made)
    assert inputs.dtype == torch.int32 and inputs.shape == (
        3,
        4,
        1 + PIECES * ("subwords" in levels) + LETTERS * ("characters" in levels),
    )
    vectors, tokens, mask = made(inputs)
    assert vectors.shape == (3, 16) and tokens.shape == (3, 4, 16) and mask.sum(1).tolist() == [1, 4, 2]
    again = TOWERS["MultiLevelText"](**made.settings)
    again.load_state_dict(made.state_dict())
    torch.testing.assert_close(again.eval()(inputs)[0], vectors, rtol=0, atol=0)
    assert made.words_of(inputs.numpy()).tolist() == [[0, -1, -1, -1], [0, 1, 2, 3], [0, 1, -1, -1]]


@pytest.mark.parametrize("letters", ["grams", "transformer"])
def test_each_level_by_hand(letters):
    """A word's vector at a level from the table's rows alone, without masks, padding or shared words."""
    made = tower(letters=letters)
    inputs = packed(made)
    found, _ = made.at_levels(inputs)
    row = inputs[1, 1].long()
    ids = {"words": row[:1], "subwords": row[1 : 1 + PIECES], "characters": row[1 + PIECES :]}
    for level, columns in ids.items():
        x = made.tables[level].weight[columns[columns > 0]]
        if level == "characters" and letters == "transformer":
            x = made.letters[0]((x + made.places[1, : len(x)])[None])[0]
        torch.testing.assert_close(found[level][0][1, 1], made.norms[level](x.mean(0)), rtol=1e-5, atol=1e-6)
    x = sum(found[level][0][1] for level in ids) / 3 + made.places[0, :4]
    torch.testing.assert_close(found["sentence"][0][1], made.norms["sentence"](made.blocks[0](x[None])[0]), rtol=1e-5, atol=1e-6)


def test_what_a_word_is_packed_as():
    made = tower(grams=(2, 3))
    row = packed(made, ["mpira"])[0, 0]
    assert row[0] > 0
    pieces = made.cutter.cut("mpira")
    assert row[1 : 1 + PIECES].tolist() == pieces + [0] * (PIECES - len(pieces)) and 1 < len(pieces) < PIECES
    assert (row[1 + PIECES :] > 0).sum() == len(["<m", "mp", "pi", "ir", "ra", "a>", "<mp", "mpi", "pir", "ira", "ra>"])
    letters = packed(tower(letters="transformer"), ["රතු"])[0, 0, 1 + PIECES :]
    assert (letters > 0).sum() == 2, "a vowel sign goes with its consonant"
    assert packed(made, ["a" * 500])[0, 0].count_nonzero() == 1 + PIECES + LETTERS
    assert packed(tower(longest=2)).shape[1] == 2
    with pytest.raises(CorpusError, match="text 2 of 2 is empty"):
        made.tokenise(["a", " "])


@pytest.mark.parametrize("letters", ["grams", "transformer"])
@pytest.mark.parametrize("levels", SOME)
def test_masked_positions_have_no_influence(levels, letters):
    made = tower(levels, letters=letters)
    inputs = packed(made)
    vectors, tokens, mask = made(inputs)
    found, _ = made.at_levels(inputs)
    other = torch.where(mask[..., None] | (torch.arange(inputs.shape[2]) == 0), inputs, torch.randint_like(inputs, 1, 20))
    longer = torch.cat([inputs, torch.zeros_like(inputs)], 1)
    with torch.no_grad():
        for table in made.tables.values():
            table.weight[0] = 1e4  # what stands for no word, no piece, no letter
    for changed in (other, longer):
        again, wider, still = made(changed)
        torch.testing.assert_close(again, vectors, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(wider[:, :4], tokens, rtol=1e-5, atol=1e-6)
        assert torch.equal(still[:, :4], mask) and not wider[~still].any()
        for level, (x, pooled) in made.at_levels(changed)[0].items():
            torch.testing.assert_close(pooled, found[level][1], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(pooled, masked_mean(x, still), rtol=0, atol=0)


@pytest.mark.parametrize("levels", SOME)
def test_a_text_alone_and_beside_longer_ones_is_the_same(levels):
    made = tower(levels)
    together = made(packed(made))[0]
    for text, row in zip(TEXTS, together, strict=True):
        torch.testing.assert_close(made(packed(made, [text]))[0][0], row, rtol=1e-5, atol=1e-6)


def test_padding_gets_no_gradient_and_everything_else_does():
    made = tower(letters="transformer")
    vectors, tokens, _ = made(packed(made))
    (vectors.square().sum() + tokens.square().sum()).backward()
    assert not any(table.weight.grad[0].any() for table in made.tables.values())
    assert all(weight.grad.any() for name, weight in made.named_parameters() if "before.bias" not in name)


def test_the_gates_weigh_the_levels():
    made = tower()
    gates = made.gates(TEXTS)
    assert gates.shape == (3, 4) and np.ptp(gates, 0).max() > 1e-3
    np.testing.assert_allclose(gates.sum(1), 1, rtol=1e-6)
    inputs = packed(made)
    found, _ = made.at_levels(inputs)
    vectors, tokens, _ = made(inputs)
    for row in range(3):
        expected = sum(gates[row, i] * v[row] for i, (_, v) in enumerate(found.values()))
        torch.testing.assert_close(vectors[row], expected)
        torch.testing.assert_close(tokens[row], sum(gates[row, i] * x[row] for i, (x, _) in enumerate(found.values())))
    np.testing.assert_allclose(MultiLevelText(**SMALL).gates(TEXTS), 1 / 3, rtol=1e-6)
    closed = tower(("words", "sentence"))
    torch.nn.init.zeros_(closed.gate.weight)
    with torch.no_grad():
        closed.gate.bias.copy_(torch.tensor([50.0, 0.0]))
    inputs = packed(closed)
    torch.testing.assert_close(closed(inputs)[0], closed.at_levels(inputs)[0]["words"][1])


def test_only_the_sentence_knows_the_order():
    one, other = ["mbwa huona paka", "paka huona mbwa"]
    for levels, differs in ((("characters", "words"), False), (("words", "sentence"), True)):
        vectors = tower(levels)(packed(tower(levels), [one, other]))[0]
        assert ((vectors[0] - vectors[1]).abs().max() > 1e-4) == differs


def test_letters_join_forms_that_words_hold_apart():
    """mwekundu and nyekundu share letters, and no row of their own."""
    cosine = torch.nn.functional.cosine_similarity
    near = {}
    for level in ("characters", "words"):
        a, b, c = tower((level,), width=64)(packed(tower((level,)), ["mwekundu", "nyekundu", "kijani"]))[0]
        near[level] = (cosine(a, b, 0) - cosine(a, c, 0)).item()
    assert near["characters"] > 0.3 > abs(near["words"])


def test_a_block_looks_at_no_masked_token():
    block = Block(16, 2)
    x, mask = torch.randn(2, 5, 16), torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    changed = torch.where(mask[..., None], x, 9.0)
    torch.testing.assert_close(block(x, mask)[mask], block(changed, mask)[mask])
    torch.testing.assert_close(block(x, mask)[0, :3], block(x[:1, :3])[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(levels=("sentence",)), "at least"),
        (dict(levels=("words", "syllables")), "at least"),
        (dict(levels=("words",), letters="bytes"), "grams or transformer"),
        (dict(levels=("subwords",), subwords=()), "pieces"),
        (dict(levels=("words",), width=15), "15"),
    ],
)
def test_what_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        MultiLevelText(**(SMALL | changes))
