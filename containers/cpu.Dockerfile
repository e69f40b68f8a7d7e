# Made by `make containers` from envs/: make changes there.
FROM condaforge/miniforge3:25.9.1-0
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1

#   source: envs/cpu/data.yaml
#   prefix: /conda-envs/59d6e778ad3bf68cdcdfd41010c213f6
#   # Finished models, prompts, pairs, token ids: tables and tokenizers, no torch.
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
#         - regex==2026.11.15
#         - rich==15.0.0
#         - safetensors==0.8.0
#         - shellingham==1.5.4
#         - six==1.17.0
#         - tokenizers==0.23.3
#         - tqdm==4.70.1
#         - transformers==5.19.0
#         - truststore==0.10.5
#         - typer==0.29.2
#         - typing-extensions==4.16.0
#         - typing-inspection==0.4.5
#         - xxhash==4.1.0
RUN mkdir -p /conda-envs/59d6e778ad3bf68cdcdfd41010c213f6
COPY envs/cpu/data.yaml /conda-envs/59d6e778ad3bf68cdcdfd41010c213f6/environment.yaml
RUN conda env create --prefix /conda-envs/59d6e778ad3bf68cdcdfd41010c213f6 --file /conda-envs/59d6e778ad3bf68cdcdfd41010c213f6/environment.yaml \
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

#   source: envs/cpu/report.yaml
#   prefix: /conda-envs/dc914699850d3f324cb25b7dc811f0e1
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
#         - h11==0.16.0
#         - hf-xet==1.8.0
#         - httpcore2==2.16.2
#         - httpx2==2.16.2
#         - huggingface-hub==2.4.0
#         - idna==3.20
#         - kiwisolver==1.5.1
#         - matplotlib==3.11.2
#         - multiprocess==0.70.19
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
RUN mkdir -p /conda-envs/dc914699850d3f324cb25b7dc811f0e1
COPY envs/cpu/report.yaml /conda-envs/dc914699850d3f324cb25b7dc811f0e1/environment.yaml
RUN conda env create --prefix /conda-envs/dc914699850d3f324cb25b7dc811f0e1 --file /conda-envs/dc914699850d3f324cb25b7dc811f0e1/environment.yaml \
    && conda clean --all --yes

#   source: envs/cpu/score.yaml
#   prefix: /conda-envs/7784077449584eea9375db3078093c2b
#   # Models that only read: rewards, log-probabilities of the reference, verdicts.
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
RUN mkdir -p /conda-envs/7784077449584eea9375db3078093c2b
COPY envs/cpu/score.yaml /conda-envs/7784077449584eea9375db3078093c2b/environment.yaml
RUN conda env create --prefix /conda-envs/7784077449584eea9375db3078093c2b --file /conda-envs/7784077449584eea9375db3078093c2b/environment.yaml \
    && conda clean --all --yes

#   source: envs/cpu/train.yaml
#   prefix: /conda-envs/cf166ccde98416a7648a9ecb1024212c
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
#         - peft==0.21.2
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
#         - trl==1.12.0
#         - truststore==0.10.5
#         - typer==0.29.2
#         - typing-extensions==4.16.0
#         - typing-inspection==0.4.5
#         - xxhash==4.1.0
RUN mkdir -p /conda-envs/cf166ccde98416a7648a9ecb1024212c
COPY envs/cpu/train.yaml /conda-envs/cf166ccde98416a7648a9ecb1024212c/environment.yaml
RUN conda env create --prefix /conda-envs/cf166ccde98416a7648a9ecb1024212c --file /conda-envs/cf166ccde98416a7648a9ecb1024212c/environment.yaml \
    && conda clean --all --yes
