"""Recipe, and the trainer: a generator of steps.

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
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from xmalign_lab import profile, schedules
from xmalign_lab.batches import Batches
from xmalign_lab.corpus import Pairs
from xmalign_lab.encoders.features import Features
from xmalign_lab.losses.contrastive import sigmoid_pairs, smoothed_softmax, symmetric_info_nce
from xmalign_lab.losses.transfer import squared_distance, structure
from xmalign_lab.model import Aligner, DenseInput, Fixed, Head, SparseInput


@dataclass(frozen=True)
class View:
    """What a term sees of one relation in one batch: unit vectors (n, d) and (m, d), their product, belief, τ, bias."""

    left: torch.Tensor
    right: torch.Tensor
    sim: torch.Tensor
    positives: torch.Tensor
    weight: torch.Tensor
    tau: torch.Tensor | float
    bias: torch.Tensor


TERMS: dict[str, Callable[[View], torch.Tensor]] = {
    "info_nce": lambda v: symmetric_info_nce(v.sim, v.positives, v.tau, v.weight),
    "align": lambda v: smoothed_softmax(v.sim, v.positives, v.tau, v.weight),
    "siglip": lambda v: sigmoid_pairs(v.sim, v.positives, v.tau, v.weight, v.bias),
    "distance": lambda v: squared_distance(v.sim, v.positives, v.weight),
    "structure": lambda v: structure(v.left, v.right, v.positives),
}
SAVE_SECONDS = 20.0
EDITABLE = ("temperature", "relations", "learning_rate", "terms")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run, apart from its data. Prints as JSON (`to_json`) and reads back (`from_json`).

    `terms` weighs losses by name, `relations` weighs the sources of the pairs (1 where not named). `temperature` is a
    Schedule, or its start value is learned with `learn_temperature`; `bias` is where SigLIP's starts. The modalities in
    `fixed` bring vectors of width `dim` that are the space already. Raises `ValueError` for an unknown term, schedule or
    field, naming the known ones.
    """

    name: str = "info_nce"
    seed: int = 0
    epochs: int = 40
    batch_pairs: int = 2000
    learning_rate: float = 5e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    dim: int = 256
    hidden: int = 704
    components: int = 256
    least_count: int = 2
    image_dropout: float = 0.4
    text_dropout: float = 0.3
    dropout: float = 0.3
    temperature: schedules.Schedule = field(default_factory=lambda: schedules.Constant(0.1))
    learn_temperature: bool = False
    bias: float = 0.0
    fixed: tuple[str, ...] = ()
    terms: Mapping[str, float] = field(default_factory=lambda: {"info_nce": 1.0})
    relations: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self):
        for term in self.terms:
            if term not in TERMS:
                raise ValueError(f"unknown term {term!r}; known are {', '.join(sorted(TERMS))}")
        if self.epochs < 1 or self.batch_pairs < 2:
            raise ValueError("a recipe needs at least 1 epoch and 2 pairs in a batch")
        object.__setattr__(self, "fixed", tuple(self.fixed))  # JSON knows lists only

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "temperature": schedules.to_dict(self.temperature)}, indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        values = json.loads(text)
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown field {unknown[0]!r} in the recipe; known are {', '.join(sorted(known))}")
        if "temperature" in values:
            values["temperature"] = schedules.from_dict(values["temperature"])
        return cls(**values)


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


@dataclass(frozen=True)
class Step:
    """What one step did: `terms` by name (`relation/term` and `total`), the temperature, and the state after it."""

    step: int
    steps: int
    epoch: float
    progress: float
    terms: dict[str, float]
    tau: float
    learning_rate: float
    statistics: dict[str, float]
    state: State = field(repr=False)

    def row(self) -> dict:
        """One flat row for `steps.parquet`."""
        plain = {
            "step": self.step,
            "epoch": self.epoch,
            "progress": self.progress,
            "tau": self.tau,
            "learning_rate": self.learning_rate,
        }
        return plain | self.terms | self.statistics


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
    batches = Batches(features, pairs, recipe.batch_pairs)
    state = state or initial_state(recipe, features, batches)
    total = recipe.epochs * batches.per_epoch
    inputs = {modality: state.aligner.heads[modality].prepare(table.vectors) for modality, table in features.items()}
    while state.step < total:
        step = _one_step(state, inputs, batches, total, recipe.seed)
        edit = yield step
        while edit is not None:
            _apply(edit, state)
            edit = yield step
    return state


