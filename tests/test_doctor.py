"""Each problem that `xmalign doctor` knows, brought about on purpose."""

import importlib
import importlib.metadata
import re
import sys
import tomllib
import unicodedata
from collections import namedtuple
from types import SimpleNamespace

import pytest

from xmalign_lab import cli, doctor, profile, style
from xmalign_lab.corpora import emoji, review


def finding(name):
    return next(one for one in doctor.diagnose() if one.name == name)


def failing_import(monkeypatch, module, error):
    real = importlib.import_module

    def load(name, *rest):
        if name == module:
            raise error
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", load)


@pytest.fixture
def versions(monkeypatch):
    """Pretend versions; None means not installed."""
    real, pretended = importlib.metadata.version, {}

    def version(name):
        if name not in pretended:
            return real(name)
        if pretended[name] is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return pretended[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    return pretended


def test_every_problem_comes_with_a_mend():
    findings = doctor.diagnose()
    assert {"python", "torch", "device", "torchvision", "widgets", "cache", "disk", "npm", "emoji data", "fonts"} <= {
        f.name for f in findings
    }
    assert all(f.mend for f in findings if not f.ok)


def test_old_python(monkeypatch):
    monkeypatch.setattr(sys, "version_info", namedtuple("V", "major minor micro")(3, 10, 2)[:3])
    assert not finding("python").ok and "python3.11" in finding("python").mend


@pytest.mark.parametrize("version, ok", [(None, False), ("1.26.4", False), ("2.0.0", True), ("10.1rc1", True)])
def test_package_versions(versions, version, ok):
    versions["numpy"] = version
    assert finding("numpy").ok is ok
    if not ok:
        assert "pip install" in finding("numpy").mend and doctor.broken(doctor.diagnose())


def test_local_version_suffix_does_not_matter(versions):
    versions["torch"] = "2.13.0+cpu"
    assert finding("torch").ok


def test_torch_that_does_not_import(monkeypatch):
    failing_import(monkeypatch, "torch", OSError("libtorch.so: cannot open shared object file"))
    assert not finding("device").ok and "libtorch" in finding("device").value


@pytest.mark.parametrize("module", ["torch", "torchvision", "xmalign_lab.corpora.emoji", "jupyter_core.paths"])
@pytest.mark.parametrize("error", [AttributeError("partially initialized module 'torch' has no\nattribute '_C'"), ValueError()])
def test_whatever_an_import_raises_is_told_in_one_line(monkeypatch, module, error):
    name = {"torch": "device", "xmalign_lab.corpora.emoji": "emoji data", "jupyter_core.paths": "widgets"}.get(module, module)
    failing_import(monkeypatch, module, error)
    found = finding(name)
    assert not found.ok and found.mend and "\n" not in found.value
    assert ("has no attribute '_C'" if str(error) else "ValueError") in found.value


def test_it_never_raises_whatever_breaks_and_all_else_is_still_looked_at(monkeypatch):
    def broken(*_, **__):
        raise PermissionError(13, "Permission denied")

    names = [found.name for found in doctor.diagnose()]
    monkeypatch.setattr(doctor.shutil, "disk_usage", broken)
    monkeypatch.setattr(doctor.profile, "cache_root", broken)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: None)  # half of a package is left
    found = {found.name: found for found in doctor.diagnose()}
    assert list(found) == names
    assert found["numpy"].needed and found["cache"].needed and not found["disk"].needed
    for name in ("numpy", "cache", "disk"):
        assert not found[name].ok and "cannot be looked at" in found[name].value and found[name].mend
    assert doctor.report(list(found.values())).count("\n") >= len(names)


@pytest.mark.parametrize("path", [r"C:\Program Files\py\python.exe", "/home/a b/bin/python", r"C:\py&co\python.exe"])
def test_commands_work_in_cmd_too(monkeypatch, versions, tmp_path, path):
    versions["numpy"] = None
    failing_import(monkeypatch, "torch", ImportError("no"))
    failing_import(monkeypatch, "torchvision", ImportError("no"))
    monkeypatch.setattr("jupyter_core.paths.jupyter_path", lambda *_: [])
    monkeypatch.setattr(sys, "executable", path)
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XMALIGN_CACHE", str(tmp_path / "file" / "cache"))
    for system, sets in (("Windows", "set XMALIGN_CACHE=C:"), ("Linux", 'export XMALIGN_CACHE="/')):
        monkeypatch.setattr(doctor.platform, "system", lambda system=system: system)
        mends = {name: finding(name).mend for name in ("numpy", "device", "torchvision", "widgets", "cache")}
        assert mends.pop("cache").startswith(sets)
        assert all(mend.startswith(f'"{path}" -m pip ') and "'" not in mend for mend in mends.values())
        assert '-e ".[lab]"' in mends["numpy"]
    monkeypatch.setattr(sys, "executable", r"C:\py\python.exe")  # which PowerShell reads only without quotes
    assert finding("numpy").mend.startswith(r"C:\py\python.exe -m pip ")


