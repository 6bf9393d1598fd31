"""bespokelabs-curator: one `curator.LLM` for each step, each given the dataset that the one before returns.

Set: max_concurrent_requests; the limits a minute out of the way (200 requests and 100,000 tokens a minute otherwise).
"""

from __future__ import annotations

import tempfile
from typing import Any

from bespokelabs import curator
from datasets import Dataset
from job import MODEL, STEPS, Job, Row, measured


class Step(curator.LLM):
    def __init__(self, field: str, job: Job) -> None:
        self.field = field
        super().__init__(
            model_name=MODEL, backend="openai",
            backend_params={
                "base_url": job.url, "api_key": "none", "max_concurrent_requests": job.slots,
                "max_requests_per_minute": 10**6, "max_tokens_per_minute": 10**9,
            },
        )  # fmt: skip

    def prompt(self, input: dict[str, Any]) -> str:
        return STEPS[self.field].format(**input)

    def parse(self, input: dict[str, Any], response: str) -> dict[str, Any]:
        return {**input, self.field: response}


def run(job: Job) -> list[Row]:
    data = Dataset.from_list(job.rows)
    with tempfile.TemporaryDirectory() as folder:
        for field in STEPS:
            data = Step(field, job)(data, working_dir=folder).dataset
        return list(data.to_list())


if __name__ == "__main__":
    measured(run)
