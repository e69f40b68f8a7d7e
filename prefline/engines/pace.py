"""A job's resources for a language model: they set its speed and place, and change no answer."""

from dataclasses import dataclass

from prefline.servers import endpoint
from prefline.servers.endpoint import Endpoint


@dataclass(frozen=True)
class Pace:
    """The resources of a job that asks a language model, as ENGINE of rules/functions/engines.smk gives them.

    batch_size: answers made together, or requests in flight; endpoint: what is asked, None where the job runs
    a policy itself; journal: work/journal, where what an endpoint costs is kept. The others are of a vLLM
    that the job starts: tensor_parallel_size, GPUs that share the model; gpu_memory_percent, of each;
    max_num_batched_tokens, of one step, 0 for vLLM's own number.
    """

    batch_size: int
    endpoint: Endpoint | None
    journal: str
    tensor_parallel_size: int = 1
    gpu_memory_percent: int = 90
    max_num_batched_tokens: int = 0

    def of_vllm(self):
        """Return what a vLLM of the job's own is given (dict); see `vllm.engine_arguments`."""
        return {
            "tensor_parallel_size": self.tensor_parallel_size,
            "gpu_memory_percent": self.gpu_memory_percent,
            "max_num_batched_tokens": self.max_num_batched_tokens,
        }


def add(parser):
    """Add the flags of a `Pace` to an argparse parser: ENGINE_FLAGS of rules/functions/engines.smk."""
    for flag, kind, about in (
        ("--batch-size", int, "answers made together, or requests in flight"),
        ("--endpoint", endpoint.read, "what is asked, JSON; null: the job runs the model"),
        ("--tensor-parallel-size", int, "GPUs that share the model"),
        ("--gpu-memory-percent", int, "of each GPU, for vLLM"),
        ("--max-num-batched-tokens", int, "of a step of vLLM; 0: its default"),
    ):
        parser.add_argument(flag, type=kind, required=True, help=about)
