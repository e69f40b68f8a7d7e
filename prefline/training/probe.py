"""Find the ways of computing completions' log-probabilities that are exact for an architecture.

A miniature (architectures/miniature.py) computes values and gradients of a batch whose sequences are longer
than its windows, chunks and blocks. The ways are packed, padded on the right, padded on the left as in TRL's
trainers, and one sequence at a time. They are compared with eager attention, one sequence at a time.
architectures/exact.py caches the results.
"""

from prefline.architectures import exact, miniature

PACKED, PADDED, ALONE = "packed", "padded", "one at a time"
WAYS = (PACKED, PADDED, ALONE)
WAY = "prefline_way"  # a model's attribute with the way to compute its sequences
TOLERANCE = 5e-4  # nats of a sequence, for logits whose standard deviation is 1
GRADIENT_TOLERANCE = 5e-3  # of the gradient's norm
# Tokens of prompts and their completions. Each has another weight in the loss whose gradient is compared.
GROUPS = ((9, (14, 3, 6)), (3, (22, 1)), (20, (9,)))


def inspect(config):
    """Return the findings about a config's architecture, a dict that JSON takes.

    ways: {way of WAYS: {kernel: None, or the reason why it is not exact}}. left, right: batches of the
    model itself with prompts padded on this side: None if they are exact with an attention mask,
    "positions" if they also need position_ids, else "no: " and the reason. noisy: names of classes whose
    train mode differs from eval mode with dropout off. still: None if without their noise train mode equals
    eval mode, else the difference.
    """
    from prefline.architectures import decoding
    from prefline.training import logps, models, packing

    code = [module.__file__ for module in (logps, models, packing, miniature, exact, decoding)]
    return exact.recorded("training", config, _inspect, [__file__, *code])


def summary(config):
    """Return how to compute a policy of this architecture (dict of str); raise InputError without a way."""
    kernel = exact.attention(config, "sdpa")
    sequences, _ = way(config, "sdpa")
    exact.refuse(config, inspect(config)["still"])
    return {"attention": kernel, "sequences": sequences, "completions": exact.decoding(config, kernel).name}


def way(config, kernel, ways=WAYS, quiet=False):
    """Return (way, kernel): the first of `ways` that is exact, and the attention with which it is exact.

    kernel: the configured attention. Unless quiet, prints the reason for another way than the first. Raises
    InputError if none is exact.
    """
    exact.refuse(config, exact.inspect(config)["refused"])
    found, reason = inspect(config)["ways"], None
    for name in ways:
        for each in dict.fromkeys((kernel, "eager")) if kernel == "sdpa" else (kernel,):
            # Kernels of GPUs cannot be tried here; their masks are those of eager attention.
            why = found[name].get(each, found[name]["eager"])
            if name == PACKED and kernel != "sdpa":
                why = f"attn_implementation is {kernel}"
            if why is None:
                if reason is not None and not quiet:
                    beside = "" if each == kernel else f", with {each} attention"
                    exact.say(f"{config.model_type}: sequences are computed {name}{beside}, {reason}")
                return name, each
            reason = reason or f"not {name}: {why}"
    exact.refuse(config, reason)


def hold_still(model):
    """Keep modules in eval mode whose train mode adds noise other than dropout, such as routers.

    Raises InputError if train mode still differs from eval mode.
    """
    found = inspect(model.config)
    exact.refuse(model.config, found["still"])
    _hold(model, found["noisy"])


def ready_for_trainers(model, side):
    """Prepare `model` for batches of libraries' trainers, which are padded on `side`: "left" or "right".

    If they have no position_ids and the architecture needs them, these are made from the attention mask.
    Raises InputError if such batches are not exact.
    """
    causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    exact.refuse(causal_lm.config, exact.inspect(causal_lm.config)["refused"])
    found = inspect(causal_lm.config)[side]
    if found == "positions":
        causal_lm.register_forward_pre_hook(_with_positions, with_kwargs=True)
    elif found is not None:
        reason = f"batches that are padded on the {side}, as this training's are, are not exact: {found[4:]}"
        exact.refuse(causal_lm.config, reason)


def _with_positions(module, args, kwargs):
    mask, ids = kwargs.get("attention_mask"), kwargs.get("input_ids")
    if (
        ids is not None
        and mask is not None
        and mask.shape == ids.shape
        and kwargs.get("position_ids") is None
    ):
        kwargs["position_ids"] = (mask.cumsum(dim=-1) - 1).clamp(min=0)
    return args, kwargs


def _hold(model, noisy):
    for module in model.modules():
        cls = type(module)
        if cls.__name__ in noisy and cls.train is not _stay:
            module.eval()
            # A class instead of an attribute, so that copies stay in eval mode; FSDP wraps by its name.
            module.__class__ = type(cls.__name__, (cls,), {"train": _stay, "__module__": cls.__module__})


def _stay(module, mode=True):
    return module


def _inspect(config):
    import torch

    small = miniature.of(config)
    if small is None:
        unknown = dict.fromkeys(("sdpa", "eager"), exact.UNKNOWN)
        ways = {
            PACKED: unknown,
            PADDED: unknown,
            ALONE: {"sdpa": exact.inspect(config)["attention"]["sdpa"], "eager": None},
        }
        return {
            "ways": ways,
            "left": f"no: {exact.UNKNOWN}",
            "right": f"no: {exact.UNKNOWN}",
            "noisy": [],
            "still": None,
        }
    with torch.enable_grad(), torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        return _found(small)


