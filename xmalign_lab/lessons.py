"""A notebook as a lesson: guesses before the answer is shown, check questions that mark themselves, and a sheet to hand in.

The questions stand in the notebooks, their answers in `docs/teaching/key.md`. `seal` makes `lessons.json` of that key: of each
answer a salted hash, and the reason why it is right scrambled with the answer itself, so that neither can be read beside the
question. A few letters can be tried out by anyone who wants to: this is a curtain, no lock. What depends on the run is computed
from the run, by `FROM_RUN`. Guesses and answers are kept in `folder()`, from one notebook to the next.
"""

from __future__ import annotations

import ast
import hashlib
import html
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from xmalign_lab import dials, profile, style

SEALED = Path(__file__).with_suffix(".json")
MARKS = {"right": ("✓", "#009E73"), "wrong": ("✗", style.ORANGE), "": ("…", style.QUIET)}
CLOSE = 0.02  # an answer that depends on the run may be off by this share of it, for the rounding
FROM_RUN: dict[str, Callable] = {
    "00-3": lambda asked: (asked["rank"] <= 10).mean(),
    "01-3": lambda fold: fold.group.nunique(),
    "02-3": lambda cosines: (cosines > 0.5).mean(),
    "03-3": lambda beliefs: (beliefs >= 0.5).mean(),
    "04-3": lambda similarities: dials.softmax(similarities, 0.2)[1],
    "05-3": lambda steps: (steps.total < steps.total.iloc[0] / 2).mean(),
    "06-3": lambda scores: scores["rank"][scores.lang == "swh_Latn"].median(),
    "14-3": lambda reached, guess: reached / guess,
    "15-3": lambda dealt: dealt.luck.iloc[-1] - dealt.luck.iloc[1],
}


@dataclass(frozen=True)
class Reply:
    """What a cell says to a guess or an answer; `verdict` is "right", "wrong" or "" (neither, or not answered yet)."""

    text: str
    verdict: str = ""

    def __str__(self) -> str:
        return f"{MARKS[self.verdict][0]} {self.text}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        mark, colour = MARKS[self.verdict]
        frame = f"border-left:5px solid {colour};padding:2px 12px;max-width:52em;overflow-wrap:anywhere"
        return f'<div style="{frame}"><b style="color:{colour}">{mark}</b> {html.escape(self.text)}</div>'


def folder() -> Path:
    """Where guesses and answers are kept: `XMALIGN_LESSONS`, else `lessons/` in the data root, which `make clean` spares."""
    given = os.environ.get("XMALIGN_LESSONS")
    return Path(given).expanduser().resolve() if given else profile.data_root() / "lessons"


def forget() -> None:
    """Drop all guesses and answers, for the next student at this account. What `report` wrote to hand in stays."""
    (folder() / "mine.json").unlink(missing_ok=True)


def file_name(name: str) -> str:
    """`name` as the name of a JSON file that no file system reads as a path. Raises `ValueError` where nothing is left."""
    short = re.sub(r'[\\/:*?"<>|.\s]+', "-", name).strip("-")
    if short.casefold() in ("", "mine"):
        raise ValueError(f"{name!r} cannot name a file to hand in: write your own name")
    return f"{short}.json"


def predict(name: str, guess=...) -> Reply:
    """Keep a guess, a number or a few words, until `reveal(name, truth)`. `...` is none yet, and drops one already revealed."""
    if guess is ... or guess is None:
        if "truth" in _kept()["predictions"].get(name, {}):
            _keep("predictions", name, {})
        return Reply("No guess yet: write one in place of the dots, and run the cell again. Nobody marks it.")
    _keep("predictions", name, {"guess": _plain(guess)})
    return Reply(f"Kept: {guess}. Now look.")


def reveal(name: str, truth) -> Reply:
    """Set the guess that `predict(name, …)` kept beside the truth, a number or a text."""
    guess, shown = _kept()["predictions"].get(name, {}).get("guess"), _shown(truth)
    if guess is None:
        return Reply(f"It is {shown}.")
    _keep("predictions", name, {"guess": guess, "truth": _plain(truth)})
    start, value = f"You guessed {guess}, and it is {shown}", _number(guess)
    if isinstance(truth, str) or value is None:
        same = _word(guess) == _word(truth)
        return Reply(f"{start}{', as you said' if same else ': what made you expect the other?'}", "right" if same else "")
    off = value - float(truth)
    if abs(off) <= 0.1 * abs(float(truth)):
        return Reply(f"{start}: close.", "right")
    return Reply(f"{start}: too {'high' if off > 0 else 'low'} by {_shown(abs(off))}. What did you not reckon with?")


