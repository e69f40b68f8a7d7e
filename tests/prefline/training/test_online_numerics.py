"""What ppo, rloo and grpo compute, beside computations by hand in plain torch."""

import dataclasses
import math
import types

import pytest
import torch
from online_training import make_world, trainer_of

from prefline.errors import InputError
from prefline.training import mismatch, ppo, resampling, samplers, schedules


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("online"))


def gradients(model):
    found = {
        name: weights.grad.clone() for name, weights in model.named_parameters() if weights.grad is not None
    }
    model.zero_grad()
    return found


def assert_close(found, wanted, tolerance=1e-5):
    """The same parameters have gradients, which differ by a part of their norms."""
    assert found.keys() == wanted.keys() and found
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= tolerance * gradient.norm() + 1e-8, name


def logps_by_hand(model, prompt, completion):
    """The log-probabilities of a completion's tokens, without padding or neighbors."""
    logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(dim=-1)[torch.arange(len(completion)), completion]


class Apart(samplers.Transformers):
    """A sampler whose log-probabilities are others than the policy's, by up to `far` nats."""

    far = 0.5

    @torch.no_grad()
    def _sample(self, policy, requests, sampling, version):
        found = []
        for request, made in zip(requests, super()._sample(policy, requests, sampling, version), strict=True):
            logps = logps_by_hand(policy, request.prompt_ids, made.ids)
            noise = torch.rand(len(made.ids), generator=torch.Generator().manual_seed(len(found)))
            found.append(dataclasses.replace(made, logps=(logps + self.far * (2 * noise - 1)).tolist()))
        self.found = found
        return found


def test_a_sampler_that_is_not_the_policy_stops_the_training(world, tmp_path):
    made, train = trainer_of(world, tmp_path, "rloo")
    apart = Apart(made.accelerator, made.ends)
    apart.far = 1e-3
    made.use(apart, None, ["p1"])
    apart.far = 0.1
    sentence = (
        r"step 1: the sampler's log-probabilities are 0\.\d+ nats per token .* at most 0\.01 in float32"
    )
    with pytest.raises(InputError, match=sentence):
        batch_of(made, train, [1.0] * 16)


def test_the_difference_of_samplers_is_measured_where_there_are_completions():
    logps = torch.tensor([[-1.0, -2.0, -9.0], [-1.0, -9.0, -9.0]])
    said = mismatch.rows([[-1.0, -3.0], [-0.5]], logps)
    measured = mismatch.measure(logps, said, torch.tensor([[1, 1, 0], [1, 0, 0]]))
    gaps = [0.0, 1.0, -0.5]
    assert measured["sampling/logp_difference"] == pytest.approx(0.5)
    assert measured["sampling/logp_difference_max"] == pytest.approx(1.0)
    assert measured["sampling/k3"] == pytest.approx(sum(math.exp(gap) - 1 - gap for gap in gaps) / 3)
    assert measured["sampling/ratio_outside"] == pytest.approx(1 / 3)
    with pytest.raises(InputError, match="nan nats"):
        mismatch.check(dict.fromkeys(measured, math.nan), "bfloat16", "step 1")


def test_generalized_advantages_end_with_the_completion():
    """Whatever is beside it: a completion's own sums, the value behind its end being 0."""
    torch.manual_seed(0)
    rewards, values = torch.randn(3, 7), torch.randn(3, 7)
    lengths, gamma, lam = [7, 1, 4], 0.9, 0.8
    mask = torch.arange(7)[None] < torch.tensor(lengths)[:, None]
    found, returns = ppo.advantages(rewards, values, mask, gamma, lam)
    for row, length in enumerate(lengths):
        for place in range(7):
            wanted = 0.0
            for later in range(place, length):
                after = values[row, later + 1].item() if later + 1 < length else 0.0
                delta = rewards[row, later].item() + gamma * after - values[row, later].item()
                wanted += (gamma * lam) ** (later - place) * delta
            assert found[row, place].item() == pytest.approx(wanted, abs=1e-5)
            value = values[row, place].item() if place < length else 0.0
            assert returns[row, place].item() == pytest.approx(wanted + value, abs=1e-5)


