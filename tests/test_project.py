"""The repository as a whole: environments agree, imports point one way, notebooks keep their form, nothing grows fat."""

import ast
import json
import re
import statistics
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest

from bench import gallery, lines
from xmalign_lab import profile

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def plain(requirement):
    """The bare, normalised name of a requirement line."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0]).lower()


def tags(cell):
    return cell.metadata.get("tags", [])


# Environments


def test_constraints_pin_every_direct_dependency():
    pins = [line for line in read("constraints.txt").splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins), "each line pins one version, without a local suffix"
    direct = [*PROJECT["project"]["dependencies"], *(one for extra in EXTRAS.values() for one in extra)]
    assert {plain(one) for one in direct} - {plain(pin) for pin in pins} == set()
    assert len({plain(pin) for pin in pins}) == len(pins)


def test_every_package_the_library_imports_is_declared():
    declared = {plain(one) for extra in [PROJECT["project"]["dependencies"], *EXTRAS.values()] for one in extra}
    owners, missing = {"jscatter": ["jupyter-scatter"], "kaleido": ["kaleido"]} | packages_distributions(), {}  # not always there
    for file in (ROOT / "xmalign_lab").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for top in {str(name).split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"xmalign_lab"}:
                if not {plain(owner) for owner in owners.get(top, [])} & declared:
                    missing[top] = file.name
    assert missing == {}


def test_environment_yml_agrees_with_pyproject():
    import yaml

    environment = yaml.safe_load(read("environment.yml"))
    *packages, pip = environment["dependencies"]
    floor = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert packages == [f"python={floor}", "pip", "nodejs"]
    options = " ".join(pip["pip"])
    assert options.startswith("-c constraints.txt")
    extras = re.search(r"-e \.\[([\w,]+)\]", options)
    assert extras and set(extras[1].split(",")) <= set(EXTRAS) and "lab" in extras[1].split(",")


def test_makefile_installs_extras_that_exist():
    named = re.search(r"-e '\.\[([\w,]+)\]'", read("Makefile"))
    assert set(named[1].split(",")) <= set(EXTRAS)


def test_licences_and_attributions():
    notice = read("NOTICE")
    for name in ("Twemoji", "CC BY 4.0", "Noto Emoji", "OpenMoji", "CC BY-SA 4.0", "CLDR", "Unicode License v3", "Cal Henderson"):
        assert name in notice, name
    assert "Apache License" in read("LICENSE") and PROJECT["project"]["license"] == "Apache-2.0"
    citation = read("CITATION.cff")
    assert f"version: {PROJECT['project']['version']}\n" in citation and "license: Apache-2.0" in citation


# The library


def test_import_contracts_hold():
    run = subprocess.run([Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[run.stdout.find("Broken contracts") :]


def test_importing_the_package_costs_nothing():
    light = "import xmalign_lab, xmalign_lab.profile, xmalign_lab.cli, sys; "
    heavy = "torch numpy pandas plotly scipy skimage sklearn umap ipywidgets PIL".split()
    code = light + f"print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_library_is_small():
    counts = lines.count("xmalign_lab")
    assert {path: n for path, n in counts.items() if n > lines.LONGEST_FILE} == {}
    assert sum(counts.values()) <= lines.BUDGET["xmalign_lab"]
    assert sum(counts.values()) + sum(lines.count("bench").values()) <= lines.BUDGET["xmalign_lab + bench"]


def test_code_lines_leave_out_blanks_comments_and_docstrings():
    source = '"""Doc\n\nstring."""\n\n# comment\nx = """not a\ndocstring"""\n\n\n'
    source += 'def f():\n    "Doc."\n    return (  # why\n        x\n    )\n'
    assert lines.code_lines(source) == 6


def test_ruff_is_content_with_code_and_notebooks():
    ruff = Path(sys.executable).with_name("ruff")
    for command in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        run = subprocess.run([ruff, *command, "."], cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr


# The profile


def test_pick_follows_the_environment(monkeypatch):
    for name in profile.PROFILES:
        monkeypatch.setenv("XMALIGN_PROFILE", name)
        assert profile.pick(smoke="smoke", small="small", full="full") == name
    monkeypatch.delenv("XMALIGN_PROFILE")
    assert profile.current() == "small"
    monkeypatch.setenv("XMALIGN_PROFILE", "large")
    with pytest.raises(ValueError, match="'large'.*smoke, small, full"):
        profile.pick(smoke=1, small=2, full=3)


def test_folders_are_the_checkouts_from_wherever_a_notebook_runs(monkeypatch, tmp_path):
    for variable in ("DATA", "CACHE", "RUNS"):
        monkeypatch.delenv(f"XMALIGN_{variable}")
    for folder in (ROOT / "notebooks", tmp_path):
        monkeypatch.chdir(folder)
        assert profile.data_root() == ROOT / "data"
        assert profile.cache_root() == ROOT / ".cache" and profile.runs_root() == ROOT / "runs"
    monkeypatch.setattr(profile, "__file__", str(tmp_path / "site-packages" / "xmalign_lab" / "profile.py"))
    assert profile.repository() == tmp_path
    monkeypatch.chdir(ROOT / "notebooks")
    assert profile.repository() == ROOT
    monkeypatch.setenv("XMALIGN_CACHE", str(tmp_path / "mine"))
    assert profile.cache_root() == tmp_path / "mine"


# Notebooks


def test_readme_names_targets_and_files_that_exist():
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("no README yet")
    text = readme.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))
    assert set(re.findall(r"`(?:\$ )?make ([a-z-]+)", text)) | set(re.findall(r"^make ([a-z-]+)", text, re.M)) <= targets
    linked = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [path for path in linked if not (ROOT / path).exists()] == []


@each_notebook
def test_a_notebook_has_the_parts_in_order(path):
    notebook = nbformat.read(path, as_version=4)
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and re.match(r"# \S.*\n+> \S", first.source), "starts with '# title' and '> question'"
    assert all(part in text for part in ("You need", "You get", "Takes")), "says what it needs, gives and takes"
    assert re.search(r"^#+ What we learned", text, re.M)
    for tag in ("parameters", "answer", "thumbnail"):
        assert sum(tag in tags(cell) for cell in notebook.cells) == 1, f"exactly one cell is tagged {tag!r}"
    assert "Markdown(" in next(cell.source for cell in notebook.cells if "answer" in tags(cell)), "the gallery shows the answer"
    if path != NOTEBOOKS[-1]:
        after = NOTEBOOKS[NOTEBOOKS.index(path) + 1].name
        assert f"({after})" in "".join(c.source for c in notebook.cells[-3:] if c.cell_type == "markdown"), f"links to {after}"
    linked = re.findall(r"\]\((?!https?:|#|attachment:)([^)#]+)", text)
    assert [link for link in linked if not (path.parent / link).exists()] == []


@each_notebook
def test_a_notebook_holds_ideas_not_code(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    lengths = [len(cell.source.splitlines()) for cell in code]
    assert max(lengths) <= 25 and statistics.median(lengths) <= 8
    joined = "\n".join(cell.source for cell in code)
    assert not re.search(r"^\s*[%!]\s*(pip|conda)|sys\.path|urllib|requests\.get", joined, re.M)
    assert any(isinstance(node, ast.Assert) for cell in code for node in ast.walk(ast.parse(cell.source))), "asserts something"
    assert all(cell.source.strip() for cell in notebook.cells), "no empty cell"


@each_notebook
def test_the_gallery_can_show_its_formulas(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown" and "$" in cell.source:
            gallery.html_of(cell.source, path.name)


@each_notebook
def test_a_notebook_is_stripped(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [i for i, cell in enumerate(code) if cell["outputs"] or cell["execution_count"] is not None] == []
    assert "widgets" not in notebook["metadata"]
    assert [cell["id"] for cell in notebook["cells"] if "execution" in cell["metadata"]] == []


def test_what_the_notebook_tests_need_is_installed():
    assert find_spec("nbmake") and find_spec("xdist")
