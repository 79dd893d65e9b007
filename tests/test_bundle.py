"""The bundle's parts, on a wheelhouse made here: no pip and no network."""

import ast
import hashlib
import importlib.util
import re
import sys
import zipfile
from collections import namedtuple
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest
from packaging.utils import canonicalize_name

from bench import bundle
from xmalign_lab.corpora import emoji

INSTALLED = {
    "lab": ["Shell>=1", 'win-part; sys_platform == "win32"', 'old; python_version < "3.8"', 'extra-only; extra == "more"'],
    "shell": ["lab[more]"],
    "extra-only": [],
}


@pytest.fixture
def installed(monkeypatch):
    def requires(name):
        if name not in INSTALLED:
            raise PackageNotFoundError(name)
        return INSTALLED[name]

    monkeypatch.setattr(bundle.importlib.metadata, "requires", requires)


def wheel(folder, name, version="1", python=">=3.9", needs=(), tag="py3-none-any"):
    path = folder / f"{name}-{version}-{tag}.whl"
    meta = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: {python}"]
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(
            f"{name}-{version}.dist-info/METADATA", "\n".join([*meta, *(f"Requires-Dist: {n}" for n in needs)]) + "\n\n"
        )
    return path


def test_requirements_are_those_of_the_target_with_extras_and_cycles(installed):
    linux, windows = bundle.TARGETS["linux"][1], bundle.TARGETS["windows"][1]
    assert bundle.requirements(["Lab"], linux) == ["extra-only", "lab", "shell"]
    assert bundle.requirements(["Lab"], windows) == ["extra-only", "lab", "shell", "win-part"]


def test_requirements_here_hold_every_package_that_this_environment_needs():
    names = bundle.requirements(["jupyterlab", "pandas>=3"], {})
    assert {"jupyter-server", "numpy", "pandas", "tornado"} <= set(names) and names == sorted(map(canonicalize_name, names))


def test_versions_come_from_the_constraints_whatever_the_spelling():
    lines = bundle.pinned(
        ["arro3-core", "python-json-logger", "pywinpty", "setuptools"], "python_json.logger==4.2.0\narro3_core==0.9.1\n"
    )
    assert lines == ["arro3-core==0.9.1", "python-json-logger==4.2.0", "pywinpty", bundle.BUILDING]


def pip(monkeypatch, make, status=0, said=()):
    """A `pip download` that runs `make(folder)`; its commands are kept."""
    commands = []

    def popen(command, **options):
        commands.append(command)
        make(bundle.Path(command[command.index("-d") + 1]))
        return SimpleNamespace(stdout=[f"{line}\n" for line in said], wait=lambda: status)

    monkeypatch.setattr(bundle.subprocess, "Popen", popen)
    monkeypatch.setattr(bundle, "requirements", lambda roots, markers: ["lab", "shell"])
    return commands


def test_wheels_asks_pip_for_the_target_and_takes_no_leftover(monkeypatch, tmp_path):
    def make(folder):
        for name in ("lab", "shell", "leftover"):
            wheel(folder, name)

    commands = pip(monkeypatch, make, said=["Collecting lab"])
    assert [file.name for file in bundle.wheels("windows", "3.11.9", tmp_path)] == [
        "lab-1-py3-none-any.whl",
        "shell-1-py3-none-any.whl",
    ]
    text = " ".join(commands[0])
    assert (
        "--platform win_amd64" in text
        and "--python-version 3.11.9" in text
        and "--only-binary=:all:" in text
        and "--no-deps" in text
    )
    here = ".".join(map(str, sys.version_info[:3]))
    bundle.wheels("this", here, tmp_path)
    assert "--platform" not in commands[1] and "--python-version" not in commands[1]


def test_what_has_no_wheel_or_an_unknown_need_is_named(monkeypatch, tmp_path):
    pip(monkeypatch, lambda folder: wheel(folder, "lab"))
    with pytest.raises(bundle.BundleError, match="no wheel came for shell"):
        bundle.wheels("this", "3.11.9", tmp_path / "a")
    pip(monkeypatch, lambda folder: [wheel(folder, "lab"), wheel(folder, "shell", needs=["deep-part", 'x; extra == "y"'])])
    with pytest.raises(bundle.BundleError, match="shell needs deep-part, unknown here"):
        bundle.wheels("this", "3.11.9", tmp_path / "b")
    pip(monkeypatch, lambda folder: None, status=1, said=["Collecting lab", "ERROR: No matching distribution found for lab", ""])
    with pytest.raises(bundle.BundleError, match="windows, Python 3.11.9: ERROR: No matching distribution"):
        bundle.wheels("windows", "3.11.9", tmp_path / "c")


