"""Train a causal language model on raw text, from fresh weights or on from those it has.

Documents are shuffled, joined with the end-of-text token after each, and cut into blocks of --max-length
tokens, so that no position is padding. Tokens after the last full block are dropped and counted. A BOS, if
the tokenizer has one, opens every document. The held-out text is cut in the same way.

    reads   text: str
    writes  a model directory; metrics.json with the held-out perplexity before and after

    python -m scripts.models.pretrain --model data/policy --train-data train.jsonl --eval-data test.jsonl \
        --columns '{"text": "text"}' --max-length 256 --learning-rate 2e-3 ... --out results/models/base
"""

import functools
import math

from prefline import seeds
from prefline.config import section
from prefline.data import reading, sources
from prefline.errors import InputError, run
from prefline.text import chat
from prefline.training import arguments, evaluation, experts, probe, process, results, weights
from prefline.training.settings import Settings


def order(number, seed):
    """Return the numbers 0 … number − 1 (list of int) in an order that the seed draws."""
    return sorted(range(number), key=lambda document: seeds.derive(seed, "document order", document))


def pack(documents, length):
    """Return (blocks, rest): lists of `length` ints cut from the joined documents, and the ids left over."""
    joined = [token for document in documents for token in document]
    blocks = [joined[start : start + length] for start in range(0, len(joined) - length + 1, length)]
    return blocks, len(joined) - len(blocks) * length


def read(given, columns, rules, tokenizer, seed):
    """Return (ids of every document, list of list of int, with BOS and EOS; counts, dict) of data sources.

    rules: as reading.policy gives them; the rest as reading.Data takes it.
    """
    special = functools.partial(chat.special_tokens_in, tokenizer)
    data = reading.Data("texts", given, columns, rules, special)
    rows = data.mix(list(data), lambda row: row["text"], seed)
    data.finish()
    return chat.document_ids(tokenizer, [row["text"] for row in rows]), data.as_dict()


def blocks_of(source, documents, length):
    """pack, with InputError where there is not even one block. source: as the config names it."""
    blocks, left_over = pack(documents, length)
    if not blocks:
        named = ", ".join(one["source"] for one in sources.listed(source))
        raise InputError(f"{named}: its {left_over} tokens do not fill one block of max_length {length}")
    return blocks, left_over


def main(argv=None):
    parser = section.parser(__doc__)
    section.add(parser, "models.base", "train_data", "eval_data", "columns", "max_length")
    section.add(parser, "data")
    Settings.add_flags(parser)
    args = parser.parse_args(argv)

    # Pin branches to commits: if a branch moves, old checkpoints must not be resumed.
    args.train_data, args.eval_data = map(sources.pinned, (args.train_data, args.eval_data))
    inputs = sources.data_files(args.train_data, args.eval_data)
    settings = Settings.of(vars(args))
    key = results.work_key(settings, "scripts/models/pretrain.py", [args.model, *inputs])
    parents = results.parents(settings, inputs)
    if results.restore(settings, key, "pretrain", parents):
        return

    process.quiet()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer

    from prefline.training import loop, repeated_rows

    tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
    rules = reading.policy(args)
    train, counts = read(args.train_data, args.columns, rules, tokenizer, args.seed)
    train = [train[document] for document in order(len(train), args.seed)]
    train_blocks, train_left = blocks_of(args.train_data, train, args.max_length)
    test, eval_counts = read(args.eval_data, args.columns, rules, tokenizer, args.seed)
    eval_blocks, eval_left = blocks_of(args.eval_data, test, args.max_length)
    print(
        f"{len(train)} documents make {len(train_blocks)} blocks of {args.max_length} tokens "
        f"({train_left} tokens left over), the held-out text {len(eval_blocks)} ({eval_left})"
    )

    class Pretraining(repeated_rows.Unlabelled, Trainer):
        """Transformers'; on several devices it ends where it does on one."""

    def collate(rows):
        ids = torch.tensor(rows)
        return {"input_ids": ids, "labels": ids}

    model = weights.load(settings, AutoModelForCausalLM)
    experts.balance(model, settings.router_aux_loss_coef)
    probe.ready_for_trainers(model, "right")
    pretraining = Pretraining(
        model=model,
        args=arguments.make(settings, remove_unused_columns=False),
        train_dataset=train_blocks,
        eval_dataset=eval_blocks,
        data_collator=collate,
    )
    before = evaluation.mean_token_loss(pretraining)
    names = [f"block {number}" for number in range(len(train_blocks))]
    trained = loop.fit(
        pretraining, settings, key, names, lambda: {"loss": evaluation.mean_token_loss(pretraining)}
    )
    after = evaluation.mean_token_loss(pretraining)
    metrics = {
        "eval_loss_before": before,
        "eval_loss": after,
        "eval_perplexity_before": math.exp(before),
        "eval_perplexity": math.exp(after),
        "train_documents": len(train),
        "train_data": counts,
        "eval_data": eval_counts,
        "train_blocks": len(train_blocks),
        "train_tokens_left_over": train_left,
        "eval_blocks": len(eval_blocks),
        "eval_tokens_left_over": eval_left,
        **trained,
    }
    print(f"held-out perplexity {metrics['eval_perplexity_before']:.4g} -> {metrics['eval_perplexity']:.4g}")
    results.save(model, settings, "pretrain", parents, [(block[:1], block[1:]) for block in eval_blocks])
    results.finish(settings, key, metrics)


if __name__ == "__main__":
    run(main)
