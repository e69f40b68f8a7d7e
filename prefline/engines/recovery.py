"""Continue without the requests on which an engine dies.

An engine that dies loses all requests that it was decoding. They are tried again in halves until the one that
killed it is alone: that request is given up and named, and the others continue. An engine that dies on one
request after another is broken, which is an error.
"""

from prefline.engines import Completion

# Requests given up in a row that are the engine's fault, not theirs.
HOPELESS = 3


class Crash(Exception):
    """The engine died; `__cause__` is the reason."""


def stream(run, requests, batch_size):
    """Yield (index, Completion) of each request, in the order in which they end.

    run: function of [(index, Request)] that yields (index, Completion) and raises Crash when the engine dies;
    called again, it restarts the engine. batch_size: most requests that the engine decodes together; it takes
    them in order. A request that is given up has the finish_reason "error". Raises RuntimeError if HOPELESS
    requests are given up with nothing finished in between.
    """
    given_up = 0
    # Parts still to run, the next one last; a part is (requests, whether the engine died on it before).
    parts = [(list(enumerate(requests)), False)]
    while parts:
        part, again = parts.pop()
        left = dict(part)
        try:
            for index, completion in run(part):
                del left[index]
                given_up = 0
                yield index, completion
        except Crash as crash:
            crash_left = list(left.items())
            suspects, rest = crash_left[:batch_size], crash_left[batch_size:]
            names = ", ".join(request.name for _, request in suspects[:3])
            more = " …" if len(suspects) > 3 else ""
            print(f"the engine died ({crash}) on one of {len(suspects)} requests: {names}{more}", flush=True)
            if rest:
                parts.append((rest, False))
            if len(suspects) > 1:
                middle = (len(suspects) + 1) // 2
                parts += [(suspects[middle:], True), (suspects[:middle], True)]
            elif not again:
                parts.append((suspects, True))
            else:
                index, request = suspects[0]
                given_up += 1
                if given_up == HOPELESS:
                    raise RuntimeError(
                        f"the engine died on {HOPELESS} requests in a row, the last {request.name}"
                    ) from crash
                print(f"{request.name} is given up: the engine died on it again", flush=True)
                yield index, Completion([], "error")
