"""How many messages a channel may hold: the settings capacity and channel_capacity.

The rules are those of Channels' BaseChannelLayer.get_capacity: patterns in order, the first
that matches wins. Most of them begin with plain characters, so each is kept with this stem:
comparing it settles exact names and "stem*" globs, and spares most regexes a call.
"""

from fnmatch import translate
import re

import cython
from cpython.unicode cimport (
    PyUnicode_Check, PyUnicode_FromObject, PyUnicode_GET_LENGTH, PyUnicode_Tailmatch,
)

from channels_redis_fast.exceptions import InvalidSetting


cdef enum Kind:
    EXACT  # the stem is the whole name
    STEM  # the stem and anything after it
    REGEX  # the stem, and match() says yes

# Names that only a regex can decide are remembered. There is no end of process-specific
# names, so a full memo starts afresh: eviction of single names would cost what a regex does.
cdef enum:
    MEMO_LIMIT = 1024


cdef object _checked(object capacity, str what):
    if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 0:
        raise InvalidSetting(f"{what} must be an int of at least 0, not {capacity!r}")
    return capacity


cdef str _literal_stem(object pattern):
    # What every name begins with that the regex matches; "" where this isn't plain to see.
    if type(pattern) is not re.Pattern or "|" in pattern.pattern:
        return ""
    if pattern.flags & (re.IGNORECASE | re.VERBOSE):
        return ""
    # Word characters and escaped punctuation stand for themselves, but one that a quantifier
    # may take away doesn't belong to the stem; "(?" may be a comment in front of that.
    literal = r"\^?((?:(?:[\w\-!]|\\[!-/:-@\[-`{-~])(?![*?{]|\(\?))*)"
    stem = re.match(literal, pattern.pattern, re.ASCII)
    return re.sub(r"\\(.)", r"\1", stem[1])


@cython.final
@cython.auto_pickle(False)
cdef class _Rule:
    cdef Kind kind
    cdef str stem
    cdef object match
    cdef object capacity

    def __cinit__(self, object pattern, object capacity):
        self.capacity = _checked(capacity, f"channel_capacity of {pattern!r}")
        if isinstance(pattern, str):
            self._take_glob(PyUnicode_FromObject(pattern))
        elif hasattr(pattern, "match"):
            self._take_regex(pattern)
        else:
            raise InvalidSetting(
                f"channel_capacity wants globs (str) or compiled regexes, not {pattern!r}"
            )

    cdef _take_glob(self, str glob):
        self.stem = re.match(r"[^*?[]*", glob)[0]
        rest = glob[len(self.stem):]
        if rest.strip("*"):
            self.kind = REGEX
            self.match = self._compiled(glob)
        else:
            self.kind = STEM if rest else EXACT

    cdef _compiled(self, str glob):
        try:
            return re.compile(translate(glob)).match
        except re.error as error:
            raise InvalidSetting(f"channel_capacity has a malformed glob: {glob!r}") from error

    cdef _take_regex(self, object pattern):
        if isinstance(getattr(pattern, "pattern", None), bytes):
            raise InvalidSetting(f"channel_capacity wants regexes of str, not {pattern!r}")
        self.kind = REGEX
        self.stem = _literal_stem(pattern)
        self.match = pattern.match


@cython.final
@cython.auto_pickle(False)
cdef class CapacityTable:
    """The capacity of each channel, from a default and ordered (pattern, capacity) rules.

    A str pattern is a glob, matched as fnmatch.translate says; any other must have a match
    method as compiled regexes have. Raises InvalidSetting, a ValueError that names the
    value, for a capacity that is no int or negative and for a pattern that is neither. May
    be used by several threads at once.
    """

    cdef readonly object default
    cdef tuple rules
    cdef dict memo

    def __cinit__(self, object default, object rules):
        self.default = _checked(default, "capacity")
        self.rules = tuple([_Rule(pattern, capacity) for pattern, capacity in rules])
        self.memo = {}

    def lookup(self, object channel):
        """Return the capacity (int, messages) of a channel (str, its full name).

        The first rule that matches decides, else the default (Channels'
        BaseChannelLayer.get_capacity). Raises TypeError for anything but a str.
        """
        if not PyUnicode_Check(channel):
            raise TypeError(f"channel name must be a str, not {channel!r}")
        capacity = self._decide(channel, False)
        return self._recall(channel) if capacity is None else capacity

    cdef object _decide(self, object channel, bint call_regexes):
        # None when a regex would have to be called and may not be.
        cdef _Rule rule
        cdef Py_ssize_t length = PyUnicode_GET_LENGTH(channel)
        for item in self.rules:
            rule = <_Rule> item
            if not PyUnicode_Tailmatch(channel, rule.stem, 0, length, -1):
                continue
            if rule.kind == REGEX:
                if not call_regexes:
                    return None
                if not rule.match(channel):
                    continue
            elif rule.kind == EXACT and PyUnicode_GET_LENGTH(rule.stem) != length:
                continue
            return rule.capacity
        return self.default

    @cython.critical_section  # without the GIL, the lock that keeps the memo whole
    cdef object _recall(self, object channel):
        capacity = self.memo.get(channel)
        if capacity is None:
            capacity = self._decide(channel, True)
            if len(self.memo) >= MEMO_LIMIT:
                self.memo.clear()
            # A copy of the name: an object of a subclass may be one whose end is awaited.
            self.memo[PyUnicode_FromObject(channel)] = capacity
        return capacity
