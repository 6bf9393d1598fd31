"""sdg_hub: a flow of prompt, chat and extractor blocks for each step, as the flows that it ships have them.

Set: async_mode on each chat block, as in all of its flows, and max_concurrency.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from job import MODEL, STEPS, Job, Row, jinja, measured
from sdg_hub import Flow


def blocks(folder: str) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    columns = ["number"]

    def block(kind: str, **config: Any) -> None:
        made.append({"block_type": kind, "block_config": {"block_name": f"{kind}_{field}".lower(), **config}})

    for field, prompt in STEPS.items():
        path = Path(folder, f"{field}.yaml")
        path.write_text(yaml.safe_dump([{"role": "user", "content": jinja(prompt)}]))
        ask, answer = f"{field}_messages", f"{field}_answer"
        block("PromptBuilderBlock", input_cols=list(columns), output_cols=ask, prompt_config_path=str(path))
        block("LLMChatBlock", input_cols=ask, output_cols=answer, async_mode=True)
        block("LLMResponseExtractorBlock", input_cols=answer, field_prefix=f"{field}_", extract_content=True)
        block("RenameColumnsBlock", input_cols={f"{field}_content": field})
        columns.append(field)
    return made


def run(job: Job) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "flow.yaml")
        about = {"name": "chain", "description": "three chained steps", "version": "1.0.0", "author": "benchmark"}
        path.write_text(yaml.safe_dump({"metadata": about, "blocks": blocks(folder)}))
        flow = Flow.from_yaml(str(path))
        flow.set_model_config(model=f"openai/{MODEL}", api_base=job.url, api_key="none")
        done = flow.generate(pd.DataFrame(job.rows), max_concurrency=job.slots)
        return list(done[["number", *STEPS]].to_dict("records"))


if __name__ == "__main__":
    measured(run)
