"""What a policy in training and the sampler `vllm` say to each other, as JSON; a process of its own.

An engine in a test's process would leave its settings to the tests that follow.

    PYTHONPATH=.:tests/helpers python -m vllm_sampling FOLDER
"""

import json
import random
import sys
from pathlib import Path

import numpy as np
import online_training
import small_model
import torch

from prefline import engines
from prefline.errors import InputError
from prefline.training import vllm_sampler

STEPS = 20
GREEDY = engines.Sampling(0.0, 1.0, 0, 10)
DRAWN = engines.Sampling(0.7, 1.0, 0, 12)


def requests(rows):
    return [engines.Request(row["prompt_ids"], seed, row["prompt_id"]) for seed, row in enumerate(rows)]


def by_hand(model, request, ids, temperature):
    """A model's log-probabilities [tokens, vocabulary] at each token of a completion."""
    logits = model(torch.tensor([request.prompt_ids + ids])).logits[0, len(request.prompt_ids) - 1 : -1]
    return (logits.float() / temperature).log_softmax(dim=-1)


def follow(made, train, sampler):
    """Train for STEPS steps; for each, how far the sampler's greedy tokens and draws are from the model's.

    behind: the largest log-probability that a token of the model has more than the greedy one of the sampler;
    apart: the largest difference of a drawn token's log-probabilities; changed: completions that the step
    before has otherwise.
    """
    model, asked = made.model.eval(), requests(train[:8])
    trained = [weights for weights in model.parameters() if weights.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-2)
    found, before = [], None
    for step in range(STEPS):
        ids = torch.randint(12, 260, (4, 12), generator=torch.Generator().manual_seed(step))
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            said = sampler.sample(model, asked, GREEDY, (id(made), step))
            scores = [by_hand(model, *pair, 1) for pair in zip(asked, (one.ids for one in said), strict=True)]
            drawn = sampler.sample(model, asked, DRAWN, (id(made), step))
            own = [
                by_hand(model, request, one.ids, 0.7)[torch.arange(len(one.ids)), one.ids]
                for request, one in zip(asked, drawn, strict=True)
            ]
        behind = [
            (score.amax(dim=1) - score[torch.arange(len(one.ids)), one.ids]).max().item()
            for score, one in zip(scores, said, strict=True)
        ]
        apart = [
            (score - torch.tensor(one.logps)).abs().max().item()
            for score, one in zip(own, drawn, strict=True)
        ]
        now = [one.ids for one in said]
        changed = 0 if before is None else sum(one != two for one, two in zip(now, before, strict=True))
        before = now
        found.append({"behind": max(behind), "apart": max(apart), "changed": changed})
    return found


def stale(made, train, sampler):
    """The error of a step whose sampler lacks the policy's last weights."""
    made.use(sampler, None, [row["prompt_id"] for row in train[:2]])
    sampler.update = lambda policy: None
    with torch.no_grad():
        for weights in made.model.parameters():
            noise = torch.randn(weights.shape, generator=torch.Generator().manual_seed(weights.numel()))
            weights.add_(0.05 * noise)
    made.state.global_step += 1
    names = [row["prompt_id"] for row in train[:4] for _ in range(made.num_generations)]
    try:
        made._generate_and_score_completions([{"prompt": name} for name in names])
    except InputError as error:
        return str(error)


def main(folder):
    world = online_training.make_world(
        folder, hidden_size=64, tie_word_embeddings=True, initializer_range=0.2
    )
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    states = str(random.getstate()), str(np.random.get_state()), torch.get_rng_state()
    sampler = vllm_sampler.VLLM(world / "sft", 64, "float32", 1, 64, 35)
    found = {}
    for number, (name, peft) in enumerate(
        {
            "full": None,
            "lora": small_model.LORA | {"lora_dropout": 0.0},
            "qlora": small_model.QLORA | {"lora_dropout": 0.0},
        }.items()
    ):
        made, train = online_training.trainer_of(world, folder / str(number), "rloo", peft=peft)
        if number == 0:
            asked = requests(train)
            sampler.update(made.model)
            both = [sampler.sample(made.model, order, DRAWN, 0) for order in (asked, asked[::-1][:7])]
            found["same"] = [one.ids for one in both[0][::-1][:7]] == [one.ids for one in both[1]]
            found["reasons"] = [(one.finish_reason, len(one.ids), one.ids[-1]) for one in both[0]]
            random.seed(1), np.random.seed(1), torch.manual_seed(1)
            sampler.update(made.model)
            now = str(random.getstate()), str(np.random.get_state()), torch.get_rng_state()
            found["states"] = states[:2] == now[:2] and torch.equal(states[2], now[2])
        found[name] = follow(made, train, sampler)
    made, train = online_training.trainer_of(world, folder / "stale", "grpo")
    found["stale"] = stale(made, train, sampler)
    sampler.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
