"""Pictures and videos with captions in many languages, and ImageNet's classes with their names in many languages.

A source is published in one or several layouts, each a row of `sources.csv`. Five forms of file are read, told by the name
and the first line: JSON (COCO's, Karpathy's, MSR-VTT's, VATEX's), JSONL (XM3600's), lines with the picture's name before
the caption (`name#0<TAB>caption`, `video#enc#0 caption`, `name| 0| caption`), CSV with a header, and plain lines beside a
list of pictures. A picture need not be there: opening one that is not says how to get it.
"""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import pandas as pd
from PIL import Image

from xmalign_lab import languages as codes
from xmalign_lab.corpora import cards
from xmalign_lab.corpora.lines import SPLITS, Found, Root, choose, corpus, lines, matching, place, records, sources, text
from xmalign_lab.corpus import Corpus, CorpusError, read_image

Names = list[str] | None
Entry = tuple[str, str, str, list[tuple[str, str, str, dict]]]  # see _entries
Lists = dict[str, tuple[Path, list[str]]]  # see _lists
# What would be taken for another language, or what the table of languages lacks; '' leaves a code out
CODES = {"xm3600": {"quz": "que_Latn"}, "babel_imagenet": {"ALS": "gsw_Latn", "KMR": "", "ZH_YUE": "yue_Hant"}}
KEYED = re.compile(r"([^#|\s]+?)(#[a-z]\w*)?[#|]\s*(\d+)(?:\s*\||[ \t]|$)\s*(.*)")  # a line of results.csv lacks its second |
NUMBERED = re.compile(r"(COCO_\w+\d{4}_)?0*(\d+)(?:_[0-9a-f]+)?")  # COCO_val2014_000000391895, 1000268201_693b08cb0e
PICTURES, VIDEOS = (".jpg", ".jpeg", ".png"), ("vatex", "msrvtt")
SPOKEN = {"enCap": "eng_Latn", "chCap": "zho_Hans"}  # VATEX's two languages


def load(
    name: str, languages: Names = None, split: str | None = None, root: Root = None, images: Root = None, version: str = ""
) -> Corpus:
    """The captions of `languages` and `split`, rows of kind 'caption', and their pictures (of videos, kind 'video').

    All captions of a picture are of its group, and sources that describe the same pictures have the same groups. Of several
    versions (layouts, tokenised, translated by machine) the first of `sources.csv` that is there is loaded, or `version`.
    `images` is the folder with the pictures, in whatever subfolders; by default they are sought in the source's own. Texts can
    do without: a warning counts the pictures that are missing if `images` was given or others are there.

    Raises `CorpusError`, naming file and line, for a file that is not of its form or not as long as its list, for a picture
    or caption that is there twice, a caption of an unknown picture, a picture without a caption and an unknown language, and
    for a version, language or split that is not there.
    """
    where, split, there = place(name, root), SPLITS.get(split, split), choose(name, languages, None, root)
    wanted = None if languages is None else set(map(codes.normalise, languages))
    known = [layout["version"] for layout in sources()[name].layouts]
    here = [one for one in known if one in {file.version for file in there}]
    version = version or here[0]
    if version not in here:
        raise CorpusError(f"{name}: no version {version!r}; here are {', '.join(map(repr, here))}")
    prefix = name if version == known[0] else f"{name}:{version}"
    if images is not None and not Path(images).is_dir():
        raise CorpusError(f"{images} is no folder: pictures of {name} cannot be there")
    folder, suffix = Path(images or where), "" if name in VIDEOS else ".jpg"
    paths = {path.stem: path for path in folder.rglob("*") if path.suffix.lower() in PICTURES}
    lists = {names: _lists(where, names) for names in {file.names for file in there}}
    rows, shown, seen, found, numbers = [], {}, {}, set(), Counter()
    for file in there:
        if file.version != version or split not in (None, file.split or split):
            continue
        for at, picture, part, captions in _entries(name, file, lists[file.names], wanted):
            spot, stem, part = f"{file.path}, {at}", _stem(picture), SPLITS.get(part, part) or file.split
            first, group = seen.setdefault((file.path.name.removesuffix(".gz"), stem), spot), _group(name, stem)
            if first != spot or not captions:
                raise CorpusError(f"{spot}: {stem!r} {'is there twice, as in ' + first if captions else 'has no caption'}")
            for at, lang, caption, labels in captions:
                lang = lang or file.lang
                found.add((lang, part))
                if split in (None, part) and (wanted is None or lang in wanted):
                    item = f"{prefix}:{stem}#{numbers[stem, lang]}:{lang}"
                    numbers[stem, lang] += 1
                    rows.append(((file.path, at), item, group, lang, caption, "caption", part, labels))
                    if shown.setdefault(stem, (group, part))[1] != part:
                        raise CorpusError(f"{spot}: {stem!r} is in split {part!r} here, in {shown[stem][1]!r} elsewhere")
    lacking = sorted((wanted or set()) - {row[3] for row in rows})
    if lacking or not rows:
        listed = ", ".join(sorted(f"{lang} {part}".strip() for lang, part in found)) or "nothing"
        raise CorpusError(f"{prefix}: no {', '.join(lacking) or 'caption'} in split {split!r}; it has {listed}")
    pictures = [
        (f"{prefix}:{stem}", group, str(paths.get(stem, folder / f"{stem}{suffix}")), part)
        for stem, (group, part) in shown.items()
        if ":" not in stem
    ]
    gone = [path for _, _, path, _ in pictures if Path(path).stem not in paths]
    if gone and (images is not None or len(gone) < len(pictures)):
        warnings.warn(
            f"{prefix}: {len(gone):,} of {len(pictures):,} pictures are not in {folder}, {Path(gone[0]).name} for one, and "
            f"cannot be encoded ({cards()[name]['pictures']}). To go on without: "
            "corpus.select([not path or os.path.exists(path) for path in corpus.rows.image])",
            stacklevel=3,
        )
    return _with_pictures(name, corpus(prefix, rows), pictures)


