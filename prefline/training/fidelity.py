"""Compare a saved model with the trained one, by log-probabilities of held-out sequences.

A file can lack a weight, have it under another name, or in a useless dtype (in bfloat16, the bias that
chooses between experts). So the log-probabilities of the model in memory are compared with those of the
model read back, as later rules load it. The difference is recorded in the directory. If it is more than
rounding, the job fails, and the files are moved elsewhere for inspection.
"""

import contextlib
import shutil
from pathlib import Path

from prefline import files
from prefline.errors import InputError
from prefline.training import precision

RECORD = "saved.json"
SEQUENCES = 8  # on which every save is compared
# Largest mean difference, relative to the mean of the values if that is above 1.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}


def differences(trained, written):
    """Return differences of two models: {"mean_token", "max_token", "mean_sequence", "max_sequence"} (float).

    trained, written: lists of float tensors (tokens,), each model's values of a sequence's tokens, in nats.
    All differences are absolute; a sequence's is the difference of the sums over its tokens.
    """
    import torch

    apart = [one.double() - other.double() for one, other in zip(trained, written, strict=True)]
    tokens = torch.cat(apart).abs()
    sums = torch.stack([tokens.sum() for tokens in apart]).abs()
    return {
        "mean_token": tokens.mean().item(),
        "max_token": tokens.max().item(),
        "mean_sequence": sums.mean().item(),
        "max_sequence": sums.max().item(),
    }


def values(model, sequences):
    """Return a model's values of `sequences`: each completion's log-probabilities (tokens,), or scores.

    model: a causal language model or a sequence classifier; sequences: list of (prompt ids, completion
    ids). Returns float32 tensors on the CPU. Raises InputError if the model cannot compute in its dtype.
    """
    import torch

    try:
        with precision.computing(model):
            return _values(model, sequences)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise InputError(
            f"{type(model).__name__} cannot compute in bfloat16 ({error}); set dtype to float32"
        ) from error


def _values(model, sequences):
    import torch

    found = []
    for prompt, completion in sequences:
        ids = torch.tensor([[*map(int, prompt), *map(int, completion)]], device=model.device)
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0].float()
            if len(completion):
                # After an empty prompt, nothing predicts the first token.
                start = max(len(prompt), 1)
                logits, targets = logits[start - 1 : -1], ids[0, start:]
                logits = logits.gather(1, targets[:, None]).squeeze(1) - logits.logsumexp(dim=1)
        found.append(logits.flatten().cpu())
    return found


def unpacked(model, asked):
    """Give a model the attention that it has without packed rows, and return its name (str).

    asked: the name that the training has configured.
    """
    if "packed" in model.config._attn_implementation:
        model.set_attn_implementation(asked)
    return model.config._attn_implementation


def of_trained(model, sequences, dtype):
    """Return `values` of a model in memory, computed in `dtype` (str) as in training; weights may be float32.

    All processes that share the weights have to call it together.
    """
    import torch

    model.eval()
    computed = contextlib.nullcontext()
    if dtype == "bfloat16":
        computed = torch.autocast(model.device.type, torch.bfloat16)
    with computed:
        return values(model, sequences)


def read_back(directory, cls, dtype, attention):
    """Load the model (a `cls`, such as LlamaForCausalLM) of a directory; raise InputError if incomplete."""
    import torch

    model, loading = cls.from_pretrained(
        directory,
        dtype=getattr(torch, dtype),
        attn_implementation=attention,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if loading[kind]:
            raise InputError(f"{directory}: {kind.replace('_', ' ')}: {sorted(map(str, loading[kind]))[0]}")
    return model.eval()


def check(trained, written, dtype):
    """Return `differences`; raise InputError if they are larger than rounding to `dtype` (str) explains."""
    import torch

    found = differences(trained, written)
    typical = torch.cat(trained).abs().mean().item()
    allowed = TOLERANCE[dtype] * max(1.0, typical)
    if not found["mean_token"] <= allowed:
        raise InputError(
            f"the saved model is not the trained one. On {len(trained)} held-out sequences they differ by "
            f"{found['mean_token']:.2g} nats per token (or of a score), at most "
            f"{found['max_token']:.2g}, and {dtype} allows {allowed:.2g}; report this architecture as a bug"
        )
    return found


@contextlib.contextmanager
def set_aside(directory, folder, name):
    """Move `directory` (Path) to folder/refused/name at an InputError within a context, and name it."""
    try:
        yield
    except InputError as error:
        kept = Path(folder) / "refused" / name
        shutil.rmtree(kept, ignore_errors=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(directory, kept)
        message = str(error).replace(str(directory), str(kept))
        raise InputError(f"{message}; the weights are in {kept}, and no job uses them") from None


def record(directory, sequences, found):
    """Write `differences` to a model's directory, with the numbers of sequences and tokens."""
    about = {"sequences": len(sequences), "tokens": sum(max(1, len(ids)) for _, ids in sequences)}
    files.write_json(Path(directory) / RECORD, about | found)