def grade(question: str, answer, *measured) -> Reply:
    """Mark `answer` and keep it. `measured` is what the run must tell for a question of `FROM_RUN`.

    Numbers may be written as 0.25, "25 %" or "0,25"; letters in either case, as "B", "(b)" or "B. and what follows".
    `...` is not answered yet, and is not kept. An answer of the wrong sort is told so, never raised, and costs no try.
    Raises `ValueError` for a question that the key lacks.
    """
    if question not in sealed():
        raise ValueError(f"no question {question!r} in the key; it has {', '.join(sealed())}")
    if answer is ...:
        return Reply(f"{question}: not answered yet. Write your answer in place of the dots and run the cell again.")
    known, before = sealed()[question], _kept()["answers"].get(question, {"tries": 0})
    if known["sort"] == "word":
        letter = re.fullmatch(r"\(?([A-Za-z])(?:[).:].*)?", str(_single(answer)).strip(), re.S)
        if not letter:
            return Reply(f'{question}: a letter is asked for, such as "A", and {answer!r} is none.')
        answer = letter[1].upper()
    elif _number(answer) is None:
        return Reply(f"{question}: a number is asked for, such as 0.25 or 25 %, and {answer!r} is none.")
    right, why = _judged(question, answer, *measured)
    tries = before["tries"] + (_plain(answer) != before.get("answer"))  # the cell run again is no try
    _keep("answers", question, {"answer": _plain(answer), "right": right, "tries": tries})
    return Reply(f"{question}: right. {why}", "right") if right else Reply(f"{question}: not yet. {known['hint']}", "wrong")


def _judged(question: str, answer, *measured) -> tuple[bool, str]:
    """Whether the answer is right, and then why."""
    known = sealed()[question]
    if known["sort"] == "run":
        truth = float(FROM_RUN[question](*measured))
        return abs(_number(answer) - truth) <= max(CLOSE * abs(truth), _rounding(answer)) + 1e-9, known["why"]
    for form in _forms(answer, known["digits"]):
        if _hash(question, form) == known["key"]:
            return True, _scrambled(bytes.fromhex(known["why"]), question, form).decode()
    return False, ""


def report(name: str = "") -> pd.DataFrame:
    """A row per question of the key: answered, right, tries. With a `name`, `NAME.json` in `folder()` is written to hand in."""
    kept = _kept()
    if name:
        folder().mkdir(parents=True, exist_ok=True)
        path = folder() / file_name(name)
        path.write_text(json.dumps({"name": name} | kept, ensure_ascii=False, indent=1), encoding="utf-8")
        print(f"to hand in: {path}")
    rows = {question: kept["answers"].get(question, {}) for question in sealed()}
    table = {q: {"answered": bool(a), "right": a.get("right", False), "tries": a.get("tries", 0)} for q, a in rows.items()}
    return pd.DataFrame(table).T.rename_axis("question")


def collect(handed_in: str | Path) -> pd.DataFrame:
    """A row per student: ✓, ✗ or '' for each question, and how many are right, from a folder of what `report` wrote.

    What has one answer is marked again here; what depends on a run was marked where it ran, and is believed. A file that is no
    report raises `ValueError` with its name.
    """
    rows = {}
    for path in sorted(Path(handed_in).glob("*.json")):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            name, answers = told["name"], told["answers"]
            marks = {q: a["right"] if sealed()[q]["sort"] == "run" else _judged(q, a["answer"])[0] for q, a in answers.items()}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: no report of `lessons.report(name)` ({error!r})") from None
        rows[f"{name} ({path.name})" if name in rows else name] = {q: "✓" if right else "✗" for q, right in marks.items()}
    table = pd.DataFrame(rows, index=list(sealed())).T.fillna("").rename_axis("student")
    return table.assign(right=(table == "✓").sum(axis=1))


