"""`make bundle`: one zip that installs and starts with no network, no make and no npm.

    python bench/bundle.py [this|windows|macos|linux] [PYTHON] [--with-key]

In it: the sources that git knows, every wheel for the target and for one version of Python (default: this one's), the emoji
data with their licences, start.bat, start.sh and start.py, and a list of SHA-256 sums. Students get the zip, so the key to the
check questions stays out; a teacher's own copy has it, --with-key. The wheels are what pip finds here; downloads are kept in
`build/wheels-…` and taken up again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from email import message_from_bytes
from email.message import Message
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this file is run as a script, and `bench` is no installed package
from xmalign_lab.corpora import emoji  # noqa: E402

STARTERS = Path(__file__).resolve().parent / "templates" / "bundle"
EXTRAS = ("lab", "app")
KEY = "docs/teaching/key.md"  # the answers: students unzip the bundle
BUILDING = "setuptools>=77"  # what pyproject.toml's build-system asks for
LINUX = [f"manylinux_2_{n}_x86_64" for n in (28, 27, 24, 17, 12, 5)] + ["manylinux2014_x86_64", "manylinux1_x86_64"]
# pip's platform tags, and what the markers of requirements read there: pip itself would ask this machine.
TARGETS = {
    "this": ([], {}),
    "windows": (
        ["win_amd64"],
        {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt", "platform_machine": "AMD64"},
    ),
    "macos": (
        ["macosx_14_0_arm64"],
        {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix", "platform_machine": "arm64"},
    ),
    "linux": (
        LINUX,
        {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"},
    ),
}


class BundleError(ValueError):
    """What the bundle lacks, and what to do."""


def requirements(roots: Iterable[str], markers: Mapping[str, str]) -> list[str]:
    """Everything that `roots` need where `markers` hold, by what is installed here: "name" in its normal form, sorted."""
    waiting, extras_of = [Requirement(root) for root in roots], {}
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        new = {"", *wanted.extras} - extras_of.setdefault(name, set())
        extras_of[name] |= new
        try:
            needs = importlib.metadata.requires(name) or [] if new else []
        except importlib.metadata.PackageNotFoundError:  # of the other system alone, such as pywinpty
            continue
        for need in map(Requirement, needs):
            if not need.marker or any(need.marker.evaluate({**markers, "extra": extra}) for extra in new):
                waiting.append(need)
    return sorted(extras_of)


def pinned(names: Iterable[str], constraints: str) -> list[str]:
    """Each as "name==version" as `constraints` (the text of constraints.txt) has it; bare where it has none."""
    lines = [line for line in constraints.splitlines() if "==" in line]
    exact = {canonicalize_name(line.split("==")[0]): line.split("==")[1].strip() for line in lines}
    return [f"{name}=={exact[name]}" if name in exact else BUILDING if name == "setuptools" else name for name in names]


def wheels(target: str, python: str, folder: Path) -> list[Path]:
    """Every wheel for the target, by pip, in `folder`. Raises `BundleError` naming what has none."""
    tags, markers = TARGETS[target]
    minor = ".".join(python.split(".")[:2])
    markers = markers | {"python_version": minor, "python_full_version": python}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    roots = project["dependencies"] + [need for extra in EXTRAS for need in project["optional-dependencies"][extra]]
    names = requirements([*roots, "setuptools", "wheel"], markers)
    lines = pinned(names, (ROOT / "constraints.txt").read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "requirements.txt").write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
    command += [word for tag in tags for word in ("--platform", tag)] + ["-r", str(folder / "requirements.txt")]
    command += ["--python-version", python] if tags or python != ".".join(map(str, sys.version_info[:3])) else []
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8")
    done, said, begun = 0, [], time.monotonic()
    for line in run.stdout:
        said.append(line.strip())
        if re.match(r"Collecting |Requirement already|Looking in", line.strip()) is None:
            continue
        done += line.strip().startswith("Collecting ")
        _tell(f"  wheels {done}/{len(lines)}, {time.monotonic() - begun:.0f} s: {said[-1][:60]}")
    if run.wait():
        raise BundleError(f"{target}, Python {python}: " + next((x for x in said[::-1] if x.startswith("ERROR")), said[-1]))
    found = {canonicalize_name(parse_wheel_filename(file.name)[0]): file for file in sorted(folder.glob("*.whl"))}
    if lacking := [name for name in names if name not in found]:
        raise BundleError(f"no wheel came for {', '.join(lacking)}")
    for name in names:  # what is not installed here, the list above knew nothing of
        needs = map(Requirement, metadata(found[name]).get_all("Requires-Dist", ()))
        needs = {canonicalize_name(n.name) for n in needs if not n.marker or n.marker.evaluate({**markers, "extra": ""})}
        if unmet := sorted(needs - found.keys()):
            raise BundleError(f"{name} needs {', '.join(unmet)}, unknown here; install {name} and try again")
    return [found[name] for name in names]  # and none that an older list left there


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as opened:
        name = next(name for name in opened.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        return message_from_bytes(opened.read(name))


def least_micro(files: Iterable[Path], minor: str) -> int:
    """The lowest third number of a Python `minor` ("3.11") that all wheels accept, by their Requires-Python."""
    asked = " ".join(metadata(file).get("Requires-Python", "") for file in files)
    return max([0, *(int(n) for n in re.findall(rf">= ?{re.escape(minor)}\.(\d+)", asked))])


def sources(with_key: bool = False) -> Iterator[tuple[str, Path]]:
    """What git knows, (name in the bundle, file); the answers to the check questions only on demand."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and (with_key or name != KEY):
            yield name, ROOT / name


