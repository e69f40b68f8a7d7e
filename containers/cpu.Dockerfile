# Made by `make containers` from envs/: make changes there.
FROM condaforge/miniforge3:25.9.1-0
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1

#   source: envs/cpu/data.yaml
#   prefix: /conda-envs/9f2e942e22db08db58a2934dbdda8163
#   # Prompts, pairs, token ids: tables and tokenizers, no torch.
#   # Made by `make envs` from envs/direct.toml and envs/cpu.lock.txt: make changes there.
#   channels:
#     - conda-forge
#     - nodefaults
#   dependencies:
#     - python=3.11.7
#     - pip=24.0
#     - pip:
#         - annotated-doc==0.0.7
#         - annotated-types==0.8.0
#         - antlr4-python3-runtime==4.9.3
#         - anyio==4.16.0
#         - attrs==26.1.0
#         - click==8.5.1
#         - datasets==5.2.0
#         - dill==0.4.1
#         - filelock==4.2.11
#         - fsspec==2026.9.0
#         - h11==0.16.0
#         - hf-xet==1.8.0
#         - httpcore2==2.16.2
#         - httpx2==2.16.2
#         - huggingface-hub==2.4.0
#         - idna==3.20
#         - jinja2==3.1.6
#         - jsonschema-specifications==2025.9.1
#         - jsonschema==4.26.0
#         - latex2sympy2-extended==1.11.0
#         - markdown-it-py==4.3.0
#         - markupsafe==3.0.4
#         - math-verify==0.9.0
#         - mdurl==0.1.2
#         - mpmath==1.3.0
#         - multiprocess==0.70.19
#         - numpy==2.3.5
#         - packaging==25.0
#         - pandas==3.1.1
#         - pyarrow==26.0.1
#         - pydantic-core==2.50.4
#         - pydantic==2.14.3
#         - pygments==2.21.0
#         - python-dateutil==2.9.0.post0
#         - pyyaml==6.0.3
#         - referencing==0.37.0
#         - regex==2026.11.15
#         - rich==15.0.0
#         - rpds-py==2026.9.1
#         - safetensors==0.8.0
#         - shellingham==1.5.4
#         - six==1.17.0
#         - sympy==1.14.0
#         - tokenizers==0.23.3
#         - tqdm==4.70.1
#         - transformers==5.19.0
#         - truststore==0.10.5
#         - typer==0.29.2
#         - typing-extensions==4.16.0
#         - typing-inspection==0.4.5
#         - xxhash==4.1.0
RUN mkdir -p /conda-envs/9f2e942e22db08db58a2934dbdda8163
COPY envs/cpu/data.yaml /conda-envs/9f2e942e22db08db58a2934dbdda8163/environment.yaml
RUN conda env create --prefix /conda-envs/9f2e942e22db08db58a2934dbdda8163 --file /conda-envs/9f2e942e22db08db58a2934dbdda8163/environment.yaml \
    && conda clean --all --yes

