"""The recipe: everything that decides a run, apart from its data, and the terms of its loss by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace

import torch

from xmalign_lab import schedules
from xmalign_lab.losses import structure as regularisers
from xmalign_lab.losses.adversarial import language_adversary
from xmalign_lab.losses.contrastive import rince, sigmoid_pairs, smoothed_softmax, squared_distance, symmetric_info_nce
from xmalign_lab.schedules import Constant, Schedule

EDITABLE = (
    "temperature", "attraction", "repulsion", "terms", "relations", "learning_rate", "hardness", "ambiguity", "threshold"
)  # fmt: skip


@dataclass(frozen=True)
class View:
    """What a term sees of one relation in one batch: unit vectors (n, d) and (m, d), their product, belief, τ, bias.

    `attraction`, `repulsion` and `reversal` are this step's numbers; `discriminator` is there between texts only.
    """

    left: torch.Tensor
    right: torch.Tensor
    sim: torch.Tensor
    positives: torch.Tensor
    weight: torch.Tensor
    tau: torch.Tensor | float | tuple[torch.Tensor, torch.Tensor]
    bias: torch.Tensor
    attraction: float = 1.0
    repulsion: float = 1.0
    hardness: float = 0.0
    ambiguity: float = 0.0
    reversal: float = 0.0
    discriminator: torch.nn.Module | None = None


def _info_nce(v: View) -> torch.Tensor:
    options = {"attraction": v.attraction, "repulsion": v.repulsion, "hardness": v.hardness, "ambiguity": v.ambiguity}
    return symmetric_info_nce(v.sim, v.positives, v.tau, v.weight, **options)


def _adversary(v: View) -> torch.Tensor:
    """Nothing between pictures and texts: a language is what the discriminator is to guess."""
    return 0 * v.sim.sum() if v.discriminator is None else language_adversary(v.left, v.right, v.discriminator, v.reversal)


def _regulariser(name: str) -> Callable[[View], torch.Tensor]:
    measure = getattr(regularisers, name)
    return lambda v: measure(v.left, v.right, v.positives)


REGULARISERS = ("structure", "cka", "mmd", "coral", "wasserstein", "gromov_wasserstein", "uniformity")
TERMS: dict[str, Callable[[View], torch.Tensor]] = {
    "info_nce": _info_nce,
    "align": lambda v: smoothed_softmax(v.sim, v.positives, v.tau, v.weight),
    "siglip": lambda v: sigmoid_pairs(v.sim, v.positives, v.tau, v.weight, v.bias),
    "rince": lambda v: rince(v.sim, v.positives, v.tau, v.weight),
    "distance": lambda v: squared_distance(v.sim, v.positives, v.weight),
    "adversary": _adversary,
    **{name: _regulariser(name) for name in REGULARISERS},
}


@dataclass(frozen=True)
class Stage:
    """Up to `until` (a progress in (0, 1]) the run is in stage `name`, with `changes` of the recipe's editable fields."""

    name: str
    until: float
    changes: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self):
        if not 0 < self.until <= 1:
            raise ValueError(f"stage {self.name!r} ends at progress {self.until}; it must lie in (0, 1]")
        if unknown := sorted(set(self.changes) - set(EDITABLE)):
            raise ValueError(f"stage {self.name!r} changes {unknown[0]!r}; it may change {', '.join(EDITABLE)}")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run, apart from its data. Prints as JSON (`to_json`) and reads back (`from_json`).

        L = Σ over relations of  α(t, B) · attraction + β(t, B) · repulsion + Σ λ(A) · regulariser

    An epoch has `per_epoch` steps, or as many as batches of about `batch_pairs` pairs make of the data (0).
    `terms` weighs losses by name, with numbers or Schedules (λ, such as `Fading`), `relations` weighs the sources of the
    pairs (1 where not named). `attraction` α and `repulsion` β are the two halves of "info_nce" (`losses.contrastive`),
    with `hardness` and `ambiguity`; `temperature` is a Schedule, or its start value is learned with `learn_temperature`;
    `bias` is where SigLIP's starts; `reversal` is the strength of the term "adversary" on the heads. Pairs whose score lies
    below `threshold` are left out, one without a score stays. `stages` change fields as the run goes on. The modalities in
    `fixed` bring vectors of width `dim` that are the space already. A run ends with `Collapsed` when the effective rank of
    what it encodes falls below `collapse`. Raises `ValueError` for an unknown term, schedule or field, naming the known ones.
    """

    name: str = "info_nce"
    seed: int = 0
    epochs: int = 40
    batch_pairs: int = 2000
    per_epoch: int = 0
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
    temperature: Schedule = field(default_factory=lambda: Constant(0.1))
    learn_temperature: bool = False
    bias: float = 0.0
    fixed: tuple[str, ...] = ()
    terms: Mapping[str, float | Schedule] = field(default_factory=lambda: {"info_nce": 1.0})
    relations: Mapping[str, float] = field(default_factory=dict)
    attraction: Schedule = field(default_factory=lambda: Constant(1.0))
    repulsion: Schedule = field(default_factory=lambda: Constant(1.0))
    hardness: float = 0.0
    ambiguity: float = 0.0
    reversal: Schedule = field(default_factory=schedules.Ramp)
    threshold: float = 0.0
    stages: tuple[Stage, ...] = ()
    collapse: float = 0.0

    def __post_init__(self):
        for term in self.terms:
            if term not in TERMS:
                raise ValueError(f"unknown term {term!r}; known are {', '.join(sorted(TERMS))}")
        if self.epochs < 1 or self.batch_pairs < 2:
            raise ValueError("a recipe needs at least 1 epoch and 2 pairs in a batch")
        schedules.as_temperature(self.temperature)
        object.__setattr__(self, "fixed", tuple(self.fixed))  # JSON knows lists only
        ends = [stage.until for stage in self.stages]
        if self.stages and (ends != sorted(set(ends)) or ends[-1] != 1):
            raise ValueError(f"stages must end one after the other, the last at 1; these end at {ends}")
        object.__setattr__(self, "_staged", [replace(self, stages=(), **stage.changes) for stage in self.stages])

    def at(self, progress: float) -> tuple[str, Recipe]:
        """The name of the stage at `progress` in [0, 1], and the recipe that holds in it; '' and itself without stages."""
        for stage, recipe in zip(self.stages, self._staged, strict=True):
            if progress < stage.until or stage.until == 1:
                return stage.name, recipe
        return "", self

    def edited(self, name: str, value: object) -> Recipe:
        """This recipe with one editable field changed, in its stages too."""
        if name not in EDITABLE:
            raise ValueError(f"{name!r} cannot be edited in a run; editable are {', '.join(EDITABLE)}")
        stages = tuple(replace(s, changes={k: v for k, v in s.changes.items() if k != name}) for s in self.stages)
        return replace(self, stages=stages, **{name: value})

    def to_json(self) -> str:
        return json.dumps({f.name: plain(getattr(self, f.name)) for f in fields(self)}, indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        values = json.loads(text)
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown field {unknown[0]!r} in the recipe; known are {', '.join(sorted(known))}")
        values = {name: unplain(value) for name, value in values.items()}
        values["stages"] = tuple(Stage(**stage) for stage in values.get("stages", ()))
        return cls(**values)


def plain(value: object) -> object:
    """A recipe's value as JSON has it: a Schedule as `schedules.to_dict` writes it."""
    if isinstance(value, Schedule):
        return schedules.to_dict(value)
    if isinstance(value, Stage):
        return {"name": value.name, "until": value.until, "changes": plain(value.changes)}
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, tuple | list) else value


def unplain(value: object) -> object:
    """The inverse of `plain`, but for tuples and stages: a dict with a `kind` is a Schedule."""
    if isinstance(value, Mapping):
        return schedules.from_dict(value) if "kind" in value else {key: unplain(each) for key, each in value.items()}
    return [unplain(each) for each in value] if isinstance(value, list) else value
