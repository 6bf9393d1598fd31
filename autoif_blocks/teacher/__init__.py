"""A simulated teacher: an OpenAI-compatible server on loopback that answers all the tasks of an AutoIF recipe.

It is there so that a recipe can be run, tested and measured without a model: it is fast, costs nothing, needs no
network, and gives the same answers every time. It knows about forty kinds of verifiable instruction, writes functions
for them that are mostly right, follows them often enough, and misbehaves as real models and servers do, at rates that
you choose.

**It is no source of training data.** Its prose is assembled from a few dozen stock sentences, its scores are hashes,
and its functions come from a list. What a run against it produces says that the pipeline works, and nothing else.

    python -m autoif_blocks.teacher --port 8000 --error-429-rate 0.1

Read `family.py` for what a family is, `tasks.py` for how a prompt is recognised, `replies.py` for how it is answered,
and `server.py` for faults, latency and seeds.
"""

from .config import TeacherConfig
from .families import FAMILIES
from .family import Family, Params
from .server import make_app, running, serve

__all__ = ["FAMILIES", "Family", "Params", "TeacherConfig", "make_app", "running", "serve"]