#   source: envs/cpu/evaluate.yaml
#   prefix: /conda-envs/0d7a014e8e6f0ab6092039abd7c9b69b
#   # The benchmarks' libraries.
#   # Made by `make envs` from envs/direct.toml and envs/cpu.lock.txt: make changes there.
#   channels:
#     - conda-forge
#     - nodefaults
#   dependencies:
#     - python=3.11.7
#     - pip=24.0
#     - pip:
#         - --extra-index-url https://download.pytorch.org/whl/cpu
#         - absl-py==2.5.1
#         - accelerate==1.15.0
#         - aiohappyeyeballs==2.7.1
#         - aiohttp==3.14.5
#         - aiosignal==1.4.0
#         - alpaca-eval==0.6.6
#         - annotated-doc==0.0.7
#         - annotated-types==0.8.0
#         - anyio==4.16.0
#         - attrs==26.1.0
#         - certifi==2026.10.18
#         - chardet==6.0.0.post1
#         - charset-normalizer==3.5.2
#         - click==8.5.1
#         - cloudpickle==3.1.2
#         - colorama==0.4.6
#         - dataproperty==1.1.1
#         - datasets==5.2.0
#         - defusedxml==0.7.1
#         - dill==0.4.1
#         - evaluate==0.4.6
#         - filelock==4.2.11
#         - fire==0.7.1
#         - frozenlist==1.8.0
#         - fsspec==2026.9.0
#         - h11==0.16.0
#         - hf-xet==1.8.0
#         - httpcore2==2.16.2
#         - httpx2==2.16.2
#         - huggingface-hub==2.4.0
#         - idna==3.20
#         - jinja2==3.1.6
#         - jiter==0.19.0
#         - joblib==1.6.0
#         - lm-eval==0.4.13
#         - lxml==6.1.3
#         - markdown-it-py==4.3.0
#         - markupsafe==3.0.4
#         - mbstrdecoder==1.1.5
#         - mdurl==0.1.2
#         - more-itertools==11.2.1
#         - mpmath==1.3.0
#         - multidict==7.2.1
#         - multiprocess==0.70.19
#         - narwhals==2.29.0
#         - networkx==3.6.1
#         - nltk==3.10.4
#         - numpy==2.3.5
#         - openai==3.52.0
#         - packaging==25.0
#         - pandas==3.1.1
#         - pathvalidate==3.3.1
#         - patsy==1.0.3
#         - portalocker==4.4.2
#         - propcache==0.5.4
#         - psutil==7.2.2
#         - pyarrow==26.0.1
#         - pydantic-core==2.50.4
#         - pydantic==2.14.3
#         - pygments==2.21.0
#         - pytablewriter==1.2.1
#         - python-dateutil==2.9.0.post0
#         - python-dotenv==1.2.4
#         - pytz==2026.6
#         - pyyaml==6.0.3
#         - regex==2026.11.15
#         - requests==2.34.2
#         - rich==15.0.0
#         - rouge-score==0.1.2
#         - sacrebleu==2.6.0
#         - safetensors==0.8.0
#         - scikit-learn==1.9.1
#         - scipy==1.17.1
#         - setuptools==78.1.1
#         - shellingham==1.5.4
#         - six==1.17.0
#         - sniffio==1.3.1
#         - sqlitedict==2.1.0
#         - sympy==1.14.0
#         - tabledata==1.3.5
#         - tabulate==0.10.0
#         - tcolorpy==0.1.7
#         - tenacity==9.2.1
#         - termcolor==3.3.0
#         - threadpoolctl==3.8.0
#         - tiktoken==0.14.0
#         - tokenizers==0.23.3
#         - torch==2.13.0+cpu
#         - tqdm==4.70.1
#         - transformers==5.19.0
#         - truststore==0.10.5
#         - typepy==1.3.5
#         - typer==0.29.2
#         - typing-extensions==4.16.0
#         - typing-inspection==0.4.5
#         - urllib3==2.8.0
#         - word2number==1.1
#         - xxhash==4.1.0
#         - yarl==1.25.1
RUN mkdir -p /conda-envs/0d7a014e8e6f0ab6092039abd7c9b69b
COPY envs/cpu/evaluate.yaml /conda-envs/0d7a014e8e6f0ab6092039abd7c9b69b/environment.yaml
RUN conda env create --prefix /conda-envs/0d7a014e8e6f0ab6092039abd7c9b69b --file /conda-envs/0d7a014e8e6f0ab6092039abd7c9b69b/environment.yaml \
    && conda clean --all --yes

