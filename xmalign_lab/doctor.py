"""What is installed, what is missing, and the command that mends it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from xmalign_lab import profile

# Package and the lowest version that will do; a test holds these against pyproject.toml.
PACKAGES = {
    "torch": "2.6",
    "numpy": "2",
    "pandas": "3",
    "plotly": "6",
    "ipywidgets": "8",
    "anywidget": "0",
    "jupyterlab": "4",
    "umap-learn": "0",
}
LOWEST_PYTHON = (3, 11)
FREE_DISK_GB = 2.0
# A letter of each script whose fonts a Linux may lack; Windows and macOS bring theirs (`style.FACES`).
LETTERS = {"Sinhala": "0d85", "Ethiopic": "12a0", "Myanmar": "1000", "Arabic": "0627", "Cherokee": "13a0"}
FONTS = {"apt": "sudo apt install fonts-noto-core", "dnf": "sudo dnf install google-noto-fonts-common google-noto-sans-*-fonts"}
FONTS |= {
    "pacman": "sudo pacman -S noto-fonts",
    "zypper": "sudo zypper install google-noto-fonts",
    "apk": "sudo apk add font-noto-all",
}


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `mend` is the command that puts it right; `needed` says whether work stops without it."""

    name: str
    value: str
    ok: bool
    mend: str = ""
    needed: bool = True


def diagnose() -> list[Finding]:
    """Look at everything; never raises, because a broken environment is what it is for."""
    looks = {"python": _python} | {name: partial(_package, name, lowest) for name, lowest in PACKAGES.items()}
    looks |= {"device": _device, "torchvision": _torchvision, "widgets": _widgets, "cache": _cache, "disk": _disk, "npm": _npm}
    looks |= {"emoji data": _emoji, "fonts": _fonts}
    return [_looked(name, look) for name, look in looks.items()]


def _looked(name: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except Exception as error:  # of an environment broken in a way that nobody thought of
        needed = name not in ("torchvision", "disk", "npm", "emoji data", "fonts")
        return Finding(name, f"cannot be looked at: {_said(error)}", False, f"{_install()} --force-reinstall", needed)


def _said(error: Exception) -> str:
    """An error in one line."""
    return " ".join(f"{error}".split()) or type(error).__name__


def _python_command() -> str:
    """This Python in a command line: in double quotes, which cmd.exe reads too, where its path needs any."""
    return f'"{sys.executable}"' if re.search(r"[^\w./\\:~+-]", sys.executable) else sys.executable


def _install() -> str:
    return f'{_python_command()} -m pip install -c constraints.txt -e ".[lab]"'


def report(findings: list[Finding]) -> str:
    """The findings as a table, one line each, and a line with the command under each problem."""
    wide = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        mark = "ok  " if finding.ok else "FAIL" if finding.needed else "note"
        lines.append(f"{mark}  {finding.name:<{wide}}  {finding.value}")
        if not finding.ok:
            lines.append(f"      {'':<{wide}}  → {finding.mend}")
    return "\n".join(lines)


def broken(findings: list[Finding]) -> bool:
    """Whether something needed is not in order."""
    return any(finding.needed and not finding.ok for finding in findings)


def _python() -> Finding:
    ok = sys.version_info[:2] >= LOWEST_PYTHON
    mend = f"make PYTHON=python{'.'.join(map(str, LOWEST_PYTHON))} setup   (or a newer one)"
    return Finding("python", f"{platform.python_version()}, {platform.system()} {platform.machine()}", ok, mend)


def _package(name: str, lowest: str) -> Finding:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "not installed", False, _install())
    ok = _numbers(version) >= _numbers(lowest)
    return Finding(name, version if ok else f"{version} is too old; {lowest} or newer is needed", ok, _install())


def _numbers(version: str) -> list[int]:
    """[2, 13, 0] of '2.13.0+cpu'."""
    return [int(part) for part in re.findall(r"\d+", version.split("+")[0])]


def _device() -> Finding:
    try:
        torch = importlib.import_module("torch")
        return Finding("device", f"{profile.device()}, {torch.get_num_threads()} threads of {os.cpu_count()} cores", True)
    except Exception as error:  # an AttributeError too, from a torch imported by half
        return Finding("device", f"torch does not import: {_said(error)}", False, f"{_install()} --force-reinstall torch")


