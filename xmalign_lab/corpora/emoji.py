"""Emoji: pictures of several vendors with the names and keywords that CLDR's people wrote in a hundred languages.

Names and keywords: Unicode CLDR annotations (Unicode-3.0). Pictures: Noto (OFL, Apache) and Twemoji (CC-BY 4.0) as the
emoji-datasource packages cut them, 64 px; OpenMoji (CC BY-SA 4.0) as SVG. `data/emoji.toml` gives the attributions.

Gender, hair, skin and direction variants of one emoji are near-copies in picture and name, so they form one family
(`family`); `emoji_families.csv` joins by hand what the code points do not tell: a reviewed list of pairs that are one
thing, one picture turned or mirrored, or closer than .06 in mean colour difference at 32 × 32 pixels in a vendor.

A language counts as named if, of all emoji (skin tones included) that Google and Twitter both drew, one of CLDR's annotation
locales (`und` is none) names more than `WELL_NAMED`: has a "tts" that is not empty, in the plain or in the derived file.
Locales that `languages.normalise` takes to one code count once; a second script or region has a code, and counts, of its own.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from functools import cache
from pathlib import Path

import pandas as pd

from xmalign_lab import languages as codes
from xmalign_lab import profile
from xmalign_lab.corpora import npm
from xmalign_lab.corpus import Corpus, CorpusError

PACKAGES = {"google": "emoji-datasource-google", "twitter": "emoji-datasource-twitter", "openmoji": "openmoji"}
ANNOTATIONS = (("cldr-annotations-full", "annotations"), ("cldr-annotations-derived-full", "annotationsDerived"))
DIRECTION = re.compile("-200D-27A1(-FE0F)?")
PEOPLE = {"1F468", "1F469", "1F9D1", "1F466", "1F467", "1F9D2"}
VARIANTS = {"200D", "FE0F", "2640", "2642", *PEOPLE, *(f"1F3F{n}" for n in "BCDEF"), *(f"1F9B{n}" for n in "0123")}
WELL_NAMED = 3_000
PARTS = {
    "cldr-annotations-full": ("annotations",),
    "cldr-annotations-derived-full": ("annotationsDerived",),
    "emoji-datasource-google": ("emoji.json", "img/google/64"),
    "emoji-datasource-twitter": ("emoji.json", "img/twitter/64"),
    "openmoji": ("color/svg", "data/openmoji.json"),
}


def characters(unified: str) -> str:
    """The emoji of its code points: '1F3F3-FE0F' → '🏳️'."""
    return "".join(chr(int(point, 16)) for point in unified.split("-"))


def family_by_rule(unified: str) -> str:
    """What is left of the code points without direction, joiners, skin, gender, hair and the plain person; else 'person'."""
    left = [point for point in DIRECTION.sub("", unified).split("-") if point not in VARIANTS]
    return "-".join(left) or "person"


@cache
def _joined() -> dict[str, str]:
    """The families of the rule that the reviewed list joins, each by the last of its class in order of name."""
    classes: dict[str, set[str]] = {}
    for row in profile.csv_rows(Path(__file__).with_name("emoji_families.csv")):
        a, b = family_by_rule(row["a"]), family_by_rule(row["b"])
        both = classes.get(a, {a}) | classes.get(b, {b})
        classes.update(dict.fromkeys(both, both))
    return {name: max(members) for name, members in classes.items()}


def family(unified: str) -> str:
    """The family of an emoji, by the rule and then the reviewed list. No split divides it."""
    by_rule = family_by_rule(unified)
    return _joined().get(by_rule, by_rule)


def folder(root: str | Path | None = None) -> Path:
    """Where the packages lie: `ROOT/emoji/node_modules`, by default under `profile.data_root()`."""
    return (Path(root) if root else profile.data_root()) / "emoji" / "node_modules"


def fetch(root: str | Path | None = None, openmoji: bool = False) -> Path:
    """Fetch the packages that `data/package.json` pins: 147 MB, of which 195 MB stay unpacked; OpenMoji adds 23 MB.

    They are checked against the card's checksums. Does nothing if they are there. Raises `CorpusError`, in one line, if npm
    or the network is missing.
    """
    from xmalign_lab.corpora import cards

    pinned = _read(profile.repository() / "data" / "package.json")
    versions = pinned["dependencies"] | pinned["optionalDependencies"]
    parts = {package: kept for package, kept in PARTS.items() if openmoji or package != "openmoji"}
    return npm.fetch(folder(root), versions, parts, cards()["emoji"]["checksums"])


def missing(root: str | Path | None = None) -> str:
    """What is missing for loading names and the Google and Twitter pictures, in words; '' if nothing is."""
    for package in (*(name for name, _ in ANNOTATIONS), PACKAGES["google"], PACKAGES["twitter"]):
        if not (folder(root) / package / "package.json").is_file():
            return f"{folder(root) / package} is not there"
    return ""


def _read(path: Path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CorpusError(f"{path} is not there; run: xmalign fetch emoji") from None
    except ValueError as error:
        raise CorpusError(f"{path} is damaged ({error}); run: xmalign fetch emoji") from None


def _pictured(root, vendors: tuple[str, ...], skin_tones: bool) -> list[dict]:
    """Every emoji that all of `vendors` (Google and Twitter among them counted) have drawn, with its category."""
    drawn = [vendor for vendor in vendors if vendor != "openmoji"] or ["google", "twitter"]
    found = []
    for entry in _read(folder(root) / PACKAGES[drawn[0]] / "emoji.json"):
        shapes = [entry, *(entry.get("skin_variations") or {}).values()] if skin_tones else [entry]
        for shape in shapes:
            if all(shape.get(f"has_img_{vendor}") for vendor in drawn):
                found.append({**{key: entry[key] for key in ("category", "subcategory")}, **shape})
    return found


@cache
def _locales(root: Path) -> dict[str, str]:
    """`{project code: CLDR's folder}` for the locales that are languages (`und` is none)."""
    names = sorted(path.name for path in (root / ANNOTATIONS[0][0] / ANNOTATIONS[0][1]).iterdir() if path.is_dir())
    named = {}
    for name in names:
        if name != "und":
            named.setdefault(codes.normalise(name), name)
    return named


def annotations(code: str, root: str | Path | None = None) -> dict[str, dict]:
    """CLDR's `{emoji: {"tts": [name], "default": keywords}}` of one language, plain and derived together."""
    locale = _locales(folder(root)).get(codes.normalise(code))
    if locale is None:
        raise CorpusError(f"CLDR names no emoji in {code!r}; it has {', '.join(sorted(_locales(folder(root))))}")
    found = {}
    for package, key in ANNOTATIONS:
        path = folder(root) / package / key / locale / "annotations.json"
        if path.is_file():  # a few locales have no derived names, and a few files no names at all
            found |= _read(path).get(key, {}).get("annotations", {})
    return found