def test_the_python_asked_for_is_as_new_as_the_strictest_wheel_wants(tmp_path):
    files = [wheel(tmp_path, "a"), wheel(tmp_path, "b", python=">=3.11.5, !=3.11.7"), wheel(tmp_path, "c", python=">=3.12.9,<4")]
    assert bundle.least_micro(files[:2], "3.11") == 5 and bundle.least_micro(files[:1], "3.11") == 0


def test_the_zip_holds_all_under_one_folder_with_true_sums(tmp_path):
    (tmp_path / "x.py").write_text("x = 1\n" * 100)
    wheel(tmp_path, "lab")
    files = [("wheels/lab-1-py3-none-any.whl", tmp_path / "lab-1-py3-none-any.whl"), ("notebooks/ස ü.py", tmp_path / "x.py")]
    out = bundle.pack(tmp_path / "xmalign-this-py311.zip", files, bundle.starters("this", "3.11", 5))
    assert not out.with_suffix(".part").exists()
    with zipfile.ZipFile(out) as packed:
        content = {name: packed.read(name) for name in packed.namelist()}
        assert packed.getinfo("xmalign-this-py311/start.sh").external_attr >> 16 & 0o111
        assert packed.getinfo(f"xmalign-this-py311/{files[0][0]}").compress_type == zipfile.ZIP_STORED
    sums = content.pop("xmalign-this-py311/SHA256SUMS").decode().splitlines()
    told = {f"xmalign-this-py311/{line.split('  ', 1)[1]}": line.split("  ")[0] for line in sums}
    assert told == {name: hashlib.sha256(data).hexdigest() for name, data in content.items()} and len(told) == 6


def test_the_starters_are_filled_in_and_windows_lines_end_as_windows_wants():
    found = bundle.starters("windows", "3.11", 5)
    assert set(found) == {"start.py", "start.bat", "start.sh", "BUNDLE.txt"} and not any(b"@M" in text for text in found.values())
    for name, text in found.items():
        assert (text.count(b"\r\n") == text.count(b"\n")) is name.endswith((".bat", ".txt")), name
    assert b"py -3.11 start.py %*" in found["start.bat"] and b'pushd "%~dp0"' in found["start.bat"]
    code = [line for line in found["start.bat"].decode().splitlines() if not line.startswith("rem ")]
    assert not any("errorlevel 1" in line for line in code)  # a crash ends with a negative number, which that lets through
    (pause,) = (line for line in code if "pause" in line)
    assert pause == 'if %code% neq 0 if /i not "%~1"=="--check" pause'
    assert code[code.index(":end") + 1] == "set code=%errorlevel%" and code[-1] == "exit /b %code%"
    assert found["start.bat"].isascii() and found["start.py"].isascii()


def test_the_start_needs_only_the_standard_library_and_any_python_can_read_it():
    tree = ast.parse(bundle.starters("this", "3.11", 5)["start.py"])
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert imported == {"hashlib", "os", "subprocess", "sys", "time"}
    later = (ast.JoinedStr, ast.NamedExpr, ast.AnnAssign, ast.ImportFrom, ast.AsyncFunctionDef)
    assert not any(isinstance(node, later) or getattr(node, "annotation", None) for node in ast.walk(tree))


@pytest.fixture
def start(tmp_path):
    """start.py of a bundle for the Python before this one, in a folder with a space."""
    folder = tmp_path / "my büро ස"
    (folder / "wheels").mkdir(parents=True)
    (folder / "start.py").write_bytes(bundle.starters("this", "3.11", 5)["start.py"])
    spec = importlib.util.spec_from_file_location("start", folder / "start.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "version, ok", [((3, 11, 5), 1), ((3, 11, 12), 1), ((3, 11, 4), 0), ((3, 12, 9), 0), ((3, 1, 15), 0), ((2, 7, 18), 0)]
)
def test_another_python_is_told_which_one_to_install(start, monkeypatch, version, ok):
    monkeypatch.setattr(sys, "version_info", namedtuple("V", "major minor micro")(*version))
    said = start.wrong_python()
    assert (said == "") is bool(ok)
    assert ok or ("3.11.5" in said and f"this is Python {'.'.join(map(str, version))}" in said)


