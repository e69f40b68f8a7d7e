"""What a policy says in a dialogue, as text: for the evaluations, which read answers and train on none."""

from scripts.common import chat, engines


def answer(engine, dialogues, seeds, sampling):
    """(answer, finish_reason) for each dialogue, all of them decoded together.

    engine: as engines.load gives one; dialogues: lists of messages that end with the user's; seeds: one int
    for each; sampling: engines.Sampling. Answers have no special tokens and no blanks around them.
    """
    requests = [
        engines.Request(chat.prompt_ids(engine.tokenizer, messages), seed)
        for messages, seed in zip(dialogues, seeds, strict=True)
    ]
    return [
        (engine.tokenizer.decode(completion.ids, skip_special_tokens=True).strip(), completion.finish_reason)
        for completion in engine.generate(requests, sampling)
    ]
