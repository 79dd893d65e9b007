"""The trainer: a generator of steps.

    for step in train(recipe, features, pairs):
        board.update(step)

The state is complete at every yield, so that a run can be paused, edited, saved and resumed to the same numbers:
what is random in a step depends on the seed and the step's number alone.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from xmalign_lab import profile
from xmalign_lab.batches import Batch, Batches, Relation
from xmalign_lab.corpus import CorpusError, Pairs
from xmalign_lab.encoders.features import Features
from xmalign_lab.evaluate.space import effective_rank
from xmalign_lab.losses.adversarial import Discriminator
from xmalign_lab.model import Aligner, DenseInput, Fixed, Head, SparseInput
from xmalign_lab.recipe import TERMS, Recipe, View, plain, unplain
from xmalign_lab.schedules import Individual, PerPair, Schedule

SAVE_SECONDS = 20.0
MOST_RANKED = 256  # rows that an effective rank is taken of, some ten times a run: it is a singular value decomposition


class Collapsed(RuntimeError):
    """The vectors fell together. The run has stopped; what was saved before is there to go on from."""


@dataclass(frozen=True)
class Edit:
    """A change of the running recipe: from step `step` on, `field` has `value`."""

    step: int
    field: str
    value: object


@dataclass
class State:
    """All that a run has learned and remembers: enough to go on bit for bit."""

    aligner: Aligner
    optimiser: torch.optim.Optimizer
    recipe: Recipe
    step: int = 0
    schedule: dict = field(default_factory=dict)
    edits: list[Edit] = field(default_factory=list)
    adversaries: torch.nn.ModuleDict = field(default_factory=torch.nn.ModuleDict)


@dataclass(frozen=True)
class Step:
    """What one step did, and the state after it.

    `terms` by name (`relation/term` and `total`); `tau`, the mean one where pairs have their own; `coefficients`: attraction,
    repulsion and `weight/term`; `statistics` of the batch, and some ten times a run the effective rank times the variance of
    the unit vectors, which is small for all kinds of collapse. After an `Edit` that cannot be, the same step comes back with
    the reason in `refused`, and nothing has changed.
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


