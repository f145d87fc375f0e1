"""Configuration: strict, dotted, and errors that help."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hpcgeo.cli.options import options
from hpcgeo.config import RunConfig, differences, load, recipes
from hpcgeo.data.readers.table import READERS
from hpcgeo.errors import InputError
from hpcgeo.optimizers.table import optimizers
from hpcgeo.options import Mixture
from hpcgeo.sensors import sensors
from hpcgeo.strategies import strategies, strategy
from hpcgeo.tables import read
from hpcgeo.zoo import architecture

#: Choices that are no rows of a table.
OTHERS = ("bfloat16", "float32", "knn", "forest", "linear", "transformers")
MINIMAL = {"run": {"dir": "runs/x"}, "model": {"name": "vit_tiny"}, "train": {"steps": 3}}


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_is_whole(name: str) -> None:
    run = load(name)
    if isinstance(run.data, Mixture):
        assert architecture(run.model.name) and run.data.chosen == run.data.tasks
        assert all(task.reader in READERS for task in run.data.tasks.values())
    else:
        model = architecture(run.model.name)
        assert model.num_patches(run.data.chip)
        if run.objective.name == "mae":
            model.num_visible(run.data.chip, run.objective.mask_ratio)
    chosen = strategy(run.parallel.strategy)
    assert chosen.shard_size(64, run.parallel.group_size) in range(1, 65)
    header = recipes()[name]
    for word in ("# Source:", "# Machine:", "# Time and result:", "# Command: hpcgeo train"):
        assert word in header
    assert RunConfig.model_validate(yaml.safe_load(run.to_yaml())) == run


def test_a_task_of_table_1_is_trained_alone() -> None:
    rows = read("sustainbench")["tasks"]
    data = load("gpna_sustainbench").data
    assert isinstance(data, Mixture) and list(data.tasks) == list(rows)
    for name, row in rows.items():
        alone = load("gpna_sustainbench", [f"data.only=[{name}]"]).data
        assert isinstance(alone, Mixture) and alone.chosen == {name: data.tasks[name]}
        task = data.tasks[name]
        said = row["reader"], row.get("target"), row["metric"]
        assert (task.reader, task.target, task.metric) == said
    with pytest.raises(InputError, match=r"data\.only.*no task 'brick_kiln'; known: poverty_s"):
        load("gpna_sustainbench", ["data.only=[brick_kiln]"])


def test_overrides_are_dotted_yaml(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(MINIMAL))
    run = load(
        str(file), ["train.steps=20", "data.chip=64", "data.augment.scale=[0.5, 1]", "optim.clip=1"]
    )
    assert (run.train.steps, run.data.chip, run.data.augment.scale) == (20, (64, 64), (0.5, 1.0))
    assert run.optim.clip == 1.0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "train.step=1",
            r"unknown option 'train.step' \(did you mean 'train.steps'\?\); known in 'train'",
        ),
        ("steps=5", r"'steps' \(did you mean 'train.steps'\?\)"),
        ("batch_size=5", r"'batch_size' \(did you mean 'train.micro_batch'\?\)"),
        ("train.LR=5", r"'train.LR' \(did you mean 'optim.base_lr'\?\)"),
        ("data_path=x", r"did you mean 'data.path'\?"),
        ("name=x", r"did you mean 'model.name' or 'objective.name' or 'optim.name'\?"),
        ("train.dtype=bf16", r"'bf16': .*did you mean 'bfloat16'\?"),
        ("model.name=ViT-Tiny", r"did you mean 'vit_tiny'\?"),
        ("objective.name=MAE", r"did you mean 'mae'\?"),
        ("train=5", r"train = 5: it has options of its own: steps, "),
        ("data.chip=[5]", r"data.chip = \[5\]: too few values"),
        (
            "parallel.recompute=ful",
            r"recompute = 'ful': Input should be 'none', .*'full'\?\), or Input should be a valid",
        ),
        ("train.steps=5", r"warmup_steps 10 is longer.*\(optim.warmup_steps is of the recipe\)"),
        ("optim.ema=0.999", r"\(train.steps is of the recipe\)"),
        ("trian.steps=1", r"unknown option 'trian' \(did you mean 'train'\?\); known at the top"),
        ("train.steps=0", "train.steps = 0: Input should be greater than 0"),
        ("train.steps=many", "train.steps = 'many': Input should be a valid integer"),
        ("train.dtype=fp16", "train.dtype = 'fp16': Input should be 'float32' or 'bfloat16'"),
        ("train.steps", "write it as key=value"),
        ("seed.x=1", "'seed' is a value, not a group"),
        ("data.augment.scale=[0.5, 0.2]", "the range needs 0 < low <= high"),
        ("optim.warmup_steps=500", "optim.warmup_steps 500 is longer than train.steps 100"),
        ("run=[", "not YAML"),
        ("optim.betas=[1.5, 0.9]", r"optim\.betas\.0 = 1\.5: Input should be less than 1"),
    ],
)
def test_bad_overrides_name_key_value_and_rule(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load("mae_vit_tiny", [*(["seed=1"] if "seed" in override else []), override])


def test_bad_recipes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown recipe 'mae_vit_bse' \(did you mean"):
        load("mae_vit_bse")
    with pytest.raises(InputError, match="No such file"):
        load(str(tmp_path / "missing.yaml"))
    for text, message in (
        ("a: [", "not YAML"),
        ("seed: 1\ntrain: {}\nseed: 2", "line 3, column 1: not YAML: found the key seed twice"),
        ("- 1", "expected a mapping"),
        ("{}", "is missing"),
    ):
        file = tmp_path / "bad.yaml"
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            load(str(file))


def test_a_recipe_says_what_it_changes_of_another(tmp_path: Path) -> None:
    task = "{reader: generated, path: scenes}"
    (tmp_path / "mine.yaml").write_text(
        f"extends: gpna_tiny\ndata: {{tasks: {{a: {task}}}}}\ntrain: {{steps: 77}}\n"
    )
    mine, base = load(str(tmp_path / "mine.yaml")), load("gpna_tiny")
    assert isinstance(mine.data, Mixture) and list(mine.data.tasks) == ["a"]
    assert mine.run.dir == Path("runs/mine") and mine.optim == base.optim
    assert mine.train == base.train.model_copy(update={"steps": 77})
    (tmp_path / "next.yml").write_text(
        "extends: mine.yaml\nrun: {dir: x}\nmodel: {name: vit_tiny}\nobjective: {name: mae}\n"
        "data: {path: sets/photos}\n"
    )
    other = load(str(tmp_path / "next.yml"), ["seed=3"])
    assert (other.run.dir, other.seed, other.train.steps) == (Path("x"), 3, 77)
    assert other.source == "shards" and other.objective.name == "mae"
    for text, message in (
        ("extends: gpna_tinny", r"unknown recipe 'gpna_tinny' \(did you mean 'gpna_tiny'"),
        ("extends: none.yaml", r"none\.yaml: No such file"),
        ("extends: [gpna_tiny]", r"extends \['gpna_tiny'\]: name one recipe"),
        ("extends: bad.yaml", r"they extend each other"),
    ):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(InputError, match=message):
            load(str(tmp_path / "bad.yaml"))


def test_every_other_word_names_what_is_known() -> None:
    known = {option.key for option in options()} | {*strategies(), *sensors(), *OTHERS}
    known |= {row.name for row in optimizers().values()}
    for word, names in read("aliases").items():
        assert set(names) <= known, word


def test_a_resumed_run_may_change_how_fast_not_what() -> None:
    run = load("mae_vit_tiny")
    free = [
        "parallel.strategy=FULL_SHARD",
        "train.micro_batch=8",
        "data.workers=3",
        "run.dir=other",
    ]
    assert differences(run, load("mae_vit_tiny", free)) == []
    fixed = load("mae_vit_tiny", ["seed=3", "optim.betas=[0.9, 0.99]"])
    assert differences(run, fixed) == [
        "optim.betas: (0.9, 0.95) -> (0.9, 0.99)",
        "seed: 0 -> 3",
    ]


KEYS = st.sampled_from(["run", "model", "train", "steps", "dir", "seed", "data", "chip", "x", ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, VALUES, max_size=5), st.text(max_size=12))
def test_anything_gives_a_run_or_one_clear_error(tmp_path_factory, values, override) -> None:
    file = tmp_path_factory.mktemp("fuzz") / "recipe.yaml"
    file.write_text(yaml.safe_dump(values), "utf-8")
    try:
        assert isinstance(load(str(file), [override]), RunConfig)
    except InputError as error:
        assert str(error)
