"""What the server has done so far, in Prometheus' text format. Touched by the event loop only, so without locks."""

from collections import Counter
from dataclasses import dataclass, field

BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass
class Histogram:
    """Durations by upper bound."""

    counts: list[int] = field(default_factory=lambda: [0] * len(BUCKETS_S))
    total_s: float = 0.0
    number: int = 0

    def add(self, seconds: float) -> None:
        self.number += 1
        self.total_s += seconds
        for index, bound in enumerate(BUCKETS_S):
            self.counts[index] += seconds <= bound

    def lines(self, name: str, label: str) -> list[str]:
        bounds = [
            f'{name}_bucket{{{label},le="{b:g}"}} {n}' for b, n in zip(BUCKETS_S, self.counts, strict=True)
        ]
        return [
            *bounds,
            f'{name}_bucket{{{label},le="+Inf"}} {self.number}',
            f"{name}_sum{{{label}}} {self.total_s:.6f}",
            f"{name}_count{{{label}}} {self.number}",
        ]


@dataclass
class Counters:
    """The server's numbers since it started."""

    model: str
    requests: Counter[tuple[str, int]] = field(default_factory=Counter)  # (path, status)
    prompt_tokens: int = 0
    generation_tokens: int = 0
    running: int = 0
    waiting: int = 0
    first_token: Histogram = field(default_factory=Histogram)
    duration: Histogram = field(default_factory=Histogram)

    def text(self) -> str:
        label = 'model="' + self.model.replace("\\", "\\\\").replace('"', '\\"') + '"'
        lines = ["# TYPE mp_requests_total counter"]
        lines += [
            f'mp_requests_total{{{label},path="{path}",status="{status}"}} {count}'
            for (path, status), count in sorted(self.requests.items())
        ]
        for name, kind, value in (
            ("mp_prompt_tokens_total", "counter", self.prompt_tokens),
            ("mp_generation_tokens_total", "counter", self.generation_tokens),
            ("mp_requests_running", "gauge", self.running),
            ("mp_requests_waiting", "gauge", self.waiting),
        ):
            lines += [f"# TYPE {name} {kind}", f"{name}{{{label}}} {value}"]
        for name, histogram in (
            ("mp_time_to_first_token_seconds", self.first_token),
            ("mp_request_duration_seconds", self.duration),
        ):
            lines += [f"# TYPE {name} histogram", *histogram.lines(name, label)]
        return "\n".join(lines) + "\n"
