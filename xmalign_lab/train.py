"""The trainer: a generator of steps.

    for step in train(recipe, features, pairs):
        board.update(step)

The state is complete at every yield, so that a run can be paused, edited, saved and resumed to the same numbers:
what is random in a step depends on the seed and the step's number alone.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from tqdm.auto import tqdm

from xmalign_lab import profile
from xmalign_lab.batches import Batch, Batches, Relation, Tables
from xmalign_lab.corpus import CorpusError, Pairs
from xmalign_lab.encoders.features import Features
from xmalign_lab.evaluate.space import effective_rank
from xmalign_lab.heads import Orthogonal
from xmalign_lab.losses.local import transport
from xmalign_lab.model import Aligner, Encoded, vectors_of
from xmalign_lab.recipe import TERMS, Recipe, View
from xmalign_lab.records import frame_hash
from xmalign_lab.schedules import Individual, PerPair, Schedule
from xmalign_lab.state import Begin, Edit, State, grow, initial_state, key, load_state, save_state

SAVE_SECONDS = 20.0
MOST_RANKED = 256  # rows that an effective rank is taken of, some ten times a run: it is a singular value decomposition


class Collapsed(RuntimeError):
    """The vectors fell together. The run has stopped; what was saved before is there to go on from."""


@dataclass(frozen=True)
class Step:
    """What one step did, and the state after it.

    `terms` by name (`relation/term` and `total`); `tau`, the mean one where pairs have their own; `coefficients`: attraction,
    repulsion, `weight/term`, and `weight/relation/term` where it is learned; `statistics` of the batch, and some ten times a
    run the effective rank times the variance of the unit vectors, which is small for all kinds of collapse. After an `Edit`
    that cannot be, the same step comes back with the reason in `refused`, and nothing has changed.
    """

    step: int
    steps: int
    epoch: float
    progress: float
    terms: dict[str, float]
    tau: float
    learning_rate: float
    statistics: dict[str, float]
    coefficients: dict[str, float]
    stage: str
    state: State = field(repr=False)
    refused: str = ""

    def row(self) -> dict:
        """One flat row for `steps.parquet`."""
        row = {"step": self.step, "epoch": self.epoch, "progress": self.progress, "stage": self.stage, "tau": self.tau}
        return row | {"learning_rate": self.learning_rate} | self.terms | self.coefficients | self.statistics


@dataclass(frozen=True)
class _Data:
    """What does not change in a run: the tables, their rows as the heads take them, and a teacher's vectors."""

    tables: Tables
    inputs: Mapping[str, np.ndarray]
    guide: torch.Tensor | None  # unit rows
    place: Mapping[str, np.ndarray]  # by modality, the row of `guide` for each row, -1 for none
    guided: frozenset[str]  # the relations all of whose rows have one
    words: tuple[torch.Tensor, torch.Tensor] | None = None  # the guide's unit tokens and their mask

    @classmethod
    def of(cls, tables: Tables, aligner: Aligner, guide: Features | None, batches: Batches) -> _Data:
        inputs = {modality: aligner.heads[modality].prepare(table.vectors) for modality, table in tables.items()}
        if guide is None:
            return cls(tables, inputs, None, {}, frozenset())
        known, guided = {row_id: row for row, row_id in enumerate(guide.ids)}, set()
        place = {modality: np.array([known.get(row_id, -1) for row_id in table.ids]) for modality, table in tables.items()}
        for source in batches.sources:
            nodes = zip(source.modalities, (source.left, source.right), strict=True)
            sides = [place[modality][rows - batches.bounds[modality][0]] >= 0 for modality, rows in nodes]
            for name, side in zip(("left", "right"), sides, strict=True):
                if 0 < side.sum() < len(side):
                    told = f"the guide knows the {name} row of {side.sum():,} of the {len(side):,} pairs of {source.name!r}"
                    raise ValueError(f"{told}; give it all of them, or none")
            guided |= {source.name} if sides[0].all() and sides[1].all() else set()
        if not guided:
            raise ValueError(f"the guide knows both rows of no pair; its ids, {guide.ids[0]!r} for one, must be those of rows")
        unit, words = torch.nn.functional.normalize, None
        if guide.tokens is not None:
            mask = np.ones(guide.tokens.shape[:2], bool) if guide.mask is None else guide.mask
            words = unit(torch.from_numpy(np.asarray(guide.tokens, np.float32)), dim=-1), torch.from_numpy(np.asarray(mask))
        return cls(tables, inputs, unit(torch.from_numpy(guide.dense())), place, frozenset(guided), words)


