"""Hide from libraries the optional packages that they would import and no job of the workflow uses them for.

transformers imports scikit-learn, scipy and pandas if they are installed, for a kind of decoding that nothing
here uses. Such imports took a third of a job's start. The installed packages depend on the environment: one
rule's has few of them, the common one has all. So each library is told, in every environment, that they are
not installed.

Only the library is told. Other code can import the package: a user's reward, a model's code, an evaluation
harness, a script of the project. A package that is already imported is not hidden, so a job that wants a
library to use one imports it first (adapters.import_packages).
"""

import contextlib
import sys
from importlib.machinery import PathFinder

# Packages, and the libraries that do without each. Libraries that ask one another are told the same.
HIDDEN = {
    "sklearn": ("transformers",),  # for assisted decoding and metrics of GLUE
    "scipy": ("transformers",),  # for losses of object detection
    "datasets": ("transformers",),  # for its Trainer, to know a Dataset when it sees one
    "wandb": ("accelerate", "transformers", "trl"),  # to report to it; our own trackers.py does
    "bitsandbytes": ("peft",),  # for adapters on quantized weights
    "boto3": ("accelerate", "tensorboard"),  # for trainings on SageMaker, and event files on S3
    "trio": ("httpcore2",),  # for requests within another event loop than asyncio's
}
# Imports what a model's own code names, to see that it is there.
EXEMPT = "transformers.dynamic_module_utils"


class Finder(PathFinder):
    """The import system's finder of modules in `sys.path`, which hides HIDDEN packages."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        if fullname in HIDDEN:
            module = importer()
            if module.partition(".")[0] in HIDDEN[fullname] and module != EXEMPT:
                return None
        return super().find_spec(fullname, path, target)


def importer():
    """Return the name (str) of the module whose code imports another, or asks whether it could."""
    frame = sys._getframe(2)
    while (name := frame.f_globals.get("__name__", "")).partition(".")[0] == "importlib":
        frame = frame.f_back
    return name


def hide():
    """Hide the HIDDEN packages from their libraries, in what this process imports from now on."""
    sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]


@contextlib.contextmanager
def absent(package):
    """Have nobody find `package` (str) within; one in memory stays there."""

    class Refusing:
        @staticmethod
        def find_spec(fullname, path=None, target=None):
            if fullname == package:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    sys.meta_path.insert(0, Refusing)
    try:
        yield
    finally:
        sys.meta_path.remove(Refusing)
