"""The random numbers of ``java.util.Random``, whose algorithm Java's documentation fixes."""

from __future__ import annotations

_MULTIPLIER = 0x5DEECE66D
_MASK = (1 << 48) - 1


class JavaRandom:
    """A linear congruential generator of 48 bits.

    Parameters
    ----------
    seed : int
        A Java ``long``.
    """

    def __init__(self, seed: int) -> None:
        self.set_seed(seed)

    def set_seed(self, seed: int) -> None:
        self.state = (seed ^ _MULTIPLIER) & _MASK

    def _next(self, bits: int) -> int:
        self.state = (self.state * _MULTIPLIER + 11) & _MASK
        return self.state >> (48 - bits)

    def next_int(self) -> int:
        """Uniform over the 32-bit integers."""
        value = self._next(32)
        return value - (1 << 32) if value & (1 << 31) else value

    def next_below(self, bound: int) -> int:
        """Uniform over 0..bound - 1; Java's ``nextInt(bound)``."""
        value = self._next(31)
        if bound & (bound - 1) == 0:
            return (bound * value) >> 31
        while value - value % bound + bound - 1 >= 1 << 31:  # the last, incomplete run of 31-bit numbers
            value = self._next(31)
        return value % bound

    def next_double(self) -> float:
        """Uniform over 0 <= x < 1, in steps of 2**-53."""
        high = self._next(26)
        return ((high << 27) + self._next(27)) * 2.0**-53