#   source: envs/cpu/execute.yaml
#   prefix: /conda-envs/f041b7fd4739fc9bba7850fe8a1ea875
#   # EvalPlus, which runs code in the sandbox; no torch.
#   # Made by `make envs` from envs/direct.toml and envs/cpu.lock.txt: make changes there.
#   channels:
#     - conda-forge
#     - nodefaults
#   dependencies:
#     - python=3.11.7
#     - pip=24.0
#     - pip:
#         - annotated-doc==0.0.7
#         - annotated-types==0.8.0
#         - anthropic==2.11.0
#         - anyio==4.16.0
#         - appdirs==1.4.4
#         - certifi==2026.10.18
#         - cffi==2.1.1
#         - charset-normalizer==3.5.2
#         - click==8.5.1
#         - cryptography==50.0.2
#         - datasets==5.2.0
#         - dill==0.4.1
#         - docstring-parser==0.18.0
#         - evalplus==0.3.1
#         - filelock==4.2.11
#         - fire==0.7.1
#         - fsspec==2026.9.0
#         - google-ai-generativelanguage==0.6.15
#         - google-api-core==2.33.0
#         - google-api-python-client==2.202.0
#         - google-auth-httplib2==0.4.4
#         - google-auth==2.63.0
#         - google-generativeai==0.8.6
#         - googleapis-common-protos==1.72.0
#         - grpcio-status==1.71.2
#         - grpcio==1.85.1
#         - h11==0.16.0
#         - hf-xet==1.8.0
#         - httpcore2==2.16.2
#         - httplib2==0.32.1
#         - httpx2==2.16.2
#         - huggingface-hub==2.4.0
#         - idna==3.20
#         - jinja2==3.1.6
#         - jiter==0.19.0
#         - markdown-it-py==4.3.0
#         - markupsafe==3.0.4
#         - mdurl==0.1.2
#         - multipledispatch==1.0.0
#         - multiprocess==0.70.19
#         - numpy==2.3.5
#         - openai==3.52.0
#         - opentelemetry-api==1.45.2
#         - packaging==25.0
#         - pandas==3.1.1
#         - proto-plus==1.28.2
#         - protobuf==5.29.6
#         - psutil==7.2.2
#         - pyarrow==26.0.1
#         - pyasn1-modules==0.4.2
#         - pyasn1==0.6.5
#         - pycparser==3.12
#         - pydantic-core==2.50.4
#         - pydantic==2.14.3
#         - pygments==2.21.0
#         - pyparsing==3.3.3
#         - python-dateutil==2.9.0.post0
#         - pyyaml==6.0.3
#         - regex==2026.11.15
#         - requests==2.34.2
#         - rich==15.0.0
#         - safetensors==0.8.0
#         - shellingham==1.5.4
#         - six==1.17.0
#         - sniffio==1.3.1
#         - stop-sequencer==1.2.3
#         - tempdir==0.7.1
#         - termcolor==3.3.0
#         - tokenizers==0.23.3
#         - tqdm==4.70.1
#         - transformers==5.19.0
#         - tree-sitter-python==0.25.0
#         - tree-sitter==0.26.1
#         - truststore==0.10.5
#         - typer==0.29.2
#         - typing-extensions==4.16.0
#         - typing-inspection==0.4.5
#         - uritemplate==4.2.0
#         - urllib3==2.8.0
#         - wget==3.2
#         - xxhash==4.1.0
RUN mkdir -p /conda-envs/f041b7fd4739fc9bba7850fe8a1ea875
COPY envs/cpu/execute.yaml /conda-envs/f041b7fd4739fc9bba7850fe8a1ea875/environment.yaml
RUN conda env create --prefix /conda-envs/f041b7fd4739fc9bba7850fe8a1ea875 --file /conda-envs/f041b7fd4739fc9bba7850fe8a1ea875/environment.yaml \
    && conda clean --all --yes