def initial_state(recipe: Recipe, features: Mapping[str, Features], batches: Batches) -> State:
    """A fresh Aligner for these features; input statistics come from the rows that occur in the pairs, no others."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        heads = {}
        for modality, table in features.items():
            if modality in recipe.fixed:
                if table.width != recipe.dim:
                    raise ValueError(f"{modality} is fixed, but its width {table.width} is not the space's {recipe.dim}")
                heads[modality] = Fixed(table.width)
                continue
            rows = table.vectors[batches.rows_of(modality)]
            sparse = not isinstance(rows, np.ndarray)
            fitted = SparseInput.fit(rows, recipe.least_count) if sparse else DenseInput.fit(rows, recipe.components)
            inner = fitted.inner if sparse else fitted.basis.shape[1]
            drop = recipe.image_dropout if modality == "image" else recipe.text_dropout
            heads[modality] = Head(table.width, inner, recipe.hidden, recipe.dim, sparse, drop, recipe.dropout, fitted)
        aligner = Aligner(heads["image"], heads["text"], recipe.temperature(0.0, {}, {})[0], recipe.bias)
    return State(aligner, _optimiser(aligner, recipe), recipe)


def train(
    recipe: Recipe, features: Mapping[str, Features], pairs: Pairs, state: State | None = None
) -> Generator[Step, Edit | None, State]:
    """Yield a `Step` after each optimiser step; send an `Edit` in to change the run; return the final `State`.

    `features` maps "image" and "text" to Features; `pairs` hold ids of their rows. Everything is checked before the
    first step: an unknown id, an empty table of pairs or a relation that mixes modalities raises `CorpusError`.
    """
    profile.keep_memory()
    batches = _by_threshold(features, pairs, recipe)
    everything = batches(0.0)
    state = state or initial_state(recipe, features, everything)
    total = recipe.epochs * everything.per_epoch
    _add_adversaries(state, everything)
    inputs = {modality: state.aligner.heads[modality].prepare(table.vectors) for modality, table in features.items()}
    while state.step < total:
        stage, now = state.recipe.at(state.step / max(1, total - 1))
        step = _one_step(state, now, stage, inputs, batches(now.threshold), total, recipe.seed)
        if step.statistics.get("effective rank", np.inf) < now.collapse:
            rank = step.statistics["effective rank"]
            raise Collapsed(f"step {step.step}: effective rank {rank:.2f} is below {now.collapse:g}; the vectors fall together")
        edit = yield step
        while edit is not None:
            try:
                edited = state.recipe.edited(edit.field, edit.value)
                batches(edited.at(step.progress)[1].threshold)
            except ValueError as error:
                edit = yield replace(step, refused=str(error))  # raising would end the generator, and with it the run
                continue
            state.recipe = edited
            state.edits.append(Edit(state.step, edit.field, edit.value))
            _add_adversaries(state, everything)
            edit = yield step
    return state


def _by_threshold(features: Mapping[str, Features], pairs: Pairs, recipe: Recipe) -> Callable[[float], Batches]:
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


def _add_adversaries(state: State, batches: Batches) -> None:
    """A discriminator for each relation between texts, if the recipe has use for them and they are not there yet."""
    recipes = [state.recipe, *(state.recipe.at(stage.until)[1] for stage in state.recipe.stages)]
    if state.adversaries or not any("adversary" in recipe.terms for recipe in recipes):
        return
    with torch.random.fork_rng():
        torch.manual_seed(state.recipe.seed)
        between_texts = [source.name for source in batches.sources if source.modalities == ("text", "text")]
        state.adversaries.update({_key(name): Discriminator(state.recipe.dim) for name in between_texts})
    if state.adversaries:
        state.optimiser.add_param_group({"params": list(state.adversaries.parameters()), "weight_decay": 0.0})


def _key(relation: str) -> str:
    return relation.replace(".", "·")  # a module's name holds no dot


def _one_step(state: State, recipe: Recipe, stage: str, inputs: Mapping, batches: Batches, total: int, seed: int) -> Step:
    aligner, progress = state.aligner, state.step / max(1, total - 1)
    batch = batches.at(state.step, seed)
    aligner.train()
    with torch.random.fork_rng():
        torch.manual_seed(seed * 1_000_003 + state.step)
        encoded = {m: aligner.heads[m](inputs[m][rows]) for m, rows in batch.rows.items() if len(rows)}
    # index_select, not []: its gradient needs no sorting
    sides = {
        r.name: (encoded[r.left_modality].index_select(0, r.left), encoded[r.right_modality].index_select(0, r.right))
        for r in batch.relations
    }
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
    terms, taus, loss = {}, [], torch.zeros(())
    for relation in batch.relations:
        own = aligner.tau if recipe.learn_temperature else _own_tau(recipe, tau, sims, relation, batch, batches, state)
        taus.append(_mean(own))
        adversary = state.adversaries[_key(relation.name)] if _key(relation.name) in state.adversaries else None
        seen = (sims[relation.name], relation.positives, relation.weight, own, aligner.bias)
        view = View(*sides[relation.name], *seen, discriminator=adversary, **settings)
        for name, weight in weights.items():
            value = TERMS[name](view)
            terms[f"{relation.name}/{name}"] = float(value.detach())
            loss = loss + weight * recipe.relations.get(relation.name, 1.0) * value
    rate = _learning_rate(recipe, progress)
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    state.optimiser.zero_grad()
    loss.backward()
    state.optimiser.step()
    state.step += 1
    if state.step % (batches.per_epoch * max(1, recipe.epochs // 10)) == 0:
        rows = torch.cat(list(encoded.values())).detach()
        spread = 1 - float(rows.mean(0).square().sum())  # what is left around one point is noise, of full rank
        statistics["effective rank"] = spread * effective_rank(rows[:: max(1, len(rows) // MOST_RANKED)].numpy())
    terms["total"] = float(loss.detach())
    coefficients |= {f"weight/{name}": float(weight) for name, weight in weights.items()}
    epoch, done = state.step / batches.per_epoch, state.step / total
    mean_tau = taus[0] if len(set(taus)) == 1 else float(np.mean(taus))  # a mean of equal numbers may differ in the last digit
    return Step(state.step, total, epoch, done, terms, mean_tau, rate, statistics, coefficients, stage, state)


def _own_tau(recipe: Recipe, tau: float, sims: Mapping, relation: Relation, batch: Batch, batches: Batches, state: State):
    """This relation's temperature: the schedule's number, or one per pair or per row where the schedule has such."""
    if isinstance(recipe.temperature, PerPair):
        return recipe.temperature.spread(sims[relation.name])
    if not isinstance(recipe.temperature, Individual):
        return tau
    rows = [
        batch.rows[modality][at.numpy()] + batches.bounds[modality][0]
        for modality, at in ((relation.left_modality, relation.left), (relation.right_modality, relation.right))
    ]
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


def _optimiser(aligner: Aligner, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101); biases and the temperature are not decayed."""
    decayed = [p for p in aligner.parameters() if p.ndim >= 2]
    free = [p for p in aligner.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)


