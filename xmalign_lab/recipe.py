"""The recipe: everything that decides a run, apart from its data, and the terms of its loss by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace

import torch

from xmalign_lab import schedules
from xmalign_lab.encoders.trainable import TOWERS
from xmalign_lab.heads import FEATURE_HEADS
from xmalign_lab.losses import contrastive, local
from xmalign_lab.losses import structure as regularisers
from xmalign_lab.losses.adversarial import language_adversary
from xmalign_lab.losses.contrastive import rince, sigmoid_pairs, smoothed_softmax, squared_distance, symmetric_info_nce
from xmalign_lab.losses.ranking import triplet
from xmalign_lab.losses.transfer import mixup, relational, taught
from xmalign_lab.schedules import Constant, Schedule

EDITABLE = (
    "temperature", "attraction", "repulsion", "terms", "relations", "learning_rate", "hardness", "ambiguity", "threshold",
    "guide_temperature"
)  # fmt: skip


@dataclass(frozen=True)
class View:
    """What a term sees of one relation in one batch: unit vectors (n, d) and (m, d), their product, belief, τ, bias.

    `attraction`, `repulsion` and `reversal` are this step's numbers; `discriminator` is there between texts only. Where the
    heads have tokens, `left_tokens` (n, a, d) and `right_tokens` (m, b, d) with their masks (n, a) and (m, b); in a run that
    is `taught`, the teacher's similarities `guide` (n, m), if it knows these rows, where asked those of its words `guide_words`
    (n, m), and the temperature of distillation `guide_tau`, if it is not `tau`. `before` (k, k) are the cosines that the
    features of the text side had, of the left one between texts; `remembered` the rows of the last pairs, two of (q, d), where
    the recipe has a queue.
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
    left_tokens: torch.Tensor | None = None
    left_mask: torch.Tensor | None = None
    right_tokens: torch.Tensor | None = None
    right_mask: torch.Tensor | None = None
    guide: torch.Tensor | None = None
    guide_words: torch.Tensor | None = None
    guide_tau: float | None = None
    before: torch.Tensor | None = None
    remembered: tuple[torch.Tensor, torch.Tensor] | None = None
    relation: str = ""
    taught: bool = False
    modalities: tuple[str, str] = ("text", "text")

    def needs(self, part: str, term: str, mend: str) -> torch.Tensor:
        """That part of the view; where the relation lacks it, a `ValueError` that says so."""
        if getattr(self, part) is None:
            lacks = f"relation {self.relation!r} has no {part.replace('_', ' ')}"
            raise ValueError(f"{lacks}, which the term {term!r} needs; {mend}")
        return getattr(self, part)

    @property
    def options(self) -> dict[str, float]:
        """What `info_nce` takes beside the similarities."""
        return {name: getattr(self, name) for name in ("attraction", "repulsion", "hardness", "ambiguity")}


def _info_nce(v: View) -> torch.Tensor:
    return symmetric_info_nce(v.sim, v.positives, v.tau, v.weight, **v.options)


def _adversary(v: View) -> torch.Tensor:
    """Nothing between pictures and texts: a language is what the discriminator is to guess."""
    return 0 * v.sim.sum() if v.discriminator is None else language_adversary(v.left, v.right, v.discriminator, v.reversal)


def _regulariser(name: str) -> Callable[[View], torch.Tensor]:
    measure = getattr(regularisers, name)

    def term(v: View) -> torch.Tensor:
        if v.remembered is None or name not in DISTRIBUTIONAL:
            return measure(v.left, v.right, v.positives)
        left, right = (torch.cat(sides) for sides in zip((v.left, v.right), v.remembered, strict=True))
        return measure(left, right, torch.block_diag(v.positives, torch.eye(len(v.remembered[0]))).bool())

    return term


