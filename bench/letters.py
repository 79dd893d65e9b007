"""Letters that a reader's machine may lack: of each script on the pages a font with just the characters in use, inlined."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
import unicodedata
from collections import defaultdict

KNOWN = ("LATIN", "GREEK", "CYRILLIC")  # in every system's own fonts
JOINERS = "\u200c\u200d\u25cc"  # a run of Sinhala letters must not be cut at a joiner
CREDIT = """
Letters: {}. Copyright the Noto project's authors (https://github.com/notofonts), subsets under the SIL Open Font License 1.1
(https://openfontlicense.org).
"""


def scripts(text: str) -> dict[str, str]:
    """`{script: its characters in text}`, "Sinhala" and so on: the first word of the characters' Unicode names."""
    found = defaultdict(set)
    for sign in set(text):
        if ord(sign) > 0x24F and unicodedata.category(sign)[0] in "LM" and (name := unicodedata.name(sign, "")):
            found[name.split()[0].split("-")[0]].add(sign)
    return {script.title(): "".join(sorted(signs)) for script, signs in found.items() if script not in KNOWN}


def faces(text: str) -> tuple[str, str]:
    """CSS @font-face rules for the scripts of `text`, as WOFF, and the fonts' attribution; both '' where there is none.

    All are named "Noto Sans", each for the code points of its own, so that any list of fonts with that name has them.
    A script without an installed Noto Sans is left to the reader's machine, as is all where fontTools or fc-list is missing.
    """
    rules, used = [], []
    for script, signs in sorted(scripts(text).items()):
        if path := _installed(f"Noto Sans {script}"):
            coded = base64.b64encode(_subset(path, signs + JOINERS)).decode()
            reach = ", ".join(f"U+{ord(sign):X}" for sign in signs + JOINERS)
            source = f'url("data:font/woff;base64,{coded}") format("woff")'
            rules.append(f'@font-face {{font-family: "Noto Sans"; src: {source}; unicode-range: {reach}}}')
            used.append(f"Noto Sans {script}")
    return "\n".join(rules), CREDIT.format(", ".join(used)) if used else ""


def _installed(family: str) -> str:
    """The file of a font family's regular face; '' if it, fc-list or fontTools is not there."""
    try:
        import fontTools  # noqa: F401
    except ImportError:
        return ""
    if not shutil.which("fc-list"):
        return ""
    listed = subprocess.run(["fc-list", f"{family}:style=Regular", "file"], capture_output=True, text=True, check=False).stdout
    files = re.findall(r"^(.+\.[ot]tf): *$", listed, re.M)
    return min(files, key=len, default="")


def _subset(path: str, signs: str) -> bytes:
    from fontTools import subset
    from fontTools.ttLib import TTFont

    options = subset.Options(flavor="woff", layout_features=["*"], hinting=False, drop_tables=["meta"])
    font, file = TTFont(path), io.BytesIO()
    cutter = subset.Subsetter(options)
    cutter.populate(text=signs)
    cutter.subset(font)
    subset.save_font(font, file, options)
    return file.getvalue()
