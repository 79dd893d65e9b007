"""Sentences found across languages after learning from little: Swahili and Sinhala in the space of an English teacher.

    python bench/text_transfer.py [--root FOLDER] [--teacher FOLDER] [--seeds 0 1 2]

Taught by Tatoeba, AfroMT's dictionary (Swahili alone has one) and machine-translated captions, each pair once; asked is SIB-200,
every split, against English, both ways. No sentence of it may be in training, which is made sure of. In every row a text is its
hashed n-grams, and English is where the teacher puts it, except for "spelling alone". Trained on all pairs: CLIP's loss,
ALIGN's, and MSE to the teacher (Reimers & Gurevych 2020, arXiv 2004.09813; M-CLIP), a head by seed; kernel ridge in closed form.
The whole method is that ridge and those of `PARTS` that help on sources of sentences held out from training, one by one:
inverse document frequency; the teacher's space whitened; a second ridge, into the words of the English; the letters that both
sides share, Sinhala's in Latin; a head trained by contrast and distance.

Prints, and leaves in build/text/transfer.json: recall, rank and MRR by cosine and by CSLS (Conneau et al. 2018, arXiv
1710.04087, which sees all queries at once), and of the ratio margin R@1, which is 1 - xSIM; with what `report.compare` says of
intervals and tests, corrected by Holm within a table. Runs and choices are recorded: a second call goes on from there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.preprocessing import normalize
from tqdm.auto import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, and `bench` is no installed package

from bench.text_eval import ENGLISH, read
from xmalign_lab import baselines, profile, records, ridge, similarity
from xmalign_lab.corpora import lexicons, lines
from xmalign_lab.corpus import Corpus, CorpusError, Pairs
from xmalign_lab.encoders.cache import encode
from xmalign_lab.encoders.classic import ClassicText
from xmalign_lab.encoders.features import Features
from xmalign_lab.encoders.pretrained import SentenceEncoder
from xmalign_lab.evaluate import report, retrieval
from xmalign_lab.train import fit

OWN = Path(__file__).read_text(encoding="utf-8").split("\ndef recorded")[0]  # what decides a run, beside the library
TARGETS, SENTENCES, DICTIONARY = ("swh_Latn", "sin_Sinh"), ("tatoeba", "xtd200", "flickr30k_200"), "afromt"
MOST = 3_000  # words of the dictionary, the first of its file: a ridge needs n² memory
PARTS = ("rarity", "whitening", "words", "spelling", "student")
SHARE = {"words": 0.5, "spelling": 0.6, "student": 0.5}  # of a level beside the ridge into the teacher's space
TRAINED = {"CLIP loss": baselines.clip_learned(), "ALIGN loss": baselines.align(), "MSE": baselines.clip(terms={"distance": 1})}
SIZE = {"fixed": ("image",), "hidden": 256, "epochs": 15, "batch_pairs": 1500}
BAG, LETTERS = {"characters": None, "buckets": 1_500}, {"buckets": 2**13}  # of English words, of what both spell
WHOLE, OTHERS = "whole method", ("kernel ridge", "spelling alone")
LETTER = {code: re.search(r"(\w+)YANNA$", unicodedata.name(chr(code), "")) for code in range(0xD85, 0xDC7)}
LETTER = {code: re.sub(r"(.)\1", r"\1", name[1].casefold()) for code, name in LETTER.items() if name} | {0xD82: "n", 0x200D: ""}
SIGN = dict(zip("්ාැෑිීුූෘෙේෛොෝෞ", ",a,a,a,i,i,u,u,ru,e,e,ai,o,o,au".split(","), strict=True))


def taught_by(root: Path) -> pd.DataFrame:
    """What there is to learn from: rows `lang, source, text, english`, each pair once."""
    parts = []
    for lang in TARGETS:
        for source in SENTENCES:
            if found := read(source, lang, root):
                parts.append(pd.DataFrame({"text": found[0], "english": found[1], "lang": lang, "source": source}))
        folder = root / lines.sources()[DICTIONARY].folder
        if any(file.lang == lang for file in lines.files(DICTIONARY, folder)):
            table = lexicons.load(DICTIONARY, ENGLISH, lang, None, folder).map(str.casefold)
            table = table[table.target.isin(table.target.unique()[:MOST])].set_axis(["english", "text"], axis=1)
            parts.append(table.assign(lang=lang, source=DICTIONARY))
    return pd.concat(parts).drop_duplicates(["lang", "text", "english"], ignore_index=True)


def overlap(taught: pd.DataFrame, asked: dict) -> int:
    """How many asked sentences of any language training has: none, or `CorpusError` that names one. By letters and digits."""
    seen = {"".join(filter(str.isalnum, text.casefold())) for text in (*taught.text, *taught.english)}
    every = [text for sides in asked.values() for side in sides for text in side]
    if shared := [text for text in every if "".join(filter(str.isalnum, text.casefold())) in seen]:
        raise CorpusError(f"{len(shared)} asked sentences are in training, {shared[0]!r} for one; leave them out of it")
    return len(shared)


def latin(text: str) -> str:
    """Sinhala by its letters' names in Unicode (KAYANNA is ka), long as short, so that names can meet English ones."""
    return re.sub(f"a?([{''.join(SIGN)}])", lambda sign: SIGN[sign[1]], text.translate(LETTER))


