"""NeMo Data Designer: a seed column and three text columns, each of whose prompts names the one before.

Set: max_parallel_requests, which the variant `defaults` leaves at 4; no metrics endpoint, which would want a port.
"""

from __future__ import annotations

import tempfile

import data_designer.config as dd
import pandas as pd
from data_designer.interface import DataDesigner
from job import MODEL, STEPS, Job, Row, jinja, measured


def run(job: Job) -> list[Row]:
    pace = {} if job.variant == "defaults" else {"max_parallel_requests": job.slots}
    parameters = dd.ChatCompletionInferenceParams(**pace)
    model = dd.ModelConfig(alias="teacher", model=MODEL, provider="local", inference_parameters=parameters)
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