#   source: envs/cpu/generate.yaml
#   prefix: /conda-envs/97fe047e410f570b92ac64ec36b9bc23
#   # Sampling answers from a policy; the vLLM engine is in CUDA's environment only.
#   # Made by `make envs` from envs/direct.toml and envs/cpu.lock.txt: make changes there.
#   channels:
#     - conda-forge
#     - nodefaults
#   dependencies:
#     - python=3.11.7
#     - pip=24.0
#     - pip:
#         - --extra-index-url https://download.pytorch.org/whl/cpu
#         - accelerate==1.15.0
#         - annotated-doc==0.0.7
#         - annotated-types==0.8.0
#         - anyio==4.16.0
#         - click==8.5.1
#         - datasets==5.2.0
#         - dill==0.4.1
#         - filelock==4.2.11
#         - fsspec==2026.9.0
#         - h11==0.16.0
#         - hf-xet==1.8.0
#         - httpcore2==2.16.2
#         - httpx2==2.16.2
#         - huggingface-hub==2.4.0
#         - idna==3.20
#         - jinja2==3.1.6
#         - markdown-it-py==4.3.0
#         - markupsafe==3.0.4
#         - mdurl==0.1.2
#         - mpmath==1.3.0
#         - multiprocess==0.70.19
#         - networkx==3.6.1
#         - numpy==2.3.5
#         - packaging==25.0
#         - pandas==3.1.1
#         - psutil==7.2.2
#         - pyarrow==26.0.1
#         - pydantic-core==2.50.4
#         - pydantic==2.14.3
#         - pygments==2.21.0
#         - python-dateutil==2.9.0.post0
#         - pyyaml==6.0.3
#         - regex==2026.11.15
#         - rich==15.0.0
#         - safetensors==0.8.0
#         - setuptools==78.1.1
#         - shellingham==1.5.4
#         - six==1.17.0
#         - sympy==1.14.0
#         - tenacity==9.2.1
#         - tokenizers==0.23.3
#         - torch==2.13.0+cpu
#         - tqdm==4.70.1
#         - transformers==5.19.0
#         - truststore==0.10.5
#         - typer==0.29.2
#         - typing-extensions==4.16.0
#         - typing-inspection==0.4.5
#         - xxhash==4.1.0
RUN mkdir -p /conda-envs/97fe047e410f570b92ac64ec36b9bc23
COPY envs/cpu/generate.yaml /conda-envs/97fe047e410f570b92ac64ec36b9bc23/environment.yaml
RUN conda env create --prefix /conda-envs/97fe047e410f570b92ac64ec36b9bc23 --file /conda-envs/97fe047e410f570b92ac64ec36b9bc23/environment.yaml \
    && conda clean --all --yes

