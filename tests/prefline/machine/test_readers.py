"""Jobs that only read a model are refused with the cheapest change that fits."""

import dataclasses
import re

import pytest

from prefline.machine.memory import readers, sizes
from prefline.machine.memory.readers import Reader

SMALL, LARGE, HUGE = (sizes.typical(billions) for billions in (1.5, 8, 70))
ONE, EIGHT = (24, 1), (24, 8)
REFUSED = {
    "a judge on too few": (
        Reader(LARGE, "vllm", "endpoints.big", "bfloat16", 65536, 16, 1, 90),
        EIGHT,
        "gpu: 2",
    ),
    "a judge in float32": (
        Reader(LARGE, "vllm", "endpoints.big", "float32", 4096, 16, 1, 90),
        ONE,
        "endpoints.big.dtype: bfloat16",
    ),
    "a policy that fp8 makes small": (
        Reader(sizes.typical(14), "vllm", "generate", "bfloat16", 2048, 16, 1, 90),
        ONE,
        "generate.vllm.quantization: fp8",
    ),
    "many completions at once": (
        Reader(SMALL, "decoding", "generate", "bfloat16", 8192, 256),
        ONE,
        r"batch_size: \d+",
    ),
    "a large policy by transformers": (
        Reader(sizes.typical(14), "decoding", "generate", "bfloat16", 2048, 1),
        EIGHT,
        "generate.engine: vllm and gpu: 2",
    ),
    "log-probabilities in float32": (
        Reader(LARGE, "scoring", "logps", "float32", 2048, 4096),
        ONE,
        "logps.dtype: bfloat16",
    ),
    "many tokens at once": (
        Reader(LARGE, "scoring", "logps", "bfloat16", 2048, 65536),
        ONE,
        r"batch_tokens: \d+",
    ),
    "a merge": (Reader(HUGE, "merging", "", "bfloat16"), ONE, "gpu: 0"),
    "nothing helps": (Reader(HUGE, "scoring", "logps", "bfloat16", 2048, 1024), ONE, None),
}


@pytest.mark.parametrize(("job", "machine", "change"), REFUSED.values(), ids=REFUSED)
def test_a_job_that_does_not_fit_is_refused_with_the_cheapest_change(job, machine, change):
    said = readers.complaint(job, *machine)
    assert re.match(r"about \d+ GB for the model \S+, the card has 24\b", said) and "\n" not in said
    assert re.search(f"; set {change}, which" if change else "; take a smaller model or a larger card$", said)
    assert readers.complaint(dataclasses.replace(job, model=sizes.typical(0.5), at_once=1), 80, 1) is None