def test_a_32_bit_python_is_told_as_such(start, monkeypatch):
    monkeypatch.setattr(sys, "version_info", namedtuple("V", "major minor micro")(3, 11, 9))
    assert start.wrong_python() == ""
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    assert "this is Python 3.11.9, 32 bit" in start.wrong_python() and "Install the 64-bit Python 3.11" in start.wrong_python()


def test_the_first_start_installs_without_an_index_and_the_second_does_nothing(start, monkeypatch, tmp_path, capsys):
    calls = []

    def call(command, **options):
        calls.append((command, options["env"]))
        if "venv" in command:
            bundle.Path(command[-1]).mkdir(exist_ok=True)
        return 0

    def popen(command, **options):
        calls.append((command, options["env"]))
        return SimpleNamespace(stdout=[b"Processing ./lab.whl\n", b"Installing collected packages\n"], wait=lambda: start.broken)

    monkeypatch.setattr(start.subprocess, "call", call)
    monkeypatch.setattr(start.subprocess, "Popen", popen)
    monkeypatch.setattr(start, "wrong_python", lambda: "")
    monkeypatch.setattr(start, "environment", lambda: str(tmp_path / "env"))
    monkeypatch.setattr(sys, "argv", ["start.py"])
    monkeypatch.setenv("PIP_INDEX_URL", "somewhere")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    start.broken = 1
    assert start.main() == 1 and "pip could not install" in capsys.readouterr().out
    start.broken = 0
    assert start.main() == 0
    (_, pip_env), (lab, _) = calls[-2:]
    assert "--no-index" in calls[-2][0] and ".[lab,app]" in calls[-2][0] and lab[1:4] == ["-m", "jupyter", "lab"]
    assert "PIP_INDEX_URL" not in pip_env and "PYTHONPATH" not in pip_env
    calls.clear()
    assert start.main() == 0 and len(calls) == 1 and "lab" in calls[0][0]  # at once
    bundle.Path(start.HERE, "SHA256SUMS").write_text("0" * 64 + "  start.py\n")  # another bundle was unzipped over this one
    calls.clear()
    assert start.main() == 0 and len(calls) == 3


def test_check_names_what_is_damaged(start, capsys):
    here = bundle.Path(start.HERE)
    digest = hashlib.sha256((here / "start.py").read_bytes()).hexdigest()
    (here / "SHA256SUMS").write_text(f"{digest}  start.py\n", encoding="utf-8")
    assert start.compared() == ([], [])
    (here / "SHA256SUMS").write_text(f"{digest}  start.py\n{digest}  wheels/ස x.whl\n", encoding="utf-8")
    assert start.compared() == (["wheels/ස x.whl"], []) and start.check("python") == 1
    assert "Damaged or missing: wheels/ස x.whl" in capsys.readouterr().out


@pytest.mark.parametrize("sums", [None, "", "0123456789abcdef\n"])
def test_check_without_its_list_of_sums_is_a_failure(start, monkeypatch, capsys, sums):
    monkeypatch.setattr(start.subprocess, "call", lambda *_, **__: 0)
    if sums is not None:
        bundle.Path(start.HERE, "SHA256SUMS").write_text(sums)
    assert start.check("python") == 1 and "Damaged or missing: SHA256SUMS" in capsys.readouterr().out


def test_check_tells_notebooks_that_a_reader_saved_and_goes_on_but_not_without_them(start, monkeypatch, capsys):
    here, names = bundle.Path(start.HERE), ["start.py", "notebooks/00.ipynb", "notebooks/01.ipynb", "notebooks/x.py"]
    (here / "notebooks").mkdir()
    for name in names[1:]:
        (here / name).write_text("as packed")
    digests = {name: hashlib.sha256((here / name).read_bytes()).hexdigest() for name in names}
    (here / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()))
    monkeypatch.setattr(start.subprocess, "call", lambda *_, **__: 0)
    assert start.check("python") == 0 and "the files are whole" in capsys.readouterr().out
    (here / names[1]).write_text("run and saved")
    assert start.check("python") == 0
    said = capsys.readouterr().out
    assert "Changed since they were packed" in said and names[1] in said and names[2] not in said and "the other files" in said
    (here / names[3]).write_text("no notebook")
    assert start.check("python") == 1 and "missing: notebooks/x.py\n" in capsys.readouterr().out
    (here / names[3]).write_text("as packed")
    (here / names[2]).unlink()
    assert start.check("python") == 1 and "missing: notebooks/01.ipynb\n" in capsys.readouterr().out


