"""The command `xmalign`. Each command imports what it needs when it runs, so that `xmalign --help` is immediate."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

TRANSFER = [
    ("--root", Path, "folder of the set's captions (default: the ones that `xmalign fetch` names)"),
    ("--images", Path, "folder of its pictures (default: sought in the set's own)"),
    ("--features", Path, "pre-extracted features of its videos or pictures, in place of pictures and an encoder"),
    ("--image-encoder", str, "a model and a tag of open_clip, local-dir:FOLDER, or a folder or hub's name of transformers"),
    ("--image-name", str, "what the image encoder or the features are, as the published figures call it, such as I3D"),
    ("--text-encoder", str, "a folder or hub's name of transformers (default: bert-base-multilingual-cased)"),
    ("--translator", str, "a folder or hub's name of a translation model"),
    ("--translations", Path, "a folder with train.txt, and perhaps back.txt and test.txt: a line for each caption, or with keys"),
    ("--version", str, "a version of the set, such as task1_tok"),
    ("--captions", int, "how many of a picture's training captions are taken (default: all)"),
    ("--methods", str, "which methods (default: all)"),
    ("--blocks", int, "how many of the text encoder's blocks are trained (default: 0, it is frozen)"),
    ("--epochs", int, "how many epochs (default: each method's own)"),
    ("--seeds", int, "how many seeds (default: 1; intervals know of seeds from 3 on)"),
    ("--out", Path, "folder of the records; a second call goes on there"),
]


class Parser(argparse.ArgumentParser):
    """One that says what is wrong in one line."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status. Bad data end with their message, not with a traceback."""
    if hasattr(sys.stdout, "reconfigure"):  # a redirected Windows console cannot write every sign
        sys.stdout.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        sys.stdout = None
        return 0
    except (ValueError, OSError, RuntimeError, ImportError, KeyboardInterrupt) as error:  # CorpusError is a ValueError
        said = f"{error.filename}: {error.strerror}" if getattr(error, "filename", None) else str(error) or "interrupted"
        print(f"xmalign {options.command or ''}: {said}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="xmalign", description="A bench for cross-lingual image–text alignment.")
    parser.add_argument("--version", dest="run", action="store_const", const=_version, help="the version that is installed")
    parser.set_defaults(run=lambda options: parser.print_help() or 2)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, run, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    command("doctor", _doctor, "versions, device, data, and the command that mends each problem")
    fetch = command("fetch", _fetch, "download a data set into the data folder, or say how to get it; without a name, list them")
    fetch.add_argument("name", nargs="?", help="a name from the list, such as sib200; SIB-200 does too")
    fetch.add_argument("--list", action="store_true", help="the list: what is here, licences, folders, and how to get the rest")
    fetch.add_argument("--openmoji", action="store_true", help="emoji with OpenMoji's drawings as a third vendor")
    check = command("check", _check, "look through your own table for what leaks between splits")
    check.add_argument("table", type=Path, help="CSV, TSV, Parquet or JSONL")
    check.add_argument("--images", type=Path, help="folder of the pictures (default: the table's folder)")
    again = command("reproduce", _reproduce, "run a public model on a public set and hold it against the published figures")
    again.add_argument("set", nargs="?", help="such as xm3600; without one, the published figures are listed")
    again.add_argument("model", nargs="?", help="such as nllb-clip-base-siglip")
    again.add_argument("--languages", nargs="+", metavar="CODE", help="only the figures of these, for instance swh_Latn")
    again.add_argument("--root", type=Path, help="folder of the set (default: the one that `xmalign fetch` names)")
    again.add_argument("--images", type=Path, help="folder of its pictures (default: sought in the set's own)")
    again.add_argument("--folder", type=Path, help="folder of the model, as open_clip saves one (default: from the hub)")
    transfer = command("transfer", _transfer, "train on English captions and machine translations of them, ask people's captions")
    transfer.add_argument("name", nargs="?", metavar="SET", help="multi30k, coco or vatex; without one, the published figures")
    transfer.add_argument("target", nargs="?", help="such as deu_Latn, or de")
    for option, kind, text in TRANSFER:
        how = {"nargs": "+"} if option in ("--methods", "--image-encoder") else {}
        transfer.add_argument(option, type=kind, default=argparse.SUPPRESS, help=text, **how)
    review = command("review", _review, "write every form of the scene grammars as a CSV for a speaker to review")
    review.add_argument("out", type=Path, help="the CSV to write, or with --sign to read")
    review.add_argument("--sign", action="store_true", help="read the filled-in CSV and put its reviewers into the lexicon")
    review.add_argument("--languages", nargs="+", metavar="CODE", help="for instance swh_Latn (default: all)")
    command("languages", _languages, "every language code, with its name, script, family and resource tier")
    return parser


def _version(options) -> None:
    from importlib.metadata import version

    print(f"xmalign {version('xmalign-lab')}")


def _doctor(options) -> int:
    from xmalign_lab import doctor

    findings = doctor.diagnose()
    print(doctor.report(findings))
    return int(doctor.broken(findings))


def _fetch(options) -> None:
    from xmalign_lab import corpora

    if options.name and not options.list:
        print(f"{options.name}: {corpora.fetch(options.name, options.openmoji)}")
        return
    table = corpora.available()
    wide, long = table.folder.str.len().max(), table.name.str.len().max()
    print(f"{'name':<{long}}  state  seen_real  {'folder':<{wide}}  licence")
    for row in table.itertuples():
        state, seen = "here" if row.present else "fetch" if row.fetched else "bring", "yes" if row.seen_real else "no"
        licence = re.sub(r" \(.*?\)", "", row.licence)  # without what each part of it is for: the card has that
        print(f"{row.name:<{long}}  {state:<5}  {seen:<9}  {row.folder or '-':<{wide}}  {licence}")
        if not (row.present and row.folder):
            print(f"{'':<{long}}  → {row.how}")
    print("\nfetch: `xmalign fetch NAME` gets it; bring: you get it, as → says; seen_real: the reader has met the true files")


def _check(options) -> int:
    from xmalign_lab.corpora.check import check_table
    from xmalign_lab.corpora.tables import load_table, places

    verdict = []
    findings = check_table(load_table(options.table, options.images), say=verdict.append)
    place = places(options.table)
    for leak, rows in findings.groupby("leak", sort=False):
        for row in rows.head(20).itertuples():
            print(f"{options.table}, {place[row.b]}: {leak} with {place[row.a]}: {row.what}")
        if len(rows) > 20:
            print(f"… and {len(rows) - 20:,} more: {leak}; xmalign_lab.corpora.check.check_table returns them all")
    print(*verdict)
    return int(len(findings) > 0)


def _reproduce(options) -> None:
    from xmalign_lab import reproduce

    if not (options.set and options.model):
        print(reproduce.listed(reproduce.published(options.set, None, options.languages)))
        return
    figures = reproduce.run(options.set, options.model, options.languages, options.root, options.images, options.folder)
    print(reproduce.listed(figures.drop(columns=["set", "model"])))
    if far := reproduce.verdict(figures):
        raise RuntimeError(far)


def _transfer(options) -> None:
    from xmalign_lab import crossmodal, languages

    told = {name: value for name, value in vars(options).items() if name not in ("run", "command", "name", "target")}
    if options.name and options.target:
        crossmodal.show(crossmodal.Transfer(options.name, languages.normalise(options.target), **told))
    else:
        print(crossmodal.listed(crossmodal.published(options.name)))


def _review(options) -> None:
    from xmalign_lab.corpora import review

    if options.sign:
        signed = review.sign(options.out)
        print("\n".join(f"{lang}: reviewed by {name}" for lang, name in signed.items()) or "no language is signed: see the CSV")
    else:
        print(f"wrote {review.write_review(options.out, options.languages)}")


def _languages(options) -> None:
    from xmalign_lab import languages

    for one in languages.all_languages():
        print(f"{one.code:<12} {one.name:<32} {one.script:<6} {one.tier:<7} {one.family}")


if __name__ == "__main__":
    sys.exit(main())
