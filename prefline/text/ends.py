"""Find the tokens that end an answer."""

from prefline.text import chat


def end_tokens(generation_config, tokenizer):
    """Return the sorted ids of every token that ends an answer.

    They are the generation config's (int, list or None), the tokenizer's EOS and the chat template's end of
    turn. A base model's generation config only has the end of documents, but training teaches it the
    template's.
    """
    configured = generation_config.eos_token_id
    configured = configured if isinstance(configured, list) else [configured]
    ends = {*configured, tokenizer.eos_token_id, chat.end_of_turn(tokenizer)}
    return sorted(token for token in ends if token is not None)
