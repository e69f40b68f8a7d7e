"""The images hold the environments of the rules, and `--sdm conda apptainer` runs each rule in its own."""

import re
import shutil
from pathlib import Path

import pytest
import small_apptainer
import small_conda
import yaml
from conftest import ROOT, copy_project, snakemake
from sweeps import sweep

from tools import write_dockerfiles

TARGET = "results/models/start.json"
IN_IMAGES = ["--sdm", "conda", "apptainer"]


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """conda and apptainer on the PATH; the folder of the latter."""
    python, pip = yaml.safe_load(Path("envs/cpu/data.yaml").read_text())["dependencies"][:2]
    root = tmp_path_factory.mktemp("tools")
    path = small_conda.set_up(root, {"python": [python.split("=")[1]], "pip": [pip.split("=")[1]]})
    folder = small_apptainer.set_up(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}:{path}")
        yield root, folder


def prefixes(hardware):
    """{environment file: its folder in the image} as the Dockerfile in the repository has it."""
    text = (ROOT / f"containers/{hardware}.Dockerfile").read_text()
    return dict(re.findall(r"^COPY (\S+) (/conda-envs/\w+)/environment.yaml$", text, re.M))


@pytest.mark.slow
def test_the_dockerfiles_are_those_of_the_environments(tools, tmp_path, monkeypatch):
    monkeypatch.chdir(copy_project(tmp_path / "project"))  # in this folder, another test may run jobs
    write_dockerfiles.main(["--out", str(tmp_path)])
    for hardware in ("cpu", "cuda"):
        made = (tmp_path / f"{hardware}.Dockerfile").read_text()
        assert (ROOT / f"containers/{hardware}.Dockerfile").read_text() == made, "run `make containers`"
        assert set(prefixes(hardware)) == {
            str(path.relative_to(ROOT)) for path in (ROOT / f"envs/{hardware}").glob("*.yaml")
        }
        assert len(re.findall(r"^RUN conda env create ", made, re.M)) == len(prefixes(hardware))
        assert re.match(r"# .*\nFROM \S+:\d\S*\n", made), "the base image has a version"


def test_what_is_sent_to_the_build_is_the_environments_alone():
    """.dockerignore, as Docker reads it: results and keys beside the code reach no image."""
    assert (ROOT / ".dockerignore").read_text().split() == ["*", "!envs"]


MISSING = [
    (IN_IMAGES, None, "PREFLINE_IMAGE is '', and there is no file ''; set it to your image files"),
    (IN_IMAGES, "/images/prefline.sif", "PREFLINE_IMAGE is '/images/prefline.sif'"),
    (IN_IMAGES, "/none/{hardware}.sif", "there is no file '/none/cpu.sif'"),
    (["--sdm", "apptainer"], "/images/{hardware}.sif", "use --sdm conda apptainer"),
]


@pytest.mark.parametrize(("sdm", "image", "message"), sweep(MISSING, lambda *case: case == MISSING[2]))
def test_an_image_that_is_not_there_is_one_sentence(project, monkeypatch, sdm, image, message):
    monkeypatch.setenv("PREFLINE_IMAGE", image or "")
    process = snakemake(project, "-n", *sdm, "--", TARGET, check=False)
    assert process.returncode != 0
    assert message in process.stderr + process.stdout
    assert "Traceback" not in process.stderr + process.stdout


@pytest.mark.slow
def test_rules_run_in_the_image_of_their_hardware(tools, tmp_path, monkeypatch):
    root, folder = tools
    for hardware in ("cpu", "cuda"):
        (tmp_path / f"prefline-{hardware}.sif").touch()
    monkeypatch.setenv("PREFLINE_IMAGE", f"{tmp_path}/prefline-{{hardware}}.sif")
    prefix = prefixes("cpu")["envs/cpu/score.yaml"]
    small_conda.create(root, "envs/cpu/score.yaml", f"{folder}{prefix}")
    project = copy_project(tmp_path / "project")
    snakemake(project, *IN_IMAGES, "--apptainer-args=--nv", "--", TARGET)
    ran = [(image, options) for image, command, options in small_apptainer.notes(folder) if prefix in command]
    assert {image for image, _ in ran} == {f"{tmp_path}/prefline-cpu.sif"}
    assert "--nv" in ran[-1][1]
    assert "-m scripts.models.fetch_model" in (Path(f"{folder}{prefix}") / "ran.txt").read_text()
    assert not (project / ".snakemake/conda").exists() or not list((project / ".snakemake/conda").iterdir())

    def planned(directory, *arguments):
        said = snakemake(directory, "-n", *IN_IMAGES, *arguments, "--", TARGET).stdout
        return "rule fetch_model" in said

    assert not planned(project)
    clone = copy_project(tmp_path / "clone")
    shutil.copytree(project / "results", clone / "results", symlinks=True)
    assert not planned(clone), "what travels is the environment's text, not the image's name"
    on_gpu = ["--resources", "gpu=1", "--set-resources", "fetch_model:gpu=1"]
    assert planned(project, *on_gpu), "then it is CUDA's image"
    with open(project / "envs/cpu/score.yaml", "a") as file:
        file.write("# another\n")
    assert planned(project)
    process = snakemake(project, *IN_IMAGES, "--", TARGET, check=False)
    assert "Unable to find environment in container image" in process.stderr


@pytest.mark.slow
def test_without_images_they_are_not_in_what_snakemake_compares(project):
    """A finished project has nothing to do because images were added to the workflow."""
    snakemake(project, "--", TARGET)
    record = (project / "results/records/models/start.json.json").read_text()
    assert "container" not in record
    shutil.rmtree(project / ".snakemake")
    assert "Nothing to be done" in snakemake(project, "-n", "--", TARGET).stdout