def _texts(unified: str, names: dict[str, dict]) -> tuple[str, str]:
    """Name and joined keywords of an emoji, NFC, '' where CLDR lacks them; keys may or may not carry U+FE0F."""
    sign = characters(unified)
    entry = names.get(sign) or names.get(sign.replace("\ufe0f", "")) or {}
    name, keywords = " ".join(entry.get("tts", ())), ", ".join(entry.get("default", ()))
    return unicodedata.normalize("NFC", name).strip(), unicodedata.normalize("NFC", keywords).strip()


def naming(root: str | Path | None = None) -> pd.DataFrame:
    """`lang, names`: how many emoji, skin tones included, that Google and Twitter both drew each code names, most first."""
    signs = [entry["unified"] for entry in _pictured(root, ("google", "twitter"), True)]
    rows = []
    for code in _locales(folder(root)):
        names = annotations(code, root)
        rows.append((code, sum(bool(_texts(sign, names)[0]) for sign in signs)))
    return pd.DataFrame(rows, columns=["lang", "names"]).sort_values("names", ascending=False, ignore_index=True)


def load(
    languages: list[str] | None = None,
    root: str | Path | None = None,
    vendors: tuple[str, ...] = ("google", "twitter"),
    skin_tones: bool = False,
) -> Corpus:
    """Emoji as a corpus: an image row per vendor, and per language a row for the name and one for the keywords.

    `languages` as codes or what `languages.normalise` accepts; None means every one that names more than
    `WELL_NAMED` emoji, as the top of this file counts. `group` is the emoji's code points, `family` see `family`. A language
    that lacks a name has no row.
    Raises `CorpusError` where data are missing, or a language or vendor is unknown.
    """
    lacking = missing(root)
    if lacking:
        raise CorpusError(f"{lacking}; run: xmalign fetch emoji   (or go on with load('scenes'))")
    unknown = set(vendors) - set(PACKAGES)
    if unknown or not vendors:
        raise CorpusError(f"unknown vendor {', '.join(sorted(unknown)) or '(none)'}; known are {', '.join(PACKAGES)}")
    if languages is None:
        named = naming(root)
        languages = list(named.lang[named.names > WELL_NAMED])
    try:
        languages = list(dict.fromkeys(codes.normalise(code) for code in languages))
    except ValueError as error:
        raise CorpusError(str(error)) from None
    shown = _pictured(root, tuple(vendors), skin_tones)
    columns = ["id", "group", "family", "modality", "lang", "text", "image", "kind", "source", "labels"]
    rows: list[tuple] = []

    def add(entry, row_id, modality, lang, text, image, kind, source):
        labels = {"category": entry["category"], "subcategory": entry["subcategory"]}
        group = entry["unified"]
        rows.append((f"{group}:{row_id}", group, family(group), modality, lang, text, image, kind, source, labels))

    for vendor in vendors:
        for entry, path in _pictures(root, vendor, shown):
            add(entry, vendor, "image", "", "", path, "picture", vendor)
    for lang in languages:
        names = annotations(lang, root)
        for entry in shown:
            for kind, text in zip(("name", "keywords"), _texts(entry["unified"], names), strict=True):
                if text:
                    add(entry, f"{lang}:{kind}", "text", lang, text, "", kind, "cldr")
    return Corpus(pd.DataFrame(rows, columns=columns), name="emoji", where=str(folder(root)))


