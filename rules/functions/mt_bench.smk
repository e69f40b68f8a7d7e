# Who judges MT-Bench, what is held against what, and where the verdicts stand: for all rules that read them.

# Who is held against whom by a judge: a policy's name is its match with the start policy, and with _single
# it is judged alone.
MATCHES = {policy: (policy, START) for policy in TRAINED}
MATCHES |= {f"{a}_vs_{b}": (a, b) for number, a in enumerate(TRAINED) for b in TRAINED[number + 1 :]}
SINGLE = {f"{policy}_single": (policy, None) for policy in POLICIES}
JUDGES = judges.names_of(config["mt_bench"])
LLM_JUDGES = config["mt_bench"]["judges"]
# Those of them that cost money.
PAID = [name for name in JUDGES if name in LLM_JUDGES and LLM_JUDGES[name]["endpoint"]["urls"]]
MODES = config["mt_bench"]["modes"]
# The matches that the main judge decides.
JUDGED = list(MATCHES) if "pairwise-all" in MODES else TRAINED


def judgments(judge, matches):
    """A judge's files of some matches."""
    return [f"results/mt_bench/judgments/{judge}/{match}.jsonl" for match in matches]


def mt_bench_file(key):
    """The path of a file that `mt_bench` names: where it is fetched to, or itself."""
    source = config["mt_bench"][key]
    return f"results/mt_bench/data/{key}.jsonl" if parse_url(source) else source


def get_answers(wildcards):
    """The answers that a judge compares, or the one policy's that it rates."""
    names = (MATCHES | SINGLE)[wildcards.match]
    return [f"results/mt_bench/answers/{policy}.jsonl" for policy in names if policy is not None]


def evaluations():
    """What shows how good the policies are, by the modes of judging."""
    ratings = ["results/ratings.csv"] if "single" in MODES else []
    return ["results/winrate.png", "results/winrate.csv", *ratings]


def matches_of(judge):
    """The matches that a judge is asked about, as lists of policies."""
    held = JUDGED if judge == JUDGES[0] else TRAINED
    return [list(MATCHES[match]) for match in held] + [[policy] for policy in POLICIES if "single" in MODES]
