# The folder of what people read, and the protection of what other experiments' results are made from.

import os

from prefline.provenance import experiments

EXPERIMENT = config["experiment"]
# Pictures, tables, pages and cards; models, samples, trainings, answers and verdicts are shared.
FINAL = f"{experiments.FOLDER}/{EXPERIMENT}" if EXPERIMENT else "results"
EXPERIMENT_CONFIG = [f"{FINAL}/config.yaml"] if EXPERIMENT else []

if EXPERIMENT and "DVC_STAGE" in os.environ:
    raise Refusal(
        f"config: experiment is {EXPERIMENT}, but DVC keeps the results of its experiments itself; remove the key"
    )


if "DVC_STAGE" in os.environ and not RUNS:
    raise Refusal(
        "config: runs has no run, and DVC keeps what runs make; use `snakemake` instead of `dvc repro`"
    )


def refuse_replacing(jobs):
    """Raise Refusal if planned jobs would replace what the results of other experiments are made from."""
    outputs = {str(path) for job in jobs for path in job.output}
    try:
        experiments.check_kept(outputs, EXPERIMENT, START, HASHES)
    except InputError as error:
        raise Refusal(str(error))


def check_targets():
    """Raise Refusal for a target of the command line that an experiment has in its own folder."""
    for target in sys.argv[1:] if workflow.is_main_process else ():
        own = target.replace("results/", f"{FINAL}/", 1)
        if EXPERIMENT and target.startswith("results/") and not is_made(target) and is_made(own):
            raise Refusal(f"the config has experiment: {EXPERIMENT}, which makes {own}; ask for that")
        folder, _, rest = target.removeprefix(f"{experiments.FOLDER}/").partition("/")
        if rest and target.startswith(f"{experiments.FOLDER}/") and folder != EXPERIMENT:
            raise Refusal(
                f"{target} is of the experiment {folder}, and the config has experiment: {EXPERIMENT or 'null'}; "
                f"name the config of {folder} after the target, by --configfile"
            )
