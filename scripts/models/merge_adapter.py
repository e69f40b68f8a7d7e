"""Merge adapters into the weights that their training started from, and measure what that changes.

A QLoRA training computes with weights that are rounded to four bits, and its adapters have learnt to
compensate for that. `quantized` adds them to the rounded weights, dequantized: this is the trained model,
up to rounding of the sum to `dtype`. `original` adds them to the unrounded weights, as published recipes
do; this model was never trained. Without quantization both are the same weights.

Both ways are measured on rows that were held out from the training. The log-probability of every completion
token (for a reward model, the score) under the trained model is compared with that under the merged model,
read back as later rules load it. A difference larger than rounding is refused, and so are adapters that do
not reproduce the values that their training recorded. There is one model in memory at a time.

    reads   the adapters, training.json beside them; the model directory that the training started from
    writes  a model directory and its manifest; in it merge.json: each way's mean and largest difference

    python -m scripts.models.merge_adapter --adapter results/adapters/dpo-1 --model results/models/sft \
        --merge-into quantized --out results/models/dpo-1 --manifest results/models/dpo-1.json
"""

import contextlib
import gc
from pathlib import Path

from prefline import errors, files
from prefline.config import section
from prefline.errors import InputError
from prefline.provenance import manifest
from prefline.training import adapters, fidelity, models, process

METRICS = "merge.json"
WAYS = {"quantized": "the dequantized weights", "original": "the original weights"}


def with_adapters(directory, record, start, quantization):
    """Return the model of `start` with the adapters of `directory` beside its weights, quantized or not.

    record: dict, the adapters' training.json. Weights that are not quantized are on the CPU.
    """
    import peft
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    cls, shape = AutoModelForCausalLM, {"attn_implementation": record["attn_implementation"]}
    if record["num_labels"] is not None:
        cls, shape = AutoModelForSequenceClassification, shape | {"num_labels": record["num_labels"]}
    model = adapters.load_frozen(start, cls, record["dtype"], quantization, **shape)
    models.keep_weights(model)
    model.config.pad_token_id = record["pad_token_id"]
    model = adapters.put_on(model, record["peft"])
    found = peft.set_peft_model_state_dict(model, load_file(Path(directory) / "adapter_model.safetensors"))
    wrong = [name for name in found.missing_keys if "lora_" in name or "modules_to_save" in name]
    wrong += found.unexpected_keys
    if wrong:
        raise InputError(f"{directory} was not trained on {start}: they do not agree in {wrong[0]}")
    return model.eval()


def merge(model, dtype):
    """Return the base model of a PeftModel on the CPU, adapters added in float32, then rounded to its dtype.

    Weights that are quantized are replaced, layer by layer, by what they stand for, in `dtype` (str).
    """
    import torch

    adapters.dequantize(model, dtype)
    model = model.cpu()
    with torch.no_grad():
        for layer in model.modules():
            if hasattr(layer, "get_delta_weight"):
                for adapter in layer.active_adapters:
                    weight = adapters.weight_of(layer)
                    weight.copy_(weight.float() + layer.get_delta_weight(adapter).float())
    return model.unload()


def values_of_trained(args, record, sequences, device):
    """Return fidelity.values of the trained model; raise InputError unless they are those of its training."""
    import torch

    trained = with_adapters(args.adapter, record, args.model, record["peft"].get("quantization")).to(device)
    computed = (
        torch.autocast(device.type, torch.bfloat16)
        if record["dtype"] == "bfloat16"
        else contextlib.nullcontext()
    )
    with computed:
        found = fidelity.values(trained, sequences)
    recorded = [torch.tensor(values) for values in record["trained"]]
    try:
        fidelity.check(recorded, found[: len(recorded)], record["dtype"])
    except InputError as error:
        raise InputError(f"{args.adapter}: {error}") from None
    return found


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--adapter", required=True, help="directory of the adapters")
    parser.add_argument("--model", required=True, help="directory of the model that it started from")
    section.add(parser, "training_defaults.peft", "merge_into")
    parser.add_argument("--work-dir", required=True, help="folder for weights that are refused")
    parser.add_argument("--out", required=True, help="model directory to write")
    parser.add_argument("--manifest", required=True, help="the directory's manifest (json)")
    args = parser.parse_args(argv)

    record = files.read_json(Path(args.adapter) / adapters.RECORD)
    process.quiet()
    adapters.import_packages(record["peft"])
    import torch

    sequences = list(zip(record["prompt_ids"], record["completion_ids"], strict=True))
    device = torch.device(adapters.device())
    quantization = record["peft"].get("quantization")
    wanted = values_of_trained(args, record, sequences, device)

    measured = {}
    out, dtype, attention = Path(args.out), record["dtype"], record["attn_implementation"]
    with files.atomic_directory(out) as directory, fidelity.set_aside(directory, args.work_dir, out.name):
        # The requested way comes last, because the last model is written.
        ways = WAYS if quantization else [args.merge_into]
        for way in sorted(ways, key=lambda way: way == args.merge_into):
            gc.collect()  # PEFT's models hold themselves: without this, two would be in memory
            model = with_adapters(
                args.adapter, record, args.model, quantization if way == "quantized" else None
            )
            model = merge(model, dtype)
            merged, cls = fidelity.values(model.to(device), sequences), type(model)
            models.save(model.cpu(), args.model, dtype, directory)
            models.copy_companions(args.adapter, directory)
            model = None
            gc.collect()
            model = fidelity.read_back(directory, cls, dtype, attention).to(device)
            written = fidelity.values(model, sequences)
            model = None
            measured[way] = fidelity.differences(wanted, written)
            fidelity.check(merged, written, dtype)
            if quantization is None or way == "quantized":
                fidelity.check(wanted, written, dtype)
        about = {"merge_into": args.merge_into, "sequences": len(sequences), "tokens": sum(map(len, wanted))}
        files.write_json(directory / METRICS, about | measured)
    parents = [manifest.path_of(path) for path in (args.adapter, args.model)]
    parents = [path for path in parents if path.is_file()]
    shaped_by = {"merge_into": args.merge_into}
    manifest.write(args.manifest, args.out, "merge_adapter", shaped_by, parents)
    unit = "nats a token" if any(completion for _, completion in sequences) else "of a score"
    for way, found in measured.items():
        print(
            f"adapters on {WAYS[way]}: {found['mean_token']:.2g} {unit} from what was trained, "
            f"at most {found['max_token']:.2g}, on {len(sequences)} held-out sequences"
            + (" (this is the model)" if way == args.merge_into else " (for comparison)")
        )


if __name__ == "__main__":
    errors.run(main)
