"""Estimate the memory of a training on each of its GPUs, part by part.

The trainings of this project hold (prefline/training/):

- all parameters: float32 weights, gradients and moments. With bfloat16, autocast adds a copy of the linear
  layers' weights for each batch. DDP adds buckets as large as the gradients. FSDP2 and ZeRO-3 share all of
  it, but each device first holds the whole model.
- adapters: frozen linear layers in bfloat16 (or NF4), embeddings and experts in float32 (with NF4: bfloat16).
- activations of a layer for each token: inputs of norms (float32, with NF4 bfloat16), inputs of matrices,
  queries, keys, values and outputs of attention, and three or four tensors of the gated product.
- logits: `preference` and `sft` have those of one chunk, `reward_model` none, all others those of a batch.
- a reference model is in memory for kto, ppo, and for rloo and grpo with a beta. ppo trains a value model,
  too, and keeps the logits of all completions that it has sampled.
- the sampler vllm holds the policy once more while it samples, and what else vLLM needs at least; while the
  policy trains on a GPU, that is in the machine's memory.
"""

import dataclasses

from prefline.machine.memory.sizes import Model

PREFERENCE, SCORED = ("preference", "sft"), "reward_model"
SAMPLING = ("rloo", "grpo", "ppo")
CHUNK, CPU_CHUNK = 512, 256  # tokens whose logits exist at once (prefline/training/logps.py)
CPU_LARGEST = 2048
VLLM_AT_ONCE = 256  # completions that the sampler vllm decodes together, at most
# Bytes of gradient and moments for each trained parameter, of the moments of embeddings in 8 bits.
MOMENTS = {
    "adamw_torch": 8.0,
    "adamw_torch_fused": 8.0,
    "adamw_8bit": 2.03,
    "paged_adamw_32bit": 0.0,
    "paged_adamw_8bit": 0.0,
}
NF4 = 0.516  # bytes for each weight, with the blocks' scales
OF_CHUNK, OF_BATCH, OF_SAMPLED = 18, 16, 20  # bytes for each logit, with its gradient and copies
CONTEXT = 0.8e9  # CUDA's own, with its libraries
COMMUNICATION = 1.0e9  # buffers of several devices
FRAGMENTS = 0.04  # of the allocator


