"""Guesses, check questions that mark themselves, the key, and the lesson's ninety minutes."""

import ast
import json
import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xmalign_lab import dials, lessons

ROOT = Path(__file__).resolve().parent.parent
KEY = ROOT / "docs" / "teaching" / "key.md"
TAUGHT = [
    path for path in sorted((ROOT / "notebooks").glob("[01]*.ipynb")) if path.name[:2] <= "07" or path.name[:2] in ("14", "15")
]
# What the run tells, made up: the key's expression must agree with the function that marks.
RUNS = {
    "00-3": {"asked": pd.DataFrame({"rank": [1, 10, 11, 50.5]})},
    "01-3": {"folds": [pd.DataFrame({"group": ["a", "a", "b"]})]},
    "02-3": {"shared": pd.DataFrame({"swh_Latn": [0.1, 0.5, 0.6]})},
    "03-3": {"p": np.array([0.5, 0.49, 1.0, 0.0])},
    "04-3": {"sim": torch.tensor([[0.1, 0.2], [0.9, 0.5]]), "typical": 1, "dials": dials},
    "05-3": {"steps": pd.DataFrame({"total": [8.0, 4.1, 3.9, 1.0]})},
    "06-3": {"forward": pd.DataFrame({"rank": [1.0, 5.0, 100.0, 7.0], "lang": ["swh_Latn", "swh_Latn", "swh_Latn", "eng_Latn"]})},
    "14-3": {"found": pd.DataFrame({"value": {"fifty names": 0.08}}), "guess": 0.017},
    "15-3": {"dealt": pd.DataFrame({"luck": [0.0, 0.01, 0.05]})},
}


@pytest.fixture(autouse=True)
def own_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("XMALIGN_LESSONS", raising=False)
    monkeypatch.setenv("XMALIGN_DATA", str(tmp_path))


def cells(path, kind):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def measured(question):
    """What the notebook hands to `grade`, of all that the key's expression reads."""
    run = RUNS[question]
    handed = {
        "01-3": lambda: [run["folds"][0]],
        "02-3": lambda: [run["shared"]["swh_Latn"]],
        "04-3": lambda: [run["sim"][run["typical"]].numpy()],
        "14-3": lambda: [run["found"].value["fifty names"], run["guess"]],
    }
    return handed[question]() if question in handed else list(run.values())


# Guesses


def test_no_guess_keeps_nothing_and_the_reveal_tells_the_truth_alone():
    assert lessons.predict("height", ...).verdict == "" and not lessons.folder().exists()
    assert str(lessons.reveal("height", 0.25)).endswith("It is 0.25.") and not lessons.folder().exists()


@pytest.mark.parametrize(
    ("guess", "truth", "verdict", "said"),
    [
        (0.26, 0.25, "right", "close"),
        ("30 %", 0.25, "", "too high by 0.05"),
        (0.1, 0.25, "", "too low by 0.15"),
        ("Too  narrow.", "too narrow", "right", "as you said"),
        ("too wide", "too narrow", "", "what made you expect"),
        (0.3, "not defined", "", "not defined"),
        (0, 0, "right", "close"),
    ],
)
def test_a_guess_stands_beside_the_truth_and_is_never_called_wrong(guess, truth, verdict, said):
    lessons.predict("it", guess)
    reply = lessons.reveal("it", truth)
    assert reply.verdict == verdict and said in reply.text and "wrong" not in reply.text


def test_dots_drop_a_guess_that_was_revealed_and_only_that():
    lessons.predict("it", 0.2)
    lessons.predict("it", ...)
    assert "You guessed 0.2" in lessons.reveal("it", 0.25).text
    lessons.predict("it", ...)
    assert lessons.reveal("it", 0.25).text == "It is 0.25."
    assert "No guess yet" in lessons.predict("it", None).text


@pytest.mark.parametrize("guess", [{"a"}, np.array([1, 2]), np.array([0.3]), torch.tensor(0.3), len, ["a"], True])
def test_any_guess_can_be_kept(guess):
    lessons.predict("it", guess)
    assert "You guessed" in lessons.reveal("it", 0.3).text


def test_each_student_has_an_own_folder_or_forgets(monkeypatch, tmp_path):
    lessons.predict("it", 1)
    lessons.grade("00-2", "B")
    monkeypatch.setenv("XMALIGN_LESSONS", str(tmp_path / "other"))
    assert not lessons.report().answered.any() and lessons.folder() == tmp_path / "other"
    monkeypatch.delenv("XMALIGN_LESSONS")
    lessons.forget()
    lessons.forget()
    assert not lessons.report().answered.any() and lessons.reveal("it", 1).text == "It is 1."


