"""What goes wrong in real machine translation, counted: the rates behind `pairs.noise.TRANSLATION`.

    python bench/mt_noise.py FOLDER      # with vatexval_zh.caption.txt and vatexval_google_enc2zh.caption.txt (MLCMR)

VATEX has five Chinese captions per video that people translated from English captions 5 to 9, and a machine's of the same
ones. A machine caption counts once, as the first of: copied (a Latin word that the human's lacks), hub (word for word the
caption of another video too), truncated (under half as long as the human's), wrong sense (shares no more characters with
the human's than half of all captions of two different videos do). What people do as often against the machine's is taken
off, except for the last: sharing is mutual.
"""

from __future__ import annotations

import re
import statistics
import sys
from collections import Counter
from pathlib import Path

KINDS = ("copied", "hub", "truncated", "wrong sense")


def captions(path: Path) -> dict[str, str]:
    """`{video#number: caption}`."""
    rows = (line.split(" ", 1) for line in path.read_text(encoding="utf-8").split("\n") if " " in line)
    return {re.sub(r"#\w+#", "#", key): text.strip() for key, text in rows}


def overlap(a: str, b: str) -> float:
    """The share of characters, counted with repeats, that two texts have in common."""
    return 2 * sum((Counter(a) & Counter(b)).values()) / (len(a) + len(b))


def shares(judged: dict[str, str], reference: dict[str, str]) -> dict[str, float]:
    """The share of `judged` captions that fall under each kind, against `reference` captions of the same keys."""
    keys = [key for key in judged if key in reference and int(key.rsplit("#", 1)[1]) >= 5]
    videos = Counter(text for text, _ in {(judged[key], key.rsplit("#", 1)[0]) for key in keys})
    counts = Counter()
    chance = statistics.median(overlap(judged[a], reference[b]) for a, b in zip(keys, keys[5:], strict=False))
    for key in keys:
        own, other = judged[key], reference[key]
        tests = (
            bool(set(re.findall("[A-Za-z]{2,}", own.lower())) - set(re.findall("[A-Za-z]{2,}", other.lower()))),
            videos[own] > 1,
            len(own) < len(other) / 2,
            overlap(own, other) <= chance,
        )
        counts[next((kind for kind, true in zip(KINDS, tests, strict=True) if true), "right")] += 1
    return {kind: counts[kind] / len(keys) for kind in KINDS}


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    folder = Path(sys.argv[1])
    human = captions(folder / "vatexval_zh.caption.txt")
    machine = captions(folder / "vatexval_google_enc2zh.caption.txt")
    of_machine, of_human = shares(machine, human), shares(human, machine)
    excess = {kind: max(0.0, of_machine[kind] - (kind != "wrong sense") * of_human[kind]) for kind in KINDS}
    total = sum(excess.values())
    for kind in KINDS:
        share = excess[kind] / total
        print(f"{kind:12} machine {of_machine[kind]:.4f}, human {of_human[kind]:.4f}, share of the excess {share:.2f}")


if __name__ == "__main__":
    main()
