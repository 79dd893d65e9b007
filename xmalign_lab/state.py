"""The state of a run: all that it has learned and remembers, made afresh, saved, and read back to the same numbers."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from xmalign_lab.batches import Batches, Tables
from xmalign_lab.corpus import Pairs
from xmalign_lab.encoders.features import Features
from xmalign_lab.encoders.inputs import Inputs
from xmalign_lab.heads import fitted_head
from xmalign_lab.losses.adversarial import Discriminator
from xmalign_lab.model import Aligner, Fixed, TowerHead
from xmalign_lab.recipe import Recipe, plain, unplain


@dataclass(frozen=True)
class Edit:
    """A change of the running recipe: from step `step` on, `field` has `value`."""

    step: int
    field: str
    value: object


@dataclass
class State:
    """All that a run has learned and remembers: enough to go on bit for bit.

    `schedule` is what the schedules remember, and the queues of pairs; `uncertainty` the learned s_k of the terms.
    """

    aligner: Aligner
    optimiser: torch.optim.Optimizer
    recipe: Recipe
    step: int = 0
    schedule: dict = field(default_factory=dict)
    edits: list[Edit] = field(default_factory=list)
    adversaries: torch.nn.ModuleDict = field(default_factory=torch.nn.ModuleDict)
    uncertainty: torch.nn.ParameterDict = field(default_factory=torch.nn.ParameterDict)


Begin = Mapping[str, torch.nn.Module] | None  # trained heads by modality, from copies of which a run starts
LEARNED = ("aligner", "adversaries", "uncertainty")  # the fields of a State that hold weights


def initial_state(recipe: Recipe, features: Tables, batches: Batches, begin: Begin = None) -> State:
    """A fresh Aligner for these features; input statistics come from the rows that occur in the pairs, no others.

    A modality in `begin` starts from a copy of the trained head there, which must be of the recipe's space.
    """
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        heads = {modality: _head(recipe, modality, table, batches) for modality, table in features.items()}
        for modality, head in (begin or {}).items():
            heads[modality] = copy.deepcopy(head)
        aligner = Aligner(heads["image"], heads["text"], recipe.temperature(0.0, {}, {})[0], recipe.bias)
    return State(aligner, _optimiser(aligner, recipe), recipe)


def _head(recipe: Recipe, modality: str, table: Features | Inputs, batches: Batches) -> torch.nn.Module:
    if isinstance(table, Inputs) != (modality in recipe.towers):
        brings = "Inputs, which need a tower" if isinstance(table, Inputs) else "features, which need none"
        raise ValueError(f"{modality} brings {brings}; the recipe's towers are {sorted(recipe.towers) or 'none'}")
    if isinstance(table, Inputs):
        head = TowerHead(dict(recipe.towers[modality]), recipe.dim, recipe.adapters)
        head.freeze(recipe.train_towers)
        return head
    if modality in recipe.fixed:
        if table.width != recipe.dim:
            raise ValueError(f"{modality} is fixed, but its width {table.width} is not the space's {recipe.dim}")
        return Fixed(table.width)
    kind, drop = (getattr(recipe, f"{modality}_{what}") for what in ("head", "dropout"))
    rows = table.vectors[batches.rows_of(modality)]
    return fitted_head(kind, rows, recipe.dim, recipe.hidden, recipe.components, recipe.least_count, drop, recipe.dropout)


def _optimiser(aligner: Aligner, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101); biases and the temperature are not decayed.

    A group's `scale` is its learning rate as a multiple of the recipe's.
    """
    groups: dict[tuple[bool, bool], list] = {(tower, decays): [] for tower in (False, True) for decays in (True, False)}
    for name, weight in aligner.named_parameters():
        if weight.requires_grad:
            groups[".tower." in name, weight.ndim >= 2].append(weight)
    of_towers = (recipe.tower_learning_rate or recipe.learning_rate) / recipe.learning_rate
    settings = [
        {"params": weights, "weight_decay": recipe.weight_decay * decays, "scale": of_towers if tower else 1.0}
        for (tower, decays), weights in groups.items()
        if weights
    ]
    return torch.optim.AdamW(settings, lr=recipe.learning_rate, fused=True)