#   source: envs/cpu/online.yaml
#   prefix: /conda-envs/253b157dd7b4107b85cdf5301173df08
#   # Training that samples; the vLLM sampler is in CUDA's environment only.
#   # Made by `make envs` from envs/direct.toml and envs/cpu.lock.txt: make changes there.
#   channels:
#     - conda-forge
#     - nodefaults
#   dependencies:
#     - python=3.11.7
#     - pip=24.0
#     - pip:
#         - --extra-index-url https://download.pytorch.org/whl/cpu
#         - absl-py==2.5.1
#         - accelerate==1.15.0
#         - annotated-doc==0.0.7
#         - annotated-types==0.8.0
#         - antlr4-python3-runtime==4.9.3
#         - anyio==4.16.0
#         - attrs==26.1.0
#         - bitsandbytes==0.50.2
#         - certifi==2026.10.18
#         - charset-normalizer==3.5.2
#         - click==8.5.1
#         - contourpy==1.3.3
#         - cwevals==0.0.1b1
#         - cycler==0.12.1
#         - datasets==5.2.0
#         - dill==0.4.1
#         - distro==1.9.0
#         - filelock==4.2.11
#         - fonttools==4.68.0
#         - fsspec==2026.9.0
#         - googleapis-common-protos==1.76.0
#         - grpcio==1.85.1
#         - h11==0.16.0
#         - hf-xet==1.8.0
#         - httpcore2==2.16.2
#         - httpcore==1.0.9
#         - httpx2==2.16.2
#         - httpx==0.28.1
#         - huggingface-hub==2.4.0
#         - idna==3.20
#         - jinja2==3.1.6
#         - jsonschema-specifications==2025.9.1
#         - jsonschema==4.26.0
#         - kiwisolver==1.5.1
#         - latex2sympy2-extended==1.11.0
#         - markdown-it-py==4.3.0
#         - markdown==3.11.3
#         - markupsafe==3.0.4
#         - math-verify==0.9.0
#         - matplotlib==3.11.2
#         - mdurl==0.1.2
#         - mpmath==1.3.0
#         - multiprocess==0.70.19
#         - networkx==3.6.1
#         - numpy==2.3.5
#         - opentelemetry-api==1.45.2
#         - opentelemetry-exporter-http-transport==0.66b2
#         - opentelemetry-exporter-otlp-common==0.66b2
#         - opentelemetry-exporter-otlp-proto-common==1.45.2
#         - opentelemetry-exporter-otlp-proto-http==1.45.2
#         - opentelemetry-proto==1.45.2
#         - opentelemetry-sdk==1.45.2
#         - opentelemetry-semantic-conventions==0.66b2
#         - packaging==25.0
#         - pandas==3.1.1
#         - peft==0.21.2
#         - pillow==13.0.0
#         - platformdirs==4.14.5
#         - protobuf==7.36.2
#         - psutil==7.2.2
#         - pyarrow==26.0.1
#         - pydantic-core==2.50.4
#         - pydantic==2.14.3
#         - pygments==2.21.0
#         - pyparsing==3.3.3
#         - python-dateutil==2.9.0.post0
#         - pyyaml==6.0.3
#         - referencing==0.37.0
#         - regex==2026.11.15
#         - requests==2.34.2
#         - rich==15.0.0
#         - rpds-py==2026.9.1
#         - safetensors==0.8.0
#         - setuptools==78.1.1
#         - shellingham==1.5.4
#         - six==1.17.0
#         - sniffio==1.3.1
#         - sympy==1.14.0
#         - tenacity==9.2.1
#         - tensorboard-data-server==0.7.2
#         - tensorboard==2.21.0
#         - tokenizers==0.23.3
#         - torch==2.13.0+cpu
#         - tqdm==4.70.1
#         - transformers==5.19.0
#         - trl==1.12.0
#         - truststore==0.10.5
#         - typer==0.29.2
#         - typing-extensions==4.16.0
#         - typing-inspection==0.4.5
#         - urllib3==2.8.0
#         - wandb==0.31.0
#         - werkzeug==3.1.9
#         - xxhash==4.1.0
RUN mkdir -p /conda-envs/253b157dd7b4107b85cdf5301173df08
COPY envs/cpu/online.yaml /conda-envs/253b157dd7b4107b85cdf5301173df08/environment.yaml
RUN conda env create --prefix /conda-envs/253b157dd7b4107b85cdf5301173df08 --file /conda-envs/253b157dd7b4107b85cdf5301173df08/environment.yaml \
    && conda clean --all --yes

#   source: envs/cpu/report.yaml
#   prefix: /conda-envs/439a391bf69d8d6989e9b711ddb394d1
#   # Win rates, pictures and pages.
#   # Made by `make envs` from envs/direct.toml and envs/cpu.lock.txt: make changes there.
#   channels:
#     - conda-forge
#     - nodefaults
#   dependencies:
#     - python=3.11.7
#     - pip=24.0
#     - pip:
#         - anyio==4.16.0
#         - click==8.5.1
#         - contourpy==1.3.3
#         - cycler==0.12.1
#         - datasets==5.2.0
#         - dill==0.4.1
#         - filelock==4.2.11
#         - fonttools==4.68.0
#         - fsspec==2026.9.0
#         - grandalf==0.8
#         - h11==0.16.0
#         - hf-xet==1.8.0
#         - httpcore2==2.16.2
#         - httpx2==2.16.2
#         - huggingface-hub==2.4.0
#         - idna==3.20
#         - jinja2==3.1.6
#         - kiwisolver==1.5.1
#         - markupsafe==3.0.4
#         - matplotlib==3.11.2
#         - multiprocess==0.70.19
#         - networkx==3.6.1
#         - numpy==2.3.5
#         - packaging==25.0
#         - pandas==3.1.1
#         - pillow==13.0.0
#         - pyarrow==26.0.1
#         - pyparsing==3.3.3
#         - python-dateutil==2.9.0.post0
#         - pyyaml==6.0.3
#         - six==1.17.0
#         - tqdm==4.70.1
#         - truststore==0.10.5
#         - typing-extensions==4.16.0
#         - xxhash==4.1.0
RUN mkdir -p /conda-envs/439a391bf69d8d6989e9b711ddb394d1
COPY envs/cpu/report.yaml /conda-envs/439a391bf69d8d6989e9b711ddb394d1/environment.yaml
RUN conda env create --prefix /conda-envs/439a391bf69d8d6989e9b711ddb394d1 --file /conda-envs/439a391bf69d8d6989e9b711ddb394d1/environment.yaml \
    && conda clean --all --yes

