"""Have a language model rate every completion of a shard by a rubric (LLM as a judge).

The rubric (scripts/common/rewards/rubric.py) asks for a reason that ends with [[a number]]. The judge is
asked at temperature 0 and only what it says is read: a completion with a [[10]] in it gives itself nothing.
A verdict that is cut off, or ends without a number from --lowest to --highest, is asked for again at
temperature 0.7, up to three times, each with a seed of its own: at temperature 0 it would be the same. Then
the completion has no reward: null, never a number that nobody gave. Neither has one that the servers give up.
If that is so for more than half of the shard, what is left would rank by accident, and the script fails.

Every answer is a row of the journal, as text, from which the number is read anew: a restart asks nobody
twice, and with another --lowest or --highest only what is then out of range is asked for again. What the
servers give up is tried again by the next job that wants it.

    python -m scripts.rate_completions --prompts results/samples/sft/prompts/train-00000.parquet \\
        --completions results/samples/sft/completions/train-00000.parquet \\
        --rubric data/rubric.txt --lowest 1 --highest 10 --model results/models/judge --dtype bfloat16 \\
        --servers '' --served-model null --max-tokens 512 --batch-size 64 --server-timeout 600 \\
        --tensor-parallel-size 1 --gpu-memory-percent 90 --max-num-batched-tokens 0 --seed 1 \\
        --journal work/journal --out results/samples/sft/rewards/helpful/train-00000.parquet
"""

import argparse
import time
from pathlib import Path

from scripts.common import engines, errors, journal, seeds
from scripts.common.engines.conversation import Answer, Conversation, Request
from scripts.common.errors import InputError
from scripts.common.rewards import rubric, shard

# How warm the judge is, from try to try.
TEMPERATURES = (0.0, 0.7, 0.7, 0.7)
# Verdicts of a first round from which on it is no bad luck if none of them can be read.
HOPELESS = 16
# Completions without a reward that are named.
NAMED = 5
# Tokens that a server's chat template may write beyond those it writes here, such as today's date.
TEMPLATE_SLACK = 64
# Seconds between two lines of progress.
INTERVAL = 10.0


class Judge:
    """The judge that the flags `args` describe: it is there from the first question on.

    texts: list of str, all that it may be asked, which is what the context of its own server is made for.
    """

    def __init__(self, args, texts):
        self.args, self.texts = args, texts
        self.local = self.conversation = None

    def answers(self, wanted):
        """Yield {key: Answer} as they end, for {key: Request}, without those that the servers give up."""
        if self.conversation is None:
            self._open()
        keys, printed = list(wanted), time.monotonic()
        answers = self.conversation.answers(list(wanted.values()))
        for done, (index, answer) in enumerate(answers, 1):
            if answer is not None:
                yield {keys[index]: answer}
            if done == len(keys) or time.monotonic() > printed + INTERVAL:
                printed = time.monotonic()
                print(f"{done} of {len(keys)} verdicts", flush=True)

    def close(self):
        if self.conversation is not None:
            self.conversation.close()
        if self.local is not None:
            self.local.close()

    def _open(self):
        args, servers, key = self.args, self.args.servers.split(), None
        if not servers:
            self.local = self._serve()
            servers, key = [self.local.url], self.local.key
        section = f"rewards.{Path(args.out).parent.name}"
        self.conversation = Conversation(
            servers, name_of(args), args.max_tokens, args.batch_size, args.server_timeout, section, key=key
        )

    def _serve(self):
        from scripts.common import chat
        from scripts.common.engines.local_server import serve
        from scripts.common.engines.model_files import ModelFiles

        args, files = self.args, ModelFiles(self.args.model)
        longest = max(map(len, files.tokenizer(self.texts, add_special_tokens=False)["input_ids"]))
        template = len(chat.prompt_ids(files.tokenizer, [{"role": "user", "content": "a"}]))
        return serve(
            files,
            name_of(args),
            args.batch_size,
            args.dtype,
            args.seed,
            tensor_parallel_size=args.tensor_parallel_size,
            gpu_memory_percent=args.gpu_memory_percent,
            max_num_batched_tokens=args.max_num_batched_tokens,
            # The model's own may be a hundred times this, more than the memory holds.
            max_model_len=longest + template + TEMPLATE_SLACK + args.max_tokens,
            quantization=None,
            kv_cache_dtype="auto",
            enforce_eager=False,
        )


