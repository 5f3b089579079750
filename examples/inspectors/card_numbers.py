"""Blocks requests with payment card numbers in their text.

config:
  brands: [visa, mastercard, amex]   # all of them when it is left out
  allow_hosts: [pay.example.com]     # where card numbers belong
"""

import re

from inspectors.base import Inspector, InspectionContext, InspectionResult

DIGITS = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.])")

BRANDS = {
    "visa": re.compile(r"4\d{12}(?:\d{3}){0,2}"),
    "mastercard": re.compile(r"(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"),
    "amex": re.compile(r"3[47]\d{13}"),
}


def luhn(number: str) -> bool:
    total = 0
    for i, digit in enumerate(reversed(number)):
        n = int(digit)
        if i % 2 == 1:
            n = n * 2 - 9 if n > 4 else n * 2
        total += n
    return total % 10 == 0


class CardNumbers(Inspector):
    name = "card-numbers"

    def configure(self, cfg):
        brands = cfg.get("brands") or sorted(BRANDS)
        unknown = set(brands) - set(BRANDS)
        if unknown:
            raise ValueError("unknown brands: " + ", ".join(sorted(unknown)))
        self.brands = {name: BRANDS[name] for name in brands}
        self.allow_hosts = tuple(cfg.get("allow_hosts") or ())

    def brand(self, number):
        if not luhn(number):
            return None
        return next((name for name, form in self.brands.items() if form.fullmatch(number)), None)

    def allowed(self, host):
        return any(host == h or host.endswith("." + h) for h in self.allow_hosts)

    def inspect_request(self, ctx: InspectionContext):
        if not ctx.body_text or self.allowed(ctx.host):
            return None
        for match in DIGITS.finditer(ctx.body_text):
            brand = self.brand(re.sub(r"[ -]", "", match.group()))
            if brand:
                return InspectionResult(
                    inspector=self.name,
                    action="block",
                    reason=f"card number ({brand}) in the body",
                    severity="critical",
                    score=1.0,
                    metadata={"brand": brand},
                )
        return None
