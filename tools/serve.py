"""Serve a policy with vLLM's OpenAI server, with the workflow's template, end tokens and sampling.

    python -m tools.serve results/models/dpo-1
    python -m tools.serve results/models/dpo-1 --host 0.0.0.0 --port 9000
    python -m tools.serve results/models/dpo-1 -- --max-model-len 8192 --tensor-parallel-size 2

Flags after -- go to vLLM, and replace those of this program. The policy is named as its directory. No path
answers without the key: the one in PREFLINE_API_KEY or in the file that PREFLINE_API_KEY_FILE names, or else
a new one in work/serve-NAME/key, which only you may read. Requests that name no sampling get that of
`vibe_check` in the config. Before the start, a command that asks the server is printed.
"""

import ctypes
import importlib.util
import json
import os
import secrets
import shlex
import socket
import sys
from pathlib import Path

from prefline import errors, files
from prefline.config import overlays, section
from prefline.engines import local_server, policies
from prefline.errors import InputError
from prefline.servers import only_with_key
from prefline.servers.client import KEY_FILE_VARIABLE, KEY_VARIABLE, environment_key

ROOT = Path("work")
# Requests decoded together at most; further ones wait.
BATCH_SIZE = 256
QUESTION = "What sound does a cow make?"


def generation_config(end_tokens, sampling):
    """Return the generation config (dict) that the server follows.

    end_tokens: list of int, which end an answer in the workflow, more than the model's own file may have;
    sampling: dict with temperature, top_p and top_k, of requests that have none.
    """
    return {
        "eos_token_id": end_tokens,
        "do_sample": sampling["temperature"] > 0,
        "temperature": sampling["temperature"],
        "top_p": sampling["top_p"],
        "top_k": sampling["top_k"],
    }


def key_for(folder):
    """Return (key, words for the shell that print it): the environment's, or one in the file folder/key."""
    if key := environment_key():
        named = os.environ.get(KEY_VARIABLE, "").strip()
        return key, f"${KEY_VARIABLE}" if named else f'$(cat "${KEY_FILE_VARIABLE}")'
    path = folder / "key"
    key = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    if not key:  # or the program was stopped before it wrote one
        key = secrets.token_urlsafe(32)
        folder.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(key + "\n")
    return key, f"$(cat {shlex.quote(str(path))})"


def how_to_ask(url, name, key, system):
    """Return the command (str) that asks the server a question; key: words that print the key."""
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": QUESTION})
    body = json.dumps({"model": name, "messages": messages}, ensure_ascii=False)
    return (
        f'curl {url}/chat/completions -H "Authorization: Bearer {key}" \\\n'
        f"    -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    )


def check_port(host, port):
    """Raise InputError unless a program may listen there."""
    if not 0 < port < 2**16:
        raise InputError(f"--port {port}: ports are from 1 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "no address"
        raise InputError(f"{host}, port {port}: {why}; choose others with --host and --port") from None


def command(found, name, config, host, port, folder, more):
    """Return the words (list of str) that start the server.

    found: ModelFiles; config: the experiment's; folder: with the generation config; more: vLLM's own flags.
    """
    from prefline.engines.vllm import engine_arguments

    generate = config["generate"]
    arguments = engine_arguments(
        found,
        BATCH_SIZE,
        generate["dtype"],
        config["seed"],
        tensor_parallel_size=1,
        gpu_memory_percent=90,
        max_num_batched_tokens=0,
        **generate["vllm"],
    )
    arguments["generation_config"] = str(folder)
    return [*local_server.program(name, host, port), *local_server.command_line(arguments), *more]


def split(words):
    """Return the words before -- and those after it (lists of str)."""
    if "--" not in words:
        return words, []
    place = words.index("--")
    return words[:place], words[place + 1 :]


def main(argv=None):
    own, more = split(sys.argv[1:] if argv is None else argv)
    parser = section.parser(__doc__)
    parser.add_argument("model", help="the policy's directory")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: also for others")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on")
    section.add(parser, "generate", "dtype", optional=("dtype",))
    overlays.add(parser)
    args = parser.parse_args(own)

    for flag in ("--host", "--port"):
        if any(word.split("=")[0] == flag for word in more):
            raise InputError(f"give {flag} before --, for the printed command to name it")
    if importlib.util.find_spec("vllm") is None:
        raise InputError(
            "there is no vLLM here; on Linux, `make .venv DEVICE=cuda` installs it for NVIDIA GPUs, and "
            "`make .venv DEVICE=cpu` for x86-64 CPUs; elsewhere, python -m tools.chat needs none"
        )
    config = overlays.read(args.configfile)
    config["generate"]["dtype"] = getattr(args, "dtype", config["generate"]["dtype"])
    found = policies.check(args.model)
    check_port(args.host, args.port)
    name = Path(args.model).resolve().name
    folder = ROOT / f"serve-{name}"  # work/*/*/ are journals and trainings
    words = command(found, name, config, args.host, args.port, folder, more)
    vibe_check = config["vibe_check"]
    files.write_json(folder / "generation_config.json", generation_config(found.end_tokens, vibe_check))
    key, printed = key_for(folder)
    asked = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(args.host, args.host)
    asked = f"[{asked}]" if ":" in asked else asked
    print("When vLLM says `Application startup complete`, ask it:\n")
    print(how_to_ask(f"http://{asked}:{args.port}/v1", name, printed, vibe_check["system"]), flush=True)
    print("\nCtrl-C ends it.", flush=True)
    from prefline.engines.vllm import set_environment

    os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO")
    set_environment(apart=True)
    os.environ |= {only_with_key.VARIABLE: key, "PYTHONPATH": local_server.python_path()}
    if sys.platform.startswith("linux"):  # it may outlive the terminal, under nohup, unlike a job
        ctypes.CDLL(None).prctl(1, 0)
    os.execv(words[0], words)


if __name__ == "__main__":
    errors.run(main)
