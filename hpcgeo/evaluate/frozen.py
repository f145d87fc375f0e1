"""Frozen protocols on data that an encoder has never seen: what `hpcgeo probe ENCODER --on` does.

Features of an encoder are fitted to by a protocol; block, pooling and setting are chosen on the
validation split, and the test split is scored once. Beside it, in the same way, features of weights
that were never trained, and the samples themselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch.distributed as dist
from sklearn.impute import SimpleImputer

from hpcgeo.data.labelled import LabelledSplit
from hpcgeo.data.sample import Float64
from hpcgeo.errors import InputError
from hpcgeo.evaluate.cache import extracted
from hpcgeo.evaluate.encoder import Encoder, Prepared
from hpcgeo.evaluate.encoders import open_encoder
from hpcgeo.evaluate.features import PlainArrays
from hpcgeo.evaluate.mistakes import mistakes
from hpcgeo.evaluate.probe_options import RANDOM, REPLICATES, ProbeOptions, Whose
from hpcgeo.evaluate.probed_data import DataSet, ProbedSplits, opened
from hpcgeo.evaluate.protocols.choice import Chosen, choose, scored
from hpcgeo.evaluate.protocols.protocol import Described, FrozenProtocol
from hpcgeo.evaluate.protocols.sharing import shared_out
from hpcgeo.evaluate.protocols.table import protocol_of
from hpcgeo.evaluate.score import defined, interval_of_means, provenance
from hpcgeo.job_options import Launch
from hpcgeo.kinds.metrics import metric_of, metrics
from hpcgeo.kinds.states import RESAMPLES, Confusion
from hpcgeo.kinds.target import Array
from hpcgeo.launch.environment import discover
from hpcgeo.launch.rendezvous import meeting
from hpcgeo.log import log, set_up, track
from hpcgeo.parallel.group import join
from hpcgeo.scores import MOST_CLASSES, Score
from hpcgeo.tables import find


def together(work: str) -> dist.ProcessGroup | None:
    """Join the other ranks at some work, and return their group; None: there are no others."""
    environment = discover()
    set_up(environment.rank, environment.host)
    join(
        *(environment.rank, environment.world_size),
        *(environment.local_rank, environment.local_size),
        meeting(environment),
        run=work,
        host=environment.host,
        rendezvous_timeout_s=Launch().rendezvous_timeout_s,
    )
    return dist.group.WORLD if environment.world_size > 1 else None


def probe_on(
    encoder: str,
    sets: Sequence[DataSet],
    options: ProbeOptions,
    *,
    step: int | None = None,
    moved: Sequence[str] = (),
    group: dist.ProcessGroup | None = None,
) -> list[Score]:
    """Return what features reach on data sets; every rank calls it, and gets the same.

    Args:
        encoder: as of `open_encoder`.
        sets: the data sets.
        options: how.
        step: of the checkpoint of a run.
        moved: where its data lies now.
        group: of the ranks; None: this process alone.

    Raises:
        InputError: no such encoder, data, protocol; they do not fit together.
    """
    protocol = protocol_of(options.protocol)
    if options.replicates is not None and options.replicates < 1:
        raise InputError(f"replicates {options.replicates}: at least one")
    if options.poolings and protocol.reads != "vectors":
        raise InputError(
            f"pooling {', '.join(options.poolings)} has no effect under protocol "
            f"{options.protocol}, which reads {protocol.reads}: leave it out"
        )
    frozen = open_encoder(encoder, step=step, moved=moved)
    frozen.refuse_kept(protocol.reads, options.protocol)
    for name in options.poolings:
        find(frozen.poolings, name, "pooling")
    blocks = options.blocks or frozen.blocks
    for block in blocks:
        frozen.refuse_block(block)
    # All data is opened, and held against encoder and protocol, before any work.
    found = opened(sets, frozen, options, protocol)
    prepared = {
        name: frozen.reads(parts.train, normalise=options.normalise)
        for name, parts in found.items()
    }
    return [
        score
        for name, parts in found.items()
        for score in _On(
            frozen, prepared[name], name, parts, options, protocol, tuple(blocks), group
        ).scores()
    ]


@dataclass(frozen=True)
class _On:
    """An encoder on one data set."""

    encoder: Encoder
    prepared: Prepared
    name: str
    parts: ProbedSplits
    options: ProbeOptions
    protocol: FrozenProtocol
    blocks: tuple[int, ...]
    group: dist.ProcessGroup | None

    def scores(self) -> list[Score]:
        """Return the score of the encoder, and of what stands beside it."""
        found, resampled = [], {}
        for whose in ("encoder", *self.options.beside):
            if whose == "samples" and self.protocol.reads != "vectors":
                continue  # they have no tokens
            encoder = self.encoder.random(RANDOM) if whose == "random" else self.encoder
            splits = self._of_samples() if whose == "samples" else self._of_encoder(encoder)
            score, resampled[whose] = self._score(whose, encoder, splits)
            found.append(score)
        first, *others = found
        sign = 1 if first.better == "higher" else -1
        leads = {}
        for other in others:
            low, high = interval_of_means(sign * (resampled["encoder"] - resampled[other.whose]))
            ahead = sign * np.mean(np.subtract(_numbers(first.values), _numbers(other.values)))
            leads[other.whose] = defined(float(ahead)), defined(low), defined(high)
        return [first.model_copy(update={"leads": leads}), *others]

    def _of_encoder(self, encoder: Encoder) -> list[dict[str, Described]]:
        prepared = replace(self.prepared, encoder=encoder)
        get = partial(
            extracted,
            prepared,
            blocks=self.blocks,
            kept=self.protocol.reads,
            poolings=self.options.poolings,
            folder=self.options.cache,
            group=self.group,
        )
        return [
            get(part, name=f"{self.name}, {encoder.name}, {split}").candidates()
            for split, part in self._splits().items()
        ]

    def _of_samples(self) -> list[dict[str, Described]]:
        """Return what describes the samples themselves: their values, `PlainArrays`."""
        layout = PlainArrays(self.parts.train)
        found: list[dict[str, Described]] = []
        impute = SimpleImputer(keep_empty_features=True)
        for split, part in self._splits().items():
            samples = [
                part.read(index)
                for index in track(range(len(part)), f"{self.name}, samples, {split}")
            ]
            vectors = np.stack([layout.vector(sample) for sample in samples])
            vectors = impute.transform(vectors) if found else impute.fit_transform(vectors)
            truth = np.stack([sample.target for sample in samples])
            clusters = [part.group(index) for index in range(len(part))]
            found.append({"samples": Described(vectors.astype(np.float32), truth, clusters)})
        return found

    def _splits(self) -> dict[str, LabelledSplit]:
        parts = self.parts
        return {
            "training": parts.train,
            "validation": parts.validation,
            "test": parts.scored,
        }

    def _score(
        self, whose: Whose, encoder: Encoder, splits: Sequence[Mapping[str, Described]]
    ) -> tuple[Score, Float64]:
        """Return a score, and its values for each label subset and resample."""
        train, validation, asked = splits
        target, options = self.parts.train.target, self.options
        metric = metric_of(options.metric or self.parts.task.metric, target)
        fewer = options.labels != 1.0
        replicates = options.replicates or (REPLICATES if fewer else 1)
        values, resampled, choices, states = [], [], [], []
        used = validated = 0
        for seed in range(replicates):
            rows = [self._rows(part, seed) for part in (self.parts.train, self.parts.validation)]
            used, validated = (len(some) for some in rows)
            pairs = {
                name: (
                    (train[name].of(rows[0]), validation[name].of(rows[1]))
                    if fewer
                    else (train[name], validation[name])
                )
                for name in train
            }
            chosen = choose(
                *(self.protocol, pairs, target),
                metric=metric,
                seed=seed,
                refit=options.refit,
                group=self.group,
            )
            [state] = scored(
                *(chosen.model, asked[chosen.best.candidate], target, metric),
                rows=self.protocol.rows,
                resamples=RESAMPLES,
                group=self.group,
            )
            value, again = state.compute()
            values.append(value)
            resampled.append(again)
            choices.append(chosen)
            states.append(state)
            self._say(whose, metric, value, chosen, seed, replicates)
        found = np.stack(resampled)  # (replicates, resamples)
        score = self._record(
            whose=whose,
            encoder=encoder,
            metric=metric,
            values=values,
            ends=interval_of_means(found),
            choices=choices,
            labels=(used, validated),
        )
        confusions = [state.sums[0] for state in states if isinstance(state, Confusion)]
        more = _by_class(confusions, target.names)
        if whose == "encoder":
            model, features = choices[0].model, asked[choices[0].best.candidate]
            piece = partial(mistakes, model, features, self.parts.scored, rows=self.protocol.rows)
            [more["mistakes"]] = shared_out([piece], self.group)  # by one rank
        return score.model_copy(update=more), found

    def _rows(self, part: LabelledSplit, seed: int) -> Array:
        return part.subset(self.options.labels, seed)

    def _say(
        self, whose: str, metric: str, value: float, chosen: Chosen, seed: int, replicates: int
    ) -> None:
        subset = f", label subset {seed}" if replicates > 1 else ""
        log.info(
            "%s, %s%s: %s %.4f, by %s%s",
            *(self.name, whose, subset, metric, value, chosen.best.candidate),
            "".join(
                f", {name} {value:g}" if isinstance(value, float) else f", {name} {value}"
                for name, value in chosen.best.setting.items()
            ),
        )

    def _among(self) -> str:
        """Return among which features is chosen; of all poolings the order is one."""
        blocks = ", ".join(map(str, sorted(self.options.blocks))) or "of the second half"
        if self.protocol.reads != "vectors":
            return f"blocks {blocks}"
        poolings = sorted(self.options.poolings or self.encoder.poolings)
        return f"blocks {blocks}; {', '.join(poolings)}"

    def _record(
        self,
        *,
        whose: Whose,
        encoder: Encoder,
        metric: str,
        values: Sequence[float],
        ends: tuple[float, float],
        choices: Sequence[Chosen],
        labels: tuple[int, int],
    ) -> Score:
        is_encoder, task = whose != "samples", self.parts.task
        return Score(
            task=self.name,
            reader=task.reader,
            target=task.target,
            data=self.parts.train.split_fingerprint,
            split="test",
            samples=len(self.parts.scored),
            labels=labels[0],
            validation_labels=labels[1],
            metric=metric,
            better=metrics()[metric].better,
            value=defined(float(np.mean(values))),
            low=defined(ends[0]),
            high=defined(ends[1]),
            values=tuple(defined(value) for value in values),
            leads={},
            seeds=tuple(range(len(values))),
            whose=whose,
            encoder=dict(encoder.origin) if is_encoder else {},
            fingerprint=encoder.fingerprint if is_encoder else None,
            parameters=encoder.parameters if is_encoder else None,
            flops=encoder.flops(task.size) if is_encoder else None,
            pretraining=encoder.pretraining if is_encoder else None,
            protocol=self.options.protocol,
            chosen=tuple({"features": one.best.candidate, **one.best.setting} for one in choices),
            validation=tuple(defined(one.best.validation) for one in choices),
            tried=len(choices[0].tried),
            transform=self.prepared.transform if is_encoder else {"normalise": "data"},
            image_size=task.size,
            normalise=self.prepared.normalise,
            features=self._among(),
            refit=self.options.refit,
            **provenance(),
        )


def _by_class(confusions: Sequence[Float64], names: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a score that say how classes did, of a confusion a label subset."""
    if not confusions:
        return {}
    whole = np.sum(confusions, axis=0).reshape(len(names), -1)  # (K truth, K predicted)
    with np.errstate(invalid="ignore"):
        recalls = whole.diagonal() / whole.sum(axis=1)
    found: dict[str, Any] = {
        "recalls": {name: defined(float(one)) for name, one in zip(names, recalls, strict=True)}
    }
    if len(names) <= MOST_CLASSES:
        found["confusion"] = tuple(tuple(int(n) for n in row) for row in whole)
    return found


def _numbers(values: Sequence[float | None]) -> Float64:
    return np.array(values, dtype=np.float64)
