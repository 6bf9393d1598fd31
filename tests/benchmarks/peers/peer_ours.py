"""A recipe of this project, with its cache, its files and its accounting, as a user runs it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from job import MODEL, STEPS, Job, Row, jinja, measured

from autoif_blocks import Recipe
from autoif_blocks.run import RunOptions

RECIPE = """
models: {{teacher: {{base_url: {url}, model: {model}, max_concurrency: {slots}}}}}
output_dir: {folder}/out
steps:
  - {{name: given, block: read_jsonl, path: {folder}/in.jsonl, fields: [number]}}
"""
STEP = '  - {{name: step_{field}, block: respond, field: {field}, prompt: "{prompt}"}}\n'


def run(job: Job) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        recipe = RECIPE.format(url=job.url, model=MODEL, slots=job.slots, folder=folder)
        recipe += "".join(STEP.format(field=field, prompt=jinja(prompt)) for field, prompt in STEPS.items())
        Path(folder, "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in job.rows))
        Path(folder, "chain.yaml").write_text(recipe)
        Recipe.load(Path(folder, "chain.yaml")).run(RunOptions())
        lines = Path(folder, "out", "step_c.jsonl").read_text().splitlines()
        return [{field: json.loads(line)[field] for field in ("number", *STEPS)} for line in lines]


if __name__ == "__main__":
    measured(run)
