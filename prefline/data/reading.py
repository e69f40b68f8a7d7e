"""Read the data of an entrance: rows in one form, from sources in any known form, and counts of dropped rows.

All data enters the workflow here: prompts, given pairs, and the data of trainings. An unusable row is
dropped and counted by its reason; if the share of such rows is above data.max_dropped, the job stops.
"""

import array
import itertools
import math

from prefline import seeds, unicode
from prefline.data import choices, entrances, forms, messages, sources
from prefline.data.counts import Counts, Odd
from prefline.errors import InputError

# Number of rows to inspect for the columns before reading begins.
FIRST = 100
CHECK_EVERY = 10_000


def policy(args):
    """Return the config's `data` (dict) from the attributes of a script's arguments."""
    return {"special_tokens": args.special_tokens, "max_dropped": args.max_dropped}


class Data:
    """The rows of an entrance. Iterate over them once; then `finish` checks and prints the counts.

    A row is the dict of its entrance (forms.ENTRANCES) with "where", its place (str), and "source", the
    number of its source.
    """

    def __init__(
        self,
        entrance,
        given,
        columns,
        rules,
        special=None,
        system=None,
        unpaired=False,
        limit=None,
        write=None,
    ):
        """Open the sources `given` (as sources.listed takes them); columns: the config's, or "auto".

        rules: as `policy` returns them; special: function of a text that returns the special tokens in it
        (list of str), as chat.special_tokens_in does, or None; system: str or None, for prompts without a
        system message; unpaired: whether pairs may be completions with labels; limit: int, number of rows
        to read of each source, or None for all; write: see messages.read.
        """
        self.unpaired = unpaired
        self.limit = limit
        self.entrance = entrance
        self.given = sources.listed(given)
        self.columns = columns
        self.policy = rules
        self.special = special
        self.write = write
        self.arguments = {} if system is None else {"system": system}
        self.counts = [Counts(one["source"]) for one in self.given]
        weights = [one["weight"] for one in self.given]
        if any(weight is None for weight in weights) and any(weight is not None for weight in weights):
            raise InputError("give a weight to all data sources or to none: " + ", ".join(self.names))
        for one in self.given:
            weight = one["weight"]
            if weight is not None and not (math.isfinite(weight) and weight > 0):
                raise InputError(f"{one['source']}: a weight is a finite number above 0, not {weight!r}")

    @property
    def names(self):
        """Return the sources (list of str)."""
        return [one["source"] for one in self.given]

    def __iter__(self):
        for number, counts in enumerate(self.counts):
            for where, record in itertools.islice(self._records(number), self.limit):
                counts.read += 1
                if counts.read % CHECK_EVERY == 0:
                    counts.check(self.policy["max_dropped"], whole=False)
                try:
                    row = self._row(number, record)
                except Odd as odd:
                    counts.drop(where, odd)
                    continue
                counts.forms[row.pop("form")] += 1
                yield {**row, "where": where, "source": number}

    def drop(self, row, reason, message=""):
        """Count a row as dropped. row: dict, as yielded; reason, message: str, as Odd takes them."""
        self.counts[row["source"]].drop(row["where"], Odd(reason, message))

    def refuse(self, row, error):
        """Count a row as dropped that the chat template refuses with `error` (Exception)."""
        self.counts[row["source"]].drop(row["where"], messages.refused(row.get("messages", []), error))

    def mix(self, rows, key, seed):
        """Return `rows` (list of dict), reduced so that the sources have the shares of their weights.

        See `chosen`; the rows are in their present order. Without weights it has all rows.
        """
        if not self.weighted:
            return rows
        draws = [seeds.derive(seed, "mix", key(row)) for row in rows]
        return [rows[place] for place in self.chosen([row["source"] for row in rows], draws)]

    @property
    def weighted(self):
        """Tell whether the sources have weights."""
        return self.given[0]["weight"] is not None

    def chosen(self, sources, draws):
        """Return the places (sorted list of int) of the largest mix with the shares of the sources' weights.

        sources: the number of each row's source; draws: a random number for each row. Of each source the mix
        has the rows with the lowest draws. The others are counted as dropped.
        """
        weights = [one["weight"] for one in self.given]
        places = [[] for _ in weights]
        for place, source in enumerate(sources):
            places[source].append(place)
        for counts, found in zip(self.counts, places, strict=True):
            if not found:
                counts.check(self.policy["max_dropped"])
                raise InputError(
                    f"{counts.source}: no row is left for its weight; {counts.sentence()}; remove the source"
                )
        unit = min(len(found) / weight for found, weight in zip(places, weights, strict=True))
        kept = []
        for found, weight in zip(places, weights, strict=True):
            order = sorted(found, key=lambda place: (draws[place], place))
            kept += order[: round(unit * weight)]
            self.leave(order[round(unit * weight) :], sources)
        return sorted(kept)

    def leave(self, places, sources):
        """Count the rows at `places` (list of int) as not taken; sources: the number of each row's source."""
        for place in places:
            self.counts[sources[place]].dropped["not_taken"] += 1

    def finish(self):
        """Print the counts of each source; raise InputError if too many rows are unusable or none is left."""
        for counts in self.counts:
            said = counts.preferences
            if said[0] > said[2]:  # as a tie it would be rare
                raise InputError(
                    f"{counts.source}: {said[0]} preferences are 0, {said[1]} are 1 and {said[2]} are 2; 0 "
                    "may mean either answer or a tie. If they are 0 and 1, name the column preferred_index "
                    "under `columns`, and exchange output_1 and output_2 if 0 means the second; remove ties"
                )
            whole = self.limit is None or counts.read < self.limit
            if counts.check(self.policy["max_dropped"], whole):
                print(
                    f"warning: {counts.source}: {counts.sentence()}; if the rest is like these rows, it is "
                    "more than data.max_dropped allows"
                )
            found = ", ".join(f"{number} {form}" for form, number in sorted(counts.forms.items()))
            print(f"{counts.source}: {counts.sentence()}; forms: {found}")
            if counts.late:
                said = ", ".join(f"{name} ({number} rows)" for name, number in sorted(counts.late.items()))
                print(
                    f"warning: {counts.source}: not used, though it may belong to the text, and not in the "
                    f"first {FIRST} rows: {said}; name it under `columns` if it does"
                )
            left = sum(number for form, number in counts.forms.items() if messages.LEFT_OUT in form)
            if left:
                print(
                    f"warning: {counts.source}: {left} rows have reasoning beside the content "
                    f"({', '.join(messages.REASONING_KEYS)}), which is left out; to train on it, write it "
                    "into the content, between the reasoning markers of the model's chat template"
                )
        if not any(counts.kept for counts in self.counts):
            said = "; ".join(f"{counts.source}: {counts.sentence()}" for counts in self.counts)
            raise InputError(f"no row is left of any source: {said}")

    def as_dict(self):
        """Return the counts of all sources, and of each, for a json file."""
        total = {"read": sum(counts.read for counts in self.counts), "dropped": {}}
        for counts in self.counts:
            for reason, number in counts.dropped.items():
                total["dropped"][reason] = total["dropped"].get(reason, 0) + number
        return total | {"sources": [counts.as_dict() for counts in self.counts]}

    def _records(self, number):
        """Yield (where, {field: value} or Odd) of a source, with the columns that its first rows have."""
        source, own = self.given[number]["source"], self.given[number]["columns"]
        rows = sources.records(source)
        first = list(itertools.islice(rows, FIRST))
        found = [record for _, record in first if isinstance(record, dict)]
        columns = own or self.columns
        columns = columns_of(self.entrance, source, columns, found) if found else {}
        if "label" in columns and not self.unpaired:
            raise InputError(
                f"{source}: completions with labels are not pairs; set method: kto for all runs on pairs"
            )
        stored = forms.stored_answers(source, columns, found)
        if sources.keeps_columns_apart(source):
            roots = {column for name in columns.values() for column in (name, name.partition(".")[0])}
            rows.close()
            rows, first = sources.records(source, roots), []
        used = {name for column in columns.values() for name in (column, column.partition(".")[0])}
        unused = forms.CONTEXT - used - {name for row in found for name in row if row[name]}
        late = self.counts[number].late
        for where, record in itertools.chain(first, rows):
            if not isinstance(record, Odd):
                late.update(name for name in unused & record.keys() if record[name])
            fields = record if isinstance(record, Odd) else _fields(record, columns)
            yield where, fields if isinstance(fields, Odd) else {**fields, forms.STORED: stored}

    def _row(self, number, fields):
        if isinstance(fields, Odd):
            raise fields
        preference = choices.preference(fields.get("preference"))
        if preference in (0, 1, 2):
            self.counts[number].preferences[int(preference)] += 1
        row = forms.ENTRANCES[self.entrance]({**fields, forms.WRITE: self.write}, **self.arguments)
        if not unicode.is_valid(row):
            raise Odd("not_unicode", unicode.FAULT)
        if self.policy["special_tokens"] == "drop" and self.special is not None:
            texts = [row.get(name) for name in ("text", "chosen", "rejected")]
            texts += [message["content"] for message in row.get("messages", [])]
            held = self.special("\n".join(text for text in texts if text is not None))
            if held:
                raise Odd("special_token", f"has the text of the special token {held[0]}")
        return row


