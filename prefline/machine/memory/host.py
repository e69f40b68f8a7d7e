"""Estimate the machine's own memory of a job that has GPUs: for the resource mem_mb."""

from prefline.machine.memory import training as trainings

LIBRARIES = 2.5e9  # torch with CUDA, transformers, and the data of a job
LIGHT = 1.0e9  # without CUDA
MARGIN = 1.15


def fetching(model):
    """Return the bytes of fetch_model: its check reads one tensor at a time, in float32 at most."""
    return LIGHT + 3 * model.largest_tensor


def loading(model, dtype):
    """Return the bytes of a job that reads a model into memory and moves it to a GPU."""
    return LIBRARIES + MARGIN * max(trainings.frozen_bytes(model, dtype), model.stored_bytes)


def training(job):
    """Return the bytes of a Training: every process reads the whole model before it is on the GPU.

    The end of a training writes its weights, and reads them back to compare them. Sharded weights are put
    together in every process.
    """
    model, devices = job.model, job.devices
    if job.peft is not None and job.quantized:
        held = model.largest_file + model.largest_tensor
    elif job.peft is not None:
        held = trainings.frozen_bytes(model, job.dtype)
    else:
        held = 4.0 * model.parameters
    held *= devices
    if job.peft is None:
        written = 2 * (2 if job.mixed else 4) * model.parameters
        held = max(held, written + (4.0 * model.parameters * devices if job.sharded else 0))
    others = [(job.reference, job.dtype)] if job.reference is not None else []
    held += devices * sum(trainings.frozen_bytes(other, dtype) for other, dtype in (*others, *job.scorers))
    if job.optim.startswith("paged"):
        trained = model.parameters if job.peft is None else model.adapters(job.peft)
        held += devices * trained * (8 if "32" in job.optim else 2.03)
    return devices * LIBRARIES + MARGIN * held


def merging(model):
    """Return the bytes of merge_adapter, which holds one model in its saved dtype at a time."""
    return LIBRARIES + MARGIN * 1.3 * max(model.stored_bytes, 2 * model.parameters)


def serving(model, tensor_parallel_size=1):
    """Return the bytes of a job that runs vLLM, whose processes read the weights file by file."""
    return (1 + tensor_parallel_size) * LIBRARIES + MARGIN * min(model.largest_file, model.stored_bytes)


def megabytes(size):
    """Return bytes as the whole number of MB (10⁶) that mem_mb takes, rounded up to hundreds."""
    return -(-int(size) // 10**8) * 100
