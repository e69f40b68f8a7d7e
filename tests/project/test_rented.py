"""What runs the workflow on rented machines: an image, a pod, and a machine that may be taken away."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from project_copy import ROOT, copy_project

from tools.write_dockerfiles import HARDWARE

DOCKERFILE = (ROOT / "containers/workflow.Dockerfile").read_text()
TASK = yaml.safe_load((ROOT / "docs/skypilot.yaml").read_text())
CLAIM, JOB = yaml.safe_load_all((ROOT / "docs/kubernetes.yaml").read_text())
POD = JOB["spec"]["template"]["spec"]


def copied():
    """(sources, target) of each COPY of the Dockerfile."""
    return [(words[:-1], words[-1]) for words in map(str.split, re.findall(r"^COPY (.*)$", DOCKERFILE, re.M))]


def test_the_image_is_given_the_project_and_nothing_else():
    """As Docker reads the file beside the Dockerfile: results and keys reach no image."""
    ignored, *shown = (ROOT / "containers/workflow.Dockerfile.dockerignore").read_text().split()
    assert ignored == "*"
    shown = {line.removeprefix("!") for line in shown if line.startswith("!")}
    needed = {"Snakefile", "config.yaml", "Makefile", "rules", "scripts", "prefline", "profiles", "recipes"}
    assert needed | {"containers", "data", "envs", "machines", "tools", "slurm"} == shown
    tracked = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    assert all(any(name == one or name.startswith(f"{one}/") for name in tracked) for one in shown)
    for sources, _ in copied():
        assert all(source == "." or source.split("/")[0] in shown for source in sources)


def test_the_environment_can_be_made_from_what_is_copied_before_it(tmp_path):
    """The check of the driver runs; the Makefile's commands are those of a machine without one."""
    for sources, target in copied():
        if sources == ["."]:
            continue
        for source in sources:
            to = tmp_path / target / ("" if (ROOT / source).is_dir() else Path(source).name)
            to.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, to)
    (command,) = re.findall(r"^RUN (make .*)$", DOCKERFILE, re.M)
    said = subprocess.check_output([*command.split(), "-n"], cwd=tmp_path, text=True)
    assert "-r envs/cuda.lock.txt" in said
    check = ["python", "-m", "prefline.machine.device", "cuda"]
    subprocess.run(check, cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": ""})


def test_images_do_not_run_as_root():
    for name in ("workflow", *HARDWARE):
        text = (ROOT / f"containers/{name}.Dockerfile").read_text()
        assert re.findall(r"^USER (\d+)$", text, re.M)[-1] != "0"
    assert f"USER {POD['securityContext']['runAsUser']}\n" in DOCKERFILE


def begin(folder, *words, **options):
    return subprocess.run([folder / "containers/start.sh", *words], capture_output=True, text=True, **options)


@pytest.mark.slow
def test_the_image_starts_in_a_volume_and_keeps_what_is_there(tmp_path):
    image, volume = copy_project(tmp_path / "project"), tmp_path / "volume"
    (volume / "work").mkdir(parents=True)
    (volume / "work/rows.jsonl").write_text("kept")
    (volume / "mine.yaml").write_text("kept")
    (volume / "config.yaml").write_text("of an older image")
    ended = begin(image, "snakemake", "-n", "results/models/start.json", cwd=volume)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "fetch_model" in ended.stdout
    assert (volume / "config.yaml").read_text() == (image / "config.yaml").read_text()
    assert (volume / "work/rows.jsonl").read_text() == (volume / "mine.yaml").read_text() == "kept"
    assert begin(image, "sh", "-c", "exit 7", cwd=volume).returncode == 7


@pytest.mark.skipif(os.getuid() != 0, reason="acts as another user")
def test_a_volume_that_cannot_be_written_is_one_sentence(tmp_path):
    folder = Path("/tmp", f"prefline-volume-{os.getpid()}")
    (folder / "containers").mkdir(parents=True)
    shutil.copy(ROOT / "containers/start.sh", folder / "containers")
    try:
        ended = begin(folder, "true", cwd=folder, user=54321)
    finally:
        shutil.rmtree(folder)
    assert ended.returncode == 1
    assert ended.stderr == (
        f"error: user 54321 cannot write to {folder}; mount a volume there that this user can write to\n"
    )


def test_the_pod_fits_its_claim_and_its_image():
    (container,) = POD["containers"]
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(mounts.values()) == set(volumes)
    assert re.findall(r"^WORKDIR (.*)$", DOCKERFILE, re.M)[-1] in mounts
    claim = volumes[mounts["/prefline"]]["persistentVolumeClaim"]["claimName"]
    assert claim == CLAIM["metadata"]["name"]
    assert container["image"].endswith(":workflow")
    workflow = yaml.safe_load((ROOT / ".github/workflows/containers.yaml").read_text())
    built = workflow["jobs"]["publish"]["strategy"]["matrix"]["hardware"]
    assert set(built) == {path.stem for path in (ROOT / "containers").glob("*.Dockerfile")}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync, as SkyPilot does")
def test_a_machine_that_replaces_another_one_computes_nothing_again(tmp_path):
    """The commands that SkyPilot runs, with a folder as the bucket, which loses the times of files."""
    bucket, target = tmp_path / "bucket", "results/models/start.json"
    environment = {**os.environ, **TASK["envs"], "KEPT": str(bucket), "ARGUMENTS": target}
    said = []
    for machine in ("first", "second"):
        project = copy_project(tmp_path / machine)
        (project / ".venv/bin").mkdir(parents=True)
        (project / ".venv/bin/activate").touch()
        ended = subprocess.run(
            ["bash", "-c", TASK["run"]], cwd=project, env=environment, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        said.append(ended.stdout + ended.stderr)
        assert (bucket / target).is_file()
        for path in bucket.rglob("*"):
            os.utime(path, (time.time(), time.time()))
        shutil.rmtree(project)
    assert "Nothing to be done" not in said[0] and "rule fetch_model" in said[0]
    assert "Nothing to be done" in said[1]


@pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync, as SkyPilot does")
def test_a_failed_run_is_copied_and_stays_failed(tmp_path):
    project = copy_project(tmp_path / "project")
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/activate").write_text(
        "snakemake() { mkdir -p work; echo half > work/rows; return 3; }"
    )
    environment = {**os.environ, **TASK["envs"], "KEPT": str(tmp_path / "bucket")}
    ended = subprocess.run(["bash", "-c", TASK["run"]], cwd=project, env=environment, timeout=300)
    assert ended.returncode == 3
    assert (tmp_path / "bucket" / "work" / "rows").read_text() == "half\n"
