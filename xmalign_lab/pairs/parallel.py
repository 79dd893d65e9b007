"""Pairs from what a corpus declares: rows of one group."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

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
    pairs = None
    for lang in langs:
        more = Pairs.by_group(corpus, {"modality": "image"}, {"lang": lang, "modality": "text"}, f"image-{lang}")
        pairs = more if pairs is None else pairs + more
    return pairs


def thin(pairs: Pairs, corpus: Corpus, fraction: float, sources: Collection[str]) -> Pairs:
    """Keep the pairs of `sources` for a `fraction` of the families only, the same ones whoever asks: less parallel text.

    Chosen by a hash of the left row's family, so that 1 % is part of 10 %; other sources stay whole.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must lie in [0, 1], not {fraction}")
    family = corpus.lookup("family")
    keep = [hashed_fraction(f"thin {family[left]}") < fraction for left in pairs.rows.left]
    return pairs.select(~pairs.rows.source.isin(sources).to_numpy() | np.array(keep, bool))
