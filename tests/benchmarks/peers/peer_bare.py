"""What one writes without a framework: asyncio and aiohttp, a semaphore, no retry, nothing kept."""

from __future__ import annotations

import asyncio

import aiohttp
from job import MODEL, STEPS, Job, Row, measured


def run(job: Job) -> list[Row]:
    async def main() -> None:
        slots = asyncio.Semaphore(job.slots)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def chain(row: Row) -> None:
                for field, prompt in STEPS.items():
                    body = {"model": MODEL, "messages": [{"role": "user", "content": prompt.format(**row)}]}
                    async with slots, session.post(f"{job.url}/chat/completions", json=body) as response:
                        answer = await response.json()
                    row[field] = answer["choices"][0]["message"]["content"]

            await asyncio.gather(*map(chain, job.rows))

    asyncio.run(main())
    return job.rows


if __name__ == "__main__":
    measured(run)