def data() -> Iterator[tuple[str, Path]]:
    """The emoji data in use: pictures, names, licences. Raises `BundleError` if they were not fetched."""
    if lacking := emoji.missing():
        raise BundleError(f"{lacking}; run: xmalign fetch emoji")
    for package, parts in emoji.PARTS.items():
        if package != "openmoji":  # shared alike (CC BY-SA), and no notebook asks for it
            folder = emoji.folder() / package
            kept = {file for part in parts for file in [folder / part, *(folder / part).rglob("*")]}
            kept |= {file for file in folder.iterdir() if re.match(r"package\.json|licen|notice|copying", file.name, re.I)}
            for file in sorted(file for file in kept if file.is_file()):
                yield f"data/emoji/node_modules/{file.relative_to(emoji.folder()).as_posix()}", file


def starters(target: str, minor: str, micro: int) -> dict[str, bytes]:
    """start.py, start.bat, start.sh and BUNDLE.txt, filled in; the .bat with CRLF."""
    facts = {
        "@EXTRAS@": ",".join(EXTRAS),
        "@MINOR@": minor,
        "@MICRO@": str(micro),
        "@TARGET@": target,
        "@DATE@": time.strftime("%Y-%m-%d"),
    }
    found = {}
    for file in sorted(STARTERS.iterdir()):
        text = file.read_text(encoding="utf-8")
        for name, value in facts.items():
            text = text.replace(name, value)
        newline = "\r\n" if file.suffix in (".bat", ".txt") else "\n"
        found[file.name] = text.replace("\n", newline).encode()
    return found


def pack(out: Path, files: Iterable[tuple[str, Path]], texts: Mapping[str, bytes]) -> Path:
    """Zip `files` and `texts` under one folder named as `out`, with SHA256SUMS; wheels and pictures are stored as they are."""
    sums, part = [], out.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as bundle:
        for number, (name, content) in enumerate([*texts.items(), *files]):
            content = content if isinstance(content, bytes) else content.read_bytes()
            entry = zipfile.ZipInfo(f"{out.stem}/{name}", time.localtime()[:6])
            entry.external_attr = (0o755 if name.endswith(".sh") else 0o644) << 16
            entry.compress_type = zipfile.ZIP_STORED if name.endswith((".whl", ".png")) else zipfile.ZIP_DEFLATED
            bundle.writestr(entry, content)
            sums.append(f"{hashlib.sha256(content).hexdigest()}  {name}")
            if number % 200 == 0:
                _tell(f"  packing, {number:,} files, {part.stat().st_size / 1e6:.0f} MB")
        bundle.writestr(f"{out.stem}/SHA256SUMS", "\n".join(sums) + "\n")
    part.replace(out)
    return out


def _tell(said: str) -> None:
    print(f"\r\033[K{said}" if sys.stdout.isatty() else said, end="" if sys.stdout.isatty() else "\n", flush=True)


def main(arguments: list[str]) -> int:
    here = ".".join(map(str, sys.version_info[:3]))
    with_key, arguments = "--with-key" in arguments, [word for word in arguments if word != "--with-key"]
    target, python, *more = (*arguments, *("this", here)[len(arguments) :])
    begun, minor = time.monotonic(), ".".join(python.split(".")[:2])
    if more or target not in TARGETS or not re.fullmatch(r"3\.\d+\.\d+", python):
        print(f"bundle: {' '.join(arguments)!r}: name one of {', '.join(TARGETS)}, and a version such as {here}", file=sys.stderr)
        return 1
    out = ROOT / "build" / f"xmalign-{target}-py{minor.replace('.', '')}{'-with-key' * with_key}.zip"
    try:
        found = wheels(target, python, ROOT / "build" / f"wheels-{target}-{minor}")
        told = starters(target, minor, least_micro(found, minor))
        files = [*sources(with_key), *data(), *((f"wheels/{file.name}", file) for file in found)]
    except BundleError as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 1
    pack(out, files, told)
    largest = max(found, key=lambda file: file.stat().st_size)
    sizes = [sum(file.stat().st_size for name, file in files if name.startswith(part)) for part in ("wheels/", "data/emoji/")]
    print(f"\n{len(found)} wheels {sizes[0] / 1e6:.0f} MB ({largest.name} {largest.stat().st_size / 1e6:.0f} MB), ", end="")
    print(f"emoji data {sizes[1] / 1e6:.0f} MB unpacked")
    print(f"{out.relative_to(ROOT)}: {out.stat().st_size / 1e6:.0f} MB in {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