def _local(name: str) -> Callable[[View], torch.Tensor]:
    """InfoNCE both ways on similarities between tokens; a text asks a picture, not the reverse, whichever of them is left."""
    measure = getattr(local, name)

    def term(v: View) -> torch.Tensor:
        x, y = _tokens(v, name)
        masks, positives, tau, weight = (v.left_mask, v.right_mask), v.positives, v.tau, v.weight
        if v.modalities == ("image", "text"):
            x, y, masks, positives, weight = y, x, masks[::-1], positives.T, weight.T
            tau = tau[::-1] if isinstance(tau, tuple) else tau.T if getattr(tau, "ndim", 0) == 2 else tau
        sims = measure(x, y, *masks)
        sims = sims if isinstance(sims, tuple) else (sims, sims)  # one for each direction, or the same for both
        return sum(contrastive.info_nce(sims[1 - dim], positives, tau, weight, dims=(dim,), **v.options) for dim in (1, 0)) / 2

    return term


def _guided(name: str, loss: Callable[[View, torch.Tensor], torch.Tensor], part: str = "guide") -> Callable[[View], torch.Tensor]:
    """Nothing in a relation that the teacher does not know."""

    def term(v: View) -> torch.Tensor:
        if v.taught and v.guide is None:
            return 0 * v.sim.sum()
        what = "a vector" if part == "guide" else "tokens"
        return loss(v, v.needs(part, name, f"give train() a guide with {what} for each of its rows"))

    return term


