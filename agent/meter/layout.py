"""Where what stands in an account file: everything in native 8-byte words, nothing ever moves.

    header | names of tenants | names of units | until_ns of the last reports | two banks of the reporter | slots

A slot is one worker's: a row per tenant, its receipts, and what the last reports took from it. A row is
(requests, at, V, w, c, b, at, units of the first kind) of the path, written by one call, and (wide, wide weight,
aborted, units of the other kinds) beside it. Times and integrals are floats in seconds: exact to 2 ns after 100 days of
work without a pause.
"""

from typing import Final

from wattribute.agent.core.model import BUCKETS_UJ

MAGIC: Final = b"wattmetr"
VERSION: Final = 1
SLOTS: Final = 64
TENANTS: Final = 256
KINDS: Final = 8
REPORTS: Final = 64
BUCKETS: Final = len(BUCKETS_UJ) + 1
ID_BYTES: Final = 48
WORD: Final = 8

NOBODY: Final = 0
"""The tenant of requests that are on behalf of nobody in particular."""
OTHER: Final = 1
"""The tenant of those past the limit."""

HEAD_BYTES: Final = 4096
ACTIVE: Final = 512
"""Byte of the word that says which bank holds."""
GENERATIONS: Final = 1024
"""Byte of the words that say how many workers have had each slot. They aren't in the slots: of these a file has only
those that were ever taken, and whoever looked at another on a full tmpfs would be killed by SIGBUS.
"""
NAME_BYTES: Final = 512
NAME_STRIDE: Final = WORD + NAME_BYTES
TENANT_NAMES: Final = HEAD_BYTES
KIND_NAMES: Final = TENANT_NAMES + WORD + TENANTS * NAME_STRIDE
UNTILS: Final = KIND_NAMES + WORD + KINDS * NAME_STRIDE

# A bank, in words: (reports, at_ns), generations that were taken in, what was told, what earlier workers served.
BANK: Final = UNTILS + REPORTS * WORD
TAKEN_IN: Final = 2
TOLD_WEIGHTED: Final = TAKEN_IN + SLOTS
TOLD_BUSY: Final = TOLD_WEIGHTED + SLOTS
PAST_REQUESTS: Final = TOLD_BUSY + SLOTS * TENANTS
PAST_ABORTED: Final = PAST_REQUESTS + TENANTS
PAST_RECEIPTS: Final = PAST_ABORTED + TENANTS
LATEST_WORDS: Final = 2 + ID_BYTES // WORD
RECEIPT_WORDS: Final = 1 + BUCKETS + BUCKETS * LATEST_WORDS
PAST_UNITS: Final = PAST_RECEIPTS + RECEIPT_WORDS
"""Floats from here on."""
BANK_WORDS: Final = PAST_UNITS + TENANTS * KINDS
BANK_BYTES: Final = BANK_WORDS * WORD

PAGE: Final = 4096
SLOT: Final = (BANK + 2 * BANK_BYTES + PAGE - 1) // PAGE * PAGE
"""Bytes before the first slot: what all workers share."""
FIRST_UNITS: Final = 7
WIDE: Final = 8
ABORTED: Final = 10
ROW_WORDS: Final = ABORTED + KINDS
ROW_BYTES: Final = ROW_WORDS * WORD
RECEIPTS: Final = TENANTS * ROW_BYTES
"""Byte in a slot of its receipts: a count of writes, the words, the count again."""
RECEIPT_BYTES: Final = (RECEIPT_WORDS + 2) * WORD
V_AT: Final = RECEIPTS + RECEIPT_BYTES
BUSY_AT: Final = V_AT + REPORTS * WORD
SLOT_BYTES: Final = (BUSY_AT + TENANTS * REPORTS * WORD + PAGE - 1) // PAGE * PAGE
FILE_BYTES: Final = SLOT + SLOTS * SLOT_BYTES

# Bytes of the file whose locks mean something; nothing is read or written by that.
LOCK_REPORTER: Final = 0
LOCK_SLOT: Final = 1
LOCK_NAMES: Final = LOCK_SLOT + SLOTS


def slot_at(slot: int) -> int:
    """The byte at which a slot begins."""
    return SLOT + slot * SLOT_BYTES


def units_at(kind: int) -> int:
    """The word of a row with the units of a kind."""
    return ABORTED + kind if kind else FIRST_UNITS


def generation_at(slot: int) -> int:
    """The byte of the word that says how many workers have had a slot."""
    return GENERATIONS + slot * WORD


def row_at(slot: int, tenant: int) -> int:
    """The byte at which a tenant's row of a slot begins."""
    return SLOT + slot * SLOT_BYTES + tenant * ROW_BYTES
