"""The rows of a batch on their way through a decoding, which those that have ended leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from gpt_export.runtime.decoding import Decoding, Ids, Logits, RecomputedDecoding, Rejoinable

LEAVING_SHARE = 2
"""Rows leave when one in so many has ended: the cache of the others is copied then, which costs a step or so."""


def worth_leaving(going: int, seated: int) -> bool:
    """Whether so few rows go on that a batch of them alone is worth a copy of their cache."""
    return going < seated and (seated - going) * LEAVING_SHARE >= seated


class Seats:
    """Feeds the rows that go on. A row that has ended is fed padding until enough others have."""

    def __init__(self, open_decoding: Callable[[int], Decoding], rows: int) -> None:
        self._open = open_decoding
        self._decoding = open_decoding(rows)
        self._seated = list(range(rows))
        self.length = 0
        """How many columns of the context are taken."""
        self.work = 0
        """Rows times tokens that were fed, padding among them."""

    def read(self, ids: Ids, mask: Ids) -> Logits:
        """Logits behind the prompts (rows, tokens), float32 (rows, vocabulary); padding is on the left."""
        return self._feed(ids, mask)

    def step(self, ids: Ids, going: Sequence[int], context_length: int) -> Logits:
        """Logits behind one more token of each row that goes on, float32 (rows that go on, vocabulary).

        Args:
            ids: of all rows there were, int64 (rows,).
            going: the numbers of the rows that go on, in order.
            context_length: where the columns end; rows that have ended give theirs back for it.
        """
        self._let_leave(going, full=self.length >= context_length)
        goes_on = np.isin(self._seated, going)
        logits = self._feed(ids[self._seated][:, None], goes_on.astype(np.int64)[:, None])
        return logits if goes_on.all() else logits[goes_on]

    def _let_leave(self, going: Sequence[int], *, full: bool) -> None:
        kept = set(going)
        places = [place for place, row in enumerate(self._seated) if row in kept]
        if len(places) == len(self._seated):
            return
        if isinstance(self._decoding, RecomputedDecoding):  # every step pays for a row as a whole
            self._decoding.keep(places)
        elif full or worth_leaving(len(places), len(self._seated)):
            past = cast(Rejoinable, self._decoding).past().take(places)
            self._decoding = self._open(len(places))
            cast(Rejoinable, self._decoding).resume(past)
            self.length = past.mask.shape[1]
        else:
            return
        self._seated = [self._seated[place] for place in places]

    def _feed(self, ids: Ids, mask: Ids) -> Logits:
        self.length += ids.shape[1]
        self.work += ids.size
        return self._decoding.feed_for_last(ids, mask)
