"""Asks every server of a recipe for its models and for one token: the cheapest proof that a run can start."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import aiohttp

from .client import Client
from .endpoints import Endpoints
from .errors import AutoIFError
from .models import SIMULATED, ModelConfig
from .options import nearest
from .records import read_json
from .servers import not_installed

PATIENCE = 30.0  # seconds for one token; a server may be loading
_MOST_BYTES = 1 << 22  # of a list of models


@dataclass(frozen=True)
class Pong:
    """What one server said."""

    model: str
    """the recipe's name for it"""
    url: str
    ok: bool
    said: str


def ping(models: Mapping[str, ModelConfig]) -> list[Pong]:
    """Asks all of them side by side; in the order of the recipe."""

    async def all_of_them() -> list[Pong]:
        asked = [_ping(name, config, url) for name, config in models.items() for url in config.base_urls or ("",)]
        return list(await asyncio.gather(*asked))

    return asyncio.run(all_of_them())


async def _ping(name: str, config: ModelConfig, url: str) -> Pong:
    if config.serve:
        remedy = not_installed(config)
        return Pong(name, config.serve, not remedy, remedy or f"started by the run, with {config.model}")
    if url == SIMULATED:
        return Pong(name, url, True, "built in: answers whenever a run starts")
    if missing := config.missing_key():
        return Pong(name, url, False, f"takes its key from the environment variable {missing}: export it")
    config = replace(config, timeout=PATIENCE, max_retries=1, connect_patience=0.0, hedge=None)
    known = ""
    client = Client(config, url)
    began = time.monotonic()
    try:
        known = await _models(config, url)
        await client.complete([{"role": "user", "content": "Say OK."}], sampling={"max_tokens": 1})
    except AutoIFError as error:
        detail = getattr(error, "detail", "") or str(error)
        return Pong(name, url, False, f"{detail}{f' ({known})' if known else ''}")
    finally:
        await client.close()
    return Pong(name, url, True, f"answers in {time.monotonic() - began:.2f} s{f'; {known}' if known else ''}")


async def _models(config: ModelConfig, url: str) -> str:
    """What the server says of its models; empty if it does not say."""
    limits = aiohttp.ClientTimeout(total=PATIENCE, sock_connect=config.connect_timeout)
    try:
        async with (
            aiohttp.ClientSession(timeout=limits, headers=Endpoints(config, [url]).headers()) as session,
            session.get(f"{url}/models", allow_redirects=False) as response,
        ):
            raw = b""
            async for piece in response.content.iter_any():
                raw += piece
                if len(raw) > _MOST_BYTES:
                    return ""
            names = [str(model["id"]) for model in read_json(raw)["data"]]
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    if config.model in names:
        return f"has {config.model}"
    return f"lists no '{config.model}'; {nearest(config.model, names, 'models')}"