def fit(
    recipe: Recipe, features: Mapping[str, Features], pairs: Pairs, folder: Path | None = None, progress: bool = True
) -> tuple[Aligner, pd.DataFrame]:
    """Drain `train`: the trained Aligner and one row per step.

    With a `folder` the state is saved every `SAVE_SECONDS` and at the end, and a run found there goes on from it.
    """
    state, rows, saved = None, [], time.monotonic()
    if folder and (folder / "state.json").exists():
        state, rows = load_state(folder, recipe, features, pairs)
    steps = train(recipe, features, pairs, state)
    begun = state.step if state else 0
    bar = tqdm(steps, desc=recipe.name, unit="step", disable=not progress, initial=begun, leave=False, delay=2, mininterval=0.5)
    for step in bar:
        rows.append(step.row())
        state, bar.total = step.state, step.steps
        if folder and (step.step == step.steps or time.monotonic() - saved > SAVE_SECONDS):
            save_state(step.state, rows, folder)
            saved = time.monotonic()
    return state.aligner.eval(), pd.DataFrame(rows)


def save_state(state: State, rows: list[dict], folder: Path) -> None:
    """`state.safetensors` and `state.json`: weights, moments, step, schedule memory, edits, rows so far. Atomic."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": t.contiguous() for name, t in state.aligner.state_dict().items()}
    moments = state.optimiser.state_dict()["state"]
    tensors |= {f"optimiser.{i}.{name}": t for i, values in moments.items() for name, t in values.items()}
    tensors |= {f"adversary.{name}": t.contiguous() for name, t in state.adversaries.state_dict().items()}
    memory = {name: dict(held) for name, held in state.schedule.items()}
    for name, held in memory.items():
        arrays = {key: held.pop(key) for key in list(held) if isinstance(held[key], np.ndarray)}
        tensors |= {f"schedule.{name}.{key}": torch.from_numpy(array) for key, array in arrays.items()}
    edits = [asdict(edit) | {"value": plain(edit.value)} for edit in state.edits]
    saved = {"step": state.step, "schedule": memory, "edits": edits, "recipe": state.recipe.to_json(), "rows": rows}
    save_file(tensors, folder / f"state-{state.step}.safetensors")
    (folder / "state.json.new").write_text(json.dumps(saved))
    (folder / "state.json.new").replace(folder / "state.json")
    for old in folder.glob("state-*.safetensors"):
        if old.name != f"state-{state.step}.safetensors":
            old.unlink()


def load_state(folder: Path, recipe: Recipe, features: Mapping[str, Features], pairs: Pairs) -> tuple[State, list[dict]]:
    """The state saved in `folder`, and its rows; going on from it equals never having stopped."""
    saved = json.loads((folder / "state.json").read_text())
    tensors = load_file(folder / f"state-{saved['step']}.safetensors")
    batches = Batches(features, pairs, recipe.batch_pairs, recipe.per_epoch)
    state = initial_state(recipe, features, batches)
    state.recipe, state.step, state.schedule = Recipe.from_json(saved["recipe"]), saved["step"], saved["schedule"]
    _add_adversaries(state, batches)
    moments: dict[int, dict] = {}
    parts: dict[str, dict] = {"model": {}, "adversary": {}}
    for key, tensor in tensors.items():
        part, name = key.split(".", 1)
        if part == "optimiser":
            number, name = name.split(".", 1)
            moments.setdefault(int(number), {})[name] = tensor
        elif part == "schedule":
            name, entry = name.rsplit(".", 1)
            state.schedule[name][entry] = tensor.numpy()
        else:
            parts[part][name] = tensor
    state.aligner.load_state_dict(parts["model"])
    state.adversaries.load_state_dict(parts["adversary"])
    state.optimiser.load_state_dict({**state.optimiser.state_dict(), "state": moments})
    state.edits = [Edit(**edit | {"value": unplain(edit["value"])}) for edit in saved["edits"]]
    return state, saved["rows"]