def columns_of(entrance, source, columns, rows):
    """Return {field: column} of a source; rows: its first rows (list of dict). Prints what "auto" finds.

    columns: the config's ({field: column or None}), or "auto". Raises InputError for a column that no row
    has, and for data in no known form.
    """
    names = names_of(rows)
    if columns == "auto":
        empty = {name for name in names if all(_is_null(forms.lookup(row, name)) for row in rows)}
        try:
            detected = forms.detect(entrance, names, empty) or forms.detect(entrance, names)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
        if detected is None:
            known = "; ".join(
                " and ".join("|".join(names) for names in fields.values())
                for fields in forms.FORMS[entrance].values()
            )
            raise InputError(
                f"{source}: the columns {sorted(rows[0])} are of no known form ({known}); name them under "
                "`columns`"
            )
        form, columns = detected
        said = ", ".join(f"{field}: {name}" for field, name in columns.items())
        print(f"{source}: read as {form} ({said})")
    columns = {field: column for field, column in columns.items() if column is not None}
    entrances.check(entrance, columns, f"{source}: columns")
    for column in columns.values():
        if all(forms.lookup(row, column) is forms.MISSING for row in rows):
            known = sorted({name for row in rows for name in row})
            raise InputError(
                f"{source}: no column {column!r}, only {known}; set it under `columns`, or set columns: auto"
            )
    used = {name for column in columns.values() for name in (column, column.partition(".")[0])}
    unused = [name for name in names if name in forms.CONTEXT - used and any(row.get(name) for row in rows)]
    if unused:
        print(
            f"warning: {source}: not used, though it may belong to the text: {', '.join(unused)}; name it "
            "under `columns` if it does"
        )
    return columns