def name_of(args):
    """What the servers call the judge (str)."""
    return args.served_model or Path(args.model).name


def context(args):
    """What shapes all verdicts alike, for the journal; the request's text and seed name the row.

    Verdicts from servers elsewhere may cost money: of the code, only what makes the requests counts for them.
    """
    shared = {"name": name_of(args), "max_tokens": args.max_tokens}
    model = args.model or None
    if args.servers:
        return journal.context("common/engines/conversation", model, (), **shared)
    packages = engines.packages("server")
    return journal.context("rate_completions", model, packages, dtype=args.dtype, **shared)


def rate(names, score, ask, seed):
    """({text: score}, {text: why there is none}) for the questions `names` (dict from text to name).

    score(Answer): float, or None if it cannot be read; ask({key: Request}): {key: Answer, as a list too},
    without those given up; seed: int, of the experiment.
    """
    scores, reasons, waiting = {}, {}, list(names)
    for number, temperature in enumerate(TEMPERATURES):
        wanted = {}
        for text in waiting:
            drawn = seeds.derive(seed, "verdict", text, number)
            request = Request([{"role": "user", "content": text}], temperature, drawn, names[text])
            wanted[journal.key(text, temperature, drawn)] = request
        found, unread = ask(wanted), []
        for text, key in zip(waiting, wanted, strict=True):
            if key not in found:
                reasons[text] = "given up by the server"
                continue
            answer = Answer(*found[key])
            value = score(answer)
            if value is None:
                reasons[text] = f"{answer.text[-80:]!r} ({answer.finish_reason})"
                unread.append(text)
            else:
                scores[text] = value
        waiting = unread
        if not waiting or (not scores and len(names) >= HOPELESS):
            break
    return scores, {text: reason for text, reason in reasons.items() if text not in scores}


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shard.add_arguments(parser)
    parser.add_argument("--rubric", required=True, help="what the judge is asked (text)")
    parser.add_argument("--lowest", type=float, required=True, help="lowest number that counts")
    parser.add_argument("--highest", type=float, required=True, help="highest number that counts")
    parser.add_argument("--model", required=True, help="the judge's directory; none: see --servers")
    engines.add_server_arguments(parser)
    parser.add_argument("--max-tokens", type=int, required=True, help="longest verdict")
    parser.add_argument("--seed", type=int, required=True, help="the experiment's seed")
    parser.add_argument("--journal", required=True, help="folder of finished rows; safe to delete")
    args = parser.parse_args(argv)

    if not args.model and not args.servers:
        raise InputError("a judge needs a model or servers; name one of them in the reward's section")
    paragraphs = rubric.load(args.rubric)
    rows, dialogues = shard.read(args)
    texts = [dialogue and rubric.fill(paragraphs, dialogue) for dialogue in dialogues]
    names = {text: dialogue.where for text, dialogue in zip(texts, dialogues, strict=True) if dialogue}

    def score(answer):
        complete = answer.finish_reason == "stop"
        return rubric.score(answer.text, args.lowest, args.highest) if complete else None

    kept = journal.Journal(args.journal, "ratings", context(args), args.model or name_of(args))
    judge = Judge(args, list(names))
    try:
        scores, reasons = rate(names, score, lambda wanted: kept.rows(wanted, judge.answers), args.seed)
    finally:
        judge.close()
    if reasons:
        left = f"{len(reasons)} of {len(names)} ratings are missing"
        named = [f"{names[text]}: {reason}" for text, reason in reasons.items()]
        if len(reasons) > len(names) / 2:
            raise InputError(
                f"{left}, such as {named[0]}; have {args.rubric} ask more clearly for [[a number]] from "
                f"{args.lowest:g} to {args.highest:g}, raise max_tokens if verdicts end by length, or take "
                "an abler judge"
            )
        print("\n".join([f"{left}, and their completions left out of the pairs:", *named[:NAMED]]))
    shard.write(args.out, rows, [text and text in scores and [scores[text], None] for text in texts])


if __name__ == "__main__":
    errors.run(main)
