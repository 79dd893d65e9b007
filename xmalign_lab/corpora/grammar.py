"""What a scene is called: small grammars of six languages over one lexicon.

Only shape, colour, size, number and place are said, so that every form can be right. The words stand in
`lexicon.csv`, one row per word and language with its class or gender, its plural, and the grammar or
dictionary it follows; the rules here inflect and order them. A language is *unreviewed* until a named speaker
has signed the table that `review.write_review` writes and `review.sign` has put the name into the lexicon.

Sources of the rules: Huddleston and Pullum 2002 (English), Duden 2022 (German), Ashton 1944 (Swahili: noun,
adjective, numeral), Gair and Paolillo 1997 (Sinhala), Newman 2000 (Hausa: adjective and linker before the noun,
numeral after it), Cusihuamán 2001 (Cuzco Quechua: no -kuna after a numeral).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

from xmalign_lab.corpus import CorpusError
from xmalign_lab.profile import csv_rows

SHAPES = ("circle", "triangle", "square", "star", "heart", "flower")
COLOURS = ("red", "green", "blue", "yellow", "black", "white")
SIZES = ("small", "large")
NUMBERS = ("one", "two", "three")
PLACES = ("left", "right", "top", "bottom", "centre")
CHOICES = {"shape": SHAPES, "colour": COLOURS, "size": SIZES, "count": (1, 2, 3), "place": PLACES}
EVERY = list(product(*CHOICES.values()))  # every composition, by its number
COMPOSITIONS = len(EVERY)

LEXICON = Path(__file__).with_name("lexicon.csv")

# Swahili concords before a consonant and before e-, the only vowel our stems begin with (class 6: ma + e = me).
CONCORD = {"3": ("m", "mw"), "4": ("mi", "my"), "5": ("", "j"), "6": ("ma", "m"), "9": ("", "ny"), "10": ("", "ny")}
GENITIVE = {"3": "wa", "4": "ya", "5": "la", "6": "ya", "9": "ya", "10": "za"}
NASAL = {"d": "nd", "w": "mb"}  # the n- of classes 9 and 10 before these; lost before k, m, t
STRONG = {"m": "er", "f": "e", "n": "es", "plural": "e"}  # German nominative after ein, and without article in the plural


@dataclass(frozen=True)
class Scene:
    """One picture in words: `count` equal shapes at a place; `jitter` ≥ 0 seeds what no caption says.

    Raises `CorpusError` for a value that is none of `SHAPES`, `COLOURS`, `SIZES`, 1–3, `PLACES`.
    """

    shape: str
    colour: str
    size: str
    count: int
    place: str
    jitter: int = 0

    def __post_init__(self):
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise CorpusError(f"scene: {name} {getattr(self, name)!r} is none of {', '.join(map(str, allowed))}")
        if self.jitter < 0:
            raise CorpusError(f"scene: jitter {self.jitter} is negative; it is a whole number from 0")

    @property
    def labels(self) -> dict:
        """What the caption says, without the jitter."""
        return {name: getattr(self, name) for name in CHOICES}

    @property
    def composition(self) -> int:
        """The place of the five attributes in `EVERY`."""
        return EVERY.index(tuple(self.labels.values()))

    @property
    def number(self) -> int:
        """`composition + COMPOSITIONS · jitter`; `describe` is the inverse."""
        return self.composition + COMPOSITIONS * self.jitter


def describe(number: int) -> Scene:
    """The scene of a number ≥ 0, the inverse of `Scene.number`. Raises `CorpusError` for a negative number."""
    if number < 0:
        raise CorpusError(f"scene:{number}: a scene number is a whole number from 0")
    jitter, composition = divmod(number, COMPOSITIONS)
    return Scene(*EVERY[composition], jitter)


@dataclass(frozen=True)
class Word:
    """One row of the lexicon. `kind` is the column class: gender, noun class, or how the word is used."""

    kind: str
    form: str
    feminine: str
    plural: str
    gloss: str
    reviewer: str

    def number(self, agreement: str) -> str:
        return self.plural if agreement == "plural" and self.plural else self.form


@cache
def lexicon() -> dict[str, dict[str, Word]]:
    """`{language: {concept: Word}}` from `lexicon.csv`."""
    words: dict[str, dict[str, Word]] = {}
    for row in csv_rows(LEXICON):
        fields = (row[name] for name in ("class", "form", "feminine", "plural", "gloss", "reviewer"))
        words.setdefault(row["lang"], {})[row["concept"]] = Word(*fields)
    return words


def check_languages(languages=None) -> list[str]:
    """The languages asked for, or all; raises `CorpusError` that lists what there is for one we do not speak."""
    have = list(lexicon())
    wanted = have if languages is None else [languages] if isinstance(languages, str) else list(languages)
    for lang in wanted:
        if lang not in have:
            raise CorpusError(f"scenes: no grammar for language {lang!r}; there are {', '.join(have)}")
    return wanted


def agreement(lang: str, noun: Word, count: int) -> str:
    """What the words around `noun` agree with: a Swahili class '3', a gender 'f', 'singular' or 'plural'."""
    if lang == "swh_Latn":
        return noun.kind.split("/")[count > 1]
    if count > 1:
        return "plural"
    return noun.kind if lang in ("deu_Latn", "hau_Latn") else "singular"


def _german(word: Word, agrees: str) -> str:
    if word.kind == "adjective":
        return word.form + STRONG[agrees]
    return word.feminine if word.feminine and agrees == "f" else word.number(agrees)


def _swahili(word: Word, agrees: str) -> str:
    if word.kind == "genitive":
        return f"{GENITIVE[agrees]} {word.form}"
    if not word.form.startswith("-"):
        return word.plural if word.plural and agrees in ("4", "6", "10") else word.form
    stem = word.form[1:]
    if agrees in ("9", "10") and stem[0] in NASAL:
        return NASAL[stem[0]] + stem[1:]
    return CONCORD[agrees][stem[0] == "e"] + stem


def _hausa(word: Word, agrees: str) -> str:
    if word.kind != "adjective":
        return word.number(agrees)
    if agrees == "f":
        return word.feminine + "r"
    return word.number(agrees) + "n"


def _sinhala(word: Word, agrees: str) -> str:
    indefinite = word.kind == "inanimate" and agrees == "singular"
    return word.form + lexicon()["sin_Sinh"]["one"].form[1:] if indefinite else word.number(agrees)


def _quechua(word: Word, agrees: str) -> str:
    return word.form + "pi" if word.kind == "place" else word.form


def inflect(lang: str, concept: str, agrees: str) -> str:
    """The form of a concept's word that agrees: `inflect('swh_Latn', 'red', '3')` is 'mwekundu'."""
    rules = {"deu_Latn": _german, "swh_Latn": _swahili, "hau_Latn": _hausa, "sin_Sinh": _sinhala, "que_Latn": _quechua}
    return rules.get(lang, Word.number)(lexicon()[lang][concept], agrees)


