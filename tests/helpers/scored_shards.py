"""Shards of prompts, completions and rewards, as build_preferences reads them."""

from prefline.data import tables


def write_shard(folder, name, rewards, finish_reason="stop", texts=None, reward="rm"):
    """Write prompts, completions and rewards of a shard; rewards: {prompt_id: one reward per sample}."""
    prompts = [
        {"prompt_id": p, "messages": [{"role": "user", "content": p}], "prompt_ids": [1, 2]} for p in rewards
    ]
    completions = [
        {
            "prompt_id": p,
            "sample": sample,
            "completion_ids": [5] * (sample + 1),
            "completion": texts or f"answer {sample}",
            "finish_reason": finish_reason,
            "seed": 1,
        }
        for p in rewards
        for sample in range(len(rewards[p]))
    ]
    scores = [
        {"prompt_id": p, "sample": sample, "reward": reward}
        for p in rewards
        for sample, reward in enumerate(rewards[p])
    ]
    tables.write(folder / "prompts" / f"{name}.parquet", prompts, tables.PROMPTS)
    tables.write(folder / "completions" / f"{name}.parquet", completions, tables.COMPLETIONS)
    tables.write(folder / "rewards" / reward / f"{name}.parquet", scores, tables.REWARDS)
