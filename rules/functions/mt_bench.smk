# MT-Bench's judges, its matches and the paths of the verdicts, for all rules that read them.

# Matches: a policy's name is its match with the start policy; with _single it is rated alone. Repetitions of a
# run under other seeds are no opponents.
MATCHES = {policy: (policy, START) for policy in COMPARED}
BETWEEN = {
    f"{a}_vs_{b}": (a, b)
    for number, a in enumerate(COMPARED)
    for b in COMPARED[number + 1 :]
    if naming.subject_of(a) != naming.subject_of(b)
}
for name in MATCHES.keys() & BETWEEN.keys():
    raise Refusal(
        f"config: runs: {name} is a policy, and the name of the match of {' and '.join(BETWEEN[name])}; rename the run"
    )
MATCHES |= BETWEEN
SINGLE = {f"{policy}_single": (policy, None) for policy in POLICIES}
JUDGES = judges.names_of(config["mt_bench"])
LLM_JUDGES = config["mt_bench"]["judges"]
# Judges that cost money.
PAID = [name for name in JUDGES if name in LLM_JUDGES and LLM_JUDGES[name]["endpoint"]["urls"]]
MODES = config["mt_bench"]["modes"]
# The matches that the main judge decides.
JUDGED = list(MATCHES) if "pairwise-all" in MODES else COMPARED


def judgments(judge, matches):
    """Return a judge's files of some matches."""
    return [f"results/mt_bench/judgments/{judge}/{match}.jsonl" for match in matches]


def mt_bench_file(key):
    """Return the path of a file that `mt_bench` names: where it is fetched to, or itself."""
    source = config["mt_bench"][key]
    return f"results/mt_bench/data/{key}.jsonl" if parse_url(source) else source


def mt_bench_files():
    """Return the sources of all that judges which are language models read beside the answers."""
    return section("mt_bench", "questions", "references", "corrections", "judge_prompts").values()


def corrections_of(file):
    """Return the corrections of a fetched file: of the references, those that the config names; else none."""
    return [path for path in section("mt_bench", "corrections").values() if path and file == "references"]


def get_answers(wildcards):
    """Return the answers that a judge compares, or the one policy's that it rates."""
    names = (MATCHES | SINGLE)[wildcards.match]
    return [f"results/mt_bench/answers/{policy}.jsonl" for policy in names if policy is not None]


def evaluations():
    """Return the targets that show how good the policies are, by the modes of judging."""
    ratings = [f"{FINAL}/mt_bench/ratings.csv"] if "single" in MODES else []
    rates = [f"{FINAL}/winrate.png", f"{FINAL}/winrate.csv"] if COMPARED else []
    return [*rates, *ratings, *([f"{FINAL}/mt_bench/sweeps.png"] if SWEEPS else [])]


def start_answers(wildcards):
    """Return the start policy's answers, for win rates; refuse these if nothing is compared with it."""
    if not COMPARED:
        refuse(
            f"nothing is compared with {START}, so there is no win rate; add a run, or entries of `models` to "
            "`evaluate` (docs/experiments.md)"
        )
    return f"results/mt_bench/answers/{START}.jsonl"


def swept_winrate(wildcards):
    """Return the win rates of sweeps; refuse if no run has one."""
    if not SWEEPS:
        refuse("no run of the config has a `sweep`, so there is nothing to draw (docs/experiments.md)")
    return f"{FINAL}/winrate.json"


def matches_of(judge):
    """Return the matches that a judge is asked about, as lists of policies."""
    held = JUDGED if judge == JUDGES[0] else COMPARED
    return [list(MATCHES[match]) for match in held] + [[policy] for policy in POLICIES if "single" in MODES]
