"""Fine-tuning with all its options at once: one process = every strategy, and resumed half-way."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file

from hpcgeo.checkpoint.checkpoints import Checkpoints
from hpcgeo.job_options import Checkpoint
from hpcgeo.models.backbone import backbone
from hpcgeo.models.initialise import draw
from hpcgeo.models.low_rank import additions_to, is_addition
from hpcgeo.train.loop import new_engine
from hpcgeo.weights.export import MergedWeights, Weights
from hpcgeo.workloads.choice import workload_of
from hpcgeo.workloads.mixture import OUT_OF_STEP
from tests.distributed import ALL, Ranks
from tests.parallel.mixing import Answer, config, go_on, topology_of
from tests.parallel.test_sameness import parameters_differ
from tests.parallel.training import whole

STEPS = 3
MIXED = [
    *("optim.layer_decay=0.7", "model.drop_path=0.5", "objective.label_smoothing=0.1"),
    *("objective.mixup=0.8", "objective.cutmix=1.0", "data.tasks.scenes.crop=[0.3, 1]"),
]
FROZEN, LORA = "optim.frozen_steps=2", "model.lora_rank=2"
MODELS = {
    "vit_tiny": ["model.name=vit_tiny", "data.only=[scenes]", "data.tasks.scenes.head=linear"],
    "gpna_tiny": ["data.only=[scenes, series, pairs]"],
}
#: How the models are trained: all weights after a frozen phase, or additions alone.
CASES = {
    f"{model} {name}": [*MODELS[model], *MIXED, option]
    for model in MODELS
    for name, option in (("frozen", FROZEN), ("lora", LORA))
    if ALL or (model, name) in (("vit_tiny", "frozen"), ("gpna_tiny", "lora"))
}
pytestmark = pytest.mark.slow
ALONE = {"strategy": "DDP"}
OVER_RANKS: list[dict[str, Any]] = [
    {"strategy": "FULL_SHARD", "recompute": "full"},
    {"strategy": "FULL_SHARD", "tensor": 2},
    *({"strategy": f"ZERO{stage}"} for stage in (2,) if ALL and find_spec("deepspeed")),
]
if ALL:
    OVER_RANKS += [ALONE, {"strategy": "HYBRID_SHARD", "group_size": 1}]
    OVER_RANKS += [{"strategy": "ZERO1"}] if find_spec("deepspeed") else []

#: What additions alone are tried with: units of frozen and trained matrices, cut and whole.
OF_LORA = OVER_RANKS if ALL else OVER_RANKS[:2]

Found = dict[tuple[str, str], Answer]
Everything = tuple[dict[str, Any], Found, Found, Path]


def prepared(case: str, options: dict[str, Any], weights: Path) -> Any:
    """Return a run, what it does, where, and the samples of each of its steps on this rank."""
    more = [f"model.weights={weights}"] if LORA in CASES[case] else []
    run = config(options, 1, 150 if dist.get_world_size() > 1 else 10_000, *CASES[case], *more)
    workload, topology = workload_of(run), topology_of(run)
    batches = iter(workload.batches(topology, 0))
    return run, workload, topology, [next(batches) for _ in range(STEPS)]


def trained(settings: list[dict[str, Any]], folder: Path) -> Found:
    found = {}
    for case in CASES:
        for options in settings:
            if LORA in CASES[case] and options not in (ALONE, *OF_LORA):
                continue
            if case.startswith("gpna") and options["strategy"] in OUT_OF_STEP:
                continue
            run, workload, topology, steps = prepared(case, options, weights_of(folder, case))
            engine = new_engine(run, workload, topology)
            found[case, str(options)] = go_on(run, workload, topology, engine, steps)[0]
    return found if dist.get_rank() == 0 else {}


def resumed(folder: Path) -> Found:
    """Save in shards after the first step, in the frozen phase, and go on in replicas."""
    found = {}
    for case in CASES:
        kept = Checkpoints(folder / case, Checkpoint(), global_batch=1, data="")
        for options, part in ((OVER_RANKS[0], slice(0, 1)), (ALONE, slice(1, STEPS))):
            run, workload, topology, steps = prepared(case, options, weights_of(folder, case))
            engine = new_engine(run, workload, topology)
            if part.start:
                assert kept.restore(engine) == part.start
            answer, _ = go_on(run, workload, topology, engine, steps[part], part.start)
            if not part.start:
                kept.save(1, engine)
                kept.wait()
        found[case, "resumed"] = answer
    return found if dist.get_rank() == 0 else {}


def weights_of(folder: Path, case: str) -> Path:
    return folder / f"{case.split()[0]}.safetensors"


def begin(folder: Path) -> dict[str, Any]:
    """Leave a file of weights for each model; return the first weights of every case."""
    found = {}
    for case in CASES:
        run, workload, topology, _ = prepared(case, ALONE, folder)
        with torch.device("meta"):
            made = backbone(workload.model, workload.channels, workload.material.bands, "uniform")
        values = {
            f"backbone.{name}": draw(f"backbone.{name}", value.shape, slice(None), 7)
            for name, value in made.named_parameters()
        }
        save_file(values, weights_of(folder, case))
        run, workload, topology, _ = prepared(case, ALONE, weights_of(folder, case))
        found[case] = whole(new_engine(run, workload, topology).state())
    return found


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Everything:
    folder = tmp_path_factory.mktemp("weights")
    with Ranks(1) as ranks:
        first = ranks(begin, folder)[0]
        alone = ranks(trained, [ALONE], folder, timeout_s=300)[0]
    with Ranks(2) as ranks:
        many = ranks(trained, OVER_RANKS, folder, timeout_s=400)[0]
        many |= ranks(resumed, folder, timeout_s=300)[0]
    return first, alone, many, folder


@pytest.mark.timeout(900)
def test_every_strategy_fine_tunes_as_one_process(
    everything: Everything,
) -> None:
    _, alone, many, _ = everything
    for (case, options), answer in many.items():
        wanted = alone[case, str(ALONE)]
        assert answer.losses == pytest.approx(wanted.losses[-len(answer.losses) :], abs=1e-5)
        # Softmax takes no notice of biases of keys: their gradients are rounding, Adam's steps not.
        ours, theirs = (
            {name: value for name, value in one.parameters.items() if "kv.bias" not in name}
            for one in (answer, wanted)
        )
        difference = parameters_differ(ours, theirs)
        print(case, options, difference)
        assert difference < 1e-4, (case, options)


def test_additions_and_heads_alone_are_trained(
    everything: Everything,
) -> None:
    first, alone, _, _ = everything
    for case in (case for case in CASES if LORA in CASES[case]):
        for name, value in alone[case, str(ALONE)].parameters.items():
            trained = is_addition(name) or not name.startswith("backbone.")
            changed = bool((value != first[case][name]).any())
            unused = "heads.pairs" in name  # a draw of few samples may ask it nothing
            assert changed == trained or unused, (case, name)


def test_an_export_holds_the_sums(everything: Everything) -> None:
    folder = everything[-1]
    for case in (case for case in CASES if LORA in CASES[case]):
        checkpoint = folder / case / "step-00000001"
        trained, merged = Weights(checkpoint), MergedWeights(checkpoint)
        assert merged.shapes.keys() == {n for n in trained.shapes if not is_addition(n)}
        changed = 0
        for name in merged.shapes:
            expected, (last, first) = trained.read(name), additions_to(name)
            if last in trained.shapes:
                expected += trained.read(last) @ trained.read(first)
                changed += not torch.equal(expected, trained.read(name))
            assert torch.equal(merged.read(name), expected), name
        assert changed == sum(map(is_addition, trained.shapes)) // 2
