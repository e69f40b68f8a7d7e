# Define the one error of the rules, check the project's folder, and find the code that a job's Snakemake uses.

import json
import sys
from pathlib import Path

from snakemake.exceptions import CliException


class Refusal(CliException):
    """A user's mistake: Snakemake prints "Error: " and its sentence.

    Its traceback is hidden, or Snakemake would print lines of the rules, too.
    """

    __traceback__ = property(lambda self: None, lambda self, lines: None)


HERE = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1]
if HERE.resolve() != Path.cwd():
    raise Refusal(f"run Snakemake in the project's folder, where its rules find their files: cd {HERE}")

# The Snakemake of a job, on a cluster or in a group, has the code, config and rules of the plan.
PLAN = Path(".snakemake/prefline_plan.json")
PLAN = None if workflow.is_main_process or not PLAN.is_file() else json.loads(PLAN.read_bytes())
sys.path.insert(0, PLAN["code"] if PLAN else str(Path(workflow.basedir)))
