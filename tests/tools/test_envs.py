"""The environments of the rules: made from the lock, and with everything that the rules import."""

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_the_files_are_those_of_direct_toml():
    assert sorted(FILES) == sorted(str(path) for path in Path("envs").glob("*/*.yaml"))


@pytest.mark.parametrize("path", FILES)
def test_a_file_is_written_from_its_pins_alone(path):
    """No edit by hand would survive `make envs`."""
    assert Path(path).read_text() == lock_envs.environment(WANTED, Path(path).stem, lock_envs.pins(path))


def test_every_rule_has_an_environment():
    text = "".join(path.read_text() for path in Path("rules").glob("*.smk"))
    assert set(environments_of_rules()) == set(re.findall(r"^ *(?:use rule \w+ as|rule) (\w+)", text, re.M))
    assert set(environments_of_rules().values()) == set(NAMES)


@pytest.mark.parametrize("rule, name", sorted(environments_of_rules().items()))
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
def test_a_set_that_contradicts_itself_is_refused(package_index):
    with pytest.raises(InputError, match="tokenizers"):
        lock_envs.resolve(
            ["transformers==5.19.0", "tokenizers==0.20.0"], WANTED["python"], present=[], built=[]
        )