@cache
def _code(name: str, code: str) -> str | None:
    """The project's code, '' for one that is left out, None for an unknown one."""
    try:
        return CODES[name][code] if code in CODES.get(name, {}) else codes.normalise(code)
    except ValueError:
        return None


def _lists(where: Path, pattern: str) -> Lists:
    """Per split the file under `where` that lists its pictures, and their names."""
    found = {part.get("split", ""): path for path, part in (matching(where, [{"files": pattern}]) if pattern else ())}
    return {SPLITS.get(key, key): (path, [line.strip() for line in lines(path)]) for key, path in found.items()}


def _entries(name: str, file: Found, lists: Lists, wanted: set[str] | None) -> Iterator[Entry]:
    """The pictures of a file: where, name, split, and captions `(where, language, text, labels)`; '' for what is not said.

    A name with ':' is of our making, a group without a picture.
    """
    plain, path = file.path.name.removesuffix(".gz"), file.path
    if plain.endswith((".json", ".jsonl")):
        return _of_json(path) if plain.endswith("n") else _of_xm3600(name, path, wanted)
    first = next(iter(lines(path)), "")
    if first.startswith("image") or KEYED.fullmatch(first):
        return _keyed(path, lists, table="," in first and first.startswith("image"))
    return _aligned(name, file, lists)


def _aligned(name: str, file: Found, lists: Lists) -> Iterator[Entry]:
    """Line n describes the picture that line n of the list names; without a list, captions have groups and no picture."""
    said = lines(file.path)
    if not {file.split, ""} & set(lists):
        warnings.warn(f"{name}: no list names the pictures of {file.split!r}; its captions have groups only", stacklevel=2)
        group = f"{name}:{file.version.removesuffix('_tok')}:{file.split}"
        lists = {"": (file.path, [f"{group}:{number}" for number in range(1, len(said) + 1)])}
    path, pictures = lists.get(file.split) or lists[""]
    if len(said) != len(pictures):
        line = min(len(said), len(pictures)) + 1
        raise CorpusError(f"{file.path}, line {line}: the file has {len(said)} lines where {path} has {len(pictures)}")
    for number, (caption, picture) in enumerate(zip(said, pictures, strict=True), 1):
        yield f"line {number}", picture, "", [(f"line {number}", "", caption, {})]


