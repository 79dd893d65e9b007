"""Features computed once: a folder per corpus and encoder, named by a hash of all that the vectors depend on.

    <cache>/features/<address>/   vectors.npy (or data, indices, indptr), tokens.npy …, and meta.json, written last

An entry is written into a folder beside it and then renamed, which is atomic: a reader meets a whole entry or none,
whoever was killed. A lock lets two processes ask for one entry; the second waits. Sizes and checksums are verified on
every read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock
from scipy import sparse

from xmalign_lab import profile
from xmalign_lab.corpus import Corpus, CorpusError, read_image
from xmalign_lab.encoders.classic import rows_of
from xmalign_lab.encoders.features import Encoder, Features, features_arrays

LAYOUT = 1  # the version of the files below


def encode(corpus: Corpus, encoder: Encoder, cache: str | Path | None = None, progress: bool = True) -> Features:
    """`encoder.encode(corpus)`, or the same read from disk if it has been computed before.

    `cache` is a folder, by default `profile.cache_root()`. What is read is memory-mapped, copy-on-write. A damaged
    entry is announced in one line and computed again. Raises `CorpusError`, before anything is encoded, if the
    folder cannot be written or a picture is missing.
    """
    folder = Path(cache or profile.cache_root()) / "features"
    rows = rows_of(corpus, encoder.modality)
    entry = folder / address(corpus, encoder)
    if entry.is_dir():
        try:
            return _read(entry, rows.id.to_numpy())
        except (OSError, ValueError, KeyError) as damage:
            print(f"{entry}: damaged ({damage}); computing these features again")
    with _unfinished(folder, entry.name) as beside:
        with suppress(OSError, ValueError, KeyError):  # the process that was waited for has made it
            return _read(entry, rows.id.to_numpy())
        features = encoder.encode(corpus, progress=progress)
        try:
            _write(beside, features, encoder.spec())
            shutil.rmtree(entry, ignore_errors=True)  # a damaged one
            os.rename(beside, entry)
        except OSError as error:
            raise _not_writable(folder, error) from error
    return features


def address(corpus: Corpus, encoder: Encoder) -> str:
    """SHA-256 (hex) over the encoder's `spec()` and, for each row it encodes, the id and content.

    The content of a text is the text and its language. The content of a picture is the bytes of its file, if
    `read_image` opens it. Another opener (rendered scenes, say) may have an attribute `fingerprint`, a string that names
    all that its pictures depend on beside their references; without one, each picture is opened and its pixels count.
    """
    rows = rows_of(corpus, encoder.modality)
    digest = hashlib.sha256(json.dumps([LAYOUT, encoder.spec()], sort_keys=True).encode())
    if encoder.modality == "text":
        digest.update(json.dumps([list(rows.id), list(rows.lang), list(rows.text)]).encode())
        return digest.hexdigest()
    fingerprint = getattr(corpus.open_image, "fingerprint", "")
    digest.update(json.dumps([fingerprint, list(rows.id)]).encode())
    items = list(zip(rows.id, rows.image, strict=True))
    parts = [items[start : start + 256] for start in range(0, len(items), 256)]
    from_files = corpus.open_image is read_image
    with ThreadPoolExecutor(8 if from_files else 1) as threads:  # eight, for disks that answer slowly
        for content in threads.map(lambda part: b"".join(_content(corpus, *item) for item in part), parts):
            digest.update(content)
    return digest.hexdigest()


def _content(corpus: Corpus, row_id: str, reference: str) -> bytes:
    """32 bytes that change whenever the picture does."""
    try:
        if corpus.open_image is read_image or (hasattr(corpus.open_image, "fingerprint") and os.path.isfile(reference)):
            with open(reference, "rb", buffering=0) as file:
                content = file.read()
        elif hasattr(corpus.open_image, "fingerprint"):
            content = reference.encode()
        else:
            picture = corpus.open_image(reference)
            content = f"{picture.mode} {picture.size} ".encode() + picture.tobytes()
    except OSError as error:
        where = corpus.where or corpus.name
        raise CorpusError(f"{where}, id {row_id!r}: {reference}: no readable image file ({error.strerror})") from None
    return hashlib.sha256(content).digest()


def _not_writable(folder: Path, error: OSError) -> CorpusError:
    return CorpusError(
        f"the cache folder {folder} cannot be written ({error.strerror or error}); set XMALIGN_CACHE to a folder that can"
    )


@contextmanager
def _unfinished(folder: Path, name: str) -> Iterator[Path]:
    """A folder beside the entry to write into, made before the work starts and gone after it, one process at a time."""
    beside = folder / f".unfinished-{name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / f".{name}.lock").acquire()
    except OSError as error:
        raise _not_writable(folder, error) from None
    with held:
        try:
            beside.mkdir(exist_ok=True)  # perhaps of a process that was killed; all that counts is written again
            yield beside
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def _write(folder: Path, features: Features, spec: dict) -> None:
    """The arrays, then meta.json with their checksums; all of it on the disk before this returns."""
    files = {}
    for name, array in features_arrays(features).items():
        path = folder / f"{name}.npy"
        with open(path, "wb") as file:
            np.save(file, array)
            file.flush()
            os.fsync(file.fileno())
        files[name] = {"shape": array.shape, "dtype": array.dtype.str, "size": path.stat().st_size, "sha256": _sha256(path)}
    meta = {"layout": LAYOUT, "key": features.key, "shape": features.vectors.shape, "spec": spec, "files": files}
    with open(folder / "meta.json", "w", encoding="utf-8") as file:
        json.dump(meta, file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verified(entry: Path) -> dict:
    """The entry's meta.json, after every file was found to have the size and checksum it states; else `ValueError`."""
    meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
    for name, facts in meta["files"].items():
        path = entry / f"{name}.npy"
        size = path.stat().st_size
        if size != facts["size"]:
            raise ValueError(f"{path.name} has {size:,} of {facts['size']:,} bytes")
        if _sha256(path) != facts["sha256"]:
            raise ValueError(f"{path.name} does not match its checksum")
    return meta


def _read(entry: Path, ids: np.ndarray) -> Features:
    meta = _verified(entry)
    # mode "c" (copy-on-write), because torch warns about arrays it may not write to; nothing reaches the file
    arrays = {name: np.load(entry / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in meta["files"]}
    if "vectors" in arrays:
        vectors = arrays.pop("vectors")
    else:
        parts = [arrays.pop(name) for name in ("data", "indices", "indptr")]
        vectors = sparse.csr_matrix(tuple(parts), shape=tuple(meta["shape"]))
    return Features(ids, vectors, **arrays, key=meta["key"])
