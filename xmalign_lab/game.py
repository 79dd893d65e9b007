"""A game for a class: everybody tunes on validation, the test stays sealed until all have handed in, and the drop is the lesson.

Each try trains a recipe on the training families of one fold and asks the validation families. The one who tried most often
picks the luckiest of many numbers, and the sealed test does not know of that luck: the winner's curse (Thaler 1988,
10.1257/jep.2.1.191). Validation and test have the same number of families, one meaning of each, so that their galleries are of
one size and their numbers may stand side by side.

What sealed means here: whoever holds the data could score the test by hand. The seal keeps nobody out. It makes opening an act
that is asked for by name, counted, and written down, and after it the game takes no more tries.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from xmalign_lab import lessons, records, study
from xmalign_lab.corpus import Corpus, hashed_fraction, split_by_family
from xmalign_lab.encoders.features import Features
from xmalign_lab.evaluate import significance
from xmalign_lab.evaluate.retrieval import per_query
from xmalign_lab.model import Aligner
from xmalign_lab.schedules import Constant
from xmalign_lab.train import Recipe, fit

SAME = 0.005  # a score that was handed in and differs more from the one made again is not believed


class Sealed(RuntimeError):
    """What the seal forbids: a test score before `Game.open`, a try after it."""


def parts(corpus: Corpus, fold: int, families: int) -> Corpus:
    """`corpus` with its `split`: training families, and of the others one meaning each, as many in validation as in test.

    At most `families` of each, in the order of a hash. What is left over is in no part.
    """
    corpus = split_by_family(corpus, fold, validation=0.2)
    held = corpus.rows[corpus.rows.split != "train"].drop_duplicates("family")
    held = held.iloc[np.argsort([hashed_fraction(f"game {family}") for family in held.family])]
    count = min(families, *held.split.value_counts())
    kept = set(held.groupby("split").head(count).group)
    return corpus.select(((corpus.rows.split == "train") | corpus.rows.group.isin(kept)).to_numpy())


@dataclass(frozen=True, eq=False)
class Game:
    """One game: `corpus` as `parts` makes it, queries in `lang`, and a `folder` in which tries and openings are written down.

    `make_pairs` sees the training families alone. All who share the folder play one game: the models are kept there too.
    """

    corpus: Corpus
    features: Mapping[str, Features]
    make_pairs: study.MakePairs
    lang: str
    folder: Path

    def play(self, player: str, recipe: Recipe) -> pd.Series:
        """Train, ask the validation families, write the try down: `player`, `validation` (an MRR), `key`.

        The same recipe again is the same try, and a name differently spaced or capitalised the same player. Raises `Sealed` once
        the test is open, `ValueError` for a player without a name.
        """
        player = self._named(player)
        if self.openings:
            raise Sealed("the test is open: a try now would be a choice on the test. Start a new game, with another fold")
        run = self._run(recipe)
        told = {"player": player, "validation": float(self._values(run.key, "validation").value.mean()), "key": run.key}
        _write(self.folder / "tries.jsonl", told)
        return pd.Series(told, name=f"{player}'s try")

    def hand_in(self, player: str, to: str | Path) -> Path:
        """All tries of a player, the best by validation first, recipes and scores, as a file for the teacher."""
        player = self._named(player)
        mine = self.tries[self.tries.player == player]
        if mine.empty:
            raise ValueError(f"{player!r} has not tried anything; players are {', '.join(self.tries.player.unique()) or 'none'}")
        path = Path(to) / lessons.file_name(player)
        tries = [
            {"validation": row.validation, "recipe": records.Record(self._runs / row.key).recipe} for row in mine.itertuples()
        ]
        told = {"player": player, "tries": sorted(tries, key=lambda one: -one["validation"])}
        path.write_text(json.dumps(told, ensure_ascii=False, indent=1), encoding="utf-8")
        return path

    def take_in(self, folder: str | Path) -> pd.DataFrame:
        """Files of `hand_in` from elsewhere, a row per player: every try is trained here (without the others nobody knows what
        luck the best one had), and the scores of the best are set side by side; `same` asks it of all. Raises `ValueError` naming
        a file of another kind.
        """
        rows = []
        for path in sorted(Path(folder).glob("*.json")):
            try:
                told = json.loads(path.read_text(encoding="utf-8"))
                player = self._named(told["player"])
                tries = [(float(one["validation"]), Recipe.from_json(json.dumps(one["recipe"]))) for one in told["tries"]]
                claimed = max(score for score, _ in tries)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}: no file of hand_in ({error!r})") from None
            here = [(score, self.play(player, recipe).validation) for score, recipe in tries]
            same = all(abs(score - again) <= SAME for score, again in here)
            rows.append({"player": player, "tries": len(here), "claimed": claimed, "here": max(here)[1], "same": same})
        return pd.DataFrame(rows)

    @property
    def tries(self) -> pd.DataFrame:
        """A row per try: player, validation, key, in the order in which they were made."""
        told = pd.DataFrame(_read(self.folder / "tries.jsonl"), columns=["player", "validation", "key"])
        return told.drop_duplicates(["player", "key"], ignore_index=True)

    @property
    def openings(self) -> list[dict]:
        """Who opened the test and when; empty while it is sealed."""
        return _read(self.folder / "openings.jsonl")

    def open(self, by: str) -> pd.DataFrame:
        """Open the sealed test, for all at once and for good, and show the board. Every call is written down with its name.

        Raises `ValueError`, and leaves the seal whole, where nobody has tried anything or a try's model is not in the folder.
        """
        if self.tries.empty:
            raise ValueError("nobody has tried anything: there is nothing to open the test for")
        if missing := [key for key in self.tries.key if not (self._runs / key).is_dir()]:
            raise ValueError(f"{self._runs}: the models of {len(missing)} tries are missing ({missing[0]}, …), so the seal stays")
        handed = int(self.tries.player.nunique())
        now = datetime.now(UTC).isoformat(timespec="seconds")
        _write(self.folder / "openings.jsonl", {"when": now, "by": by, "players": handed})
        return self.board()

    def test(self, key: str) -> pd.DataFrame:
        """Per-query values of a try on the test families. Raises `Sealed` before `open`."""
        if not self.openings:
            raise Sealed("the test is sealed. Choose by validation; the teacher calls open(by=…) when all have handed in")
        return self._values(key, "test")

    def board(self) -> pd.DataFrame:
        """A row per player: tries, and the validation score of their best.

        Once open also its test score, the shrinkage (validation - test) with its 95 % interval over the families of both parts,
        and `luck`: the shrinkage less that of an average try, which no choice has made.
        """
        tries, rows, usual = self.tries, {}, 0.0
        if self.openings:
            drops = {key: self._means(key) for key in tries.key.unique()}
            usual = float(np.mean([validation - test for validation, test in drops.values()]))
        for player, mine in tries.groupby("player", sort=False):
            best = mine.loc[mine.validation.idxmax()]
            rows[player] = {"tries": len(mine), "validation": best.validation}
            if self.openings:
                told = shrinkage(self._values(best.key, "validation"), self.test(best.key))
                rows[player] |= {"test": drops[best.key][1]} | told | {"luck": told["shrinkage"] - usual}
        table = pd.DataFrame(rows).T.rename_axis("player")
        return table.astype({"tries": int}).sort_values("test" if self.openings else "validation", ascending=False)

    def pool(self) -> np.ndarray:
        """Every try's value for every query of both parts (tries, queries), for `dealt`. Raises `Sealed` before `open`."""
        keys = self.tries.key.unique()
        return np.array([np.concatenate([self._values(key, "validation").value, self.test(key).value]) for key in keys])

    @property
    def _runs(self) -> Path:
        return self.folder / "runs"

    def _named(self, player: str) -> str:
        """`player` without stray blanks, as it was first written in this game."""
        name = " ".join(str(player).split())
        if player is None or not name:
            raise ValueError("a try needs the name of its player")
        return {known.casefold(): known for known in self.tries.player}.get(name.casefold(), name)

    def _run(self, recipe: Recipe) -> records.Record:
        training, asked = self.corpus.where_rows(split="train"), self.corpus.where_rows(split="validation")
        pairs = self.make_pairs(training)

        def run(folder: Path) -> None:
            fit(recipe, self.features, pairs, progress=False)[0].save(folder)

        inputs = ["game", *(self.features[m].key for m in sorted(self.features)), records.frame_hash(pairs.rows)]
        inputs.append(records.frame_hash(asked.rows[["id", "group", "family"]]))
        return records.get_or_run(recipe, run, inputs, self._runs, __name__)

    def _values(self, key: str, part: str) -> pd.DataFrame:
        """One MRR value per query of `part`, text → image, of the try `key`."""
        asked, aligner = self.corpus.where_rows(split=part, lang=["", self.lang]), Aligner.load(self._runs / key)
        return per_query(study.score(aligner, asked, self.features), "MRR").query("direction == 'text→image'")

    def _means(self, key: str) -> tuple[float, float]:
        return self._values(key, "validation").value.mean(), self.test(key).value.mean()


