"""The engine of DeepSpeed's ZeRO. The only file that knows deepspeed.

ZeRO 0 keeps float32 weights and computes under autocast, as DDP. The others compute with a copy of
the parameters in the dtype of the arithmetic, whole on every rank (1, 2) or in shards (3), and step
on float32 weights in flat shards. Gradients are summed in `reduce_dtype`, accumulated in float32.
"""

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from io import StringIO
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from hpcgeo.errors import InputError
from hpcgeo.log import log
from hpcgeo.optimizers.table import optimizer
from hpcgeo.options import Optim, Parallel
from hpcgeo.parallel.engine import Initial, Inputs
from hpcgeo.parallel.parallelise import fill, rewrite, warn
from hpcgeo.parallel.segment import Segment
from hpcgeo.parallel.topology import Topology
from hpcgeo.parallel.updates import Update, updates
from hpcgeo.phases import phase

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or it looks for others, and says so

try:
    import deepspeed
    from deepspeed.runtime.zero.linear import zero3_linear_wrap
    from deepspeed.utils import groups, logger, set_z3_leaf_module
except ImportError as error:
    raise InputError(
        f"a strategy of parallel.backend=deepspeed, but {error}: pip install 'hpcgeo[deepspeed]', "
        f"or choose parallel.strategy=FULL_SHARD"
    ) from None

logger.setLevel("ERROR")
warnings.filterwarnings("ignore", r"`torch\.distributed\..*` is deprecated", FutureWarning)
# Sums through shared memory on one host: compiled at the first start, on CPUs alone.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

#: Elements of gradients that are reduced at once; DeepSpeed's 5e8 would hold 2 GB of float32.
BUCKET = 50_000_000

#: A key of AdamW's groups: whether they are of a backbone that may be frozen.
RESTS = "rests"


class Piece(NamedTuple):
    """Which elements of a parameter this rank updates.

    Attributes:
        start: place of the first one in the flattened parameter.
        size: how many; there may be none.
        owner: what AdamW updates: the float32 weights of many parameters, flat. (ZeRO 0: one.) Of a
            parameter that is not trained: itself, or the rank's shard of it.
        first: place of the first one in the flattened owner.
    """

    start: int
    size: int
    owner: Tensor
    first: int


