"""Metrics: what this process has done since it started, as Prometheus reads it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest

TYPE = "text/plain; version=0.0.4; charset=utf-8"

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
# From an answer out of memory to an upload over a slow line.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class Metrics:
    """``records``, ``blobs`` and ``forks`` are counted by who takes them; requests by the shell around all routes."""

    def __init__(self) -> None:
        # Of its own: two servers in one process (tests) count apart.
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.records = self._counter("records", "Records of logs that were taken")
        self.blobs = self._counter("blobs", "Blobs that were stored and verified")
        self.forks = self._counter("forks", "Pushes refused because an origin's log is not what it was")
        self._requests = Counter(
            "dreamlake_requests", "Requests answered", ["route", "method", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "dreamlake_request_seconds",
            "From a request's headers to the end of its answer",
            ["route", "method"],
            registry=self._registry,
            buckets=_SECONDS,
        )
        self._received = self._counter("received_bytes", "Bytes of bodies of requests")
        self._sent = self._counter("sent_bytes", "Bytes of bodies of answers")

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"dreamlake_{name}", text, registry=self._registry)

    def request(self, route: str, method: str, status: int, seconds: float, received: int, sent: int) -> None:
        """Count one. ``route`` is a path of the table, never one that somebody asked for: their number is bounded."""
        method = method if method in _METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route, method).observe(seconds)
        self._received.inc(received)
        self._sent.inc(sent)

    def text(self) -> bytes:
        return generate_latest(self._registry)
