"""Batches of pairs, gathered around hubs, so that a row is encoded once per step however many pairs it is in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from xmalign_lab.corpus import CorpusError, Pairs
from xmalign_lab.encoders.features import Features
from xmalign_lab.encoders.inputs import Inputs

Tables = Mapping[str, Features | Inputs]  # by modality


@dataclass(frozen=True)
class Relation:
    """One source's share of a batch: positions `left`, `right` into the encoded rows, belief as mask and weight."""

    name: str
    left_modality: str
    right_modality: str
    left: torch.Tensor  # (n,)
    right: torch.Tensor  # (m,)
    positives: torch.Tensor  # (n, m) bool
    weight: torch.Tensor  # (n, m)

    @property
    def sides(self) -> tuple[tuple[str, torch.Tensor], tuple[str, torch.Tensor]]:
        """Modality and positions, left and right."""
        return (self.left_modality, self.left), (self.right_modality, self.right)


@dataclass(frozen=True)
class Batch:
    """Rows to encode per modality, and the relations over them."""

    rows: dict[str, np.ndarray]
    relations: list[Relation]


@dataclass(frozen=True)
class _Source:
    name: str
    modalities: tuple[str, str]
    left: np.ndarray
    right: np.ndarray
    hub: np.ndarray  # global node of each pair's hub
    belief: sp.csr_matrix


class Batches:
    """The epoch's batches over `pairs`, about `size` pairs each; pairs of weight 0 are not believed and left out.

    A pair's hub is the endpoint that takes part in more pairs (an English name that ties an image to two
    languages). An epoch deals the hubs, shuffled by seed and epoch, over the batches, and a pair goes with its
    hub. What is positive within a batch is looked up in the belief, never assumed from a diagonal.
    """

    def __init__(self, features: Tables, pairs: Pairs, size: int, per_epoch: int = 0):
        rows = pairs.rows[pairs.rows.weight > 0]
        if rows.empty:
            raise CorpusError("pairs: no pair has a weight above 0, so there is nothing to train on")
        self.node_of, self.bounds = {}, {}
        for modality, table in features.items():
            first = len(self.node_of)
            self.bounds[modality] = (first, first + len(table))
            for node, row_id in enumerate(table.ids, first):
                if self.node_of.setdefault(row_id, node) != node:
                    raise CorpusError(f"features: id {row_id!r} stands in two tables; row ids must be unique")
        Pairs(rows).check(self.node_of)
        left = np.array([self.node_of[i] for i in rows.left])
        right = np.array([self.node_of[i] for i in rows.right])
        degree = np.bincount(np.concatenate([left, right]), minlength=len(self.node_of))
        hub = np.where(degree[left] >= degree[right], left, right)
        self.hubs = np.unique(hub)
        self.per_epoch = per_epoch or max(1, round(len(rows) / size))
        self.sources = []
        for name in dict.fromkeys(rows.source):
            of = (rows.source == name).to_numpy()
            sides = tuple(self._modality(side[of], name) for side in (left, right))
            shape = (len(self.node_of),) * 2
            belief = sp.csr_matrix((rows.weight[of].to_numpy(np.float32), (left[of], right[of])), shape=shape)
            self.sources.append(_Source(name, sides, left[of], right[of], hub[of], belief))

    def _modality(self, nodes: np.ndarray, name: str) -> str:
        for modality, (low, high) in self.bounds.items():
            if ((nodes >= low) & (nodes < high)).all():
                return modality
        raise CorpusError(f"pairs: source {name!r} mixes images and texts on one side; give each relation its own source")

    def rows_of(self, modality: str) -> np.ndarray:
        """Row numbers of this modality's features that occur in any pair, sorted."""
        low, high = self.bounds[modality]
        nodes = np.unique(np.concatenate([np.concatenate([s.left, s.right]) for s in self.sources]))
        return nodes[(nodes >= low) & (nodes < high)] - low

    def at(self, step: int, seed: int) -> Batch:
        """Batch number `step` of the run with this seed: the same whenever it is asked for."""
        epoch, number = divmod(step, self.per_epoch)
        chosen = np.zeros(len(self.node_of), bool)
        rng, rounds = np.random.default_rng([seed, epoch]), -(-self.per_epoch // len(self.hubs))
        order = np.concatenate([rng.permutation(len(self.hubs)) for _ in range(rounds)])  # again, where batches would be empty
        chosen[self.hubs[np.array_split(order, self.per_epoch)[number]]] = True
        parts = [(s, np.flatnonzero(chosen[s.hub])) for s in self.sources]
        nodes = np.unique(np.concatenate([np.concatenate([s.left[p], s.right[p]]) for s, p in parts]))
        rows = {m: nodes[(nodes >= low) & (nodes < high)] - low for m, (low, high) in self.bounds.items()}
        return Batch(rows, [self._relation(s, p, rows) for s, p in parts if len(p)])

    def _relation(self, source: _Source, part: np.ndarray, rows: dict[str, np.ndarray]) -> Relation:
        left, right = np.unique(source.left[part]), np.unique(source.right[part])
        belief = torch.from_numpy(source.belief[left][:, right].toarray())
        at = [
            torch.from_numpy(np.searchsorted(rows[modality], nodes - self.bounds[modality][0]))
            for modality, nodes in zip(source.modalities, (left, right), strict=True)
        ]
        return Relation(source.name, *source.modalities, *at, belief > 0, belief)