def train(
    recipe: Recipe, features: Tables, pairs: Pairs, state: State | None = None, guide: Features | None = None, begin: Begin = None
) -> Generator[Step, Edit | None, State]:
    """Yield a `Step` after each optimiser step; send an `Edit` in to change the run; return the final `State`.

    `features` maps "image" and "text" to Features, or to Inputs for a tower of the recipe; `pairs` hold ids of their rows.
    `guide` holds a teacher's vectors by such ids: for a picture perhaps that of its caption; a relation with a side that it
    does not know goes without the terms that need it. A modality in `begin` starts from a copy of that trained head. Everything
    is checked before the first step: an unknown id, an empty table of pairs or a relation that mixes modalities raises
    `CorpusError`, a guide that knows a side in part or no relation `ValueError`; so does, in the first step, a term that needs
    tokens where a relation has none, or a guide in a run without.
    """
    profile.keep_memory()
    batches = _by_threshold(features, pairs, recipe)
    everything = batches(0.0)
    state = state or initial_state(recipe, features, everything, begin)
    total = recipe.epochs * everything.per_epoch
    grow(state, everything)
    data = _Data.of(features, state.aligner, guide, everything)
    while state.step < total:
        stage, now = state.recipe.at(state.step / max(1, total - 1))
        step = _one_step(state, now, stage, data, batches(now.threshold), total, recipe.seed)
        if step.statistics.get("effective rank", np.inf) < now.collapse:
            rank = step.statistics["effective rank"]
            raise Collapsed(f"step {step.step}: effective rank {rank:.2f} is below {now.collapse:g}; the vectors fall together")
        edit = yield step
        while edit is not None:
            try:
                edited = state.recipe.edited(edit.field, edit.value)
                now = edited.at(step.progress)[1]
                kept = batches(now.threshold)
                if state.step < total:  # a trial, on a copy of what it would move
                    trial = replace(state, schedule=copy.deepcopy(state.schedule))
                    with torch.no_grad():
                        _forward(trial, now, data, kept, total, recipe.seed)
            except ValueError as error:
                edit = yield replace(step, refused=str(error))  # raising would end the generator, and with it the run
                continue
            state.recipe = edited
            state.edits.append(Edit(state.step, edit.field, edit.value))
            grow(state, everything)
            edit = yield step
    return state


def _by_threshold(features: Tables, pairs: Pairs, recipe: Recipe) -> Callable[[float], Batches]:
    """The batches of the pairs whose score is not below a threshold, always as many of them as without one."""
    known: dict[float, Batches] = {}

    def batches(threshold: float) -> Batches:
        if threshold not in known:
            kept = pairs.select(~(pairs.rows.score < threshold))
            for source in set(pairs.sources) - set(kept.sources):
                best = pairs.rows.score[pairs.rows.source == source].max()
                raise CorpusError(f"threshold {threshold:g} keeps no pair of {source!r}, whose highest score is {best:.3g}")
            known[threshold] = Batches(features, kept, recipe.batch_pairs, known[0.0].per_epoch)
        return known[threshold]

    known[0.0] = Batches(features, pairs, recipe.batch_pairs, recipe.per_epoch)
    return batches


