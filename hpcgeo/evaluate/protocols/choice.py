"""What is chosen on the validation split: features (block, pooling) and the setting of a protocol.

The test split is no argument of anything here. Fits, and blocks of samples that are answered, are
the same pieces on any number of ranks, so that scores are the same bits.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.distributed as dist

from hpcgeo.errors import InputError
from hpcgeo.evaluate.protocols.protocol import (
    Described,
    FittedModels,
    FrozenProtocol,
    Setting,
    joined,
)
from hpcgeo.evaluate.protocols.sharing import shared_out
from hpcgeo.kinds.metrics import metric_of, metrics, start
from hpcgeo.kinds.states import State
from hpcgeo.kinds.table import kind_of
from hpcgeo.kinds.target import Target


@dataclass(frozen=True)
class Tried:
    """A setting on one candidate, and its metric on the validation split."""

    candidate: str
    setting: Setting
    validation: float


@dataclass(frozen=True)
class Chosen:
    """What was best on the validation split.

    Attributes:
        best: of `tried`. Of equal ones: of the features that do best over all settings, the setting
            in the middle of theirs, which is least at the edge of what equals it.
        tried: everything, in order.
        refitted: whether `model` was fitted to training and validation splits together.
        model: of the best setting alone: answers (1, n, ...).
    """

    best: Tried
    tried: list[Tried]
    refitted: bool
    model: FittedModels


def choose(
    protocol: FrozenProtocol,
    candidates: Mapping[str, tuple[Described, Described]],
    target: Target,
    *,
    metric: str | None = None,
    seed: int = 0,
    refit: bool = True,
    settings: Sequence[Setting] = (),
    group: dist.ProcessGroup | None = None,
) -> Chosen:
    """Choose features and setting of a protocol on the validation split, and fit it.

    Args:
        protocol: row of `hpcgeo.evaluate.protocols.table`.
        candidates: training and validation split by what the features are ("block 9, mean").
        target: of the task.
        metric: by which; None: the usual one of the kind.
        seed: of everything that is drawn.
        refit: fit the chosen setting to both splits at last, as CLIP (Radford et al. 2021, arXiv
            2103.00020, appendix A.3) and VTAB do; else to the training split.
        settings: that are tried; by default those of the protocol.
        group: of the ranks; None: this process alone.

    Returns:
        The choice, the same on every rank.

    Raises:
        InputError: the protocol is none for this kind of task; there is nothing to choose by.
    """
    metric = metric_of(metric, target)
    if not protocol.suits(kind_of(target)):
        raise InputError(f"{protocol.title}: none for {target.kind}; choose another protocol")
    pieces: list[Callable[..., list[Tried]]] = []
    for name, (train, validation) in candidates.items():
        _refuse_shapes(name, train, validation)
        tried = protocol.settings(target, len(train))
        _refuse_names(protocol, settings, tried[0])
        tried = settings or tried
        step = protocol.at_once or len(tried)
        for first in range(0, len(tried), step):
            some = tried[first : first + step]
            pieces.append(
                partial(_tried, protocol, name, train, validation, target, some, metric, seed)
            )
    # Of one fit the ranks share the samples that are answered, of several the fits.
    found = [pieces[0](group=group)] if len(pieces) == 1 else shared_out(pieces, group, "fits")
    every = [one for some in found for one in some]
    best = _best(every, metric)
    train, validation = candidates[best.candidate]
    fitted = protocol.fit(
        joined(train, validation) if refit else train, target, [best.setting], seed
    )
    return Chosen(best, every, refit, fitted)


def scored(
    model: FittedModels,
    part: Described,
    target: Target,
    metric: str,
    *,
    rows: int,
    resamples: int = 0,
    group: dist.ProcessGroup | None = None,
) -> list[State]:
    """Return the state of a metric of each setting of a model, on all samples of a split.

    Args:
        model: of S settings.
        part: split that is scored.
        target: of the task.
        metric: a name.
        rows: samples that are answered at once (`FrozenProtocol.rows`).
        resamples: see `hpcgeo.kinds.states`.
        group: of the ranks, which share the samples; None: this process alone.
    """
    firsts = range(0, len(part), rows)
    blocks = [
        partial(_block, model, part, target, metric, slice(first, first + rows), resamples)
        for first in firsts
    ]
    found = shared_out(blocks, group)
    merged = [start(metric, target, resamples) for _ in found[0]]
    for states in found:
        for whole, state in zip(merged, states, strict=True):
            whole.merge(state)
    return merged


@torch.no_grad()
def _block(
    model: FittedModels, part: Described, target: Target, metric: str, rows: slice, resamples: int
) -> list[State]:
    found = []
    for answer in model.answers(part.block(rows)):
        state = start(metric, target, resamples)
        state.update(part.clusters[rows], answer, np.asarray(part.truth[rows]))
        found.append(state)
    return found


def _tried(
    protocol: FrozenProtocol,
    candidate: str,
    train: Described,
    validation: Described,
    target: Target,
    settings: Sequence[Setting],
    metric: str,
    seed: int,
    group: dist.ProcessGroup | None = None,
) -> list[Tried]:
    """Fit some settings to one candidate; return their scores."""
    model = protocol.fit(train, target, settings, seed)
    states = scored(model, validation, target, metric, rows=protocol.rows, group=group)
    return [
        Tried(candidate, setting, state.compute()[0])
        for setting, state in zip(settings, states, strict=True)
    ]


def _best(tried: Sequence[Tried], metric: str) -> Tried:
    sign = 1 if metrics()[metric].better == "higher" else -1
    defined = [one for one in tried if np.isfinite(one.validation)]
    if not defined:
        raise InputError(
            f"{metric} is not defined on the validation split for any setting: take a larger one, "
            f"or another metric"
        )
    most = max(sign * one.validation for one in defined)
    equal = [one for one in defined if sign * one.validation == most]
    means = {
        one.candidate: np.mean(
            [sign * a.validation for a in defined if a.candidate == one.candidate]
        )
        for one in equal
    }
    candidate = max(means, key=means.__getitem__)
    own = [one for one in equal if one.candidate == candidate]
    return own[len(own) // 2]


def _refuse_names(protocol: FrozenProtocol, settings: Sequence[Setting], known: Setting) -> None:
    for setting in settings:
        if set(setting) != set(known):
            raise InputError(
                f"setting {dict(setting)}: {protocol.title}: name {', '.join(known) or 'nothing'}"
            )


def _refuse_shapes(name: str, train: Described, validation: Described) -> None:
    for part in (train, validation):
        if not len(part):
            raise InputError(f"{name}: a split without samples: nothing to fit to, or to choose by")
    one, other = train.vectors.shape[1:], validation.vectors.shape[1:]
    if one != other:
        raise InputError(f"{name}: features {one} and, of the validation split, {other}")
