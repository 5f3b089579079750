"""What inspectors are made of. `from inspectors.base import Inspector,
InspectionResult, InspectionContext` is all that one needs to import."""

from dataclasses import dataclass, field
from typing import Any, List, Optional


class Headers(list):
    """Pairs of name and value, which can be used like a dict too.

    Names are compared without regard to case. Where a header has several
    lines, [] and get() join them with ", ", and get_all() lists them.
    Iterating gives pairs."""

    def get_all(self, name: str) -> List[str]:
        name = name.lower()
        return [value for key, value in self if key.lower() == name]

    def get(self, name: str, default: Any = None) -> Any:
        values = self.get_all(name)
        return ", ".join(values) if values else default

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return list.__getitem__(self, key)
        values = self.get_all(key)
        if not values:
            raise KeyError(key)
        return ", ".join(values)

    def __contains__(self, key: Any) -> bool:
        if isinstance(key, str):
            return bool(self.get_all(key))
        return list.__contains__(self, key)

    def keys(self) -> List[str]:
        return list(dict.fromkeys(key for key, _ in self))

    def values(self) -> List[str]:
        return [self[key] for key in self.keys()]

    def items(self) -> List[tuple]:
        return list(self)


@dataclass
class InspectionResult:
    """What an inspector has to say. action is "block" or "flag"; severity is
    "debug", "info", "warning", "error" or "critical"."""

    inspector: str
    action: str
    reason: str = ""
    severity: str = "warning"
    score: float = 0
    metadata: dict = field(default_factory=dict)


@dataclass
class InspectionContext:
    """One request, response or message."""

    url: str = ""
    host: str = ""
    method: str = ""
    headers: Headers = field(default_factory=Headers)
    content_type: str = ""
    body_bytes: bytes = b""
    body_text: Optional[str] = ""
    body_size: int = 0
    body_entropy: float = 0.0
    prior_results: List[InspectionResult] = field(default_factory=list)
    scheme: str = ""
    port: int = 0
    path: str = ""
    query: str = ""
    status: int = 0
    direction: str = "request"
    kind: str = "request"


class Inspector:
    """Derive one class from it in each file."""

    name = ""

    def configure(self, cfg: dict) -> None:
        """Gets `config:` of cage.yaml, once, before anything else."""

    def inspect_request(self, ctx: InspectionContext) -> Optional[InspectionResult]:
        """Is asked about what goes to servers. None lets it pass."""

    def inspect_response(self, ctx: InspectionContext) -> Optional[InspectionResult]:
        """Is asked about what comes back."""
