"""End to end on scenes: a vision transformer and a text tower, from scratch, tested on compositions they have never met.

Half of the 1,080 compositions train, with six pictures each and captions in six languages. Of the others 500 are the
queries and the gallery, by a seventh picture, which of the training compositions too no training has seen. Two questions:
which of the 500 pictures does a caption mean, and which of 16, the others differing from the right one in one attribute.

With all of that nearly every picture is found, and nothing is left to gain. So two comparisons have less to learn from, three
seeds each, in smaller towers. `--local`: a quarter of the compositions, two pictures each; the global loss alone against the
global loss with one that matches words and patches (taken before the attention: later ones point nowhere), which is asked
for its own similarity beside the cosine too. `--masked`: Swahili and Sinhala captions for a twentieth of the pictures, and all
of them as text alone; a text tower from nothing against one that began with masked words, before classic features of pictures.
How few compositions and epochs was chosen on fold 1, nothing else.

python bench/bench_towers.py [--fold 0] [--local | --masked]
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import torch

from xmalign_lab import corpora, mlm, profile, similarity
from xmalign_lab.corpora import scenes
from xmalign_lab.corpora.grammar import COMPOSITIONS
from xmalign_lab.corpus import Corpus, Pairs, split_by_family
from xmalign_lab.encoders import inputs
from xmalign_lab.encoders.classic import ClassicImage
from xmalign_lab.encoders.features import Features
from xmalign_lab.encoders.levels import LEVELS
from xmalign_lab.encoders.subwords import Subwords
from xmalign_lab.evaluate.local import inside, pointing
from xmalign_lab.evaluate.significance import mixed_bootstrap
from xmalign_lab.evaluate.space import single_changes
from xmalign_lab.losses import local
from xmalign_lab.model import Aligner, built_tower
from xmalign_lab.recipe import Recipe
from xmalign_lab.schedules import Constant
from xmalign_lab.train import fit

PICTURES, GALLERY, CHOICES = 6, 500, 16
IMAGE = {"tower": "TinyViT", "size": 64, "patch": 16, "depth": 2, "stem": (24, 48, 96, 128), "shift": 2}
TEXT = {"tower": "MultiLevelText", "levels": LEVELS, "depth": 1}
RECIPE = Recipe(epochs=20, batch_pairs=768, dim=128, learning_rate=1.5e-3, temperature=Constant(0.07))
SMALL_TEXT = TEXT | {"width": 64, "buckets": 4096}
SMALL = replace(RECIPE, epochs=24, batch_pairs=192, dim=64)
LOCAL = ("filip", "gloria", "pacl", "transport")
SEEDS, SCARCE, MEASURES = (0, 1, 2), ("swh_Latn", "sin_Sinh"), ("R@1", "alike", "with parts", "noun", "colour", "chance")


def trained(corpus: Corpus, recipe: Recipe = RECIPE, text: dict = TEXT, seen: Features | None = None) -> Aligner:
    """Two towers, and the subwords of the second, from `corpus` alone: each picture with its caption in every language.

    Where its pictures were `seen` already, by an encoder that is not trained, there is a tower of texts alone.
    """
    captions = {lang: corpus.where_rows(lang=lang).rows.text for lang in corpus.languages}
    text = {"subwords": Subwords.train(captions, 400).pieces} | text | {"seed": recipe.seed}
    image = {"image": IMAGE | {"seed": recipe.seed, "early": len(recipe.terms) > 1}} if seen is None else {}
    found = {"image": inputs.pictures(corpus, IMAGE["size"]) if seen is None else seen}
    found["text"] = inputs.texts(corpus, built_tower(text).tokenise)
    pairs = [Pairs.by_group(corpus, {"modality": "image"}, {"lang": lang}, f"image-{lang}").rows for lang in captions]
    return fit(replace(recipe, towers={**image, "text": text}), found, Pairs(pd.concat(pairs)))[0]


def alike(corpus: Corpus, seed: int = 0) -> dict[str, list[str]]:
    """For each group of scenes itself and CHOICES - 1 others, drawn from those that differ from it in one attribute."""
    rows = corpus.where_rows(modality="image").rows.drop_duplicates("group")
    groups, changes = rows.group.to_numpy(), single_changes(pd.DataFrame(list(rows.labels)))
    others = changes.sample(frac=1, random_state=seed).groupby("before").after.apply(list)
    return {group: [group, *groups[others[row][: CHOICES - 1]]] for row, group in enumerate(groups)}


def tested(aligner: Aligner, pictures: Corpus, captions: Corpus) -> pd.DataFrame:
    """Per language: how often a caption finds its picture among those of all `captions`, and among those `alike`."""
    images, place = aligner.encode_image(inputs.pictures(pictures, IMAGE["size"])), pictures.rows.group.to_numpy()
    row_of, sets, found = {group: row for row, group in enumerate(place)}, alike(pictures), []
    for lang in captions.languages:
        of = captions.where_rows(lang=lang)
        groups, vectors = of.rows.group.to_numpy(), aligner.encode_text(inputs.texts(of, aligner.heads["text"].tower.tokenise))
        gallery = np.isin(place, groups)
        ranks = similarity.ranks(vectors, images[gallery], groups, place[gallery])
        choices = images[[[row_of[other] for other in sets[group]] for group in groups]]
        scores = np.einsum("nd,nkd->nk", vectors, choices)
        found.append((lang, len(groups), (ranks <= 1).mean(), ranks.mean(), (scores[:, 0] > scores[:, 1:].max(1)).mean()))
    return pd.DataFrame(found, columns=["lang", "gallery", "R@1", "mean rank", f"R@1 of {CHOICES} alike"])


@torch.no_grad()
def judged(aligner: Aligner, pictures: Corpus, captions: Corpus, term: str = "") -> pd.DataFrame:
    """A row per caption, with MEASURES: whether it is right among the pictures of all captions, among those `alike`, and among
    all by cosine plus `term`'s similarity (none: by cosine); whether its noun and its colour point at the shapes, and chance.
    """
    heads, sets, found = aligner.eval().heads, alike(pictures), []
    parts = [heads["image"](rows) for rows in np.array_split(inputs.pictures(pictures, IMAGE["size"]).rows, 8)]
    images, patches, _ = (torch.cat(part) for part in zip(*parts, strict=True))
    row_of, grid = {group: row for row, group in enumerate(pictures.rows.group)}, (round(patches.shape[1] ** 0.5),) * 2
    for lang in captions.languages:
        of = captions.where_rows(lang=lang)
        vectors, words, mask = heads["text"](inputs.texts(of, heads["text"].tower.tokenise).rows)
        asked = [row_of[group] for group in of.rows.group]
        own, seen, sims = torch.arange(len(asked)), patches[asked], vectors @ images[asked].T
        choices = images[[[row_of[other] for other in sets[group]] for group in of.rows.group]]
        right = [sims.argmax(1) == own, torch.einsum("nd,nkd->nk", vectors, choices).argmax(1) == 0]
        if term:
            by = getattr(local, term)(words, seen, mask, torch.ones(seen.shape[:2], dtype=torch.bool))
            sims = sims + (local.symmetric(by) if isinstance(by, tuple) else by)
        drawn = [scenes.scene_of(reference) for reference in pictures.rows.image.iloc[asked]]
        boxes = np.stack([scenes.box(scene) for scene in drawn])
        places = [[scenes.said_at(scene, lang)[what] for scene in drawn] for what in ("shape", "colour")]
        points = [pointing(torch.einsum("nd,nkd->nk", words[own, at], seen).numpy(), boxes, grid) for at in places]
        row = [*right, sims.argmax(1) == own, *points, inside(boxes, grid).mean(1)]
        row = {name: np.asarray(value, float) for name, value in zip(MEASURES, row, strict=True)}
        found.append(pd.DataFrame(row).assign(lang=lang, group=of.rows.group.to_numpy()))
    return pd.concat(found)


def compared(title: str, runs: dict[str, list[pd.DataFrame]]) -> dict[str, dict[str, tuple]]:
    """`{method: {measure: (mean, gain over the first method, low, high)}}` of runs `judged`, one per seed; printed as Markdown.

    The 95 % intervals resample compositions and seeds, in pairs; the languages are averaged.
    """
    keys, made, first = [pd.Grouper(level=0), "group"], {}, None
    measures = [name for name in MEASURES if name in next(iter(runs.values()))[0]]
    print(f"\n| {title} | {' | '.join(measures)} |\n|---{'|---:' * len(measures)}|")
    for name, of in runs.items():
        values = pd.concat(of, keys=SEEDS).groupby(keys).mean(numeric_only=True).unstack()
        first = values if first is None else first
        gains = {m: mixed_bootstrap(values[m].to_numpy(), first[m].to_numpy(), values[m].columns) for m in measures}
        made[name] = {m: (float(values[m].to_numpy().mean()), *map(float, gain[:3])) for m, gain in gains.items()}
        cells = (f"{m:.3f}" + f" ({d:+.3f} [{low:+.3f}, {high:+.3f}])" * (low < high) for m, d, low, high in made[name].values())
        print(f"| {name} | {' | '.join(cells)} |")
    return made


def few(corpus: Corpus, groups: int, seed: int) -> Corpus:
    """So many compositions, drawn by the seed, two pictures of each, and all captions."""
    sources = corpus.where_rows(modality="image").rows.source.unique()[:2]
    drawn = np.random.default_rng(seed).permutation(corpus.rows.group.unique())[:groups]
    return corpus.select(corpus.rows.group.isin(drawn) & corpus.rows.source.isin([*sources, "grammar"]))


def local_or_not(learned: Corpus, pictures: Corpus, captions: Corpus) -> dict[str, dict]:
    """The global loss alone, and with each local one, of weight 1."""
    runs = {name: [] for name in ("global alone", *LOCAL)}
    for seed, term in product(SEEDS, runs):
        terms = {"info_nce": 1.0} | {name: 1.0 for name in LOCAL if name == term}
        aligner = trained(few(learned, 135, seed), replace(SMALL, seed=seed, terms=terms), SMALL_TEXT)
        runs[term].append(judged(aligner, pictures, captions, term if term in LOCAL else ""))
    return {"six languages": compared("six languages", runs)}


def masked_or_not(learned: Corpus, pictures: Corpus, captions: Corpus) -> dict[str, dict]:
    """In languages with captions for a twentieth of the pictures: a text tower from nothing, and from masked words."""
    runs = {lang: {"from nothing": [], "from masked words": []} for lang in SCARCE}
    learned = few(learned.where_rows(lang=["", "eng_Latn", *SCARCE]), COMPOSITIONS, 0)
    gallery = pictures.where_rows(group=captions.rows.group)
    seen, shown = ClassicImage().encode(learned), ClassicImage().encode(gallery)
    texts = {lang: list(learned.where_rows(lang=lang).rows.text) for lang in learned.languages}
    for seed, name in product(SEEDS, runs[SCARCE[0]]):
        some = few(learned, len(texts["eng_Latn"]) // 20, seed).rows.id
        little = learned.select(~learned.rows.lang.isin(SCARCE) | learned.rows.id.isin(some))
        text = SMALL_TEXT | {"subwords": Subwords.train(texts, 400).pieces, "seed": seed}
        if name == "from masked words":
            tower, _ = mlm.pretrain(built_tower(text), sum((texts[lang] for lang in SCARCE), []), seed=seed)
            text |= {"weights": str(mlm.save(tower, profile.built("towers", "masked")))}
        aligner = trained(little, replace(SMALL, seed=seed), text, seen)
        for lang, found in runs.items():
            of = captions.where_rows(lang=lang)
            sides = aligner.encode_text(inputs.texts(of, aligner.heads["text"].tower.tokenise)), aligner.encode_image(shown)
            ranks = similarity.ranks(*sides, of.rows.group.to_numpy(), gallery.rows.group.to_numpy())
            found[name].append(pd.DataFrame({"R@1": ranks <= 1, "group": of.rows.group.to_numpy()}))
    return {lang: compared(lang, found) for lang, found in runs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fold", type=int, default=0, help="which half of the compositions is held out: 0 or 1")
    comparisons = {"local": local_or_not, "masked": masked_or_not}
    for name, compare in comparisons.items():
        parser.add_argument(f"--{name}", action="store_const", dest="what", const=name, help=compare.__doc__)
    given, wall, cpu = parser.parse_args(), time.perf_counter(), time.process_time()
    corpus = split_by_family(corpora.load("scenes", n=1080, pictures=PICTURES + 1), given.fold, 2, validation=0.0)
    last = corpus.rows.source == corpus.rows.source[corpus.rows.modality == "image"].max()
    captions = corpus.where_rows(split="test", modality="text")
    asked = captions.rows.group.isin(captions.rows.group.unique()[:GALLERY])
    sides = corpus.select(~last & (corpus.rows.split == "train")), corpus.select(last), captions.select(asked)
    made = comparisons[given.what](*sides) if given.what else trained(sides[0])
    facts = {"fold": given.fold, "seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    if not given.what:
        table = tested(made, *sides[1:])
        print(table.round(3).to_string(index=False))
        made = table.to_dict("records")
    print(facts)
    to = profile.built("towers", f"{given.what}.json") if given.what else profile.built("bench", "towers.json")
    to.write_text(json.dumps(facts | {"scores": made}, indent=1))


if __name__ == "__main__":
    main()
