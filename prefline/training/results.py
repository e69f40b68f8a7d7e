"""Write a training's results with their manifest, cache them, and restore them from the cache.

A training script calls, in this order,

    work_key(settings, script, inputs)       names this training by all that shapes it
    restore(settings, key, rule, parents)    its results, if they were kept: then nothing else is to be done
    weights.load(settings, cls)              weights to start from, with adapters where `peft` has them
    arguments.make(settings, cls)            TrainingArguments, SFTConfig, RewardConfig
    loop.fit(trainer, settings, key, …)      trains, resuming what was interrupted; writes log.csv
    save(model, settings, rule, parents, …)  the directory of the model or of its adapters, then its manifest
    finish(settings, key, metrics)           metrics.json; then the results are kept, instead of checkpoints
"""

import hashlib
import json
import shutil
from pathlib import Path

from prefline import files
from prefline.provenance import imports, manifest
from prefline.training import adapters, cache, fidelity, models, process, ref_logps, sharding


def work_key(settings, script, inputs, own_files=()):
    """Return the name (str, hexadecimal) of a training: equal if and only if checkpoints and results are.

    script: path of the script, whose code and imports count, comments aside; inputs: paths of data files and
    model directories, whose contents count; own_files: the user's code, which counts as the script's does.
    The keys of settings.PACE do not count, nor devices and how they share the work: after running out of
    memory, a training resumes from its checkpoint with fewer rows per device, or on more devices. A
    checkpoint that cannot be resumed so is refused (sharding.check_written, and online_trainers.py between
    two steps on the same completions).
    """
    contents = {
        "params": settings.params,
        "inputs": [manifest.contents(path) for path in inputs],
        "code": [imports.code_hash(path) for path in (script, *own_files)],
        "packages": manifest.packages(manifest.PACKAGES),
    }
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:32]


def folder(settings, key):
    """Return the folder (Path) in which a training keeps checkpoints and, in the end, its results."""
    return Path(settings.work_dir) / key


def parents(settings, inputs):
    """Return the paths of a model's inputs: its start's manifest, if there is one, and the data."""
    start = manifest.path_of(settings.model)
    return [str(path) for path in (start, *inputs) if Path(path).is_file()]


def save(model, settings, rule, parents, sequences, chat_template=None):
    """Write what was trained to settings.out, whole or not at all, then its manifest to settings.manifest.

    That is the model, read back and compared on the first of `sequences`, list of (prompt ids, completion
    ids) that were held out (fidelity.py). With adapters, it is the adapters alone, with `sequences` and what
    the model gives them, for scripts/models/merge_adapter.py. The model's weights are gone afterwards. rule
    and parents: see manifest.write. chat_template: str, in place of the start's.
    """
    some = sequences[: fidelity.SEQUENCES]
    attention = fidelity.unpacked(model, settings.attn_implementation)
    trained = fidelity.of_trained(model, some, settings.dtype)
    whole = sharding.gathered(model)
    if not process.is_main():
        return
    sharding.leave()
    out = Path(settings.out)
    with files.atomic_directory(out) as directory, fidelity.set_aside(directory, settings.work_dir, out.name):
        if settings.peft is not None:
            how = {"dtype": settings.dtype, "peft": settings.peft, "attn_implementation": attention}
            adapters.save(model, directory, how, sequences, trained, whole)
        else:
            models.save(model, settings.model, settings.dtype, directory, whole)
            device = model.device
            if whole is None:
                model.to("meta")  # there may be no room for a second one
            written = fidelity.read_back(directory, type(model), settings.dtype, attention)
            found = fidelity.check(trained, fidelity.values(written.to(device), some), settings.dtype)
            fidelity.record(directory, some, found)
        if chat_template is not None:
            files.write_text(directory / "chat_template.jinja", chat_template)
    manifest.write(settings.manifest, out, rule, settings.params, parents)


def restore(settings, key, rule, parents):
    """Put the results of this very training in their places if they were kept; return whether they were.

    The manifest is written again, as by a training. rule and parents: see manifest.write.
    """
    kept = folder(settings, key)
    if process.is_main():
        print(f"this training is kept in {kept}", flush=True)  # kept_jobs.py reads the folder from the log
    hashes = cache.whole(kept)
    if hashes is None:
        return False
    if process.is_main():
        cache.restore(kept, settings.out, _others(settings))
        model = {name.removeprefix("model/"): value for name, value in hashes.items() if "/" in name}
        manifest.write(settings.manifest, settings.out, rule, settings.params, parents, model)
        print("nothing to train: this very training was done before, and its results are kept")
    return True


def finish(settings, key, metrics):
    """Write a training's metrics (dict), keep its results, now all written, and delete what else it kept."""
    if not process.is_main():
        return
    files.write_json(settings.metrics, metrics)
    kept = folder(settings, key)
    cache.keep(kept, settings.out, _others(settings))
    for checkpoint in kept.glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)
    (kept / ref_logps.MAPPED).unlink(missing_ok=True)


def _others(settings):
    return {"metrics.json": settings.metrics, "log.csv": settings.log_csv}