@pytest.mark.parametrize("most", [None, 1.3])
def test_ppo_is_its_documented_equation(world, tmp_path, monkeypatch, most):
    """The reward is on each completion's last token, and no value behind that is trained.

    most: the cap of ratios that correct for another sampler; None: samples are the policy's own.
    """
    settings = {"gamma": 0.9, "lam": 0.8, "kl_coef": 0.3, "cliprange": 0.2, "cliprange_value": 0.2}
    made, train = trainer_of(world, tmp_path, "ppo", **settings)
    policy, value_model = made.policy_model, made.value_model
    with torch.no_grad():  # so that it is another than its reference
        for name, weights in made.ref_model.named_parameters():
            weights.add_(
                0.02 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(len(name)))
            )
    names = [row["prompt_id"] for row in train[:6]]
    # The second completion has no verdict, and so no part.
    made.rewards = lambda samples, where: types.SimpleNamespace(
        reward=[math.nan if number == 1 else len(sample.ids) / 7 for number, sample in enumerate(samples)],
        parts={},
        failed={},
    )
    said = []
    if most is not None:
        monkeypatch.setitem(mismatch.LIMITS, "float32", ("largest", 1.0))
        made.use(Apart(made.accelerator, made.ends), most, ["p1"])
    complete, made.complete = made.complete, lambda names: said.extend(complete(names)) or said
    rollout, measured = made.sample(names)
    drawn, said = said, [completion.ids for completion in said]
    assert len({len(ids) for ids in said}) > 2
    with torch.no_grad():  # as after a step on the same completions
        for weights in made.model.parameters():
            weights.add_(0.01 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)))

    def value(row, ids):
        hidden = value_model.model(torch.tensor([row["prompt_ids"] + ids])).last_hidden_state
        return value_model.score(hidden)[0, len(row["prompt_ids"]) - 1 : -1, 0]

    advantages, parts, kls, corrections = [], [], [], []
    for number, (row, ids) in enumerate(zip(train[:6], said, strict=True)):
        if number == 1:
            assert not rollout.mask[number].any()
            continue
        length = len(ids)
        old, old_values = rollout.logps[number, :length], rollout.values[number, :length]
        kl = old - logps_by_hand(made.ref_model, row["prompt_ids"], ids).detach()
        rewards = -0.3 * kl
        rewards[-1] += length / 7
        for place in range(length):
            deltas = [
                rewards[later]
                + 0.9 * (old_values[later + 1] if later + 1 < length else 0)
                - old_values[later]
                for later in range(place, length)
            ]
            advantages.append(sum((0.9 * 0.8) ** far * delta for far, delta in enumerate(deltas)))
        parts.append((logps_by_hand(policy, row["prompt_ids"], ids), old, value(row, ids), old_values))
        kls.append(kl)
        corrections.append(
            torch.ones(length)
            if most is None
            else (old - torch.tensor(drawn[number].logps)).exp().clamp(max=most)
        )
    assert most is None or any((part == most).any() and (part < most).any() for part in corrections)
    new, old, values, old_values = (torch.cat(part) for part in zip(*parts, strict=True))
    advantages = torch.stack(advantages)
    returns = advantages + old_values
    whitened = (advantages - advantages.mean()) / advantages.std()
    ratio = (new - old).exp()
    gains = torch.min(ratio * whitened, ratio.clamp(0.8, 1.2) * whitened)
    policy_loss = -(gains * torch.cat(corrections)).mean()
    near = torch.max(torch.min(values, old_values + 0.2), old_values - 0.2)
    value_loss = 0.5 * torch.max((values - returns) ** 2, (near - returns) ** 2).mean()
    (policy_loss + 0.1 * value_loss).backward()
    wanted = gradients(made.model)
    made.optimizer = types.SimpleNamespace(step=lambda: None, zero_grad=lambda: None)
    found = made.update(rollout)
    assert found[:2] == pytest.approx([policy_loss.item(), value_loss.item()], rel=1e-4)
    assert_close(gradients(made.model), wanted, 1e-4)
    assert measured["kl"] == pytest.approx(torch.cat(kls).mean().item(), rel=1e-4)


