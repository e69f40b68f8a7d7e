"""What can be seen of a training: event files, W&B without its key, MFU, the picture."""

import os
import random
import subprocess
import sys

import pytest
import small_model
from matplotlib.backends.backend_agg import FigureCanvasAgg

from prefline import files
from prefline.errors import InputError
from prefline.training import trackers, utilization
from scripts.train import plot_training

SECRET = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A pretraining that is evaluated on the way and reports to W&B, offline, beside a key."""
    pytest.importorskip("wandb")
    out = tmp_path_factory.mktemp("watched")
    small_model.make_model(out / "start")
    draw = random.Random(1)
    for split, number in (("train", 16), ("test", 4)):
        texts = [" ".join(draw.choices(["ab", "ba", "abba", "b"], k=30)) for _ in range(number)]
        files.write_jsonl(out / f"{split}.jsonl", [{"text": text} for text in texts])
    words = small_model.flags(
        out,
        model=out / "start",
        train_data=out / "train.jsonl",
        eval_data=out / "test.jsonl",
        columns={"text": "text"},
        max_length=64,
        eval_steps=2,
        wandb_project="prefline-tests",
    )
    done = subprocess.run(
        [sys.executable, "-m", "scripts.models.pretrain", *words],
        env={**os.environ, "WANDB_MODE": "offline", "WANDB_API_KEY": SECRET},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (out / "said.txt").write_text(done.stdout + done.stderr)
    return out


def test_the_event_files_hold_what_the_log_holds(watched):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = watched.glob("work/tensorboard/model-*")
    events = EventAccumulator(str(folder))
    events.Reload()
    _, _, log = small_model.results(watched)
    for column, name in (("loss", "train/loss"), ("eval_loss", "eval/loss")):
        wanted = [(row["step"], row[column]) for row in log if column in row]
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in found] == [step for step, _ in wanted]
        assert [value for _, value in found] == pytest.approx([value for _, value in wanted], rel=1e-5)
    assert len(events.Scalars("eval/loss")) > 1


def test_wandb_works_offline_and_nothing_holds_the_key(watched):
    assert list(watched.glob("work/wandb/offline-run-*/*.wandb"))
    for path in watched.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


def test_wandb_without_a_key_is_one_sentence(monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    trackers.check("")
    with pytest.raises(InputError, match=r"wandb_project is p, but the environment has no WANDB_API_KEY"):
        trackers.check("p")
    monkeypatch.setenv("WANDB_MODE", "offline")
    trackers.check("p")


@pytest.mark.parametrize(
    ("device", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA H200", 989.4),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("Some other device", None),
    ],
)
def test_peaks_by_the_names_that_devices_give_themselves(device, tflops):
    assert utilization.peak(device) == (None if tflops is None else pytest.approx(tflops * 1e12))


def test_flops_are_six_per_weight_and_four_per_frozen_one(tmp_path):
    from transformers import AutoModelForCausalLM

    small_model.make_model(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    table = model.get_input_embeddings().weight.numel()
    assert utilization.flops_per_token(model) == 6 * (model.num_parameters() - table)
    peft = pytest.importorskip("peft")
    frozen = model.num_parameters() - table
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **small_model.LORA))
    adapters = sum(one.numel() for one in adapted.parameters() if one.requires_grad)
    assert utilization.flops_per_token(adapted) == 4 * frozen + 6 * adapters


def policy_log(path, steps):
    names = ["step", "epoch", "learning_rate", "eval_loss", "eval_rewards/margins"]
    names += ["loss", "rewards/margins", "rewards/accuracies"]
    lines = [",".join(names)]
    for step in range(1, steps + 1):
        looked = (f"{0.7 - step / 300:.4g}", f"{step / 20:.4g}") if step % 5 == 0 else ("", "")
        row = [step, step / steps, 2e-4 * (1 - step / steps), *looked, 0.69 / step, step / 15, 0.9]
        lines.append(",".join(str(value) for value in row))
    path.write_text("\n".join(lines) + "\n")


POLICY = {
    "train_steps": 40,
    "train_tokens": 123456,
    "train_tokens_per_second": 1234.5,
    "train_mfu": 0.412,
    "saved_step": 35,
    "eval_loss_before": 0.693,
    "eval_loss": 0.6,
    "eval_rewards/margins_before": 0.0,
    "eval_rewards/margins": 1.7,
    "eval_rewards/accuracies_before": 0.4,
    "eval_rewards/accuracies": 1.0,
}


class TestPicture:
    def test_a_policys_has_four_panels_and_the_held_out_points(self, tmp_path):
        policy_log(tmp_path / "log.csv", 40)
        log = plot_training.read(tmp_path / "log.csv")
        assert plot_training.held_out("loss", log, POLICY)[:2] == [(0.0, 0.693), (5.0, 0.6833)]
        assert plot_training.held_out("rewards/accuracies", log, POLICY) == [(0.0, 0.4), (35.0, 1.0)]
        figure = plot_training.draw("a_run_with_quite_a_long_name-12", log, POLICY)
        assert len(figure.axes) == 4
        inside(figure)

    def test_of_a_policy_that_is_trained_on_rewards_it_shows_those(self):
        """What stands for its held-out loss is the negative reward, and no loss."""
        course = [(1.0, 0.1), (2.0, 0.2)]
        columns = ("loss", "eval_loss", "reward", "completions/mean_length", "learning_rate")
        metrics = {"train_steps": 2, "train_completions": 8, "eval_loss": -3.0, "eval_loss_before": -1.0}
        metrics |= {"eval_reward": 3.0, "eval_reward_before": 1.0}
        figure = plot_training.draw("rloo-1", dict.fromkeys(columns, course), metrics)
        assert len(figure.axes) == 4
        points = [[list(line.get_ydata()) for line in axes.lines[1:]] for axes in figure.axes]
        assert points == [[], [[1.0, 3.0]], [], []]
        inside(figure)

    def test_a_models_has_loss_and_learning_rate(self, watched, tmp_path):
        words = ["--name", "base", "--log-csv", str(watched / "log.csv")]
        words += ["--metrics", str(watched / "metrics.json"), "--out"]
        plot_training.main([*words, str(tmp_path / "a.png")])
        plot_training.main([*words, str(tmp_path / "b.png")])
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
        metrics = files.read_json(watched / "metrics.json")
        figure = plot_training.draw("base", plot_training.read(watched / "log.csv"), metrics)
        assert len(figure.axes) == 2
        inside(figure)


def inside(figure):
    """No text leaves the paper."""
    FigureCanvasAgg(figure).draw()
    width, height = figure.bbox.width, figure.bbox.height
    for axes in [figure, *figure.axes]:
        texts = axes.texts if axes is figure else [*axes.get_xticklabels(), *axes.get_yticklabels()]
        for text in texts:
            box = text.get_window_extent()
            assert box.x0 >= -1 and box.x1 <= width + 1 and box.y0 >= -1 and box.y1 <= height + 1, text
