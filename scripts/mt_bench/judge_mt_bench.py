"""Judge one policy's MT-Bench answers against another's, turn by turn.

Each (question, turn) is a match of two games with the answers' positions swapped, as in FastChat's pairwise
mode; the verdict of a game is read from the judge's text. The judges are in prefline/judging/. Equal answers
give an equal file, without randomness or time stamps. Matches that the journal has are not judged again, and
without a new match no judge is loaded.

    python -m scripts.mt_bench.judge_mt_bench --questions data/mt_bench/question.jsonl \\
        --answers-1 results/mt_bench/answers/dpo-1.jsonl --model-1 dpo-1 \\
        --answers-2 results/mt_bench/answers/sft.jsonl --model-2 sft \\
        --judge reference --references data/mt_bench/reference_answer/reference.jsonl \\
        --journal work/journal --out results/mt_bench/judgments/reference/dpo-1.jsonl
"""

from collections import Counter

from prefline import errors, files, rewards
from prefline.config import section
from prefline.errors import InputError
from prefline.judging import fastchat
from prefline.judging.games import Game
from prefline.provenance import journal
from prefline.text import verdicts

# Keys of a reward's section, and of mt_bench, that the judge `reward` uses.
REWARD = ("dtype", "head_weights")
DIALOGUE = ("system",)
# Inputs of each judge beyond the questions and answers.
OPTIONS = {"reference": ("references",), "reward": ("model", *REWARD, *DIALOGUE)}
# The Python packages that shape its verdicts.
PACKAGES = {"reference": (), "reward": rewards.PACKAGES}
# A judge is given this many matches in one call; no more than these are lost when the process is killed.
MATCHES_PER_CALL = 64


def matches_of(question, answers_1, answers_2, references):
    """Return the matches of a question, in turn order: list of (game 1, game 2), model 1 as A, then as B.

    answers_1, answers_2: its answers (list of str); references: list of str, maybe shorter, or None.
    """
    matches = []
    for turn in range(1, len(question["turns"]) + 1):
        known = references[:turn] if references is not None and len(references) >= turn else None
        sides = answers_1[:turn], answers_2[:turn]
        matches.append(
            tuple(
                Game(question["question_id"], turn, question["turns"][:turn], a, b, known)
                for a, b in (sides, sides[::-1])
            )
        )
    return matches


def match_content(match):
    """Return all that a judge is told of a match, whatever the names of its question and models."""
    return [(game.questions, game.answers_a, game.answers_b, game.references) for game in match]


def match_row(judge, model_1, model_2, games, judged):
    """Return a match in FastChat's form. games, judged: those of both games, in order."""
    (prompt_1, judgment_1), (prompt_2, judgment_2) = judged
    winner_1, winner_2 = (verdicts.verdict(words) or "error" for words in (judgment_1, judgment_2))
    return {
        "question_id": games[0].question_id,
        "model_1": model_1,
        "model_2": model_2,
        "g1_winner": {"A": "model_1", "B": "model_2"}.get(winner_1, winner_1),
        "g2_winner": {"A": "model_2", "B": "model_1"}.get(winner_2, winner_2),
        "judge": [judge, "pair" if games[0].turn == 1 else "pair-multi-turn"],
        "g1_user_prompt": prompt_1,
        "g1_judgment": judgment_1,
        "g2_user_prompt": prompt_2,
        "g2_judgment": judgment_2,
        "turn": games[0].turn,
    }


def load(name, batch_tokens, system=None, **options):
    """Return the judge called `name`: an object with `judge(games)`, see prefline/judging/games.py.

    batch_tokens: int, most tokens that a model judges together; for the judge `reward`, system: str or None,
    the system message of the dialogues; options: the other arguments of scorers.load.
    """
    if name == "reference":
        from prefline.judging.by_reference import ReferenceJudge

        return ReferenceJudge()
    if name == "reward":
        from prefline.judging.by_reward import RewardJudge
        from prefline.rewards import scorers

        return RewardJudge(scorers.load(batch_tokens=batch_tokens, **options), system)
    raise InputError(f"unknown judge {name!r}; the judges are: {', '.join(OPTIONS)}")


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--questions", required=True, help="questions in FastChat's form (jsonl)")
    parser.add_argument("--answers-1", required=True, help="answers of the policy to judge (jsonl)")
    parser.add_argument("--model-1", required=True, help="the policy's name")
    parser.add_argument(
        "--answers-2", required=True, help="answers of the policy it is compared with (jsonl)"
    )
    parser.add_argument("--model-2", required=True, help="that policy's name")
    parser.add_argument("--judge", required=True, choices=OPTIONS, help="who decides")
    parser.add_argument("--references", help="judge reference: reference answers in FastChat's form (jsonl)")
    parser.add_argument("--model", help="judge reward: directory of the reward model")
    section.add(parser, "rewards.NAME", *REWARD, optional=REWARD)
    section.add(parser, "mt_bench", *DIALOGUE, optional=DIALOGUE)
    parser.add_argument("--batch-tokens", type=int, required=True, help="tokens that a model judges together")
    parser.add_argument("--journal", required=True, help="folder of finished rows; safe to delete")
    parser.add_argument("--out", required=True, help="judgments in FastChat's form (jsonl)")
    args = parser.parse_args(argv)
    may_be_null = (*REWARD, *DIALOGUE)
    given = {name: value for name, value in vars(args).items() if name in may_be_null or value is not None}
    missing = [f"--{name.replace('_', '-')}" for name in OPTIONS[args.judge] if name not in given]
    if missing:
        parser.error(f"the judge {args.judge} needs {', '.join(missing)}")
    options = {name: given[name] for name in OPTIONS[args.judge]}

    questions = fastchat.read_questions(args.questions)
    answers_1 = fastchat.read_answers(args.answers_1, questions)
    answers_2 = fastchat.read_answers(args.answers_2, questions)
    references = fastchat.read_references(options.pop("references")) if args.references else {}
    matches = [
        match
        for question in questions
        for name in [question["question_id"]]
        for match in matches_of(question, answers_1[name], answers_2[name], references.get(name))
    ]
    shaped_by = journal.context(
        "scripts/mt_bench/judge_mt_bench.py",
        args.model,
        PACKAGES[args.judge],
        judge=args.judge,
        **{name: options.get(name) for name in may_be_null},
    )

    def make(missing):
        judge = load(args.judge, args.batch_tokens, **options)
        keys = list(missing)
        for start in range(0, len(keys), MATCHES_PER_CALL):
            part = keys[start : start + MATCHES_PER_CALL]
            judged = judge.judge([game for name in part for game in missing[name]])
            yield {name: judged[2 * number : 2 * number + 2] for number, name in enumerate(part)}

    keys = [journal.key(*match_content(match)) for match in matches]
    judged = journal.Journal(args.journal, "verdicts", shaped_by, args.model or args.judge).rows(
        dict(zip(keys, matches, strict=True)), make
    )
    rows = [
        match_row(args.judge, args.model_1, args.model_2, match, judged[name])
        for name, match in zip(keys, matches, strict=True)
    ]
    files.write_jsonl(args.out, rows)
    firsts = Counter(row["g1_winner"] for row in rows)
    print(
        f"{args.model_1} against {args.model_2}, judge {args.judge}: {2 * len(rows)} games; first games: "
        f"{firsts['model_1']} won, {firsts['tie']} tied, {firsts['model_2']} lost, {firsts['error']} errors"
    )


if __name__ == "__main__":
    errors.run(main)
