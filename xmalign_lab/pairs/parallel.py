"""Pairs from what a corpus declares: rows of one group."""

from __future__ import annotations

from xmalign_lab.corpus import Corpus, CorpusError, Pairs


def bridge(corpus: Corpus, targets: list[str], pivot: str = "eng_Latn") -> Pairs:
    """Images with pivot texts, and pivot texts with target texts of the same kind: no image–target pair at all.

    The target languages reach the images only over the pivot. Sources are `image-<pivot>` and
    `<pivot>-<target>`. A target without any text raises `CorpusError`.
    """
    image = {"modality": "image"}
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
