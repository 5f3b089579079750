"""Flags large uploads, with a limit for each host, and responses that are no
JSON although an API promised them.

config:
  default: 1000000
  hosts: {api.example.com: 20000}
"""

from inspectors.base import Inspector, InspectionResult


class LargeUploads(Inspector):
    name = "large-uploads"

    def configure(self, cfg):
        self.default = int(cfg.get("default", 1_000_000))
        self.hosts = {h.lower(): int(n) for h, n in (cfg.get("hosts") or {}).items()}

    def limit(self, host):
        while host:
            if host in self.hosts:
                return self.hosts[host]
            _, _, host = host.partition(".")
        return self.default

    def inspect_request(self, ctx):
        if ctx.method not in ("POST", "PUT", "PATCH", "WEBSOCKET"):
            return None
        limit = self.limit(ctx.host)
        if ctx.body_size <= limit:
            return None
        severity = "error" if ctx.body_entropy > 7.5 else "warning"
        kind = ctx.headers.get("Content-Type", "") or ctx.content_type
        print("large upload of", kind, "to", ctx.host)
        return InspectionResult(self.name, "flag", f"upload of {ctx.body_size} bytes, more than {limit}", severity)

    def inspect_response(self, ctx):
        if ctx.content_type.startswith("application/json") and ctx.body_text.lstrip()[:1] == "<":
            return InspectionResult(self.name, "flag", "markup in place of JSON", "info")
        return None