def grams(texts, rare: np.ndarray | None = None, **how) -> sparse.csr_matrix:
    """Hashed n-grams as unit rows; with `rare` (buckets,) the roots of their counts, weighted by it."""
    rows = ClassicText(damping=rare is not None, **how).encode(list(texts), progress=False).vectors
    return rows if rare is None else normalize(rows @ sparse.diags(rare))


def rarity(texts, **how) -> np.ndarray:
    """log((n + 1) / (1 + texts that hold it)) of each n-gram, (buckets,): its inverse document frequency."""
    held = grams(texts, **how)
    return np.log((held.shape[0] + 1) / (1 + held.getnnz(0))).astype(np.float32) + np.float32(1e-3)


def whitener(rows: np.ndarray, power: float = 0.25):
    """A function that takes their mean off, and divides each of their principal directions by its deviation's `power`."""
    middle = rows.mean(0)
    _, spread, turn = np.linalg.svd(rows - middle, full_matrices=False)
    return lambda other: similarity.unit((other - middle) @ (turn.T * (spread / spread[0] + 1e-2) ** -power))


def head(recipe, taught: pd.DataFrame, known: Features, folder: Path | None = None):
    """What `recipe` trains from n-grams into the teacher's space, over all pairs of `taught`: texts → unit vectors."""
    texts, english = pd.unique(taught.text), pd.unique(taught.english)
    sides = {"image": Features("teacher: " + english, known.take(english)), "text": Features(texts, grams(texts))}
    pairs = pd.DataFrame({"left": "teacher: " + taught.english, "right": taught.text, "source": f"{ENGLISH}-" + taught.lang})
    aligner, _ = fit(replace(recipe, dim=known.width, **SIZE), sides, Pairs(pairs), folder)
    return lambda some: aligner.encode_text(Features(range(len(some)), grams(some)))


def regression(parts, own: pd.DataFrame, here: list[str], there: list[str], known: Features) -> list[tuple]:
    """A ridge from a language's texts in `own` to where the teacher puts the English and, with "words", to its words.

    Of each of the two its share and unit rows: what it says of the texts `here`, and what `there`, in English, is.
    """
    said = own[own.source != DICTIONARY]
    rare, weights = rarity(said.text) if "rarity" in parts else None, rarity(said.english, **BAG)
    turn = whitener(known.take(said.english)) if "whitening" in parts else np.asarray
    sides = [lambda some: turn(known.take(some)), lambda some: grams(some, weights, **BAG).toarray()][: 1 + ("words" in parts)]
    texts, at = np.unique(own.text.to_numpy(object), return_inverse=True)
    mean = sparse.csr_matrix((np.ones(len(at), np.float32), (at, np.arange(len(at)))))  # over a word's translations
    goals = np.hstack([normalize(mean @ side(own.english)) for side in sides])
    learned, _ = ridge.fit(grams(texts, rare), goals, texts, penalties=(0.3,) if parts else ridge.PENALTIES)
    guessed = np.split(learned(grams(here, rare)), [known.width], axis=1)
    return [(share, normalize(left), side(there)) for share, left, side in zip((1, SHARE["words"]), guessed, sides, strict=False)]


