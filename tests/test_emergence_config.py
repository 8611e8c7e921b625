import dataclasses
import json
import typing

import pytest

from emergence import presets
from emergence.config import (
    SGD,
    AdamW,
    DataConfig,
    HessianConfig,
    LLCConfig,
    ModelConfig,
    PresetName,
    ProbeConfig,
    StudyConfig,
    TrainingConfig,
)
from emergence.run import config_from_dict, config_to_dict
from simulators import HardSpheres
from simulators.systems import SYSTEMS


@pytest.mark.parametrize("name", ["quick", "standard", "paper"])
def test_presets_know_their_name(name):
    assert presets.preset(name).preset == name


def test_an_unknown_preset_lists_all():
    with pytest.raises(ValueError, match="unknown preset 'fast'; choose one of quick, standard, paper$"):
        presets.preset("fast")
    assert typing.get_args(PresetName) == ("quick", "standard", "paper")


@pytest.mark.parametrize(
    "config",
    [
        presets.quick(),
        presets.standard(),
        presets.paper(),
        StudyConfig(
            seeds=(4, 2),
            data=DataConfig(system=HardSpheres(dim=3, gravity=(0.0, 0.0, -1.0), box=(1.0, 2.0, 1.0), restitution=0.9)),
            training=TrainingConfig(optimizer=SGD(0.05, 0.9), precision="bfloat16", compile=True),
        ),
        StudyConfig(training=TrainingConfig(optimizer=AdamW(betas=(0.8, 0.95), weight_decay=0.1))),
        StudyConfig(training=TrainingConfig(n_decay_steps=100, max_gradient_norm=1.0)),
    ],
)
def test_a_configuration_survives_json(config):
    there_and_back = config_from_dict(config_to_dict(config))
    assert there_and_back == config
    assert hash(there_and_back) == hash(config)


def test_missing_keys_take_their_defaults():
    assert config_from_dict({}) == StudyConfig()
    assert config_from_dict({"training": {"optimizer": {"kind": "SGD"}}}).training.optimizer == SGD()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"trainig": {}}, "here: unknown key trainig; did you mean training?"),
        ({"training": {"n_step": 3}}, "here: unknown key training.n_step; did you mean training.n_steps?"),
        ({"data": {"system": {"gravety": 1}}}, "unknown key data.system.gravety; did you mean data.system.gravity?"),
        ({"model": {"zzz": 1}}, "unknown key model.zzz; known: n_layers, n_heads, d_model, d_head, d_mlp"),
        ({"training": {"n_steps": 1.5}}, "here: training.n_steps: expected int, got 1.5"),
        ({"training": {"n_steps": True}}, "here: training.n_steps: expected int, got True"),
        ({"training": {"compile": "false"}}, "here: training.compile: expected bool, got 'false'"),
        ({"data": {"frame_interval": "0.1"}}, "here: data.frame_interval: expected float, got '0.1'"),
        ({"seeds": "12"}, "here: seeds: expected int, got '1'"),
        ({"data": 3}, "here: data: expected a table of settings, got 3"),
        ([1, 2], r"here: expected a table of settings, got \[1, 2\]"),
        ({"training": {"optimizer": {"kind": "Adam"}}}, "kind must be 'AdamW' or 'SGD', got 'Adam'"),
        (
            {"training": {"optimizer": {"kind": "SGD", "betas": [0.9, 0.9]}}},
            "unknown key training.optimizer.betas; known",
        ),
        ({"preset": "fast"}, "here: preset: fast not in"),
        ({"training": {"n_steps": 0}}, "here: training.n_steps must be at least 1, got 0$"),
        ({"data": {"system": {"radius": -1}}}, "here: data.system: radius must be positive and finite, got -1.0"),
    ],
)
def test_a_bad_table_is_refused_in_one_line(data, problem):
    with pytest.raises(ValueError, match=problem) as refused:
        config_from_dict(data, "here")
    assert "\n" not in str(refused.value)


