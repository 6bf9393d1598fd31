"""NeMo Data Designer: a seed column and three text columns, each of whose prompts names the one before.

Set: max_parallel_requests (4 otherwise); no metrics endpoint, which would want a port of its own.
"""

from __future__ import annotations

import tempfile

import data_designer.config as dd
import pandas as pd
from data_designer.interface import DataDesigner
from job import MODEL, STEPS, Job, Row, jinja, measured


def run(job: Job) -> list[Row]:
    model = dd.ModelConfig(
        alias="teacher", model=MODEL, provider="local",
        inference_parameters=dd.ChatCompletionInferenceParams(max_parallel_requests=job.slots),
    )  # fmt: skip
    builder = dd.DataDesignerConfigBuilder(model_configs=[model])
    builder.with_seed_dataset(dd.DataFrameSeedSource(df=pd.DataFrame(job.rows)))
    for field, prompt in STEPS.items():
        builder.add_column(dd.LLMTextColumnConfig(name=field, model_alias="teacher", prompt=jinja(prompt)))
    provider = dd.ModelProvider(name="local", endpoint=job.url, api_key="none")
    with tempfile.TemporaryDirectory() as folder:
        designer = DataDesigner(artifact_path=folder, model_providers=[provider])
        designer.set_run_config(dd.RunConfig(otel_metrics_port=None))
        done = designer.create(builder, num_records=len(job.rows)).load_dataset()
        return list(done[["number", *STEPS]].astype(str).to_dict("records"))


if __name__ == "__main__":
    measured(run)