def _tokens(v: View, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    mend = "give Inputs and a tower on both sides"
    return v.needs("left_tokens", name, mend), v.needs("right_tokens", name, mend)


def _transport_cost(v: View) -> torch.Tensor:
    """The mean over believed pairs, by weight, of what it costs to match their words."""
    left, right = v.positives.nonzero().T
    x, y = (tokens.index_select(0, at) for tokens, at in zip(_tokens(v, "transport_cost"), (left, right), strict=True))
    weight = v.weight[left, right]
    return (weight * local.transport_cost(x, y, v.left_mask[left], v.right_mask[right])).sum() / weight.sum().clamp(min=1e-9)


def _relational_words(v: View, guide: torch.Tensor) -> torch.Tensor:
    sim = local.transport(*_tokens(v, "relational_words"), v.left_mask, v.right_mask)
    return relational(sim, guide, v.tau if v.guide_tau is None else v.guide_tau)


def _neighbourhood(v: View) -> torch.Tensor:
    before = v.needs("before", "neighbourhood", "its texts must come as Features")
    return regularisers.neighbourhood(v.right if v.modalities[0] == "image" else v.left, before)


REGULARISERS = ("structure", "cka", "mmd", "coral", "wasserstein", "gromov_wasserstein", "uniformity")
DISTRIBUTIONAL = ("mmd", "coral", "wasserstein", "uniformity")  # these need not know which x belongs to which y
TERMS: dict[str, Callable[[View], torch.Tensor]] = {
    "info_nce": _info_nce,
    "align": lambda v: smoothed_softmax(v.sim, v.positives, v.tau, v.weight),
    "siglip": lambda v: sigmoid_pairs(v.sim, v.positives, v.tau, v.weight, v.bias),
    "rince": lambda v: rince(v.sim, v.positives, v.tau, v.weight),
    "triplet": lambda v: triplet(v.sim, v.positives, reduction="mean", weight=v.weight),
    "distance": lambda v: squared_distance(v.sim, v.positives, v.weight),
    "adversary": _adversary,
    **{name: _regulariser(name) for name in REGULARISERS},
    "neighbourhood": _neighbourhood,
    **{name: _local(name) for name in ("filip", "gloria", "pacl", "transport")},
    "transport_cost": _transport_cost,
    "relational": _guided("relational", lambda v, guide: relational(v.sim, guide, v.tau if v.guide_tau is None else v.guide_tau)),
    "relational_words": _guided("relational_words", _relational_words, "guide_words"),
    "taught": _guided("taught", lambda v, guide: taught(v.sim, guide, v.tau, v.guide_tau)),
    "mixup": lambda v: mixup(v.left, v.right, v.positives, v.tau, v.weight),
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
    `terms` weighs losses by name, with numbers or Schedules (λ, such as `Fading`). `relations` weighs the sources of the pairs
    (1 where not named), by a number, or by one for each of the terms that this source is to have, and no other: masked words
    or topics may have a loss of their own. `attraction` α and `repulsion` β are the two halves of "info_nce"
    (`losses.contrastive`), with `hardness` and `ambiguity`; `temperature` is a Schedule, or its start value is learned with
    `learn_temperature`; what a teacher says has `guide_temperature`, if there is one; `bias` is where SigLIP's starts;
    `reversal` is the strength of the term "adversary" on the heads. Pairs whose score lies below `threshold` are left out, one
    without a score stays. `stages` change fields as the run goes on. The
    modalities in `fixed` bring vectors of width `dim` that are the space already; `image_head` and `text_head` name the kind
    of head over other features (`heads`). A run ends with `Collapsed` when the effective rank of what it encodes falls below
    `collapse`.

    A modality that brings `Inputs` has a tower in `towers`: {"image": {"tower": name, **settings}}. Of it `train_towers`
    trains "all", "none", or so many of its last blocks, at `tower_learning_rate` (0: at `learning_rate`); `adapters` above 0
    is the rank of low-rank adapters in its linear layers, which are then trained instead. The terms in `DISTRIBUTIONAL` see the
    last `queue` pairs of each relation besides the batch (He et al. 2020, arXiv 1911.05722, of a contrastive loss; vectors a
    few steps old). With `weighting` "uncertainty" each term k of each relation counts as exp(-s_k) λ_k L_k + s_k/2 with a
    learned s_k in [-4, 4], since a loss below zero would have no best s (Kendall, Gal & Cipolla 2018, arXiv 1705.07115, the
    form for likelihoods). Raises `ValueError` for an unknown term, head, schedule or field, naming the known ones.
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
    relations: Mapping[str, float | Mapping[str, float]] = field(default_factory=dict)
    attraction: Schedule = field(default_factory=lambda: Constant(1.0))
    repulsion: Schedule = field(default_factory=lambda: Constant(1.0))
    hardness: float = 0.0
    ambiguity: float = 0.0
    reversal: Schedule = field(default_factory=schedules.Ramp)
    threshold: float = 0.0
    stages: tuple[Stage, ...] = ()
    collapse: float = 0.0
    image_head: str = "mlp"
    text_head: str = "mlp"
    towers: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    train_towers: str | int = "all"
    tower_learning_rate: float = 0.0
    adapters: int = 0
    queue: int = 0
    weighting: str = "fixed"
    guide_temperature: Schedule | None = None

    def __post_init__(self):
        for term in (*self.terms, *(term for of in self.relations.values() if isinstance(of, Mapping) for term in of)):
            if term not in TERMS:
                raise ValueError(f"unknown term {term!r}; known are {', '.join(sorted(TERMS))}")
        kinds = {"image_head": FEATURE_HEADS, "text_head": FEATURE_HEADS, "weighting": ("fixed", "uncertainty")}
        for name, known in kinds.items():
            if getattr(self, name) not in known:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; known are {', '.join(sorted(known))}")
        if not (self.train_towers in ("none", "all") or (type(self.train_towers) is int and self.train_towers > 0)):
            raise ValueError(f"train_towers is {self.train_towers!r}; it may be 'none', 'all' or a number of last blocks")
        if min(self.adapters, self.queue, self.tower_learning_rate) < 0:
            raise ValueError("adapters, queue and tower_learning_rate cannot be below 0")
        for modality, tower in self.towers.items():
            if modality not in ("image", "text") or tower.get("tower") not in TOWERS:
                known = f"for image or text, one of {', '.join(sorted(TOWERS))}"
                raise ValueError(f"unknown tower {tower.get('tower')!r} for {modality!r}; known are, {known}")
        if self.epochs < 1 or self.batch_pairs < 2:
            raise ValueError("a recipe needs at least 1 epoch and 2 pairs in a batch")
        schedules.as_temperature(self.temperature)
        if self.guide_temperature is not None:
            schedules.as_temperature(self.guide_temperature)
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
        """Terms stand in their own order, in which they are added up: rounding would tell another from it after a resume."""
        return json.dumps({f.name: plain(getattr(self, f.name)) for f in fields(self)}, indent=2)

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
