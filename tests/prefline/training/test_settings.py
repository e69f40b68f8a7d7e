"""The settings of a training: its flags, and what of them shapes the weights."""

import argparse
import dataclasses

from prefline.config import schema
from prefline.training import settings


def test_flags_are_the_keys_of_the_schema():
    parser = argparse.ArgumentParser()
    settings.Settings.add_flags(parser)
    known = {action.dest for action in parser._actions if action.required}
    beside = {name.replace("-", "_") for name in (*settings.PATHS, *settings.PACE)}
    assert known - beside == {"seed", *schema.properties(schema.at("training_defaults"))}
    assert known == {field.name for field in dataclasses.fields(settings.Settings)} - {"params"}
    assert all(action.default is None for action in parser._actions if action.dest != "help")


def test_what_shapes_the_weights_is_in_the_params_and_nothing_else():
    parser = argparse.ArgumentParser()
    settings.Settings.add_flags(parser)
    values = {action.dest: 1 for action in parser._actions if action.required} | {"beta": 0.1}
    made = settings.Settings.of(values)
    assert made.params["beta"] == 0.1 and made.params.keys() == {
        *("beta", "seed"),
        *schema.properties(schema.at("training_defaults")),
    }
    assert made.save_steps == 1 and not hasattr(made, "beta")