def shrinkage(validation: pd.DataFrame, test: pd.DataFrame, draws: int = 2000) -> dict[str, float]:
    """Mean of validation less mean of test, per-query values of different families: shrinkage, low, high (95 %).

    The two parts are drawn independently. It does not draw the choice again that led to this try, so it is honest about families
    and blind to luck.
    """
    drawn = [
        significance.bootstrap_means(of.value.to_numpy()[None], of.family.to_numpy(), draws, seed)[:, 0]
        for seed, of in enumerate((validation, test))
    ]
    low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
    return {"shrinkage": float(validation.value.mean() - test.value.mean()), "low": float(low), "high": float(high)}


def best_of(validation: Sequence[float], test: Sequence[float], tries: Iterable[int]) -> pd.DataFrame:
    """What choosing the best of k tries by validation promises, and what the test then gives: exact means over all choices of k.

    Of n tries in rising order of validation, the i-th is the best of k drawn ones with probability C(i - 1, k - 1) / C(n, k).
    Index `tries`; columns validation, test, and `luck`: their difference, less that of an average try, which no choice has made.
    Raises `ValueError` for a k that is not 1 … n.
    """
    order = np.argsort(validation, kind="stable")
    rising, given, n = np.asarray(validation, float)[order], np.asarray(test, float)[order], len(order)
    rows = {}
    for k in tries:
        if not 1 <= k <= n:
            raise ValueError(f"the best of {k} among {n} tries: k must be 1 … {n}")
        chance = np.array([math.comb(i, k - 1) / math.comb(n, k) for i in range(n)])
        rows[k] = {"validation": chance @ rising, "test": chance @ given}
    table = pd.DataFrame(rows).T.rename_axis("tries")
    return table.assign(luck=table.validation - table.test - (rising - given).mean())


