"""What any scheduler could reach at best: a simulation of a greedy one that takes no time itself."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random


@dataclass
class Request:
    """A request of a run; those that it waits for stand before it in the list of all."""

    service: float
    """seconds that the server takes for it"""
    priority: float = 0
    """the number of its step: the lowest is served first, as the client does it"""
    after: Sequence[int] = ()
    """the requests whose answers it needs, by their place in the list"""


def bound(requests: Sequence[Request], slots: int) -> float:
    """Seconds below which nothing can be: all work on all slots, or the longest chain of requests."""
    ends: list[float] = []
    for request in requests:
        ends.append(max((ends[i] for i in request.after), default=0.0) + request.service)
    return max(sum(request.service for request in requests) / slots, max(ends, default=0.0))


def greedy(requests: Sequence[Request], slots: int) -> float:
    """Seconds until all are answered if whatever is ready is sent as soon as a slot is free."""
    waits_for = [len(set(request.after)) for request in requests]
    then: list[list[int]] = [[] for _ in requests]
    for number, request in enumerate(requests):
        for earlier in set(request.after):
            then[earlier].append(number)
    ready = [(request.priority, 0.0, i) for i, request in enumerate(requests) if not waits_for[i]]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < slots:
            number = heapq.heappop(ready)[2]
            heapq.heappush(running, (now + requests[number].service, number))
        now, number = heapq.heappop(running)
        for later in then[number]:
            waits_for[later] -= 1
            if not waits_for[later]:
                heapq.heappush(ready, (requests[later].priority, now, later))
    return now


def all_knowing(requests: Sequence[Request], slots: int) -> float:
    """The same of a scheduler that knows how long each answer will take, and asks first what the most time hangs on."""
    ahead = [request.service for request in requests]
    for number in range(len(requests) - 1, -1, -1):
        for earlier in requests[number].after:
            ahead[earlier] = max(ahead[earlier], requests[earlier].service + ahead[number])
    return greedy([replace(request, priority=-most) for request, most in zip(requests, ahead, strict=True)], slots)


def by_luck(requests: Sequence[Request], slots: int, times: int = 20) -> list[float]:
    """The same of the greedy one, in other orders of the requests of a step; sorted."""
    ends = []
    for seed in range(times):
        luck = Random(seed)
        ends.append(greedy([replace(one, priority=one.priority + luck.random()) for one in requests], slots))
    return sorted(ends)