def test_a_stopped_kernel_leaves_what_was_there(monkeypatch):
    lessons.predict("it", 1)
    monkeypatch.setattr(Path, "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        lessons.predict("it", 2)
    assert lessons._kept()["predictions"]["it"] == {"guess": 1.0}


# Questions


def test_dots_are_not_answered_yet():
    reply = lessons.grade("00-1", ...)
    assert reply.verdict == "" and "not answered yet" in reply.text and not lessons.folder().exists()


@pytest.mark.parametrize("answer", [0.46, 0.4625, "0.46", "0,46", "46 %", np.float64(0.4625)])
def test_a_number_may_be_written_in_several_ways(answer):
    assert lessons.grade("00-1", answer).verdict == "right"


@pytest.mark.parametrize("answer", ["b", " B. ", "B", "(B)", "B)", "b: no", "B. The word was drawn", np.array(["B"])])
def test_a_letter_may_be_small(answer):
    assert lessons.grade("00-2", answer).verdict == "right"


@pytest.mark.parametrize("answer", ["C", 3, 0.44, 0.48, None, "", "Bee", float("nan"), [1, 2]])
def test_what_is_not_right_gets_a_hint_or_is_told_its_sort(answer):
    for question in ("00-1", "00-2"):
        reply = lessons.grade(question, answer)
        assert reply.verdict != "right" and any(said in reply.text for said in ("not yet", "is asked for"))


@pytest.mark.parametrize("answer", [None, float("nan"), 2, ["B", "C"], {"B"}, len, "", "Bee", np.array(["A", "B"])])
def test_what_is_no_letter_is_told_so_and_costs_no_try(answer):
    assert "a letter is asked for" in lessons.grade("00-2", answer).text
    assert lessons.report().tries["00-2"] == 0


@pytest.mark.parametrize("answer", [0.07, "0,07", "7 %", "6.65 %", 0.0665, np.array([0.0665]), torch.tensor(0.067)])
def test_what_depends_on_the_run_may_be_rounded_as_the_tables_are(monkeypatch, answer):
    monkeypatch.setitem(lessons.FROM_RUN, "00-3", lambda: 0.0665)
    assert lessons.grade("00-3", answer).verdict == "right"
    for far in (0.1, 0.06, 0.064, "6.4 %", 0.0700):
        assert (lessons.grade("00-3", far).verdict == "right") == (far == 0.07)


@given(st.floats(-10, 10).filter(lambda x: abs(x - 0.46) > 0.0151))
def test_no_other_number_is_right(value):
    assert not lessons._judged("00-1", value)[0]


def test_an_unknown_question_is_the_notebooks_mistake():
    with pytest.raises(ValueError, match="'99-1'.*00-1"):
        lessons.grade("99-1", "A")


def test_tries_are_counted_and_the_last_answer_counts():
    for answer in ("A", "A", "C", "B", "b"):  # the cell run again is no try
        lessons.grade("00-2", answer)
    row = lessons.report().loc["00-2"]
    assert row["tries"] == 3 and row.right and row.answered and not lessons.report().answered["00-1"]


def test_replies_show_what_was_typed_as_text():
    lessons.predict("it", "<b>bold</b>")
    assert "<b>bold" not in lessons.reveal("it", "plain")._repr_html_()


# The key


def test_the_sealed_key_is_made_of_the_key(tmp_path):
    before = lessons.sealed()
    assert lessons.seal(KEY, tmp_path / "sealed.json") == before, "run: python -m xmalign_lab.lessons seal docs/teaching/key.md"


def test_every_question_has_its_key_and_every_key_its_question():
    asked = [q for path in TAUGHT for source in cells(path, "code") for q in re.findall(r'lessons\.grade\("([\d-]+)"', source)]
    known = [row[0] for row in lessons.key_rows(KEY)]
    assert asked == known and len(set(asked)) == len(asked)


@pytest.mark.parametrize("row", lessons.key_rows(KEY), ids=lambda row: row[0])
def test_the_keys_answers_are_right(row):
    question, answer, hint, why = row
    if lessons.sealed()[question]["sort"] == "run":
        reply = lessons.grade(question, float(eval(answer, {}, dict(RUNS[question]))), *measured(question))
        assert (
            lessons.grade(question, float(eval(answer, {}, dict(RUNS[question]))) * 1.1 + 0.1, *measured(question)).verdict
            == "wrong"
        )
    else:
        reply = lessons.grade(question, ast.literal_eval(answer))
        assert why not in lessons.SEALED.read_text(encoding="utf-8"), "the reason gives the answer away"
        others = {"'A'", "'B'", "'C'"} - {answer} if answer.startswith("'") else {"-1", "1000"}
        assert all(lessons.grade(question, ast.literal_eval(other)).verdict == "wrong" for other in others)
    assert reply.verdict == "right" and why in reply.text


def test_a_key_without_its_function_is_refused(tmp_path):
    (tmp_path / "key.md").write_text("| 98-1 | `ranks.mean()` | hint | why |\n")
    with pytest.raises(ValueError, match="98-1.*FROM_RUN"):
        lessons.seal(tmp_path / "key.md", tmp_path / "sealed.json")


# Handing in


def test_a_class_is_collected_and_marked_again(tmp_path):
    lessons.grade("00-1", 0.46)
    lessons.grade("00-2", "A")
    lessons.report("Amina / Yusuf")
    path = lessons.folder() / "Amina-Yusuf.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    told["answers"]["00-2"]["right"] = True  # who writes into the file gains nothing
    folder = tmp_path / "handed in"
    folder.mkdir()
    (folder / "a.json").write_text(json.dumps(told))
    (folder / "b.json").write_text(json.dumps(told | {"name": "නිමල්", "answers": {}}))
    table = lessons.collect(folder)
    assert table.loc["Amina / Yusuf", ["00-1", "00-2", "00-3", "right"]].tolist() == ["✓", "✗", "", 1]
    assert table.right["නිමල්"] == 0
    (folder / "c.json").write_text("[]")
    with pytest.raises(ValueError, match="c.json"):
        lessons.collect(folder)


@pytest.mark.parametrize("name", ["mine", " Mine", "", "../.."])
def test_a_report_needs_a_name_that_is_a_file_of_its_own(name):
    lessons.grade("00-2", "B")
    if name:
        with pytest.raises(ValueError, match="your own name"):
            lessons.report(name)
    assert lessons.file_name("../../up Juma") == "up-Juma.json"
    assert [path.name for path in lessons.folder().iterdir()] == ["mine.json"]


# The lesson


@pytest.mark.parametrize("path", TAUGHT, ids=lambda path: path.stem)
def test_a_taught_notebook_has_its_parts(path):
    code, text = "\n".join(cells(path, "code")), "\n\n".join(cells(path, "markdown"))
    assert len(re.search(r"\*\*After this you can\*\*\n\n((?:- .+(?:\n|$))+)", text)[1].strip().splitlines()) == 3
    guessed, revealed = (re.findall(rf'lessons\.{verb}\(\s*"(.+?)", ', code) for verb in ("predict", "reveal"))
    assert guessed and sorted(guessed) == sorted(revealed), "every guess is answered"
    assert all(f'lessons.predict("{name}", ...)' in code for name in guessed), "the dots are left to the student"
    assert re.search(r"\bwrong\b", text, re.I), "a wrong way before the right one"
    assert "<summary>One solution</summary>" in text and "**Exercise.**" in text
    assert len(re.findall(r"^answer = \.\.\.$", code, re.M)) == len(re.findall(r"lessons\.grade\(", code)) == 3


def sections(path):
    """{heading: minutes} of a notebook's sections, None where it is not marked."""
    text = "\n\n".join(cells(path, "markdown")) + "\n"
    found = re.findall(r"^## (.+)\n(?:\n\*(On the lesson's path: (\d+) minutes?|Skip in class)\.\*\n)?", text, re.M)
    return {name: (int(minutes or 0) if mark else None) for name, mark, minutes in found if name != "What we learned"}


def test_the_lesson_takes_ninety_minutes():
    plan = (ROOT / "docs" / "teaching" / "lesson.md").read_text(encoding="utf-8")
    planned = {number: int(minutes) for number, minutes in re.findall(r"^\| \[(0\d)\]\(.+?\) \| (\d+) \|", plan, re.M)}
    assert sum(planned.values()) == 90 and len(planned) == 8
    for path in TAUGHT[:8]:
        marked = sections(path)
        assert None not in marked.values(), f"{path.name}: a section says neither its minutes nor to skip it: {marked}"
        assert sum(marked.values()) == planned[path.name[:2]], path.name
