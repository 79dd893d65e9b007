"""NRCCR, noise-robust cross-lingual cross-modal retrieval: a reproduction of its parts, written from the equations.

Wang et al. 2022 (arXiv 2208.12526), constants and odd turns by the authors' own code (LiJiaBei-7/nrccr). A sample is a
picture or video V, its text S in a rich language, the translation T of S that a machine made, and B, T translated back:

    L = L_tri(S, V) + .6 L_tri(T, V) + .4 L_sim(V, T; C) + .1 L_feat(T, C) + .5 L_tri(S, B) + .001 L_adv(S, T)

C is a soft teacher: S looks at T, so that what of T does not fit S counts less. No picture is paired with a human text of
the target language. What of the published protocol a reader would not expect is a switch (`Traps`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm

from xmalign_lab import profile, records, similarity
from xmalign_lab.baselines import clip, need_parallel
from xmalign_lab.batches import Tables
from xmalign_lab.cl2cm import prove_no_image_target, seen
from xmalign_lab.corpus import Corpus, CorpusError, Pairs
from xmalign_lab.encoders.classic import words
from xmalign_lab.encoders.features import Features
from xmalign_lab.encoders.inputs import Inputs
from xmalign_lab.encoders.levels import MultiLevelText, masked_mean
from xmalign_lab.evaluate.retrieval import Protocol
from xmalign_lab.losses.contrastive import Mask, Scalar
from xmalign_lab.losses.ranking import triplet
from xmalign_lab.model import HEADS, Aligner, Fixed, TowerHead
from xmalign_lab.pairs.dictionary import dictionary
from xmalign_lab.study import Task, score
from xmalign_lab.train import Recipe

WEIGHTS = {"source": 1.0, "target": 0.6, "similarity": 0.4, "feature": 0.1, "cycle": 0.5, "adversary": 0.001}
MARGIN, TAU, BETA = 0.2, 0.07, 4.0  # of the triplets, of L_sim, of L_feat
DECAY, PATIENCE, STOP, CLIP, CRITIC_RATE = 0.99, 3, 10, 2.0, 1e-3
Vectors = Float[Tensor, "b dim"]


@dataclass(frozen=True)
class Traps:
    """Turns of the published protocol, on as published; `NO_TRAPS` has them off.

    `ensemble`: the share of B in the score that is reported, T's translation into the source language, `validating` that in
    the score that training goes by; with 0 the score is a cross-lingual encoder's. `minmax`: both matrices of an ensemble are
    first scaled to [0, 1]. `padding`: means over tokens count padding, so that a text's vector depends on the longest text
    beside it. `summed`: triplets are summed over the batch, so that the balance of the terms depends on its size. `cut`: no
    gradient reaches a tower of pictures. `open_target`: the gradient of L_feat reaches the teacher too.
    """

    ensemble: float = 0.5
    validating: float = 0.2
    minmax: bool = True
    padding: bool = True
    summed: bool = True
    cut: bool = True
    open_target: bool = True


NO_TRAPS = Traps(0.0, 0.0, False, False, False, False, False)


@dataclass(frozen=True)
class Settings:
    """Sizes and training, as published for pictures; it prints as JSON.

    `inner`, `keys` and `heads` are of the text head's attention, `hidden` the layer between the vector of a picture and the
    space of `dim` dimensions. `trained` is how much of the text tower is: "all", "none", or so many last blocks, 9 of mBERT's.
    """

    inner: int = 768
    keys: int = 512
    heads: int = 8
    hidden: int = 1024
    dim: int = 1536
    dropout: float = 0.2
    trained: str | int = "all"
    learning_rate: float = 1e-4
    batch: int = 128
    epochs: int = 50
    seed: int = 0
    weights: Mapping[str, float] = field(default_factory=lambda: dict(WEIGHTS))
    traps: Traps = Traps()

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


class TextHead(TowerHead):
    """A token tower's texts → unit vectors (b, dim), and those of the soft teacher.

        x = norm(relu(W norm(token)) + place);  vector = unit(BN(W' mean(norm(x + A(x, x)))))
        teacher of S and T = unit(BN(W' mean([norm(A(x_S, x_T)); x_T]))), no residual: S would speak for itself

    A is attention of `heads` heads over keys of size `keys`, the same wherever it stands. With `padding` means count
    padding. Texts are cut after `longest` tokens.
    """

    def __init__(self, tower, dim=1536, inner=768, keys=512, heads=8, dropout=0.2, padding=False, longest=250, adapters=0):
        super().__init__(tower, dim, adapters)
        sizes = dict(inner=inner, keys=keys, heads=heads, dropout=dropout, padding=padding, longest=longest)
        self.settings |= {"kind": "nrccr text", **sizes}
        width = self.out.in_features
        self.enter = nn.Sequential(nn.LayerNorm(width), nn.Dropout(0.1), nn.Linear(width, inner), nn.ReLU())
        self.places = nn.Parameter(torch.randn(longest, inner) * 0.02)
        self.look, self.seen, self.after = nn.Linear(inner, 2 * keys), nn.Linear(inner, inner), nn.Linear(inner, inner)
        self.before, self.norm, self.drop = nn.LayerNorm(inner), nn.LayerNorm(inner), nn.Dropout(0.1)
        self.out = mapping(inner, dim, dropout)

    def read(self, prepared: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """The tower's tokens (b, t, w), x (b, t, inner) and mask (b, t)."""
        used = prepared.reshape(*prepared.shape[:2], -1).any((0, 2))
        end = min(np.flatnonzero(used)[-1] + 1, len(self.places))
        _, tokens, mask = self.tower(torch.from_numpy(prepared[:, :end]).to(self.places.device))
        return tokens, self.drop(self.before(self.enter(tokens) + self.places[: tokens.shape[1]])), mask

    def attended(self, x: Tensor, other: Tensor, mask: Tensor, residual: bool) -> Tensor:
        """What x (b, t, inner) makes of `other` (b, u, inner), where its mask (b, u) holds; scaled by its values' width."""
        query, key = self.look(x).chunk(2, -1)[0], self.look(other).chunk(2, -1)[1]
        parts = [part.unflatten(-1, (self.settings["heads"], -1)).transpose(1, 2) for part in (query, key, self.seen(other))]
        drop, scale = 0.1 * self.training, parts[2].shape[-1] ** -0.5
        found = functional.scaled_dot_product_attention(*parts, mask[:, None, None], drop, scale=scale)
        return self.norm(self.drop(self.after(found.transpose(1, 2).flatten(2))) + x * residual)

    def pooled(self, x: Tensor, mask: Tensor) -> Tensor:
        return x.mean(1) if self.settings["padding"] else masked_mean(x, mask)

    def placed(self, x: Tensor, mask: Tensor) -> Vectors:
        return functional.normalize(self.out(self.pooled(self.attended(x, x, mask, True), mask)), dim=-1)

    def teacher(self, x: Tensor, mask: Tensor, translated: Tensor, of_translated: Tensor) -> Vectors:
        both = torch.cat([self.attended(x, translated, of_translated, False), translated], 1)
        return functional.normalize(self.out(self.pooled(both, torch.cat([mask, of_translated], 1))), dim=-1)

    def forward(self, prepared: np.ndarray) -> Vectors:
        return self.placed(*self.read(prepared)[1:])


class VisualHead(TowerHead):
    """A tower's vectors → unit vectors (b, dim); frozen vectors (n, w) are sequences of one, for `encoders.sequences`.

    With `cut` no gradient goes into a tower of pictures; one of frames or of frozen vectors is trained in any case. Before the
    mapping the published code has a linear layer for CLIP's vectors and a ReLU after it for ResNet's; here is a norm too.
    """

    def __init__(self, tower, dim=1536, dropout=0.2, cut=True, adapters=0):
        super().__init__(tower, dim, adapters)
        self.settings |= dict(kind="nrccr visual", dropout=dropout, cut=cut)
        self.out = mapping(self.out.in_features, dim, dropout)

    def prepare(self, rows: np.ndarray) -> np.ndarray:
        return super().prepare(rows[:, None] if rows.ndim == 2 else rows)

    def forward(self, prepared: np.ndarray) -> Vectors:
        x = self.tower(torch.from_numpy(prepared).to(self.out[0].weight.device))[0]
        cut = self.settings["cut"] and prepared.dtype == np.uint8
        return functional.normalize(self.out(x.detach() if cut else x), dim=-1)


def mapping(entering: int, dim: int, dropout: float) -> nn.Sequential:
    """The layer into the common space: FC, batch norm, dropout."""
    layer = nn.Linear(entering, dim)
    nn.init.xavier_uniform_(layer.weight), nn.init.zeros_(layer.bias)
    return nn.Sequential(layer, nn.BatchNorm1d(dim), nn.Dropout(dropout))


HEADS.update({"nrccr text": TextHead, "nrccr visual": VisualHead})


def terms(v: Vectors, s: Vectors, t: Vectors, c: Vectors, b: Vectors, positives: Mask, traps: Traps) -> dict[str, Scalar]:
    """The five terms over vectors; `positives` says which samples are of one picture, where the published code has a diagonal.

    L_sim = ½ [CE(softmax(V C'/τ), softmax(V T'/τ)) + CE(softmax(C V'/τ), softmax(T V'/τ))], C detached and V not;
    L_feat = SmoothL1(T, C), the mean over entries of e²/2β where |e| < β.
    """
    how = dict(margin=MARGIN, reduction="sum" if traps.summed else "mean")
    goal, given = v @ c.detach().T / TAU, v @ t.T / TAU
    both = ((goal, given), (goal.T, given.T))
    return {
        "source": triplet(s @ v.T, positives, **how),
        "target": triplet(t @ v.T, positives, **how),
        "similarity": -sum((soft.softmax(1) * own.log_softmax(1)).sum(1).mean() for soft, own in both) / 2,
        "feature": functional.smooth_l1_loss(t, c if traps.open_target else c.detach(), beta=BETA),
        "cycle": triplet(s @ b.T, positives, **how),
    }


def critic(width: int) -> nn.Sequential:
    """The language discriminator over pooled tokens: logits (n, 1), above 0 for the source language."""
    return nn.Sequential(nn.Linear(width, 256), nn.Tanh(), nn.Linear(256, 128), nn.Tanh(), nn.Linear(128, 1))


def believed(discriminator: nn.Module, rows: Tensor, source: bool) -> Scalar:
    """Binary cross entropy of the discriminator where all `rows` (n, w) are said to be of the source language, or none."""
    logits = discriminator(rows)
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(source)))


def samples(pairs: Pairs, target: str, pivot: str = "eng_Latn") -> pd.DataFrame:
    """Ids of image, source, target and back, one row per picture and translation, from pairs of weight above 0.

    Of the relations `image-<pivot>`, `<pivot>-<target>` and `<pivot>-<pivot>`, as `pairs.pseudo` makes them; a text without a
    way back in these came back as it was. Raises `CorpusError` if no picture has a translated text.
    """
    names = [f"{left}-{right}" for left, right in (("image", pivot), (pivot, target), (pivot, pivot))]
    pictured, there, back = (pairs.rows[(pairs.rows.source == name) & (pairs.rows.weight > 0)] for name in names)
    both = pictured.merge(there, left_on="right", right_on="left")
    if both.empty:
        raise CorpusError(f"no picture has a text in {pivot} with a translation into {target} of weight above 0")
    came = dict(zip(back.left, back.right, strict=True))
    sides = {"image": both.left_x, "source": both.left_y, "target": both.right_y}
    return pd.DataFrame(sides).assign(back=[came.get(source, source) for source in both.left_y])


def groups(rows: pd.DataFrame) -> np.ndarray:
    """A number for each sample, equal where a chain of pictures and texts S ties two together."""
    left, right = (np.unique(rows[side].to_numpy(object), return_inverse=True)[1] for side in ("image", "source"))
    right = right + left.max() + 1
    return connected_components(coo_array((np.ones(len(rows)), (left, right)), (right.max() + 1,) * 2), directed=False)[1][left]


def fit(
    settings: Settings, features: Tables, rows: pd.DataFrame, towers: Mapping[str, Mapping],
    validation: pd.DataFrame | None = None, folder: Path | None = None, progress: bool = True
) -> tuple[Aligner, pd.DataFrame]:  # fmt: skip
    """Train on `rows` (`samples`): the Aligner, and one row per epoch with the means of its terms.

    `features` maps "image" to Features or Inputs, "text" to Inputs, `towers` those that bring Inputs to their towers, as
    `Recipe.towers`. With `validation`, rows too, the rate is halved after an epoch that brings nothing, though no sooner than
    `PATIENCE` epochs after the last time, and more than `STOP` such epochs in a row end it; the best epoch's weights are
    returned. Without, the rate falls by `DECAY` alone. With a `folder` each epoch is saved, and a run found there goes on to
    the same numbers; `ValueError` if its settings were others. `CorpusError` for an unknown id and for less than two samples.
    """
    profile.keep_memory()
    run = _Run(settings, features, rows, towers)
    if validation is not None:  # an unknown id now, not after an epoch
        _ = [table.position(validation[name]) for name, table in run.tables.items()]
    if folder and (folder / "nrccr.safetensors").exists():
        run.load(folder)
    for epoch in range(len(run.rows), settings.epochs):
        rate, best, idle = pace([row["validation"] for row in run.rows], settings.learning_rate)
        if idle > STOP:
            break
        row = {"epoch": epoch + 1, "learning_rate": rate} | run.epoch(epoch, rate, progress)
        value = np.nan if validation is None else recall(run.aligner, features, validation, settings.traps)
        if not value <= best:  # without validation the last is the best
            run.best = {name: tensor.clone() for name, tensor in run.aligner.state_dict().items()}
        run.rows.append(row | {"validation": value})
        if folder:
            run.save(folder)
    run.aligner.load_state_dict(run.best)
    return run.aligner.eval(), pd.DataFrame(run.rows)


def pace(scores: list[float], rate: float) -> tuple[float, float, int]:
    """After epochs with these validation scores: the learning rate, the best score, and how many epochs since it."""
    best, idle, since = -1.0, 0, 0
    for value in scores:
        idle, since, rate, best = 0 if not value <= best else idle + 1, since + 1, rate * DECAY, np.fmax(best, value)
        if idle and since >= PATIENCE:
            rate, since = rate / 2, 0
    return rate, best, idle


class _Run:
    """The aligner, the discriminator and one optimiser for both, which passes over weights without a gradient."""

    def __init__(self, settings: Settings, features: Tables, rows: pd.DataFrame, towers: Mapping[str, Mapping]):
        if len(rows) < 2:
            raise CorpusError(f"{len(rows)} samples; batch norm and a negative need two or more")
        self.settings, self.rows, self.best = settings, [], {}
        self.tables = {name: features["image" if name == "image" else "text"] for name in ("image", "source", "target", "back")}
        self.at, self.group = {name: table.position(rows[name]) for name, table in self.tables.items()}, groups(rows)
        frozen = dict(tower="Sequence", width_in=features["image"].width, width=settings.hidden, positions=False)
        sizes = {name: getattr(settings, name) for name in ("dim", "inner", "keys", "heads", "dropout")}
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            text = TextHead(dict(towers["text"]), **sizes, padding=settings.traps.padding)
            looks = dict(towers.get("image", frozen | {"seed": settings.seed}))
            visual = VisualHead(looks, settings.dim, settings.dropout, settings.traps.cut)
            discriminator = critic(text.enter[0].normalized_shape[0])
        text.freeze(settings.trained)
        self.aligner = Aligner(visual, text)
        self.parts = nn.ModuleDict({"aligner": self.aligner, "critic": discriminator}).to(profile.device())
        self.optimiser = torch.optim.Adam([{"params": part.parameters(), "lr": CRITIC_RATE} for part in self.parts.values()])

    def epoch(self, number: int, rate: float, progress: bool) -> dict[str, float]:
        """One pass over the samples: the means over its batches of the terms and of the discriminator's own loss."""
        self.aligner.train()
        self.optimiser.param_groups[0]["lr"] = rate
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed * 1_000_003 + number)
            order = torch.randperm(len(self.group)).split(self.settings.batch)
            bar = tqdm(order, f"NRCCR, epoch {number + 1}", leave=False, disable=not progress, unit="step", delay=2)
            logged = [self.step(part.numpy()) for part in bar if len(part) > 1]
        return pd.DataFrame(logged).mean().to_dict()

    def step(self, part: np.ndarray) -> dict[str, float]:
        """The discriminator's step on pooled tokens as they are, then all others', which make T's look like S's to it."""
        image, text = self.aligner.heads.values()
        given, discriminator = {name: self.tables[name].vectors[at[part]] for name, at in self.at.items()}, self.parts["critic"]
        (tokens, *s), (translated, *t), (_, *b) = (text.read(given[name]) for name in ("source", "target", "back"))
        real, fake = text.pooled(tokens, s[1]), text.pooled(translated, t[1])
        own = (believed(discriminator, real.detach(), True) + believed(discriminator, fake.detach(), False)) / 2
        self._descend(own)
        positives = torch.from_numpy(self.group[part, None] == self.group[part]).to(real.device)
        v = image(image.prepare(given["image"]))
        vectors = v, text.placed(*s), text.placed(*t), text.teacher(*s, *t), text.placed(*b)
        values = terms(*vectors, positives, self.settings.traps) | {"adversary": believed(discriminator, fake, True)}
        self._descend(sum(weight * values[name] for name, weight in self.settings.weights.items()), discriminator)
        return {name: float(value.detach()) for name, value in (values | {"critic": own}).items()}

    def _descend(self, loss: Scalar, held: nn.Module | None = None) -> None:
        self.optimiser.zero_grad()
        loss.backward()
        if held is not None:
            held.zero_grad()
            nn.utils.clip_grad_norm_(self.aligner.parameters(), CLIP)
        self.optimiser.step()

    def save(self, folder: Path) -> None:
        """`nrccr.safetensors`, replaced in one step: weights, the best ones, Adam's moments; settings and rows as JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        held = {"weights": self.parts.state_dict(), "best": self.best} | self.optimiser.state_dict()["state"]
        tensors = {f"{part}/{name}": tensor.contiguous() for part, of in held.items() for name, tensor in of.items()}
        save_file(tensors, folder / "new", {"settings": self.settings.to_json(), "rows": json.dumps(self.rows)})
        (folder / "new").replace(folder / "nrccr.safetensors")

    def load(self, folder: Path) -> None:
        with safe_open(folder / "nrccr.safetensors", "pt") as file:
            saved = {name: json.loads(text) for name, text in file.metadata().items()}
        own, held = json.loads(self.settings.to_json()), {}
        if changed := [name for name in own if name != "epochs" and own[name] != saved["settings"].get(name)]:
            raise ValueError(f"{folder} holds a run of other settings: {', '.join(changed)}; give another folder or delete it")
        for key, tensor in load_file(folder / "nrccr.safetensors").items():
            part, name = key.split("/", 1)
            held.setdefault(part, {})[name] = tensor
        self.rows, self.best = saved["rows"], held.pop("best")
        self.parts.load_state_dict(held.pop("weights"))
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": {int(place): of for place, of in held.items()}})


def recall(aligner: Aligner, features: Tables, rows: pd.DataFrame, traps: Traps) -> float:
    """R@1 + R@5 + R@10, in per cent, of the pictures among all that `rows` hold, asked by T, and by B as `traps` say."""
    group, shown, asked = groups(rows), ~rows.image.duplicated(), ~rows[["source", "target"]].duplicated()
    images = aligner.encode_image(_some(features["image"], rows.image[shown]))
    texts, back = (aligner.encode_text(_some(features["text"], rows[name][asked])) for name in ("target", "back"))
    texts, images = ensembled(images, texts, back, traps.validating, traps.minmax)
    rank = similarity.ranks(texts, images, group[asked], group[shown])
    return float(sum(100 * (rank <= k).mean() for k in (1, 5, 10)))


def _some(table: Features | Inputs, ids) -> Features | Inputs:
    """The rows of `ids`, of which some may be the same."""
    return type(table)(range(len(ids)), table.take(ids))


def ensembled(images, direct, back, share: float = 0.5, minmax: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of texts (n, 2 dim) and pictures (m, 2 dim) whose cosines order as the translate-test ensemble does,

        share · minmax(B V') + (1 - share) · minmax(T V'),  minmax(X) = (X - min X) / (max X - min X) over the whole matrix

    A minimum is the same for all, so what orders is a B V' + b T V', a cosine of vectors side by side. `direct` (n, dim) are
    the queries T, `back` their translations B, `images` V (m, dim), all unit rows.
    """
    shares = np.array([share, 1 - share])
    if minmax:
        ends = [[(block.min(), block.max()) for _, block in similarity.blocks(side, images)] for side in (back, direct)]
        shares = shares / [max(np.ptp(end), 1e-12) for end in ends]
    root = np.sqrt(shares / shares.sum()).astype(np.float32)
    return np.hstack([back * root[0], direct * root[1]]), np.hstack([images * root[0], images * root[1]])


def score_ensemble(corpus: Corpus, images: Features, direct: Features, back: Features, traps: Traps = Traps()) -> pd.DataFrame:
    """`study.score` of the translate-test ensemble: per-query ranks in both directions, by language and source of pictures.

    All three hold vectors of one space; `direct` and `back` have the ids of the texts, the latter the vectors of their
    translations into the source language. It is no score of a cross-lingual encoder: each query is translated too.
    """
    parts, texts = [], corpus.where_rows(modality="text", kind=["name", "caption"]).rows
    for _, shown in corpus.where_rows(modality="image").rows.groupby("source"):
        for _, asked in texts.groupby("lang"):
            sides = images.take(shown.id), direct.take(asked.id), back.take(asked.id)
            words_of, pictures = ensembled(*sides, traps.ensemble, traps.minmax)
            spaces = {"image": Features(shown.id, pictures), "text": Features(asked.id, words_of)}
            part = corpus.select(corpus.rows.id.isin([*shown.id, *asked.id]))
            parts.append(score(Aligner(*[Fixed(pictures.shape[1])] * 2), part, spaces, Protocol(translate_test=True)))
    return pd.concat(parts, ignore_index=True)


# Sizes for a text tower from scratch, and a rate for it: 1e-4 is for one that knows its languages. Triplets are summed as
# published; of the other traps a study has no use. Rate, sum and steps were chosen on validation families of one fold of emoji.
TEXT = {"levels": ["characters", "words"], "width": 96, "depth": 0}
SMALL = Settings(96, 64, 4, 256, 128, learning_rate=1e-3, traps=replace(NO_TRAPS, summed=True))


def run(task: Task, recipe: Recipe, ensemble: bool = False, settings: Settings = SMALL, steps: int = 400) -> pd.DataFrame:
    """The study's row: one run of about `steps` steps for all targets, mixed in batches, scored as it is or as the `ensemble`.

    There is no mBERT here: the text tower is `MultiLevelText` from scratch, over names of a few words or captions; keywords are
    left out, which would take several times as long. S are the pivot texts, T the target texts of the task's parallel pairs
    with what is wrong with them, B is T word by word in the dictionary of these pairs, V the picture's classic vector. What is
    trained on is proved as in `cl2cm.run`. The run is recorded, as both ways of scoring share it.
    """
    need_parallel(task, "nothing to translate with")
    listed = task.pairs.rows[["left", "right"]].isin(task.corpus.where_rows(kind="keywords").ids).any(axis=1)
    task = replace(task, pairs=task.pairs.select(~listed))
    rows = [samples(task.pairs, target, task.pivot).assign(way=target + ":") for target in task.targets]
    rows = pd.concat(rows, ignore_index=True).assign(back=lambda of: of.way + of.target).drop(columns="way")
    ties = [("image", "source"), ("source", "target"), ("image", "target")]
    ties = [pd.DataFrame({"left": rows[a], "right": rows[b], "source": f"{a}-{b}"}) for a, b in ties]
    told = seen(Pairs(pd.concat(ties).drop_duplicates()), task.corpus, task.pivot)
    for target in task.targets:
        prove_no_image_target(told, target, stand_in=True)
    text_of = task.corpus.lookup("text")
    asked = task.asked.where_rows(modality="text", kind=["name", "caption"]).rows
    used = {i: text_of[i] for i in [*rows.source, *rows.target, *asked.id]}
    for lang in (task.pivot, *task.targets):
        pairs = task.pairs.rows[task.pairs.rows.source == f"{task.pivot}-{lang}"]
        known = dictionary([(text_of[right], text_of[left]) for left, right in zip(pairs.left, pairs.right, strict=True)])
        for i in [*pairs.right, *asked.id[asked.lang == lang]]:
            used[f"{lang}:{i}"] = " ".join(known.get(word, word) for word in words(text_of[i]))
    tables = {"image": task.features["image"], "text": Inputs(list(used), MultiLevelText(**TEXT).tokenise(list(used.values())))}
    settings = replace(settings, seed=recipe.seed + task.fold, epochs=-(-steps * settings.batch // len(rows)))
    towers = {"text": {"tower": "MultiLevelText", **TEXT, "seed": settings.seed}}

    def fill(folder: Path) -> None:
        aligner, log = fit(settings, tables, rows, towers, folder=folder, progress=False)
        aligner.save(folder)
        log.to_parquet(folder / "steps.parquet")

    keys = [records.frame_hash(rows), *(tables[modality].key for modality in tables)]
    aligner = Aligner.load(records.get_or_run(settings, fill, keys, profile.runs_root() / "nrccr", __name__).folder)
    texts, shown = tables["text"], task.asked.where_rows(modality="image").ids
    images = Features(shown, aligner.encode_image(_some(tables["image"], shown)))
    direct, back = (Features(asked.id, aligner.encode_text(_some(texts, of))) for of in (asked.id, asked.lang + ":" + asked.id))
    plain = Aligner(Fixed(settings.dim), Fixed(settings.dim)), task.asked, {"image": images, "text": direct}
    scores = score_ensemble(task.asked, images, direct, back) if ensemble else score(*plain)
    scores.attrs["seen"] = told.to_dict("records")
    return scores


METHODS = {"NRCCR": (run, clip(name="NRCCR")), "NRCCR, ensemble": (partial(run, ensemble=True), clip(name="NRCCR, ensemble"))}
