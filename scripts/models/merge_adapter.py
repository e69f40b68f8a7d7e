"""Make a model of the weights that a training started from and its adapters, and say what that changes.

A QLoRA training computes with weights that were rounded to four bits, and its adapters learnt to go with
those. `quantized` adds them to the rounded weights, made whole again: that is what was trained, but for the
rounding of the sum to `dtype`. `original` adds them to the weights that were never rounded, as the published
recipes do: a model that nobody trained. Without quantization both are the same weights.

Whichever is taken, both are measured: on rows that were held out from the training, the log-probability of
every completion token (the score, of a reward model) under the model that was trained is compared with that
under the merged one, as the rules after this one will load it.

    reads   the adapters, training.json beside them; the model directory that the training started from
    writes  a model directory and its manifest; in it merge.json: each way's mean and largest difference

    python -m scripts.models.merge_adapter --adapter results/adapters/dpo-1 --model results/models/sft \
        --merge-into quantized --out results/models/dpo-1 --manifest results/models/dpo-1.json
"""

import contextlib
from pathlib import Path

from prefline import errors, files
from prefline.config import section
from prefline.errors import InputError
from prefline.provenance import manifest
from prefline.training import adapters, models, process

METRICS = "merge.json"
WAYS = {"quantized": "the dequantized weights", "original": "the original weights"}


def differences(trained, merged):
    """How far apart two models are: {"mean_token", "max_token", "mean_sequence", "max_sequence"} (float).

    trained, merged: lists of float tensors (tokens,), what each model gives the tokens of a sequence, in
    nats. Absolute differences; a sequence's is that of the sums over its tokens.
    """
    import torch

    apart = [one.double() - other.double() for one, other in zip(trained, merged, strict=True)]
    tokens = torch.cat(apart).abs()
    sums = torch.stack([tokens.sum() for tokens in apart]).abs()
    return {
        "mean_token": tokens.mean().item(),
        "max_token": tokens.max().item(),
        "mean_sequence": sums.mean().item(),
        "max_sequence": sums.max().item(),
    }


def values(model, sequences):
    """What `model` gives each of `sequences`: its completion's log-probabilities (tokens,), or its scores.

    model: a causal language model or a sequence classifier; sequences: list of (prompt ids, completion ids).
    Returns float32 tensors on the CPU.
    """
    import torch

    found = []
    for prompt, completion in sequences:
        ids = torch.tensor([[*prompt, *completion]], device=model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids, use_cache=False).logits[0].float()
            if completion:
                logits, targets = logits[len(prompt) - 1 : -1], ids[0, len(prompt) :]
                logits = logits.gather(1, targets[:, None]).squeeze(1) - logits.logsumexp(dim=1)
        found.append(logits.cpu())
    return found


def with_adapters(directory, record, start, quantization):
    """The model of `start` with the adapters of `directory` beside its weights, quantized or not.

    record: dict, the adapters' training.json. Weights that are not quantized are on the CPU.
    """
    import peft
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    cls, shape = AutoModelForCausalLM, {}
    if record["num_labels"] is not None:
        cls, shape = AutoModelForSequenceClassification, {"num_labels": record["num_labels"]}
    model = adapters.load_frozen(start, cls, record["dtype"], quantization, **shape)
    model.config.pad_token_id = record["pad_token_id"]
    model = adapters.put_on(model, record["peft"])
    found = peft.set_peft_model_state_dict(model, load_file(Path(directory) / "adapter_model.safetensors"))
    wrong = [name for name in found.missing_keys if "lora_" in name or "modules_to_save" in name]
    wrong += found.unexpected_keys
    if wrong:
        raise InputError(f"{directory} was not trained on {start}: they do not agree in {wrong[0]}")
    return model.eval()


def merge(model, quantized=None):
    """The base model of a PeftModel on the CPU, its adapters added in float32, then rounded to its dtype.

    quantized: the same model with quantized weights, whose weights come first in place of the model's own.
    """
    import torch

    if quantized is not None:
        from bitsandbytes.functional import dequantize_4bit

        for name, layer in adapters.quantized_layers(quantized):
            whole = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
            model.get_submodule(name).weight.data.copy_(whole)
    with torch.no_grad():
        for layer in model.modules():
            if hasattr(layer, "get_delta_weight"):
                for adapter in layer.active_adapters:
                    weight = layer.get_base_layer().weight
                    weight.copy_(weight.float() + layer.get_delta_weight(adapter).float())
    return model.unload()


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--adapter", required=True, help="directory of the adapters")
    parser.add_argument("--model", required=True, help="directory of the model that it started from")
    section.add(parser, "training_defaults.peft", "merge_into")
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
    trained = with_adapters(args.adapter, record, args.model, quantization).to(device)
    computed = (
        torch.autocast(device.type, torch.bfloat16)
        if record["dtype"] == "bfloat16"
        else contextlib.nullcontext()
    )
    with computed:
        wanted = values(trained, sequences)
    if quantization is None:
        trained = None

    measured = {}
    # The way that is asked for comes last: its model is the one that is kept.
    ways = WAYS if quantization else [args.merge_into]
    for way in sorted(ways, key=lambda way: way == args.merge_into):
        model = with_adapters(args.adapter, record, args.model, None)
        model = merge(model, trained if way == "quantized" else None).to(device)
        measured[way] = differences(wanted, values(model, sequences))
    about = {"merge_into": args.merge_into, "sequences": len(sequences), "tokens": sum(map(len, wanted))}
    with files.atomic_directory(args.out) as directory:
        files.write_json(directory / METRICS, about | measured)
        models.save(model.cpu(), args.model, record["dtype"], directory)
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