def names_of(rows):
    """Return the names of the columns of rows (list of dict), in order; names within structs have a dot."""
    names = {}
    for row in rows:
        for name, value in row.items():
            names[name] = True
            if isinstance(value, dict):
                names |= {f"{name}.{inner}": True for inner in value}
    return list(names)


def _fields(record, columns):
    found = {field: forms.lookup(record, column) for field, column in columns.items()}
    if all(value is forms.MISSING for value in found.values()):
        return Odd("no_column", f"has none of the columns {', '.join(columns.values())}")
    # A reward that is no number is odd; elsewhere NaN is how tables write that there is nothing.
    return {
        field: None if value is forms.MISSING or (_is_null(value) and not field.endswith("reward")) else value
        for field, value in found.items()
    }


def _is_null(value):
    return value is None or value is forms.MISSING or (isinstance(value, float) and math.isnan(value))


class Kept:
    """The sources and draws of rows that are already written, of which some may be left out at the end.

    data: the Data whose rows they are.
    """

    def __init__(self, data):
        self.data = data
        self.sources, self.draws, self.tests = array.array("i"), array.array("q"), bytearray()
        self._places = None

    @property
    def places(self):
        """Return the places (sequence of int) of the rows that are left."""
        return range(len(self.tests)) if self._places is None else self._places

    def add(self, row, draw):
        """Add a row (dict with "source" and "split"); draw: int, a random number for `mix`."""
        self.sources.append(row["source"])
        self.draws.append(draw)
        self.tests.append(row["split"] == "test")

    def mix(self):
        """Leave only the rows of Data.chosen."""
        self._places = self.data.chosen(self.sources, self.draws)

    def leave(self, places):
        """Leave only the rows at `places` (sorted list of int), which are left so far."""
        self.data.leave(sorted(set(self.places) - set(places)), self.sources)
        self._places = places

    def splits(self):
        """Return the numbers of rows that are left, {"train": …, "test": …}."""
        tests = sum(self.tests[place] for place in self.places)
        return {"train": len(self.places) - tests, "test": tests}
