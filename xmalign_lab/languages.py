"""One code system for languages, with script, family and resource tier.

A code is an ISO 639-3 language and an ISO 15924 script as FLORES-200 writes them, `swh_Latn`; a source that
separates regions adds one, `por_Latn_PT`. Where a source means a macrolanguage the code says so: CLDR's `qu` is
`que_Latn`, not FLORES's Ayacucho Quechua `quy_Latn`.

The table is `languages.csv`: code, name, script, family (Glottolog's top family; creoles stand with the language that
gave their words), tier and the other codes that sources use. The tier follows the classes of Joshi et al. (2020, "The
State and Fate of Linguistic Diversity and Inclusion in the NLP World", ACL): 5–4 high, 3 middle, 2–0 low, as is a
language that their list lacks. They class languages, not scripts; both kinds of Norwegian stand low in their list.

A language that the table lacks has a code for private use, from `qaa` to `qtz` as ISO 639-3 keeps them free: `qaa_Latn`.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from xmalign_lab.profile import csv_rows

CODE = re.compile(r"([a-z]{3}_[A-Z][a-z]{3})((?:_(?:[A-Z]{2}|[0-9]{3}))?(?:_[a-z0-9]{5,8})?)")
WRITTEN = re.compile(
    "(?P<language>[a-z]{2,3})(_(?P<script>[a-z]{4}))?(_(?P<region>[a-z]{2}|[0-9]{3}))?(_(?P<variant>[a-z0-9]{5,8}))?"
)
PRIVATE = re.compile(r"q[a-t][a-z]_[A-Z][a-z]{3}")
TRADITIONAL = {"tw", "hk", "mo"}


@dataclass(frozen=True)
class Language:
    """One language: its code, English name, ISO 15924 script, top family, and tier 'high', 'middle' or 'low'."""

    code: str
    name: str
    script: str
    family: str
    tier: str


@cache
def _table() -> tuple[dict[str, Language], dict[str, str]]:
    """Languages by code, and every other way of writing one, in lower case, by code."""
    by_code, written = {}, {}
    for row in csv_rows(Path(__file__).with_name("languages.csv")):
        code = row["code"]
        by_code[code] = Language(code, row["name"], row["script"], row["family"], row["tier"])
        for alias in (code, code[:3], row["name"], *row["aliases"].split()):
            written.setdefault(alias.lower().replace("-", "_"), code)
    return by_code, written


def known(code: str) -> bool:
    """Whether `code` is one of the project's codes, with or without a region: `swh_Latn`, `por_Latn_PT`, `qaa_Latn`; not `sw`."""
    match = CODE.fullmatch(code) if isinstance(code, str) else None
    return bool(match) and (match[1] in _table()[0] or bool(PRIVATE.fullmatch(match[1])))


def suggestion(code: str) -> str:
    """What to write instead of `code`: the project's code for it, else the nearest ones, else how codes look."""
    try:
        return f"did you mean {normalise(code)!r}?"
    except ValueError as error:
        return str(error).split("; ", 1)[1]


def normalise(code: str) -> str:
    """The project's code for what readers meet: 'sw', 'SWA', 'jp', 'ara-Arab', 'pt-PT', 'zh-Hant', 'javanese'.

    Raises ValueError, naming near codes, for a language the table lacks.
    """
    if known(code):
        return code
    by_code, written = _table()
    plain = str(code).strip().lower().replace("-", "_")
    if plain in written:
        return written[plain]
    match = WRITTEN.fullmatch(plain)
    found = written.get(match["language"]) if match else None
    if found:
        script, region = match["script"], match["region"]
        if found.startswith("zho") and region in TRADITIONAL:
            script = script or "Hant"
        base = f"{found[:3]}_{script.title()}" if script else found
        if base in by_code:
            return "_".join(part for part in (base, region and region.upper(), match["variant"]) if part)
    raise ValueError(f"unknown language code {code!r}; {_nearest(plain)}")


def _nearest(plain: str) -> str:
    """The codes whose code, alias or name resembles `plain`."""
    by_code, written = _table()
    names = difflib.get_close_matches(plain, written, n=3, cutoff=0.75)
    same_language = [code for code in by_code if code[:3].lower() == plain[:3]]
    codes = same_language or list(dict.fromkeys(written[name] for name in names))
    if codes:
        return "did you mean " + " or ".join(f"{code!r} ({by_code[code].name})" for code in codes) + "?"
    return "codes look like 'swh_Latn': ISO 639-3, underscore, script; `xmalign languages` lists them; a new one: 'qaa_Latn'"


def info(code: str) -> Language:
    """The language of a code (a region does not change it); the code is normalised first. Raises ValueError."""
    base = CODE.fullmatch(normalise(code))[1]
    return _table()[0].get(base) or Language(base, base, base[4:], "unknown", "low")


def all_languages() -> list[Language]:
    """Every language of the table, by code."""
    return [language for _, language in sorted(_table()[0].items())]
