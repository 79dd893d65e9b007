"""Pairs from what a corpus declares: rows of one group."""

from __future__ import annotations

from collections.abc import Collection
from functools import reduce
from operator import add

import numpy as np
import pandas as pd

from xmalign_lab import languages
from xmalign_lab.corpus import Corpus, CorpusError, Pairs, hashed_fraction


def bridge(corpus: Corpus, targets: list[str], pivot: str = "eng_Latn", hold_out: Collection[str] = ()) -> Pairs:
    """Images with pivot texts, and pivot texts with target texts of the same kind: no image–target pair at all.

    The target languages reach the images only over the pivot. Sources are `image-<pivot>` and
    `<pivot>-<target>`. `hold_out` names picture sources (vendors) that training must not see, such as ("twitter",): they
    are still scored. A target without any text, or a source that the corpus lacks, raises `CorpusError`.
    """
    vendors = set(corpus.where_rows(modality="image").rows.source)
    if unknown := set(hold_out) - vendors:
        raise CorpusError(f"{corpus.name}: no pictures from {sorted(unknown)[0]!r}; it has {', '.join(sorted(vendors))}")
    image = {"modality": "image", "source": vendors - set(hold_out)}
    pairs = Pairs.by_group(corpus, image, {"lang": pivot, "modality": "text"}, f"image-{pivot}")
    for target in targets:
        if target not in corpus.languages:
            raise CorpusError(f"{corpus.name}: no text in {target!r}; it has {', '.join(corpus.languages)}")
        texts = ({"lang": pivot, "modality": "text"}, {"lang": target, "modality": "text"})
        pairs = pairs + Pairs.by_group(corpus, *texts, f"{pivot}-{target}", match=("kind",))
    return pairs


def direct(corpus: Corpus, langs: list[str]) -> Pairs:
    """Images with the texts of every language in `langs`: what one would train on if it existed. The upper reference."""
    image = {"modality": "image"}
    return reduce(add, (Pairs.by_group(corpus, image, {"lang": lang, "modality": "text"}, f"image-{lang}") for lang in langs))


def thin(pairs: Pairs, corpus: Corpus, fraction: float, sources: Collection[str]) -> Pairs:
    """Keep the pairs of `sources` for a `fraction` of the families only, the same ones whoever asks: less parallel text.

    Chosen by a hash of the left row's family, so that 1 % is part of 10 %; other sources stay whole.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must lie in [0, 1], not {fraction}")
    family = corpus.lookup("family")
    keep = [hashed_fraction(f"thin {family[left]}") < fraction for left in pairs.rows.left]
    return pairs.select(~pairs.rows.source.isin(sources).to_numpy() | np.array(keep, bool))


def partition(pairs: Pairs, corpus: Corpus, targets: list[str], pivot: str = "eng_Latn", tiers=("low",)) -> pd.DataFrame:
    """Where each target language goes, one row each: to filtering with the pairs it has, to mining with the rest of its texts.

    Columns `source` (`<pivot>-<target>`), `language`, `tier`, `pairs`, `unpaired` (texts of the language in no such pair),
    `filter` and `mine`. Whatever has pairs is filtered; what has unpaired texts is mined if it has no pairs or if its tier
    (`languages`) is one of `tiers`, so that a low-resource language with some parallel text goes both ways. A language
    without any text raises `CorpusError`.
    """
    table = []
    for target in targets:
        texts = corpus.where_rows(modality="text", lang=target).rows.id
        if texts.empty:
            raise CorpusError(f"{corpus.name}: no text in {target!r}; it has {', '.join(corpus.languages)}")
        mine, known = pairs.rows[pairs.rows.source == f"{pivot}-{target}"], languages.info(target)
        unpaired = int((~texts.isin(mine.right)).sum())
        ways = len(mine) > 0, unpaired > 0 and (mine.empty or known.tier in tiers)
        table.append((f"{pivot}-{target}", known.name, known.tier, len(mine), unpaired, *ways))
    return pd.DataFrame(table, columns=["source", "language", "tier", "pairs", "unpaired", "filter", "mine"])
