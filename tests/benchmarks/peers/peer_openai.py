"""OpenAI's client: `AsyncOpenAI` as its README shows it.

Set: nothing; the variant `aiohttp` takes aiohttp for httpx. It has no steps and no limit on what is in flight; both are
those of the bare loop.
"""

from __future__ import annotations

import asyncio

from job import MODEL, STEPS, Job, Row, measured
from openai import AsyncOpenAI, DefaultAioHttpClient


def run(job: Job) -> list[Row]:
    async def main() -> None:
        slots = asyncio.Semaphore(job.slots)
        http = DefaultAioHttpClient() if job.variant == "aiohttp" else None
        async with AsyncOpenAI(base_url=job.url, api_key="none", http_client=http) as client:

            async def chain(row: Row) -> None:
                for field, prompt in STEPS.items():
                    async with slots:
                        answer = await client.chat.completions.create(
                            model=MODEL, messages=[{"role": "user", "content": prompt.format(**row)}]
                        )
                    row[field] = answer.choices[0].message.content or ""

            await asyncio.gather(*map(chain, job.rows))

    asyncio.run(main())
    return job.rows


if __name__ == "__main__":
    measured(run)