def test_torchvision_of_another_build_is_named(monkeypatch):
    failing_import(monkeypatch, "torchvision", RuntimeError("operator torchvision::nms does not exist"))
    found = finding("torchvision")
    assert not found.ok and not found.needed
    assert "does not match torch" in found.value and "open_clip" in found.value and "uninstall -y torchvision" in found.mend


def test_torchvision_absent_is_fine_but_its_own_missing_part_is_not(monkeypatch):
    failing_import(monkeypatch, "torchvision", ModuleNotFoundError("no", name="torchvision"))
    assert finding("torchvision").ok
    failing_import(monkeypatch, "torchvision", ModuleNotFoundError("No module named 'PIL'", name="PIL"))
    assert not finding("torchvision").ok and "PIL" in finding("torchvision").value


def test_widgets_without_their_browser_half(monkeypatch, tmp_path):
    (tmp_path / "anywidget").mkdir()
    monkeypatch.setattr("jupyter_core.paths.jupyter_path", lambda *_: [str(tmp_path)])
    assert not finding("widgets").ok and "jupyterlab-manager" in finding("widgets").value
    (tmp_path / "@jupyter-widgets" / "jupyterlab-manager").mkdir(parents=True)
    assert finding("widgets").ok


def test_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XMALIGN_CACHE", str(tmp_path / "file" / "cache"))
    found = finding("cache")
    assert not found.ok and found.needed and "XMALIGN_CACHE" in found.mend
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_little_disk_and_no_npm_are_notes(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=1e9))
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    for name in ("disk", "npm"):
        assert not finding(name).ok and not finding(name).needed
    assert "1.0 GB" in finding("disk").value


def test_emoji_data_missing_in_part(monkeypatch, tmp_path):
    monkeypatch.setenv("XMALIGN_DATA", str(tmp_path))
    names = [name for name in emoji.PARTS if name != "openmoji"]
    for name in names:
        found = finding("emoji data")
        assert not found.ok and not found.needed and found.mend == "xmalign fetch emoji"
        assert found.value == f"{tmp_path / 'emoji' / 'node_modules' / name} is not there"
        (tmp_path / "emoji" / "node_modules" / name).mkdir(parents=True)
        (tmp_path / "emoji" / "node_modules" / name / "package.json").write_text("{}")
    assert finding("emoji data").ok
    failing_import(monkeypatch, "xmalign_lab.corpora.emoji", ImportError("no pandas"))
    assert not finding("emoji data").ok and "no pandas" in finding("emoji data").value


def test_scripts_without_a_font_are_named_with_the_command_of_this_system(monkeypatch):
    listed = {":charset=0d85": "Noto Sans Sinhala", ":charset=0627": "Noto Sans Arabic", ":charset=1000": "Unifont"}

    def fc_list(command, **options):
        return SimpleNamespace(stdout=listed.get(command[1], "") + "\n")

    monkeypatch.setattr(doctor.subprocess, "run", fc_list)
    monkeypatch.setattr(doctor.platform, "system", lambda: "Linux")
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/bin/dnf" if name == "dnf" else None)
    found = finding("fonts")
    assert not found.ok and not found.needed and "dnf install" in found.mend
    assert found.value == "none for Ethiopic, Myanmar, Cherokee: boxes instead of letters"
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert "Noto Sans" in finding("fonts").mend
    listed.update(dict.fromkeys((f":charset={letter}" for letter in doctor.LETTERS.values()), "Noto"))
    assert finding("fonts").ok


def test_systems_that_bring_their_fonts_are_not_asked_and_a_missing_fc_list_is_told(monkeypatch):
    def absent(command, **options):
        raise FileNotFoundError(2, "No such file", command[0])

    monkeypatch.setattr(doctor.subprocess, "run", absent)
    for system, ok in (("Windows", True), ("Darwin", True), ("Linux", False)):
        monkeypatch.setattr(doctor.platform, "system", lambda system=system: system)
        assert finding("fonts").ok is ok
    assert "fc-list" in finding("fonts").value


