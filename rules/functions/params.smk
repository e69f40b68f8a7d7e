# Lay params.yaml, and the recipes that it names, over config.yaml.

from prefline.config import experiment
from prefline.errors import InputError

try:
    PARAMS = experiment.files()
except InputError as error:
    raise Refusal(str(error))

for file in PARAMS:

    configfile: file


# Another value of this key came from elsewhere, where it has no effect: the schema refuses it.
if config.get("recipes") == PARAMS[:-1]:
    del config["recipes"]

# Files of the command line come first in this list, and overlay the project's own.
GIVEN = len(workflow.config_settings.configfiles)
FILES = [*PARAMS, *workflow.configfiles[:GIVEN], *workflow.configfiles[GIVEN : GIVEN + 1]]
