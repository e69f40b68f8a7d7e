"""Balance mixtures of experts with a loss, so that a router does not always choose the same few experts.

It is the loss of transformers (Fedus et al. 2021, arXiv 2101.03961, equations 4 to 6), times the config's
router_aux_loss_coef, added to the method's loss; 0 leaves it out. Held-out losses do not include it. It is
nonlinear in the batch, so unlike other losses it depends on how a step's rows are cut into batches.
"""

import contextlib
import importlib
import inspect

ARGUMENTS = ("gate_logits", "num_experts", "top_k", "attention_mask")


def has_router(model):
    """Tell whether the library can balance the experts of `model`."""
    causal_lm = _causal_lm(model)
    known = getattr(importlib.import_module(type(causal_lm).__module__), "load_balancing_loss_func", None)
    return (
        getattr(causal_lm.config.get_text_config(), "output_router_logits", None) is not None
        and hasattr(causal_lm, "num_experts_per_tok")
        and known is not None
        and tuple(inspect.signature(known).parameters) == ARGUMENTS
    )


def balance(model, coefficient):
    """Make the loss that a causal language model computes from labels include the balance of its experts."""
    if not has_router(model):
        return
    causal_lm = _causal_lm(model)
    config = causal_lm.config.get_text_config()
    config.output_router_logits, config.router_aux_loss_coef = coefficient != 0, coefficient
    causal_lm.router_aux_loss_coef = coefficient


@contextlib.contextmanager
def unbalanced(model):
    """Leave the balance out of the loss that a causal language model computes, within a context."""
    config = model.config.get_text_config()
    before = getattr(config, "output_router_logits", None)
    if before:
        config.output_router_logits = False
    try:
        yield
    finally:
        if before:
            config.output_router_logits = True


class Recorder:
    """The router's logits of a model's forward passes, for a loss that is not the model's own."""

    def __init__(self, model):
        causal_lm = _causal_lm(model)
        self.config = causal_lm.config.get_text_config()
        self.loss_of = importlib.import_module(type(causal_lm).__module__).load_balancing_loss_func
        self.experts, self.chosen = causal_lm.num_experts, causal_lm.num_experts_per_tok
        self.body = causal_lm.base_model
        self.passes = []

    @contextlib.contextmanager
    def recording(self):
        """Record forward passes within a context, and forget earlier ones."""
        self.passes = []
        self.config.output_router_logits = True
        hook = self.body.register_forward_hook(self._record, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()
            self.config.output_router_logits = False

    def _record(self, _, args, kwargs, output):
        ids = args[0] if args else kwargs["input_ids"]
        self.passes.append((ids.shape, output.router_logits))

    def loss(self, layout):
        """Return the balance (scalar) over the tokens of all sequences of `layout` (packing.py).

        A prompt that is computed once for several completions counts for each of them.
        """
        import torch

        layout = [[prompt, *filter(None, completions)] for prompt, *completions in layout.tolist()]
        weights = []
        if len(self.passes) == 1 and self.passes[0][0] == (1, sum(map(sum, layout))):
            for prompt, *completions in layout:
                weights += [len(completions)] * prompt + [1] * sum(completions)
        else:
            lengths = iter(prompt + each for prompt, *completions in layout for each in completions)
            for rows, width in (shape for shape, _ in self.passes):
                for _ in range(rows):
                    length = next(lengths)
                    weights += [1] * length + [0] * (width - length)
        layers = zip(*(logits for _, logits in self.passes), strict=True)
        logits = tuple(torch.cat([one.flatten(0, -2) for one in layer]) for layer in layers)
        mask = torch.tensor([weights], device=logits[0].device)
        return self.loss_of(logits, self.experts, self.chosen, mask)


def _causal_lm(model):
    return model.get_base_model() if hasattr(model, "get_base_model") else model
