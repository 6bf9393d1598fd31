"""Runs functions that a language model wrote, as what they are: code of unknown intent.

    async with Sandbox(SandboxConfig(call_timeout=1.0)) as sandbox:
        outcomes = await sandbox.execute("def evaluate(response): return len(response) < 9", ["short", "not so short"])

Each call of `execute` runs in a process forked from a worker that has never seen a function or an input and holds none
of the main process's memory. The child calls `evaluate` on every input and leaves one byte for each; nothing else of it
ever reaches the parent, and it dies. It is the function's own, unless the function is proven unable to leave a trace or
to look around (`dull.py`): a few such functions that wait together share a child, one after the other. What holds it,
in the order in which it is built (`autoif doctor` prints it for a machine; a worker that lacks a layer does not start):

    limits                 memory, processor time, files, processes, no core dumps, no growing file
    capabilities           none, also for root; no new privileges through exec
    dies with its parent   so does the child with its worker; not dumpable
    landlock               may read the interpreter's library and the installed packages, and write nowhere
    seccomp                an allow-list: no process, thread, socket, signal, exec, or file opened for writing
    watching from outside  SIGKILL when a call does not advance; nothing in the child can prevent or prolong it

What it stops: reading your files, secrets and environment; writing anything; the network; signals, survivors, floods of
processes, memory or output; endless loops, also in C; poisoning the functions that run after it or beside it; answers
in other functions' names; objects that do something when they are unpickled, printed or compared.

What it does not stop: a hole in the kernel; finding out that a path exists and how large it is (`stat`); reading the
source of installed packages; a function that lies about its own results or carries state between its own inputs; using
all of its time and memory, times the number of workers. Channels by timing and caches are not considered.

With `isolation: process` only the limits, the separate processes and the watching remain. That stops accidents.

Time: a call is over when it has used `call_timeout` seconds of processor time, or has waited for twice that: slept,
or got less than a twentieth of a processor. Being slow because the machine is busy is not a timeout. All calls of a
function together have `function_timeout` seconds of processor time, and four times that by the clock. The watcher
looks four times per `call_timeout`, so a timeout comes up to a quarter late. After a timeout, a crash or an exit the
remaining inputs run in a new child: state that the function had kept is gone. Chance is seeded and the order of sets
fixed, so answers are reproducible.
"""

from autoif_blocks.sandbox.doctor import doctor
from autoif_blocks.sandbox.layers import Layer
from autoif_blocks.sandbox.policy import Outcome, SandboxConfig
from autoif_blocks.sandbox.pool import Sandbox

__all__ = ["Layer", "Outcome", "Sandbox", "SandboxConfig", "doctor"]