def dealt(values: np.ndarray, tries: Sequence[int], deals: int = 400, seed: int = 0) -> pd.DataFrame:
    """`best_of`, were the queries dealt into validation and test anew, half and half: the mean over deals.

    `values` (tries, queries) as `Game.pool` gives them. In one deal the sealed half may be the easier one and hide the luck; over
    many it is neither. `low` and `high` hold 95 % of the deals' `luck`: what one class may see.
    """
    rng, half, tables = np.random.default_rng(seed), values.shape[1] // 2, []
    for _ in range(deals):
        order = rng.permutation(values.shape[1])
        tables.append(best_of(values[:, order[:half]].mean(1), values[:, order[half:]].mean(1), tries))
    of = pd.concat(tables).groupby("tries")
    low, high = (of.luck.quantile(at) for at in (0.025, 0.975))
    return of.mean().assign(low=low, high=high)


def any_recipe(base: Recipe, rng: np.random.Generator) -> Recipe:
    """`base` with a seed, a temperature and a learning rate that somebody might have tried."""
    tau, rate = np.exp(rng.uniform(np.log([0.05, 3e-3]), np.log([0.2, 2e-2])))
    fields = {"temperature": Constant(round(float(tau), 3)), "learning_rate": round(float(rate), 4)}
    return replace(base, seed=int(rng.integers(2**31)), **fields)


def _write(path: Path, told: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(told, ensure_ascii=False) + "\n")


def _read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
