"""The server of a policy: who may ask it, and that it ends answers where the workflow does."""

import importlib.util
import json
import os
import signal
import stat
import subprocess
import sys
import time

import httpx2
import pytest
import torch
from project_copy import copy_project
from small_model import make_model, make_tokenizer
from transformers import LlamaForCausalLM

from prefline import engines
from prefline.config import overlays
from prefline.engines import local_server, policies
from prefline.errors import InputError
from prefline.text import chat
from tools import serve

ASKED = [{"role": "user", "content": "the cat"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A policy whose end of turn is the chat template's alone, neither EOS nor in its generation config."""
    path = tmp_path_factory.mktemp("models") / "policy"
    tokenizer = make_tokenizer(eos_token="<|end_of_text|>")
    return make_model(path, tokenizer, ends=(1,), hidden_size=64, initializer_range=0.2)


def test_a_key_is_made_once_and_is_the_owners(tmp_path, monkeypatch):
    for variable in (serve.KEY_VARIABLE, serve.KEY_FILE_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    key, printed = serve.key_for(tmp_path / "policy")
    assert serve.key_for(tmp_path / "policy") == (key, printed) and len(key) > 30
    assert stat.S_IMODE((tmp_path / "policy/key").stat().st_mode) == 0o600
    shown = subprocess.run(["sh", "-c", f'echo "{printed}"'], capture_output=True, text=True).stdout
    assert shown == f"{key}\n"
    monkeypatch.setenv(serve.KEY_VARIABLE, "mine")
    assert serve.key_for(tmp_path / "policy") == ("mine", "$PREFLINE_API_KEY")


def test_the_server_gets_end_tokens_sampling_and_flags(model, tmp_path, monkeypatch):
    from prefline.engines import vllm

    given = {}
    monkeypatch.setattr(vllm, "engine_arguments", lambda *args, **options: given | {"model": args[0].path})
    found = policies.check(model)
    assert set(
        serve.generation_config(found.end_tokens, {"temperature": 0, "top_p": 1, "top_k": 0})["eos_token_id"]
    ) == {1, 4}
    own, more = serve.split([str(model), "--port", "9", "--", "--max-model-len", "64"])
    assert own == [str(model), "--port", "9"]
    words = serve.command(found, "policy", overlays.read([]), "127.0.0.1", 9, tmp_path, more)
    assert words[-2:] == ["--max-model-len", "64"] and f"--middleware={local_server.FILTER}" in words
    assert words[words.index("--generation-config") + 1] == str(tmp_path)
    assert "--served-model-name=policy" in words


def test_how_to_ask_is_a_command_with_the_system_message():
    said = serve.how_to_ask("http://127.0.0.1:8000/v1", "dpo-1", "$(cat key)", "Don't shout.")
    words = json.loads(
        subprocess.run(
            ["sh", "-c", f'curl() {{ while [ $# -gt 1 ]; do shift; done; printf %s "$1"; }}\n{said}'],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    assert words["model"] == "dpo-1" and words["messages"][0] == {"role": "system", "content": "Don't shout."}


def test_what_cannot_be_served_is_refused_in_one_sentence(model, monkeypatch):
    port = local_server.free_port()
    with pytest.raises(InputError, match="there is no directory"):
        serve.main(["results/models/none"])
    taken = pytest.raises(InputError, match=f"port {port}: Address already in use; choose others")
    with serve.socket.create_server(("127.0.0.1", port)), taken:
        serve.main([str(model), "--port", str(port)])
    with pytest.raises(InputError, match="give --port before --"):
        serve.main([str(model), "--", "--port=9000"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"no vLLM here; on Linux, `make .venv DEVICE=cuda`"):
        serve.main([str(model)])


@pytest.mark.long
def test_vllm_ends_where_the_workflow_does(model, tmp_path):
    pytest.importorskip("vllm")
    greedy = engines.Sampling(temperature=0.0, top_p=1.0, top_k=0, max_tokens=20)

    def answered():
        engine = engines.load("transformers", model, 1, "float32")
        ids = chat.prompt_ids(engine.tokenizer, ASKED)
        return engine.tokenizer, engine.generate([engines.Request(ids, 0)], greedy)[0]

    # The end of turn is made likelier than a token of the answer wherever that was the likeliest.
    _, made = answered()
    changed = LlamaForCausalLM.from_pretrained(model)
    with torch.no_grad():
        changed.lm_head.weight[4] = 1.05 * changed.lm_head.weight[made.ids[5]]
    config = (model / "generation_config.json").read_text()
    changed.generation_config = type(changed.generation_config)()
    changed.save_pretrained(model)
    (model / "generation_config.json").write_text(config)
    tokenizer, made = answered()
    assert made.finish_reason == "stop" and made.ids[-1] == 4

    port, root = local_server.free_port(), copy_project(tmp_path / "project")
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tools.serve", str(model), "--port", str(port), "--dtype", "float32"],
            cwd=root,
            env={**os.environ, "PREFLINE_API_KEY": "secret"},
            stdout=log,
            stderr=log,
        )
    try:
        url, head = f"http://127.0.0.1:{port}", {"Authorization": "Bearer secret"}
        until = time.monotonic() + 600
        while True:
            assert process.poll() is None and time.monotonic() < until, (tmp_path / "log").read_text()
            try:
                if httpx2.get(f"{url}/health", headers=head, trust_env=False).status_code == 200:
                    break
            except httpx2.TransportError:
                time.sleep(1)
        body = {"model": "policy", "messages": ASKED, "temperature": 0, "max_tokens": 20}
        post = f"{url}/v1/chat/completions"
        reply = httpx2.post(post, json=body, headers=head, timeout=100, trust_env=False).json()
        (choice,) = reply["choices"]
        assert choice["finish_reason"] == "stop"
        assert choice["message"]["content"] == tokenizer.decode(made.ids[:-1], skip_special_tokens=True)
        assert reply["usage"]["prompt_tokens"] == len(chat.prompt_ids(tokenizer, ASKED)), "BOS once"
        assert httpx2.post(post, json=body, timeout=100, trust_env=False).status_code == 401
        assert "secret" not in (tmp_path / "log").read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(300)
        finally:
            process.kill()
