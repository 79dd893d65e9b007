"""Fetching over HTTP from a server on this machine: resumed, checked, unpacked safely or not at all."""

import hashlib
import io
import os
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from xmalign_lab import cli, corpora
from xmalign_lab.corpora import archives
from xmalign_lab.corpus import CorpusError

NOISE = os.urandom(300_000)  # does not shrink, so that half of the archive is half of the file


def tarball(*members, mode="w:gz"):
    """A tar of `(name, bytes)` or ready-made `TarInfo`s."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def zipped(*members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in members:
            packed.writestr(name, data)
    return buffer.getvalue()


GOOD = tarball(("dev/eng_Latn.dev", b"a\n"), ("dev/swh_Latn.dev", b"b\n"), ("noise", NOISE))


@pytest.fixture
def server():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body, asked = self.server.body, self.headers.get("Range")
            self.server.asked.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
            if self.path != "/data.tar.gz" or start >= len(body):
                self.send_error(404 if self.path != "/data.tar.gz" else 416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self.wfile.write(body[start : start + self.server.most])

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        running.body, running.asked, running.ranges, running.most = GOOD, [], True, 1 << 30
        running.url = f"http://127.0.0.1:{running.server_port}/data.tar.gz"
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def digest(data):
    return hashlib.sha256(data).hexdigest()


def left(folder):
    """Every file below `folder`."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def fetch(server, folder):
    return archives.fetch(server.url, digest(server.body), folder)


