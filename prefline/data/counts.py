"""Count the rows of data: read, kept, dropped by reason. Stop a job that drops too many of them.

One unusable row never stops a job of thousands. If the share of unusable rows is too large, the config
probably describes other data, and the job stops with three examples.
"""

from collections import Counter

from prefline.errors import InputError

# Reasons to drop a usable row.
FIT = {"duplicate", "identical", "tie", "contaminated", "too_long", "not_taken"}
EXAMPLES = 3
# So few unusable rows never stop a job that has more usable ones.
FEW = 4
# The share of unusable rows that stops a job which has not read all rows: the rest may be better.
NEARLY_ALL = 0.9


class Odd(ValueError):
    """A row that cannot be used. reason: a word for the counts; the message has details."""

    def __init__(self, reason, message=""):
        super().__init__(message or reason.replace("_", " "))
        self.reason = reason


class Counts:
    """The counts of one source's rows."""

    def __init__(self, source):
        """Start at zero. source: str, for messages."""
        self.source = source
        self.read = 0
        self.dropped = Counter()
        self.forms = Counter()
        self.preferences = Counter()  # of 0, 1 and 2, the numbers of preferences between two answers
        self.late = Counter()
        self.examples = []

    @property
    def kept(self):
        """Return the number of rows that were read and not dropped."""
        return self.read - self.dropped.total()

    def drop(self, where, odd):
        """Count a row as dropped. where: str, its place; odd: Odd."""
        self.dropped[odd.reason] += 1
        if odd.reason not in FIT and len(self.examples) < EXAMPLES:
            self.examples.append(f"{where}: {odd}")

    def check(self, max_dropped, whole=True):
        """Raise InputError if more than a share `max_dropped` of the rows is unusable, or no row is left.

        whole: whether all rows have been read; if not, only nearly all of them stop the job, and the method
        returns whether their share is too large so far. Duplicates of another source leave no row and stop
        no job.
        """
        odd = sum(number for reason, number in self.dropped.items() if reason not in FIT)
        too_many = odd > max_dropped * self.read and (odd > FEW or 2 * odd > self.read)
        shown = "; ".join(self.examples)
        if not self.read:
            raise InputError(f"{self.source}: has no rows; name a source with data")
        if too_many and (whole or odd > NEARLY_ALL * self.read):
            raise InputError(
                f"{self.source}: {self.sentence()}; more than data.max_dropped ({max_dropped:g}) allows. "
                f"For example, {shown}. Correct the data or its columns in the config, or raise the key"
            )
        if not self.kept and not self.dropped["duplicate"]:
            raise InputError(
                f"{self.source}: no row is left; {self.sentence()}{'. For example, ' if shown else ''}{shown}"
            )
        return too_many

    def sentence(self):
        """Return the counts for messages: "120 rows read, 80 kept, dropped: 30 duplicate, 10 too_long"."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted((+self.dropped).items()))
        return f"{self.read} rows read, {self.kept} kept, dropped: {reasons or 'none'}"

    def as_dict(self):
        """Return the counts for a json file."""
        return {
            "source": self.source,
            "read": self.read,
            "kept": self.kept,
            "dropped": dict(+self.dropped),
            "forms": dict(self.forms),
        }
