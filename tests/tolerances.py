"""What the tests allow, in one place. Each limit is a small multiple of what was measured."""

from __future__ import annotations

LIMITS = {
    "fp32": 1e-5,  # issue 2 promises it for the skeleton; the small modules measured 2.4e-7 to 1.4e-6
    "relative": 1e-5,  # of the largest logit; the small decoders measured 2e-7 to 1.5e-6
}
