"""Losses that a training of a policy refuses, and losses of the user's own."""

import pytest
from policy_training import distance, make_world, pairs_with, train, training_flags

from prefline import files
from prefline.errors import InputError
from prefline.training import losses, results
from prefline.training.settings import Settings
from scripts.train import train_policy


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    return train(world, tmp_path_factory.mktemp("undisturbed"))


def test_a_loss_that_is_not_finite_names_the_pairs(world, tmp_path):
    with pytest.raises(InputError, match=r"held-out pairs is inf after 0 steps, first of prompt_id p5;"):
        train(world, tmp_path, loss_type="rebel", eta=1e30)
    with pytest.raises(InputError, match=r"became (nan|inf) at step \d of 6 .* prompt_id p\d+, prompt_id p"):
        train(world, tmp_path, learning_rate=1e30)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"loss_type": "rebell"}, "there is no loss 'rebell'; did you mean 'rebel'?"),
        ({"loss_type": "exo_pair"}, "exo_pair is infinite if label_smoothing is 0"),
        (
            {"loss_type": '["sigmoid", "sft"]', "loss_weights": "[1]"},
            "loss_weights has 1 numbers for 2 losses",
        ),
    ],
    ids=str,
)
def test_losses_that_cannot_be(world, tmp_path, flags, sentence):
    with pytest.raises(InputError) as error:
        train(world, tmp_path, **flags)
    assert sentence in str(error.value)


@pytest.fixture
def own_loss(tmp_path):
    """The name of DPO's loss in a file of the user's, which takes a factor from another."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/helper.py").write_text("FACTOR = 1.0\n")
    (tmp_path / "mine/own.py").write_text(
        "from torch.nn.functional import logsigmoid\nfrom .helper import FACTOR\n\n\n"
        "def dpo(batch, beta, lam):\n    return -FACTOR * lam * logsigmoid(beta * batch.margins)\n\n\n"
        "def rewarded(batch, beta):\n    return beta * batch.margins * batch.chosen_reward\n"
    )
    return f"{tmp_path}/mine/own.py"


def test_a_loss_of_ones_own_trains_as_the_same_loss_here(world, undisturbed, tmp_path, own_loss):
    keys = {"loss_type": f"{own_loss}:dpo", "loss_arguments": '{"lam": 1.0}'}
    weights, _, log = train(world, tmp_path, **keys)
    assert distance(weights, undisturbed[0]) == 0
    assert [row["loss"] for row in log] == [row["loss"] for row in undisturbed[2]]
    params = files.read_json(tmp_path / "model.json")["lineage"]["params"]
    assert params["loss_type"] == keys["loss_type"] and params["loss_arguments"] == {"lam": 1.0}


def test_an_edit_of_a_module_that_ones_own_loss_imports_trains_again(world, tmp_path, own_loss):
    keys = {"loss_type": f"{own_loss}:dpo", "loss_arguments": '{"lam": 1.0}', "num_train_epochs": 0.4}

    def work_key():
        args = train_policy.parse(training_flags(world, tmp_path, **keys))
        own_files = losses.own_files(args.loss_type)
        return results.work_key(Settings.of(vars(args)), "scripts/train/train_policy.py", [], own_files)

    before = work_key()
    (tmp_path / "mine/helper.py").write_text("FACTOR = 1.0  # a remark\n")
    assert work_key() == before
    (tmp_path / "mine/helper.py").write_text("FACTOR = 2.0\n")
    assert work_key() != before


def test_a_loss_of_ones_own_is_tried_before_a_model_is_loaded(world, tmp_path, own_loss, monkeypatch):
    monkeypatch.setattr("prefline.training.weights.load", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(InputError, match=r"own.py, line 6: TypeError"):
        train(world, tmp_path, loss_type=f"{own_loss}:dpo", loss_arguments='{"lam": []}')
    with pytest.raises(InputError, match="loss_arguments lacks 'lam'"):
        train(world, tmp_path, loss_type=f"{own_loss}:dpo", loss_arguments="null")
    with pytest.raises(InputError, match=r"chosen_reward is None, but loss_type .*own.py:rewarded needs it"):
        train_policy.check_pairs(
            pairs_with(chosen_reward=[1.0, None, 2.0]), f"{own_loss}:rewarded", {"beta": 0.1}
        )


def test_a_loss_without_its_hyperparameter(world, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train(world, tmp_path, loss_type="discopop")
    assert "the loss discopop needs --discopop-tau" in capsys.readouterr().err
