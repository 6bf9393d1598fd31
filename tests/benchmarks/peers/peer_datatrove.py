"""datatrove's `InferenceRunner`, server type "endpoint": one function asks all three questions, for it is a last step.

Set: max_concurrent_generations, which is 500 otherwise. Nothing is kept for a resume, as by default; the variant
`resume` keeps checkpoints and each answer.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceResult, InferenceRunner
from datatrove.pipeline.writers import JsonlWriter
from job import MODEL, STEPS, Job, Row, measured


async def chain(document: Document, generate: Callable[[dict[str, Any]], Awaitable[InferenceResult]]) -> Row:
    row = {"number": document.text}
    for field, prompt in STEPS.items():
        answer = await generate({"messages": [{"role": "user", "content": prompt.format(**row)}]})
        row[field] = answer.text
    return row


def run(job: Job) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        config = InferenceConfig(
            server_type="endpoint", model_name_or_path=MODEL, endpoint_url=job.url.removesuffix("/v1"),
            max_concurrent_generations=job.slots,
        )  # fmt: skip
        documents = [Document(text=row["number"], id=row["number"]) for row in job.rows]
        writer = JsonlWriter(f"{folder}/out", "${rank}_${chunk_index}.jsonl", compression=None)
        kept = f"{folder}/kept" if job.variant == "resume" else None
        runner = InferenceRunner(chain, config, writer, checkpoints_local_dir=kept)
        LocalPipelineExecutor([documents, runner], logging_dir=f"{folder}/logs").run()
        files = Path(folder, "out").glob("*.jsonl")
        return [
            json.loads(line)["metadata"]["rollout_results"][0]
            for file in files
            for line in file.read_text().splitlines()
        ]


if __name__ == "__main__":
    measured(run)
