"""Load a finished reward model and score a good and a bad answer, before any completion is sampled.

The model is loaded as its jobs load it: the same dtype, on the same kind of machine. Scores that are equal or
not finite rank nothing, and are refused. The order of the two is reported, not judged.

    python -m scripts.checks.check_reward --reward reward_model --kind classifier --dtype bfloat16 \\
        --head-weights null --model results/models/reward_model --batch-tokens 16384 \\
        --out results/checks/rewards/reward_model.json

    writes  found, a sentence
"""

from prefline import errors, files
from prefline.config import section
from prefline.errors import InputError
from prefline.rewards import Dialogue, pairwise, scorers, templates

QUESTION = [{"role": "user", "content": "Which city is the capital of France?"}]
GOOD, BAD = "The capital of France is Paris.", "No no no no no no no no."


def score(model, batch_tokens, dtype, head_weights):
    """Return what a model that reads one answer at a time gives (str); InputError for equal scores."""
    scorer = scorers.load(model, batch_tokens, dtype, head_weights)
    asked = [Dialogue(QUESTION, answer, "a trial") for answer in (GOOD, BAD)]
    good, bad = scorers.score(scorer, asked).tolist()
    if good == bad:
        raise InputError(
            f"{model}: gives the score {good:.3g} to a good and to a bad answer; it ranks nothing, so take "
            "another reward model"
        )
    notes = [note] if (note := templates.note(scorer.tokenizer)) else []
    return "; ".join([f"a good answer scores {good:.3g}, a bad one {bad:.3g}", *notes])


def compare(model, batch_tokens, dtype):
    """Return what a model that compares two answers gives (str); InputError for a tie."""
    comparer = pairwise.load(model, batch_tokens, dtype)
    ((_, (chance,)),) = comparer.batches([pairwise.Comparison(QUESTION, GOOD, BAD, "a trial")])
    if chance == 0.5:
        raise InputError(
            f"{model}: gives a good and a bad answer the same chance; it ranks nothing, so take another model"
        )
    return f"a good answer beats a bad one with the probability {chance:.3g}"


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--reward", required=True, help="name of the reward")
    parser.add_argument("--model", required=True, help="the model's directory")
    parser.add_argument("--batch-tokens", type=int, required=True, help="most tokens in one forward pass")
    section.add(parser, "rewards.NAME", "kind", "dtype", "head_weights")
    parser.add_argument("--out", required=True, help="what was found (json)")
    args = parser.parse_args(argv)

    given = args.model, args.batch_tokens, args.dtype
    try:
        found = score(*given, args.head_weights) if args.kind == "classifier" else compare(*given)
    except InputError as error:
        raise InputError(f"rewards.{args.reward}: {error}") from None
    print(found)
    files.write_json(args.out, {"found": found})


if __name__ == "__main__":
    errors.run(main)
