"""Recipes, overrides, configurations of runs and sweeps from anyone: work, or one clear error."""

from itertools import islice
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from yaml import safe_load

from hpcgeo.config import RunConfig, differences, load, recipes
from hpcgeo.errors import InputError
from hpcgeo.profiling.run import configure
from hpcgeo.strategies import strategy
from hpcgeo.sweep.points import load_sweep, points
from hpcgeo.train import run_folder
from hpcgeo.train.dry_run import dry_run
from hpcgeo.train.schedule import learning_rate
from hpcgeo.zoo import architecture
from tests.foreign.mutations import SNIPPETS, many, texts

ROOT = Path(__file__).parents[2]
TINY = recipes()["mae_vit_tiny"]
WHOLE = load("mae_vit_tiny").to_yaml()
SWEEP = (ROOT / "profiles" / "local_vit_tiny.yaml").read_text()

OPTIONS = [
    *("run.dir", "seed", "model.name", "data.path", "data.layout", "data.chip", "data.workers"),
    *("data.augment.scale", "data.augment", "objective.mask_ratio", "parallel.strategy"),
    *("parallel.group_size", "optim.base_lr", "optim.betas", "optim.clip", "train.steps"),
    *("train.micro_batch", "train.accumulate", "checkpoint.every", "launch.time_limit", "", "."),
    *("..", "run", "data.x", "data.chip.x", "launch.machine", "optim.warmup_steps"),
]


def use(run: RunConfig) -> None:
    """Do with a configuration what happens before the first step, short of building the model."""
    assert differences(run, run) == []
    model = architecture(run.model.name)
    model.num_visible(run.data.chip, run.objective.mask_ratio)
    strategy(run.parallel.strategy).shard_size(4, run.parallel.group_size)
    dry_run(run, 4)
    learning_rate(0, run.train.steps, run.train.micro_batch * run.train.accumulate, run.optim)


def one_line_of_help(error: InputError) -> None:
    assert str(error).strip()
    assert len(str(error)) < 4000, "nobody reads that"


@many
@given(content=texts(WHOLE) | texts(TINY))
def test_recipes(folder: Path, content: bytes) -> None:
    file = folder / "recipe.yaml"
    file.write_bytes(content)
    try:
        use(load(str(file)))
    except InputError as error:
        one_line_of_help(error)


@many
@given(
    st.lists(
        st.builds(
            "{}={}".format,
            st.sampled_from(OPTIONS) | st.text(max_size=8),
            st.sampled_from(SNIPPETS) | st.text(max_size=8),
        )
        | st.text(max_size=10),
        min_size=1,
        max_size=3,
    )
)
def test_overrides(overrides: list[str]) -> None:
    try:
        use(load("mae_vit_tiny", overrides))
    except InputError as error:
        one_line_of_help(error)


@many
@given(content=texts(WHOLE))
def test_the_configuration_of_a_run(folder: Path, content: bytes) -> None:
    """Whatever lies in the folder of a run, it is taken for this run or refused."""
    there = folder / "run"
    there.mkdir(exist_ok=True)
    (there / "config.yaml").write_bytes(content)
    while run_folder._HELD:  # locks are held to the end of the process
        run_folder._HELD.pop().close()
    run = load("mae_vit_tiny", [f"run.dir={there}"])
    try:
        run_folder.claim(run)
    except InputError as error:
        one_line_of_help(error)
        assert (there / "config.yaml").read_bytes() == content, "what is there is not touched"
    else:
        assert RunConfig.model_validate(safe_load((there / "config.yaml").read_text())) == run


@many
@given(content=texts(SWEEP))
def test_sweeps(folder: Path, content: bytes) -> None:
    file = folder / "sweep.yaml"
    file.write_bytes(content)
    try:
        sweep = load_sweep(file)
        for point in islice(points(sweep), 3):
            run = configure(
                sweep.recipe, point.overrides, sweep.steps, sweep.warmup, Path("unused")
            )
            strategy(run.parallel.strategy).shard_size(point.ranks, run.parallel.group_size)
    except InputError as error:
        one_line_of_help(error)
