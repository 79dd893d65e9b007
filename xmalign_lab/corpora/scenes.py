"""Procedural scenes: pictures of one to three equal shapes, with captions from the grammars of six languages.

They need nothing from outside: a picture is drawn from its number alone, so `scene:<n>` is all a corpus holds.
What they can show is whether a method learns; what they cannot is anything about photographs or real language.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from xmalign_lab.corpora import grammar
from xmalign_lab.corpora.grammar import COMPOSITIONS, Scene, badge, caption, check_languages, describe
from xmalign_lab.corpus import Corpus, CorpusError

SIDE = 64  # pixels
SAMPLES = 4  # per pixel and axis, averaged for smooth edges
JITTERS = 1 << 20

RGB = {
    "red": (214, 39, 40),
    "green": (40, 155, 60),
    "blue": (45, 95, 205),
    "yellow": (246, 208, 40),
    "black": (28, 28, 28),
    "white": (255, 255, 255),
}
LINE = (95, 95, 95)
RADIUS = {"small": 5.4, "large": 8.7}  # pixels, from the middle of a shape to its farthest corner: three large ones fill a side
CENTRE = {"left": (15, 32), "right": (49, 32), "top": (32, 15), "bottom": (32, 49), "centre": (32, 32)}


def open_scene(reference: str) -> Image.Image:
    """The RGBA picture, 64 × 64, of `scene:<n>`. Raises `CorpusError` for anything else."""
    return draw(scene_of(reference))


def scene_of(reference: str) -> Scene:
    """The scene that `scene:<n>` names. Raises `CorpusError` for anything else."""
    kind, _, number = str(reference).partition(":")
    if kind != "scene" or not (number.isascii() and number.isdecimal()):
        raise CorpusError(f"{reference}: a scene is written scene:<n> with a whole number n from 0")
    return describe(int(number))


def draw(scene: Scene) -> Image.Image:
    """The RGBA picture, 64 × 64; the jitter shifts, turns, scales and tints it a little, never past what the words say."""
    paper, colour, radius, centres, outlines = _plan(scene)
    canvas = Image.new("RGBA", (SIDE * SAMPLES, SIDE * SAMPLES), (*paper.tolist(), 255))
    pen = ImageDraw.Draw(canvas)
    for centre, outline in zip(centres * SAMPLES, outlines * SAMPLES, strict=True):
        pen.polygon([tuple(point) for point in outline.tolist()], fill=(*colour.tolist(), 255), outline=LINE, width=2)
        if scene.shape == "flower":  # its middle: without it a flower is a star with round points
            pen.circle(tuple(centre.tolist()), 0.25 * radius * SAMPLES, outline=LINE, width=2)
    return canvas.resize((SIDE, SIDE), Image.Resampling.BOX)


def box(scene: Scene) -> np.ndarray:
    """Where the shapes of a picture lie, all together: (4,) left, top, right, bottom in the unit square, y down."""
    corners = _plan(scene)[-1].reshape(-1, 2) / SIDE
    return np.concatenate([corners.min(0), corners.max(0)])


def said_at(scene: Scene, lang: str) -> dict[str, int]:
    """Which word of `caption(scene, lang).split()` is the noun and which the colour: {"shape": 3, "colour": 2}.

    They are what `box` is the place of. Of a phrase, the noun is its first word and the colour its last: "rangi ya bluu".
    Raises `CorpusError` for a language without a grammar.
    """
    spoken = caption(scene, lang).split()
    agrees = grammar.agreement(lang, grammar.lexicon()[lang][scene.shape], scene.count)
    noun, colour = (grammar.inflect(lang, concept, agrees).split() for concept in (scene.shape, scene.colour))
    return {"shape": spoken.index(noun[0]), "colour": spoken.index(colour[-1])}


def _plan(scene: Scene) -> tuple[np.ndarray, np.ndarray, float, np.ndarray, np.ndarray]:
    """Colours of paper and shapes, their radius, centres (count, 2) and outlines (count, corners, 2), in pixels, y down."""
    random = np.random.default_rng(scene.number)
    paper = random.integers(214, 232, 3)
    colour = np.clip(np.add(RGB[scene.colour], random.integers(-12, 13, 3)), 0, 255)
    radius = RADIUS[scene.size] * random.uniform(0.92, 1.05)
    centres = _arrange(scene.place, scene.count, 2 * radius + 2.4) + random.uniform(-0.8, 0.8, 2)
    outlines = []
    for centre, turn in zip(centres, random.uniform(-0.2, 0.2, scene.count), strict=True):
        rotate = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        outlines.append(_outline(scene.shape) * radius @ rotate + centre)
    return paper, colour, radius, centres, np.stack(outlines)


def _arrange(place: str, count: int, step: float) -> np.ndarray:
    """Centres (count, 2) in pixels: a column at left and right, a row at top and bottom, a cluster in the middle."""
    if place == "centre" and count == 3:
        offsets = np.array([[-0.5, 0.29], [0.5, 0.29], [0, -0.58]]) * step
    else:
        along = (np.arange(count) - (count - 1) / 2) * step
        offsets = np.stack([0 * along, along] if place in ("left", "right") else [along, 0 * along], axis=1)
    return offsets + CENTRE[place]


def _outline(shape: str) -> np.ndarray:
    """Corners (k, 2) about the origin, y down, none farther than 1."""
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones_like(turn)
    if shape == "triangle":
        turn, radius = 2 * np.pi * np.arange(3) / 3, np.ones(3)
    elif shape == "square":
        turn, radius = np.pi / 4 + np.pi * np.arange(4) / 2, np.ones(4)
    elif shape == "star":
        turn, radius = np.pi * np.arange(10) / 5, np.where(np.arange(10) % 2, 0.48, 1)
    elif shape == "flower":
        radius = 0.5 + 0.5 * np.sqrt(np.abs(np.cos(2.5 * turn)))
    elif shape == "heart":
        x, y = 16 * np.sin(turn) ** 3, 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
        corners = np.stack([x, -y - 2], axis=1)
        return corners / np.linalg.norm(corners, axis=1).max()
    return np.stack([radius * np.sin(turn), -radius * np.cos(turn)], axis=1)


def load(languages=None, n: int = 400, seed: int = 0, pictures: int = 2) -> Corpus:
    """`n` distinct compositions, each with `pictures` pictures and one caption per language (default: all six).

    A group, which is also a family, is a composition: its pictures differ in jitter only, and their sources
    `jitter-a`, `jitter-b` stand for vendors. A corpus of any size has more `pictures`, since two groups that
    mean the same would be wrong negatives of each other. `labels` holds the attributes and, for captions, the
    badge `review`. The same seed gives the same rows; a smaller `n` gives the first groups of a larger one.

    Raises `CorpusError` for a language without a grammar, or an `n` or `pictures` out of range.
    """
    languages = check_languages(languages)
    if not 1 <= n <= COMPOSITIONS:
        raise CorpusError(f"scenes: n = {n}, but there are 1 … {COMPOSITIONS} distinct compositions; for more, raise `pictures`")
    if not 1 <= pictures <= JITTERS:
        raise CorpusError(f"scenes: pictures = {pictures}; each composition needs 1 … {JITTERS}")
    rows = []
    for composition in np.random.default_rng(seed).permutation(COMPOSITIONS)[:n].tolist():
        scene, group = describe(composition), f"scene-{composition:06d}"
        first = int(np.random.default_rng([seed, composition]).integers(JITTERS))
        for k in range(pictures):
            name, number = _letters(k), composition + COMPOSITIONS * ((first + k) % JITTERS)
            picture = {"id": f"{group}:image:{name}", "modality": "image", "image": f"scene:{number}"}
            rows.append({**picture, "kind": "picture", "source": f"jitter-{name}", "labels": scene.labels})
        for lang in languages:
            text = {"id": f"{group}:{lang}", "modality": "text", "lang": lang, "text": caption(scene, lang)}
            rows.append({**text, "kind": "caption", "source": "grammar", "labels": scene.labels | {"review": badge(lang)}})
        for row in rows[-pictures - len(languages) :]:
            row["group"] = row["family"] = group
    return Corpus(pd.DataFrame(rows), name="scenes", open_image=open_scene)


def _letters(k: int) -> str:
    """a … z, aa, ab …: the name of the k-th picture."""
    return (_letters(k // 26 - 1) if k >= 26 else "") + chr(ord("a") + k % 26)