def _one_step(state: State, recipe: Recipe, stage: str, data: _Data, batches: Batches, total: int, seed: int) -> Step:
    progress = state.step / max(1, total - 1)
    loss, rows, logged = _forward(state, recipe, data, batches, total, seed)
    rate = _learning_rate(recipe, progress)
    for group in state.optimiser.param_groups:
        group["lr"] = rate * group["scale"]
    state.optimiser.zero_grad()
    loss.backward()
    state.optimiser.step()
    for head in state.aligner.heads.values():
        if isinstance(head, Orthogonal):
            head.settle()
    state.step += 1
    if state.step % (batches.per_epoch * max(1, recipe.epochs // 10)) == 0:
        rows = rows.detach()
        spread = 1 - float(rows.mean(0).square().sum())  # what is left around one point is noise, of full rank
        logged["statistics"]["effective rank"] = spread * effective_rank(rows[:: max(1, len(rows) // MOST_RANKED)].numpy())
    times = {"epoch": state.step / batches.per_epoch, "progress": state.step / total, "learning_rate": rate}
    return Step(state.step, total, stage=stage, state=state, **times, **logged)


def _forward(state: State, recipe: Recipe, data: _Data, batches: Batches, total: int, seed: int) -> tuple:
    """Encode the batch of this step: its loss, all its vectors (b, dim), and what a Step says of them.

    What schedules and queues remember moves on; nothing else does.
    """
    aligner, progress = state.aligner, state.step / max(1, total - 1)
    batch = batches.at(state.step, seed)
    aligner.train()
    with torch.random.fork_rng():
        torch.manual_seed(seed * 1_000_003 + state.step)
        encoded = {m: aligner.heads[m](data.inputs[m][rows]) for m, rows in batch.rows.items() if len(rows)}
    vectors = {m: vectors_of(each) for m, each in encoded.items()}
    # index_select, not []: its gradient needs no sorting
    sides = {r.name: tuple(vectors[m].index_select(0, at) for m, at in r.sides) for r in batch.relations}
    sims = {name: left @ right.T for name, (left, right) in sides.items()}
    statistics = _statistics(sims, batch)

    def now(name: str, value: float | Schedule) -> float:
        if not isinstance(value, Schedule):
            return value
        number, state.schedule[name] = value(progress, statistics, state.schedule.get(name, {}))
        return number

    tau, reversal = now("temperature", recipe.temperature), now("reversal", recipe.reversal)
    coefficients = {name: now(name, getattr(recipe, name)) for name in ("attraction", "repulsion")}
    weights = {name: now(f"weight/{name}", value) for name, value in recipe.terms.items()}
    settings = coefficients | {"hardness": recipe.hardness, "ambiguity": recipe.ambiguity, "reversal": reversal}
    settings["guide_tau"] = now("guide_temperature", recipe.guide_temperature)
    coefficients |= {f"weight/{name}": float(weight) for name, weight in weights.items()}
    terms, taus, loss = {}, [], torch.zeros(())
    for relation in batch.relations:
        own = aligner.tau if recipe.learn_temperature else _own_tau(recipe, tau, sims, relation, batch, batches, state)
        taus.append(_mean(own))
        adversary = state.adversaries[key(relation.name)] if key(relation.name) in state.adversaries else None
        seen = (sims[relation.name], relation.positives, relation.weight, own, aligner.bias)
        more = settings | _beside(state, recipe, data, batch, relation, encoded)
        view = View(*sides[relation.name], *seen, discriminator=adversary, **more)
        shares = recipe.relations.get(relation.name, 1.0)
        shares = shares if isinstance(shares, Mapping) else dict.fromkeys(weights, shares)
        for name in [name for name in weights if name in shares]:
            weight, value, label = weights[name], TERMS[name](view), f"{relation.name}/{name}"
            terms[label] = float(value.detach())
            value = weight * shares[name] * value
            if key(label) in state.uncertainty:
                s = 4 * torch.tanh(state.uncertainty[key(label)] / 4)  # unlike a clamp it can come back from the bounds
                value = torch.exp(-s) * value + s / 2
                coefficients[f"weight/{label}"] = weight * shares[name] * float(torch.exp(-s.detach()))
            loss = loss + value
        _remember(state, recipe, relation, sides[relation.name])
    mean_tau = taus[0] if len(set(taus)) == 1 else float(np.mean(taus))  # a mean of equal numbers may differ in the last digit
    terms["total"] = float(loss.detach())
    logged = {"terms": terms, "tau": mean_tau, "statistics": statistics, "coefficients": coefficients}
    return loss, torch.cat(list(vectors.values())), logged


def _beside(state: State, recipe: Recipe, data: _Data, batch: Batch, relation: Relation, encoded: Mapping) -> dict:
    """What a View holds beside the vectors, if there are any: tokens, the teacher's similarities, those before, the queue."""
    found = {"relation": relation.name, "modalities": (relation.left_modality, relation.right_modality)}
    for side, (modality, at) in zip(("left", "right"), relation.sides, strict=True):
        if isinstance(encoded[modality], Encoded):
            found[f"{side}_tokens"] = encoded[modality].tokens.index_select(0, at)
            found[f"{side}_mask"] = encoded[modality].mask.index_select(0, at)
    rows = [batch.rows[modality][at.numpy()] for modality, at in relation.sides]
    found["taught"] = data.guide is not None
    if relation.name in data.guided:
        left, right = (data.place[modality][row] for (modality, _), row in zip(relation.sides, rows, strict=True))
        found["guide"] = data.guide[left] @ data.guide[right].T
        if "relational_words" in recipe.terms and data.words is not None:
            tokens, mask = data.words
            found["guide_words"] = transport(tokens[left], tokens[right], mask[left], mask[right]).detach()
    side = int(relation.left_modality == "image")
    modality = relation.sides[side][0]
    if "neighbourhood" in recipe.terms and isinstance(data.tables[modality], Features):
        raw = data.tables[modality].vectors[rows[side]]
        raw = raw[:, : raw.shape[1] - getattr(state.aligner.heads[modality], "tags", 0)]
        products = torch.from_numpy(np.asarray((raw @ raw.T).toarray() if sp.issparse(raw) else raw @ raw.T))
        norms = products.diagonal().sqrt()
        found["before"] = products / norms.outer(norms)
    if held := state.schedule.get(f"queue/{relation.name}"):
        found["remembered"] = tuple(torch.from_numpy(held[side]) for side in ("left", "right"))
    return found


def _remember(state: State, recipe: Recipe, relation: Relation, sides: tuple) -> None:
    """Append the believed pairs of this batch to the relation's queue, and let go of the oldest."""
    if recipe.queue:
        pairs = relation.positives.nonzero().T
        held = state.schedule.get(f"queue/{relation.name}", {})
        for name, side, at in zip(("left", "right"), sides, pairs, strict=True):
            new = side.detach().index_select(0, at).numpy()
            held = held | {name: np.concatenate([held.get(name, new[:0]), new])[-recipe.queue :]}
        state.schedule[f"queue/{relation.name}"] = held


def _own_tau(recipe: Recipe, tau: float, sims: Mapping, relation: Relation, batch: Batch, batches: Batches, state: State):
    """This relation's temperature: the schedule's number, or one per pair or per row where the schedule has such."""
    if isinstance(recipe.temperature, PerPair):
        return recipe.temperature.spread(sims[relation.name])
    if not isinstance(recipe.temperature, Individual):
        return tau
    rows = [batch.rows[modality][at.numpy()] + batches.bounds[modality][0] for modality, at in relation.sides]
    memory = f"temperature/{relation.name}"
    left, right, state.schedule[memory] = recipe.temperature.update(
        sims[relation.name], relation.positives, *rows, state.schedule.get(memory, {})
    )
    return left, right


def _mean(tau) -> float:
    if isinstance(tau, tuple):
        return sum(map(_mean, tau)) / len(tau)
    return float(tau.detach().mean()) if isinstance(tau, torch.Tensor) else tau


def _statistics(sims: Mapping[str, torch.Tensor], batch: Batch) -> dict[str, float]:
    """Mean and standard deviation of the similarity of believed pairs and of all others, over relations: for a Schedule."""
    with torch.no_grad():
        found, sums = {}, torch.zeros(2, 2, dtype=torch.float64)
        for relation in batch.relations:
            sim = sims[relation.name]
            kept = sim[relation.positives]
            sums[0] += torch.stack([kept.sum(), kept.square().sum()])
            sums[1] += torch.stack([sim.sum(), sim.square().sum()])
        pairs = sum(int(r.positives.sum()) for r in batch.relations)
        others = sum(r.positives.numel() for r in batch.relations) - pairs
        for name, (total, square), n in (("positive", sums[0], pairs), ("negative", sums[1] - sums[0], max(1, others))):
            found[name] = float(total / n)
            found[f"{name} spread"] = math.sqrt(max(0.0, float(square / n) - found[name] ** 2))
        return found


def _learning_rate(recipe: Recipe, progress: float) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    if progress < recipe.warmup:
        return recipe.learning_rate * (progress + 1e-3) / recipe.warmup
    return recipe.learning_rate * (1 + math.cos(math.pi * (progress - recipe.warmup) / (1 - recipe.warmup))) / 2


def fit(
    recipe: Recipe, features: Tables, pairs: Pairs, folder: Path | None = None, progress=True,
    guide: Features | None = None, begin: Begin = None,
) -> tuple[Aligner, pd.DataFrame]:  # fmt: skip
    """Drain `train`: the trained Aligner and one row per step.

    With a `folder` the pairs are written to its `pairs.parquet` before the first step, so that the record says what was seen;
    the state is saved every `SAVE_SECONDS` and at the end, and a run found there goes on from it. `ValueError` if that
    run was one of other pairs.
    """
    state, rows, saved = None, [], time.monotonic()
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        seen = folder / "pairs.parquet"
        if seen.exists() and frame_hash(pd.read_parquet(seen)) != frame_hash(pairs.rows):
            raise ValueError(f"{folder} holds a run of other pairs; give another folder, or delete that one")
        pairs.rows.to_parquet(seen)
    if folder and (folder / "state.json").exists():
        state, rows = load_state(folder, recipe, features, pairs, begin)
    steps = train(recipe, features, pairs, state, guide, begin)
    begun = state.step if state else 0
    bar = tqdm(steps, desc=recipe.name, unit="step", disable=not progress, initial=begun, leave=False, delay=2, mininterval=0.5)
    for step in bar:
        rows.append(step.row())
        state, bar.total = step.state, step.steps
        if folder and (step.step == step.steps or time.monotonic() - saved > SAVE_SECONDS):
            save_state(step.state, rows, folder)
            saved = time.monotonic()
    return state.aligner.eval(), pd.DataFrame(rows)