def _keyed(path: Path, lists: Lists, table: bool) -> Iterator[Entry]:
    """Lines with their picture's name and a number, or a CSV; the lists of pictures, where there are some, say the splits."""
    said, seen, split_of = {}, set(), {}
    for number, line in records(path, ",") if table else enumerate(lines(path), 1):
        if table:
            picture, *_, caption = line.values()
        elif not line.strip() or (number == 1 and line.startswith("image")):
            continue
        elif (match := KEYED.fullmatch(line)) and match.group(1, 2, 3) not in seen:
            seen.add(match.group(1, 2, 3))
            picture, *_, caption = match.groups()
        else:
            wrong = f"{match[1]!r} has two captions {match[3]}" if match else "a line is like dog.jpg#0<TAB>a dog runs"
            raise CorpusError(f"{path}, line {number}: {wrong}")
        said.setdefault(_stem(picture.strip()), []).append((f"line {number}", "", caption, {}))
    for split, (source, names) in lists.items():
        begun = not said.keys().isdisjoint(map(_stem, names))
        for number, stem in enumerate(map(_stem, names), 1):
            if split_of.setdefault(stem, split) != split or (begun and stem not in said):
                what = f"has no caption in {path}" if stem not in said else f"is in {split_of[stem]} too"
                raise CorpusError(f"{source}, line {number}: picture {stem!r} {what}")
    for stem, captions in said.items():
        yield captions[0][0], stem, split_of.get(stem, ""), captions


def _of_xm3600(name: str, path: Path, wanted: set[str] | None) -> Iterator[Entry]:
    """A JSON object per line: `image/key`, and per language `{"caption": […]}`."""
    first = {}
    for number, line in ((number, line) for number, line in enumerate(lines(path), 1) if line.strip()):
        try:
            item = json.loads(line)
            said = {code: item[code]["caption"] for code in item if "/" not in code}
            first = first or said
            if lacking := [code for code in first | said if not (first.get(code) and said.get(code))]:
                raise ValueError(f"this line or the first has no caption in {', '.join(lacking)}")
            if wanted is None and (unknown := [code for code in said if _code(name, code) is None]):
                raise ValueError(f"unknown language code {unknown[0]!r}; leave it out: languages=[…]")
            at = f"line {number}"
            captions = [(at, _code(name, code), caption, {}) for code in said if _code(name, code) for caption in said[code]]
            yield at, item["image/key"], "", captions
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{path}, line {number}: not a picture of XM3600 with its captions ({error!r})") from None


def _parsed(path: Path):
    try:
        return json.loads(text(path))
    except json.JSONDecodeError as error:
        raise CorpusError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None


def _of_json(path: Path) -> Iterator[Entry]:
    """COCO's pictures and annotations, MSR-VTT's videos and sentences, Karpathy's and VATEX's lists."""
    data = _parsed(path)
    try:
        if isinstance(data, list):
            found = [(v["videoID"], "", [(SPOKEN[key], said, {}) for key in SPOKEN for said in v.get(key, [])]) for v in data]
        elif "sentences" in data or "annotations" in data:
            found = _annotated(path, data)
        else:
            found = [(p["filename"], p["split"], [("", said["raw"], {}) for said in p["sentences"]]) for p in data["images"]]
        for number, (picture, split, said) in enumerate(found, 1):
            yield f"entry {number}", picture, split, [(f"entry {number}", *caption) for caption in said]
    except (KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"{path}: no captions as COCO, Karpathy, MSR-VTT or VATEX write them ({error!r})") from None


def _annotated(path: Path, data: dict) -> Iterator[tuple[str, str, list[tuple[str, str, dict]]]]:
    """Each picture's name, split and captions; what else is said of a caption is its labels."""
    key, owner, number = ("video_id", "video_id", "sen_id") if "videos" in data else ("id", "image_id", "id")
    pictures, notes = data.get("videos") or data["images"], data.get("sentences") or data["annotations"]
    said = {one[key]: {} for one in pictures}
    if len(said) != len(pictures):
        raise CorpusError(f"{path}: {len(pictures) - len(said)} ids of pictures are there twice")
    for place_of, note in enumerate(notes, 1):
        captions = said.get(note[owner])
        if captions is None or note[number] in captions:
            what = "is no picture of this file" if captions is None else f"has caption {note[number]!r} twice"
            raise CorpusError(f"{path}, annotation {place_of}: {owner} {note[owner]!r} {what}")
        labels = {column: cell for column, cell in note.items() if column not in ("caption", owner, number)}
        captions[note[number]] = ("", note["caption"], labels)
    for one in pictures:
        yield one.get("file_name", str(one[key])), one.get("split", ""), list(said[one[key]].values())


def _stem(picture: str) -> str:
    return picture.split(".")[0]  # of 2258277193_586949ec62.jpg.1 and COCO_train2014_000000117071.jpg#367178 too


def _group(name: str, stem: str) -> str:
    """The same for one picture in all sources: `coco:391895`, `flickr:1000268201`."""
    owner, match = sources()[name].pictures, NUMBERED.fullmatch(stem)
    if match and (match[1] or owner in ("coco", "flickr")):
        return f"{'coco' if match[1] else owner}:{match[2]}"
    return stem if ":" in stem else f"{owner}:{stem}"


