"""What every pretrained encoder needs: its library, its folder, digests of its files, batches that fit, pictures in RGB."""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from tqdm.auto import tqdm

from xmalign_lab.corpus import Corpus, CorpusError
from xmalign_lab.encoders.classic import opened, rows_of
from xmalign_lab.encoders.features import Features

FILES = ["*.json", "*.txt", "*.model", "*.safetensors", "*/config.json", "*/model.safetensors"]  # no pickles
HUB = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
TOKENIZER = ["tokenizer.json", "vocab.*", "*.model"]
_kept: list = []  # torch forgets an operator whose library is no longer held


def imported(package: str) -> ModuleType:
    """The package, for the extra `text`; a torchvision built for another torch is mended first, or it would not import.

    Beside a CPU build of torch, a torchvision built for CUDA lacks its own operators and fails with "operator
    torchvision::nms does not exist", and with it timm, open_clip, peft and every model of transformers. Their two schemas
    are declared, and then all works but `torchvision.io` and the operators themselves, which no encoder needs.
    `xmalign doctor` names the case.
    """
    try:
        with suppress(ModuleNotFoundError):  # transformers does without
            importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _kept.append(torch.library.Library("torchvision", "DEF"))
        for operator in ("nms", "qnms"):
            _kept[-1].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise CorpusError(f"{error.name} is not installed; pip install -c constraints.txt -e '.[text]'") from None


@contextmanager
def loading(what: str | Path, hint: str = "") -> Iterator[None]:
    """Whatever goes wrong inside becomes a `CorpusError`: a file of somebody else's can fail in any way."""
    try:
        yield
    except CorpusError:
        raise
    except Exception as error:
        raise CorpusError(f"{what} cannot be loaded: {error}{hint}") from error


def on_disk(name: str | Path) -> bool:
    """Whether `name` can only be a path, or is one that is there; the hub's names are MODEL or OWNER/MODEL."""
    return isinstance(name, Path) or Path(name).exists() or not HUB.fullmatch(name)


def folder_of(name: str | Path, needed: Sequence[Sequence[str]], files: Sequence[str] = FILES) -> Path:
    """The folder `name`, or where the hub's model of that name lies after being downloaded once.

    `needed` is a list of alternatives: of each, one pattern must be met. Raises `CorpusError` for a folder that is not there or
    lacks something, and for a name that the hub does not give, with what to do without a network.
    """
    folder, wanted = Path(name).expanduser(), ", ".join(" or ".join(names) for names in needed)
    if not folder.is_dir() and on_disk(name):
        raise CorpusError(f"{folder} is no folder; give one with {wanted}")
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(from_hub(name, lambda: snapshot_download(str(name), allow_patterns=[*files])))
    # Where transformers finds no tokenizer it makes one that knows no word, and says nothing
    if lacking := [" or ".join(names) for names in needed if not any(any(folder.glob(name)) for name in names)]:
        raise CorpusError(f"{folder} holds no {lacking[0]}; such a folder needs {wanted}")
    return folder


def from_hub(name: str | Path, download: Callable[[], str]) -> str:
    """What `download` returns; if it fails, a `CorpusError` that says what to do without a network."""
    try:
        return download()
    except Exception as error:  # a proxy's refusal, say, is no OSError
        elsewhere = f"`hf download {name} --local-dir FOLDER` on a machine with a network, bring the folder, and give its path"
        raise CorpusError(f"{str(name)!r} is no folder, and the hub did not give it: {error}\nInstead: {elsewhere}") from None


def digests(folder: Path, patterns: Iterable[str] = FILES) -> dict[str, str]:
    """SHA-256 of each file that a model is made of, by its path in the folder: the same model elsewhere has the same."""
    files = [(path, path.stat()) for path in sorted({path for pattern in patterns for path in folder.glob(pattern)})]
    return {path.relative_to(folder).as_posix(): _digest(path, now.st_size, now.st_mtime_ns) for path, now in files}


@cache
def _digest(path: Path, size: int, changed: int) -> str:
    """Once per file and state of it, because weights are gigabytes and every look into the cache asks for them."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def on_white(picture: Image.Image) -> Image.Image:
    """RGB, whatever the mode (CMYK, a palette, grey with alpha): what is transparent becomes white.

    The conversion that libraries make on their own drops alpha, which shows the colour under it, often black.
    """
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


class PictureTower:
    """Encodes pictures by a subclass's `forward`, list of RGB pictures → `Output`, and its `batch_size`."""

    modality = "image"

    def encode(self, corpus: Corpus, progress: bool = True) -> Features:
        """Features of the image rows; `CorpusError` with the id of a picture that cannot be read."""
        rows = rows_of(corpus, self.modality)

        def run(part: np.ndarray) -> Output:
            return self.forward([on_white(opened(corpus, row_id)) for row_id in rows.id.iloc[part]])

        return encoded(rows.id, list(rows.image), run, [np.arange(len(rows))], self.batch_size, progress)


class Output(NamedTuple):
    """Of b rows: vectors (b, d), and where asked tokens (b, t, e), mask (b, t) bool, words (b, t) int."""

    vectors: Tensor
    tokens: Tensor | None = None
    mask: Tensor | None = None
    words: Tensor | None = None


def encoded(
    ids: pd.Series, shown: list[str], run: Callable[[np.ndarray], Output], parts: Iterable[np.ndarray], size: int, progress: bool
) -> Features:
    """Features of all rows, with unit vectors: `run` on at most `size` row numbers at a time, all of one part.

    A batch that the memory does not hold is halved, and so are those after it.
    """
    done, outputs, size = [], [], max(1, size)
    with tqdm(total=len(ids), disable=not progress, delay=2) as bar:
        for part in parts:
            while len(part):
                try:
                    with torch.inference_mode():
                        output = run(part[:size])
                        output = output._replace(vectors=normalize(output.vectors.float(), dim=-1))
                        outputs.append([one if one is None else one.cpu() for one in output])
                except RuntimeError as error:  # torch's OutOfMemoryError is one, and so is what a CPU says
                    size = min(size, len(part)) // 2
                    if "memory" not in str(error) or not size:
                        raise
                    print(f"out of memory: going on with batches of {size}")
                    continue
                done.append(part[:size])
                part = part[size:]
                bar.update(len(done[-1]))
    order = np.argsort(np.concatenate(done))
    columns = zip(zip(*outputs, strict=True), (0, 0, False, -1), strict=True)
    return Features(
        ids.to_numpy(), *(None if one[0] is None else _joined(one, fill)[order] for one, fill in columns), shown=shown
    )


def _joined(parts: Sequence[Tensor], fill) -> np.ndarray:
    """Tensors (b, t, …) one above the other, filled up to the longest t."""
    whole = parts[0].new_full((sum(map(len, parts)), max(part.shape[1] for part in parts), *parts[0].shape[2:]), fill)
    for part, rows in zip(parts, whole.split([len(part) for part in parts]), strict=True):
        rows[:, : part.shape[1]] = part
    return (whole.float() if whole.is_floating_point() else whole).numpy()
