"""Turn messages into token ids and back."""
