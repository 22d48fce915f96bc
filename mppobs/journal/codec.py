"""
Records to bytes and back, one at a time. The words of each kind are listed in `docs/journal.md`.

This is the readable form of the format: what writes thousands of attempts per second packs its words itself,
and what folds millions reads columns (`mppobs.journal.columns`). Tests hold all three against each other.

Numbers that do not fit their bits are clamped when encoded: a journal never refuses a record for its size.
"""

from mppobs.journal._decode import Text as Text
from mppobs.journal._decode import Words as Words
from mppobs.journal._decode import decode as decode
from mppobs.journal._decode import decode_all as decode_all
from mppobs.journal._decode import decode_placed as decode_placed
from mppobs.journal._encode import END_CLOSED as END_CLOSED
from mppobs.journal._encode import END_SEALED as END_SEALED
from mppobs.journal._encode import PAIRS_PER_DETAIL as PAIRS_PER_DETAIL
from mppobs.journal._encode import TextId as TextId
from mppobs.journal._encode import encode as encode
