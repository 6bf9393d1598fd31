"""distilabel: a pipeline of three `TextGeneration` tasks, each a process of its own that asks for a batch at a time.

Set: input_batch_size, which is how many of a step's requests are in flight (50 otherwise); no cache. The variant
`one_batch` sends all that a step has at once, far above the slots: the server lets them wait.
"""

from __future__ import annotations

import tempfile

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
from job import MODEL, STEPS, Job, Row, jinja, measured


def run(job: Job) -> list[Row]:
    size = len(job.rows) if job.variant == "one_batch" else job.slots
    with tempfile.TemporaryDirectory() as folder:
        with Pipeline(name="chain", cache_dir=folder) as pipeline:
            before, columns = LoadDataFromDicts(data=job.rows, batch_size=size), ["number"]
            for field, prompt in STEPS.items():
                step = TextGeneration(
                    name=f"step_{field}", llm=OpenAILLM(model=MODEL, base_url=job.url, api_key="none"),
                    template=jinja(prompt), columns=columns, output_mappings={"generation": field},
                    input_batch_size=size,
                )  # fmt: skip
                before >> step
                before = step
                columns = ["number", field]
        done = pipeline.run(use_cache=False)["default"]["train"]
        return list(done.select_columns(["number", *STEPS]).to_list())


if __name__ == "__main__":
    measured(run)
