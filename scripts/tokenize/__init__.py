"""Turn pairs into token ids."""