def test_each_script_asked_for_has_its_letters_and_its_fonts_in_the_style():
    scripts = {"Sinhala": "Sinh", "Ethiopic": "Ethi", "Myanmar": "Mymr", "Arabic": "Arab", "Cherokee": "Cher"}
    assert set(scripts) == set(doctor.LETTERS) and set(scripts.values()) == set(style.FACES)
    for script, letter in doctor.LETTERS.items():
        assert unicodedata.name(chr(int(letter, 16))).startswith(script.upper())
        noto, windows, mac = style.FACES[scripts[script]]
        assert noto == f"Noto Sans {script}" and all(f"'{face}'" in style.FONT for face in (noto, windows, mac))


def test_the_command_prints_mends_and_its_status_says_whether_work_can_go_on(monkeypatch, capsys):
    ok, note = doctor.Finding("a", "1", True), doctor.Finding("npm", "no", False, "get npm", needed=False)
    monkeypatch.setattr(doctor, "diagnose", lambda: [ok, note])
    assert cli.main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "note  npm" in printed and "→ get npm" in printed
    monkeypatch.setattr(doctor, "diagnose", lambda: [ok, doctor.Finding("torch", "no", False, "get torch")])
    assert cli.main(["doctor"]) == 1
    assert "FAIL  torch" in capsys.readouterr().out


def test_lowest_versions_are_those_of_pyproject():
    project = tomllib.loads((profile.repository() / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["lab"]]
    lowest = dict((one + ">=0").split(">=")[:2] for one in wanted)
    assert {name: lowest[name] for name in doctor.PACKAGES} == doctor.PACKAGES
    assert project["requires-python"] == ">=" + ".".join(map(str, doctor.LOWEST_PYTHON))


def test_commands_end_with_a_message_not_a_traceback(monkeypatch, capsys, tmp_path):
    assert cli.main(["fetch", "nonsense"]) == 1
    assert "emoji" in capsys.readouterr().err
    monkeypatch.setattr(cli, "_languages", lambda options: (_ for _ in ()).throw(ValueError("row 3 of t.csv")))
    assert cli.main(["languages"]) == 1
    assert capsys.readouterr().err == "xmalign languages: row 3 of t.csv\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file or directory", "out/mine.csv"), "out/mine.csv: No such file or directory"),
        (ModuleNotFoundError("No module named 'sklearn'"), "No module named 'sklearn'"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_other_errors_end_with_a_message_too(monkeypatch, capsys, error, said):
    monkeypatch.setattr(cli, "_languages", lambda options: (_ for _ in ()).throw(error))
    assert cli.main(["languages"]) == 1
    assert capsys.readouterr().err == f"xmalign languages: {said}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check"], "xmalign check: the following arguments are required: table; see xmalign check --help"),
        (["lagnuages"], "xmalign: argument COMMAND: invalid choice: 'lagnuages'"),
        (["languages", "sw"], "xmalign: unrecognized arguments: sw"),
        (["review", "out.csv", "--languages"], "xmalign review: argument --languages: expected at least one argument"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(capsys, arguments, said):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    printed = capsys.readouterr().err
    assert stopped.value.code == 2 and printed.startswith(said) and printed.count("\n") == 1


def test_without_a_command_the_help_is_shown(capsys):
    assert cli.main([]) == 2
    assert "COMMAND" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(versions, capsys):
    project = tomllib.loads((profile.repository() / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"xmalign {project['version']}\n"
    versions["xmalign-lab"] = None
    assert cli.main(["--version"]) == 1 and "xmalign-lab" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("nosuch.csv", None, "cannot be read, No such file or directory"),
        ("folder.csv", ..., "cannot be read, Is a directory"),
        ("empty.csv", b"", "the file is empty"),
        ("latin.csv", "language\ngrößer\n".encode("latin-1"), "line 2: not UTF-8"),
        ("open.csv", ",".join(review.COLUMNS).encode() + b'\nswh_Latn,"' + b"x\n" * 100_000, "line 2: a quote opens"),
    ],
)
def test_a_review_that_cannot_be_signed_is_named(tmp_path, capsys, name, content, said):
    path = tmp_path / name
    if content is ...:
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    assert cli.main(["review", "--sign", str(path)]) == 1
    printed = capsys.readouterr().err
    assert re.match(f"xmalign review: {re.escape(str(path))}[:,] {said}", printed) and printed.count("\n") == 1


def test_a_review_is_not_written_over_or_into_nowhere(tmp_path, capsys):
    (tmp_path / "mine.csv").write_text("answers")
    assert cli.main(["review", str(tmp_path / "mine.csv")]) == 1
    assert "mine.csv is there already, perhaps with answers; name another file" in capsys.readouterr().err
    assert (tmp_path / "mine.csv").read_text() == "answers"
    assert cli.main(["review", str(tmp_path / "nowhere/mine.csv")]) == 1
    assert capsys.readouterr().err == f"xmalign review: {tmp_path / 'nowhere/mine.csv'}: No such file or directory\n"
