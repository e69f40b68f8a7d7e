"""One module per rule, run from the repository's root as `python -m scripts.NAME`."""

import logging

# On a CPU it warns in every process that peft is imported in, of a kernel that nothing here needs.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