def _found(small):
    import torch

    from prefline.training import logps, models, packing

    draw = torch.Generator().manual_seed(2)

    def ids(length):
        return torch.randint(2, 90, (length,), generator=draw).tolist()

    groups = [(ids(prompt), [ids(length) for length in completions]) for prompt, completions in GROUPS]
    batch = logps.collate(groups)
    eager = exact.load(small, "eager")
    models.disable_dropout(eager)
    with torch.inference_mode():
        scale = eager(input_ids=batch["input_ids"][None, :40], use_cache=False).logits.std().item()
    wanted = _measured(eager, batch, ALONE)

    def compare(model, name):
        if isinstance(model, str):
            return model
        models.disable_dropout(model)
        try:
            return _difference(_measured(model, batch, name), wanted, scale)
        except Exception as error:  # an architecture may raise anything
            return exact.reason_of(error)

    ways = {PACKED: {}, PADDED: {}, ALONE: {}}
    packed = miniature.build(small)
    try:
        packed.set_attn_implementation(packing.NAME)
    except ValueError as error:
        packed = exact.reason_of(error)
    else:
        if packed.config._attn_implementation != packing.NAME:
            packed = "its attention is not made by transformers' interface"
    ways[PACKED] = dict.fromkeys(("sdpa", "eager"), compare(packed, PACKED))
    for name in (PADDED, ALONE):
        for kernel in ("sdpa", "eager"):
            ways[name][kernel] = compare(exact.load(small, kernel), name)
    noisy, still = _noise(small, batch, wanted, scale)
    sides = {side: _padded(small, side, groups, wanted[0], scale) for side in ("left", "right")}
    return {"ways": ways, **sides, "noisy": noisy, "still": still}


def _measured(model, batch, name):
    """Return (log-probabilities float32 (S,), {name of a parameter: gradient} of their weighted sum)."""
    import torch

    from prefline.training import logps

    setattr(model, WAY, name)
    model.zero_grad()
    sums = logps.completion_logps(model, **batch, temperature=1.0)
    (sums * torch.linspace(-1, 1, len(sums))).sum().backward()
    gradients = {key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None}
    return sums.detach(), gradients


def _difference(got, wanted, scale):
    """Return the difference between two results of `_measured` as a reason (str), or None if they agree."""
    apart = ((got[0] - wanted[0]).abs().max() / scale).item()
    if not apart <= TOLERANCE:
        return f"log-probabilities would be {apart:.1e} apart"
    if got[1].keys() != wanted[1].keys():
        return "some weights would have no gradient"
    squares = sum((got[1][key] - wanted[1][key]).square().sum() for key in wanted[1])
    apart = (squares / sum(gradient.square().sum() for gradient in wanted[1].values())).sqrt().item()
    return None if apart <= GRADIENT_TOLERANCE else f"gradients would be {apart:.1%} apart"


def _noise(small, batch, wanted, scale):
    """Return (names of noisy classes, the reason why train mode differs without their noise, or None)."""
    from prefline.training import models

    def differs(prepare):
        model = miniature.build(small)
        models.disable_dropout(model)
        prepare(model)
        try:
            return _difference(_measured(model, batch, ALONE), wanted, scale)
        except Exception as error:
            return exact.reason_of(error)

    if differs(lambda model: model.train()) is None:
        return [], None

    def alone(cls):
        def prepare(model):
            for module in model.modules():
                module.training = type(module).__name__ == cls

        return prepare

    model = miniature.build(small)
    classes = dict.fromkeys(type(module).__name__ for module in model.modules())
    noisy = [cls for cls in classes if differs(alone(cls)) is not None]

    def held(model):
        _hold(model, noisy)
        model.train()

    reason = differs(held)
    return noisy, reason and f"its train mode differs from its eval mode: {reason}"


def _padded(small, side, groups, wanted, scale):
    """Return `left` or `right` of `inspect`: prompts are padded on a side, completions on the right."""
    import torch

    model = miniature.build(small)
    rows = [(prompt, completion) for prompt, completions in groups for completion in completions]
    longest = max(len(prompt) for prompt, _ in rows)
    starts = [longest - len(prompt) if side == "left" else 0 for prompt, _ in rows]
    width = max(start + len(prompt + rest) for start, (prompt, rest) in zip(starts, rows, strict=True))
    input_ids = torch.full((len(rows), width), 1)
    mask, counted = torch.zeros_like(input_ids), torch.zeros_like(input_ids)
    for row, (start, (prompt, completion)) in enumerate(zip(starts, rows, strict=True)):
        end = start + len(prompt + completion)
        input_ids[row, start:end] = torch.tensor(prompt + completion)
        mask[row, start:end] = 1
        counted[row, start + len(prompt) : end] = 1
    reason = None
    for extra in ({}, {"position_ids": (mask.cumsum(dim=-1) - 1).clamp(min=0)}):
        try:
            with torch.inference_mode():
                logits = model(input_ids=input_ids, attention_mask=mask, use_cache=False, **extra).logits
        except Exception as error:  # whatever an architecture raises there
            reason = reason or exact.reason_of(error)
            continue
        logps = logits.float().log_softmax(dim=-1)[:, :-1].gather(2, input_ids[:, 1:, None])[..., 0]
        apart = (((logps * counted[:, 1:]).sum(dim=1) - wanted).abs().max() / scale).item()
        if apart <= TOLERANCE:
            return "positions" if extra else None
        reason = reason or f"log-probabilities would be {apart:.1e} apart"
    return f"no: {reason}"
