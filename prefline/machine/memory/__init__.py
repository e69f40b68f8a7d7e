"""Estimate the memory that a job needs on a GPU and on its machine, before it starts.

All functions are pure and import neither torch nor transformers, so that rules can call them. They follow
what this project's code holds in memory. measurements/memory.py compares them with measured peaks.

    sizes.of(directory) -> Model | None             exact, from config.json and the headers of the weights
    sizes.of_config(config, name) -> Model          from a config.json alone; parameters are estimated
    sizes.known(source) -> Model | None             of a config's `source`: a directory, or a cached hub model
    sizes.typical(billions) -> Model                the shape that models of about this size have

    training.Training(model, method, …)             a training; dataclasses.replace changes one setting
    training.parts(job) -> {part: bytes}            on each GPU: weights, gradients, optimizer, activations, …
    inference.scoring(model, dtype, batch_tokens, longest) -> parts     log-probabilities and rewards
    inference.generation(model, dtype, batch_size, tokens) -> parts     the engine transformers
    inference.vllm(model, dtype, context, tensor_parallel_size, …) -> parts     on each GPU
    inference.of_cpu(parts) -> bytes                of the same job without a GPU

    host.fetching(model), host.loading(model, dtype), host.training(job), host.merging(model),
    host.serving(model, tensor_parallel_size) -> bytes      the machine's memory of a job that has GPUs
    host.megabytes(bytes) -> int                    for the resource mem_mb

    fit.total(parts) -> bytes
    fit.usable(card) -> bytes                       of a card by its name: 24, 48, 80 (GB)
    fit.fits(parts, card) -> bool
    fit.tensor_parallel_size(model, dtype, context, card, …) -> int | None
    fit.largest_rows(job, card) -> int              0 where not even one row fits
    fit.largest_batch_tokens(model, dtype, longest, card), fit.largest_batch_size(model, dtype, tokens, card)
    fit.cheapest_change(job, card, gpus) -> (words, job) | None
    fit.complaint(job, card, gpus) -> str | None    after "train_policy needs "
        "about 31 GB, the card has 24 (activations 15, …); set …, which needs about 20"
    readers.Reader(model, work, section, dtype, …)  a job that only reads a model, by vLLM, transformers, …
    readers.complaint(job, card, gpus) -> str | None

Parts are dicts of floats in bytes. GB are 10⁹ bytes, as in docs/memory.md.
"""
