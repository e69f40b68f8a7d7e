"""log.csv."""

from prefline.training import log


def test_log_rows_are_means_over_their_steps(tmp_path):
    steps = 2 * log.LOG_ROWS - 1
    history = [
        {"step": step, "epoch": step / steps, "learning_rate": 1 / step, "loss": float(step)}
        for step in range(1, steps + 1)
    ]
    log.write(tmp_path / "log.csv", history)
    header, first, *_, last = lines = (tmp_path / "log.csv").read_text().splitlines()
    assert len(lines) == 1 + log.LOG_ROWS
    assert header == "step,epoch,learning_rate,loss"
    assert first.split(",")[::3] == ["2", "1.5"]
    assert last.split(",")[:2] == ["199", "1"] and last.split(",")[3] == "199"
