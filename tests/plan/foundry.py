"""Published steps of language models on H100, as a plan takes them: a second machine."""

from dataclasses import replace
from functools import cache
from pathlib import Path

from hpcgeo.machines import machine
from hpcgeo.options import Parallel, Train
from hpcgeo.plan.cases import MeasuredStep
from hpcgeo.plan.protocols import protocol
from hpcgeo.records import Record
from hpcgeo.stacks import Stack
from hpcgeo.tables import parse
from hpcgeo.zoo import Forms

FILE = Path(__file__).parent / "data/llm_foundry_h100.yaml"


@cache
def steps() -> list[MeasuredStep]:
    """Return all steps of the file."""
    values = parse(FILE.read_text("utf-8"), FILE.name)
    tokens, vocabulary = values["tokens"], values["vocabulary"]
    found = []
    for model, gpus, micro, accumulate, strategy, again, rate in values["steps"]:
        width, depth, heads = values["models"][model]
        stack = Stack(width=width, depth=depth, heads=heads, hidden=4 * width)
        edge = 2 * tokens * width * vocabulary
        forms = Forms(
            stacks=((stack, tokens),),
            root_parameters=(vocabulary + tokens + 2) * width,
            edge_flops=edge,
            input_flops=0,
            edge_bytes=lambda _: 0.0,
            view_bytes=8 * tokens,
            summary=f"{tokens} tokens",
        )
        record = Record(
            kind="published",
            machine="cuda-node",
            device="NVIDIA H100 80GB HBM3",
            nodes=gpus // 8,
            world_size=gpus,
            model=model,
            parameters=forms.parameters,
            objective="next token",
            strategy=strategy,
            dtype="bfloat16",
            micro_batch=micro,
            accumulate=accumulate,
            global_batch=micro * accumulate * gpus,
            data="shards",
            recompute="full" if again else "none",
            images_per_s=rate * gpus / tokens,
            created="2026-11-28T00:00:00+00:00",
            source="github.com/mosaicml/llm-foundry",
        )
        parallel = Parallel(
            strategy=strategy, recompute="full" if again else "none", reduce_dtype="bfloat16"
        )
        train = Train(steps=1, micro_batch=micro, accumulate=accumulate, dtype="bfloat16")
        by = replace(protocol("fsdp1"), scores=0, clock_s=0.0)  # flash attention, steady state
        found.append(MeasuredStep(record, forms, parallel, train, by, machine("cuda-node")))
    return found