def spaces(method: str, parts, seed: int, taught: pd.DataFrame, asked: dict, known: Features, folder: Path | None = None) -> dict:
    """`{lang: (unit vectors (n, d) of the asked texts, of their translations)}`: levels side by side, each by its share."""
    found, student = {}, None
    if method in TRAINED or "student" in parts:
        recipe = TRAINED.get(method, replace(TRAINED["CLIP loss"], terms={"info_nce": 1, "distance": 1}))
        student = head(replace(recipe, name=method, seed=seed), taught, known, folder)
    for lang, (here, there) in asked.items():
        own, of_ridge = taught[taught.lang == lang], method in ("kernel ridge", WHOLE)
        levels = regression(parts, own, here, there, known) if of_ridge else []
        if student:
            levels.append((SHARE["student"], student(here), known.take(there)))
        if method == "spelling alone" or "spelling" in parts:
            said = taught[taught.source != DICTIONARY]
            rare = rarity(map(latin, [*said.text, *said.english]), **LETTERS) if parts else None
            both = grams(map(latin, [*here, *there]) if parts else [*here, *there], rare, **LETTERS)
            both = similarity.unit(np.pad(both.toarray(), ((0, 0), (0, 1)), constant_values=0.01))  # none may be at zero from all
            levels.append((SHARE["spelling"], both[: len(here)], both[len(here) :]))
        found[lang] = [similarity.unit(np.hstack([level[0] ** 0.5 * level[side] for level in levels])) for side in (1, 2)]
    return found


def answers(found: dict) -> pd.DataFrame:
    """Ranks as `retrieval.rank_queries` gives them: both ways; by margin 1 is right and 2 is wrong."""
    parts = []
    for lang, both in found.items():
        ids = np.arange(len(both[0])).astype(str).astype(object)
        here, there = (retrieval.Side(vectors, ids, ids, ids) for vectors in both)
        for way, queries, gallery in (("to English", here, there), ("from English", there, here)):
            for how in ("none", "CSLS"):
                protocol = retrieval.Protocol(rerank=how)
                parts.append(retrieval.rank_queries(queries, gallery, lang, way, "sentences", protocol))
                parts[-1]["direction"] += ", CSLS" * (how == "CSLS")
            error = retrieval.xsim_errors(queries.vectors, gallery.vectors)
            parts.append(parts[-1].assign(direction=f"{way}, margin", rank=1.0 + error, protocol="ratio margin, k = 4"))
    return pd.concat(parts, ignore_index=True)


def recorded(method: str, parts, seed: int, taught: pd.DataFrame, asked: dict, known: Features) -> pd.DataFrame:
    """The answers of a run, from its record if there is one; an interrupted training goes on."""
    inputs = [hashlib.sha256(json.dumps([OWN, parts, asked]).encode()).hexdigest(), records.frame_hash(taught), known.key]

    def run(folder: Path) -> None:
        answers(spaces(method, parts, seed, taught, asked, known, folder)).to_parquet(folder / "scores.parquet")

    return records.get_or_run(baselines.clip(name=method, seed=seed), run, inputs, module="xmalign_lab.baselines").scores