#   source: envs/cpu/score.yaml
#   prefix: /conda-envs/ef2b15b571ca59ce9f3773a275391bcb
#   # Finished models, and models that only read: rewards, log-probabilities of the reference, verdicts.
#   # Made by `make envs` from envs/direct.toml and envs/cpu.lock.txt: make changes there.
#   channels:
#     - conda-forge
#     - nodefaults
#   dependencies:
#     - python=3.11.7
#     - pip=24.0
#     - pip:
#         - --extra-index-url https://download.pytorch.org/whl/cpu
#         - accelerate==1.15.0
#         - annotated-doc==0.0.7
#         - annotated-types==0.8.0
#         - anyio==4.16.0
#         - click==8.5.1
#         - datasets==5.2.0
#         - dill==0.4.1
#         - filelock==4.2.11
#         - fsspec==2026.9.0
#         - h11==0.16.0
#         - hf-xet==1.8.0
#         - httpcore2==2.16.2
#         - httpx2==2.16.2
#         - huggingface-hub==2.4.0
#         - idna==3.20
#         - jinja2==3.1.6
#         - markdown-it-py==4.3.0
#         - markupsafe==3.0.4
#         - mdurl==0.1.2
#         - mpmath==1.3.0
#         - multiprocess==0.70.19
#         - networkx==3.6.1
#         - numpy==2.3.5
#         - packaging==25.0
#         - pandas==3.1.1
#         - psutil==7.2.2
#         - pyarrow==26.0.1
#         - pydantic-core==2.50.4
#         - pydantic==2.14.3
#         - pygments==2.21.0
#         - python-dateutil==2.9.0.post0
#         - pyyaml==6.0.3
#         - regex==2026.11.15
#         - rich==15.0.0
#         - safetensors==0.8.0
#         - setuptools==78.1.1
#         - shellingham==1.5.4
#         - six==1.17.0
#         - sympy==1.14.0
#         - tokenizers==0.23.3
#         - torch==2.13.0+cpu
#         - tqdm==4.70.1
#         - transformers==5.19.0
#         - truststore==0.10.5
#         - typer==0.29.2
#         - typing-extensions==4.16.0
#         - typing-inspection==0.4.5
#         - xxhash==4.1.0
RUN mkdir -p /conda-envs/ef2b15b571ca59ce9f3773a275391bcb
COPY envs/cpu/score.yaml /conda-envs/ef2b15b571ca59ce9f3773a275391bcb/environment.yaml
RUN conda env create --prefix /conda-envs/ef2b15b571ca59ce9f3773a275391bcb --file /conda-envs/ef2b15b571ca59ce9f3773a275391bcb/environment.yaml \
    && conda clean --all --yes

