"""The judge `reward`: the answer with the higher reward of a reward model is better.

Turn 1 compares the rewards of the user's first message with each answer; a later turn those of the whole
dialogues, each assistant's own earlier answers included. Equal rewards are a tie.
"""

from prefline import rewards
from prefline.judging.games import user_prompt
from prefline.rewards import scorers


class RewardJudge:
    name = "reward"

    def __init__(self, scorer):
        """scorer: as prefline.rewards.scorers.load gives one."""
        self.scorer = scorer

    def judge(self, games):
        """(user_prompt, judgment) of each game."""
        pairs = [(dialogue(game, game.answers_a), dialogue(game, game.answers_b)) for game in games]
        # Each dialogue is scored once: in another batch its reward could differ by rounding, and equal
        # answers would not tie.
        distinct = {_key(answered): answered for pair in pairs for answered in pair}
        scores = dict(zip(distinct, scorers.score(self.scorer, list(distinct.values())), strict=True))
        return [
            (user_prompt(game), judgment(*(float(scores[_key(answered)]) for answered in pair)))
            for game, pair in zip(games, pairs, strict=True)
        ]


def dialogue(game, answers):
    """A game's turns with one assistant's answers, as rewards.Dialogue."""
    messages = []
    for question, answer in zip(game.questions, answers, strict=True):
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    where = f"question {game.question_id}, turn {game.turn}"
    return rewards.Dialogue(messages[:-1], answers[-1], where)


def judgment(reward_a, reward_b):
    """One sentence that says which reward is higher, with the verdict at the end."""
    if reward_a == reward_b:
        return f"Neither answer is better: both have the reward {reward_a:.6g}. [[C]]"
    winner = "A" if reward_a > reward_b else "B"
    high, low = max(reward_a, reward_b), min(reward_a, reward_b)
    return f"Assistant {winner} is better: its reward is {high:.6g}, the other's {low:.6g}. [[{winner}]]"


def _key(dialogue):
    return (*(message["content"] for message in dialogue.messages), dialogue.completion)