def test_whole_numbers_are_floats_too():
    assert config_from_dict({"data": {"frame_interval": 1}}).data.frame_interval == 1.0


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: DataConfig(n_systems=0), "data.n_systems must be at least 1, got 0"),
        (lambda: DataConfig(n_frames=1), "data.n_frames must be at least 2, got 1"),
        (lambda: DataConfig(frame_interval=0.0), "data.frame_interval must be positive and finite, got 0.0"),
        (lambda: DataConfig(frame_interval=float("nan")), "data.frame_interval must be positive and finite, got nan"),
        (lambda: DataConfig(n_evaluation_systems=0), "data.n_evaluation_systems must be at least 1, got 0"),
        (lambda: ModelConfig(n_heads=0), "model.n_heads must be at least 1, got 0"),
        (lambda: AdamW(learning_rate=float("inf")), "optimizer.learning_rate must be positive and finite, got inf"),
        (lambda: AdamW(betas=(0.9, 1.0)), r"optimizer.betas must be in \[0, 1\), got \(0.9, 1.0\)"),
        (lambda: AdamW(weight_decay=-1.0), "optimizer.weight_decay must be zero or positive, got -1.0"),
        (lambda: SGD(learning_rate=0.0), "optimizer.learning_rate must be positive and finite, got 0.0"),
        (lambda: SGD(momentum=1.0), r"optimizer.momentum must be in \[0, 1\), got 1.0"),
        (lambda: TrainingConfig(n_checkpoints=0), "training.n_checkpoints must be at least 1, got 0"),
        (lambda: TrainingConfig(n_warmup_steps=-1), "training.n_warmup_steps must be at least 0, got -1"),
        (lambda: TrainingConfig(n_decay_steps=-1), "training.n_decay_steps must be at least 0, got -1"),
        (
            lambda: TrainingConfig(n_steps=10, n_warmup_steps=4, n_decay_steps=7),
            "training.n_decay_steps must be at most 6, got 7",
        ),
        (
            lambda: TrainingConfig(max_gradient_norm=0.0),
            "training.max_gradient_norm must be positive and finite, got 0.0",
        ),
        (
            lambda: TrainingConfig(max_gradient_norm=float("inf")),
            "training.max_gradient_norm must be positive and finite, got inf",
        ),
        (lambda: LLCConfig(nbeta=0.0), "probes.llc.nbeta must be positive and finite, got 0.0"),
        (lambda: LLCConfig(localization=-1.0), "probes.llc.localization must be zero or positive, got -1.0"),
        (lambda: LLCConfig(n_draws=3), "probes.llc.n_draws must be at least 4, got 3"),
        (lambda: LLCConfig(n_burnin=-1), "probes.llc.n_burnin must be at least 0, got -1"),
        (lambda: HessianConfig(n_top=0), "probes.hessian.n_top must be at least 1, got 0"),
        (lambda: ProbeConfig(n_permutations=99), "probes.n_permutations must be at least 100, got 99"),
        (lambda: ProbeConfig(n_knockout_edges=1), "probes.n_knockout_edges must be at least 2, got 1"),
        (lambda: StudyConfig(seeds=()), r"seeds must be at least one seed, got \(\)"),
        (lambda: StudyConfig(seeds=(1, 1)), r"seeds must be distinct, got \(1, 1\)"),
        (lambda: StudyConfig(seeds=(-1,)), r"seeds must be zero or positive, got \(-1,\)"),
        (lambda: StudyConfig(n_threads=-1), r"n_threads must be zero \(all cores\) or positive, got -1"),
        (
            lambda: StudyConfig(data=DataConfig(system=HardSpheres(n_particles=2))),
            "data.system.n_particles must be at least 3 .*, got 2",
        ),
        (
            lambda: StudyConfig(data=DataConfig(system=HardSpheres(interacting=False))),
            "data.system.interacting must be true .*ghost_control.*, got false",
        ),
        (
            lambda: StudyConfig(
                data=DataConfig(n_evaluation_systems=1, n_frames=11),
                probes=ProbeConfig(llc=LLCConfig(batch_size=32)),
            ),
            "probes.llc.batch_size must be at most the 10 evaluation scenes, got 32",
        ),
    ],
)
def test_impossible_settings_are_refused_before_any_work(make, problem):
    with pytest.raises(ValueError, match=f"^{problem}$"):
        make()


def test_configurations_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        StudyConfig().device = "cpu"  # type: ignore[misc]


@pytest.mark.parametrize("kind", SYSTEMS.values(), ids=SYSTEMS)
def test_every_system_survives_the_file(kind):
    ghosts = hasattr(kind, "interacting")
    config = StudyConfig(ghost_control=ghosts, data=DataConfig(system=kind()))
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


def test_a_system_without_a_kind_is_the_first():
    assert config_from_dict({"data": {"system": {"radius": 0.05}}}).data.system == HardSpheres(radius=0.05)


def test_an_unknown_kind_of_system_is_refused():
    with pytest.raises(ValueError, match="kind must be 'HardSpheres' or 'SoftSpheres' .*, got 'Billiards'"):
        config_from_dict({"data": {"system": {"kind": "Billiards"}}})