@pytest.mark.parametrize("body", [GOOD, zipped(("dev/eng_Latn.dev", b"a\n"), ("dev/swh_Latn.dev", b"b\n"), ("noise", NOISE))])
def test_fetched_checked_and_unpacked(server, tmp_path, body):
    server.body = body
    assert fetch(server, tmp_path / "data" / "source") == tmp_path / "data" / "source"
    assert left(tmp_path / "data") == ["source/dev/eng_Latn.dev", "source/dev/swh_Latn.dev", "source/noise"]
    assert (tmp_path / "data/source/noise").read_bytes() == NOISE and server.asked == [None]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_transfer_goes_on_where_it_stopped(server, tmp_path, ranges):
    server.most, server.ranges = len(GOOD) // 2, ranges
    with pytest.raises(CorpusError, match=rf"broke off after {len(GOOD) // 2:,} of {len(GOOD):,} bytes; run it again"):
        fetch(server, tmp_path / "source")
    assert (tmp_path / ".fetching/source.part").read_bytes() == GOOD[: len(GOOD) // 2]
    server.most = 1 << 30
    fetch(server, tmp_path / "source")
    assert server.asked == [None, f"bytes={len(GOOD) // 2}-"]
    assert (tmp_path / "source/noise").read_bytes() == NOISE and not (tmp_path / ".fetching/source.part").exists()


def test_a_whole_file_that_was_not_unpacked_yet_is_used(server, tmp_path):
    (tmp_path / ".fetching").mkdir()
    (tmp_path / ".fetching/source.part").write_bytes(GOOD)
    fetch(server, tmp_path / "source")
    assert server.asked == [f"bytes={len(GOOD)}-"] and "source/noise" in left(tmp_path)


@pytest.mark.parametrize("there", [b"", b"something else", GOOD + b"more"])
def test_a_wrong_checksum_is_refused_and_the_file_removed(server, tmp_path, there):
    (tmp_path / ".fetching").mkdir()
    (tmp_path / ".fetching/source.part").write_bytes(there)
    wanted = digest(b"other") if not there else digest(GOOD)
    with pytest.raises(CorpusError, match=f"its SHA-256 is [0-9a-f]{{64}}, not {wanted}; it was removed"):
        archives.fetch(server.url, wanted, tmp_path / "source")
    assert left(tmp_path) == []
    fetch(server, tmp_path / "source")
    assert "source/noise" in left(tmp_path)


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_link(name, target):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return zipped(("good", b"x"), (info, target))


EVIL = {
    "absolute": tarball(("good", b"x"), ("/tmp/evil", b"x")),
    "above": tarball(("good", b"x"), ("../evil", b"x")),
    "above, deeper": tarball(("good", b"x"), ("a/../../evil", b"x")),
    "backslashes": tarball(("good", b"x"), ("..\\evil", b"x")),
    "drive": tarball(("good", b"x"), ("C:evil", b"x")),
    "symbolic link": tarball(("good", b"x"), link("out", "..")),
    "absolute link": tarball(("good", b"x"), link("out", "/etc")),
    "link, then through it": tarball(link("out", "../.."), ("out/evil", b"x")),
    "hard link": tarball(("good", b"x"), link("out", "../evil", tarfile.LNKTYPE)),
    "device": tarball(("good", b"x"), link("null", "", tarfile.CHRTYPE)),
    "pipe": tarball(("good", b"x"), link("pipe", "", tarfile.FIFOTYPE)),
    "zip, absolute": zipped(("good", b"x"), ("/tmp/evil", b"x")),
    "zip, above": zipped(("good", b"x"), ("../evil", b"x")),
    "zip, backslashes": zipped(("good", b"x"), ("a\\..\\..\\evil", b"x")),
    "zip, link": zip_link("out", "/etc"),
}


@pytest.mark.parametrize("kind", EVIL)
def test_members_that_could_leave_the_folder_are_refused(server, tmp_path, kind):
    server.body = EVIL[kind]
    with pytest.raises(CorpusError, match="the archive's member '.*' could leave the folder; nothing of it is kept"):
        fetch(server, tmp_path / "inner" / "source")
    assert left(tmp_path) == [] and not (tmp_path / "inner" / "source").exists()


@pytest.mark.parametrize("body", [b"no archive", GOOD[:-5000], zipped(("a", NOISE))[:-50]])
def test_damaged_archives_are_refused(server, tmp_path, body):
    server.body = body
    with pytest.raises(CorpusError, match="source.part: the archive cannot be unpacked"):
        fetch(server, tmp_path / "source")
    assert left(tmp_path) == []


def test_what_is_there_is_never_overwritten(server, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/mine").write_text("mine")
    with pytest.raises(CorpusError, match="source is there already"):
        fetch(server, tmp_path / "source")
    assert left(tmp_path) == ["source/mine"] and server.asked == []


def test_a_server_that_fails_is_said_in_one_line(server, tmp_path):
    for url, said in ((server.url + "x", "404"), ("http://127.0.0.1:1/x", "refused")):
        with pytest.raises(CorpusError, match=f"could not be fetched .*{said}"):
            archives.fetch(url, "", tmp_path / "source")
    assert not (tmp_path / "source").exists()


# The command


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("XMALIGN_DATA", str(tmp_path))
    return tmp_path


def test_fetch_by_a_card(server, data, monkeypatch, capsys):
    card = corpora.cards()["flores200"] | {"url": server.url, "sha256": digest(GOOD)}
    monkeypatch.setattr(corpora, "cards", lambda: {"flores200": card})
    for _ in range(2):  # the second time it is there
        assert cli.main(["fetch", "flores200"]) == 0
        assert capsys.readouterr().out == f"flores200: {data / 'flores200'}\n"
    assert server.asked == [None]
    assert corpora.load("flores200", ["sw"]).rows.text.tolist() == ["b"]


@pytest.mark.parametrize("name", ["flores200", "muse", "fasttext", "scenes"])
def test_fetch_says_how_to_get_what_it_may_not_fetch(data, capsys, name):
    assert cli.main(["fetch", name]) == 1
    assert corpora.cards()[name]["get"] in capsys.readouterr().err
    assert left(data) == []


def test_fetch_without_a_name_lists_what_there_is(data, capsys):
    (data / "sib200/swh_Latn").mkdir(parents=True)
    (data / "sib200/swh_Latn/train.tsv").touch()
    assert cli.main(["fetch"]) == 0
    printed = capsys.readouterr().out
    header, *listed, blank, legend = printed.splitlines()
    assert header.split() == ["name", "state", "seen_real", "folder", "licence"] and "seen_real: " in legend
    rows, how = {}, {}
    for line in listed:
        if line.startswith(" "):
            how[list(rows)[-1]] = line.strip()
        else:
            rows[line.split()[0]] = line
    assert list(rows) == list(corpora.available().name) and set(rows) == set(corpora.cards())
    assert rows["sib200"].split(maxsplit=4)[1:] == ["here", "yes", str(data / "sib200"), "Apache-2.0, CC-BY-SA-4.0"]
    assert rows["muse"].split(maxsplit=4)[1:] == ["bring", "no", str(data / "muse"), "CC-BY-NC-4.0"]
    assert rows["emoji"].split()[1:4] == ["fetch", "yes", str(data / "emoji")] and how["emoji"] == "→ xmalign fetch emoji"
    assert how["muse"].startswith("→ download") and how["muse"].endswith(str(data / "muse"))
    assert how["ntrex"].endswith(f"NTREX {data / 'ntrex'}") and "sib200" not in how
    assert rows["scenes"].split()[1:4] == ["here", "yes", "-"] and "load('scenes')" in how["scenes"]
    for arguments in (["--list"], ["muse", "--list"]):
        assert cli.main(["fetch", *arguments]) == 0 and capsys.readouterr().out == printed


def test_vectors_are_listed_as_here_once_they_are(data):
    (data / "fasttext").mkdir()
    assert not corpora.available().set_index("name").present["fasttext"]
    (data / "fasttext/cc.sw.300.vec.gz").touch()
    assert corpora.available().set_index("name").present["fasttext"]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("sib200", "sib200"),
        ("sib-200", "sib200"),
        ("SIB200", "sib200"),
        ("Tatoeba", "tatoeba"),
        ("laser_tatoeba", "tatoeba"),
        ("flores", "flores200"),
        ("NTREX-128", "ntrex"),
        ("XL-WA", "xlwa"),
        ("bli_xling_eval", "xling_eval"),
        ("awesome-align", "awesome"),
        ("table", "table"),
        ("tables", "table"),
    ],
)
def test_names_are_understood_in_other_spellings(said, meant):
    assert corpora.named(said) == meant


def test_an_exact_name_is_never_taken_for_a_longer_one(monkeypatch):
    monkeypatch.setattr(corpora, "cards", lambda: {"muse": {}, "muse_large": {}})
    assert corpora.named("MUSE") == "muse" and corpora.named("muse-large") == "muse_large"


@pytest.mark.parametrize("name", ["nonsense", "e", "ji", "-", "sib200 tatoeba"])
def test_a_name_that_is_none_or_several_is_refused_in_one_line(data, capsys, name):
    assert cli.main(["fetch", name]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"xmalign fetch: no single source is called {name!r}; there are ") and said.count("\n") == 1
    assert "belebele" in said and left(data) == []


def test_an_alias_fetches_what_its_name_does(data, capsys):
    (data / "sib200/swh_Latn").mkdir(parents=True)
    (data / "sib200/swh_Latn/train.tsv").touch()
    assert cli.main(["fetch", "SIB-200"]) == 0
    assert capsys.readouterr().out == f"SIB-200: {data / 'sib200'}\n"
