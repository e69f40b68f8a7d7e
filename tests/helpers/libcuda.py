"""A stand-in for NVIDIA's library libcuda, compiled for a test."""

import shutil
import subprocess

import pytest

SOURCE = """
#include <stdlib.h>
#include <string.h>
int cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
int cuInit(unsigned flags) { return FAILURE; }
int cuDeviceGetCount(int *count) { *count = strlen(getenv("CUDA_VISIBLE_DEVICES")) ? 1 : 0; return 0; }
int cuDeviceGet(int *device, int number) { *device = number + 40; return 0; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "NVIDIA H200", length); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 150000000000; return device != 40; }
int cuDeviceGetAttribute(int *value, int which, int device) { *value = which == 75 ? 9 : 0; return 0; }
"""


def compiled(folder, version=13000, failure=0):
    """The path (str) of a library with one GPU: version, of its CUDA; failure, what cuInit says."""
    if not (compiler := shutil.which("cc")):
        pytest.skip("no C compiler")
    (folder / "cuda.c").write_text(SOURCE)
    made = folder / "libcuda.so.1"
    defined = [f"-DVERSION={version}", f"-DFAILURE={failure}"]
    subprocess.run([compiler, "-shared", "-fPIC", *defined, "-o", made, folder / "cuda.c"], check=True)
    return str(made)
