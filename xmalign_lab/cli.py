"""The command `xmalign`. Each command imports what it needs when it runs, so that `xmalign --help` is immediate."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from xmalign_lab import profile


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status. Bad data end with their message, not with a traceback."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        sys.stdout = None
        return 0
    except (ValueError, OSError, RuntimeError) as error:  # CorpusError is a ValueError
        print(f"xmalign {options.command}: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="xmalign", description="A bench for cross-lingual image–text alignment.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    command("doctor", _doctor, "versions, device, data, and the command that mends each problem")
    fetch = command("fetch", _fetch, "download a data set into the data folder, or say how to get it; without a name, list them")
    cards = sorted(path.stem for path in (profile.repository() / "data").glob("*.toml"))
    fetch.add_argument("name", nargs="?", choices=cards, help="a card in data/; without it, what there is is listed")
    fetch.add_argument("--openmoji", action="store_true", help="with OpenMoji's drawings as a third vendor")
    check = command("check", _check, "look through your own table for what leaks between splits")
    check.add_argument("table", type=Path, help="CSV, TSV, Parquet or JSONL")
    check.add_argument("--images", type=Path, help="folder of the pictures (default: the table's folder)")
    review = command("review", _review, "write every form of the scene grammars as a CSV for a speaker to review")
    review.add_argument("out", type=Path, help="the CSV to write, or with --sign to read")
    review.add_argument("--sign", action="store_true", help="read the filled-in CSV and put its reviewers into the lexicon")
    review.add_argument("--languages", nargs="*", default=None, metavar="CODE", help="for instance swh_Latn (default: all)")
    command("languages", _languages, "every language code, with its name, script, family and resource tier")
    return parser


def _doctor(options) -> int:
    from xmalign_lab import doctor

    findings = doctor.diagnose()
    print(doctor.report(findings))
    return int(doctor.broken(findings))


def _fetch(options) -> None:
    from xmalign_lab import corpora

    if options.name:
        print(f"{options.name}: {corpora.fetch(options.name, options.openmoji)}")
    else:
        for row in corpora.available().itertuples():
            print(f"{row.name:<11} {'here' if row.present else 'absent':<7} {row.how}")


def _check(options) -> int:
    from xmalign_lab.corpora.check import check_table
    from xmalign_lab.corpora.tables import load_table

    findings = check_table(load_table(options.table, options.images))
    if len(findings):
        print(findings.to_string(index=False))
    return int(len(findings) > 0)


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
