#!/bin/sh
# Copy the project of the image to the working directory, which is a volume, and run a command there.
#
# The copy replaces the code and config.yaml by those of the image. It keeps all other files of the volume:
# results, work, .snakemake, logs, and overlays of the config.
set -eu
project=$(dirname "$(dirname "$(readlink -f "$0")")")
if ! [ -w . ]; then
    echo "error: user $(id -u) cannot write to $PWD; mount a volume there that this user can write to" >&2
    exit 1
fi
cp -R --preserve=mode,timestamps "$project/." .
exec "$@"