def seal(key: str | Path, to: Path = SEALED) -> dict[str, dict]:
    """Make `lessons.json` from the rows `| 00-1 | `answer` | hint | why |` of the key, and return what it holds.

    An answer is Python: a number, asked to as many decimals as it is written with; a text; or an expression over the run,
    which only tells the teacher and stands as a function in `FROM_RUN`.
    """
    made = {}
    for question, answer, hint, why in key_rows(key):
        facts = {"sort": "run", "digits": 0, "key": "", "hint": hint, "why": why}
        try:
            value = ast.literal_eval(answer)
        except (ValueError, SyntaxError):
            if question not in FROM_RUN:
                raise ValueError(f"{key}: {question} is answered by {answer!r}, which needs a function in FROM_RUN") from None
        else:
            facts |= {"sort": "word" if isinstance(value, str) else "number", "digits": len(answer.partition(".")[2])}
            form = _forms(value, facts["digits"])[0]
            facts |= {"key": _hash(question, form), "why": _scrambled(why.encode(), question, form).hex()}
        made[question] = facts
    to.write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    sealed.cache_clear()
    return made


def key_rows(key: str | Path) -> list[tuple[str, str, str, str]]:
    """(question, answer, hint, why) of each row of the key's tables, in order."""
    rows = re.findall(r"^\| (\d\d-\d) \| `(.+?)` \| (.+?) \| (.+?) \|$", Path(key).read_text(encoding="utf-8"), re.M)
    return sorted(rows)


@cache
def sealed() -> dict[str, dict]:
    return json.loads(SEALED.read_text(encoding="utf-8"))


def _kept() -> dict:
    path = folder() / "mine.json"
    empty = {"predictions": {}, "answers": {}}
    return empty | json.loads(path.read_text(encoding="utf-8")) if path.exists() else empty


def _keep(part: str, name: str, value: dict) -> None:
    kept = _kept()
    kept[part][name] = value
    folder().mkdir(parents=True, exist_ok=True)
    part_file = folder() / "mine.part"  # renamed when whole, so that a stopped kernel leaves no half file
    part_file.write_text(json.dumps(kept, ensure_ascii=False, indent=1), encoding="utf-8")
    part_file.replace(folder() / "mine.json")


def _single(value):
    """The one number or text in a scalar of numpy, torch or pandas, or in an array of one; anything else as it is."""
    try:
        return value.item()
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return value


def _rounding(answer) -> float:
    """Half a unit of the last decimal that is written, where there are two or more; else 0."""
    text = str(_single(answer)).strip().replace(",", ".")
    decimals = len(text.removesuffix("%").strip().partition(".")[2]) + 2 * text.endswith("%")
    return 0.5 * 10**-decimals if decimals >= 2 else 0.0


def _number(value) -> float | None:
    """0.25 for 0.25, "0,25", "25 %", an array of it alone; None for what is no finite number."""
    text = str(_single(value)).strip().replace(",", ".")
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def _word(value) -> str:
    return " ".join(str(value).split()).strip(" .").casefold()


def _forms(answer, digits: int) -> list[str]:
    """The ways to write what may be meant: a word in one form; a number rounded, and one off in its last decimal."""
    number = _number(answer)
    if number is None:
        return [_word(answer)]
    step = 10**-digits
    if not digits:
        return [f"{number:g}"]
    return [f"{round(number, digits) + off * step + 0.0:.{digits}f}" for off in (0, -1, 1)]


def _hash(question: str, form: str) -> str:
    return hashlib.sha256(f"xmalign {question} {form}".encode()).hexdigest()


def _scrambled(text: bytes, question: str, form: str) -> bytes:
    """`text` xor a stream that only the answer gives; twice is the text again."""
    stream = hashlib.shake_256(f"why {question} {form}".encode()).digest(len(text))
    return bytes(a ^ b for a, b in zip(text, stream, strict=True))


def _plain(value):
    """What JSON can keep: a text, or a number."""
    number = None if isinstance(value, str) else _number(value)
    return str(value) if number is None else number


def _shown(value) -> str:
    return value if isinstance(value, str) else f"{float(value):.3g}"


if __name__ == "__main__":
    command, path = sys.argv[1:] if len(sys.argv) == 3 else ("", "")
    if command not in ("seal", "collect"):
        sys.exit("python -m xmalign_lab.lessons seal docs/teaching/key.md | collect FOLDER")
    print(collect(path).to_string() if command == "collect" else f"{len(seal(path))} questions sealed in {SEALED}")