def test_check_reads_each_file_once(start, monkeypatch):
    here, opened = bundle.Path(start.HERE), []
    (here / "wheels" / "a.whl").write_text("x")
    (here / "SHA256SUMS").write_text("0" * 64 + "  wheels/a.whl\n")

    def counted(path, *rest):
        opened.append(bundle.Path(path).name)
        return open(path, *rest)

    monkeypatch.setattr(start, "open", counted, raising=False)
    assert start.check("python") == 1 and opened == ["SHA256SUMS", "a.whl"]


def test_a_path_too_long_for_windows_has_its_environment_elsewhere(start, monkeypatch):
    assert start.environment() == start.os.path.join(start.HERE, ".venv")
    monkeypatch.setattr(start, "WINDOWS", True)
    monkeypatch.setenv("LOCALAPPDATA", "short")
    monkeypatch.setattr(start, "HERE", "C:" + "x" * start.LONGEST)
    assert start.environment().startswith(start.os.path.join("short", "xmalign")) and len(start.environment()) < 30


def test_data_are_what_the_reader_reads_with_licences_and_what_lacks_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(emoji, "folder", lambda root=None: tmp_path)
    with pytest.raises(bundle.BundleError, match="xmalign fetch emoji"):
        list(bundle.data())
    for package, parts in emoji.PARTS.items():
        for name in ("package.json", "LICENSE", "extra.js", f"{parts[0]}/kept.json" if "." not in parts[0] else parts[0]):
            (tmp_path / package / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / package / name).write_text("{}")
    names = [name for name, _ in bundle.data()]
    start = "data/emoji/node_modules/cldr-annotations-full/"
    assert {start + "LICENSE", start + "package.json", start + "annotations/kept.json"} <= set(names)
    assert not [name for name in names if "extra.js" in name or "openmoji" in name] and len(names) == 4 * 3


@pytest.mark.parametrize("asked", [[], ["--with-key"]])
def test_students_get_no_key_to_the_questions_unless_asked_for(monkeypatch, tmp_path, asked):
    names, packed = [bundle.KEY, "docs/teaching/lesson.md"], {}
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    whl = wheel(tmp_path, "lab")
    listed = SimpleNamespace(stdout="\0".join([*names, "deleted.py", ""]).encode())
    monkeypatch.setattr(bundle.subprocess, "run", lambda *_, **__: listed)
    monkeypatch.setattr(bundle, "ROOT", tmp_path)
    monkeypatch.setattr(bundle, "wheels", lambda *_: [whl])
    monkeypatch.setattr(bundle, "data", lambda: [])

    def pack(out, files, texts):
        packed[out.name] = [name for name, _ in files]
        out.parent.mkdir(exist_ok=True)
        out.write_text("")

    monkeypatch.setattr(bundle, "pack", pack)
    assert bundle.main([*asked, "linux", "3.11.9"]) == 0
    kept = f"wheels/{whl.name}"
    expected = {"xmalign-linux-py311-with-key.zip": [*names, kept]} if asked else {"xmalign-linux-py311.zip": [names[1], kept]}
    assert packed == expected


def test_the_key_left_out_is_the_one_that_the_teachers_page_names():
    page = (bundle.ROOT / "docs" / "teaching" / "README.md").read_text(encoding="utf-8")
    assert bundle.KEY in {f"docs/teaching/{name}" for name in re.findall(r"\]\(([\w.]+)\)", page)}


def test_a_target_or_version_that_is_none_is_told(capsys):
    assert bundle.main(["amiga"]) == 1 and "windows, macos, linux" in capsys.readouterr().err
    assert bundle.main(["windows", "3.11"]) == 1
    assert bundle.main(["windows", "3.11.9", "more"]) == 1
