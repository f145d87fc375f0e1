"""Scores of fine-tuned runs as records: the rows of frozen encoders, other columns.

A fine-tuned run stands for the weights that it began with: of a file, of a run, or at random.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hpcgeo.checkpoint.folders import MANIFEST
from hpcgeo.checkpoint.manifest import opened
from hpcgeo.evaluate.encoder import fingerprint
from hpcgeo.evaluate.pretraining import pretraining
from hpcgeo.evaluate.score import Case, defined, provenance
from hpcgeo.kinds.metrics import metrics
from hpcgeo.kinds.states import interval
from hpcgeo.models.low_rank import is_addition
from hpcgeo.scores import Score
from hpcgeo.weights.initial import BACKBONE
from hpcgeo.workloads.scores import Found, read_scores
from hpcgeo.zoo import Architecture


def tuned_scores(
    cases: Sequence[Case], found: Sequence[Sequence[Found]], split: str
) -> list[Score]:
    """Return a score for each run and task, with the lead over the same model from random weights.

    Args:
        cases: the runs.
        found: what each reached, as `score_all` returns it.
        split: that was scored.
    """
    every = [
        (case, one, _score(case, one, begun, split))
        for case, own in zip(cases, found, strict=True)
        for begun in [_begun(case)]
        for one in own
    ]
    scores = []
    for case, one, score in every:
        leads = {}
        for other, theirs, rival in every:
            same = one.task == theirs.task and case.run.model.name == other.run.model.name
            if same and (score.whose, rival.whose) == ("encoder", "random"):
                sign = 1 if score.better == "higher" else -1
                low, high = interval(sign * (one.resampled - theirs.resampled))
                ahead = sign * (one.value - theirs.value)
                leads["random"] = defined(ahead), defined(low), defined(high)
        scores.append(score.model_copy(update={"leads": leads}))
    return scores


def _begun(case: Case) -> Mapping[str, Any]:
    """Return the fields of a score that say what a run began with."""
    options, work = case.run.model, case.work
    with torch.device("meta"):
        network = work.objective()
    initial = work.initial(network)
    shapes = {
        name: value.shape
        for name, value in network.named_parameters()
        if name.startswith(BACKBONE) and not is_addition(name)
    }
    weights = (
        (name.removeprefix(BACKBONE), initial(name, shape, slice(None)))
        for name, shape in shapes.items()
    )
    file = options.weights
    if file is None:
        encoder = f"random weights, seed {case.run.seed}"
    else:
        encoder = str(file) if file.is_dir() else f"{options.name}:{file}"
    return {
        "whose": "encoder" if file else "random",
        "encoder": {"encoder": encoder, "model": options.name},
        "fingerprint": fingerprint(work.model, weights),
        "parameters": sum(shape.numel() for shape in shapes.values()),
        "pretraining": pretraining(file) if file else None,
    }


def _score(case: Case, found: Found, begun: Mapping[str, Any], split: str) -> Score:
    name, task, run = found.task, case.tasks[found.task], case.run
    batch = opened((case.checkpoint / MANIFEST).read_text("utf-8")).global_batch
    trained, model = case.work.sets[name], case.work.model
    validation = case.work.sets_of("validation").get(name, ())
    low, high = interval(found.resampled)
    others = [other for other in case.tasks if other != name]
    what = f"LoRA of rank {run.model.lora_rank}" if run.model.lora_rank else "all weights"
    frozen = run.optim.frozen_steps
    fields = {
        "fine-tuned": what,
        "base_lr": run.optim.base_lr,
        "layer_decay": run.optim.layer_decay,
    }
    flops = None
    if isinstance(model, Architecture) and task.size:
        flops = model.forward_flops(case.work.material.bands, (task.size,) * 2)
    return Score(
        task=name,
        reader=task.reader,
        target=task.target,
        data=trained.split_fingerprint,
        split=split,
        samples=found.samples,
        labels=len(trained),
        validation_labels=len(validation),
        metric=found.metric,
        better=metrics()[found.metric].better,
        value=defined(found.value),
        low=defined(low),
        high=defined(high),
        values=(defined(found.value),),
        leads={},
        seeds=(run.seed,),
        flops=flops,
        protocol="fine-tuned",
        chosen=({name: value for name, value in fields.items() if value is not None},),
        validation=(_judged(case, name),),
        tried=1,
        transform={"normalise": "data"},
        image_size=task.size,
        features=", ".join(
            [
                what,
                f"{case.step:,} steps of {batch} samples",
                *([f"{frozen:,} of them with a frozen backbone"] if frozen else []),
                *([f"together with {', '.join(others)}"] if others else []),
            ]
        ),
        normalise="data",
        refit=False,
        **begun,
        **provenance(),
    )


def _judged(case: Case, name: str) -> float | None:
    """Return what the run itself found on the validation split at this step."""
    kept = [one for one in read_scores(case.folder) if (one.step, one.task) == (case.step, name)]
    return kept[-1].value if kept else None
