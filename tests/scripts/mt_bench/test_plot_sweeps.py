"""The picture of sweeps: a panel for each combination of the other keys, and every point in one."""

import copy

import pytest
import texts_in_pictures
from configs import DEFAULT
from test_plot_winrate import result

from prefline import policies
from prefline.config import loading as configuration
from scripts.mt_bench import plot_sweeps

GRID = {"beta": [0.05, 0.1, 0.5], "loss_type": ["sigmoid", "ipo"]}


def swept(sweep, **keys):
    """Return (what compute_winrate writes, sweeps) of the default's runs with a sweep of dpo."""
    config = copy.deepcopy(DEFAULT)
    config["runs"]["dpo"] |= {"sweep": sweep, **keys}
    config = configuration.load(config)
    made = result(policies.of_chains(policies.chains(config)))
    return made, config["sweeps"]


def texts_of(figure):
    found = [text.get_text() for text in figure.texts]
    return found + [label.get_text() for axes in figure.axes for label in axes.get_xticklabels()]


def test_a_grid_has_a_panel_for_each_combination_of_the_other_keys():
    made, sweeps = swept(GRID)
    found = plot_sweeps.panels(sweeps)
    assert [panel["title"] for panel in found] == ["dpo: loss_type sigmoid", "dpo: loss_type ipo"]
    assert [panel["key"] for panel in found] == ["beta", "beta"]
    assert found[0]["runs"][1] == ("0.1", "dpo_beta_0p1_loss_type_sigmoid")
    assert {run for panel in found for _, run in panel["runs"]} == sweeps["dpo"].keys()
    figure = plot_sweeps.draw(made, sweeps)
    assert len(figure.axes) == 2 and texts_of(figure).count("0.05") == 2


def test_points_with_names_are_one_panel():
    made, sweeps = swept({"low": {"beta": 0.05}, "long": {"num_train_epochs": 3}})
    [panel] = plot_sweeps.panels(sweeps)
    assert panel == {"title": "dpo", "key": "point", "runs": [("low", "dpo_low"), ("long", "dpo_long")]}
    assert {"low", "long"} <= set(texts_of(plot_sweeps.draw(made, sweeps)))


def test_seeds_are_their_mean_and_iterations_have_colours():
    made, sweeps = swept({"beta": [0.1, 0.2]}, seeds=[1, 2], iterations=2)
    [axes] = plot_sweeps.draw(made, sweeps).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["iteration 1", "iteration 2"]
    means = [made["repeated"][f"dpo_beta_0p{n}-1"]["overall"]["win_rate_adjusted"] for n in (1, 2)]
    assert any(list(line.get_ydata()) == means for line in axes.lines)


HARD = {
    "three keys": {"beta": [0.05, 0.1, 0.5], "learning_rate": [1e-4, 7e-5], "label_smoothing": [0.0, 0.1]},
    "names alike": {
        f"a_long_warmup_{name}_beta": {"beta": beta} for name, beta in (("low", 0.1), ("mid", 0.2))
    },
    "many values": {"beta": [round(0.01 * n, 2) for n in range(1, 41)]},
    "texts": {"loss_type": ["sigmoid", "ipo", "sigmoid_norm", "robust"], "beta": [0.1, 0.2]},
}


@pytest.mark.parametrize("case", HARD)
def test_no_text_overlaps_another_or_leaves_the_paper(case):
    assert texts_in_pictures.check(plot_sweeps.draw(*swept(HARD[case]))) > 5


def test_titles_and_values_tell_points_apart():
    titles = [panel["title"] for panel in plot_sweeps.panels(swept(HARD["three keys"])[1])]
    assert len(set(titles)) == 4 and "dpo: learning_rate 7e-05\nlabel_smoothing 0.1" in titles
    written = texts_of(plot_sweeps.draw(*swept(HARD["names alike"])))
    assert {"a_long_warmup…w_beta", "a_long_warmup…d_beta"} <= set(written)
    alike = [f"{'a' * 20}{number}{'a' * 20}" for number in range(2)]
    assert plot_sweeps.axis_labels(alike) == alike
    assert plot_sweeps.axis_labels([str(number) for number in range(40)])[:5] == ["0", "", "", "", "4"]


def test_only_numbers_are_joined():
    made, sweeps = swept(HARD["texts"])
    for axes in plot_sweeps.draw(made, sweeps).axes:
        widths = {line.get_linewidth() for line in axes.lines if line.get_marker() == "o"}
        assert widths == ({0.8} if axes.get_xlabel() == "beta" else {0})


def test_points_without_a_valid_match_leave_a_gap():
    made, sweeps = swept({"beta": [0.1, 0.2]})
    lost = made["win_rates"]["dpo_beta_0p1-1"]["overall"]
    lost |= dict.fromkeys(("win_rate_adjusted", "ci_low", "ci_high"))
    assert plot_sweeps.draw(made, sweeps)
