"""Read the config as Snakemake merges it, for commands that people run beside Snakemake."""

from prefline import paths
from prefline.config import config_text, loading
from prefline.errors import InputError

FILE = "config.yaml"


def add(parser):
    """Add --configfile, as Snakemake takes it, to an argparse parser."""
    parser.add_argument(
        "--configfile", nargs="+", default=[], metavar="FILE", help=f"overlays of {FILE}, as for Snakemake"
    )


def read(overlays):
    """Return the rules' config: config.yaml under `overlays` (list of str), the last strongest."""
    from snakemake.utils import update_config

    config_text.check(FILE)
    config = config_text.read_yaml(FILE)
    for overlay in overlays:
        if wrong := paths.mistake(overlay, "file"):
            raise InputError(f"--configfile: {wrong}")
        config_text.check(overlay)
        update_config(config, config_text.read_yaml(overlay) or {})
    return loading.load(config, [*overlays, FILE])