def _pictures(root, vendor: str, shown: list[dict]) -> list[tuple[dict, str]]:
    """Each emoji with the path of its 64 px picture."""
    if vendor == "openmoji":
        return _drawn(root, shown)
    where = folder(root) / PACKAGES[vendor] / "img" / vendor / "64"
    there = {path.name for path in where.iterdir()} if where.is_dir() else set()
    for entry in shown:
        if entry["image"] not in there:
            raise CorpusError(f"{where / entry['image']} is not there; run: xmalign fetch emoji")
    return [(entry, str(where / entry["image"])) for entry in shown]


def _drawn(root, shown: list[dict]) -> list[tuple[dict, str]]:
    """OpenMoji's SVGs drawn at 64 px, once, beside the packages; an emoji that OpenMoji lacks is left out."""
    from tqdm.auto import tqdm

    source, kept = folder(root) / "openmoji" / "color" / "svg", folder(root).parent / "openmoji-64"
    if not source.is_dir():
        raise CorpusError(f"{source} is not there; run: xmalign_lab.corpora.emoji.fetch(openmoji=True)")
    svgs = {path.stem: path for path in source.glob("*.svg")}
    found = [(entry, svgs.get(entry["unified"]) or svgs.get(entry["unified"].replace("-FE0F", ""))) for entry in shown]
    found = [(entry, svg, kept / f"{svg.stem}.png") for entry, svg in found if svg]
    waiting = [(svg, png) for _, svg, png in found if not png.is_file()]
    if waiting:
        try:
            import resvg_py
        except ImportError:
            raise CorpusError("OpenMoji is drawn from SVG by resvg-py, which is not installed: pip install resvg-py") from None
        kept.mkdir(exist_ok=True)
        for svg, png in tqdm(waiting, desc="drawing OpenMoji"):
            part = png.with_suffix(f".{os.getpid()}")  # renamed when whole, so that a killed run leaves no half picture
            part.write_bytes(bytes(resvg_py.svg_to_bytes(svg_path=str(svg), width=64, height=64)))
            os.replace(part, png)
    return [(entry, str(png)) for entry, _, png in found]