def _torchvision() -> Finding:
    """A CPU torch beside a torchvision built for CUDA lacks its operators, and takes open_clip, timm and transformers down."""
    try:
        version = importlib.import_module("torchvision").__version__
        return Finding("torchvision", str(version), True, needed=False)
    except ModuleNotFoundError as error:
        if error.name == "torchvision":
            return Finding("torchvision", "not installed, which is fine: only pretrained encoders use it", True, needed=False)
        problem = _said(error)
    except Exception as error:
        problem = _said(error)
    if "torchvision::nms" in problem:
        problem = f"its build does not match torch's ({problem}): without xmalign, open_clip fails"
    mend = f"{_python_command()} -m pip uninstall -y torchvision   (then torch and torchvision together, from one index)"
    return Finding("torchvision", problem, False, mend, needed=False)


def _widgets() -> Finding:
    """JupyterLab shows a widget only if it finds the browser half of ipywidgets and of anywidget."""
    try:
        folders = importlib.import_module("jupyter_core.paths").jupyter_path("labextensions")
    except ImportError:
        return Finding("widgets", "Jupyter is not installed", False, _install())
    wanted = ("@jupyter-widgets/jupyterlab-manager", "anywidget")
    missing = [name for name in wanted if not any((Path(folder) / name).is_dir() for folder in folders)]
    if missing:
        mend = f"{_python_command()} -m pip install -c constraints.txt --force-reinstall --no-deps anywidget jupyterlab_widgets"
        return Finding("widgets", f"JupyterLab does not find {' and '.join(missing)}", False, mend)
    return Finding("widgets", "JupyterLab finds ipywidgets and anywidget", True)


def _cache() -> Finding:
    folder = profile.cache_root()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        return Finding("cache", f"{folder} is writable", True)
    except OSError as error:
        windows = platform.system() == "Windows"
        mend = "set XMALIGN_CACHE=C:\\a\\folder\\you\\may\\write" if windows else 'export XMALIGN_CACHE="/a/folder/you/may/write"'
        return Finding("cache", f"{folder} is not writable ({error.strerror})", False, mend)


def _disk() -> Finding:
    folder = profile.cache_root()
    free = shutil.disk_usage(next(one for one in (folder, *folder.parents) if one.exists())).free / 1e9
    return Finding("disk", f"{free:.1f} GB free", free >= FREE_DISK_GB, "make clean", needed=False)


def _npm() -> Finding:
    path = shutil.which("npm")
    mend = "install Node.js with npm (conda install nodejs, apt install npm, brew install node); scenes work without"
    return Finding("npm", path or "not found; it fetches the emoji data", path is not None, mend, needed=False)


def _emoji() -> Finding:
    try:
        lacking = importlib.import_module("xmalign_lab.corpora.emoji").missing()
    except Exception as error:
        lacking = f"cannot be looked for: {_said(error)}"
    found = f"all packages under {profile.data_root()}"
    return Finding("emoji data", lacking or found, not lacking, "xmalign fetch emoji", needed=False)


def _fonts() -> Finding:
    """Which scripts would show as boxes; told by fontconfig, which Windows and macOS do without."""
    if platform.system() in ("Windows", "Darwin"):
        return Finding("fonts", f"{platform.system()} brings {', '.join(LETTERS)}", True, needed=False)
    by_hand = "install the Noto Sans fonts of these scripts, and fontconfig"
    mend = next((command for tool, command in FONTS.items() if shutil.which(tool)), by_hand)
    try:
        lacking = [script for script, letter in LETTERS.items() if not _found(f":charset={letter}")]
    except OSError:
        return Finding("fonts", "fc-list is not there to ask which scripts have a font", False, mend, needed=False)
    said = f"none for {', '.join(lacking)}: boxes instead of letters" if lacking else f"{', '.join(LETTERS)}: all have one"
    return Finding("fonts", said, not lacking, mend, needed=False)


def _found(pattern: str) -> str:
    """fontconfig's families that fit; an old Unicode fallback that draws code points in boxes is no font."""
    listed = subprocess.run(["fc-list", pattern, "family"], capture_output=True, text=True, check=False).stdout
    return "".join(line for line in listed.splitlines() if "Last Resort" not in line and "Unifont" not in line)
