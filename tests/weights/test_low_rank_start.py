"""LoRA begins with the weights of a file, all of them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hpcgeo.errors import InputError
from hpcgeo.models.low_rank import adapt, is_addition
from hpcgeo.objectives.multitask.objective import MultiTask, MultiTaskOptions
from hpcgeo.options import Model
from hpcgeo.weights.initial import initial
from tests.mixed import TINY, multitask


def test_stems_that_lora_would_leave_at_random_are_refused(tmp_path: Path) -> None:
    network, file = multitask(), tmp_path / "weights.safetensors"
    adapt(network.backbone, 2)
    weights = {
        name: value.detach().clone()
        for name, value in network.named_parameters()
        if name.startswith("backbone.") and not is_addition(name)
    }
    options = Model(name="gpna_tiny", weights=file, lora_rank=2)
    objective = MultiTask(MultiTaskOptions(name="multitask"), 0)
    save_file(weights, file)
    rows = initial(options, TINY, network, 0, objective)
    for name, value in network.named_parameters():
        begun = rows(name, value.shape, slice(None))
        assert torch.equal(begun, weights[name]) if name in weights else begun.isfinite().all()
    lost = [name for name in weights if "tokenizer.images.rgb" in name]
    save_file({name: weights[name] for name in weights if name not in lost}, file)
    with pytest.raises(InputError, match=rf"lacks backbone \({len(lost)}\), stems of other bands"):
        initial(options, TINY, network, 0, objective)