def _one_step(state: State, inputs: Mapping, batches: Batches, total: int, seed: int) -> Step:
    recipe, aligner = state.recipe, state.aligner
    progress = state.step / max(1, total - 1)
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
    tau, state.schedule = recipe.temperature(progress, statistics, state.schedule)
    tau = aligner.tau if recipe.learn_temperature else tau
    terms, loss = {}, torch.zeros(())
    for relation in batch.relations:
        view = View(*sides[relation.name], sims[relation.name], relation.positives, relation.weight, tau, aligner.bias)
        for name, weight in recipe.terms.items():
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
    tau = float(tau.detach()) if recipe.learn_temperature else float(tau)
    terms["total"] = float(loss.detach())
    return Step(state.step, total, state.step / batches.per_epoch, state.step / total, terms, tau, rate, statistics, state)


def _statistics(sims: Mapping[str, torch.Tensor], batch) -> dict[str, float]:
    """Mean similarity of believed pairs and of all others in the batch, over relations: what a Schedule may use."""
    with torch.no_grad():
        total = torch.stack([sims[r.name].sum() for r in batch.relations]).sum()
        positive = torch.stack([(sims[r.name] * r.positives).sum() for r in batch.relations]).sum()
        pairs = sum(int(r.positives.sum()) for r in batch.relations)
        others = sum(r.positives.numel() for r in batch.relations) - pairs
        return {"positive": float(positive / pairs), "negative": float((total - positive) / max(1, others))}


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


def _apply(edit: Edit, state: State) -> None:
    if edit.field not in EDITABLE:
        raise ValueError(f"{edit.field!r} cannot be edited in a run; editable are {', '.join(EDITABLE)}")
    state.recipe = replace(state.recipe, **{edit.field: edit.value})
    state.edits.append(Edit(state.step, edit.field, edit.value))


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
    edits = [asdict(edit) | {"value": _plain(edit.value)} for edit in state.edits]
    plain = {"step": state.step, "schedule": state.schedule, "edits": edits, "recipe": state.recipe.to_json(), "rows": rows}
    save_file(tensors, folder / f"state-{state.step}.safetensors")
    (folder / "state.json.new").write_text(json.dumps(plain))
    (folder / "state.json.new").replace(folder / "state.json")
    for old in folder.glob("state-*.safetensors"):
        if old.name != f"state-{state.step}.safetensors":
            old.unlink()


def load_state(folder: Path, recipe: Recipe, features: Mapping[str, Features], pairs: Pairs) -> tuple[State, list[dict]]:
    """The state saved in `folder`, and its rows; going on from it equals never having stopped."""
    plain = json.loads((folder / "state.json").read_text())
    tensors = load_file(folder / f"state-{plain['step']}.safetensors")
    state = initial_state(recipe, features, Batches(features, pairs, recipe.batch_pairs))
    state.aligner.load_state_dict({k.removeprefix("model."): t for k, t in tensors.items() if k.startswith("model.")})
    moments: dict[int, dict] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimiser."):
            _, i, name = key.split(".", 2)
            moments.setdefault(int(i), {})[name] = tensor
    state.optimiser.load_state_dict({**state.optimiser.state_dict(), "state": moments})
    state.recipe, state.step, state.schedule = Recipe.from_json(plain["recipe"]), plain["step"], plain["schedule"]
    state.edits = [Edit(**edit) for edit in plain["edits"]]
    return state, plain["rows"]


def _plain(value: object) -> object:
    return schedules.to_dict(value) if isinstance(value, schedules.Schedule) else value