def chosen(taught: pd.DataFrame, known: Features) -> tuple[tuple[str, ...], dict[str, float]]:
    """Those of `PARTS` that raise the MRR beside the ones before them, and the MRR with each: of `taught` alone.

    A source of sentences at a time is held out whole, with what others share with it, as no training has seen SIB-200's.
    """

    def quality(parts: tuple[str, ...]) -> float:
        found = []
        for source, held in taught[taught.source.isin(SENTENCES)].groupby("source"):
            rest = taught[~(taught.text.isin(held.text) | taught.english.isin(held.english))]
            left = set(rest.lang[rest.source != DICTIONARY])
            asked = {lang: (list(of.text), list(of.english)) for lang, of in held.groupby("lang") if lang in left}
            found.append(recorded(WHOLE, parts, 0, rest, asked, known).assign(source=source))
        by_cosine = pd.concat(found).query("direction in ('to English', 'from English')")
        return float((1 / by_cosine["rank"]).groupby([by_cosine.lang, by_cosine.source]).mean().mean())

    kept, tried = (), {"the ridge alone": quality(())}
    for part in tqdm(PARTS, desc="parts, on held-out sources"):
        tried[part] = quality((*kept, part))
        if tried[part] > tried[kept[-1] if kept else "the ridge alone"]:
            kept = (*kept, part)
    return kept, tried


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=profile.data_root(), help="the folder that holds sib200/ and others")
    parser.add_argument("--teacher", default="sentence-transformers/all-MiniLM-L6-v2", help="a folder, or a name on the hub")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args(arguments)
    found = {(name, lang): read(name, lang, options.root) for name in ("sib200", "xtd200") for lang in TARGETS}
    if lacking := [" ".join(key) for key, of in found.items() if not of]:
        raise SystemExit(f"{options.root} has no {', '.join(lacking)}; `xmalign fetch` or the cards in data/ say how to get it")
    asked, taught = {lang: found["sib200", lang][:2] for lang in TARGETS}, taught_by(options.root)
    counts = taught.groupby(["lang", "source"]).size().to_string()
    print(counts, f"asked: {len(asked[TARGETS[0]][0])} a language; in training of these: {overlap(taught, asked)}", sep="\n")
    english = pd.Series([*taught.english, *(text for _, there in asked.values() for text in there)]).unique()
    rows = pd.DataFrame(dict.fromkeys(("id", "group", "text"), english)).assign(modality="text", lang=ENGLISH, kind="caption")
    known = Features(english, encode(Corpus(rows), SentenceEncoder(options.teacher)).vectors)
    parts, tried = chosen(taught, known)
    print(f"parts chosen on held-out sources (MRR): {', '.join(parts)}; tried {tried}")
    runs = [(method, seed) for method in (*TRAINED, WHOLE) for seed in options.seeds] + [(method, None) for method in OTHERS]
    scores = {method: [] for method in (*TRAINED, "kernel ridge", WHOLE, "spelling alone")}
    for method, seed in tqdm(runs, desc="methods and seeds"):
        found = recorded(method, parts if method == WHOLE else (), seed or 0, taught, asked, known)
        scores[method].append(found if seed is None else found.assign(seed=seed))
    scores, made = {method: pd.concat(of) for method, of in scores.items()}, {"parts": parts, "tried": tried, "tables": []}
    for way in ("to English", "from English"):
        for metric, how in (("R@1", ""), ("MRR", ""), ("mean rank", ""), ("R@1", ", CSLS"), ("R@1", ", margin")):
            table = report.compare(scores, metric, way + how, TARGETS, draws=4_000, references=["spelling alone"])
            print(f"\n{table.to_markdown()}")
            tests = table.tests[(table.tests[["a", "b"]] == WHOLE).any(axis=1)]
            print(table.readable_tests().loc[tests.index, ["a", "b", "lang", "difference", "p_adjusted"]].to_string(index=False))
            facts = {"table": table.table.to_dict("records"), "tests": tests.to_dict("records")}
            made["tables"].append({"metric": metric, "direction": way + how} | facts)
    profile.built("text", "transfer.json").write_text(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
