"""Name policies: RUN-t after t iterations of a run, RUN-sSEED-t where the run has `seeds`.

A run's name has no hyphen, so the first one ends it. A chain is one sequence of trainings: a run, or a run
under one of its seeds (RUN-sSEED).
"""

import re

REPETITION = re.compile(r"([^-]+)-s\d+-(\d+)")


def run_of(name):
    """Return the run (str) of a policy or a chain."""
    return name.partition("-")[0]


def chain_of(policy):
    """Return the chain (str) that made a policy: `dpo` of dpo-1, `dpo-s2` of dpo-s2-1."""
    return policy.rsplit("-", 1)[0]


def chains(config):
    """Return {chain: its run's section of the config, with the `seed` of its trainings}, in their order."""
    found = {}
    for run, section in config["runs"].items():
        keys = {key: value for key, value in section.items() if key != "seeds"}
        for seed in section.get("seeds", [None]):
            name = run if seed is None else f"{run}-s{seed}"
            found[name] = {**keys, "seed": config["seed"] if seed is None else seed}
    return found


def of_chains(chains):
    """Return the policies (list of str) that chains (as `chains` returns them) make, in their order."""
    return [f"{chain}-{t}" for chain in chains for t in range(1, chains[chain]["iterations"] + 1)]


def subject_of(policy):
    """Return the name under which a policy is compared: `dpo-1` of its repetitions dpo-s1-1, dpo-s2-1, …

    Others are compared under their own name.
    """
    found = REPETITION.fullmatch(policy)
    return f"{found[1]}-{found[2]}" if found else policy


def subjects(policies):
    """Return {subject: its policies (list of str)}, in the order of their first policies."""
    found = {}
    for policy in policies:
        found.setdefault(subject_of(policy), []).append(policy)
    return found


def repeated(policies):
    """Return those of `subjects` that are repetitions of a run with `seeds`, also of a single seed."""
    return {name: own for name, own in subjects(policies).items() if own != [name]}
