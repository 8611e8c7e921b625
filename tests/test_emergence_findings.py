import json
import math

import numpy as np
import pandas as pd
import pytest
from micro_study import micro

from emergence.curves import Curves
from emergence.findings import CRITERIA, ContactHeadCriteria, summarize, without_nan
from emergence.run import open_run

CONTACT_HEAD = {
    "contact_ap": 0.80,
    "nearest_neighbor_ap": 0.36,
    "p_value": 0.005,
    "knockout_baseline_loss": 0.30,
    "edge_knockout_partner": 0.36,
    "edge_knockout_nonpartner": -0.004,
}


def test_a_head_like_that_of_the_trial_is_a_contact_head():
    assert CRITERIA.met_by(CONTACT_HEAD)
    assert ContactHeadCriteria(0.75, 1.8, 0.01, 0.30, 10.0) == CRITERIA


@pytest.mark.parametrize(
    "short",
    [
        {"contact_ap": 0.749},
        {"nearest_neighbor_ap": 0.45},
        {"p_value": 0.01},
        {"edge_knockout_partner": 0.089},
        {"edge_knockout_nonpartner": 0.04},
        {"edge_knockout_nonpartner": -0.04},
        {"edge_knockout_partner": -0.36},
        *({name: math.nan} for name in CONTACT_HEAD),
    ],
    ids=str,
)
def test_every_criterion_alone_can_fail_a_head(short):
    assert not CRITERIA.met_by(CONTACT_HEAD | short)


def table(rows: list[dict]) -> pd.DataFrame:
    blank = {"arm": "discs", "seed": 0, "layer": pd.NA, "head": pd.NA, "coordinate": math.nan, "standard_error": 0.1}
    frame = pd.DataFrame([blank | row for row in rows])
    return frame.astype({"layer": "Int64", "head": "Int64"})


@pytest.fixture
def curves() -> Curves:
    rows = [{"quantity": "loss_all", "step": step, "value": 10.0 - step} for step in (3, 0, 1)]
    rows += [
        {"quantity": "contact_ap", "step": step, "value": 0.1 * step + head, "layer": 1, "head": head}
        for step in (0, 3)
        for head in (0, 1)
    ]
    rows += [{"quantity": "edge_knockout_partner", "step": 3, "value": 7.0, "layer": 1}]
    rows += [{"quantity": "g", "step": 3, "value": x**2, "coordinate": x, "layer": 1, "head": 0} for x in (0.2, 0.1)]
    rows += [{"quantity": "loss_all", "step": 1, "value": -1.0, "seed": 1}]
    rows += [{"quantity": "loss_all", "step": 1, "value": -2.0, "arm": "ghosts"}]
    return Curves(table(rows), "discs", 0)


def test_curves_ascend_in_step_and_keep_arm_and_seed_apart(curves):
    steps, values, errors = curves.over_steps("loss_all")
    assert steps.tolist() == curves.steps.tolist() == [0, 1, 3]
    assert values.tolist() == [10.0, 9.0, 7.0]
    assert errors.tolist() == [0.1, 0.1, 0.1]


def test_curves_look_up_one_value(curves):
    assert curves.at("contact_ap", 3, 1, 0) == pytest.approx(0.3)
    assert curves.at("edge_knockout_partner", 3, 1) == 7.0  # the whole layer
    assert curves.error_at("contact_ap", 3, 1, 1) == 0.1
    assert curves.places("contact_ap") == [(1, 0), (1, 1)]


def test_what_was_not_measured_is_nan(curves):
    assert math.isnan(curves.at("contact_ap", 1, 1, 0))
    assert math.isnan(curves.at("contact_ap", 3, 0, 0))
    assert math.isnan(curves.error_at("nothing", 3))
    assert all(len(column) == 0 for column in curves.over_steps("nothing"))


def test_a_curve_with_a_coordinate_ascends_in_it(curves):
    rows = curves.curve("g", 3, 1, 0)
    assert rows["coordinate"].tolist() == [0.1, 0.2]
    assert rows["value"].tolist() == pytest.approx([0.01, 0.04])


def test_without_nan_reaches_every_depth():
    plain = without_nan({"a": [1.5, math.nan, (np.float64(2.0), np.inf)], "b": {"c": np.int64(3), "d": np.bool_(True)}})
    assert plain == {"a": [1.5, None, [2.0, None]], "b": {"c": 3, "d": True}}
    json.dumps(plain, allow_nan=False)


def test_the_summary_agrees_with_the_table(micro_run):
    summary, measured = micro_run.summary, micro_run.measurements
    rows = measured[(measured["arm"] == "discs") & (measured["step"] == 30)]
    for head in summary["heads"]:
        of_head = rows[(rows["layer"] == head["layer"]) & (rows["head"] == head["head"])].set_index("quantity")["value"]
        for name in ("contact_ap", "edge_knockout_partner", "edge_knockout_nonpartner", "distance_correlation"):
            assert head[name] == of_head[name]
        assert head["p_value"] == of_head["contact_ap_p_value"]
    assert summary["loss"][0]["final"] == rows.set_index("quantity")["value"]["loss_all"]


def test_too_few_checkpoints_give_no_onset_rather_than_an_error(micro_run):
    for head in micro_run.summary["heads"]:
        assert head["onset_step"] is None
        assert head["onset_interval"] == [None, None]


def test_planted_contact_head_is_found_with_its_onset(micro_run):
    """The table of a run whose first head begins to see contacts at step 100, summarised."""
    steps = [0, *np.unique(np.geomspace(1, 3000, 30).round().astype(int)).tolist()]
    rise = np.random.default_rng(1)
    rows = []
    for step in steps:
        seen = 0.05 + 0.8 * (1 - math.exp(-max(0, step - 100) / 400)) + 0.003 * rise.normal()
        numbers = {"contact_ap": seen, "contact_ap_p_value": 0.005, "contact_ap_low": seen - 0.02} | {
            "contact_ap_high": seen + 0.02,
            "edge_knockout_partner": 0.4 * seen,
            "edge_knockout_nonpartner": 0.001,
        }
        for head, scale in ((0, 1.0), (1, 0.0)):
            rows += [
                {"quantity": name, "step": step, "value": scale * value, "layer": 0, "head": head}
                for name, value in numbers.items()
            ]
        whole = {"loss_all": 1.0, "loss_contact": 1.5 - seen, "nearest_neighbor_ap": 0.36, "chance_ap": 0.044}
        whole |= {"knockout_baseline_loss": 0.3}
        rows += [{"quantity": name, "step": step, "value": value} for name, value in whole.items()]

    class Planted:
        """A run with that table; the rest is the micro run's."""

        config = micro(ghost_control=False)
        measurements = table(rows)
        transitions = staticmethod(micro_run.transitions)

        class _Series:
            @staticmethod
            def meta(step):
                return {"training_time": 1e-3 * step}

        def checkpoints(self, seed, arm="discs"):
            return self._Series()

    summary = summarize(Planted(), {})  # type: ignore[arg-type]
    found, other = summary["heads"]
    assert found["is_contact_head"]
    assert not other["is_contact_head"]
    low, high = found["onset_interval"]
    assert low <= 100 <= high
    assert 60 < found["onset_step"] < 160
    assert not any(head["is_contact_head"] for head in summary["controls"])


def test_a_summary_can_be_made_again(micro_run):
    again = summarize(open_run(micro_run.folder), {})
    assert json.loads(json.dumps(again)) | {"seconds": None} == dict(micro_run.summary) | {"seconds": None}