def batch_of(made, train, rewards, count=4):
    """The pieces of a step on `count` prompts, given the rewards of all of its completions."""
    made.rewards = lambda samples, where: types.SimpleNamespace(
        reward=torch.tensor(rewards), parts={}, failed={}
    )
    made.model.train()
    names = [row["prompt_id"] for row in train[:count] for _ in range(made.num_generations)]
    made.current_gradient_accumulation_steps = made.args.gradient_accumulation_steps
    return made._generate_and_score_completions([{"prompt": name} for name in names])


def unpadded(batch, row):
    """The prompt and the completion (lists of int) of a row."""
    prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()].tolist()
    return prompt, batch["completion_ids"][row][batch["completion_mask"][row].bool()].tolist()


@pytest.mark.parametrize(("scored", "most"), [(16, None), (9, None), (9, 1.3)])
@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_a_step_is_its_documented_equation(world, tmp_path, monkeypatch, method, scored, most):
    """In which completions without a verdict have no part: not in a baseline, a denominator or the KL.

    most: the cap of ratios that correct for another sampler; None: samples are the policy's own.
    """
    beta = 0.3
    made, train = trainer_of(world, tmp_path, method, beta=beta)
    if most is not None:
        monkeypatch.setitem(mismatch.LIMITS, "float32", ("largest", 1.0))
        made.use(Apart(made.accelerator, made.ends), most, ["p1"])
    with torch.no_grad():
        for weights in made.ref_model.parameters():
            weights.add_(0.02 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)))
    rewards = torch.randn(16, generator=torch.Generator().manual_seed(2)).tolist()
    missing = [1, 2, 6, 8, 9, 10, 15][: 16 - scored]  # of the third prompt, one is left
    rewards = [math.nan if row in missing else reward for row, reward in enumerate(rewards)]
    batch = batch_of(made, train, rewards)
    rows = {}
    for row in set(range(16)) - set(missing):
        prompt, ids = unpadded(batch, row)
        logps = logps_by_hand(made.model, prompt, ids)
        ref_logps = logps_by_hand(made.ref_model, prompt, ids).detach()
        rows[row] = rewards[row], logps, ref_logps
    total, corrections = 0, []
    for row, (reward, logps, ref_logps) in rows.items():
        gaps = torch.zeros(len(logps))
        if most is not None:
            gaps = logps.detach() - torch.tensor(made.completer.found[row].logps)
            corrections.append(gaps.sum() if method == "rloo" else gaps.max())
        group = {other: rows[other] for other in rows if other // 4 == row // 4}
        if method == "rloo":
            penalized = {
                other: one[0] - beta * (one[1] - one[2]).sum().detach() for other, one in group.items()
            }
            others = [value for other, value in penalized.items() if other != row]
            advantage = penalized[row] - sum(others) / len(others) if others else 0
            ratio = (logps.sum() - logps.sum().detach()).exp()
            correction = 1 if most is None else gaps.sum().exp().clamp(max=most)
            total = total - advantage * ratio * correction / len(rows)
        else:
            values = torch.tensor([one[0] for one in group.values()])
            spread = values.std().item() if len(values) > 1 else 0.0
            advantage = (reward - values.mean().item()) / (spread + 1e-4) if len(values) > 1 else 0
            ratio = (logps - logps.detach()).exp()
            kl = (ref_logps - logps).exp() - (ref_logps - logps) - 1
            tokens = sum(len(one[1]) for one in rows.values())
            correction = 1 if most is None else gaps.exp().clamp(max=most)
            total = total + (-ratio * advantage * correction + beta * ratio * kl).sum() / tokens
    assert most is None or max(corrections) > math.log(most) > min(corrections)
    total.backward()
    wanted = gradients(made.model)
    made.accelerator.sync_gradients = True
    made.compute_loss(made.model, batch).backward()
    assert_close(gradients(made.model), wanted, 2e-5)


@pytest.mark.parametrize("scale_rewards", ["group", "batch", "none"])
def test_equal_rewards_have_an_advantage_of_zero(world, tmp_path, scale_rewards):
    """Exactly: the mean of equal floats is not quite theirs, and TRL divides the rest by 1e-4."""
    made, train = trainer_of(world, tmp_path, "grpo", beta=0, scale_rewards=scale_rewards, num_generations=8)
    rewards = [123456.1] * 8 + [-98765.3] * 7 + [math.nan] + [0.1, 0.2] * 4
    batch = batch_of(made, train, rewards, count=3)
    assert not batch["advantages"][:16].any()
    assert batch["advantages"][16:].all()
    assert made._metrics["train"]["rewards/differing"] == [pytest.approx(1 / 3)]
    assert made.ref_model is None, "with beta 0 nothing is held in memory for it"


@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_resampled_prompts_take_the_place_of_those_without_a_difference(world, tmp_path, method):
    made, train = trainer_of(world, tmp_path, method, resamplings=3)
    rounds = []

    def rewards(samples, where):
        rounds.append([sample.prompt["prompt_id"] for sample in samples])
        spread = 0.0 if len(rounds) == 2 else 1.0
        useful = {1: [1], 2: [], 3: [0, 3], 4: [0, 1, 2, 3]}[len(rounds)]
        values = [spread * (row % 4 == 0) * (row // 4 in useful) for row in range(16)]
        return types.SimpleNamespace(reward=torch.tensor(values), parts={}, failed={})

    made.rewards = rewards
    made.model.train()
    names = [row["prompt_id"] for row in train[:4] for _ in range(4)]
    batch = made._generate_and_score_completions([{"prompt": name} for name in names])
    assert len(rounds) == 4 and len({tuple(names) for names in rounds}) == 4
    of = {tuple(row["prompt_ids"]): row["prompt_id"] for row in train}
    found = [of[tuple(unpadded(batch, row)[0])] for row in range(0, 16, 4)]
    assert found == [rounds[2][0], rounds[0][4], rounds[2][12], rounds[3][0]]
    assert made._metrics["train"]["rewards/resampled"] == [0.75]
    if method == "grpo":
        assert all(batch["advantages"].view(4, 4).any(dim=1))
        assert batch["num_items_in_batch"] == batch["completion_mask"].sum()


def test_processes_resample_different_prompts_and_always_the_same_ones():
    names = [f"p{number}" for number in range(20)]
    parts = [resampling.other_prompts(names, 1, 7, 0, 8, (process, 3), 2) for process in range(3)]
    assert [len(part) for part in parts] == [8, 8, 8]
    assert len({name for part in parts for name in part}) == 12
    assert parts[1] == resampling.other_prompts(names, 1, 7, 0, 8, (1, 3), 2)
    assert parts[1] != resampling.other_prompts(names, 1, 7, 1, 8, (1, 3), 2)


@pytest.mark.parametrize("shape", ["linear", "cosine", "constant_with_warmup"])
def test_a_warm_up_begins_above_zero(shape):
    """Its steps are the peak's parts, and the steps behind it have transformers' rates."""
    from transformers import get_scheduler

    def rates(change):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
        scheduler = change(get_scheduler(shape, optimizer, 3, 10))
        found = []
        for _ in range(10):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return found

    found, theirs = rates(lambda made: schedules.above_zero(made, 3)), rates(lambda made: made)
    assert theirs[0] == 0
    assert found[:3] == pytest.approx([0.125, 0.25, 0.375])
    assert found[3:] == theirs[3:]


@pytest.mark.parametrize(("epochs", "prompts_of_a_step"), [(1, 5), (2.5, 5), (0.1, 5), (3, 16)])
def test_an_epoch_has_as_many_samplings_for_every_method(world, tmp_path, epochs, prompts_of_a_step):
    """Of 16 prompts; what does not fill a step is left for another epoch, whose order is another."""
    wanted = math.ceil(epochs * (16 // prompts_of_a_step))
    grouped = {"num_train_epochs": epochs, "global_batch_size": 2 * prompts_of_a_step, "num_generations": 2}
    grouped |= {"per_device_train_batch_size": 2 * prompts_of_a_step}
    for iterations in (1, 2):
        made, _ = trainer_of(world, tmp_path, "rloo", num_iterations=iterations, **grouped)
        loader = made.get_train_dataloader()
        *_, steps = made.set_initial_training_values(made.args, loader)
        assert steps == math.ceil(epochs * (16 // prompts_of_a_step) * iterations)
    alone = {"num_train_epochs": epochs, "global_batch_size": prompts_of_a_step}
    made, _ = trainer_of(world, tmp_path, "ppo", per_device_train_batch_size=prompts_of_a_step, **alone)
    assert made.args.num_total_batches == wanted