def _parts(scene: Scene, lang: str) -> dict[str, str]:
    """The words of a caption by what they say, each in its agreeing form."""
    agrees = agreement(lang, lexicon()[lang][scene.shape], scene.count)
    concepts = {name: getattr(scene, name) for name in ("shape", "colour", "size", "place")}
    concepts["count"] = NUMBERS[scene.count - 1]
    return {name: inflect(lang, concept, agrees) for name, concept in concepts.items()}


def caption(scene: Scene, lang: str) -> str:
    """What the picture shows, as a noun phrase with a place: 'two small red hearts on the left'.

    Raises `CorpusError` for a language without a grammar.
    """
    check_languages([lang])
    part = _parts(scene, lang)
    is_phrase = lexicon()[lang][scene.colour].kind in ("genitive", "phrase")
    adjective, phrase = ("", part["colour"]) if is_phrase else (part["colour"], "")
    if lang == "swh_Latn":
        words = part["shape"], part["size"], adjective, part["count"], phrase, part["place"]
    elif lang == "hau_Latn":
        noun, _, of = part["shape"].partition(" ")  # the numeral stands next to the noun: siffofi biyu masu kusurwa uku
        words = part["size"], adjective, noun, part["count"], of, phrase, part["place"]
    elif lang == "sin_Sinh":
        number = part["count"] if scene.count > 1 else ""  # one is the ending of the noun
        words = part["place"], part["size"], adjective, part["shape"], number
    elif lang == "que_Latn":
        words = part["place"], part["count"], part["size"], adjective, part["shape"]
    else:
        words = part["count"], part["size"], adjective, part["shape"], part["place"]
    return " ".join(word for word in words if word)


def forms(lang: str) -> list[tuple[str, str, str]]:
    """Every word form that a caption can hold: `(concept, what it agrees with, form)`, each once."""
    check_languages([lang])
    found = {}
    for shape, count in product(SHAPES, CHOICES["count"]):
        agrees = agreement(lang, lexicon()[lang][shape], count)
        for concept in (shape, *COLOURS, *SIZES, NUMBERS[count - 1], *PLACES):
            if (lang, concept) != ("sin_Sinh", "one"):
                found.setdefault((concept, inflect(lang, concept, agrees)), []).append(agrees)
    return [(concept, ", ".join(dict.fromkeys(agrees)), form) for (concept, form), agrees in found.items()]


def reviewed(lang: str) -> str | None:
    """Who signed the language's words in the lexicon: 'A. Name', several joined by commas; None unless every row is signed."""
    check_languages([lang])
    names = [word.reviewer.strip() for word in lexicon()[lang].values()]
    return ", ".join(dict.fromkeys(names)) if all(names) else None


def badge(lang: str) -> str:
    """'reviewed by …' or 'unreviewed'."""
    name = reviewed(lang)
    return f"reviewed by {name}" if name else "unreviewed"