#   source: envs/cpu/train.yaml
#   prefix: /conda-envs/46059bea1e80a1406b47dc8e0ee8cd8f
#   # Everything that trains a model.
#   # Made by `make envs` from envs/direct.toml and envs/cpu.lock.txt: make changes there.
#   channels:
#     - conda-forge
#     - nodefaults
#   dependencies:
#     - python=3.11.7
#     - pip=24.0
#     - pip:
#         - --extra-index-url https://download.pytorch.org/whl/cpu
#         - absl-py==2.5.1
#         - accelerate==1.15.0
#         - annotated-doc==0.0.7
#         - annotated-types==0.8.0
#         - antlr4-python3-runtime==4.9.3
#         - anyio==4.16.0
#         - attrs==26.1.0
#         - bitsandbytes==0.50.2
#         - certifi==2026.10.18
#         - charset-normalizer==3.5.2
#         - click==8.5.1
#         - contourpy==1.3.3
#         - cwevals==0.0.1b1
#         - cycler==0.12.1
#         - datasets==5.2.0
#         - dill==0.4.1
#         - distro==1.9.0
#         - filelock==4.2.11
#         - fonttools==4.68.0
#         - fsspec==2026.9.0
#         - googleapis-common-protos==1.76.0
#         - grpcio==1.85.1
#         - h11==0.16.0
#         - hf-xet==1.8.0
#         - httpcore2==2.16.2
#         - httpcore==1.0.9
#         - httpx2==2.16.2
#         - httpx==0.28.1
#         - huggingface-hub==2.4.0
#         - idna==3.20
#         - jinja2==3.1.6
#         - jsonschema-specifications==2025.9.1
#         - jsonschema==4.26.0
#         - kiwisolver==1.5.1
#         - latex2sympy2-extended==1.11.0
#         - markdown-it-py==4.3.0
#         - markdown==3.11.3
#         - markupsafe==3.0.4
#         - math-verify==0.9.0
#         - matplotlib==3.11.2
#         - mdurl==0.1.2
#         - mpmath==1.3.0
#         - multiprocess==0.70.19
#         - networkx==3.6.1
#         - numpy==2.3.5
#         - opentelemetry-api==1.45.2
#         - opentelemetry-exporter-http-transport==0.66b2
#         - opentelemetry-exporter-otlp-common==0.66b2
#         - opentelemetry-exporter-otlp-proto-common==1.45.2
#         - opentelemetry-exporter-otlp-proto-http==1.45.2
#         - opentelemetry-proto==1.45.2
#         - opentelemetry-sdk==1.45.2
#         - opentelemetry-semantic-conventions==0.66b2
#         - packaging==25.0
#         - pandas==3.1.1
#         - peft==0.21.2
#         - pillow==13.0.0
#         - platformdirs==4.14.5
#         - protobuf==7.36.2
#         - psutil==7.2.2
#         - pyarrow==26.0.1
#         - pydantic-core==2.50.4
#         - pydantic==2.14.3
#         - pygments==2.21.0
#         - pyparsing==3.3.3
#         - python-dateutil==2.9.0.post0
#         - pyyaml==6.0.3
#         - referencing==0.37.0
#         - regex==2026.11.15
#         - requests==2.34.2
#         - rich==15.0.0
#         - rpds-py==2026.9.1
#         - safetensors==0.8.0
#         - setuptools==78.1.1
#         - shellingham==1.5.4
#         - six==1.17.0
#         - sniffio==1.3.1
#         - sympy==1.14.0
#         - tenacity==9.2.1
#         - tensorboard-data-server==0.7.2
#         - tensorboard==2.21.0
#         - tokenizers==0.23.3
#         - torch==2.13.0+cpu
#         - tqdm==4.70.1
#         - transformers==5.19.0
#         - trl==1.12.0
#         - truststore==0.10.5
#         - typer==0.29.2
#         - typing-extensions==4.16.0
#         - typing-inspection==0.4.5
#         - urllib3==2.8.0
#         - wandb==0.31.0
#         - werkzeug==3.1.9
#         - xxhash==4.1.0
RUN mkdir -p /conda-envs/46059bea1e80a1406b47dc8e0ee8cd8f
COPY envs/cpu/train.yaml /conda-envs/46059bea1e80a1406b47dc8e0ee8cd8f/environment.yaml
RUN conda env create --prefix /conda-envs/46059bea1e80a1406b47dc8e0ee8cd8f --file /conda-envs/46059bea1e80a1406b47dc8e0ee8cd8f/environment.yaml \
    && conda clean --all --yes

RUN useradd --create-home --uid 1001 prefline
USER 1001
