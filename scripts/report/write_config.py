"""Write the config of an experiment as YAML, complete and checked, as the rules used it.

python -m scripts.report.write_config --config "$CONFIG" --out results/experiments/NAME/config.yaml
"""

import json

import yaml

from prefline import errors, files
from prefline.config import section


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--config", required=True, type=json.loads, help="the config, as JSON")
    parser.add_argument("--out", required=True, help="the same as YAML")
    args = parser.parse_args(argv)
    files.write_text(args.out, yaml.safe_dump(args.config, sort_keys=False, allow_unicode=True))


if __name__ == "__main__":
    errors.run(main)
