from __future__ import annotations

import pytest
from pydantic import ValidationError

from models.backbones import BACKBONES, split_backbone
from models.errors import BadData, BadOptions
from models.objectives import OBJECTIVES
from models.training import TrainingConfig, resolve_options


def test_config_stores_every_option_so_that_a_changed_default_changes_no_run(tmp_path):
    config = TrainingConfig(backbone="hashing", options={"epochs": 3})
    assert config.options["epochs"] == 3
    assert {"center", "ties", "l2", "word_ngrams"} <= set(config.options)
    config.write(tmp_path / "new")
    assert TrainingConfig.read(tmp_path / "new") == config


def test_options_come_as_text_from_a_command_line():
    config = TrainingConfig(options={"epochs": "3", "weighting": "false", "l2": "1e-3"})
    assert (config.options["epochs"], config.options["l2"]) == (3, 1e-3)
    assert config.objective_options.weighting is False
    assert config.backbone_options.epochs == 3


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"options": {"epoch": 3}}, r"Unknown option epoch\. Known: .*center.*epochs"),
        ({"options": {"max_length": 99}}, "Unknown option max_length"),
        ({"options": {"epochs": 0}}, "epochs: .*greater than or equal to 1"),
        ({"options": {"learning_rate": "fast"}}, "learning_rate: "),
        ({"options": {"ties": "win"}}, "ties: .*'half' or 'drop'"),
        ({"backbone": "gpt"}, r"'gpt'.*hashing, hf"),
        ({"backbone": "hf"}, "write hf:<id or path>"),
        ({"backbone": "hf:  "}, "write hf:<id or path>"),
        ({"backbone": "hashing:big"}, "takes nothing after a colon"),
        ({"objective": "magic"}, r"'magic'.*bradley-terry"),
    ],
)
def test_config_refuses_what_does_not_exist_and_says_what_does(config, message):
    with pytest.raises(BadOptions, match=message):
        TrainingConfig(**config)


def test_config_refuses_unknown_fields_of_its_own():
    with pytest.raises(ValidationError, match="epochs"):
        TrainingConfig(epochs=3)


def test_reading_a_broken_config_says_what_is_wrong(tmp_path):
    with pytest.raises(BadData, match=r"no config\.json"):
        TrainingConfig.read(tmp_path)
    (tmp_path / "config.json").write_text('{"seed": -1}')
    with pytest.raises(BadOptions, match=r"config\.json: seed: "):
        TrainingConfig.read(tmp_path)


def test_fingerprint_follows_what_changes_the_weights_and_nothing_else():
    base = TrainingConfig()
    same = TrainingConfig(time_limit=60, checkpoint_every=5, options={"epochs": 10})
    assert base.fingerprint("a") == same.fingerprint("a")
    others = [
        TrainingConfig(seed=1).fingerprint("a"),
        TrainingConfig(options={"epochs": 11}).fingerprint("a"),
        base.fingerprint("b"),
    ]
    assert len({base.fingerprint("a"), *others}) == 4


def test_backbone_names_split_at_the_first_colon():
    assert split_backbone("hashing") == ("hashing", "")
    assert split_backbone("hf:org/name") == ("hf", "org/name")
    assert split_backbone("hf:/a:b/c") == ("hf", "/a:b/c")


@pytest.mark.parametrize("table", [OBJECTIVES, BACKBONES])
def test_every_option_can_be_shown_as_a_form_field(table):
    for key, method in table.items():
        assert method.label, key
        assert method.summary.endswith("."), key
        for name, field in method.load_options().model_fields.items():
            assert field.title, (key, name)
            assert field.description, (key, name)
            assert not field.is_required(), (key, name)


def test_objective_and_backbone_options_never_share_a_name():
    for objective in OBJECTIVES:
        for backbone in ("hashing", "hf:x"):
            first, second = resolve_options(objective, backbone, {})
            assert not set(type(first).model_fields) & set(type(second).model_fields)


@pytest.mark.neural
@pytest.mark.parametrize("table", [OBJECTIVES, BACKBONES])
def test_every_path_of_a_table_loads(table):
    pytest.importorskip("torch")
    assert all(callable(method.load()) for method in table.values())