def _with_pictures(name: str, texts: Corpus, shown: list[tuple[str, str, str, str]]) -> Corpus:
    """The corpus of the texts and of the pictures `(id, group, path, split)`; all clips of one film are a family."""
    table = pd.DataFrame(shown, columns=["id", "group", "image", "split"])
    kind = "video" if name in VIDEOS else "picture"
    table = table.assign(modality="image", kind=kind, lang="", text="", source=texts.name, labels=[{} for _ in shown])
    rows = pd.concat([table, texts.rows], ignore_index=True)
    rows["family"] = rows.group.str.replace(r"^(vatex:.{11})_\d{6}_\d{6}$", r"\1", regex=True)
    opener = partial(_open, name)
    opener.fingerprint = ""  # its pictures are files: their bytes tell them apart, without opening them
    return Corpus(rows, name=name, open_image=opener)


def _open(name: str, reference: str) -> Image.Image:
    if not Path(reference).is_file():
        raise CorpusError(f"{reference}: this picture of {name} is not here; you need {cards()[name]['pictures']}")
    return read_image(reference)


def load_classes(
    name: str, languages: Names = None, split: str | None = None, root: Root = None, images: Root = None, prompts: bool = False
) -> Corpus:
    """Babel-ImageNet: the classes' names in each language, rows of kind 'name', and ImageNet's pictures if they are there.

    A class is a group; its number, 0 to 999, and its name are labels. With `prompts`, the rows are of kind 'prompt': each name
    in each prompt of its language ("a photo of a {}."). `images` has a folder per class (n01440764 …), by default `val` beside
    the names. Without `languages`, those that the project does not know are left out with a warning. Raises `CorpusError` for
    names and numbers that do not fit each other, a class that occurs twice, a prompt without its {}, and for languages, prompts
    or folders that are not there.
    """
    path, rows, kind = choose(name, languages, split, root)[0].path, [], "prompt" if prompts else "name"
    classes = _by_language(name, path, languages)
    told = _by_language(name, path.with_name("nllb_dist13b_prompts.json"), languages) if prompts else {}
    for lang, (numbers, labels) in classes.items():
        if len(numbers) != len(labels) or len(set(numbers) & set(range(1000))) != len(numbers):
            raise CorpusError(f"{path}: {lang} has {len(labels)} names for {len(set(numbers))} classes; one each, of 0 to 999")
        patterns = told.get(lang, []) if prompts else ["{}"]
        if wrong := [pattern for pattern in patterns if pattern.count("{}") != 1]:
            raise CorpusError(f"{path}: a prompt in {lang} needs one {{}}, where the name goes: {wrong[0]!r}")
        for number, label in zip(numbers, labels, strict=True):
            said = [(f"{name}:{number}#{item}:{lang}", pattern.replace("{}", label)) for item, pattern in enumerate(patterns)]
            shared, labels_of = (f"imagenet:{number}", lang), {"class": number, "name": label}
            rows += [((path, lang), row_id, *shared, caption, kind, "test", labels_of) for row_id, caption in said]
    place_of = Path(images or path.parent / "val")
    folders = [folder for folder in sorted(place_of.glob("n*")) if folder.is_dir()]
    if len(folders) != 1000 and (folders or images):
        raise CorpusError(f"{place_of}: {len(folders)} folders of classes (n01440764 …); ImageNet has 1,000, put them all there")
    asked = {row[2] for row in rows}
    shown = [
        (f"{name}:{folder.name}/{picture.stem}", f"imagenet:{number}", str(picture), "test")
        for number, folder in enumerate(folders)
        for picture in (sorted(folder.iterdir()) if f"imagenet:{number}" in asked else ())
    ]
    return _with_pictures(name, corpus(name, rows), shown)


def _by_language(name: str, path: Path, languages: Names) -> dict[str, list]:
    """What a JSON object says by language."""
    data = _parsed(path)
    said = {_code(name, code): data[code] for code in data if _code(name, code)}
    if languages is None and (unknown := [code for code in data if _code(name, code) is None]):
        warnings.warn(f"{path}: {len(unknown)} unknown languages left out: {', '.join(unknown[:5])} …", stacklevel=3)
    wanted = said if languages is None else dict.fromkeys(map(codes.normalise, languages))
    if lacking := [lang for lang in wanted if lang not in said]:
        raise CorpusError(f"{path}: nothing in {', '.join(lacking)}; it has {', '.join(sorted(said))}")
    return {lang: said[lang] for lang in wanted}
