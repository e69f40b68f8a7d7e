"""Render the first rows of all data with the chat template of the model that it will train or ask.

Reading data needs no model (check_data), and fetch_model checks weights and architecture. This check joins
the two. Before any training it finds a template that drops words, or that refuses a role, a second question
or the system message of an evaluation. It finds a tokenizer of another model, and answers without an end.
Rows are counted as in the jobs that read all of them.

    python -m scripts.checks.check_model --name start --model results/models/start --policy \\
        --special-tokens drop --max-dropped 0.2 --data '{"models.sft.train_data": {"entrance": "dialogues",
        "source": "train.jsonl", "columns": {"messages": "messages"}}}' --out results/checks/models/start.json

    writes  found, a sentence
"""

import functools
import json
from pathlib import Path

from prefline import errors, files
from prefline.config import section
from prefline.data import reading
from prefline.errors import InputError
from prefline.text import chat
from prefline.text.ends import end_tokens

ROWS = 100


def render(tokenizer, entrance, row, whole):
    """Return the most tokens (int) of an example of a row, rendered as its job will.

    Raises InputError for a row that the template refuses. whole: whether the answers of pairs are rendered as
    whole dialogues, as for reward models.
    """
    if "messages" not in row:
        return 0
    messages = row["messages"]
    answers = [row[name] for name in ("chosen", "rejected", "completion") if name in row]
    if entrance == "dialogues":
        speaking = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
        dialogues = [(messages[:number], [messages[number]["content"]]) for number in speaking]
        made = chat.prompts_and_completions(tokenizer, dialogues)
    elif whole:
        told = [[*messages, {"role": "assistant", "content": answer}] for answer in answers]
        return max(len(chat.dialogue_ids(tokenizer, dialogue)) for dialogue in told)
    else:
        made = chat.prompts_and_completions(tokenizer, [(messages, answers)])
    return max(len(prompt) + max(map(len, ids), default=0) for prompt, ids in made)


def check(tokenizer, entrance, source, columns, rules, whole, max_length=None, **more):
    """Return how many first rows were rendered; raise InputError for rows that would stop a job.

    rules: as reading.policy gives them; whole: see `render`; max_length: int, tokens above which a training
    drops a row, or None; the rest as reading.Data takes it.
    """
    special = functools.partial(chat.special_tokens_in, tokenizer)
    write = functools.partial(chat.calls_as_text, tokenizer)
    data = reading.Data(entrance, source, columns, rules, special, limit=ROWS, write=write, **more)
    lengths = []
    for row in data:
        try:
            lengths.append(render(tokenizer, entrance, row, whole))
        except InputError as error:
            data.refuse(row, error)
    data.finish()
    if max_length is not None and min(lengths) > max_length:
        said = f"the first {len(lengths)} rows all have more than max_length ({max_length}) tokens"
        said += f", the shortest {min(lengths)}; raise max_length"
        if len(lengths) < ROWS:  # these are all rows
            raise InputError(said)
        print(f"warning: {source}: {said}")
    return sum(counts.kept for counts in data.counts)


def check_systems(tokenizer, systems):
    """Raise InputError for a system message of an evaluation, {key: str}, that the template refuses."""
    for key, text in systems.items():
        asked = [{"role": "system", "content": text}, {"role": "user", "content": "a"}]
        answered = [{"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
        try:
            chat.prompt_ids(tokenizer, asked)
            if key.startswith("mt_bench"):
                chat.prompt_ids(tokenizer, asked + answered)
        except InputError as error:
            raise InputError(f"{key}: {error}") from None


def end_of_answers(model, tokenizer):
    """Return the token (str) that ends an answer; raise InputError for a model whose answers never end."""
    from transformers import AutoConfig, GenerationConfig

    config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    vocabulary = config.get_text_config().vocab_size
    if len(tokenizer) > vocabulary:
        raise InputError(
            f"the tokenizer has {len(tokenizer)} tokens, the model embeds {vocabulary}; they do not belong "
            "together"
        )
    if Path(model, "generation_config.json").is_file():
        generation_config = GenerationConfig.from_pretrained(model)
    else:
        generation_config = GenerationConfig.from_model_config(config)
    ends = end_tokens(generation_config, tokenizer)
    if not ends:
        raise InputError("no token ends an answer; set eos_token_id in generation_config.json")
    written = chat.end_of_turn(tokenizer)
    return tokenizer.convert_ids_to_tokens(ends[0] if written is None else written)


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--model", required=True, help="the model's directory")
    parser.add_argument("--name", required=True, help="the model's name in the config")
    parser.add_argument("--policy", action="store_true", help="whether the start policy is made from it")
    parser.add_argument(
        "--systems", type=json.loads, default={}, help="system messages of evaluations, {KEY: text} (JSON)"
    )
    section.add(parser, "data")
    parser.add_argument(
        "--data", type=json.loads, required=True, help="{PATH OF A KEY: {entrance, …}} (JSON)"
    )
    parser.add_argument("--out", required=True, help="what was found (json)")
    args = parser.parse_args(argv)

    tokenizer, rows, found = chat.load_tokenizer(args.model), 0, "the template renders {rows} first rows"
    if args.policy:
        try:
            found += f"; {end_of_answers(args.model, tokenizer)} ends an answer"
            chat.check_second_turn(tokenizer)
            check_systems(tokenizer, args.systems)
        except InputError as error:
            raise InputError(f"models.{args.name}: {error}") from None
    for key, named in args.data.items():
        try:
            whole = key.startswith("models.")
            rows += check(tokenizer, rules=reading.policy(args), whole=whole, **named)
        except InputError as error:
            raise InputError(f"{key}, with the chat template of models.{args.name}: {error}") from None
    found = found.format(rows=rows)
    print(found)
    files.write_json(args.out, {"found": found})


if __name__ == "__main__":
    errors.run(main)
