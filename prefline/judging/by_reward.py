"""The judge `reward`: the answer with the higher reward of a reward model is better.

Turn 1 compares the rewards of the user's first message with each answer; a later turn those of the whole
dialogues, each assistant's own earlier answers included. Both begin with the system message that the
policies were given, if any. Equal rewards are a tie.
"""

from prefline import rewards
from prefline.judging.games import user_prompt
from prefline.rewards import scorers


class RewardJudge:
    name = "reward"

    def __init__(self, scorer, system=None):
        """Set the `scorer`, of prefline.rewards.scorers.load, and the system message (str or None)."""
        self.scorer, self.system = scorer, system

    def judge(self, games):
        """Return (user_prompt, judgment) of each game."""
        pairs = [
            tuple(dialogue(game, answers, self.system) for answers in (game.answers_a, game.answers_b))
            for game in games
        ]
        # Each dialogue is scored once: in another batch its reward could differ by rounding, and equal
        # answers would not tie.
        distinct = {_key(answered): answered for pair in pairs for answered in pair}
        scores = dict(zip(distinct, scorers.score(self.scorer, list(distinct.values())), strict=True))
        return [
            (user_prompt(game), judgment(*(float(scores[_key(answered)]) for answered in pair)))
            for game, pair in zip(games, pairs, strict=True)
        ]


def dialogue(game, answers, system=None):
    """Return a game's turns with one assistant's answers, as rewards.Dialogue; system: str or None."""
    messages = [] if system is None else [{"role": "system", "content": system}]
    for question, answer in zip(game.questions, answers, strict=True):
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    where = f"question {game.question_id}, turn {game.turn}"
    return rewards.Dialogue(messages[:-1], answers[-1], where)


def judgment(reward_a, reward_b):
    """Return a sentence with both rewards, with the verdict at the end."""
    if reward_a == reward_b:
        return f"Neither answer is better: both have the reward {reward_a:.6g}. [[C]]"
    winner = "A" if reward_a > reward_b else "B"
    high, low = max(reward_a, reward_b), min(reward_a, reward_b)
    return f"Assistant {winner} is better: its reward is {high:.6g}, the other's {low:.6g}. [[{winner}]]"


def _key(dialogue):
    return (*(message["content"] for message in dialogue.messages), dialogue.completion)
