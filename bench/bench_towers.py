"""End to end on scenes: a vision transformer and a text tower, from scratch, tested on compositions they have never met.

Half of the 1,080 compositions train, with six pictures each and captions in six languages. Of the others 500 are the
queries and the gallery, by a seventh picture, which of the training compositions too no training has seen. Two questions:
which of the 500 pictures does a caption mean, and which of 16, the others differing from the right one in one attribute.

python bench/bench_towers.py [--fold 0]
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace

import numpy as np
import pandas as pd

from xmalign_lab import corpora, profile, similarity
from xmalign_lab.corpus import Corpus, Pairs, split_by_family
from xmalign_lab.encoders import inputs
from xmalign_lab.encoders.levels import LEVELS
from xmalign_lab.encoders.subwords import Subwords
from xmalign_lab.evaluate.space import single_changes
from xmalign_lab.model import Aligner, built_tower
from xmalign_lab.recipe import Recipe
from xmalign_lab.schedules import Constant
from xmalign_lab.train import fit

PICTURES, GALLERY, CHOICES = 6, 500, 16
IMAGE = {"tower": "TinyViT", "size": 64, "patch": 16, "depth": 2, "stem": (24, 48, 96, 128), "shift": 2}
TEXT = {"tower": "MultiLevelText", "levels": LEVELS, "depth": 1}
RECIPE = Recipe(epochs=20, batch_pairs=768, dim=128, learning_rate=1.5e-3, temperature=Constant(0.07))


def trained(corpus: Corpus) -> Aligner:
    """Two towers, and the subwords of the second, from `corpus` alone: each picture with its caption in every language."""
    captions = {lang: corpus.where_rows(lang=lang).rows.text for lang in corpus.languages}
    text = TEXT | {"subwords": Subwords.train(captions, 400).pieces}
    found = {"image": inputs.pictures(corpus, IMAGE["size"]), "text": inputs.texts(corpus, built_tower(text).tokenise)}
    pairs = [Pairs.by_group(corpus, {"modality": "image"}, {"lang": lang}, f"image-{lang}").rows for lang in captions]
    return fit(replace(RECIPE, towers={"image": IMAGE, "text": text}), found, Pairs(pd.concat(pairs)))[0]


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fold", type=int, default=0, help="which half of the compositions is held out: 0 or 1")
    fold, wall, cpu = parser.parse_args().fold, time.perf_counter(), time.process_time()
    corpus = split_by_family(corpora.load("scenes", n=1080, pictures=PICTURES + 1), fold, 2, validation=0.0)
    last = corpus.rows.source == corpus.rows.source[corpus.rows.modality == "image"].max()
    aligner = trained(corpus.select(~last & (corpus.rows.split == "train")))
    facts = {"fold": fold, "seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    captions = corpus.where_rows(split="test", modality="text")
    asked = captions.rows.group.isin(captions.rows.group.unique()[:GALLERY])
    table = tested(aligner, corpus.select(last), captions.select(asked))
    print(table.round(3).to_string(index=False), facts, sep="\n")
    profile.built("bench", "towers.json").write_text(json.dumps(facts | {"scores": table.to_dict("records")}, indent=1))


if __name__ == "__main__":
    main()
