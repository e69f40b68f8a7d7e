"""A tokenizer whose class reads text otherwise than the model's tokenizer.json."""

import pytest
from small_model import make_model

from prefline import files
from prefline.errors import InputError
from prefline.text import tokenizer_class


@pytest.mark.parametrize(
    ("model_type", "named", "message"),
    [
        (
            "llama",
            "Qwen2Tokenizer",
            "set tokenizer_class in tokenizer_config.json to PreTrainedTokenizerFast",
        ),
        (
            "qwen2",
            "PreTrainedTokenizerFast",
            "does not correct this for the model_type qwen2, so take a model",
        ),
    ],
)
def test_a_class_that_reads_text_otherwise_than_the_tokenizers_file_is_refused(
    tmp_path, model_type, named, message
):
    family = {"llama": "Llama", "qwen2": "Qwen2"}[model_type]
    path = make_model(tmp_path / "model", architecture=f"{family}ForCausalLM")
    config = files.read_json(path / "tokenizer_config.json") | {"tokenizer_class": named}
    files.write_json(path / "tokenizer_config.json", config)
    with pytest.raises(InputError) as error:
        tokenizer_class.check(path, str(path))
    said = f"{path}: transformers loads its tokenizer as Qwen2Tokenizer (tokenizer_class {named}, model_type "
    assert str(error.value).startswith(f"{said}{model_type}), which gives other ids for ")
    assert message in str(error.value)
    if model_type == "llama":
        files.write_json(
            path / "tokenizer_config.json", config | {"tokenizer_class": "PreTrainedTokenizerFast"}
        )
        tokenizer_class.check(path, str(path))