@dataclasses.dataclass(frozen=True)
class Training:
    """A training on GPUs.

    method: pretrain, sft, reward_model, preference, kto, rloo, grpo or ppo. dtype, optim, peft,
    global_batch_size: as in the config; rows: the resource per_device_train_batch_size. prompt_tokens,
    completion_tokens: of the longest row; without prompts (pretrain, sft) max_length is completion_tokens.
    reference: the Model that is in memory beside it, or None; scorers: (Model, dtype) of reward models that
    are there while a policy trains (rloo, grpo, ppo). parallel: ddp, fsdp2 or zero3. gpu: False on a CPU.
    sampler: online.sampler, of rloo, grpo and ppo.
    """

    model: Model
    method: str
    prompt_tokens: int
    completion_tokens: int
    rows: int
    global_batch_size: int
    dtype: str = "bfloat16"
    optim: str = "adamw_torch_fused"
    peft: dict | None = None
    gradient_checkpointing: bool = False
    devices: int = 1
    parallel: str = "ddp"
    reference: Model | None = None
    scorers: tuple = ()
    gpu: bool = True
    sampler: str = "transformers"

    @property
    def share(self):
        """Return the rows (int) of an optimizer step on a device."""
        return max(1, self.global_batch_size // self.devices)

    @property
    def at_once(self):
        """Return the rows (int) of a batch on a device: the most that divide its share."""
        most = min(self.rows, self.share)
        return next(rows for rows in range(most, 0, -1) if self.share % rows == 0)

    @property
    def length(self):
        return self.prompt_tokens + self.completion_tokens

    @property
    def sequences(self):
        """Return the sequences (int) of a batch."""
        return self.at_once * (2 if self.method in (SCORED, "preference") else 1)

    @property
    def tokens(self):
        """Return the most tokens (int) of a batch; `preference` has a prompt once for both completions."""
        shared = self.at_once * self.prompt_tokens if self.method == "preference" else 0
        return self.sequences * self.length - shared

    @property
    def quantized(self):
        return bool(self.peft and self.peft.get("quantization"))

    @property
    def mixed(self):
        return self.dtype == "bfloat16"

    @property
    def sharded(self):
        return self.parallel != "ddp" and self.devices > 1


def parts(job):
    """Return the most memory (dict of bytes, by part) of a Training on each device."""
    held = _weights(job) | {
        "activations": _activations(job),
        "logits": _logits(job),
        "other models": _others(job),
    }
    if job.method in SAMPLING and job.sampler == "vllm":
        of_vllm = _of_vllm(job)
        # A CPU's vLLM does not sleep while the policy trains.
        held = _larger(held | ({} if job.gpu else of_vllm), beside_sampler(job) | of_vllm)
    elif job.method in SAMPLING:
        held = _larger(held, _sampling(job))
    if job.sharded:
        held = _larger(held, _before_sharding(job))
    if job.gpu:
        held["fragments"] = FRAGMENTS * sum(held.values())
        held["CUDA"] = CONTEXT + COMMUNICATION * (job.devices > 1)
    return {name: size for name, size in held.items() if size}


def frozen_bytes(model, dtype, quantized=False):
    """Return the bytes of frozen weights as prefline/training/precision.py has them in `dtype` (str)."""
    rest = model.embedding + model.experts + model.other
    if quantized:
        return NF4 * model.linear + (2 if dtype == "bfloat16" else 4) * (rest + model.head)
    return (2 if dtype == "bfloat16" else 4) * (model.linear + model.head) + 4 * rest


def _trained(job):
    """Return the trained parameters (int), and those of them that are embeddings."""
    if job.peft is not None:
        return job.model.adapters(job.peft), 0
    return job.model.parameters, job.model.embedding


def _weights(job):
    """Return weights, gradients and moments (dict of bytes)."""
    model = job.model
    trained, embedding = _trained(job)
    moments = MOMENTS[job.optim]
    of_optimizer = moments * trained + (8.0 - moments) * embedding * ("8bit" in job.optim)
    # Copies in bfloat16: of a batch, or, of sharded weights, those of two layers and of what has no layer.
    copied = 2 * (trained if job.peft is not None else model.linear + model.head) if job.mixed else 0
    buckets = 4 * trained if job.devices > 1 and not job.sharded else 0
    found = {
        "weights": 4 * trained + (0 if job.peft is None else frozen_bytes(model, job.dtype, job.quantized)),
        "gradients": 4 * trained + buckets,
        "optimizer": of_optimizer,
    }
    if job.sharded:
        found = {name: size / job.devices for name, size in found.items()}
        layer, outside = _layer(model), model.embedding + model.head
        found["gathered weights"] = (2 * 2 + 4) * layer + (2 + 4) * outside if job.mixed else 8 * layer
        return found
    return found | {"weights in bfloat16": copied}


def _layer(model):
    """Return the parameters (float) of one layer."""
    return (model.linear + model.experts + model.other) / model.layers


def of_token(job, fused):
    """Return the activations (bytes) that a layer keeps of a token for the backward pass."""
    model, peft = job.model, job.peft
    product = 2 if job.mixed else 4
    stream = product if job.quantized else 4
    hidden, query, kv, wide = model.hidden, model.query_width, model.kv_width, model.intermediate
    dropout = bool(peft and peft.get("lora_dropout"))
    own_inputs = stream != product or dropout  # each matrix converts its input, or drops from it
    adapted = model.linears if peft is None else model.adapted(peft)
    read = sum(each.inputs * each.number for each in adapted) / model.layers
    kept = 2 * stream * hidden  # what the two norms read
    if peft is None and not fused:
        kept += 2 * stream * hidden  # what they multiply by their weights
    kept += product * (read if own_inputs else min(read, 2 * hidden + query + wide))
    if dropout:
        kept += read * (1 if job.gpu else stream)
    packed = job.method == "preference"
    kept += product * (query + (2 * kv if packed else 2 * query))  # query, key and value
    if (own_inputs and dropout) or not packed or not job.gpu:
        kept += product * query  # attention's output, beside its copy for the next matrix
    return kept + (2 if fused else 3) * product * wide


def _activations(job):
    model = job.model
    fused = job.gpu and job.method == "preference"  # Liger's kernels
    layer = of_token(job, fused)
    stream = 2 if job.quantized and job.mixed else 4
    tokens = job.tokens
    if job.gradient_checkpointing:
        kept = model.layers * stream * model.hidden + layer
    else:
        kept = model.layers * layer
    # The backward pass of one layer, and what there is of the last hidden states.
    adapted = 2 * (job.peft is not None)  # adapters have gradients of their own inputs
    working = (2 if job.mixed else 4) * (4 + adapted) * model.intermediate + 4 * 6 * model.hidden
    return tokens * (kept + working)


def _logits(job):
    model = job.model
    head = model.head or model.embedding
    # Of the head: its copy in bfloat16, and the gradient of it before and after conversion.
    of_head = 0
    if job.peft is None and job.method != SCORED:
        of_head = (8 if job.mixed else 4) * head
    elif job.mixed and not job.quantized and not model.head:
        of_head = 2 * head
    if job.method == SCORED:
        return 0
    if job.method in PREFERENCE:
        rows = min(CHUNK if job.gpu else CPU_CHUNK, job.tokens)
        return rows * model.vocabulary * OF_CHUNK + of_head
    if job.method in ("rloo", "grpo"):
        return job.at_once * job.completion_tokens * model.vocabulary * OF_SAMPLED + of_head
    return job.tokens * model.vocabulary * OF_BATCH + of_head


def _others(job):
    """Return the bytes of models that are only read: the reference, and reward models."""
    found = frozen_bytes(job.reference, job.dtype) if job.reference is not None else 0
    if job.sharded and job.method != "kto":
        found /= job.devices
    found += sum(frozen_bytes(model, dtype) for model, dtype in job.scorers)
    if job.method == "ppo":
        # The value model trains, too, and keeps activations of the same tokens.
        value = dataclasses.replace(job, model=dataclasses.replace(job.model, head=job.model.hidden))
        found += sum(_weights(value).values()) + _activations(value)
    return found


def cache_of_token(model, dtype):
    """Return the bytes of a token's keys and values while a policy that trains samples."""
    keys, values = (4, 2) if dtype == "bfloat16" else (4, 4)
    return model.layers * model.kv_width * (keys + values)


def _idle_others(job):
    """Return the bytes of the other models (dict) while none of them trains."""
    return {"other models": _others(job) - (_activations(job) if job.method == "ppo" else 0)}


def beside_sampler(job):
    """Return what a training holds (dict) while another program samples."""
    return _weights(job) | _idle_others(job)


def _of_vllm(job):
    """Return the least that the sampler vllm takes (dict of one part): on a GPU, with a cache of one row."""
    from prefline.machine.memory import inference

    rows = min(job.share, VLLM_AT_ONCE)
    cached = job.length if job.gpu else rows * job.length
    held = inference.vllm(job.model, job.dtype, cached, batch_size=rows)
    return {"sampler": sum(held.values()) if job.gpu else inference.of_cpu(held)}


def _sampling(job):
    """Return what is in memory (dict) while a policy in training samples its completions."""
    rows = job.share
    held = beside_sampler(job)
    one_layer = rows * job.length * job.model.query_width * 8
    held["cache"] = rows * job.length * cache_of_token(job.model, job.dtype) + one_layer
    kept = job.completion_tokens + 2 if job.method == "ppo" else 4
    held["logits"] = rows * job.model.vocabulary * 4 * kept
    if job.sharded:
        whole = 2 if job.mixed else 4
        held["gathered weights"] = whole * job.model.parameters
    return held


def _before_sharding(job):
    """Return what a device holds (dict) when it evaluates the whole model before the first step."""
    model = job.model
    copied = 2 * (model.linear + model.head) if job.mixed else 0
    fused = job.gpu and job.method == "preference"
    return {
        "weights": frozen_bytes(model, job.dtype) if job.peft is not None else 4.0 * model.parameters,
        "weights in bfloat16": copied if job.peft is None else 0,
        "activations": job.tokens * of_token(job, fused),
        "logits": _logits(job) / 2,
        "other models": _others(job),
    }


def _larger(one, other):
    return max(one, other, key=lambda held: sum(held.values()))
