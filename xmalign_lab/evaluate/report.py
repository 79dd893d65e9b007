"""Means, intervals and the tables that carry their own tests: the only place where per-query values are summed up."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from string import ascii_letters

import numpy as np
import pandas as pd

from xmalign_lab import languages
from xmalign_lab.evaluate import significance
from xmalign_lab.evaluate.retrieval import per_query, sum_r

ALPHA = 0.05
TABLE_COLUMNS = "letter method lang metric value low high queries families seeds beats".split()
TEST_COLUMNS = "a b lang difference low high p_bootstrap p_permutation smallest".split()
CORRECTIONS = {"holm": significance.holm, "benjamini-hochberg": significance.benjamini_hochberg, "none": np.asarray}
LATEX = {char: "\\" + char for char in "&%$#_{}"} | {"→": r"$\to$", "≤": r"$\leq$", "α": r"$\alpha$", "–": "--", "^": r"\^{}"}
LATEX |= {"≥": r"$\geq$", "×": r"$\times$", "±": r"$\pm$", "−": "$-$", "µ": r"$\mu$"}
GREEK = "beta gamma delta varepsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon varphi chi psi omega"
LATEX |= {char: rf"$\{name}$" for char, name in zip("βγδεζηθικλμνξπρστυφχψω", GREEK.split(), strict=True)}
GREEK = "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
LATEX |= {char: rf"$\{name}$" for char, name in zip("ΓΔΘΛΞΠΣΥΦΨΩ", GREEK.split(), strict=True)}
LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
LATEX = str.maketrans(LATEX)


def family_bootstrap(values: np.ndarray, families: np.ndarray, draws: int = 2000, level: float = 0.95, seed: int = 0) -> tuple:
    """Percentile interval `(low, high)` of the mean of `values` (n,), resampling whole families (n,), not rows.

    Near-copies stand or fall together, so rows would make the interval too narrow (`significance.bootstrap_means`). One
    family says nothing about others: `(nan, nan)`.
    """
    values, families = np.asarray(values, float), np.asarray(families, object)
    if len(set(families[~np.isnan(values)])) == 1 and not pd.isna(families).any():
        return np.nan, np.nan
    means = significance.bootstrap_means(values[None], families, draws, seed)[:, 0]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def summary(
    scores: pd.DataFrame, metrics: tuple[str, ...] = ("MRR", "R@1", "R@5", "R@10", "mean rank"), seed: int = 0
) -> pd.DataFrame:
    """A row per language, direction and metric: value, low, high (95 %, families resampled), queries; median rank too.

    The protocol goes with the table in `attrs["protocol"]`: print it with the numbers. Raises `ValueError` for rows without
    a family.
    """
    _with_families(scores)
    rows = []
    for metric in metrics:
        for (lang, direction), part in per_query(scores, metric).groupby(["lang", "direction"]):
            value = part.value.to_numpy()
            low, high = family_bootstrap(value, part.family.to_numpy(), seed=seed)
            rows.append((lang, direction, metric, value.mean(), low, high, len(value)))
    for (lang, direction), part in per_query(scores, "mean rank").groupby(["lang", "direction"]):
        rows.append((lang, direction, "median rank", part.value.median(), np.nan, np.nan, len(part)))
    table = pd.DataFrame(rows, columns=["lang", "direction", "metric", "value", "low", "high", "queries"])
    table.attrs["protocol"] = protocol(scores)
    return table


def protocol(scores: pd.DataFrame) -> str:
    """How the numbers were made, in one line: gallery sizes, queries, galleries averaged, tie rule, interval.

    Queries and families are counted by language where not all were asked the same number of the same queries. A column
    `protocol` of the scores says how the ranks were taken; without it, "ties: mean rank". Where queries were `dropped`
    (`rank_queries`), the most that one fold's gallery could not answer.
    """
    sizes = sorted(scores["size"].unique())
    size = _count(sizes[0], "item") if len(sizes) == 1 else f"{sizes[0]:,}–{sizes[-1]:,} items"
    galleries = ", ".join(sorted(scores.gallery.unique()))
    if "dropped" in scores and (most := int(scores.dropped.max())):
        galleries += f" (up to {_count(most, 'query')} a gallery dropped, for want of a right answer in it)"
    ranks = " | ".join(sorted(scores.protocol.unique())) if "protocol" in scores else "ties: mean rank"
    columns, langs = ["query", "family"], {}
    for lang, part in scores.groupby("lang"):
        langs.setdefault(tuple(part[columns].nunique()), []).append(lang)
    asked = {made: f"{_count(made[0], 'query')} in {_count(made[1], 'family')}" for made in langs}
    if list(langs) == [tuple(scores[columns].nunique())]:  # one number for all, and of the same queries
        counts = next(iter(asked.values()))
    else:
        counts = ", ".join(f"{asked[made]} ({', '.join(of)})" for made, of in langs.items())
    return f"galleries of {size}, mean over {galleries}; {counts}; {ranks}; intervals: 95 %, bootstrap over families"


def _count(number: int, noun: str) -> str:
    """'1 query', '1,911 queries'."""
    return f"{number:,} {noun if number == 1 else noun.removesuffix('y') + ('ies' if noun.endswith('y') else 's')}"


def _with_families(scores: pd.DataFrame, of: str = "these scores") -> None:
    """`ValueError` unless every row names its family: `per_query` would drop the others in silence."""
    if "family" not in scores:
        raise ValueError(f"{of}: no column 'family', which names near-copies alike; there is {', '.join(scores.columns)}")
    if missing := int(scores.family.isna().sum()):
        raise ValueError(f"{of}: {missing:,} of {_count(len(scores), 'row')} without a family; a query like no other is its own")


def wide(table: pd.DataFrame, direction: str, metrics: tuple[str, ...] = ("MRR", "R@1", "R@10", "median rank")) -> pd.DataFrame:
    """A table to read: a row per language, `value [low, high]` per metric."""
    part = table[(table.direction == direction) & table.metric.isin(metrics)]
    texts = (f"{r.value:.0f}" if "rank" in r.metric else f"{r.value:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in part.itertuples())
    cells = part.assign(cell=list(texts))
    return cells.pivot(index="lang", columns="metric", values="cell")[list(metrics)].rename_axis(None, axis=1)


def pipe_table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table as Markdown, without a line end; its first `left` columns stand on the left, the others on the right."""
    lines = [head, ["---"] * left + ["---:"] * (len(head) - left), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def p_text(p: float, floor: bool = False) -> str:
    """'p = 0.023'; 'p ≤ 0.0001' for the `floor`, the smallest p that so many draws can give."""
    return f"p {'≤' if floor else '='} {np.format_float_positional(p, precision=2, fractional=False, trim='-')}"


@dataclass(frozen=True)
class Comparison:
    """Methods side by side with their own tests, made by `compare`; a notebook shows it as `to_html` does.

    `table`: a row per method and language (and `mean`, over the languages): letter, method, lang, metric, value, low, high,
    queries, families, seeds, beats (letters of the methods it beats). `tests`: a row per two methods and language: a, b,
    lang, difference (a - b), low, high, p_bootstrap, p_permutation, p (the larger), p_adjusted, smallest (the true difference
    that these queries would have shown with probability 0.8 at `ALPHA`, were this the only test) and smallest_corrected (at
    `ALPHA` over the number of tests, the correction's hardest step). `floor`: the smallest p of so many draws. `references`:
    the letters of rows that are never bold.
    """

    table: pd.DataFrame
    tests: pd.DataFrame
    metric: str
    protocol: str
    caption: str
    floor: float
    references: tuple[str, ...] = ()

    @property
    def digits(self) -> int:
        """Digits after the point that are shown."""
        return 1 if self.metric.endswith("rank") or self.metric == "SumR" else 3

    def to_csv(self) -> str:
        """The numbers, a row per method and language, `beats` as letters with a space between."""
        return self.table.assign(beats=self.table.beats.map(" ".join)).to_csv(index=False)

    def to_markdown(self) -> str:
        """A pipe table, its caption below."""
        escape = partial(re.compile(r"([\\|*_<`\[\]])").sub, r"\\\1")
        head, *rows = self._grid("**{}**", "<sup>{}</sup>", escape)
        return f"{pipe_table(head, rows, 2)}\n\n{escape(self.caption)}\n"

    def to_latex(self) -> str:
        """A `table` for the package booktabs."""
        grid = self._grid(r"\textbf{{{}}}", r"\textsuperscript{{{}}}", lambda text: text.translate(LATEX))
        head, *rows = [" & ".join(line) + r" \\" for line in grid]
        start = [r"\begin{table}", r"\centering", rf"\caption{{{self.caption.translate(LATEX)}}}"]
        start += [rf"\begin{{tabular}}{{ll{'r' * self.table.lang.nunique()}}}", r"\toprule", head, r"\midrule"]
        return "\n".join([*start, *rows, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])

    def to_html(self) -> str:
        """The table as the page around it draws tables, light or dark; all tests are folded away below."""
        head, *rows = self._grid("<b>{}</b>", "<sup>{}</sup>", html.escape)
        left = '<div style="text-align:left">{}</div>'
        rows = [[letter, left.format(name), *(c.replace(",", ",<wbr/>") for c in cells)] for letter, name, *cells in rows]
        table = pd.DataFrame(rows, columns=head).to_html(index=False, border=0, escape=False)
        return (
            f'<div style="font-variant-numeric:tabular-nums">{table}<p style="opacity:.75;max-width:60em">'
            f"{html.escape(self.caption)}</p><details><summary>all: {_count(len(self.tests), 'test')}</summary>"
            f"{self.readable_tests().to_html(index=False, border=0)}</details></div>"
        )

    _repr_html_ = to_html

    def readable_tests(self) -> pd.DataFrame:
        """`tests` as text, the surest first: `+0.012 [+0.003, +0.021]`, `p ≤ 0.0001`."""
        tests, form = self.tests.sort_values("p_adjusted", kind="stable"), f"{{:+.{self.digits}f}}".format
        differences = [f"{form(t.difference)} [{form(t.low)}, {form(t.high)}]" for t in tests.itertuples()]
        shown = tests[["a", "b", "lang"]].assign(difference=differences)
        for column, of in (("p_bootstrap", "p_bootstrap"), ("p_permutation", "p_permutation"), ("p_adjusted", "p")):
            shown[column] = list(map(p_text, tests[column], tests[of] <= self.floor))
        for column in ("smallest", "smallest_corrected"):
            shown[column] = [form(value)[1:] for value in tests[column]]
        return shown

    def _grid(self, best: str, raised: str, escape) -> list[list[str]]:
        """Marked-up cells: the names of the columns, then a row per method with its letter."""
        head, rows = ["", "method"], {}
        for lang, part in self.table.groupby("lang", sort=False):
            head.append(escape(languages.info(lang).name if languages.known(lang) else lang))
            order = part.sort_values("value", ascending=self.metric.endswith("rank"), kind="stable").letter
            first, second = [*order[~order.isin(self.references)], "", ""][:2]  # no row beats ""
            for r in part.itertuples():
                value, low, high = (f"{number:.{self.digits}f}" for number in (r.value, r.low, r.high))
                cell = (best if r.letter == first and second in r.beats else "{}").format(value) + f" [{low}, {high}]"
                row = rows.setdefault(r.letter, [r.letter, escape(" ".join(r.method.split()))])
                row.append(cell + (raised.format(",".join(r.beats)) if r.beats else ""))
        return [head, *rows.values()]


def compare(
    scores: Mapping[str, pd.DataFrame],
    metric: str = "MRR",
    direction: str = "text→image",
    langs: str | Sequence[str] | None = None,
    correction: str = "holm",
    draws: int = 10_000,
    references: str | Sequence[str] = (),
) -> Comparison:
    """The methods of `scores` {name: ranks} against each other, on the queries they share, by language and on average.

    `metric` is one of `retrieval.METRICS`, or "SumR" of both directions; the protocol is then that of `direction`.
    One beats another where the paired bootstrap and the paired permutation test over families both say so at `ALPHA`,
    corrected over all tests of the table. A column `seed` names a repetition (its folds share it); of three or more, the
    bootstrap draws seeds too (`significance.mixed_bootstrap`), and a method without the column stands in each. More draws
    than `draws` are taken where fewer could not survive the correction.

    Bold is the best of a column, if it beats the second best. The names in `references` (an upper bound, chance) are tested
    like the others but never bold, and the best and the second best are those of the others. Raises `ValueError` for fewer
    than two methods or more than 52, an unknown correction or reference, rows without a family, a language in which the
    methods share nothing or one family only, two seeds, and methods whose galleries differ in size: a rank among more is
    another question, so no letter may stand between them.
    """
    langs = [langs] if isinstance(langs, str) else langs
    references = [references] if isinstance(references, str) else list(references)
    if not 2 <= len(scores) <= len(ascii_letters) or correction not in CORRECTIONS:
        raise ValueError(f"{_count(len(scores), 'method')}, correction {correction!r}: 2 to 52 methods; {', '.join(CORRECTIONS)}")
    if unknown := [name for name in references if name not in scores]:
        raise ValueError(f"references: no method {', '.join(map(repr, unknown))}; there are {', '.join(scores)}")
    for name, table in scores.items():
        _with_families(table, name)
    values, families, keys, left = _shared(scores, metric, direction, langs)
    _same_galleries(scores, direction, keys)
    names, columns = list(scores), [*keys.lang.unique(), "mean"]
    draws = max(draws, int(len(columns) * len(names) * (len(names) - 1) / ALPHA))  # twice what Bonferroni's floor asks for
    rows = pd.DataFrame(significance.pairwise(values, families, draws), columns=TEST_COLUMNS)
    rows["lang"] = rows.lang.map(columns.__getitem__)
    tests = rows[rows.a != rows.b].assign(p=rows[["p_bootstrap", "p_permutation"]].max(axis=1)).reset_index(drop=True)
    tests["p_adjusted"] = CORRECTIONS[correction](tests.p.to_numpy())
    hardest = ALPHA if correction == "none" else ALPHA / len(tests)
    tests["smallest_corrected"] = tests.smallest * significance.detectable(1, hardest) / significance.detectable(1, ALPHA)
    count = keys.set_axis(["lang", "queries", "families", "seeds"], axis=1)
    count = pd.concat([count, count.assign(lang="mean")]).groupby("lang").nunique()
    table = rows[rows.a == rows.b].rename(columns={"difference": "value"}).join(count, on="lang").assign(metric=metric)
    table["beats"] = [_beaten(tests, row, metric) for row in table.itertuples()]
    table["letter"], table["method"] = table.a.map(ascii_letters.__getitem__), table.a.map(names.__getitem__)
    tests[["a", "b"]] = tests[["a", "b"]].map(names.__getitem__)
    protocols = _protocols(scores, direction, keys, left)
    letters = tuple(letter for letter, name in zip(ascii_letters, names, strict=False) if name in references)
    made = f"{draws:,} draws; correction over {_count(len(tests), 'test')}: {correction}; α = {ALPHA}"
    asked = "both directions" if metric == "SumR" else direction
    caption = f"{metric}, {asked}; {_reading(tests, keys, made, letters)} Protocol: {protocols}."
    return Comparison(table[TABLE_COLUMNS].reset_index(drop=True), tests, metric, protocols, caption, 1 / (1 + draws), letters)


def _reading(tests: pd.DataFrame, keys: pd.DataFrame, made: str, letters: tuple[str, ...]) -> str:
    """How to read a table of `compare`: its brackets, letters and bold numbers, and what it could not have shown."""
    among = f", both among the rows other than {', '.join(letters)}" if letters else ""
    differ = keys.groupby("lang")["query"].agg(frozenset).nunique() > 1
    mean = "The column mean averages over languages that were asked different queries. " if differ else ""
    alone, corrected = (f"{of.min():.2g}–{of.max():.2g}" for of in (tests.smallest, tests.smallest_corrected))
    step = f"; for a letter, at α / {len(tests):,}, the hardest step of the correction: {corrected}" if corrected != alone else ""
    return (
        f"in brackets 95 % intervals. Raised letters: the rows that a row beats (paired bootstrap and paired permutation test "
        f"over families, both; {made}). Bold: the best, where it beats the second best{among}. {mean}Smallest true differences "
        f"that the bootstrap would have shown with power 0.8: in a single test, uncorrected: {alone}{step}."
    )


def _shared(scores, metric: str, direction: str, langs) -> tuple[np.ndarray, np.ndarray, pd.DataFrame, int]:
    """Values (methods, langs, seeds, queries) of what all methods were asked, its families, its keys, and how many were not.

    The axis of the seeds has length 1 unless a query was asked under several.
    """
    seeds = sorted({seed for table in scores.values() if "seed" in table for seed in table.seed.unique()}) or ["not recorded"]
    parts = []
    for method, table in scores.items():
        both, spoken = metric == "SumR", table.lang.isin(table.lang if langs is None else langs)
        table = table[(both | (table.direction == direction)) & spoken]
        for seed in seeds:
            part = table[table.seed == seed] if "seed" in table else table
            parts.append((sum_r(part) if both else per_query(part, metric)).assign(method=method, seed=seed))
    index = ["lang", "query", "family", "seed"]
    cells = pd.concat(parts).pivot(index=index, columns="method", values="value").reindex(columns=list(scores))
    keys = cells.dropna().index.to_frame(index=False)
    lacking = sorted(set(langs or keys.lang) - set(keys.lang)) or ([] if len(keys) else ["any language"])
    if lacking:
        raise ValueError(f"{direction}: there is no query in {', '.join(lacking)} that all of {', '.join(scores)} were asked")
    single = keys.groupby("lang").family.nunique().loc[lambda families: families < 2].index
    if len(single):
        raise ValueError(f"one family only in {', '.join(single)}: nothing can be said of others; leave it out: langs=[…]")
    query, asked = pd.factorize(pd.MultiIndex.from_frame(keys[["query", "family"]]))
    seed = pd.factorize(keys.seed)[0] * keys.duplicated(index[:3]).any()
    lang, names = pd.factorize(keys.lang)
    values = np.full((len(scores), len(names), seed.max() + 1, len(asked)), np.nan)
    values[:, lang, seed, query] = cells.dropna().to_numpy().T
    return values, asked.get_level_values(1).to_numpy(), keys, len(cells.groupby(index[:3])) - len(keys.groupby(index[:3]))


def _same_galleries(scores: Mapping[str, pd.DataFrame], direction: str, keys: pd.DataFrame) -> None:
    """`ValueError` if two methods were asked a query of `keys` in galleries of different sizes (their mean per query)."""
    of = ["direction", "lang", "query"]
    sizes = pd.DataFrame({name: table.groupby(of)["size"].mean() for name, table in scores.items()}).loc[direction]
    sizes = sizes.loc[pd.MultiIndex.from_frame(keys[of[1:]])]
    for (lang, query), row in sizes[sizes.max(axis=1) > sizes.min(axis=1)].iterrows():
        found = " and ".join(f"{name!r} in galleries of {row[name]:,g} items" for name in (row.idxmin(), row.idxmax()))
        raise ValueError(f"{lang}, query {query!r}: {found}; ranks in galleries of different sizes are not compared")


def _beaten(tests: pd.DataFrame, row, metric: str) -> tuple[str, ...]:
    """Letters of the methods that the method of `row` beats in its language."""
    mine = tests[(tests.lang == row.lang) & (tests.p_adjusted <= ALPHA) & ((tests.a == row.a) | (tests.b == row.a))]
    won = mine[((mine.difference > 0) == (mine.a == row.a)) != metric.endswith("rank")]
    return tuple(ascii_letters[i] for i in sorted(won.a + won.b - row.a))


def _protocols(scores: Mapping[str, pd.DataFrame], direction: str, keys: pd.DataFrame, left: int) -> str:
    """The protocol of what was compared, for each method where they differ; the seeds; what was left out."""
    asked = keys[["lang", "query"]].drop_duplicates().assign(direction=direction)
    rows: dict[str, list[str]] = {}
    for letter, table in zip(ascii_letters, scores.values(), strict=False):
        rows.setdefault(protocol(table.merge(asked)), []).append(letter)
    text = next(iter(rows)) if len(rows) == 1 else " | ".join(f"{', '.join(letters)}: {made}" for made, letters in rows.items())
    drawn = " (drawn as the families are)" if keys.duplicated(["lang", "query"]).any() else ""
    text += f"; seeds: {', '.join(map(str, keys.seed.unique()))}{drawn}"
    return text + (f"; {_count(left, 'query')} left out that not every method was asked" if left else "")