class DeepSpeedEngine:
    """An objective sharded or replicated by ZeRO, with its optimizer."""

    frozen = False

    def __init__(
        self,
        objective: Any,
        topology: Topology,
        *,
        parallel: Parallel,
        optim: Optim,
        dtype: torch.dtype,
        accumulate: int,
        initial: Initial,
    ) -> None:
        """Spread an objective that was built on the meta device.

        In this order: recompute, compile each unit, materialise (ZeRO 3: module by module, cut at
        once), hand over to DeepSpeed, initialise the float32 shards, copy them to where forward
        reads.
        """
        optimizer(optim.name).refuse(optim, "deepspeed", parallel.offload)
        if hasattr(objective, "after_step") or hasattr(objective, "gather"):
            raise InputError(
                f"parallel.strategy {topology.strategy.name}: the objective keeps a moving average "
                f"or compares samples of all ranks, which needs DDP or a strategy of FSDP2"
            )
        self.topology = topology
        self.dtype = dtype
        self.accumulate = accumulate
        self.clip = optim.clip
        self.recompute = parallel.recompute
        self.objective = objective
        self.stage = int(topology.strategy.name.removesuffix("_HPZ")[-1])
        self.shapes = {name: value.shape for name, value in objective.named_parameters()}
        self.updates = updates(objective, optim)
        warn(topology, parallel)
        units = [unit for stack in objective.stacks() for unit in stack]
        rewrite(units, parallel)
        settings = self._settings(parallel, units)
        groups._ZERO_PARAM_INTRA_PARALLEL_GROUP = None  # else of an engine built before
        with self._patches():
            deepspeed.init_distributed(dist.get_backend(), auto_mpi_discovery=False)
            self._materialise(units, settings)
            members = self._groups(optim.weight_decay)
            #: The group of AdamW of each parameter, and how those of each group are updated.
            self.group_of = {name: i for i, one in enumerate(members) for name in one["names"]}
            self.hows = [self.updates[one.pop("names")[0]] for one in members]
            self.adam = torch.optim.AdamW(members, betas=optim.betas, fused=True)
            if optim.frozen_steps:
                self._let_rest()
            with redirect_stdout(StringIO()):  # ZeRO 1 in bfloat16 prints the memory it takes
                self.engine, *_ = deepspeed.initialize(
                    model=objective, optimizer=self.adam, config=settings
                )
        self.pieces = {
            name: self._piece(name, value) for name, value in objective.named_parameters()
        }
        self._initialise(initial)

    def forward_backward(
        self, micro_batches: Iterable[Inputs], count: int | None = None
    ) -> dict[str, Tensor]:
        totals: dict[str, Tensor] = {}
        count = count or self.accumulate
        with self._patches():
            for number, inputs in enumerate(micro_batches, 1):
                self.engine.set_gradient_accumulation_boundary(number == count)
                with phase("forward"), self._autocast():
                    scalars = self.engine(**inputs)
                with phase("backward"):
                    # It divides by `accumulate`.
                    self.engine.backward(scalars["loss"] * (self.accumulate / count))
                for name, value in scalars.items():
                    mean = value.detach() / count
                    totals[name] = totals[name] + mean if name in totals else mean
        return totals

    def step(self, lr: float) -> Tensor:
        """Update the parameters; a norm that is not finite skips it (ZeRO > 0 reports infinity)."""
        with phase("optimizer"):
            return self._step(lr)

    def _step(self, lr: float) -> Tensor:
        for group, how in zip(self.adam.param_groups, self.hows, strict=True):
            group["lr"] = lr * how.scale
        if self.stage:
            self.engine.step()
            return torch.as_tensor(
                self.engine.get_global_grad_norm(), dtype=torch.float32, device=self.topology.device
            )
        parameters = list(self.objective.parameters())
        norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters])
        if norm.isfinite():
            if self.clip is not None:
                nn.utils.clip_grads_with_norm_(parameters, self.clip, norm)
            self.engine.step()
        else:
            self.engine.zero_grad()
        return norm

    def evaluate(self, method: str, inputs: Inputs) -> Any:
        # Under the name of forward: parameters are gathered by hooks on the module's own call.
        forward = self.objective.forward
        self.objective.forward = getattr(self.objective, method)
        try:
            with self._patches(), torch.no_grad(), self._autocast():
                return self.objective(**inputs)
        finally:
            self.objective.forward = forward

    def state(self) -> dict[str, Any]:
        """Return segments of parameters and moments, in the memory of DeepSpeed's own."""
        model = {name: self._segment(name, piece.owner) for name, piece in self.pieces.items()}
        optimizer: dict[str, Any] = {}
        for name, piece in self.pieces.items():
            if name not in self.group_of:  # it is not trained
                continue
            held = self.adam.state[piece.owner]
            for key in ("exp_avg", "exp_avg_sq"):
                optimizer[f"state.{name}.{key}"] = self._segment(name, held[key])
            optimizer[f"state.{name}.step"] = held["step"]
            group = self.adam.param_groups[self.group_of[name]]
            for key, value in group.items():
                if key not in ("params", RESTS):
                    optimizer[f"param_groups.{name}.{key}"] = value
        return {"model": model, "optimizer": optimizer}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what was read into the memory of `state()`; hyperparameters stay our own."""
        self._refresh()

    def holdings(self) -> dict[str, list[Tensor]]:
        zero = self.engine.optimizer
        named = dict(self.objective.named_parameters())
        parameters = [value for value in named.values() if value.requires_grad]
        pieces = self.pieces.items()
        owners = {id(one.owner): one.owner for name, one in pieces if named[name].requires_grad}
        held = {
            "parameters": [*owners.values()],
            "frozen": [one.owner for name, one in pieces if not named[name].requires_grad],
            "gradients": [p.grad for p in [*parameters, *owners.values()] if p.grad is not None],
            "optimizer": [v for state in self.adam.state.values() for v in state.values()],
        }
        if self.stage in (1, 2):
            held["gathered"] = parameters
        if self.stage == 3:
            held["parameters"] += zero.fp16_partitioned_groups_flat
            held["gradients"].append(zero.grad_partitions_flat_buffer)
        return held

    def _settings(self, parallel: Parallel, units: Iterable[nn.Module]) -> dict[str, Any]:
        """Return the configuration of DeepSpeed."""
        sizes = [_elements(unit) for unit in units]
        unit, root = max(sizes), _elements(self.objective) - sum(sizes)
        low = self.stage > 0 and self.dtype == torch.bfloat16
        short = {"float32": "fp32", "bfloat16": "bf16"}
        zero: dict[str, Any] = {
            "stage": self.stage,
            "reduce_bucket_size": BUCKET,
            # A unit is gathered at once, its small parameters with it: none need stay.
            "stage3_param_persistence_threshold": 0,
            # Of the units, only this one and the next are gathered, as in FSDP2. By default it
            # gathers 5e7 elements ahead at each module and keeps 1e9: small models stay whole.
            "stage3_prefetch_bucket_size": unit,
            "stage3_max_live_parameters": 2 * unit + root,
            "stage3_max_reuse_distance": 0,
            "memory_efficient_linear": False,  # it would stay for good: see _patches
        }
        if self.topology.strategy.name == "ZERO3_HPZ":
            zero["zero_hpz_partition_size"] = parallel.group_size
            if self.topology.rank == 0 and list(self.topology.order) != sorted(self.topology.order):
                log.warning(
                    "ZERO3_HPZ groups ranks by their numbers, and neighbours in number are no "
                    "neighbours here: have the launcher deal ranks host by host (block)"
                )
        if parallel.offload:
            place = {"device": "cpu", "pin_memory": self.topology.device.type == "cuda"}
            zero["offload_optimizer"] = place
            if self.stage == 3:
                zero["offload_param"] = place
        return {
            "train_micro_batch_size_per_gpu": 1,  # it only counts with this
            "gradient_accumulation_steps": self.accumulate,
            "gradient_clipping": (self.clip or 0.0) if self.stage else 0.0,
            "communication_data_type": short[parallel.reduce_dtype],
            "data_types": {"grad_accum_dtype": "fp32"},
            "bf16": {"enabled": low},
            "zero_force_ds_cpu_optimizer": False,
            "zero_optimization": zero,
        }

    def _materialise(self, units: Iterable[nn.Module], settings: Mapping[str, Any]) -> None:
        """Give parameters memory, filled with NaN; ZeRO 3 cuts each module at once."""
        if self.stage:
            self.objective.to(self.dtype)
        device = self.topology.device
        cut = None
        if self.stage == 3:
            for unit in units:
                set_z3_leaf_module(unit, True)
            cut = deepspeed.zero.Init(module=nn.Module(), config_dict_or_path=settings)
        for module in self.objective.modules():
            module.to_empty(device=device, recurse=False)
            for parameter in module.parameters(recurse=False):
                nn.init.constant_(parameter, torch.nan)
            if cut is not None:
                cut._convert_to_zero_parameters(module.parameters(recurse=False))

    def _groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Return AdamW's groups, whose parameters are updated alike; only matrices decay."""
        members: dict[tuple[bool, Update], list[str]] = {}
        values = dict(self.objective.named_parameters())
        for name in (name for name, value in values.items() if value.requires_grad):
            kind = len(self.shapes[name]) == 1, self.updates[name]
            members.setdefault(kind, []).append(name)
        return [
            {
                "params": [values[name] for name in names],
                "weight_decay": 0.0 if vectors else weight_decay,
                "names": names,
                RESTS: how.rests,
            }
            for (vectors, how), names in members.items()
        ]

    def _let_rest(self) -> None:
        """While the backbone is frozen, give it gradients of zero, and AdamW none of it."""

        def masked(gradient: Tensor) -> Tensor:
            return torch.zeros_like(gradient) if self.frozen else gradient

        def before(adam: torch.optim.Optimizer, *_: Any) -> None:
            for group in adam.param_groups:  # ZeRO shows it one after the other
                for owner in group["params"] if group[RESTS] and self.frozen else ():
                    owner.grad = None

        for name, parameter in self.objective.named_parameters():
            if self.updates[name].rests:
                parameter.register_hook(masked)
        self.adam.register_step_pre_hook(before)

    def _piece(self, name: str, parameter: Any) -> Piece:
        zero = self.engine.optimizer
        if self.stage == 0 or (self.stage < 3 and not parameter.requires_grad):
            return Piece(0, parameter.numel(), parameter, 0)
        if not parameter.requires_grad:
            own = parameter.ds_tensor
            start = own.numel() * parameter.ds_zero_partition_rank
            return Piece(start, max(0, min(own.numel(), parameter.ds_numel - start)), own, 0)
        if self.stage == 3:
            number, first, count = zero.grad_position[zero.get_param_id(parameter)]
            start = count * parameter.ds_zero_partition_rank
            count = max(0, min(count, parameter.ds_numel - start))  # the rest is padding
            return Piece(start, count, zero.fp32_partitioned_groups_flat[number], first)
        mapping = parameter._hp_mapping
        if mapping is None:
            return Piece(0, 0, self.adam.param_groups[self.group_of[name]]["params"][0], 0)
        inside, outside = mapping.lp_fragment_address, mapping.hp_fragment_address
        owner = self.adam.param_groups[mapping.param_group_index]["params"][0]
        return Piece(inside.start, inside.numel, owner, outside.start)

    def _segment(self, name: str, values: Tensor) -> Segment:
        """Return what `values`, as long as its owner, hold of a parameter."""
        piece = self.pieces[name]
        flat = values.detach().view(-1)[piece.first : piece.first + piece.size]
        return Segment(self.shapes[name], piece.start, flat)

    def _initialise(self, initial: Initial) -> None:
        for name, piece in self.pieces.items():
            for box, own in self._segment(name, piece.owner).parts():
                place = [slice(a, a + n) for a, n in zip(box.offsets, box.sizes, strict=True)]
                fill(own, name, self.shapes[name], place, initial)
            if name in self.group_of and not self.adam.state[piece.owner]:
                self.adam.state[piece.owner] = {
                    "step": torch.zeros((), device=piece.owner.device),
                    "exp_avg": torch.zeros_like(piece.owner),
                    "exp_avg_sq": torch.zeros_like(piece.owner),
                }
        self._refresh()

    @torch.no_grad()
    def _refresh(self) -> None:
        """Copy the float32 weights to where forward reads."""
        zero = self.engine.optimizer
        if self.stage == 3:
            pairs = zip(
                zero.fp16_partitioned_groups_flat, zero.fp32_partitioned_groups_flat, strict=True
            )
            for low, master in pairs:
                low.copy_(master)
            zero.invalidate_secondary_tensor()
        elif self.stage:
            zero.update_lp_params()

    def _autocast(self) -> AbstractContextManager[None]:
        low = self.dtype != torch.float32 and self.stage == 0
        return torch.autocast(self.topology.device.type, self.dtype, enabled=low)

    @contextmanager
    def _patches(self) -> Iterator[None]:
        """Patch, for a while, what DeepSpeed would have patched for good.

        It reads the number of the device from the variable of the launchers it knows. And ZeRO 3
        needs a linear function that keeps no gathered weight for backward. Selective recompute
        drops them anyway, and would keep products to which that function still adds the bias.
        """
        names = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK")  # it wants them to agree
        usual = {name: os.environ.pop(name) for name in names if name in os.environ}
        linear = F.linear
        os.environ["LOCAL_RANK"] = str(self.topology.device.index or 0)
        if self.stage == 3 and self.recompute != "selective":
            F.linear = zero3_linear_wrap
        try:
            yield
        finally:
            F.linear = linear
            del os.environ["LOCAL_RANK"]
            os.environ.update(usual)


def _elements(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