def grow(state: State, batches: Batches) -> None:
    """Add what the recipe has come to need: a discriminator for each relation between texts, an s_k for each term.

    What all stages need is there from the first step on, so that it does not matter when a stage begins.
    """
    recipe, new = state.recipe, []
    terms = {term for each in (recipe, *(recipe.at(stage.until)[1] for stage in recipe.stages)) for term in each.terms}
    if "adversary" in terms and not state.adversaries:
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            between_texts = [source.name for source in batches.sources if source.modalities == ("text", "text")]
            state.adversaries.update({key(name): Discriminator(recipe.dim) for name in between_texts})
        new += state.adversaries.parameters()
    if recipe.weighting == "uncertainty":
        wanted = {key(f"{source.name}/{term}") for source in batches.sources for term in terms} - set(state.uncertainty)
        state.uncertainty.update({name: torch.nn.Parameter(torch.zeros(())) for name in sorted(wanted)})
        new += [state.uncertainty[name] for name in sorted(wanted)]
    if new:
        state.optimiser.add_param_group({"params": new, "weight_decay": 0.0, "scale": 1.0})


def key(relation: str) -> str:
    """A relation's name as that of a module, which holds no dot."""
    return relation.replace(".", "·")


def _weights(state: State) -> dict[str, torch.nn.Parameter]:
    return {f"{part}.{name}": weight for part in LEARNED for name, weight in getattr(state, part).named_parameters()}


def save_state(state: State, rows: list[dict], folder: Path) -> None:
    """`state.safetensors` and `state.json`: weights, moments, step, schedule memory, edits, rows so far. Atomic."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{part}.{name}": t.contiguous() for part in LEARNED for name, t in getattr(state, part).state_dict().items()}
    moments = {name: state.optimiser.state.get(weight, {}) for name, weight in _weights(state).items()}
    tensors |= {f"moments.{name}.{entry}": t for name, held in moments.items() for entry, t in held.items()}
    memory = {name: dict(held) for name, held in state.schedule.items()}
    for name, held in memory.items():
        arrays = {entry: held.pop(entry) for entry in list(held) if isinstance(held[entry], np.ndarray)}
        tensors |= {f"schedule.{name}.{entry}": torch.from_numpy(array) for entry, array in arrays.items()}
    edits = [asdict(edit) | {"value": plain(edit.value)} for edit in state.edits]
    saved = {"step": state.step, "schedule": memory, "edits": edits, "recipe": state.recipe.to_json(), "rows": rows}
    save_file(tensors, folder / f"state-{state.step}.safetensors")
    (folder / "state.json.new").write_text(json.dumps(saved))
    (folder / "state.json.new").replace(folder / "state.json")
    for old in folder.glob("state-*.safetensors"):
        if old.name != f"state-{state.step}.safetensors":
            old.unlink()


def load_state(folder: Path, recipe: Recipe, features: Tables, pairs: Pairs, begin: Begin = None) -> tuple[State, list[dict]]:
    """The state saved in `folder`, and its rows; going on from it equals never having stopped. `begin` as when it started."""
    saved = json.loads((folder / "state.json").read_text())
    batches = Batches(features, pairs, recipe.batch_pairs, recipe.per_epoch)
    state = initial_state(recipe, features, batches, begin)
    state.recipe, state.step, state.schedule = Recipe.from_json(saved["recipe"]), saved["step"], saved["schedule"]
    grow(state, batches)
    parts: dict[str, dict] = {part: {} for part in (*LEARNED, "moments", "schedule")}
    for name, tensor in load_file(folder / f"state-{state.step}.safetensors").items():
        part, name = name.split(".", 1)
        parts[part][name] = tensor
    for part in LEARNED:
        getattr(state, part).load_state_dict(parts[part])
    weights = _weights(state)
    for name, tensor in parts["moments"].items():
        name, entry = name.rsplit(".", 1)
        state.optimiser.state[weights[name]][entry] = tensor
    for name, tensor in parts["schedule"].items():
        name, entry = name.rsplit(".", 1)
        state.schedule[name][entry] = tensor.numpy()
    state.edits = [Edit(**edit | {"value": unplain(edit["value"])}) for edit in saved["edits"]]
    return state, saved["rows"]
